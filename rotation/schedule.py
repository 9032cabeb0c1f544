"""When a secret is due, and why: from its schedule and from when its credential is current. Pure.

    since ····· earliest ····················· due ··· lead ···┤ overdue
                   │   open: windows, less blackouts   │
                   └── here a rotation may begin ──────┘

The age that a policy allows is a bound, so everything is planned to be over before it: windows and
blackouts pull a rotation to an earlier opening and never push it past the bound. What cannot be kept is
said in the reason. Emergencies, and the replacement of a dead credential, do not ask here.

Local times that a change of clocks skips or repeats are read as RFC 5545 (3.3.5) reads them: one that
is skipped counts on from the hour before, of one that comes twice the first is meant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import pairwise
from math import ceil
from typing import Final

from rotation.model import Blackout, Policy, Restraint, Schedule

SHORTEST: Final = timedelta(hours=4)
LONGEST: Final = timedelta(days=1000)
"""Between two rotations; what Secrets Manager's own schedules allow."""

SWEEPS: Final = timedelta(hours=1)
"""Sweeps come at least this often: openings are that long, and rotations begin at least that long before a bound."""
LEAD: Final = 2 * SWEEPS
"""How long before the bound the last sweep that counts begins; of short bounds a quarter."""
ROOM: Final = timedelta(hours=6)
"""What a rotation that is pulled ahead of a closure has for a second and a third try; of short bounds a quarter."""
YOUNG: Final = timedelta(days=1)
"""A younger credential is not pulled ahead of a closure, or a freeze would begin with a burst; of short bounds an eighth."""

_PLAIN: Final = Schedule()
_DAY: Final = timedelta(days=1)
_AFTER: Final = 20 * _DAY
"""A pair's next window may be two weeks away."""
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, slots=True)
class Cycle:
    """The life of one credential as the current one. Every runner reads the same from the store."""

    since: datetime
    """When it became current; aware."""
    bound: timedelta
    """The age that it must not exceed."""
    seed: str = ""
    """Whose it is: `<installation>/<environment>/<name>`."""
    turn: int | None = None
    """Of a pair: 0 or 1, which of two windows in a row is its own."""
    give: timedelta = timedelta(0)
    """Of a pair: for how long the other one's rotation may hold this one up."""
    expires: datetime | None = None
    """By when it is replaced whatever the schedule says, as it stops working by itself."""

    @property
    def overdue(self) -> datetime:
        """From when on it is older than allowed."""
        return self.since + self.bound

    @property
    def latest(self) -> datetime:
        """When it should begin at the latest, to be over in time."""
        latest = self.overdue - lead(self.bound)
        return latest if self.expires is None else min(latest, self.expires)

    @property
    def last(self) -> datetime:
        """The last moment for which a rotation is planned: its pair may hold it up from then on."""
        planned = self.overdue - lead(self.bound) - min(self.give, self.bound / 2)
        return min(planned, self.latest)


@dataclass(frozen=True, slots=True)
class Due:
    """When a rotation begins, and why then."""

    at: datetime
    """Aware, UTC."""
    reason: str
    """For people: completes "rotates at …". Empty where the age says it all."""
    overdue: datetime
    """From when on the secret is overdue."""

    @property
    def late(self) -> bool:
        """Whether the secret is overdue before that."""
        return self.at > self.overdue


def cycle(policy: Policy, since: datetime, expires: datetime | None = None) -> Cycle:
    """The cycle of a secret whose credential is current since then."""
    paired = policy.paired_with
    return Cycle(
        since=since,
        bound=policy.rotate_every,
        seed=f"{policy.installation}/{policy.environment}/{policy.name}",
        turn=int(policy.name > paired) if paired else None,
        give=give(policy.grace, policy.drain.quiet_for) if paired else timedelta(0),
        expires=expires,
    )


def lead(bound: timedelta) -> timedelta:
    """How long before the bound everything should have begun."""
    return min(LEAD, bound / 4)


def give(grace: timedelta, quiet_for: timedelta) -> timedelta:
    """How long a secret may have to wait for its pair, whose old credential drains meanwhile."""
    return grace + quiet_for


@lru_cache(maxsize=4096)
def due(schedule: Schedule, cycle: Cycle) -> Due:
    """When the next rotation is due. Cached: it is asked for at every step of every secret."""
    if schedule == _PLAIN:
        return Due(cycle.last, _EXPIRES if cycle.last == cycle.expires else "", cycle.overdue)
    floor = cycle.since + max(schedule.earliest, _young(schedule, cycle.bound))
    want = min(_wanted(schedule, cycle), cycle.last)
    if schedule.cron and (found := _on_time(schedule, cycle)) is not None:
        told = f"cron {schedule.cron}, {{at}}"
    elif cycle.last <= floor:
        found, told = _Found(cycle.last, cycle.last, None), ""  # a credential that lives so shortly waits for nothing
    else:
        found, told = _plan(schedule, cycle, floor, want, SWEEPS)
    if cycle.expires is not None and found.at >= cycle.expires:
        return Due(cycle.expires, _EXPIRES, cycle.overdue)
    at = found.at + _moved(schedule, cycle, found)
    return Due(at, told.replace("{at}", _local(at, schedule)), cycle.overdue)


def opening(schedule: Schedule, cycle: Cycle, now: datetime) -> Due:
    """When a rotation that is due may begin: now, or at the next opening. A missed one is caught up once, there."""
    if schedule == _PLAIN:
        return Due(now, "", cycle.overdue)
    # Whose turn a window is matters when rotations are planned. One that was missed takes any: that the
    # pair is not at its own is looked up before it begins.
    found, told = _plan(schedule, replace(cycle, turn=None), now, now, timedelta(0))
    if cycle.expires is not None and found.at > cycle.expires:
        return Due(cycle.expires, _EXPIRES, cycle.overdue)
    return Due(found.at, told.replace("{at}", _local(found.at, schedule)), cycle.overdue)


_EXPIRES: Final = "before it expires by itself"


# --- where in the open time ----------------------------------------------------------------------

_Span = tuple[datetime, datetime | None]
"""From, and the first moment after it; None for as far as anybody looks."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A moment, and the part of the opening around it that may be used."""

    at: datetime
    opens: datetime
    closes: datetime | None


def _plan(schedule: Schedule, cycle: Cycle, floor: datetime, want: datetime, least: timedelta) -> tuple[_Found, str]:
    """The best moment not before `floor`: open, near to what is wanted, before the bound. And why, with {at}."""
    room, last = min(ROOM, cycle.bound / 4), cycle.last

    def best(view: Schedule, want: datetime, last: datetime) -> _Found | None:
        return _best(_open(view, floor, max(last, floor), cycle.turn), floor, want, last, room, least)

    if found := best(schedule, want, last):
        free = best(replace(schedule, blackouts=()), want, last) if schedule.blackouts else found
        return found, _why(schedule, found, free or found)
    latest, loose = max(last, floor), schedule
    for loose in _relaxed(schedule):
        if found := best(loose, latest, latest):
            blackout = _holds(schedule, found.at)
            inside = f"its bound, {{at}}, in {_name(blackout)}, which it overrides"
            return found, inside if blackout else "its bound, {at}, as no window opens before"
    # What holds it up outlasts the bound, and may not be overridden.
    opens, closes = next(span for span in _open(loose, floor, latest, cycle.turn) if span[0] > latest)
    blackout = _holds(schedule, latest)
    told = f"{{at}}, after {_name(blackout)}" if blackout else "its window, {at}"
    late = f"; overdue from {cycle.overdue:%Y-%m-%d %H:%M}Z" if opens > cycle.overdue else ""
    return _Found(opens, opens, closes), told + late


def _relaxed(schedule: Schedule) -> Iterator[Schedule]:
    """The schedule less what its bound overrides, the weaker first."""
    windows = schedule.windows and Restraint.WINDOW in schedule.overrides
    if windows:
        yield replace(schedule, windows=())
    if schedule.blackouts and Restraint.BLACKOUT in schedule.overrides:
        yield replace(schedule, blackouts=())
        if windows:
            yield replace(schedule, blackouts=(), windows=())


def _best(
    spans: Iterable[_Span], floor: datetime, want: datetime, last: datetime, room: timedelta, least: timedelta
) -> _Found | None:
    """In the span around what is wanted; else at the next that opens in time; else in the last before."""
    before = None
    for span, closes in spans:
        opens = max(span, floor)
        if closes is not None and (closes <= opens or closes - opens < least):
            continue
        if opens > want:
            return _Found(opens, opens, closes) if opens <= last else before
        if closes is None or want < closes:
            # Not so near to its end that the next sweep is too late.
            return _Found(want if closes is None else max(opens, min(want, closes - room)), opens, closes)
        before = _Found(max(opens, closes - room), opens, closes)
    return before


def _moved(schedule: Schedule, cycle: Cycle, found: _Found) -> timedelta:
    """This cycle's share of the jitter: later as far as that goes, else earlier."""
    if not schedule.jitter:
        return timedelta(0)
    latest = min(found.at + schedule.jitter, cycle.last)
    if found.closes is not None:
        latest = min(latest, found.closes - min(LEAD, (found.closes - found.opens) / 2))
    latest = max(latest, found.at)
    first = max(min(latest - schedule.jitter, found.at), found.opens)
    share = int((latest - first).total_seconds() * _share(cycle))
    return first - found.at + timedelta(seconds=share)


def _share(cycle: Cycle) -> float:
    """Of 1: the same for everybody who looks at this cycle, another in the next."""
    told = f"{cycle.seed} {cycle.since.astimezone(UTC):%Y-%m-%dT%H:%M:%S}"
    return int.from_bytes(hashlib.sha256(told.encode()).digest()[:6], "big") / 2**48


def _young(schedule: Schedule, bound: timedelta) -> timedelta:
    return min(YOUNG, (schedule.every or bound) / 8)


def _wanted(schedule: Schedule, cycle: Cycle) -> datetime:
    """When it would rotate if everything were open."""
    if schedule.cron:
        return next(occurrences(schedule.cron, schedule.zone, _old_enough(schedule, cycle)), cycle.last)
    return cycle.since + schedule.every if schedule.every else cycle.overdue


# --- in words ------------------------------------------------------------------------------------


def _why(schedule: Schedule, found: _Found, free: _Found) -> str:
    """Parameters: free: what would have been found without blackouts."""
    told = "its window, {at}" if schedule.windows else "{at}"
    if found.at == free.at:
        return told
    blackout = _holds(schedule, free.at) or _holds(schedule, found.closes or free.at)
    return f"{told}, {'ahead of' if found.at < free.at else 'after'} {_name(blackout)}"


def _holds(schedule: Schedule, at: datetime) -> Blackout | None:
    """The blackout that lies over a moment."""
    return next((blackout for start, end, blackout in _closures(schedule) if start <= at < end), None)


def _name(blackout: Blackout | None) -> str:
    return f"the blackout {blackout.reason}" if blackout else "a blackout"


def _local(at: datetime, schedule: Schedule) -> str:
    """`Sun 2026-12-06 02:00 Europe/Berlin`."""
    local = at.astimezone(_zone(schedule.zone))
    return f"{_DAYS[local.weekday()]} {local:%Y-%m-%d %H:%M} {schedule.zone}"


# --- what is open --------------------------------------------------------------------------------


def _open(schedule: Schedule, start: datetime, end: datetime, turn: int | None = None) -> Iterator[_Span]:
    """The spans in which rotations may begin, in order and apart, from about `start` to well after `end`.

    Those shorter than the time between two sweeps are none.
    """
    closed = _closures(schedule)
    end = max([end, *(after for _, after, _ in closed)]) + _AFTER
    spans = _merged(_windows(schedule, start, end, turn)) if schedule.windows else iter([(start - _AFTER, None)])
    for opens, after in spans:
        for held, free, _ in closed:
            if free <= opens or (after is not None and held >= after):
                continue
            if opens + SWEEPS <= held:
                yield opens, held
            opens = free  # noqa: PLW2901 - what is left of the span
        if after is None or opens + SWEEPS <= after:
            yield opens, after


def _windows(
    schedule: Schedule, start: datetime, end: datetime, turn: int | None
) -> Iterator[tuple[datetime, datetime]]:
    """Each time a window opens; of a pair those whose turn it is."""
    zone = _zone(schedule.zone)
    weekly = sorted((day, w.opens, w.closes) for w in schedule.windows for day in w.days)
    at, last = start.astimezone(zone).date() - 2 * _DAY, end.astimezone(zone).date()
    while at <= last:
        for position, (day, opens, closes) in enumerate(weekly):
            number = (at.toordinal() - 1) // 7 * len(weekly) + position
            if day != at.weekday() or (turn is not None and number % 2 != turn):
                continue
            first = _instant(datetime.combine(at, datetime.min.time()) + timedelta(minutes=opens), zone)
            after = _instant(datetime.combine(at, datetime.min.time()) + timedelta(minutes=closes), zone)
            yield first, max(after, first + SWEEPS)  # one in the hour that is skipped opens after it
        at += _DAY


def _merged(spans: Iterable[tuple[datetime, datetime]]) -> Iterator[tuple[datetime, datetime]]:
    held: tuple[datetime, datetime] | None = None
    for opens, closes in spans:
        if held is None or opens > held[1]:
            if held is not None:
                yield held
            held = opens, closes
        else:
            held = held[0], max(held[1], closes)
    if held is not None:
        yield held


@lru_cache(maxsize=512)
def _closures(schedule: Schedule) -> tuple[tuple[datetime, datetime, Blackout], ...]:
    """Blackouts as instants, in order."""
    if not schedule.blackouts:
        return ()
    zone = _zone(schedule.zone)
    found = ((_instant(b.start, zone), _instant(b.end, zone), b) for b in schedule.blackouts)
    return tuple(sorted(found, key=lambda closure: closure[:2]))


def _instant(local: datetime, zone: tzinfo) -> datetime:
    return local.replace(tzinfo=zone).astimezone(UTC)


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    """Raises ValueError where there is no such zone."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 - a plain interval needs no zones

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError):  # OSError: it names a folder of zones
        raise ValueError(f"there is no time zone {name}") from None


# --- cron ----------------------------------------------------------------------------------------


def _on_time(schedule: Schedule, cycle: Cycle) -> _Found | None:
    """The first occurrence that is open, old enough, and before the bound."""
    for at in occurrences(schedule.cron, schedule.zone, _old_enough(schedule, cycle)):
        if at > cycle.last:
            break
        opens, closes = next(span for span in _open(schedule, at, at, cycle.turn) if span[1] is None or span[1] > at)
        if opens <= at and (closes is None or at + SWEEPS <= closes):
            return _Found(at, at, closes)
    return None


def _old_enough(schedule: Schedule, cycle: Cycle) -> datetime:
    """After this an occurrence counts."""
    return cycle.since + max(schedule.earliest - timedelta(seconds=1), timedelta(0))


def occurrences(cron: str, zone: str, after: datetime) -> Iterator[datetime]:
    """The moments that a cron expression means, in order, UTC.

    Raises:
        ValueError: it is not one of five fields.
    """
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - only who declares cron needs it

    if len(cron.split()) != 5:
        raise ValueError("has not five fields")
    try:
        # From the day before: the library counts from a local time, and of one that comes twice it knows the first.
        moments = CronSim(cron, (after - _DAY).astimezone(_zone(zone)))
    except CronSimError as error:
        raise ValueError(str(error).lower()) from None
    last = after
    for local in moments:
        at = local.astimezone(UTC)
        if at > last:
            yield at
            last = at


@lru_cache(maxsize=256)
def gaps(cron: str, zone: str) -> tuple[timedelta, timedelta]:
    """The shortest and the longest time between two moments of a cron expression.

    Looks at nine years, which hold a leap year, or 3000 moments.

    Raises:
        ValueError: it can not be read, or means no two moments.
    """
    start = datetime(2024, 1, 1, tzinfo=UTC)
    moments: list[datetime] = []
    for at in occurrences(cron, zone, start):
        if at > start + 9 * 366 * _DAY or len(moments) == 3000:
            break
        moments.append(at)
    if len(moments) < 2:
        raise ValueError("means a moment that does not come again within years")
    between = [later - earlier for earlier, later in pairwise(moments)]
    return min(between), max(between)


# --- for the configuration: what can be kept ------------------------------------------------------


def cron_bound(schedule: Schedule, waits: timedelta) -> timedelta:
    """The age that a credential reaches under a cron schedule, in whole hours; what `latest` is when nobody says it."""
    need = gaps(schedule.cron, schedule.zone)[1] + schedule.jitter + waits
    bound = need + min(LEAD, need / 3)
    return timedelta(hours=ceil(bound / timedelta(hours=1)))


def needs(schedule: Schedule, bound: timedelta, waits: timedelta, *, paired: bool) -> tuple[timedelta, Blackout | None]:
    """The least bound that is sure to be kept whenever a credential became current, and the blackout that asks for it.

    Parameters:
        bound: the one that is declared.
        waits: see Cycle.give.
    """
    closed, blackout = _longest_closure(schedule, paired=paired)
    if not closed:
        return timedelta(0), None
    return closed + max(schedule.earliest, _young(schedule, bound)) + SWEEPS + lead(bound) + min(
        waits, bound / 2
    ), blackout


@lru_cache(maxsize=512)
def _longest_closure(schedule: Schedule, *, paired: bool) -> tuple[timedelta, Blackout | None]:
    free = replace(schedule, blackouts=())
    year = datetime(2024, 1, 1, tzinfo=UTC)
    looks: list[tuple[Schedule, datetime, datetime, Blackout | None]]
    looks = [(schedule, start - _AFTER, end, blackout) for start, end, blackout in _closures(schedule)]
    if schedule.windows:
        looks.insert(0, (free, year, year + 366 * _DAY, None))
    longest: tuple[timedelta, Blackout | None] = timedelta(0), None
    for view, start, end, blackout in looks:
        for turn in (0, 1) if paired and schedule.windows else (None,):
            for earlier, later in pairwise(_open(view, start, end, turn)):
                if earlier[1] is not None and later[0] - earlier[1] > longest[0]:
                    longest = later[0] - earlier[1], blackout
    return longest
