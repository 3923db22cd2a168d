"""One participant on the Python SDK, driven by lines of JSON.

    participant.py URL TOKEN [two]

With "two" it keeps two connections, one for each direction, as older protocols have it.
Standard input takes one command a line, standard output answers each with one line:

    {"do": "publish"}                          camera and microphone, both synthetic
    {"do": "unpublish"}
    {"do": "mute", "muted": true}              the microphone
    {"do": "data", "text": "…", "reliable": true, "topic": "…"}
    {"do": "text", "text": "…", "topic": "…"}  a text stream
    {"do": "rpc", "to": "…", "method": "…", "payload": "…"}
    {"do": "attributes", "attributes": {…}}
    {"do": "metadata", "text": "…"}
    {"do": "name", "text": "…"}
    {"do": "resume"}                           loses its signal connection
    {"do": "restart"}                          begins anew
    {"do": "report"}                           what was received since the start
    {"do": "leave"}                            also at the end of the input

It answers the RPC method "echo" and reads text streams of the topic "notes".
"""

import array
import asyncio
import json
import math
import sys
import time

from livekit import rtc
from livekit.rtc._proto.room_pb2 import SimulateScenarioKind as Scenario

WIDTH, HEIGHT, FPS = 320, 180, 15
RATE, BLOCK = 48_000, 480


class Participant:
    """A room and what came out of it."""

    def __init__(self) -> None:
        self.room = rtc.Room()
        self.tasks: set[asyncio.Task] = set()
        self.frames: dict[str, int] = {}
        self.sizes: dict[str, list[int]] = {}
        self.peaks: dict[str, int] = {}
        self.blocks: dict[str, int] = {}
        self.loud: dict[str, int] = {}
        self.data: list[dict] = []
        self.texts: list[dict] = []
        self.events: list[str] = []
        self.published: list[rtc.LocalTrackPublication] = []
        self.feeds: list[asyncio.Task] = []
        self._listen()

    def start(self, work) -> asyncio.Task:
        """A background task that is not forgotten."""
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def _listen(self) -> None:
        room = self.room

        @room.on("track_subscribed")
        def _(track, publication, who):
            self.events.append(f"subscribed {who.identity} {publication.name}")
            if track.kind == rtc.TrackKind.KIND_VIDEO:
                self.start(self._watch(who.identity, track))
            else:
                self.start(self._hear(who.identity, track))

        @room.on("data_received")
        def _(packet):
            self.data.append(
                {
                    "text": bytes(packet.data).decode(errors="replace"),
                    "from": packet.participant.identity if packet.participant else "",
                    "topic": packet.topic or "",
                    "reliable": packet.kind == rtc.DataPacketKind.KIND_RELIABLE,
                }
            )

        def note(name):
            def add(*args):
                who = next((a.identity for a in args if isinstance(a, rtc.Participant)), "")
                self.events.append(f"{name} {who}".strip())

            room.on(name, add)

        for name in (
            "participant_connected",
            "participant_disconnected",
            "track_unsubscribed",
            "track_muted",
            "track_unmuted",
            "active_speakers_changed",
            "participant_attributes_changed",
            "participant_name_changed",
            "reconnecting",
            "reconnected",
            "disconnected",
        ):
            note(name)

        def read(reader, who):
            self.start(self._read(reader, who))

        room.register_text_stream_handler("notes", read)

    async def _read(self, reader, who) -> None:
        self.texts.append({"text": await reader.read_all(), "from": who})

    async def _watch(self, who: str, track) -> None:
        async for event in rtc.VideoStream(track):
            self.frames[who] = self.frames.get(who, 0) + 1
            self.sizes[who] = [event.frame.width, event.frame.height]

    async def _hear(self, who: str, track) -> None:
        async for event in rtc.AudioStream(track):
            self.blocks[who] = self.blocks.get(who, 0) + 1
            peak = max(event.frame.data)
            self.peaks[who] = max(self.peaks.get(who, 0), peak)
            self.loud[who] = self.loud.get(who, 0) + (peak > 300)

    async def join(self, url: str, token: str, mode: str = "") -> None:
        options = rtc.RoomOptions(auto_subscribe=True, single_peer_connection=mode != "two")
        await self.room.connect(url, token, options)

        @self.room.local_participant.register_rpc_method("echo")
        async def _(call):
            return f"{call.caller_identity}: {call.payload}"

    async def publish(self) -> None:
        me = self.room.local_participant
        for feed in self.feeds:
            feed.cancel()
        self.published = []
        video = rtc.VideoSource(WIDTH, HEIGHT)
        audio = rtc.AudioSource(RATE, 1)
        camera = rtc.LocalVideoTrack.create_video_track("camera", video)
        microphone = rtc.LocalAudioTrack.create_audio_track("microphone", audio)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA)
        self.published.append(await me.publish_track(camera, options))
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        self.published.append(await me.publish_track(microphone, options))
        self.feeds = [self.start(self._paint(video)), self.start(self._sing(audio))]

    async def _paint(self, source) -> None:
        """Slanted bars that move."""
        ramp = bytes(16 + (x * 4) % 220 for x in range(WIDTH * 2))
        chroma = bytes([110]) * (WIDTH * HEIGHT // 4) + bytes([150]) * (WIDTH * HEIGHT // 4)
        for n in range(1 << 30):
            rows = ((n * 4 + y) % WIDTH for y in range(HEIGHT))
            picture = b"".join(ramp[x : x + WIDTH] for x in rows) + chroma
            kind = rtc.VideoBufferType.I420
            source.capture_frame(rtc.VideoFrame(WIDTH, HEIGHT, kind, bytearray(picture)))
            await asyncio.sleep(1 / FPS)

    async def _sing(self, source) -> None:
        """A tone of 440 Hz."""
        wave = [int(9_000 * math.sin(2 * math.pi * 440 * i / RATE)) for i in range(RATE)]
        tone = array.array("h", wave).tobytes()
        for n in range(1 << 30):
            at = (n * BLOCK % RATE) * 2
            block = bytearray(tone[at : at + BLOCK * 2])
            await source.capture_frame(rtc.AudioFrame(block, RATE, 1, BLOCK))

    async def unpublish(self) -> None:
        for feed in self.feeds:
            feed.cancel()
        for publication in self.published:
            await self.room.local_participant.unpublish_track(publication.sid)
        self.published = []

    def report(self) -> dict:
        everyone = self.room.remote_participants.values()
        return {
            "state": rtc.ConnectionState.Name(self.room.connection_state),
            "participants": [p.identity for p in everyone],
            "names": {p.identity: p.name for p in everyone},
            "attributes": {p.identity: dict(p.attributes) for p in everyone},
            "others": {p.identity: self._other(p) for p in everyone},
            "mayPublish": self.room.local_participant.permissions.can_publish,
            "published": len(self.room.local_participant.track_publications),
            "frames": self.frames,
            "sizes": self.sizes,
            "blocks": self.blocks,
            "peaks": self.peaks,
            "data": self.data,
            "texts": self.texts,
            "events": self.events,
        }

    def _other(self, them) -> dict:
        tracks = them.track_publications.values()
        audio = rtc.TrackKind.KIND_AUDIO
        return {
            "sid": them.sid,
            "name": them.name,
            "metadata": them.metadata,
            "attributes": dict(them.attributes),
            "tracks": len(tracks),
            "muted": any(track.muted for track in tracks if track.kind == audio),
            "frames": self.frames.get(them.identity, 0),
            "sounds": self.loud.get(them.identity, 0),
        }

    async def obey(self, command: dict):
        """Does one thing."""
        me = self.room.local_participant
        match command["do"]:
            case "publish":
                await self.publish()
            case "unpublish":
                await self.unpublish()
            case "mute":
                track = self.published[1].track
                track.mute() if command["muted"] else track.unmute()
            case "data":
                reliable, topic = command.get("reliable", True), command.get("topic", "")
                await me.publish_data(command["text"], reliable=reliable, topic=topic)
            case "text":
                await me.send_text(command["text"], topic=command.get("topic", "notes"))
            case "rpc":
                return await me.perform_rpc(
                    destination_identity=command["to"],
                    method=command["method"],
                    payload=command["payload"],
                )
            case "attributes":
                await me.set_attributes(command["attributes"])
            case "name":
                await me.set_name(command["text"])
            case "metadata":
                await me.set_metadata(command["text"])
            case "resume":
                await self.room.simulate_scenario(Scenario.SIMULATE_SIGNAL_RECONNECT)
            case "restart":
                await self.room.simulate_scenario(Scenario.SIMULATE_FULL_RECONNECT)
            case "report":
                return self.report()
            case other:
                raise ValueError(f"unknown command {other}")
        return None


async def main(url: str, token: str, mode: str = "") -> None:
    person = Participant()
    started = time.monotonic()
    await person.join(url, token, mode)
    say({"joined": round(time.monotonic() - started, 3)})
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        if command["do"] == "leave":
            break
        started = time.monotonic()
        try:
            answer = await person.obey(command)
            say({"ok": True, "answer": answer, "took": round(time.monotonic() - started, 3)})
        except Exception as error:  # The driver decides what a failure means.
            say({"ok": False, "error": f"{type(error).__name__}: {error}"})
    # Whatever still feeds or reads a track would call into a library that is closing.
    for task in person.tasks:
        task.cancel()
    await asyncio.gather(*person.tasks, return_exceptions=True)
    await person.room.disconnect()
    say({"left": True})


def say(answer: dict) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
