"""Throws the description of the API at the running server, by schemathesis.

Starts the binary on a free port with a database of its own, makes consultations of each kind, and
has every operation of `/api/openapi.json` called with data that fits and data that does not, by who
may call it. Fails on any 5xx, on any answer that the description does not know, and if an operation
was never answered with success. What chance does not find (the feedback on a consultation that is
over, the picture among all bytes) is walked by hand first.

    python tests/api/run.py target/debug/bedside
"""

import base64
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

KEY, SECRET = "clinic", "0123456789abcdef0123456789abcdef"
# Enough consultations that ending many of them leaves some to work on.
CONSULTATIONS = 300
# The appointments of the description's examples: one to work on, one to end.
EXAMPLE, ENDED = "6f1c2f0e-6d0b-4a53-9a0c-8f5f5f0d7a11", "1d4b6c2e-93a1-4f0d-8a39-2a6c9f1f7b22"
# Examples per operation and phase: all of it takes less than four minutes.
EXAMPLES = os.environ.get("API_EXAMPLES", "30")
# Who calls what: everything as a service, and again what people and administrators alone may.
RUNS = [("service", "."), ("doctor", "/(chat|attachments|feedback)"), ("admin", "/(audit|keys|tokens)")]
# A PNG of one pixel.
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Server:
    """The binary, with nothing of the tester's own settings."""

    def __init__(self, binary: str, folder: Path):
        self.binary = binary
        environment = {
            "BEDSIDE_API_KEY": KEY,
            "BEDSIDE_API_SECRET": SECRET,
            "BEDSIDE_HTTP__LISTEN": "127.0.0.1:0",
            "BEDSIDE_MEDIA__BIND": "127.0.0.1",
            "BEDSIDE_MEDIA__PORT": "0",
            "BEDSIDE_TURN__PORT": "0",
            "BEDSIDE_LOG__FILTER": "info",
            "DATABASE_URL": f"sqlite:{folder}/clinic.db",
        }
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [binary, "serve"], env=environment, cwd=folder, stderr=subprocess.PIPE, text=True
        )
        self.bound = threading.Event()
        self.url = ""
        threading.Thread(target=self._read, daemon=True).start()
        if not self.bound.wait(60):
            sys.exit("the server did not start:\n" + "".join(self.log))
        deadline = time.monotonic() + 60
        while self.ask("GET", "/health")[0] != 200:
            if time.monotonic() > deadline:
                sys.exit("the server is not healthy:\n" + "".join(self.log))
            time.sleep(0.1)

    def _read(self) -> None:
        for line in self.process.stderr or []:
            self.log.append(line)
            found = re.search(r"bound http=(\S+)", re.sub(r"\x1b\[[0-9;]*m", "", line))
            if found:
                self.url = f"http://{found.group(1)}"
                self.bound.set()

    def token(self, role: str, user: str) -> str:
        command = [self.binary, "token", "api", "--role", role, "--user", user]
        environment = {"BEDSIDE_API_KEY": KEY, "BEDSIDE_API_SECRET": SECRET}
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return answer.stdout.strip()

    def ask(self, method: str, path: str, token: str = "", body: object = None) -> tuple[int, dict]:
        request = urllib.request.Request(self.url + path, method=method)
        if token:
            request.add_header("authorization", f"Bearer {token}")
        data = None
        if isinstance(body, bytes):
            data = body
            request.add_header("content-type", "application/octet-stream")
        elif body is not None:
            data = json.dumps(body).encode()
            request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, data, timeout=30) as answer:
                content = answer.read()
                told = answer.headers.get_content_subtype() == "json"
                return answer.status, json.loads(content) if told and content else {}
        except urllib.error.HTTPError as error:
            return error.code, {}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def fill(server: Server, service: str) -> tuple[list[str], list[str]]:
    """Makes consultations: planned, with somebody waiting, running, over."""
    sessions, appointments = [], []
    names = [EXAMPLE, *(f"appointment-{number}" for number in range(CONSULTATIONS)), ENDED]
    for number, appointment in enumerate(names):
        status, made = server.ask("POST", "/api/v1/consultations/sessions", service, {
            "appointmentId": appointment,
            "doctorId": "doc123",
            "patientId": "pat456",
            "consultationMode": "VIDEO",
            "maxParticipants": 3,
        })
        assert status == 201, status
        session = made["sessionId"]
        path = f"/api/v1/consultations/sessions/{session}"
        if number % 4 >= 1:
            server.ask("POST", f"{path}/join", service, {"userId": "pat456"})
        if number % 4 >= 2:
            server.ask("POST", f"{path}/admit", service, {"userId": "pat456"})
        if number % 4 == 3:
            server.ask("POST", f"{path}/end", service, {})
        # Those that are over come first: what needs a living one has the others.
        place = 0 if number % 4 == 3 else len(sessions)
        sessions.insert(place, session)
        appointments.insert(place, made["appointmentId"])
    return sessions, appointments


Answered = dict[str, collections.Counter]


def walk(server: Server, tokens: dict[str, str]) -> Answered:
    """What a fuzzer does not come to: each step needs the one before, or a role, or a real picture."""
    answered: Answered = collections.defaultdict(collections.Counter)
    top = "/api/v1/consultations"

    def step(who: str, method: str, template: str, body: object = None, **ids: str) -> dict:
        path = template
        for name, value in ids.items():
            path = path.replace("{%s}" % name, value)
        status, answer = server.ask(method, path, tokens[who], body)
        answered[f"{method} {template}"][status] += 1
        return answer

    def made(appointment: str) -> str:
        return step("service", "POST", f"{top}/sessions", {
            "appointmentId": appointment, "doctorId": "doc123", "patientId": "pat456",
            "consultationMode": "VIDEO"})["sessionId"]

    session, one = made("walked"), f"{top}/sessions/{{id}}"
    step("doctor", "POST", f"{one}/join", {}, id=session)
    step("patient", "POST", f"{one}/join", {}, id=session)
    step("doctor", "POST", f"{one}/admit", {"userId": "pat456"}, id=session)
    step("service", "POST", f"{one}/links", {"userId": "pat456", "role": "patient"}, id=session)
    picture = base64.b64decode(PICTURE)
    shown = step("doctor", "POST", f"{one}/attachments", picture, id=session)
    attachment = shown.get("attachment") or {}
    step("patient", "GET", f"{one}/attachments/{{attachment}}", id=session,
         attachment=str(attachment.get("attachmentId", attachment.get("id", ""))))
    message = step("doctor", "POST", f"{one}/chat", {"content": "hello"}, id=session)["messageId"]
    for mark in ("delivered", "read"):
        step("patient", "POST", f"{one}/chat/{mark}", {"messageId": message}, id=session)
    step("doctor", "DELETE", f"{one}/chat/{{message}}", id=session, message=message)
    step("doctor", "POST", f"{one}/end", {}, id=session)
    step("patient", "POST", f"{one}/feedback", {"overallRating": 5}, id=session)
    step("patient", "GET", f"{one}/feedback", id=session)
    step("admin", "PATCH", f"{one}/feedback", {"isPublic": True}, id=session)
    step("doctor", "POST", f"{one}/feedback/response", {"response": "thank you"}, id=session)
    step("doctor", "POST", f"{one}/no-show", {}, id=made("never-came"))
    price = {"consultationMode": "VIDEO", "flatFee": "5.00", "currency": "INR"}
    step("admin", "PUT", f"{top}/pricing/{{doctorId}}", price, doctorId="doc123")
    step("admin", "GET", f"{top}/pricing/{{doctorId}}", doctorId="doc123")
    key = step("admin", "POST", "/api/v1/keys", {"name": "ward", "scopes": ["chat:read"]})
    step("admin", "GET", "/api/v1/keys")
    step("admin", "DELETE", "/api/v1/keys/{key}", key=str(key.get("keyId", key.get("id", ""))))
    step("admin", "POST", "/api/v1/tokens/revoke", {"token": server.token("doctor", "gone")})
    step("admin", "GET", "/api/v1/audit")
    return answered


def check(server: Server) -> tuple[str, str]:
    """A connection check with its report: its ticket and its code."""
    status, begun = server.ask("POST", "/api/v1/checks", body={})
    assert status == 201, status
    status, stored = server.ask("POST", "/api/v1/checks/results", body={
        "ticket": begun["ticket"],
        "report": {
            "browser": {"name": "firefox", "version": 140, "system": "linux"},
            "findings": [{"subject": "udp", "outcome": "ok", "ms": 90}],
        },
    })
    assert status == 201, status
    return begun["ticket"], stored["code"]


def settings(
    sessions: list[str],
    appointments: list[str],
    links: list[str],
    secrets: list[str],
    checked: tuple[str, str],
) -> str:
    """Ids that exist, most of the time."""
    third = len(sessions) // 3
    known = {
        "secrets": secrets,
        "tickets": [checked[0]],
        "codes": [checked[1]],
        # What ends consultations has some of its own, so that the rest stays alive.
        "ending": sessions[:third],
        "ending-appointments": appointments[:third],
        "sessions": sessions[third:],
        "appointments": appointments[third:],
        "links": links,
        "users": ["doc123", "pat456"],
        "roles": ["doctor"],
    }
    lines = []
    for name, values in known.items():
        lines += [f"[dictionaries.{name}]", f"values = {json.dumps(values)}"]
    lines += [
        "[parameters]",
        '"path.id" = { dictionary = "sessions", probability = 0.9 }',
        '"path.link" = { dictionary = "links", probability = 0.9 }',
        '"body.ticket" = { dictionary = "tickets", probability = 0.9 }',
        '"path.code" = { dictionary = "codes", probability = 0.9 }',
        '"body.link" = { dictionary = "secrets", probability = 0.5 }',
        '"body.appointmentId" = { dictionary = "appointments", probability = 0.6 }',
        '"body.sessionId" = { dictionary = "sessions", probability = 0.2 }',
        '"body.userRole" = { dictionary = "roles", probability = 0.4 }',
        *(f'"body.{name}" = {{ dictionary = "users", probability = 0.6 }}'
          for name in ("userId", "user_id", "doctorId", "doctor_id", "patientId", "patient_id")),
        # What fits the description may still not fit the state (402, 410) or the rest of the
        # body (422); what does not fit it must be refused.
        "[checks.positive_data_acceptance]",
        'expected-statuses = ["2xx", "3xx", "401", "402", "403", "404", "409", "410", "413", "422", "429", "503"]',
        # A ticket that is none is Gone, whatever its length.
        "[checks.negative_data_rejection]",
        'expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "410", "413", "415", "422", "428", "429", "5xx"]',
        "[checks.not_a_server_error]",
        # A part that is not configured says so.
        'expected-statuses = ["2xx", "3xx", "4xx", "503"]',
    ]
    for pattern, dictionary in [
        ("/sessions/{id}/(end|cancel|no-show)$", "ending"),
        ("/(appointments|video-consultations)/.*(start|token|status|session|report|payment)$",
         "appointments"),
        ("/(appointments|video-consultations)/.*end$", "ending-appointments"),
        ("/sessions/(doctor|patient)/", "users"),
    ]:
        lines += [
            "[[operations]]",
            f"include-path-regex = {json.dumps(pattern)}",
            f'parameters = {{ "path.id" = {{ dictionary = "{dictionary}", probability = 0.9 }} }}',
        ]
    lines += [
        "[[operations]]",
        # Which texts and which files are none, no schema says.
        'include-path-regex = "/(chat|attachments)$"',
        "[operations.checks.positive_data_acceptance]",
        'expected-statuses = ["2xx", "400", "401", "402", "403", "404", "409", "413", "415", "422", "429", "503"]',
        "[[operations]]",
        'include-path = "/api/video/consultation/end"',
        'parameters = { "body.appointmentId" = { dictionary = "ending-appointments" } }',
    ]
    return "\n".join(lines) + "\n"


def count(report: Path, answered: Answered) -> None:
    """Adds what a run was answered."""
    for line in report.read_text().splitlines():
        scenario = json.loads(line).get("ScenarioFinished")
        if not scenario:
            continue
        recorder = scenario["recorder"]
        for case, interaction in recorder.get("interactions", {}).items():
            known = recorder["cases"].get(case, {}).get("value", {})
            response = interaction.get("response")
            if response:
                name = f"{known.get('method')} {known.get('path')}"
                answered[name][response["status_code"]] += 1


def unreached(answered: Answered, description: dict) -> list[str]:
    """Operations that were never answered with success."""
    missing = []
    for path, item in description["paths"].items():
        for method in item:
            statuses = answered[f"{method.upper()} {path}"]
            if not any(status < 300 for status in statuses):
                missing.append(f"{method.upper()} {path}: {dict(statuses)}")
    return missing


def throw(server: Server, token: str, paths: str, report: Path) -> int:
    """One run over the operations whose path fits; 1 if it found something."""
    schemathesis = str(Path(sys.executable).with_name("schemathesis"))
    command = [
        schemathesis, "--config-file", str(report.with_name("schemathesis.toml")),
        "run", f"{server.url}/api/openapi.json", "--include-path-regex", paths,
        "--header", f"Authorization: Bearer {token}",
        "--checks", "all", "--max-examples", EXAMPLES,
        "--phases", "examples,coverage,fuzzing", "--continue-on-failure",
        "--generation-database", "none", "--seed", os.environ.get("API_SEED", "1"),
        "--generation-allow-x00", "true", "--warnings", "off",
        "--report", "ndjson", "--report-ndjson-path", str(report), *sys.argv[2:],
    ]
    return int(subprocess.run(command, cwd=report.parent, check=False).returncode != 0)


def main() -> int:
    binary = str(Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(binary, folder)
        try:
            service = server.token("service", "booking")
            sessions, appointments = fill(server, service)
            links, secrets = [], []
            for session in sessions[:80]:
                path = f"/api/v1/consultations/sessions/{session}/links"
                body = {"userId": "pat456", "role": "patient"}
                status, made = server.ask("POST", path, service, body)
                if status == 201:
                    links.append(made["linkId"])
                    secrets.append(made["link"].split("#")[1])
            # Some stay whole while the others are revoked.
            half = len(links) // 2
            toml = settings(sessions, appointments, links[:half], secrets[half:], check(server))
            (folder / "schemathesis.toml").write_text(toml)
            users = {"doctor": "doc123", "patient": "pat456", "admin": "boss"}
            tokens = {role: server.token(role, user) for role, user in users.items()}
            tokens["service"] = service
            answered = walk(server, tokens)
            failed = 0
            for role, paths in RUNS:
                report = folder / f"{role}.ndjson"
                failed += throw(server, tokens[role], paths, report)
                count(report, answered)
            _, description = server.ask("GET", "/api/openapi.json")
            missing = [] if len(sys.argv) > 2 else unreached(answered, description)
            operations = sum(len(item) for item in description["paths"].values())
        finally:
            server.stop()
        for line in missing:
            print("never answered with success:", line)
        good = operations - len(missing)
        print(f"{good} passed, {len(missing) + failed} failed")
        return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main())
