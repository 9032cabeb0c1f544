"""GitHub's alerts over real HTTP on this machine: what is let in, once; what becomes of it; and that no value stays behind."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from rotation.clock import SystemClock
from rotation.errors import Code, Trouble
from rotation.incident.record import Incident, State
from rotation.incident.run import Runner, Tapped
from rotation.leaks.finding import Finding
from rotation.model import SecretValue
from rotation.observe.serving import plain
from rotation.ports import Severity
from rotation.resilience import Limits, Service
from rotation.webhook import delivery, memory, server
from rotation.webhook.alerts import Alerts
from rotation.webhook.delivery import Alert, Malformed
from rotation.webhook.memory import Deliveries
from rotation.webhook.opening import RAN_BY, Opening
from rotation.webhook.server import Certificate, Intake, Rate, Secret, receiving
from rotation.webhook.worker import AGAIN, Worker
from tests.incident.site import Site, policy
from tests.world import START, FakeClock

SECRET = "the-webhooks-own-secret"
CHAT = "support-copilot-chat"
ID = "72d3162e-cc78-11e3-81ab-4c9367dc0958"


def payload(action: str = "created", number: int = 42, repository: str = "acme/app", **alert: Any) -> dict[str, Any]:
    """As GitHub sends it, as far as it matters; there is no value in it."""
    url = f"https://api.github.com/repos/{repository}/secret-scanning/alerts/{number}"
    about = {"number": number, "url": url, "secret_type": "openai_api_key", "resolution": None, **alert}
    return {"action": action, "alert": about, "repository": {"full_name": repository, "private": True}, "sender": {}}


def signature(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


# --- what a delivery says ------------------------------------------------------------------------


def test_the_signature_is_githubs() -> None:
    """The example of its documentation: https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries."""
    found = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    secret = SecretValue("It's a Secret to Everybody")
    assert delivery.signed(secret, b"Hello, World!", found)
    assert not delivery.signed(secret, b"Hello, World?", found)


@pytest.mark.parametrize("given", [None, "", "sha256=", "sha1=757107ea", "sha256=" + "0" * 64, "sha256=é", "\udcff"])
def test_nothing_else_is_a_signature(given: str | None) -> None:
    """Whatever stands in the header."""
    assert not delivery.signed(SecretValue(SECRET), b"{}", given)


@pytest.mark.parametrize("action", ["created", "reopened", "publicly_leaked"])
def test_an_alert_is_told_by_its_repository_and_number(action: str) -> None:
    """And by the digest of what was signed."""
    body = json.dumps(payload(action)).encode()
    found = delivery.read("secret_scanning_alert", body)
    assert found == Alert("acme/app", 42, action, hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize(
    ("event", "body"),
    [
        ("ping", b'{"zen": "x"}'),
        ("ping", b"not even JSON"),
        ("push", b"{}"),
        (None, b"{}"),
        ("secret_scanning_alert_location", json.dumps(payload()).encode()),
        ("secret_scanning_alert", json.dumps(payload("resolved")).encode()),
        ("secret_scanning_alert", json.dumps(payload("validated")).encode()),
    ],
)
def test_other_events_and_actions_do_nothing(event: str | None, body: bytes) -> None:
    """They are answered kindly, or GitHub would show them as failed."""
    assert isinstance(delivery.read(event, body), str)


HOSTILE = {
    "nothing": b"",
    "binary": b"\xff\xfe\x00\x01",
    "half": b'{"action": "created"',
    "list": b"[]",
    "deep": b'{"action":' * 200_000,
    "deep list": b"[" * 400_000,
    "text": b'"created"',
    "no action": b"{}",
    "action of a kind": json.dumps(payload() | {"action": ["created"]}).encode(),
    "no alert": b'{"action": "created", "repository": {"full_name": "a/b"}}',
    "alert a list": b'{"action": "created", "alert": [], "repository": {"full_name": "a/b"}}',
    "number a text": json.dumps(payload(number="42")).encode(),  # type: ignore[arg-type]
    "number true": json.dumps(payload(number=True)).encode(),
    "number nothing": json.dumps(payload(number=0)).encode(),
    "number huge": json.dumps(payload(number=10**30)).encode(),
    "number NaN": b'{"action": "created", "alert": {"number": NaN}, "repository": {"full_name": "a/b"}}',
    "no repository": b'{"action": "created", "alert": {"number": 1}}',
    "repository up": json.dumps(payload(repository="acme/..")).encode(),
    "repository path": json.dumps(payload(repository="acme/app/../../orgs")).encode(),
    "repository query": json.dumps(payload(repository="acme/app?x=")).encode(),
    "repository lines": json.dumps(payload(repository="acme/app\n")).encode(),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bodies_are_refused_in_words_without_them(body: bytes) -> None:
    """No fault of another kind, and nothing of the body in what is said."""
    with pytest.raises(Malformed, match=r"^the (body|alert|repository) (is|has) ") as raised:
        delivery.read("secret_scanning_alert", body)
    assert raised.value.__cause__ is None


# --- what was taken ------------------------------------------------------------------------------


def alert(number: int = 42, action: str = "created") -> Alert:
    return Alert("acme/app", number, action, f"digest-{number}-{action}")


def deliveries(folder: Path, **limits: int) -> Deliveries:
    return Deliveries(folder / "deliveries.json", lambda: START, **limits)


def test_a_delivery_is_taken_once_by_its_id_and_by_its_body(tmp_path: Path) -> None:
    """Its id is not signed, so that whoever has heard one could send it again under another."""
    taken = deliveries(tmp_path)
    assert taken.take(ID, alert()) is True
    assert taken.take(ID, alert()) is False
    assert taken.take("another-id-1", alert()) is False
    assert taken.take(ID, alert(43)) is False
    assert taken.take("another-id-2", alert(43)) is True


def test_it_is_on_disk_for_the_next_process(tmp_path: Path) -> None:
    """With what is left to do; done once is done for ever."""
    first = deliveries(tmp_path)
    first.take(ID, alert())
    first.take("another-id", alert(43))
    first.end(alert(43), memory.State.DONE, "incident x planned")
    second = deliveries(tmp_path)
    assert second.left() == [alert()]
    assert second.take(ID, alert()) is second.take("another-id", alert(43)) is False
    assert (tmp_path / "deliveries.json").stat().st_mode & 0o777 == 0o600


def test_what_was_given_up_may_be_sent_again(tmp_path: Path) -> None:
    """That is what GitHub's button for it is for."""
    taken = deliveries(tmp_path)
    taken.take(ID, alert())
    taken.end(alert(), memory.State.GIVEN_UP, "away")
    assert taken.left() == []
    assert taken.take(ID, alert()) is True
    assert deliveries(tmp_path).left() == [alert()]


def test_the_memory_is_bounded_and_never_forgets_what_is_left_to_do(tmp_path: Path) -> None:
    """Of those that are done the oldest go; when too much waits, no more is taken."""
    taken = deliveries(tmp_path, room=3, waiting=2)
    for number in range(1, 6):
        taken.take(f"delivery-{number}", alert(number))
        taken.end(alert(number), memory.State.DONE, "")
    assert taken.take("delivery-5", alert(5)) is False
    assert taken.take("delivery-1", alert(1)) is True, "forgotten by now"
    taken.take("delivery-7", alert(7))
    with pytest.raises(Trouble) as raised:
        taken.take("delivery-8", alert(8))
    assert raised.value.code is Code.LIMIT
    assert [one.number for one in deliveries(tmp_path, room=3, waiting=2).left()] == [1, 7]


def test_what_can_not_be_written_down_is_not_taken(tmp_path: Path) -> None:
    """It is not known afterwards either."""
    taken = deliveries(tmp_path / "folder")
    (tmp_path / "folder").write_text("a file where the folder should be")
    with pytest.raises(Trouble) as raised:
        taken.take(ID, alert())
    assert raised.value.code is Code.UNAVAILABLE
    assert taken.left() == []


@pytest.mark.parametrize("text", ["", "[]", '{"deliveries": [1]}', '{"deliveries": [{"id": "x"}]}', "\x00"])
def test_a_file_of_something_else_is_told_as_such(tmp_path: Path, text: str) -> None:
    """To start anew without it would take everything once more; that is for a person to decide."""
    (tmp_path / "deliveries.json").write_text(text)
    with pytest.raises(Trouble, match="move it away"):
        deliveries(tmp_path)


def test_one_process_has_it(tmp_path: Path) -> None:
    """Two would write over each other's."""
    with deliveries(tmp_path).alone(), pytest.raises(Trouble) as raised, deliveries(tmp_path).alone():
        pytest.fail("had by two")
    assert raised.value.code is Code.CONFLICT
    with deliveries(tmp_path).alone():
        pass


# --- over HTTP -----------------------------------------------------------------------------------


@dataclass
class Door:
    """A server with its memory, and what went through."""

    port: int
    taken: Deliveries
    clock: SystemClock
    submitted: list[Alert] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    reads: int = 0
    """How often the secret was read."""

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body or None, headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def deliver(
        self,
        what: dict[str, Any] | bytes | None = None,
        *,
        identity: str = ID,
        secret: str = SECRET,
        **headers: str | None,
    ) -> int:
        """A POST as GitHub makes it; headers with _ for -, None for leaving one out. Gives the status."""
        body = what if isinstance(what, bytes) else json.dumps(what or payload()).encode()
        usual: dict[str, str | None] = {
            "Content-Type": "application/json",
            "X-GitHub-Event": "secret_scanning_alert",
            "X-GitHub-Delivery": identity,
            "X-Hub-Signature-256": signature(body, secret),
        }
        given = usual | {name.replace("_", "-"): text for name, text in headers.items()}
        status, _, answer = self.ask("POST", "/github", body, {k: v for k, v in given.items() if v is not None})
        assert isinstance(json.loads(answer)["message"], str)
        return status


@contextlib.contextmanager
def opened(
    folder: Path, certificate: Certificate | None = None, seconds: float = 10.0, burst: int = 120, waiting: int = 100
) -> Iterator[Door]:
    door = Door(0, deliveries(folder, waiting=waiting), SystemClock(), secrets=[SECRET])

    def read() -> SecretValue:
        door.reads += 1
        return SecretValue(door.secrets[-1])

    intake = Intake(Secret(read, door.clock), door.taken, door.submitted.append, Rate(door.clock, burst))
    pages = {"/healthz": lambda: plain(good=True, text="well")}
    with receiving("127.0.0.1", 0, intake, pages, door.clock, certificate, seconds=seconds) as port:
        door.port = port
        yield door


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with opened(tmp_path) as found:
        yield found


def test_a_signed_alert_is_taken_in_and_written_down_before_the_answer(door: Door, tmp_path: Path) -> None:
    """202; what was taken is on disk by then, without anything of the body but name and number."""
    assert door.deliver() == 202
    assert [(one.repository, one.number) for one in door.submitted] == [("acme/app", 42)]
    assert deliveries(tmp_path).left() == door.submitted


def test_the_same_again_is_answered_and_not_taken(door: Door) -> None:
    """GitHub's own repetition has the same id; a replay may have another."""
    door.deliver()
    assert door.deliver() == 200
    assert door.deliver(identity="some-other-id") == 200
    assert len(door.submitted) == 1
    assert door.deliver(payload("publicly_leaked"), identity="a-third-one") == 202
    assert len(door.submitted) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Hub_Signature_256": None},
        {"X_Hub_Signature_256": "sha256=" + "0" * 64},
        {"X_Hub_Signature_256": "sha1=" + "0" * 40},
        {"X_Hub_Signature_256": ""},
        {"X_Hub_Signature_256": None, "X_Hub_Signature": "sha1=" + "0" * 40},
    ],
)
def test_what_is_not_signed_does_nothing(door: Door, headers: dict[str, Any]) -> None:
    """401, and nothing is remembered: the real one still comes through."""
    assert door.deliver(**headers) == 401
    assert door.deliver(secret="somebody-elses") == 401
    assert (door.submitted, door.taken.left()) == ([], [])
    assert door.deliver() == 202


def test_a_header_that_stands_there_twice_is_refused(door: Door) -> None:
    """Which of the two counts is nothing to guess about."""
    body = json.dumps(payload()).encode()
    lines = [
        "POST /github HTTP/1.1",
        "Host: x",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"X-Hub-Signature-256: {signature(b'')}",
        f"X-Hub-Signature-256: {signature(body)}",
        "X-GitHub-Event: secret_scanning_alert",
        f"X-GitHub-Delivery: {ID}",
    ]
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        assert connection.makefile("rb").readline().split()[1] == b"400"
    assert door.submitted == []


def test_a_ping_is_answered_when_it_is_signed(door: Door) -> None:
    """As GitHub sends it when the webhook is made."""
    assert door.deliver({"zen": "Keep it logically awesome."}, X_GitHub_Event="ping") == 200
    assert door.deliver({"zen": "x"}, secret="wrong", X_GitHub_Event="ping") == 401
    assert door.submitted == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X_GitHub_Event": "push"}, 200),
        ({"X_GitHub_Event": None}, 200),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"X_GitHub_Delivery": None}, 400),
        ({"X_GitHub_Delivery": "an id\twith blanks"}, 400),
        ({"X_GitHub_Delivery": "x" * 65}, 400),
        ({"Transfer_Encoding": "chunked", "Content_Length": None}, 411),
    ],
)
def test_what_is_signed_and_no_alert_does_nothing(door: Door, headers: dict[str, Any], status: int) -> None:
    """Each with its own answer."""
    assert door.deliver(**headers) == status
    assert door.submitted == []


@pytest.mark.parametrize("name", ["half", "deep", "binary", "number huge", "repository path"])
def test_hostile_json_with_a_good_signature_is_refused(door: Door, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """400; the server goes on, and the log has nothing of it."""
    caplog.set_level(logging.DEBUG)
    body = HOSTILE[name][:500_000]
    assert door.deliver(body) == 400
    assert door.deliver() == 202
    assert "acme/app/.." not in caplog.text


def test_a_huge_body_is_not_read(door: Door) -> None:
    """Refused by the length that it tells, or by having none; one that is just small enough is read."""
    huge = json.dumps(payload(filler="x" * (server.LONGEST + 1))).encode()
    assert door.deliver(huge) == 413
    assert door.deliver(Content_Length="9" * 30) == 413
    assert door.deliver(Content_Length="-1") == 411
    room = server.LONGEST - len(json.dumps(payload(filler="")).encode())
    assert door.deliver(json.dumps(payload(filler="x" * room)).encode()) == 202


def test_a_slow_client_is_cut_off_in_all_and_holds_up_nobody(tmp_path: Path) -> None:
    """A byte now and then does not renew its time; others are served meanwhile."""
    with opened(tmp_path, seconds=0.6) as door:
        clock = SystemClock()
        began = clock.monotonic()
        with socket.create_connection(("127.0.0.1", door.port), timeout=10) as slow:
            slow.sendall(b"POST /github HTTP/1.1\r\nHost: x\r\n")
            assert door.deliver() == 202
            slow.settimeout(0.05)
            sent = 0
            while clock.monotonic() - began < 8:
                try:
                    slow.sendall(b"a")
                    sent += 1
                    if slow.recv(100) == b"":
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
        took = clock.monotonic() - began
        assert 0.5 < took < 5
        assert sent > 3


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    """Nothing is taken of half a delivery."""
    with opened(tmp_path, seconds=0.3) as door:
        with socket.create_connection(("127.0.0.1", door.port), timeout=10) as slow:
            head = (
                f"POST /github HTTP/1.1\r\nContent-Type: application/json\r\nX-Hub-Signature-256: {signature(b'')}\r\n"
            )
            slow.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            assert slow.recv(100) == b""
        assert door.deliver() == 202


def test_more_at_once_than_may_be_are_turned_away(tmp_path: Path) -> None:
    """So many threads and no more, whoever holds them; when they are gone, it goes on."""
    with opened(tmp_path, seconds=5) as door:
        idle = [socket.create_connection(("127.0.0.1", door.port), timeout=10) for _ in range(server.AT_ONCE)]
        with socket.create_connection(("127.0.0.1", door.port), timeout=10) as one_more:
            assert one_more.recv(100) == b""
        for connection in idle:
            connection.close()
        until = SystemClock().monotonic() + 10
        while SystemClock().monotonic() < until:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if door.deliver() in (200, 202):
                    break
        assert len(door.submitted) == 1


def test_signed_deliveries_come_at_a_bounded_rate(tmp_path: Path) -> None:
    """429 beyond. What is not signed uses nothing of it up, or anybody could keep GitHub out."""
    with opened(tmp_path, burst=2) as door:
        assert [door.deliver(secret="wrong") for _ in range(4)] == [401] * 4
        found = [door.deliver(payload(number=n), identity=f"delivery-{n}") for n in range(1, 6)]
        assert found[:2] == [202, 202]
        assert 429 in found[2:]


def test_a_rate_recovers() -> None:
    """One more each second, never more than the burst."""
    clock = FakeClock()
    rate = Rate(clock, burst=2)
    assert [rate.take() for _ in range(3)] == [True, True, False]
    clock.move(timedelta(seconds=1))
    assert [rate.take() for _ in range(2)] == [True, False]
    clock.move(timedelta(hours=1))
    assert [rate.take() for _ in range(3)] == [True, True, False]


def test_when_too_much_waits_github_hears_of_it(tmp_path: Path) -> None:
    """503 shows as failed in the webhook's settings, from where it can be sent again."""
    with opened(tmp_path, waiting=1) as door:
        assert door.deliver() == 202
        assert door.deliver(payload(number=43), identity="another-id") == 503
        door.taken.end(door.submitted[0], memory.State.DONE, "")
        assert door.deliver(payload(number=43), identity="another-id") == 202


def test_a_renewed_secret_is_found(door: Door) -> None:
    """Without a restart; and who sends wrong signatures can not have it read each time."""
    assert [door.deliver(secret="wrong") for _ in range(5)] == [401] * 5
    assert door.reads == 1, "not in the first half minute"
    clock = FakeClock()
    texts = ["one"]
    reads: list[int] = []

    def read() -> SecretValue:
        reads.append(1)
        return SecretValue(texts[-1])

    secret = Secret(read, clock)
    texts.append("two")
    assert not secret.signed(b"{}", signature(b"{}", "two"))
    clock.move(timedelta(seconds=31))
    assert secret.signed(b"{}", signature(b"{}", "two"))
    assert not secret.signed(b"{}", signature(b"{}", "one"))
    assert len(reads) == 2


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("HEAD", "/healthz", 200),
        ("GET", "/github", 404),
        ("POST", "/healthz", 404),
        ("PUT", "/github", 501),
        ("GET", "/../etc/passwd", 404),
    ],
)
def test_other_pages(door: Door, method: str, path: str, status: int) -> None:
    """A probe for who watches it, and nothing else."""
    assert door.ask(method, path)[0] == status


def test_https_with_a_certificate_that_is_renewed(tmp_path: Path) -> None:
    """The next connection has the new one; somebody who never ends the handshake holds up nobody."""
    authority = trustme.CA()
    files = tmp_path / "cert.pem", tmp_path / "key.pem"

    def issue() -> None:
        leaf = authority.issue_cert("127.0.0.1")
        leaf.cert_chain_pems[0].write_to_path(files[0])
        leaf.private_key_pem.write_to_path(files[1])

    def seen(port: int) -> bytes:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain_one,
            context.wrap_socket(plain_one, server_hostname="127.0.0.1") as secure,
        ):
            secure.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert secure.recv(100).startswith(b"HTTP/1.1 200")
            found = secure.getpeercert(binary_form=True)
            assert found is not None
            return found

    issue()
    with opened(tmp_path, Certificate(*files)) as door, socket.create_connection(("127.0.0.1", door.port), timeout=10):
        first = seen(door.port)
        assert seen(door.port) == first
        issue()
        assert seen(door.port) != first
        files[1].write_text("half a key")
        assert seen(door.port) != first, "the one before stays"


# --- the alert at GitHub -------------------------------------------------------------------------


@dataclass
class GitHub:
    """The API, as far as it is asked here: gives one answer to whatever is asked, and keeps that."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @classmethod
    @contextlib.contextmanager
    def serving(cls) -> Iterator[GitHub]:
        """On a free port, for as long as the context is open."""
        found = cls()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found.asked.append((self.path, dict(self.headers)))
                self.send_response(found.status)
                for name, text in found.headers.items():
                    self.send_header(name, text)
                self.end_headers()
                with contextlib.suppress(OSError):  # who has read enough goes away
                    self.wfile.write(found.body.encode())

            def log_message(self, *_: object) -> None:
                """Nothing."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
            http_server.daemon_threads = True
            thread = threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            found.url = f"http://127.0.0.1:{http_server.server_port}"
            yield found
            http_server.shutdown()
            thread.join()


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub.serving() as found:
        yield found


def alert_over(value: object, state: str = "open", **more: Any) -> str:
    """An alert as the API gives it, with its value."""
    about = payload()["alert"] | {"secret": value, "state": state, "publicly_leaked": False, **more}
    return json.dumps(about | {"html_url": "https://github.com/acme/app/security/secret-scanning/42"})


def client(github: GitHub, clock: Any = None, token: str = "ghp_token") -> Alerts:
    time = clock or FakeClock()
    service = Service("github", time, lambda: 0.0, Limits(budget=1.0))
    return Alerts(github.url, lambda: SecretValue(token), service, time)


def test_the_value_is_asked_for_at_the_declared_address_alone(github: GitHub) -> None:
    """With the token, and by name and number; the addresses in a delivery are nobody's business."""
    github.body = alert_over("sk-proj-a-value-of-some-length")
    (found,) = client(github).findings(alert())
    assert found.value is not None
    assert found.value.reveal() == "sk-proj-a-value-of-some-length"
    (asked,) = github.asked
    path, headers = asked
    assert path == "/repos/acme/app/secret-scanning/alerts/42"
    assert headers["Authorization"] == "Bearer ghp_token"


def test_an_alert_that_is_closed_by_now_has_no_findings(github: GitHub) -> None:
    """Somebody was faster."""
    github.body = alert_over("sk-proj-a-value-of-some-length", state="resolved", resolution="revoked")
    assert client(github).findings(alert()) == ()


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [
        (401, {}, Code.DENIED),
        (403, {}, Code.DENIED),
        (403, {"Retry-After": "60"}, Code.THROTTLED),
        (404, {}, Code.NOT_FOUND),
        (301, {"Location": "https://elsewhere.example/"}, Code.INVALID),
        (429, {}, Code.THROTTLED),
        (500, {}, Code.UNAVAILABLE),
    ],
)
def test_what_github_refuses(github: GitHub, status: int, headers: dict[str, str], code: Code) -> None:
    """In our words; nobody is followed elsewhere with the token, and nothing of an answer is quoted."""
    github.status, github.headers, github.body = status, headers, '{"message": "CANARY"}'
    with pytest.raises(Trouble) as raised:
        client(github).findings(alert())
    assert raised.value.code is code
    assert "CANARY" not in str(raised.value)
    assert "ghp_token" not in str(raised.value)


@pytest.mark.parametrize(
    "body",
    [
        "",
        alert_over("short"),
        alert_over(["CANARY"]),
        "not JSON: CANARY",
        "[" * 100_000,
        '{"message": "CANARY"}',
        "x" * 5_000_000,
    ],
)
def test_an_answer_of_something_else(github: GitHub, body: str) -> None:
    """INVALID, and without it."""
    github.body = body
    with pytest.raises(Trouble) as raised:
        client(github).findings(alert())
    assert raised.value.code is Code.INVALID
    assert "CANARY" not in str(raised.value)


def test_a_token_that_no_header_can_carry(github: GitHub) -> None:
    """A line end in the file: told without it."""
    with pytest.raises(Trouble) as raised:
        client(github, token="ghp_token\nX: y").findings(alert())
    assert "ghp_token" not in str(raised.value)
    assert github.asked == []


# --- incidents -----------------------------------------------------------------------------------


@dataclass
class Scene:
    """A stack in memory, GitHub, and what turns the one's alerts into the other's incidents."""

    site: Site
    github: GitHub
    act: bool = False
    owner: str | None = "security"
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.taken = deliveries(self.site.root)

    def value(self, name: str = CHAT) -> str:
        """What is current."""
        found = self.site.vaults["vault"].entries[self.site.entry(name)].current
        assert found is not None
        assert found.credential is not None
        return found.credential.fields["value"].reveal()

    def opening(self) -> Opening:
        assembly = self.site.process()
        switch = self.site.switch

        @contextlib.contextmanager
        def hearing(runner: Runner, _: Incident) -> Iterator[None]:
            switch.auditor = Tapped(self.site.trail, runner.heard)
            yield
            switch.auditor = self.site.trail

        return Opening(assembly, "Pulumi.test.yaml", self.site.files, hearing, self.act, self.owner)

    def take(self, number: int = 42, action: str = "created") -> None:
        self.taken.take(f"delivery-{number}-{action}", alert(number, action))

    def work(self, until: Callable[[], bool] | None = None) -> None:
        """A process that takes up all that is left, and ends."""
        clock = self.site.clock
        self.stopping.clear()
        worker = Worker(self.taken, client(self.github, clock), self.opening(), clock, self.stopping)
        worker.start()
        real = SystemClock()
        deadline = real.monotonic() + 20
        while not (until or (lambda: not self.taken.left()))() and real.monotonic() < deadline:
            threading.Event().wait(0.01)
        self.stopping.set()
        worker.join()
        assert real.monotonic() < deadline, "it does not end"

    def handle(self, value: str, number: int = 42, action: str = "created", **more: Any) -> None:
        self.github.body = alert_over(value, **more)
        self.take(number, action)
        self.work()

    @property
    def incidents(self) -> list[Incident]:
        return list(self.site.files.all())


@pytest.fixture
def scene(tmp_path: Path, github: GitHub) -> Scene:
    # So many that the value of the last is as long as what may be taken for a credential.
    others = [policy(f"search-rag-{number:02}", owner="search") for number in range(10)]
    return Scene(Site([*others, policy(CHAT)], tmp_path), github)


def test_an_alert_opens_an_incident_that_waits_for_a_person(scene: Scene) -> None:
    """Plan and match are recorded, the owner is told how to go on, and nothing is changed."""
    before = scene.value()
    scene.handle(before)
    (incident,) = scene.incidents
    assert [(one.name, one.state) for one in incident.secrets] == [(CHAT, State.PLANNED)]
    assert incident.ran_by == [RAN_BY]
    assert [(leak.source, leak.standing, leak.secret) for leak in incident.leaks] == [("github", "current", CHAT)]
    assert scene.value() == before
    assert "condemn" not in {record.event for record in scene.site.trail.records}
    (notice,) = scene.site.notices
    assert (notice.kind, notice.owner, notice.severity) == ("incident.reported", "team", Severity.CRITICAL)
    assert f"keyturn emergency --resume {incident.id}" in notice.text
    assert "Nothing was changed" in notice.text


def test_the_plan_can_be_carried_out_by_its_id(scene: Scene) -> None:
    """By the person who was told."""
    before = scene.value()
    scene.handle(before)
    (incident,) = scene.incidents
    done = scene.site.resume(incident.id)
    assert done.over
    assert scene.value() != before
    assert not scene.site.vendors["openai"].accepts(before)


def test_with_act_it_is_carried_out(scene: Scene) -> None:
    """Replaced, revoked, shown dead, recorded; owners hear of it as of any emergency."""
    scene.act = True
    before = scene.value()
    scene.handle(before)
    (incident,) = scene.incidents
    assert incident.over
    assert incident.alive == []
    assert incident.secrets[0].proven_at is not None
    assert scene.value() != before
    assert not scene.site.vendors["openai"].accepts(before)
    assert [notice.kind for notice in scene.site.notices] == ["incident.begun", "incident.replaced", "incident.over"]
    assert scene.value("search-rag-01") in {key.value for key in scene.site.vendors["openai"].live()}


def test_the_same_leak_in_another_place_is_the_same_incident(scene: Scene) -> None:
    """Another alert, and the same one again as it becomes public: that is told, once more and louder."""
    value = scene.value()
    scene.handle(value)
    scene.handle(value, number=43)
    assert len(scene.incidents) == 1
    assert len(scene.site.notices) == 1
    scene.handle(value, action="publicly_leaked", publicly_leaked=True)
    assert len(scene.incidents) == 1
    assert "in public" in scene.site.notices[-1].subject


def test_what_was_replaced_by_then_is_nothing_new(scene: Scene) -> None:
    """The old value is dead: no second incident, and nobody is woken."""
    scene.act = True
    value = scene.value()
    scene.handle(value)
    told_before = len(scene.site.notices)
    replacement = scene.value()
    scene.handle(value, number=43)
    assert len(scene.incidents) == 1
    assert len(scene.site.notices) == told_before
    assert scene.value() == replacement


def test_a_working_key_that_can_not_be_told_is_told_of_at_once(scene: Scene) -> None:
    """Nobody but a person can say what it is for."""
    issuer = scene.opening().assembly.issuers["openai"]
    scene.github.body = alert_over(issuer.mint("made in the dashboard").credential.fields["value"].reveal())
    scene.take()
    scene.work(until=lambda: bool(scene.site.notices))
    assert scene.incidents == []
    notice = scene.site.notices[0]
    assert (notice.owner, notice.severity) == ("security", Severity.CRITICAL)
    assert "revoke it at openai" in notice.text


def test_what_is_nobodys_opens_nothing(scene: Scene) -> None:
    """A value that no store and no issuer knows."""
    scene.handle("sk-proj-of-somebody-else-entirely-0000")
    assert scene.incidents == []
    assert scene.site.notices == []
    assert scene.taken.left() == []


def test_a_store_that_is_away_is_waited_for(scene: Scene) -> None:
    """Whoever is told of such things hears at once; when it is back, it goes on by itself."""
    value = scene.value()
    scene.github.body = alert_over(value)
    scene.site.away.add("vault")
    scene.take()
    scene.work(until=lambda: bool(scene.site.notices))
    assert scene.incidents == []
    (notice,) = scene.site.notices
    assert (notice.owner, notice.severity) == ("security", Severity.CRITICAL), "its issuer accepts it"
    scene.site.away.clear()
    scene.work()
    assert len(scene.incidents) == 1
    assert scene.site.notices[-1].owner == "team"


def test_what_fails_for_hours_is_given_up_and_alert_over(scene: Scene) -> None:
    """With what a person can do; GitHub may send it again afterwards."""
    scene.github.status = 500
    scene.take()
    clock = scene.site.clock

    def over() -> bool:
        clock.move(timedelta(minutes=10))
        return not scene.taken.left()

    scene.work(until=over)
    last = scene.site.notices[-1]
    assert last.severity is Severity.CRITICAL
    assert "keyturn emergency --leak ask" in last.text
    assert len(scene.github.asked) > len(AGAIN)
    assert scene.taken.take("delivery-42-created", alert()) is True


def test_an_alert_that_github_does_not_show_is_told_at_once(scene: Scene) -> None:
    """The token may not see it: hours of trying would change nothing."""
    scene.github.status = 404
    scene.take()
    scene.work()
    assert [notice.severity for notice in scene.site.notices] == [Severity.CRITICAL]
    assert len(scene.github.asked) == 1


def test_a_process_that_ended_in_between_is_made_up_for(scene: Scene) -> None:
    """What was taken in is on disk; its value is asked for again."""
    scene.github.body = alert_over(scene.value())
    scene.take()
    scene.taken = deliveries(scene.site.root)
    scene.work()
    assert len(scene.incidents) == 1


def test_one_alert_that_breaks_off_leaves_the_others(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong inside: its words may have the value, so they stay out of the log."""
    value = scene.value()
    scene.github.body = alert_over(value)

    class Breaking(Alerts):
        def findings(self, alert: Alert) -> tuple[Finding, ...]:
            if alert.number == 1:
                raise RuntimeError(value)
            return super().findings(alert)

    scene.take(1)
    scene.take(2)
    clock = scene.site.clock
    service = Service("github", clock, lambda: 0.0)
    alerts = Breaking(scene.github.url, lambda: SecretValue("t"), service, clock)
    worker = Worker(scene.taken, alerts, scene.opening(), clock, scene.stopping)
    worker.start()
    deadline = SystemClock().monotonic() + 20
    while not scene.incidents and SystemClock().monotonic() < deadline:
        threading.Event().wait(0.01)
    scene.stopping.set()
    worker.join()
    assert len(scene.incidents) == 1
    assert [one.number for one in scene.taken.left()] == [1]
    assert value not in caplog.text
    assert value not in str(scene.site.notices)


def test_no_value_stays_behind(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the memory of deliveries, in records, notices, the trail or the log."""
    caplog.set_level(logging.DEBUG)
    value = scene.value()
    scene.handle(value)
    written = "".join(path.read_text() for path in scene.site.root.rglob("*") if path.is_file())
    assert CHAT in written
    assert value not in written
    assert value not in caplog.text
    assert value not in str(scene.site.notices) + str(scene.site.trail.records)
