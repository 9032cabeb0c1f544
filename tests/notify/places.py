"""Places that are told: an HTTP endpoint that keeps what it gets, one that never answers, a mail server, a cluster's API."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default as parsing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
from aiosmtpd.controller import Controller

from rotation.notify.memory import Memory
from rotation.notify.telling import Channel, Message
from rotation.ports import Notice, Severity
from tests.world import START, FakeClock

AT = START
NAME = "support-copilot-chat"


def notice(kind: str = "rotation.failed", subject: str = "it failed", **changes: Any) -> Notice:
    """One about prod/support-copilot-chat, which `team` owns."""
    usual: dict[str, Any] = {
        "severity": Severity.WARNING,
        "at": AT,
        "environment": "prod",
        "secret": NAME,
        "owner": "team",
        "text": "What happened.",
    }
    return Notice(kind=kind, subject=subject, **usual | changes)


@dataclass
class Box:
    """A channel that keeps what it is told, or fails as it is told to."""

    name: str = "box"
    failing: Exception | None = None
    messages: list[Message] = field(default_factory=list)
    tries: int = 0
    repeat_after: timedelta = timedelta(hours=24)

    def send(self, message: Message) -> None:
        self.tries += 1
        if self.failing is not None:
            raise self.failing
        self.messages.append(message)

    @property
    def channel(self) -> Channel:
        return Channel(self.name, self.send, self.repeat_after)

    @property
    def subjects(self) -> list[str]:
        return [message.subject for message in self.messages]


def memory(path: Path | None = None, clock: FakeClock | None = None) -> Memory:
    return Memory(path, (clock or FakeClock()).now)


# --- HTTP ------------------------------------------------------------------------------------------


@dataclass
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Endpoint:
    """An HTTP server that keeps what it is asked."""

    url: str
    port: int
    asked: list[Asked] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


@contextlib.contextmanager
def endpoint() -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            found.asked.append(Asked(self.command, self.path, dict(self.headers), self.rfile.read(length)))
            self.send_response(found.status)
            for name, text in found.headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(found.body)))
            self.end_headers()
            self.wfile.write(found.body.encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with _serving(Handler) as server:
        found = Endpoint(f"http://127.0.0.1:{server.server_port}", server.server_port)
        yield found


@contextlib.contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def silence() -> Iterator[int]:
    """The port of a server that takes connections, and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield listening.getsockname()[1]


# --- mail ------------------------------------------------------------------------------------------


class Mail:
    """A mail server that keeps what it takes."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.messages.append(BytesParser(policy=parsing).parsebytes(envelope.content))
        return "250 OK"


@contextlib.contextmanager
def mail() -> Iterator[tuple[Mail, int]]:
    kept = Mail()
    with socket.socket() as probe:  # aiosmtpd connects to the port that it was given, so 0 will not do
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(kept, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield kept, port
    finally:
        controller.stop()


# --- a cluster -------------------------------------------------------------------------------------

TOKEN = "token-of-the-service-account"


@dataclass
class Cluster:
    """What a cluster keeps of its workloads, behind the part of its API that patches them."""

    env: Mapping[str, str]
    account: Path
    workloads: dict[str, dict[str, Any]]
    """By path below /apis/apps/v1."""
    refused: list[str] = field(default_factory=list)

    def annotations(self, place: str) -> dict[str, str]:
        found: dict[str, str] = self.workloads[place]["spec"]["template"]["metadata"].get("annotations", {})
        return found

    def generation(self, place: str) -> int:
        """How often its specification was changed, which is how often its pods were rolled out."""
        return int(self.workloads[place]["metadata"]["generation"])


def _merged(whole: Any, patch: Any) -> Any:
    """A strategic merge of maps alone; a patch with a list in it would need the keys of that list's type."""
    if not isinstance(patch, dict):
        assert not isinstance(patch, list), "the stand-in merges no lists"
        return patch
    merged = dict(whole) if isinstance(whole, dict) else {}
    for name, part in patch.items():
        merged[name] = _merged(merged.get(name), part)
    return merged


@contextlib.contextmanager
def cluster(folder: Path, *places: str) -> Iterator[Cluster]:
    """An API server with a certificate of its own authority, and the files that a pod is given."""

    class Handler(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            place, _, query = self.path.removeprefix("/apis/apps/v1/").partition("?")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            fault = None
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                fault = 401
            elif place not in found.workloads:
                fault = 404
            elif self.headers["Content-Type"] != "application/strategic-merge-patch+json":
                fault = 415
            elif query != "fieldManager=keyturn":
                fault = 400
            if fault is None:
                before = found.workloads[place]
                after = _merged(deepcopy(before), json.loads(body))
                if after["spec"] != before["spec"]:
                    after["metadata"]["generation"] += 1
                found.workloads[place] = after
            else:
                found.refused.append(f"{fault} {place}")
            self.send_response(fault or 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    authority = trustme.CA()
    account = folder / "serviceaccount"
    account.mkdir()
    (account / "token").write_text(f"{TOKEN}\n")
    authority.cert_pem.write_to_path(account / "ca.crt")
    template = {"metadata": {"labels": {"app": "api"}}, "spec": {"containers": [{"name": "api", "image": "api:1"}]}}
    workload = {"metadata": {"generation": 1}, "spec": {"replicas": 2, "template": template}}
    with _serving(Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        env = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.server_port)}
        found = Cluster(env, account, {place: deepcopy(workload) for place in places})
        yield found
