"""How old credentials really get under a policy, and when a pair rotates: the schedule itself is run, not its claim read. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

from rotation import schedule as schedules
from rotation.model import Policy, Schedule

AHEAD = timedelta(days=400)
"""How far schedules are run: a year with its holidays, and some weeks."""
PHASES = 12
"""Days of birth that are tried for a credential, spread over its longest life: which window it meets depends on that."""
ROUNDS = 60
"""Rotations in a row that are looked at from each."""
_STEP = timedelta(minutes=15)
"""Far less than an opening may be short."""

Life = tuple[datetime, datetime]
"""From when a credential is current, and when its replacement begins."""


def lives(policy: Policy, now: datetime) -> Iterator[Life]:
    """Lives of credentials under a policy, from now on; around each blackout those that it presses most."""
    for start in _births(policy, now):
        yield from lives_from(policy, start, now + AHEAD)


def lives_from(policy: Policy, start: datetime, end: datetime) -> Iterator[Life]:
    """One life after the other, until some time after `end`."""
    since = start
    for _ in range(ROUNDS):
        at = max(schedules.due(policy.schedule, schedules.cycle(policy, since)).at, since + timedelta(seconds=1))
        yield since, at
        if at > end:
            return
        since = at


def _births(policy: Policy, now: datetime) -> Iterator[datetime]:
    bound = policy.rotate_every
    yield from (now + bound * phase / PHASES for phase in range(PHASES))
    for blackout in policy.schedule.blackouts:
        start, end = (moment.replace(tzinfo=UTC) for moment in (blackout.start, blackout.end))
        if end > now:
            yield from (start - bound * share / 8 for share in range(9))
            yield from (end - bound + (end - start) * share / 4 for share in range(5))


def range_of(policy: Policy, now: datetime) -> tuple[timedelta, timedelta]:
    """The shortest and the longest that a credential lives before its replacement begins."""
    ages = [at - since for since, at in lives(policy, now)]
    return min(ages), max(ages)


def together(one: Policy, other: Policy, now: datetime) -> datetime | None:
    """When two that were made at the same time first rotate in the same window of either; None if they do not.

    Without windows there is none that they could share: whichever comes second then waits for the first.
    """
    windowed = [policy.schedule for policy in (one, other) if policy.schedule.windows]
    if not windowed:
        return None
    for start in islice(_births(one, now), PHASES):
        first, second = ([at for _, at in lives_from(policy, start, now + AHEAD)] for policy in (one, other))
        for at in first:
            nearest = min(second, key=lambda moment: abs(moment - at))
            if any(_one_window(schedule, *sorted((at, nearest))) for schedule in windowed):
                return at
    return None


def _one_window(schedule: Schedule, earlier: datetime, later: datetime) -> bool:
    """Whether the schedule is open from one moment to the other without a break."""
    whole = schedules.Cycle(earlier, schedules.LONGEST)
    at = earlier
    while at < later:
        if schedules.opening(schedule, whole, at).at != at:
            return False
        at += _STEP
    return schedules.opening(schedule, whole, later).at == later


def takes_turns(policy: Policy) -> bool:
    """Whether two of a pair have room for one after the other within the age that they may have."""
    waits = schedules.give(policy.grace, policy.drain.quiet_for)
    return policy.rotate_every >= 2 * (waits + schedules.lead(policy.rotate_every))
