"""An application as the bystander of a drill: reads one store, keeps what it has read for a while, and uses it all the time.

It knows nothing of rotations. Whether it is let in is its issuer's word, by the credential alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rotation.errors import Trouble
from rotation.model import Credential, Verdict
from rotation.ports import Clock, Issuer

PAUSE: Final = 0.25
"""Seconds between two uses: the fineness of every outage that is measured."""
CACHED_FOR: Final = 2.0
"""Seconds for which a value is kept before the store is asked again. One that is refused is read again at once."""
_TRIES: Final = 5
"""Uses in which it has to be let in again once the emergency is over."""


@dataclass(slots=True)
class Seen:
    """What one application went through. Times are seconds."""

    secret: str
    store: str
    uses: int = 0
    refused: int = 0
    unanswered: int = 0
    """Its issuer gave no verdict, or its store no value."""
    longest_outage_seconds: float = 0.0
    """From the first use that was refused to the next that was accepted."""
    new_value_seconds: float | None = None
    """From the report of the leak until it used another credential and was let in; None while it has not."""


class Bystander:
    """One application.

    Parameters:
        seen: is brought up to date.
        read: what its store hands out now. Raises Trouble.
        issuer: whom it shows that.
        clock: for spans; its pauses pass in real time, whatever the clock does.
    """

    def __init__(self, seen: Seen, read: Callable[[], Credential], issuer: Issuer, clock: Clock) -> None:
        self.seen: Final = seen
        self._read = read
        self._issuer = issuer
        self._clock = clock
        self._first: Credential | None = None
        self._held: Credential | None = None
        self._read_at = 0.0
        self._reported: float | None = None
        self._out_since: float | None = None

    def use(self) -> bool:
        """One use of what it has; reads again first where that is old. Whether it was let in."""
        seen, clock = self.seen, self._clock
        seen.uses += 1
        try:
            if self._held is None or clock.monotonic() > self._read_at + CACHED_FOR:
                self._held, self._read_at = self._read(), clock.monotonic()
            self._first = self._first or self._held
            verdict = self._issuer.verify(self._held).verdict
        except Trouble:
            verdict = Verdict.UNKNOWN
        now = clock.monotonic()
        if verdict is Verdict.INVALID:
            seen.refused += 1
            self._held = None  # as a good client does: a refusal means that the cache is stale
            self._out_since = now if self._out_since is None else self._out_since
        elif verdict is Verdict.UNKNOWN:
            seen.unanswered += 1
        else:
            self._accepted(now)
        if self._out_since is not None:
            seen.longest_outage_seconds = max(seen.longest_outage_seconds, round(now - self._out_since, 3))
        return verdict.live

    def _accepted(self, now: float) -> None:
        if self._out_since is not None:
            self.seen.longest_outage_seconds = max(self.seen.longest_outage_seconds, round(now - self._out_since, 3))
            self._out_since = None
        if self._reported is None or self.seen.new_value_seconds is not None:
            return
        if self._held is not None and self._first is not None and not self._held.same_as(self._first):
            self.seen.new_value_seconds = round(now - self._reported, 3)

    def reported(self) -> None:
        """From now on it counts how long it goes without another credential."""
        self._reported = self._clock.monotonic()

    def settled(self) -> bool:
        """Reads again, and says whether it is let in with another credential than at first; after a few tries at most."""
        self._held = None
        for turn in range(_TRIES):
            if turn:
                self._clock.sleep(self._issuer.capabilities.create.interval.total_seconds())
            if self.use() and self.seen.new_value_seconds is not None:
                return True
        return False


@contextmanager
def at_work(bystanders: Sequence[Bystander]) -> Iterator[None]:
    """Has each use its credential, in a thread of its own, as long as this lasts."""
    over = threading.Event()

    def work(one: Bystander) -> None:
        while not over.wait(PAUSE):
            one.use()

    threads = [
        threading.Thread(target=work, args=(one,), name=f"bystander {one.seen.store}", daemon=True)
        for one in bystanders
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
