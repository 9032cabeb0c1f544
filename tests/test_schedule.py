"""When a secret is due: in its windows, outside its blackouts, before its bound, on every calendar, for everybody the same."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from rotation.model import Blackout, Restraint, Schedule, Window
from rotation.policy import read_moment, read_schedule, read_window, show_window, written_schedule
from rotation.schedule import (
    LEAD,
    SWEEPS,
    Cycle,
    cron_bound,
    due,
    gaps,
    give,
    lead,
    needs,
    occurrences,
    opening,
)

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",  # changes at midnight
    "Australia/Lord_Howe",  # by half an hour
    "Asia/Kathmandu",  # 5:45, and no changes
    "Africa/Casablanca",  # twice more, for a month of fasting
    "Pacific/Chatham",
)
SUNDAY = read_window("Sun 02:00-05:00")
BERLIN = Schedule(zone="Europe/Berlin", windows=(SUNDAY,))
FREEZE = Blackout(read_moment("2026-12-18"), read_moment("2027-01-04", end=True), "year-end freeze")
BOTH = (Restraint.WINDOW, Restraint.BLACKOUT)


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


# --- any schedule --------------------------------------------------------------------------------

LOCAL = st.datetimes(read_moment("2024-01-01"), read_moment("2032-01-01")).map(lambda d: d.replace(microsecond=0))
MOMENTS = LOCAL.map(lambda local: local.replace(tzinfo=UTC))
SPANS = st.integers(4, 24 * 90).map(lambda hours: hours * HOUR) | st.integers(90, 1000).map(lambda days: days * DAY)
WINDOWS = st.builds(
    lambda days, opens, length: Window(tuple(sorted(days)), opens, opens + length),
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(0, 1439),
    st.integers(60, 1440),
)


@st.composite
def blackouts(draw: st.DrawFn) -> Blackout:
    start = draw(LOCAL).replace(second=0)
    return Blackout(start, start + draw(st.integers(1, 60 * 24 * 30)) * MINUTE, "freeze 7")


SCHEDULES = st.builds(
    Schedule,
    zone=st.sampled_from(ZONES),
    windows=st.lists(WINDOWS, max_size=3).map(tuple),
    blackouts=st.lists(blackouts(), max_size=3, unique=True).map(tuple),
    overrides=st.sampled_from([(), (Restraint.WINDOW,), (Restraint.BLACKOUT,), BOTH]),
)


def is_open(schedule: Schedule, moment: datetime) -> bool:
    """By the clock on the wall: another way to the same answer, for days without a change of clocks."""
    local = moment.astimezone(ZoneInfo(schedule.zone)).replace(tzinfo=None)
    if any(held.start <= local < held.end for held in schedule.blackouts):
        return False
    for window in schedule.windows:
        for day in (local.date(), local.date() - DAY):
            minutes = (local - datetime.combine(day, datetime.min.time())) / MINUTE
            if day.weekday() in window.days and window.opens <= minutes < window.closes:
                return True
    return not schedule.windows


def changes_clocks(schedule: Schedule, moment: datetime) -> bool:
    zone = ZoneInfo(schedule.zone)
    offsets = {(moment + shift * DAY).astimezone(zone).utcoffset() for shift in (-2, -1, 0, 1, 2)}
    return len(offsets) > 1


@settings(max_examples=250, deadline=None)
@given(SCHEDULES, MOMENTS, SPANS)
def test_what_can_be_kept_is_due_when_it_is_open_and_over_before_the_bound(
    schedule: Schedule, since: datetime, bound: timedelta
) -> None:
    """Whenever the credential became current. There is time for a sweep, too, before it closes and before the bound."""
    assume(needs(schedule, bound, timedelta(0), paired=False)[0] <= bound)
    found = due(schedule, Cycle(since, bound, "acme/prod/chat"))
    assert since < found.at <= since + bound - SWEEPS
    assert not found.late
    for moment in (found.at, found.at + SWEEPS - timedelta(seconds=1)):
        assert is_open(schedule, moment) or changes_clocks(schedule, moment)


@settings(max_examples=250, deadline=None)
@given(SCHEDULES, MOMENTS, SPANS, st.integers(0, 6 * 24 * 60))
def test_nothing_is_due_twice_in_a_row(schedule: Schedule, since: datetime, bound: timedelta, minutes: int) -> None:
    """Of what is kept or not: a rotation, when it comes, is followed by rest, so a missed one is caught up once."""
    first = due(schedule, Cycle(since, bound))
    began = opening(schedule, Cycle(since, bound), first.at + minutes * MINUTE).at
    following = due(schedule, Cycle(began, bound))
    assert following.at >= began + min(DAY, bound / 8)


@settings(max_examples=250, deadline=None)
@given(SCHEDULES, MOMENTS, SPANS, st.integers(-30 * 24, 60 * 24))
def test_what_is_due_begins_at_the_next_opening(
    schedule: Schedule, since: datetime, bound: timedelta, hours: int
) -> None:
    """Now, if it is open; and whoever waits until then may begin then."""
    now, cycle = since + bound + hours * HOUR, Cycle(since, bound)
    found = opening(schedule, cycle, now)
    assert found.at >= now
    assert opening(schedule, cycle, found.at).at == found.at
    if is_open(schedule, now) and is_open(schedule, now + SWEEPS) and not changes_clocks(schedule, now):
        assert found.at == now
    if schedule.overrides == BOTH and now >= cycle.latest:
        assert found.at == now


@settings(max_examples=250, deadline=None)
@given(SCHEDULES, MOMENTS, SPANS, st.integers(1, 48))
def test_jitter_stays_within_its_bounds(schedule: Schedule, since: datetime, bound: timedelta, hours: int) -> None:
    """It moves the moment by no more than it says, within the same opening, and never past the bound."""
    assume(needs(schedule, bound, timedelta(0), paired=False)[0] <= bound)
    cycle, jitter = Cycle(since, bound, "acme/prod/chat"), min(hours * HOUR, bound / 4)
    plain, moved = due(schedule, cycle).at, due(replace(schedule, jitter=jitter), cycle).at
    assert abs(moved - plain) <= jitter
    assert since < moved <= since + bound - SWEEPS
    assert is_open(schedule, moved) or changes_clocks(schedule, moved)


def test_jitter_is_the_same_for_every_runner_and_another_for_every_secret_and_cycle() -> None:
    """Drawn from what all of them read: whose it is, and since when."""
    schedule = Schedule(jitter=8 * HOUR)
    cycles = [
        Cycle(at("2026-01-01") + n * DAY, 30 * DAY, f"acme/prod/{name}") for n in range(20) for name in ("a", "b")
    ]
    moved = [cycle.last - due(schedule, cycle).at for cycle in cycles]
    assert len(set(moved)) == 40
    assert all(timedelta(0) <= span <= 8 * HOUR for span in moved)
    assert max(moved) - min(moved) > 6 * HOUR
    told = "from datetime import *; from rotation.model import *; from rotation.schedule import *; c = Cycle(datetime(2026, 1, 1, tzinfo=UTC), timedelta(30), 'acme/prod/a'); print(due(Schedule(jitter=timedelta(hours=8)), c).at.isoformat())"
    other = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == due(schedule, cycles[0]).at.isoformat()


@given(SPANS, MOMENTS)
def test_a_plain_interval_is_over_before_its_bound(bound: timedelta, since: datetime) -> None:
    """By two hours, or a quarter where it is short: one sweep comes in between, at least."""
    found = due(Schedule(), Cycle(since, bound))
    assert found.at == since + bound - min(2 * HOUR, bound / 4)
    assert found.at + SWEEPS <= found.overdue == since + bound
    assert found.reason == ""


@settings(max_examples=100, deadline=None)
@given(SCHEDULES, MOMENTS, SPANS, st.integers(-100, 1500))
def test_a_credential_that_expires_is_replaced_before(
    schedule: Schedule, since: datetime, bound: timedelta, hours: int
) -> None:
    """Whatever the schedule says: no window and no freeze keeps a credential alive."""
    expires = since + hours * HOUR
    cycle = Cycle(since, bound, expires=expires)
    assert due(schedule, cycle).at <= expires
    assert opening(schedule, cycle, expires).at == expires
    assert opening(schedule, cycle, expires - HOUR).at <= expires


@given(
    SCHEDULES, st.integers(0, 48), st.sampled_from(["", "0 3 * * SUN", "0 3 1,15 */2 *", "30 2 * * MON#1", "0 0 L * *"])
)
def test_a_schedule_survives_its_store(schedule: Schedule, hours: int, cron: str) -> None:
    """In the characters of a tag."""
    whole = replace(
        schedule, jitter=hours * HOUR, earliest=2 * hours * HOUR, cron=cron, every=30 * DAY if hours else None
    )
    assert read_schedule(written_schedule(whole)) == whole
    assert re.fullmatch(r"[A-Za-z0-9 _.:/=+@-]*", written_schedule(whole))
    assert all(read_window(show_window(window)) == window for window in schedule.windows)


def test_a_schedule_in_its_store_can_be_read_by_a_person() -> None:
    """Somebody looks at the tags in an incident."""
    schedule = replace(BERLIN, cron="0 3 * * SUN", blackouts=(FREEZE,), jitter=HOUR, overrides=BOTH)
    assert written_schedule(schedule) == (
        "cron=0_3_@_@_SUN zone=Europe/Berlin window=Sun_02:00-05:00 "
        "blackout=2026-12-18/2027-01-04/year-end_freeze jitter=1h overrides=window+blackout"
    )
    assert written_schedule(Schedule()) == ""


# --- windows -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "days", "opens", "closes"),
    [
        ("Sun 02:00-05:00", (6,), 120, 300),
        ("sat SUN 22:00-04:00", (5, 6), 1320, 1680),
        ("Mon-Fri 00:00-24:00", (0, 1, 2, 3, 4), 0, 1440),
        ("Fri-Mon 20:00-00:00", (0, 4, 5, 6), 1200, 1440),
        ("Wed 12:00-12:00", (2,), 720, 2160),
    ],
)
def test_windows_that_are_read(text: str, days: tuple[int, ...], opens: int, closes: int) -> None:
    """Days alone or from to, times of the day, past midnight where it closes before it opens."""
    assert read_window(text) == Window(days, opens, closes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sun",
        "02:00-05:00",
        "Son 02:00-05:00",
        "Sun 2:00-5:00",
        "Sun 24:00-25:00",
        "Sun 02:60-05:00",
        "Sun 02:00",
        "Sun  02:00-05:00",
    ],
)
def test_windows_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a window|has no day|has a time"):
        read_window(text)


def test_the_last_window_before_the_bound_is_taken() -> None:
    """The bound is Tuesday, so it is Sunday before; a window is never waited for beyond the bound."""
    found = due(BERLIN, Cycle(at("2026-11-22T09:00"), 30 * DAY))
    assert found.at == at("2026-12-20T02:00", "Europe/Berlin")
    assert found.reason == "its window, Sun 2026-12-20 02:00 Europe/Berlin"


def test_a_window_may_be_aimed_at_before_the_bound() -> None:
    """`every` and `latest` leave room: the first window in it is taken, and the last only when it was missed."""
    schedule = replace(BERLIN, every=20 * DAY)
    cycle = Cycle(at("2026-11-22T09:00"), 35 * DAY)
    assert due(schedule, cycle).at == at("2026-12-13T02:00", "Europe/Berlin")
    assert opening(schedule, cycle, at("2026-12-14T09:00")).at == at("2026-12-20T02:00", "Europe/Berlin")


def test_a_window_that_lasts_past_midnight() -> None:
    """It is the day on which it opens that is named."""
    schedule = Schedule(zone="America/New_York", windows=(read_window("Sat 22:00-04:00"),))
    cycle = Cycle(at("2026-11-22T09:00"), 30 * DAY)
    assert due(schedule, cycle).at == at("2026-12-19T22:00", "America/New_York")
    inside = at("2026-12-20T03:30", "America/New_York")
    assert opening(schedule, cycle, inside).at == inside
    assert opening(schedule, cycle, at("2026-11-29T04:00", "America/New_York")).at == at(
        "2026-12-05T22:00", "America/New_York"
    )


def test_a_missed_window_is_waited_for_while_there_is_another_before_the_bound() -> None:
    """A day of outage does not bring a rotation into working hours."""
    cycle = Cycle(at("2026-11-22T09:00"), 40 * DAY)
    waits = opening(BERLIN, cycle, at("2026-12-21T09:00"))
    assert (waits.at, waits.reason) == (
        at("2026-12-27T02:00", "Europe/Berlin"),
        "its window, Sun 2026-12-27 02:00 Europe/Berlin",
    )


def test_a_missed_window_that_was_the_last_gives_way_to_the_bound() -> None:
    """At the last moment, and no sooner; unless it is declared that nothing gives way."""
    cycle, now = Cycle(at("2026-11-22T09:00"), 30 * DAY), at("2026-12-20T09:00")
    waits = opening(BERLIN, cycle, now)
    assert waits.at == cycle.latest == cycle.overdue - LEAD
    assert waits.reason.startswith("its bound, Tue 2026-12-22 08:00 Europe/Berlin, as no window opens before")
    stubborn = opening(replace(BERLIN, overrides=()), cycle, now)
    assert stubborn.at == at("2026-12-27T02:00", "Europe/Berlin")
    assert stubborn.late
    assert "overdue from 2026-12-22 09:00Z" in stubborn.reason


# --- changes of clocks ---------------------------------------------------------------------------


def opens_on(window: str, zone: str, day: str) -> tuple[str, str]:
    """When a window opens and closes around a day, by the clock there: found by asking every ten minutes."""
    schedule, start = Schedule(zone=zone, windows=(read_window(window),), overrides=()), at(day, zone)
    cycle = Cycle(start - 400 * DAY, 30 * DAY)
    moments = [start + n * 10 * MINUTE for n in range(30 * 6)]
    held = [moment for moment in moments if opening(schedule, cycle, moment).at == moment]
    local = [moment.astimezone(ZoneInfo(zone)) for moment in (held[0], held[-1] + 10 * MINUTE)]
    return f"{local[0]:%d %H:%M%z}", f"{local[1]:%d %H:%M%z}"


@pytest.mark.parametrize(
    ("window", "zone", "day", "opens", "closes"),
    [
        # Clocks go forward: 02:00 is 03:00.
        ("Sun 02:00-05:00", "Europe/Berlin", "2027-03-28", "28 03:00+0200", "28 05:00+0200"),
        ("Sun 02:00-03:00", "Europe/Berlin", "2027-03-28", "28 03:00+0200", "28 04:00+0200"),
        ("Sun 02:30-04:30", "America/New_York", "2027-03-14", "14 03:30-0400", "14 04:30-0400"),
        # Clocks go back: the hour from 02:00 comes twice, and the window opens with the first.
        ("Sun 02:00-05:00", "Europe/Berlin", "2026-10-25", "25 02:00+0200", "25 05:00+0100"),
        ("Sun 00:00-02:30", "Europe/Berlin", "2026-10-25", "25 00:00+0200", "25 02:30+0200"),
        ("Sun 01:00-03:00", "America/New_York", "2026-11-01", "01 01:00-0400", "01 03:00-0500"),
        # By half an hour, and at midnight.
        ("Sun 02:00-04:00", "Australia/Lord_Howe", "2026-10-04", "04 02:30+1100", "04 04:00+1100"),
        ("Sun 00:00-03:00", "America/Santiago", "2026-09-06", "06 01:00-0300", "06 03:00-0300"),
        ("Sat 23:00-02:00", "America/Santiago", "2026-09-05", "05 23:00-0400", "06 02:00-0300"),
    ],
)
def test_a_window_on_the_day_that_clocks_change(window: str, zone: str, day: str, opens: str, closes: str) -> None:
    """It opens, once, for an hour at least, and by the clock on the wall as far as that shows the time."""
    assert opens_on(window, zone, day) == (opens, closes)


def test_a_window_on_a_day_that_was_left_out() -> None:
    """Samoa went to the other side of the date line and had no 30 December 2011: the window opens with the next day."""
    schedule = Schedule(zone="Pacific/Apia", windows=(read_window("Fri 02:00-05:00"),))
    found = opening(schedule, Cycle(at("2011-12-01"), 90 * DAY), at("2011-12-29T20:00", "Pacific/Apia"))
    assert found.at == at("2011-12-31T02:00", "Pacific/Apia")


@pytest.mark.parametrize("zone", ZONES)
def test_a_weekly_window_opens_in_every_week_of_a_year(zone: str) -> None:
    """No change of clocks leaves one out, or opens one twice."""
    schedule = Schedule(zone=zone, windows=(read_window("Sun 02:00-03:00"),), overrides=())
    now, found = at("2026-01-05"), []
    while now < at("2027-01-02"):
        moment = opening(schedule, Cycle(at("2024-01-01"), 30 * DAY), now).at
        found.append(moment)
        now = moment + 3 * HOUR
    assert len(found) == 52
    assert all(6 * DAY + 22 * HOUR <= later - earlier <= 7 * DAY + 2 * HOUR for earlier, later in pairwise(found))


# --- blackouts -----------------------------------------------------------------------------------


def test_a_blackout_pulls_the_rotation_ahead() -> None:
    """The bound lies in the freeze, so it rotates before, with room for a second try."""
    found = due(Schedule(zone="Europe/Berlin", blackouts=(FREEZE,)), Cycle(at("2026-11-22T09:00"), 30 * DAY))
    assert found.at == at("2026-12-17T18:00", "Europe/Berlin")
    assert found.reason == "Thu 2026-12-17 18:00 Europe/Berlin, ahead of the blackout year-end freeze"


def test_a_blackout_takes_a_window_away() -> None:
    """The window before it is taken, and the reason names the blackout."""
    found = due(replace(BERLIN, blackouts=(FREEZE,)), Cycle(at("2026-11-22T09:00"), 30 * DAY))
    assert found.at == at("2026-12-13T02:00", "Europe/Berlin")
    assert found.reason == "its window, Sun 2026-12-13 02:00 Europe/Berlin, ahead of the blackout year-end freeze"


def test_a_blackout_that_is_over_before_the_bound_is_waited_out() -> None:
    """Where there is an age to aim at, and room until the bound."""
    schedule = Schedule(zone="Europe/Berlin", every=30 * DAY, blackouts=(FREEZE,))
    found = due(schedule, Cycle(at("2026-11-22T09:00"), 50 * DAY))
    assert found.at == at("2027-01-05T00:00", "Europe/Berlin")
    assert found.reason == "Tue 2027-01-05 00:00 Europe/Berlin, after the blackout year-end freeze"


WEEK = Cycle(at("2026-12-17T20:00"), 7 * DAY)
"""Rotated just before the freeze, which lasts longer than the bound."""


def test_a_blackout_that_swallows_the_bound_is_kept_and_said() -> None:
    """By default a freeze is a freeze: the secret becomes overdue, and that is known from the first day on."""
    found = due(Schedule(zone="Europe/Berlin", blackouts=(FREEZE,)), WEEK)
    assert (found.at, found.late) == (at("2027-01-05T00:00", "Europe/Berlin"), True)
    assert found.reason.endswith("after the blackout year-end freeze; overdue from 2026-12-24 20:00Z")


def test_a_bound_may_override_a_blackout_where_that_is_declared() -> None:
    """Then it rotates in the freeze, as late as the bound allows; in a window, if it has any in time."""
    schedule = Schedule(zone="Europe/Berlin", blackouts=(FREEZE,), overrides=BOTH)
    found = due(schedule, WEEK)
    assert (found.at, found.late) == (WEEK.last, False)
    assert "in the blackout year-end freeze, which it overrides" in found.reason
    for overrides in (BOTH, (Restraint.BLACKOUT,)):
        kept = replace(schedule, windows=(SUNDAY,), overrides=overrides)
        assert due(kept, WEEK).at == at("2026-12-20T02:00", "Europe/Berlin")


def test_a_young_credential_is_not_rotated_only_because_a_blackout_begins() -> None:
    """Or every sweep of the last day before a freeze would rotate it again."""
    schedule = Schedule(zone="Europe/Berlin", blackouts=(FREEZE,))
    began = at("2026-12-17T02:00")
    assert due(schedule, Cycle(began, 7 * DAY)).at == at("2027-01-05T00:00", "Europe/Berlin")
    assert due(schedule, Cycle(began - DAY, 7 * DAY)).at == at("2026-12-17T18:00", "Europe/Berlin")


def test_what_is_missed_before_a_blackout_is_caught_up_after_it() -> None:
    """Once, at its end, when the bound allows that; at the bound, when that comes first and overrides it."""
    schedule, now = Schedule(zone="Europe/Berlin", blackouts=(FREEZE,)), at("2026-12-19T09:00")
    ends = at("2027-01-05T00:00", "Europe/Berlin")
    assert opening(schedule, Cycle(at("2026-12-07"), 30 * DAY), now).at == ends
    late = opening(schedule, Cycle(at("2026-11-22"), 30 * DAY), now)
    assert (late.at, late.late) == (ends, True)
    over = opening(replace(schedule, overrides=BOTH), Cycle(at("2026-11-22"), 30 * DAY), now)
    assert over.at == at("2026-12-22") - LEAD


def test_what_must_be_declared_is_found_beforehand() -> None:
    """How long a bound has to be for windows, blackouts, and both."""
    nothing, zero = Schedule(zone="Europe/Berlin"), timedelta(0)
    assert needs(nothing, 7 * DAY, zero, paired=False) == (zero, None)
    needed, blackout = needs(replace(nothing, blackouts=(FREEZE,)), 7 * DAY, zero, paired=False)
    assert 18 * DAY < needed < 20 * DAY
    assert blackout == FREEZE
    halves = replace(FREEZE, end=FREEZE.end - 9 * DAY), replace(FREEZE, start=FREEZE.end - 9 * DAY + HOUR / 2)
    # Half an hour between two freezes is nothing that sweeps could count on.
    assert needs(replace(nothing, blackouts=halves), 7 * DAY, zero, paired=False)[0] == needed
    weekly, _ = needs(BERLIN, 7 * DAY, zero, paired=False)
    assert 7 * DAY < weekly < 8 * DAY
    assert needs(BERLIN, 30 * DAY, zero, paired=True)[0] > weekly + 6 * DAY
    assert needs(replace(BERLIN, blackouts=(FREEZE,)), 30 * DAY, zero, paired=False)[0] > 28 * DAY


# --- cron ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ZONES), MOMENTS, st.integers(0, 59), st.integers(0, 23), st.sampled_from(["*", "SUN", "1-5"]))
@example("Europe/Berlin", at("2026-10-25T00:45"), 30, 2, "*")
@example("America/New_York", at("2026-11-01T06:15"), 30, 1, "*")
def test_a_cron_expression_means_the_clock_on_the_wall(
    zone: str, since: datetime, minute: int, hour: int, days: str
) -> None:
    """Once a day that fits, also on those with a skipped or repeated hour, and always later than before."""
    found = list(islice(occurrences(f"{minute} {hour} * * {days}", zone, since), 20))
    assert found[0] > since
    assert all(earlier < later for earlier, later in pairwise(found))
    local = [moment.astimezone(ZoneInfo(zone)) for moment in found]
    assert len({moment.date() for moment in local}) == 20
    for moment in local:
        assert (moment.hour, moment.minute) == (hour, minute) or changes_clocks(Schedule(zone=zone), moment)
        assert moment.weekday() in {"*": range(7), "SUN": (6,), "1-5": range(5)}[days]


@pytest.mark.parametrize(
    ("cron", "since", "found"),
    [
        ("0 3 29 2 *", "2025-01-01", ["2028-02-29T03:00", "2032-02-29T03:00"]),
        ("0 3 29 * *", "2027-01-30", ["2027-03-29T03:00", "2027-04-29T03:00"]),
        ("0 3 29 * *", "2028-01-30", ["2028-02-29T03:00", "2028-03-29T03:00"]),
        ("0 3 31 * *", "2026-01-31T04:00", ["2026-03-31T03:00", "2026-05-31T03:00"]),
        ("0 3 L * *", "2027-02-01", ["2027-02-28T03:00", "2027-03-31T03:00"]),
        ("0 3 L * *", "2028-02-01", ["2028-02-29T03:00", "2028-03-31T03:00"]),
        ("0 3 1 1 *", "2026-12-31", ["2027-01-01T03:00", "2028-01-01T03:00"]),
    ],
)
def test_month_ends_and_leap_days(cron: str, since: str, found: list[str]) -> None:
    assert [f"{moment:%Y-%m-%dT%H:%M}" for moment in islice(occurrences(cron, "UTC", at(since)), 2)] == found


def test_an_interval_counts_days_over_leap_days_and_changes_of_clocks() -> None:
    """A day is 24 hours of the world's time."""
    assert due(Schedule(), Cycle(at("2028-02-01T12:00"), 30 * DAY)).overdue == at("2028-03-02T12:00")
    assert due(Schedule(), Cycle(at("2027-02-01T12:00"), 30 * DAY)).overdue == at("2027-03-03T12:00")
    assert due(Schedule(zone="Europe/Berlin"), Cycle(at("2027-03-01"), 30 * DAY)).overdue == at("2027-03-31")


SKIPPED = Schedule(cron="30 2 * * SUN", zone="Europe/Berlin")


def test_a_cron_moment_that_is_skipped_or_comes_twice() -> None:
    """At the end of the gap; at the first of two."""
    skipped = due(SKIPPED, Cycle(at("2027-03-24"), cron_bound(SKIPPED, timedelta(0))))
    assert skipped.at == at("2027-03-28T01:00")
    assert skipped.reason == "cron 30 2 * * SUN, Sun 2027-03-28 03:00 Europe/Berlin"
    twice = list(islice(occurrences("30 2 * * *", "Europe/Berlin", at("2026-10-24T12:00")), 2))
    assert twice == [at("2026-10-25T00:30"), at("2026-10-26T01:30")]


CRONS = st.sampled_from(
    ["0 3 * * SUN", "30 2 * * *", "0 */4 * * *", "0 4 1,15 * *", "0 0 31 * *", "15 1 29 2-12 *", "0 22 * * MON#2"]
)


@settings(max_examples=150, deadline=None)
@given(CRONS, st.sampled_from(ZONES), MOMENTS, st.integers(0, 3))
def test_the_bound_that_a_cron_schedule_gets_is_kept(cron: str, zone: str, since: datetime, hours: int) -> None:
    """Whenever the credential became current, it rotates at the next moment, and is not overdue by then."""
    schedule = Schedule(cron=cron, zone=zone, jitter=min(hours * HOUR, gaps(cron, zone)[0] / 2))
    found = due(schedule, Cycle(since, cron_bound(schedule, timedelta(0)), "acme/prod/chat"))
    first = next(occurrences(cron, zone, since))
    assert first <= found.at <= first + schedule.jitter
    assert found.at + SWEEPS <= found.overdue


def test_a_missed_cron_moment_is_caught_up_once() -> None:
    """At once, whenever that is; then the next one is as it would have been."""
    schedule = Schedule(cron="0 3 * * SUN")
    bound = cron_bound(schedule, timedelta(0))
    missed = Cycle(at("2026-11-22T03:10"), bound)
    assert due(schedule, missed).at == at("2026-11-29T03:00")
    tuesday = at("2026-12-15T11:00")
    assert opening(schedule, missed, tuesday).at == tuesday
    assert due(schedule, Cycle(tuesday, bound)).at == at("2026-12-20T03:00")


def test_a_cron_moment_in_a_blackout() -> None:
    """Is made up for as soon as it is over, where the bound allows it, and else ahead of it."""
    schedule = Schedule(
        cron="0 3 * * SUN", blackouts=(Blackout(read_moment("2026-12-05"), read_moment("2026-12-08"), "audit"),)
    )
    since = at("2026-11-29T03:10")
    after = due(schedule, Cycle(since, 10 * DAY))
    assert (after.at, after.reason) == (at("2026-12-08"), "Tue 2026-12-08 00:00 UTC, after the blackout audit")
    ahead = due(schedule, Cycle(since, 7 * DAY + 2 * HOUR))
    assert ahead.at == at("2026-12-04T18:00")
    assert ahead.reason.endswith("ahead of the blackout audit")


def test_the_earliest_age_leaves_cron_moments_out() -> None:
    """After an emergency in the night before, for one."""
    schedule = Schedule(cron="0 3 * * SUN", earliest=2 * DAY)
    assert due(schedule, Cycle(at("2026-11-27T03:00"), 9 * DAY)).at == at("2026-11-29T03:00")
    assert due(schedule, Cycle(at("2026-11-28T20:00"), 9 * DAY)).at == at("2026-12-06T03:00")
    assert due(replace(schedule, earliest=timedelta(0)), Cycle(at("2026-11-28T20:00"), 9 * DAY)).at == at(
        "2026-11-29T03:00"
    )


@pytest.mark.parametrize(
    ("cron", "shortest", "longest"),
    [
        ("0 3 * * SUN", 7 * DAY, 7 * DAY),
        ("0 3 29 * *", 29 * DAY, 59 * DAY),
        ("0 3 29 2 *", 1461 * DAY, 1461 * DAY),
        ("0 9,17 * * *", 8 * HOUR, 16 * HOUR),
    ],
)
def test_how_far_the_moments_of_a_cron_expression_lie_apart(cron: str, shortest: timedelta, longest: timedelta) -> None:
    assert gaps(cron, "UTC") == (shortest, longest)


@pytest.mark.parametrize("cron", ["", "0 3 * *", "0 0 3 * * *", "61 3 * * *", "0 3 31 2 *", "x 3 * * *", "0 3 * * 8"])
def test_cron_expressions_that_are_refused(cron: str) -> None:
    with pytest.raises(ValueError, match=r"fields|bad|does not come again"):
        gaps(cron, "UTC")


# --- pairs ---------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(0, 18),
    MOMENTS,
    st.integers(-40 * 24, 40 * 24),
    st.integers(17, 90),
)
def test_two_that_are_paired_never_plan_for_the_same_window(
    zone: str, days: set[int], hour: int, since: datetime, apart: int, bound: int
) -> None:
    """Each has its own turns, whenever either became current, without asking the other."""
    schedule = Schedule(zone=zone, windows=(Window(tuple(sorted(days)), hour * 60, hour * 60 + 300),))
    waits = give(DAY, HOUR)
    assume(needs(schedule, bound * DAY, waits, paired=True)[0] <= bound * DAY)
    one = due(schedule, Cycle(since, bound * DAY, turn=0, give=waits)).at
    other = due(schedule, Cycle(since + apart * HOUR, bound * DAY, turn=1, give=waits)).at
    assert one.astimezone(ZoneInfo(zone)).date() != other.astimezone(ZoneInfo(zone)).date()


def test_one_of_a_pair_that_missed_its_turn_takes_any_window() -> None:
    """Rather the next one, after a look at the other's state, than the one after."""
    cycles = [Cycle(at("2026-11-01"), 60 * DAY, turn=turn, give=give(DAY, HOUR)) for turn in (0, 1)]
    moments = {opening(BERLIN, cycle, at("2026-11-24")).at for cycle in cycles}
    assert moments == {at("2026-11-29T02:00", "Europe/Berlin")}


def test_a_pair_leaves_time_for_the_other_one() -> None:
    """Grace and quiet period of the other fit in before the bound, so that whoever goes second is in time, too."""
    cycle = Cycle(at("2026-01-01"), 30 * DAY, turn=0, give=give(DAY, HOUR))
    assert due(Schedule(), cycle).at == cycle.overdue - lead(cycle.bound) - 25 * HOUR


# --- what it costs -------------------------------------------------------------------------------


def test_a_plain_interval_loads_no_calendar() -> None:
    """A function pays for cron and zones only where a secret declares them."""
    code = (
        "import sys; from datetime import *; from rotation.model import Schedule; from rotation.schedule import *; "
        "c = Cycle(datetime(2026, 1, 1, tzinfo=UTC), timedelta(30)); due(Schedule(), c); opening(Schedule(), c, c.since); "
        "print([m for m in ('cronsim', 'zoneinfo', 'tzdata') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
