"""The Python SDK against a room server: everything that two participants do to each other.

    BEDSIDE_URL=http://127.0.0.1:8000 test_sdk.py

Keys are taken from BEDSIDE_API_KEY and BEDSIDE_API_SECRET (else devkey and secret).
"""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
import unittest
import uuid
from pathlib import Path

URL = os.environ.get("BEDSIDE_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("BEDSIDE_API_KEY", "devkey")
SECRET = os.environ.get("BEDSIDE_API_SECRET", "secret")
ROOM = f"python-{uuid.uuid4().hex[:8]}"


def token(identity: str, **grant) -> str:
    """A room token, as any server library would make it."""
    video = {"roomJoin": True, "room": ROOM, "canUpdateOwnMetadata": True, **grant}
    claims = {"iss": KEY, "sub": identity, "exp": int(time.time()) + 600, "video": video}

    def part(value) -> str:
        text = json.dumps(value).encode()
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

    head = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}"
    tag = hmac.new(SECRET.encode(), head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(tag).rstrip(b'=').decode()}"


class Person:
    """A participant in a process of its own."""

    def __init__(self, identity: str, mode: str = "", **grant) -> None:
        script = Path(__file__).with_name("participant.py")
        url = URL.replace("http", "ws")
        command = [sys.executable, str(script), url, token(identity, **grant), mode]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.joined = self._read()["joined"]

    def _read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise EOFError(f"the participant ended with {self.process.wait()}")
        return json.loads(line)

    def do(self, what: str, **more) -> dict:
        self.process.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def must(self, what: str, **more):
        answer = self.do(what, **more)
        assert answer["ok"], answer
        return answer["answer"]

    def report(self) -> dict:
        return self.must("report")

    def leave(self) -> None:
        if self.process.poll() is None:
            self.do("leave")
            self.process.wait(10)
        self.process.stdin.close()
        self.process.stdout.close()


def eventually(check, seconds: float = 60):
    """Waits until something holds, and returns it."""
    end = time.monotonic() + seconds
    while not (found := check()):
        if time.monotonic() > end:
            raise AssertionError("it did not happen in time")
        time.sleep(0.2)
    return found


class Sdk(unittest.TestCase):
    """In the order of their names."""

    @classmethod
    def setUpClass(cls) -> None:
        # One connection for both directions, and one for each.
        cls.ann = Person("ann")
        cls.bob = Person("bob", "two")

    @classmethod
    def tearDownClass(cls) -> None:
        for person in (cls.ann, cls.bob):
            person.leave()

    def test_1_media_both_ways(self) -> None:
        for person in (self.ann, self.bob):
            person.must("publish")
        for person, other in ((self.ann, "bob"), (self.bob, "ann")):
            self._media(person, other)
        print(f"joins took {self.ann.joined} s and {self.bob.joined} s")

    def _media(self, person: Person, other: str) -> None:
        before = person.report()
        frames, blocks = before["frames"].get(other, 0), before["blocks"].get(other, 0)
        wanted = lambda report: (
            report["frames"].get(other, 0) >= frames + 30
            and report["blocks"].get(other, 0) >= blocks + 100
            and report["peaks"].get(other, 0) > 1_000
        )
        try:
            eventually(lambda: wanted(person.report()))
        except AssertionError as error:
            raise AssertionError(f"{other}: {before}, then {person.report()}") from error

    def test_2_data(self) -> None:
        for n in range(50):
            self.ann.must("data", text=str(n), topic="r")
        for n in range(20):
            self.ann.must("data", text=str(n), reliable=False, topic="l")
        got = lambda topic: [d for d in self.bob.report()["data"] if d["topic"] == topic]
        eventually(lambda: len(got("r")) == 50)
        self.assertEqual([d["text"] for d in got("r")], [str(n) for n in range(50)])
        self.assertTrue(all(d["from"] == "ann" and d["reliable"] for d in got("r")))
        eventually(lambda: len(got("l")) >= 18)
        self.assertTrue(all(not d["reliable"] for d in got("l")))
        self.assertEqual(self.ann.report()["data"], [])

    def test_3_text_and_calls(self) -> None:
        text = "How are you today? " * 3_000
        self.ann.must("text", text=text)
        texts = eventually(lambda: self.bob.report()["texts"])
        self.assertEqual(texts, [{"text": text, "from": "ann"}])
        answer = self.bob.must("rpc", to="ann", method="echo", payload="pulse?")
        self.assertEqual(answer, "bob: pulse?")
        refused = self.bob.do("rpc", to="ann", method="unheard-of", payload="")
        self.assertFalse(refused["ok"])

    def test_4_name_and_attributes_are_answered_at_once(self) -> None:
        # Without an answer to the request the SDK waits for five seconds.
        for change in ({"do": "attributes", "attributes": {"mood": "fine"}}, {"do": "name", "text": "Ann"}):
            answer = self.ann.do(change.pop("do"), **change)
            self.assertTrue(answer["ok"], answer)
            self.assertLess(answer["took"], 2)
        eventually(lambda: self.bob.report()["attributes"]["ann"] == {"mood": "fine"})
        eventually(lambda: self.bob.report()["names"]["ann"] == "Ann")

    def test_5_mute_is_seen(self) -> None:
        self.ann.must("mute", muted=True)
        eventually(lambda: "track_muted ann" in self.bob.report()["events"])
        self.ann.must("mute", muted=False)
        eventually(lambda: "track_unmuted ann" in self.bob.report()["events"])
        self._media(self.bob, "ann")

    def test_6_tracks_come_and_go(self) -> None:
        for _ in range(2):
            before = self.bob.report()["events"].count("track_unsubscribed ann")
            self.ann.must("unpublish")
            gone = lambda: self.bob.report()["events"].count("track_unsubscribed ann")
            eventually(lambda: gone() == before + 2)
            self.ann.must("publish")
            self._media(self.bob, "ann")

    def test_7_a_late_joiner_gets_everything(self) -> None:
        eve = Person("eve")
        try:
            for other in ("ann", "bob"):
                self._media(eve, other)
        finally:
            eve.leave()
        eventually(lambda: "participant_disconnected eve" in self.bob.report()["events"])

    def test_8_without_the_right_nothing_is_published(self) -> None:
        guest = Person("guest", canPublish=False)
        try:
            self.assertFalse(guest.do("publish")["ok"])
            self._media(guest, "ann")
        finally:
            guest.leave()

    def test_9_the_first_of_two_equals_is_replaced(self) -> None:
        twin = Person("bob")
        try:
            gone = lambda: "disconnected" in self.bob.report()["events"]
            eventually(gone)
            self._media(twin, "ann")
        finally:
            twin.leave()


if __name__ == "__main__":
    unittest.main(verbosity=2)
