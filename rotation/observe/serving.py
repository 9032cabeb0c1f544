"""Probes and metrics over HTTP, from a thread: /healthz, /readyz, /metrics. Read only, and nothing in them is secret."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Final

_log = logging.getLogger(__name__)

Answer = tuple[HTTPStatus, bytes, str]
"""Status, body, content type."""
PLAIN: Final = "text/plain; charset=utf-8"


def plain(good: bool, text: str) -> Answer:
    """A probe's answer: 200 or 503, and a line for the person who looks."""
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return status, f"{text}\n".encode(), PLAIN


@contextmanager
def serving(host: str, port: int, pages: dict[str, Callable[[str], Answer]]) -> Iterator[int]:
    """Answers GET and HEAD while the context is open.

    Parameters:
        host, port: where to listen; port 0 takes a free one.
        pages: by path; each is given the Accept header.

    Yields:
        The port.

    Raises:
        OSError: the address can not be had.
    """

    class Handler(BaseHTTPRequestHandler):
        server_version = "keyturn"
        sys_version = ""
        timeout = 10  # seconds for a whole request; a client that dawdles holds one thread no longer

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                status, body, content_type = HTTPStatus.NOT_FOUND, b"/healthz, /readyz, /metrics\n", PLAIN
            else:
                status, body, content_type = page(self.headers.get("Accept", ""))
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            _log.debug(format, *args)

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

        def server_bind(self) -> None:
            """Not HTTPServer's, which looks up the host's name and waits for a name server that may be away."""
            TCPServer.server_bind(self)

    with Server((host, port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="keyturn-http", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
