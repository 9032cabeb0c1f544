"""A threaded TLS server on loopback around the stand-in, and the state that outlives it."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.test import run_wsgi_app

from rotation.files import write_private
from sandbox import tls
from sandbox.keyvault.api import CUT, create_app
from sandbox.keyvault.control import Control
from sandbox.keyvault.entra import TENANT_ID, Directory, Principal, owner
from sandbox.keyvault.vault import Settings, Vault


@dataclass(frozen=True)
class StandIn:
    """One vault, its directory and its levers."""

    vault: Vault
    directory: Directory
    control: Control

    @classmethod
    def open(
        cls,
        now: Callable[[], datetime],
        *,
        state: Path | None = None,
        principals: Iterable[Principal] = (),
        settings: Settings | None = None,
        tenant_id: str = TENANT_ID,
        wall: Callable[[], float] = time.time,
    ) -> StandIn:
        """Makes a stand-in, or opens the one whose state is in a directory.

        Args:
            now: the time that entries go by.
            state: a directory that keeps entries, and the keys of tokens and backups; files there are readable by the owner only.
                Principals that are added later, faults and the log do not outlive the process.
            principals: who may ask for tokens; nobody named means the owner alone.
            settings: how the vault is configured, and how slow it is.
            tenant_id: the directory's.
            wall: the time that tokens go by, in seconds since 1970.
        """
        keys = _keys(state)
        return cls(
            Vault(now, directory=state / "secrets" if state else None, backup_key=keys.backup, settings=settings),
            Directory(tenant_id=tenant_id, principals=tuple(principals) or (owner(),), key=keys.token, wall=wall),
            Control(),
        )


@dataclass(frozen=True)
class _Keys:
    token: bytes
    backup: bytes


def _keys(state: Path | None) -> _Keys:
    fresh = {"token": secrets.token_hex(32), "backup": Fernet.generate_key().decode()}
    if state:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = state / "keys.json"
        if path.exists():
            fresh = json.loads(path.read_text())
        else:
            write_private(path, json.dumps(fresh))
    return _Keys(bytes.fromhex(fresh["token"]), fresh["backup"].encode())


def tls_context(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """A server's context with the chain and key in files; the key may be in the file of the chain."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def tls_context_from(ca_dir: Path) -> ssl.SSLContext:
    """A server's context with a certificate of the CA in a directory, both made when they are missing."""
    ca_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificate = ca_dir / "keyvault.pem"
    tls.issue(ca_dir, certificate)
    return tls_context(certificate)


class Server(ThreadedWSGIServer):
    """Serves a stand-in on 127.0.0.1. Each connection has a thread, in which its TLS handshake happens, too.

    Args:
        port: 0 takes a free one; `self.port` tells which.
    """

    def __init__(self, stand_in: StandIn, context: ssl.SSLContext, port: int = 0) -> None:
        self._control = stand_in.control
        self._connections: set[socket.socket] = set()
        app = create_app(stand_in.vault, stand_in.directory, stand_in.control)
        super().__init__("127.0.0.1", port, app, handler=_Handler)
        self._context = context
        self.ssl_context = context  # so that the application learns that it is https

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = self.socket.accept()
        wrapped = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._connections.add(wrapped)
        return wrapped, address

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def start(self) -> threading.Thread:
        """Serves from a thread of its own until `stop`."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """Stops listening, gives held requests up and cuts the connections that clients keep open."""
        self.shutdown()
        self._control.give_up()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    """Runs one request after another on a kept-open connection, as the service does; werkzeug's own closes it each time."""

    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 120.0
    """Seconds that a silent client keeps its thread."""

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        environ[CUT] = cut = threading.Event()
        environ["wsgi.input"] = io.BytesIO(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        body, status, headers = run_wsgi_app(self.server.app, environ, buffered=True)
        if cut.is_set():
            self.close_connection = True
            return
        self.send_response(int(status.split(" ")[0]))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.writelines(body)

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the parent names it so
        """Nothing: `Control` keeps the log."""
