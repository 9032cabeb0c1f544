"""A wire to PostgreSQL on which things go wrong where a test says so; ends TLS, and knows the protocol's messages.

Message formats: PostgreSQL documentation, "Message Formats" of the frontend/backend protocol.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
from typing import Final, Literal

from tests.postgres.server import Place

_SSL_REQUEST: Final = 80877103
When = Literal["start", "commit", "committed"]


class Wire:
    """Listens on a free port of the loopback; what comes goes on to the server's socket.

    Consumers and issuer use it like the server itself.
    """

    def __init__(self, place: Place) -> None:
        self._socket = place.directory / f".s.PGSQL.{place.port}"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        place.authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._due: tuple[When, bytes | None] | None = None
        self.starts: list[str] = []
        """By whom connections were begun, in order."""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def happen(self, when: When, code: str | None = None, message: str = "") -> None:
        """To the next connection, once: an error of the server in place of its answer, or the end without a code."""
        self._due = when, _error(code, message) if code else None

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, ssl.SSLError), client:
            length, asked = struct.unpack("!ii", _exactly(client, 8))
            assert (length, asked) == (8, _SSL_REQUEST), "only TLS is spoken here"
            client.sendall(b"S")
            with self._context.wrap_socket(client, server_side=True) as inside:
                self._converse(inside)

    def _converse(self, client: ssl.SSLSocket) -> None:
        size = _exactly(client, 4)
        start = size + _exactly(client, struct.unpack("!i", size)[0] - 4)
        words = start[8:].split(b"\0")
        self.starts.append(words[words.index(b"user") + 1].decode())
        due, self._due = self._due, None
        if due and due[0] == "start":
            if due[1]:
                client.sendall(due[1])
            return
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(str(self._socket))
            server.sendall(start)
            if due is None:
                _relay(client, server)
            else:
                _disturbed(client, server, due)


def _relay(client: ssl.SSLSocket, server: socket.socket) -> None:
    """Both ways in one thread: a TLS connection is not for two at a time."""
    while True:
        ready = [client] if client.pending() else select.select([client, server], [], [])[0]
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            (server if source is client else client).sendall(data)


def _disturbed(client: ssl.SSLSocket, server: socket.socket, due: tuple[When, bytes | None]) -> None:
    """One message after the other, each answered to its end, until the commit."""
    when, answer = due
    while True:
        _until_ready(server, client)
        while True:
            message = _message(client)
            if message.startswith(b"Q") and message[5:-1].upper() == b"COMMIT":
                if when == "committed":
                    server.sendall(message)
                    _until_ready(server, None)
                if answer:
                    client.sendall(answer)
                return
            server.sendall(message)
            if message[:1] in b"QSp":  # a query, a sync, or a step of the authentication: answers come
                break


def _until_ready(server: socket.socket, client: ssl.SSLSocket | None) -> None:
    while True:
        message = _message(server)
        if client is not None:
            client.sendall(message)
        # Ready for a query, or an authentication that goes on (anything but AuthenticationOk and the last SASL word).
        if message[:1] == b"Z" or (message[:1] == b"R" and struct.unpack("!i", message[5:9])[0] in (10, 11)):
            return


def _message(source: socket.socket) -> bytes:
    head = _exactly(source, 5)
    return head + _exactly(source, struct.unpack("!i", head[1:])[0] - 4)


def _exactly(source: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        more = source.recv(count - len(got))
        if not more:
            raise EOFError
        got += more
    return got


def _error(code: str, message: str) -> bytes:
    fields = b"".join(f"{key}{text}\0".encode() for key, text in (("S", "FATAL"), ("V", "FATAL"), ("C", code)))
    body = fields + f"M{message}\0".encode() + b"\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body
