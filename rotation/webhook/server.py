"""Deliveries over HTTP, or HTTPS: limits of size, time and number; the signature; an answer at once.

Whoever can reach it may try, so nothing costs much before the signature is known to be right: the headers and at most
1 MiB are read, within ten seconds in all, by at most 32 at a time. Nothing of a body is logged or answered.
"""

from __future__ import annotations

import io
import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final

from rotation.declared import ConfigError
from rotation.errors import Code, Trouble
from rotation.model import SecretValue
from rotation.observe.serving import Answer, plain
from rotation.ports import Clock
from rotation.webhook import delivery
from rotation.webhook.delivery import Alert, Malformed
from rotation.webhook.memory import Deliveries

_log = logging.getLogger(__name__)

LONGEST: Final = 1024 * 1024
"""Bytes of a body. An alert has some 20,000; GitHub itself ends at 25 MB."""
SECONDS: Final = 10.0
"""For a whole request, from the first byte of the connection. GitHub waits no longer for its answer."""
AT_ONCE: Final = 32
BURST: Final = 120
"""Signed deliveries that may come at once; one more each second."""
PATH: Final = "/github"

_REFRESH: Final = 30.0
"""Seconds between two looks for a new secret, at least: whoever sends wrong signatures must not have a store asked each time."""


class Secret:
    """What deliveries are signed with: read once, and again where a signature does not fit, for it may have been renewed.

    Parameters:
        read: reads it.
    """

    def __init__(self, read: Callable[[], SecretValue], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._known = read()
        self._read_at = clock.monotonic()

    def signed(self, body: bytes, signature: str | None) -> bool:
        """Whether it gives this signature."""
        return delivery.signed(self._known, body, signature) or (
            self._renewed() and delivery.signed(self._known, body, signature)
        )

    def _renewed(self) -> bool:
        with self._lock:
            if self._clock.monotonic() < self._read_at + _REFRESH:
                return False
            self._read_at = self._clock.monotonic()
            try:
                self._known = self._read()
            except (Trouble, ConfigError) as trouble:
                _log.warning("the webhook's secret can not be read again: %s", trouble)
                return False
        return True


class Rate:
    """So many at once, and one more each second."""

    def __init__(self, clock: Clock, burst: int = BURST) -> None:
        self._clock = clock
        self._burst = burst
        self._lock = threading.Lock()
        self._left = float(burst)
        self._at = clock.monotonic()

    def take(self) -> bool:
        """Whether one more may come now."""
        with self._lock:
            now = self._clock.monotonic()
            self._left = min(self._left + now - self._at, float(self._burst))
            self._at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


@dataclass(frozen=True, slots=True, eq=False)
class Intake:
    """What a delivery meets, once it is read."""

    secret: Secret
    deliveries: Deliveries
    submit: Callable[[Alert], None]
    rate: Rate

    def answer(self, body: bytes, signature: str | None, event: str | None, identity: str | None) -> Answer:
        """Takes a delivery in, or not, and says so."""
        if not self.secret.signed(body, signature):
            _log.warning("a delivery was refused: it is not signed with the webhook's secret")
            return _told(HTTPStatus.UNAUTHORIZED, "not signed with the webhook's secret")
        if not self.rate.take():
            return _told(HTTPStatus.TOO_MANY_REQUESTS, "too many deliveries")
        try:
            found = delivery.read(event, body)
        except Malformed as fault:
            _log.warning("a signed delivery was refused: %s", fault)
            return _told(HTTPStatus.BAD_REQUEST, str(fault))
        if isinstance(found, str):
            return _told(HTTPStatus.OK, found)
        if identity is None or not delivery.sound_id(identity):
            return _told(HTTPStatus.BAD_REQUEST, f"has no {delivery.ID}")
        try:
            new = self.deliveries.take(identity, found)
        except Trouble as trouble:
            _log.error("%s was not taken in: %s", found, trouble)
            told = "too much is waiting" if trouble.code is Code.LIMIT else "can not be written down"
            return _told(HTTPStatus.SERVICE_UNAVAILABLE, told)
        if not new:
            return _told(HTTPStatus.OK, "taken in before")
        _log.warning("%s was taken in: %s", found, found.action)
        self.submit(found)
        return _told(HTTPStatus.ACCEPTED, "taken in")


def _told(status: HTTPStatus, text: str) -> Answer:
    return status, (json.dumps({"message": text}) + "\n").encode(), "application/json"


class _Timed(io.RawIOBase):
    """A connection to read from, until a moment: whoever sends a byte now and then does not hold a thread for longer."""

    def __init__(self, connection: socket.socket, until: float, now: Callable[[], float]) -> None:
        self._connection = connection
        self._until = until
        self._now = now

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - self._now()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    """One request; the connection ends with it."""

    server: _Server
    server_version = "keyturn"
    sys_version = ""
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        self.connection = self.request
        self.connection.settimeout(self.server.seconds)
        self._until = self.server.clock.monotonic() + self.server.seconds
        if isinstance(self.connection, ssl.SSLSocket):
            self.connection.do_handshake()
        timed = _Timed(self.connection, self._until, self.server.clock.monotonic)
        self.rfile = io.BufferedReader(timed)
        self.wfile = _Writer(self.connection)

    def handle(self) -> None:
        self.close_connection = True
        try:
            self.handle_one_request()
        except (OSError, ssl.SSLError):
            _log.debug("a connection ended early")
        self.close_connection = True

    def do_POST(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self._answer(_told(HTTPStatus.NOT_FOUND, f"POST {PATH}"))
            return
        kind = (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        size = self._size()
        doubled = [name for name in (delivery.SIGNATURE, delivery.EVENT, delivery.ID) if len(self._all(name)) > 1]
        if isinstance(size, HTTPStatus):
            self._answer(_told(size, f"a body of at most {LONGEST} bytes, and its length"))
            self._drain()
        elif doubled:
            self._answer(_told(HTTPStatus.BAD_REQUEST, f"{doubled[0]} stands there twice"))
        elif not self._all(delivery.SIGNATURE):
            self._answer(_told(HTTPStatus.UNAUTHORIZED, f"has no {delivery.SIGNATURE}"))
        elif kind != "application/json":
            told = "the webhook's content type must be application/json"
            self._answer(_told(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, told))
        else:
            body = self.rfile.read(size)
            if len(body) == size:  # else the other side has gone
                one = {name: next(iter(self._all(name)), None) for name in (delivery.SIGNATURE, delivery.EVENT)}
                identity = next(iter(self._all(delivery.ID)), None)
                taken = self.server.intake.answer(body, one[delivery.SIGNATURE], one[delivery.EVENT], identity)
                self._answer(taken)

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        self._answer(
            page() if page else plain(good=False, text="POST /github, GET /healthz, /readyz"), found=bool(page)
        )

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def _all(self, name: str) -> list[str]:
        return [str(text) for text in self.headers.get_all(name) or []]

    def _size(self) -> int | HTTPStatus:
        given = self._all("Content-Length")
        if self.headers.get("Transfer-Encoding") or len(given) != 1 or not (given[0].isascii() and given[0].isdigit()):
            return HTTPStatus.LENGTH_REQUIRED
        return int(given[0]) if len(given[0]) < 10 and int(given[0]) <= LONGEST else HTTPStatus.REQUEST_ENTITY_TOO_LARGE

    def _drain(self) -> None:
        """Lets some of an unread body go by: who is still sending when the connection closes may not see the answer."""
        left = 4 * LONGEST
        while left > 0 and (part := self.rfile.read1(min(left, LONGEST))):
            left -= len(part)

    def _answer(self, answer: Answer, *, found: bool = True) -> None:
        status, body, content_type = answer
        self.send_response(status if found else HTTPStatus.NOT_FOUND)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
            self.send_header("Retry-After", "60")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002 - http.server's; they quote the request
        _log.debug("%s: a request", self.client_address[0])


class _Writer(io.BufferedIOBase):
    """What is written goes out whole, or raises."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._connection.sendall(data)
        return len(data)


class Certificate:
    """A certificate and its key in files, loaded again when they were renewed.

    Raises:
        OSError, ssl.SSLError: they can not be read, or do not belong together.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._stamp = self._now()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """For the next connection. A renewal that can not be loaded leaves the one before in its place."""
        try:
            if (stamp := self._now()) != self._stamp:
                self._context, self._stamp = self._load(), stamp
        except (OSError, ssl.SSLError) as error:
            _log.warning("the renewed certificate can not be loaded yet: %s", type(error).__name__)
        return self._context

    def _now(self) -> tuple[int, ...]:
        return tuple(file.stat().st_mtime_ns for file in self._files)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(*self._files)
        return context


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        intake: Intake,
        pages: dict[str, Callable[[], Answer]],
        clock: Clock,
        certificate: Certificate | None,
        seconds: float,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.intake = intake
        self.pages = pages
        self.clock = clock
        self.seconds = seconds
        self._certificate = certificate
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Not HTTPServer's, which looks up the host's name and waits for a name server that may be away."""
        TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._certificate is not None:
            # The handshake is the handler's: here it would hold up everybody else.
            connection = self._certificate.context().wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._turns.acquire(blocking=False):
            _log.warning("%d requests are under way; one more was turned away", AT_ONCE)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._turns.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._turns.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's
        """A fault of one connection: without its traceback, in which a body may stand."""
        _log.debug("a connection ended early")


@contextmanager
def receiving(
    host: str,
    port: int,
    intake: Intake,
    pages: dict[str, Callable[[], Answer]],
    clock: Clock,
    certificate: Certificate | None = None,
    *,
    seconds: float = SECONDS,
) -> Iterator[int]:
    """Takes deliveries in while the context is open.

    Parameters:
        host, port: where to listen; port 0 takes a free one.
        pages: answers to GET, by path.
        certificate: for HTTPS; None for HTTP.
        seconds: for a whole request.

    Yields:
        The port.

    Raises:
        OSError: the address can not be had.
    """
    with _Server((host, port), intake, pages, clock, certificate, seconds) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="keyturn-http", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
