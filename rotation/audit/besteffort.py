"""A trail for an emergency that may not wait for it: what can not be kept now is shown, and kept when that is possible."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from typing import Final, TextIO

from rotation.audit.chain import canonical, shown
from rotation.errors import Trouble
from rotation.ports import Auditor, Clock, Record

AGAIN: Final = 15.0
"""Seconds until a trail that failed is tried again: each try may take as long as its service lets us wait."""


class BestEffortAuditor:
    """Never refuses a record. Those that the trail did not take are lines on a stream at once, and are written to it
    later, marked `late`, in the order in which they came.

    Parameters:
        inner: the trail.
        stream: standard error.
        clock: tells when to try again.
    """

    def __init__(self, inner: Auditor, stream: TextIO, clock: Clock) -> None:
        self._inner = inner
        self._stream = stream
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[Record] = []
        self._again = 0.0

    @property
    def unwritten(self) -> int:
        """Records that are nowhere but in this process and on the stream."""
        with self._lock:
            return len(self._waiting)

    def write(self, record: Record) -> None:
        """Keeps a record: at the trail where that can be done now, else in memory and on the stream."""
        with self._lock:
            behind = bool(self._waiting)
            if behind and self._clock.monotonic() >= self._again:
                behind = not self._caught_up()
        if not behind:
            try:
                self._inner.write(record)  # outside the lock: threads may share a put
            except Trouble as trouble:
                self._say(
                    f"{trouble}. Going on without it; records follow here, and are written there when they can be."
                )
            else:
                return
        with self._lock:
            if not self._waiting:
                self._again = self._clock.monotonic() + AGAIN
            late = replace(record, late=True)
            self._waiting.append(late)
            self._say(canonical(shown(late, {}, ())).rstrip())

    def finish(self) -> int:
        """Tries once more to write what waits.

        Returns:
            How many records are still unwritten.
        """
        with self._lock:
            self._caught_up()
            return len(self._waiting)

    def _caught_up(self) -> bool:
        """Whether the trail has taken all that waited."""
        while self._waiting:
            try:
                self._inner.write(self._waiting[0])
            except Trouble:
                self._again = self._clock.monotonic() + AGAIN
                return False
            del self._waiting[0]
        return True

    def _say(self, line: str) -> None:
        with suppress(OSError, ValueError):  # nobody reads it: no reason to stop either
            self._stream.write(line + "\n")
            self._stream.flush()
