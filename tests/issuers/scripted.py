"""A vendor that answers as a test says, request by request, and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sandbox.loopback import Answer, Asked, Loopback

__all__ = ["Asked", "Reply", "Scripted"]

Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]


class Scripted(Loopback):
    """A server on a free port for as long as the `with` block lasts."""

    def __init__(self, answer: Callable[[Asked], Reply]) -> None:
        super().__init__(self._told)
        self.answer = answer
        self.seen: list[Asked] = []

    def _told(self, asked: Asked) -> Answer:
        self.seen.append(asked)
        status, body, *more = self.answer(asked)
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return Answer(status, raw, more[0] if more else {})

    def paths(self) -> list[str]:
        return [f"{asked.method} {asked.path}" for asked in self.seen]
