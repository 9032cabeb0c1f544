"""Where every secret stands, as last seen: the gauges. Pure, but for the memory of the last sweep."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from rotation.actions import Decision, Hold
from rotation.engine import Target
from rotation.model import Capabilities, Policy
from rotation.observe.instruments import SECRET, Instrument, Measure, labels_of
from rotation.situation import Evidence, Observation, Order, Situation
from rotation.status import Phase, phase


@dataclass(frozen=True, slots=True)
class Look:
    """One secret, as far as a look told."""

    policy: Policy
    """The applied one where it is known."""
    phase: Phase
    rotated_at: datetime | None = None
    """Since when the current credential is current."""
    due_at: datetime | None = None
    draining: int = 0
    """Old credentials that live on for their consumers."""
    condemned: int = 0
    """Credentials that are to die and are not revoked yet."""
    unproven: int = 0
    """Credentials that should be dead and are not shown to be."""
    failures: int = 0
    """Rotations that failed, one after the other."""
    held: str | None = None
    """A `rotation.actions.Cause`."""
    overdue_at: datetime | None = None
    """From when on the current credential is older than is allowed."""


def look(seen: Observation, decision: Decision | None, issuer: Capabilities, now: datetime) -> Look:
    """What an observation tells.

    Parameters:
        decision: what is to be done next, or None when a failed call left that open.
    """
    s = Situation(seen, Evidence(), issuer, Order(), now)
    journal = seen.primary.journal
    hold = decision if isinstance(decision, Hold) else None
    unproven = len(journal.unproven())
    return Look(
        seen.policy,
        phase(s, decision),
        rotated_at=s.aged_from(s.current_key) if s.current_key else None,
        due_at=s.next.at if s.next else None,
        draining=sum(key not in journal.condemned and key not in journal.revoked for key in s.retiring),
        condemned=sum(key not in journal.revoked for key in journal.condemned),
        unproven=max(unproven, 1) if hold and hold.unproven else unproven,
        failures=journal.backoff.failures if journal.backoff else 0,
        held=hold.cause.value if hold else None,
        overdue_at=s.next.overdue if s.next else None,
    )


AGE: Final = Instrument(
    "keyturn_secret_age_seconds", "gauge", "How long the current credential has been current.", SECRET
)
DUE: Final = Instrument(
    "keyturn_secret_due_timestamp_seconds", "gauge", "When the current credential is to be replaced.", SECRET
)
OVERDUE: Final = Instrument(
    "keyturn_secret_overdue_seconds", "gauge", "For how long it has been older than is allowed; 0 before that.", SECRET
)
PHASE: Final = Instrument(
    "keyturn_secret_phase",
    "gauge",
    "1 for the phase that a secret is in, as `keyturn status` names it; no series for the others.",
    (*SECRET, "phase"),
)
HELD: Final = Instrument(
    "keyturn_secret_held",
    "gauge",
    "1 while only a change outside can help, by what has to change; no series otherwise.",
    (*SECRET, "cause"),
)
DRAINING: Final = Instrument(
    "keyturn_secret_draining_keys", "gauge", "Old credentials that live on until their consumers have let go.", SECRET
)
CONDEMNED: Final = Instrument(
    "keyturn_secret_condemned_keys", "gauge", "Credentials that are to die and are not revoked yet.", SECRET
)
UNPROVEN: Final = Instrument(
    "keyturn_secret_unproven_keys", "gauge", "Credentials that should be dead and are not shown to be.", SECRET
)
FAILED: Final = Instrument(
    "keyturn_secret_failed_rotations", "gauge", "Rotations that failed, one after the other.", SECRET
)
SUSPECT: Final = Instrument(
    "keyturn_secret_suspect_keys",
    "gauge",
    "Keys that are used although they are retired, or far more than before; where their issuer is watched.",
    (*SECRET, "why"),
)
SEEN: Final = Instrument("keyturn_observation_timestamp_seconds", "gauge", "When all secrets were last looked at.", ())
REACHED: Final = Instrument(
    "keyturn_store_reached", "gauge", "Whether a store listed all of its entries at that look.", ("store",)
)

GAUGES: Final = (AGE, DUE, OVERDUE, PHASE, HELD, DRAINING, CONDEMNED, UNPROVEN, FAILED, SUSPECT, SEEN, REACHED)

_NUMBERS: Final[tuple[tuple[Instrument, Callable[[Look, datetime], float | None]], ...]] = (
    (AGE, lambda seen, now: (now - seen.rotated_at).total_seconds() if seen.rotated_at else None),
    (DUE, lambda seen, _: seen.due_at.timestamp() if seen.due_at else None),
    (OVERDUE, lambda seen, now: max((now - seen.overdue_at).total_seconds(), 0.0) if seen.overdue_at else None),
    (DRAINING, lambda seen, _: seen.draining),
    (CONDEMNED, lambda seen, _: seen.condemned),
    (UNPROVEN, lambda seen, _: seen.unproven),
    (FAILED, lambda seen, _: seen.failures),
)


def readings(looks: Iterable[Look], now: datetime) -> Iterator[Measure]:
    """The gauges of these secrets. What is not known has no reading.

    Parameters:
        now: ages count until then.
    """
    for seen in looks:
        secret = labels_of(seen.policy)
        yield PHASE, {**secret, "phase": seen.phase.value}, 1
        if seen.held:
            yield HELD, {**secret, "cause": seen.held}, 1
        if seen.phase is Phase.NOT_APPLIED:
            continue
        for instrument, read in _NUMBERS:
            if (number := read(seen, now)) is not None:
                yield instrument, secret, number


class Board:
    """The last look at every secret of an environment. Threads may write and read it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looks: dict[Target, Look] = {}
        self._suspect: dict[Target, Mapping[str, int]] = {}
        self._reached: dict[str, bool] = {}
        self._at: datetime | None = None

    def put(self, target: Target, seen: Look) -> None:
        """What one look told. Counts at once, while the others are still being looked at."""
        with self._lock:
            self._looks[target] = seen

    def lose(self, target: Target, policy: Policy) -> None:
        """A look that failed: what was known stays, as unreachable."""
        with self._lock:
            self._lose(target, policy)

    def suspect(self, target: Target, keys: Mapping[str, int]) -> None:
        """How many of a secret's keys are used as they should not be, by why; counts until it is said anew."""
        with self._lock:
            self._suspect[target] = dict(keys)

    def end(self, there: Container[Target], reached: Mapping[str, bool], at: datetime) -> None:
        """The end of a round over all secrets.

        Parameters:
            there: every secret that there is. One of a store that did not answer is not taken to be gone.
            reached: by store, whether it listed all of its entries.
        """
        with self._lock:
            for target in list(self._looks):
                if target in there:
                    continue
                if reached.get(target.store, False):
                    del self._looks[target]
                    self._suspect.pop(target, None)
                else:
                    self._lose(target, self._looks[target].policy)
            self._reached = dict(reached)
            self._at = at

    def _lose(self, target: Target, policy: Policy) -> None:
        known = self._looks.get(target) or Look(policy, Phase.UNREACHABLE)
        self._looks[target] = replace(known, phase=Phase.UNREACHABLE)

    def read(self, now: datetime) -> list[Measure]:
        """Every gauge.

        Parameters:
            now: ages count until then.
        """
        with self._lock:
            looks, reached, at = list(self._looks.values()), dict(self._reached), self._at
            suspect = [(self._looks[t].policy, keys) for t, keys in self._suspect.items() if t in self._looks]
        found = list(readings(looks, now))
        found += [
            (SUSPECT, {**labels_of(policy), "why": why}, float(count))
            for policy, keys in suspect
            for why, count in sorted(keys.items())
        ]
        found += [(REACHED, {"store": store}, float(there)) for store, there in sorted(reached.items())]
        if at is not None:
            found.append((SEEN, {}, at.timestamp()))
        return found
