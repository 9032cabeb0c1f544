"""What needs no look: a listing tells that there is nothing to do, or nothing has changed since a look that found that.

    foresee()    the engine's own decision about what a listing has told, where that is all that a look would see
    Memory       a process's memory of runs that found nothing to do, by marks

Whatever is not sure is looked at: another store takes part, something is in flight, the issuer would have to be asked.
A listing may be minutes old, and so is what it is good for: the next one shows what happened since.
"""

from __future__ import annotations

import hashlib
import threading
from datetime import UTC, datetime, timedelta
from typing import Final

from rotation.actions import Done, Rest, Wait
from rotation.decide import decide
from rotation.engine import Engine, Outcome, Target
from rotation.errors import Trouble
from rotation.looking import Observer
from rotation.model import Entry
from rotation.situation import ATTEMPT_LIFE, Evidence, Observation, Order

LOOK_WITHIN: Final = timedelta(hours=24)
"""What is remembered counts for so long at most, half of it at least: that late a mark which misses something is noticed."""
LOOK_SOON: Final = timedelta(hours=1)
"""The same of what waits for an old credential: its issuer may have more to tell."""


def see(engine: Engine, store: str, entry: Entry) -> Observation | None:
    """What a look would see, by what a listing has told; None where it would see more, or would say what is wrong."""
    try:
        return Observer(engine.outside).listed(store, entry)
    except Trouble:
        return None


def foresee(engine: Engine, target: Target, seen: Observation, order: Order) -> Outcome | None:
    """How a run would end after this look; None where it would do or ask anything, or has something to say."""
    outside = engine.outside
    now = outside.now(seen)
    decision = decide(seen, outside.issuer(seen).capabilities, Evidence(), order, now)
    return Outcome(target, decision, None, seen, []) if isinstance(decision, Rest) and _passes(decision, now) else None


def ends(outcome: Outcome) -> datetime | None:
    """Until when there is nothing to do, as far as is known."""
    match outcome.rest:
        case Done(due_at=at) | Wait(until=at):
            return at
    return None


def _passes(decision: Rest | None, now: datetime) -> bool:
    """Whether nothing but time matters."""
    if isinstance(decision, Wait):
        return not decision.soon and not decision.look and decision.until > now
    return isinstance(decision, Done)


class Memory:
    """Which secrets had nothing to do when they were last run, until when, and how they were marked. About 150 bytes each.

    Threads may share it. It is a matter of calls, not of safety: what it forgets is looked at.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[int, int] = {}
        """By digest of the target, and of its mark: seconds since the epoch."""

    def until(self, target: Target, mark: int, now: datetime) -> datetime | None:
        """Until when nothing is to be done as far as is remembered of an entry with this mark; None: look."""
        with self._lock:
            seconds = self._until.get(_digest(target, mark))
        return datetime.fromtimestamp(seconds, UTC) if seconds is not None and seconds > now.timestamp() else None

    def note(self, target: Target, mark: int, outcome: Outcome, now: datetime, announced: timedelta) -> None:
        """Remembers a run of an entry that was listed with this mark, provided that it found nothing to do.

        Parameters:
            announced: how long before it is due a rotation is told; a run has to come by then.
        """
        key = _digest(target, mark)
        until = _until(outcome, now, announced, key)
        with self._lock:
            if until is None or until <= now:
                self._until.pop(key, None)
            else:
                self._until[key] = int(until.timestamp())

    def sweep(self, now: datetime) -> None:
        """Drops what is over: of marks that are no more, too."""
        with self._lock:
            for key in [key for key, seconds in self._until.items() if seconds <= now.timestamp()]:
                del self._until[key]


def _until(outcome: Outcome, now: datetime, announced: timedelta, chance: int) -> datetime | None:
    seen, rest = outcome.seen, outcome.rest
    if seen is None or outcome.trouble or outcome.records or not _passes(rest, now):
        return None
    entries = (seen.primary, *seen.replicas.values())
    if not all(isinstance(entry, Entry) for entry in entries) or _waits(seen.primary):
        return None
    if any(now < attempt.at + ATTEMPT_LIFE for attempt in seen.primary.journal.attempts.values()):
        return None  # some part of an entry that is not listed may be written without another fact
    # Not all of a fleet at one time.
    latest = now + LOOK_WITHIN * (0.5 + 0.5 * (chance % 1_000) / 1_000)
    if isinstance(rest, Wait):
        return min(latest, rest.until, now + LOOK_SOON)
    assert isinstance(rest, Done), "what passes is either"
    if rest.due_at is None:
        return latest
    told = rest.due_at - announced
    return min(latest, told if now < told else rest.due_at)


def _waits(entry: Entry) -> bool:
    """Whether something but the current version's own copy is pending."""
    current = entry.current.token if entry.current else None
    return entry.pending is not None and (current is None or entry.pending.token != current)


def _digest(target: Target, mark: int) -> int:
    text = f"{target.store} {target.entry} {mark}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
