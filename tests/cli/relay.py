"""A relay between a command and a service: it hears every secret that passes, and answers in the service's place when told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import requests

from sandbox.loopback import Answer, Asked, Loopback

CARRIES = frozenset({"value", "client_token", "secret_id", "key"})
"""Names under which the JSON of vaults and vendors has a secret."""


def echo(asked: Asked, status: int) -> Answer:
    """The worst that a gateway can do: an error that repeats every secret of the request, wherever errors have a place."""
    secret = asked.headers.get("X-Vault-Token") or asked.headers.get("Authorization", "").removeprefix("Bearer ")
    words = f"bad request: {secret} sent {asked.body.decode()}"
    error = {"message": words, "code": secret, "type": secret, "param": secret}
    body = json.dumps({"errors": [words], "error": error, "warnings": [words], "request_id": secret})
    return Answer(status, body.encode(), {"x-request-id": secret, "retry-after": secret, "location": f"/{secret}"})


class Relay(Loopback):
    """On a free port, for as long as the `with` block lasts.

    Parameters:
        upstream: `http[s]://host:port` of the service.
        ca: PEM file of the CA to trust.
    """

    def __init__(self, upstream: str, ca: str | None = None) -> None:
        super().__init__(self.passed_on)
        self.upstream = upstream
        self.instead: Callable[[Asked], Answer | None] = lambda _: None
        """Asked before a request is passed on: an answer in its place, or None."""
        self.heard: set[str] = set()
        """Every secret that went through, in either direction."""
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = ca or True
        self._lock = threading.Lock()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._session.close()

    def passed_on(self, asked: Asked) -> Answer:
        """What the service answers, or what is said in its place."""
        token = asked.headers.get("X-Vault-Token") or asked.headers.get("Authorization", "").removeprefix("Bearer ")
        self._hear({"value": token}, asked.json)
        if (answer := self.instead(asked)) is not None:
            return answer
        dropped = ("host", "content-length", "connection", "accept-encoding")
        headers = {name: value for name, value in asked.headers.items() if name.lower() not in dropped}
        with self._lock:
            got = self._session.request(
                asked.method, self.upstream + asked.target, headers=headers, data=asked.body, timeout=30
            )
        kind = got.headers.get("Content-Type", "")
        if "json" in kind and got.content:
            self._hear(got.json())
        kept = {name: got.headers[name] for name in ("Content-Type", "x-request-id") if name in got.headers}
        return Answer(got.status_code, got.content, kept)

    def _hear(self, *trees: Any) -> None:
        for tree in trees:
            for name, value in tree.items() if isinstance(tree, dict) else []:
                if name in CARRIES and isinstance(value, str) and value:
                    self.heard.add(value)
            below = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
            self._hear(*(part for part in below if isinstance(part, dict | list)))
