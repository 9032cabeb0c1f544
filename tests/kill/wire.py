"""The wire between Keyturn and its servers: counts requests, and at the n-th kills who sent it."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self, cast
from urllib.parse import urlsplit

_SECONDS: Final = 30.0
_VALUES: Final = re.compile(
    rb'"(?:value|SecretString|client_token|access_token|client_secret)"\s*:\s*"((?:[^"\\]|\\.){16,})"'
)
"""Where the servers' JSON has secrets. Sixteen characters: none of ours is shorter."""
_IDS: Final = re.compile(r"((?:proj|key|svc_acct)_)[0-9a-f]+")
_HOP: Final = frozenset({"connection", "transfer-encoding", "keep-alive", "content-length"})


class Moment(StrEnum):
    BEFORE = "before"
    """The request never reaches its server."""
    AFTER = "after"
    """The server did what was asked and answered; nobody is left to hear it."""


@dataclass(frozen=True, order=True)
class Strike:
    """When to kill: at the request of this number, counted from 1."""

    point: int
    moment: Moment


class Wire:
    """What passes between one process at a time and all servers. Any thread may call it.

    Parameters:
        applied: called after each request that a server has answered, before anybody hears the answer.
    """

    def __init__(self, applied: Callable[[], None] = lambda: None) -> None:
        self.applied = applied
        self.values: set[str] = set()
        """Every secret that was seen, logins included; see forget()."""
        self.calls: list[str] = []
        """Since watch(), in order."""
        self._strike: Strike | None = None
        self._victim: Future[int] = Future()
        self._dead = False
        self._lock = threading.Lock()

    def watch(self, strike: Strike | None = None) -> None:
        """Counts from 1 again, and kills at the strike whoever attach() names by then."""
        with self._lock:
            self.calls = []
            self._strike, self._dead = strike, False
            self._victim = Future()

    def attach(self, pid: int) -> None:
        """Names the process, the leader of a group of its own. A later one takes its place."""
        with self._lock:
            self._dead = False
            self._victim = Future()
            self._victim.set_result(pid)

    @property
    def struck(self) -> bool:
        return self._strike is not None and len(self.calls) >= self._strike.point

    def arriving(self, call: str) -> Moment | None:
        """Whether the process dies of this request, and when.

        Raises:
            ConnectionAbortedError: it is dead already; what it still had on its way is lost.
        """
        with self._lock:
            if self._dead:
                raise ConnectionAbortedError
            self.calls.append(call)
            if self._strike is None or len(self.calls) != self._strike.point:
                return None
            self._dead = True
            return self._strike.moment

    def kill(self) -> None:
        """SIGKILL for the process and all that it started; returns when it is dead."""
        pid = self._victim.result(_SECONDS)
        os.killpg(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    def learn(self, *bodies: bytes) -> None:
        """Remembers the secrets in what went by."""
        found = {match.decode() for body in bodies for match in _VALUES.findall(body)}
        with self._lock:
            self.values |= found

    def forget(self) -> None:
        with self._lock:
            self.values = set()


class Proxy(ThreadingHTTPServer):
    """Stands before one server on a port of its own, from entering the context until leaving it.

    Requests go on as they are, the Host header included: AWS signs it, Key Vault makes its links from it.

    Parameters:
        name: of the server, for the list of calls.
        upstream: `http://127.0.0.1:PORT` or `https://…`.
        certificate: PEM with key and chain; clients then speak TLS.
        ca: whom to trust upstream.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, wire: Wire, name: str, upstream: str, *, certificate: Path | None = None, ca: Path | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.wire = wire
        self.name = name
        self.address = f"{'https' if certificate else 'http'}://127.0.0.1:{self.server_port}"
        self._upstream = urlsplit(upstream)
        self._trust = ssl.create_default_context(cafile=ca) if ca else None
        self._identity: ssl.SSLContext | None = None
        if certificate:
            self._identity = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._identity.load_cert_chain(certificate)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = self.socket.accept()
        if self._identity:  # the handshake is for the connection's own thread
            connection = self._identity.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: connections of killed processes end in all the ways there are."""

    def ask(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        """One request on a connection of its own: a kept one that has gone stale would have to be repeated."""
        host, port = self._upstream.hostname or "", self._upstream.port
        connection = (
            http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=self._trust)
            if self._upstream.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=_SECONDS)
        )
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders(body)
            with connection.getresponse() as response:
                return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        """As the parent, for whatever method."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        try:
            self._pass_on()
        except ConnectionAbortedError:
            self.close_connection = True

    def _pass_on(self) -> None:
        proxy = cast("Proxy", self.server)
        wire = proxy.wire
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        moment = wire.arriving(self._called(proxy.name))
        if moment is Moment.BEFORE:
            wire.kill()
            raise ConnectionAbortedError
        answer = proxy.ask(self.command, self.path, self.headers.items(), body)
        wire.learn(body, answer.body)
        wire.applied()
        if moment is Moment.AFTER:
            wire.kill()
            raise ConnectionAbortedError
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)
        self.wfile.flush()

    def _called(self, name: str) -> str:
        """The request in words, without what differs from run to run."""
        target = self.headers.get("X-Amz-Target", "")
        what = target.rpartition(".")[2] or f"{self.command} {urlsplit(self.path).path}"
        return f"{name} " + _IDS.sub(r"\1…", what)

    def log_message(self, *_: object) -> None:
        """Nothing: the wire keeps the calls."""
