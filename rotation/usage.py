"""How the keys of secrets are used, by their issuers' word: what is asked of an issuer at once, and what is worth a warning.

    retired   a key is used that nobody should use any more: past its grace period, condemned, revoked or shown dead
    jump      a key is used far more than it was before

An old key that drains is asked about by the engine itself, one at a time. This here is for people who look, and for sweeps
that are told to watch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from rotation import fleet
from rotation.model import Counting, KeyUse
from rotation.ports import Clock, Severity

if TYPE_CHECKING:
    from rotation.errors import Trouble
    from rotation.situation import Situation

FACTOR: Final = 5
"""A jump is more than so many times the baseline."""
LEAST: Final = 20
"""What the baseline is taken to be at least: below FACTOR times this nothing is a jump."""
HISTORY: Final = 12
"""Earlier spans with requests that it takes to speak of a baseline."""


class Role(StrEnum):
    """What a key is to its secret."""

    CURRENT = "current"
    GRACE = "in its grace period"
    RETIRING = "past its grace period"
    CONDEMNED = "condemned"
    REVOKED = "revoked"
    DEAD = "shown dead"


@dataclass(frozen=True, slots=True)
class Watched:
    """One key of a secret."""

    key_id: str
    role: Role
    over_at: datetime | None = None
    """From when on nobody should use it; None while somebody may."""


class Why(StrEnum):
    """What is worth a warning."""

    RETIRED = "retired"
    JUMP = "jump"


@dataclass(frozen=True, slots=True)
class Warned:
    """One warning about one key."""

    why: Why
    key_id: str
    severity: Severity
    text: str
    """A sentence without the name of the secret."""
    requests: int | None = None
    """How many it is about; None where last uses alone are told."""


@dataclass(frozen=True, slots=True)
class Jump:
    """The newest span has far more requests than the ones before."""

    requests: int
    baseline: int


# --- rules: pure -------------------------------------------------------------------------------------


def watched(s: Situation) -> Iterator[Watched]:
    """The keys of a secret whose ids are known, but for one that waits for its promotion."""
    journal = s.seen.primary.journal
    staged = s.key_of(s.pending)
    for key in s.keys:
        key_id = s.key_id(key)
        if key_id is None or (key == staged and key != s.current_key):
            continue
        since = s.superseded_at(key)
        ended = since + s.policy.grace if since else None
        if key in journal.proven:
            yield Watched(key_id, Role.DEAD, journal.proven[key])
        elif key in journal.revoked:
            # Until then its refusal is on its way, and after it the proof begins.
            yield Watched(key_id, Role.REVOKED, journal.revoked[key] + s.issuer.revoke.timeout)
        elif key in s.roles:
            yield Watched(key_id, Role.CURRENT)
        elif (held := journal.condemned.get(key)) is not None:
            yield Watched(key_id, Role.CONDEMNED, min(ended, held.at) if ended else held.at)
        elif ended is not None:
            yield Watched(key_id, Role.GRACE if s.now < ended else Role.RETIRING, None if s.now < ended else ended)


def used_since(use: KeyUse, at: datetime) -> int | None:
    """Requests in spans that lie wholly after a moment; 0 for none, None for some number."""
    counted = sum(span.count for span in use.counts or () if span.start >= at)
    if not counted and use.last.known and use.last.at is not None and use.last.at > at:
        return None
    return counted


def jump(counts: Sequence[int]) -> Jump | None:
    """Whether the last of these counts of equal spans is far beyond the ones before.

    It is when it is more than FACTOR times the baseline: what nine in ten of the earlier spans with requests did not
    exceed, and at least LEAST. With fewer than HISTORY of them there is no baseline, and no jump.
    """
    busy = sorted(count for count in counts[:-1] if count)
    if not counts or len(busy) < HISTORY:
        return None
    baseline = max(busy[math.ceil(len(busy) * 9 / 10) - 1], LEAST)
    return Jump(counts[-1], baseline) if counts[-1] > FACTOR * baseline else None


def warnings(key: Watched, use: KeyUse, counting: Counting | None) -> Iterator[Warned]:
    """What is worth telling of one key."""
    of = counting.of if counting else "uses"
    refused = counting is not None and counting.refused
    # Of one that is not shown dead, requests that are refused may be our own: they are how it is proven.
    if key.over_at is not None and not (refused and key.role is Role.REVOKED):
        number = used_since(use, key.over_at)
        if number != 0:
            how = "was used" if number is None else f"has {number} {of}"
            alive = key.role in (Role.REVOKED, Role.DEAD) and not refused
            then = ": it is accepted" if alive else ": somebody holds on to it" if refused else ""
            text = f"{key.key_id} {how} after {key.over_at:%Y-%m-%d %H:%M}Z, and is {key.role}{then}"
            yield Warned(Why.RETIRED, key.key_id, Severity.CRITICAL if alive else Severity.WARNING, text, number)
            return
    counts = [span.count for span in use.counts or ()]
    # The last span may still be running, and the one before have ended since somebody looked.
    for last in (len(counts), len(counts) - 1):
        if last > 0 and use.counts and counting and (found := jump(counts[:last])):
            start = use.counts[last - 1].start
            text = (
                f"{key.key_id} has {found.requests} {of} from {start:%Y-%m-%d %H:%M}Z on, more than {FACTOR} times its "
                f"baseline of {found.baseline}"
            )
            yield Warned(Why.JUMP, key.key_id, Severity.WARNING, text, found.requests)
            return


# --- asking ------------------------------------------------------------------------------------------


class Asked(Protocol):
    """An issuer behind its patience: see rotation.resilience.PatientIssuer."""

    @property
    def counting(self) -> Counting | None: ...

    def usage(self, key_ids: Collection[str], since: datetime, until: datetime) -> Mapping[str, KeyUse]: ...


def ask(
    issuers: Mapping[str, Asked], wanted: Mapping[str, Collection[str]], clock: Clock
) -> tuple[dict[str, Mapping[str, KeyUse]], list[Trouble]]:
    """Asks each issuer once for all of its keys.

    Parameters:
        wanted: key ids by issuer.

    Returns:
        Uses by issuer and key id, and what stood in the way. What an issuer can not tell of is not among them.
    """
    from rotation.errors import Trouble  # noqa: PLC0415

    now = clock.now()

    def one(name: str) -> Mapping[str, KeyUse] | Trouble:
        try:
            issuer = issuers[name]
            counting = issuer.counting
            since = now - counting.window + counting.width if counting else now  # the running span is one of them
            return issuer.usage(sorted(wanted[name]), since, now)
        except Trouble as trouble:
            return trouble

    found: dict[str, Mapping[str, KeyUse]] = {}
    troubles: list[Trouble] = []
    for name, told in fleet.each([name for name in wanted if wanted[name]], one):
        if isinstance(told, Trouble):
            troubles.append(told)
        else:
            found[name] = told
    return found, troubles


def dead(proven: Iterable[tuple[str, datetime]], known: Iterable[Watched]) -> Iterator[Watched]:
    """Keys of which nothing but the audit trail tells any more.

    Parameters:
        proven: key ids, and when each was shown dead.
        known: what the secret's journal still has.
    """
    there = {key.key_id for key in known}
    latest = dict(sorted(proven, key=lambda one: one[1]))
    yield from (Watched(key_id, Role.DEAD, at) for key_id, at in latest.items() if key_id not in there)
