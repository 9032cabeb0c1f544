"""How often a secret rotates, and when: what its section and the stack's defaults say together, and what is wrong with it.

A secret's own words go before the stack's. Blackouts add up, as a freeze is for everybody, unless it says that it has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from rotation import schedule as schedules
from rotation.model import Blackout, Restraint, Schedule
from rotation.policy import show_duration, show_moment, written_schedule
from rotation.sections import CRON_FORM, LONGEST_FORM, SPAN_FORM, ScheduleSection, SecretSection

Found = Iterator[tuple[str, str, str]]
"""Path within the secret, message, what is allowed."""

_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
_NOTHING_SAID: Final = ScheduleSection.model_validate({})
_HOW_OFTEN: Final = ("every", "cron", "latest")


def timing(secret: SecretSection, defaults: ScheduleSection | None) -> tuple[timedelta, Schedule] | None:
    """The age that a credential must not exceed, and the schedule. None when it is not said, or makes no sense."""
    said = _said(secret, defaults)
    own = secret.schedule or _NOTHING_SAID
    none = "blackouts" in own.model_fields_set and not own.blackouts
    freezes = [*(defaults.blackouts if defaults and not none else ()), *own.blackouts]
    schedule = Schedule(
        cron=said.get("cron") or "",
        zone=said.get("time_zone", "UTC"),
        windows=said.get("window", ()),
        blackouts=tuple(dict.fromkeys(Blackout(freeze.start, freeze.to, freeze.reason) for freeze in freezes)),
        jitter=said.get("jitter", timedelta(0)),
        earliest=said.get("earliest", timedelta(0)),
        overrides=said.get("overrides", (Restraint.WINDOW,)),
    )
    every, latest = said.get("every"), said.get("latest")
    if schedule.cron:
        try:
            shortest, longest = schedules.gaps(schedule.cron, schedule.zone)
        except ValueError:
            return None
        if shortest < schedules.SHORTEST or longest > schedules.LONGEST:
            return None
        return latest or schedules.cron_bound(schedule, waits(secret)), schedule
    if every is None:
        return None
    return (latest, replace(schedule, every=every)) if latest and latest > every else (latest or every, schedule)


def _said(secret: SecretSection, defaults: ScheduleSection | None) -> dict[str, Any]:
    """Fields of a schedule, by name: the secret's own, and of the stack's those that it leaves open."""
    own = secret.schedule or _NOTHING_SAID
    said = {name: getattr(defaults, name) for name in defaults.model_fields_set} if defaults else {}
    if secret.rotate_every or own.every or own.cron:
        said = {name: part for name, part in said.items() if name not in _HOW_OFTEN}
    said |= {name: getattr(own, name) for name in own.model_fields_set}
    return said | ({"every": secret.rotate_every} if secret.rotate_every else {})


def waits(secret: SecretSection) -> timedelta:
    """For how long its pair may hold a secret up."""
    return schedules.give(secret.grace, secret.drain.quiet_for) if secret.paired_with else timedelta(0)


# --- what is wrong -------------------------------------------------------------------------------


def faults(secret: SecretSection, defaults: ScheduleSection | None) -> Found:
    """The first kind of thing that is wrong: what comes later makes no sense before that is put right."""
    for rule in (_how_often, _cron, _reach, _windows, _blackouts, _pair, _size):
        found = list(rule(secret, defaults))
        yield from found
        if found:
            return


def _how_often(secret: SecretSection, defaults: ScheduleSection | None) -> Found:
    own, said = secret.schedule or _NOTHING_SAID, _said(secret, defaults)
    every, latest = said.get("every"), said.get("latest")
    if secret.rotate_every and own.every:
        yield "schedule.every", "is said by rotateEvery already", "one of the two"
    elif own.cron and (secret.rotate_every or own.every):
        also = "rotateEvery" if secret.rotate_every else "every"
        yield "schedule.cron", f"says when it rotates, and so does {also}", "one of the two"
    elif not every and not said.get("cron"):
        yield "rotateEvery", "is missing", SPAN_FORM
    elif every and latest and latest < every:
        yield "schedule.latest", f"{show_duration(latest)} is before every", f"at least {show_duration(every)}"


def _cron(secret: SecretSection, defaults: ScheduleSection | None) -> Found:
    said = _said(secret, defaults)
    if not (cron := said.get("cron")):
        return
    try:
        shortest, longest = schedules.gaps(cron, said.get("time_zone", "UTC"))
    except ValueError as error:
        yield "schedule.cron", f"is not a cron expression: {error}", CRON_FORM
        return
    strange = next((gap for gap in (shortest, longest) if not schedules.SHORTEST <= gap <= schedules.LONGEST), None)
    if strange:
        allowed = f"{show_duration(schedules.SHORTEST)} to {show_duration(schedules.LONGEST)}"
        yield "schedule.cron", f"has moments that lie {show_duration(strange)} apart", allowed
        return
    needed = schedules.cron_bound(Schedule(cron=cron, zone=said.get("time_zone", "UTC")), timedelta(0))
    if (latest := said.get("latest")) and latest < needed:
        told = f"{show_duration(latest)} is too short for moments that lie up to {show_duration(longest)} apart"
        yield "schedule.latest", told, f"at least {show_duration(needed)}"


def _reach(secret: SecretSection, defaults: ScheduleSection | None) -> Found:
    bound, schedule = _known(secret, defaults)
    most = schedules.Cycle(_EPOCH, bound, give=waits(secret)).last - _EPOCH
    if schedule.cron:
        most = min(most, schedules.gaps(schedule.cron, schedule.zone)[0])
    most = min(most, schedule.every or most)
    if schedule.earliest > most:
        told = f"{show_duration(schedule.earliest)} is later than it has to rotate"
        yield "schedule.earliest", told, f"at most {_whole(most)}"
    if schedule.jitter > most / 2:
        told = f"{show_duration(schedule.jitter)} is too much for a credential that lives for {show_duration(bound)}"
        yield "schedule.jitter", told, f"at most {_whole(most / 2)}"


def _windows(secret: SecretSection, defaults: ScheduleSection | None) -> Found:
    bound, schedule = _known(secret, defaults)
    paired = secret.paired_with is not None
    needed, _ = schedules.needs(replace(schedule, blackouts=()), bound, waits(secret), paired=paired)
    if needed > bound:
        told = ", as two that are paired take turns" if paired else ""
        told = f"opens too rarely for a credential that may be {show_duration(bound)} old{told}"
        yield "schedule.window", told, f"more windows, or {_whole(needed)} and more"


def _blackouts(secret: SecretSection, defaults: ScheduleSection | None) -> Found:
    bound, schedule = _known(secret, defaults)
    needed, blackout = schedules.needs(schedule, bound, waits(secret), paired=secret.paired_with is not None)
    if blackout and needed > bound and "overrides" not in _said(secret, defaults):
        span = f"{show_moment(blackout.start)} to {show_moment(blackout.end, end=True)}"
        told = f"must be said: {blackout.reason}, {span}, is too long for what may be {show_duration(bound)} old"
        allowed = "[window, blackout] to rotate in it all the same, [window] to be overdue until it ends"
        yield "schedule.overrides", told, allowed


def _pair(secret: SecretSection, defaults: ScheduleSection | None) -> Found:
    bound, _ = _known(secret, defaults)
    if secret.paired_with and secret.grace <= bound < 2 * (waits(secret) + schedules.lead(bound)):
        most, quiet = bound / 2 - schedules.lead(bound), show_duration(secret.drain.quiet_for)
        told = (
            f"{show_duration(secret.grace)} is too long for two that are paired to take turns in {show_duration(bound)}"
        )
        yield "grace", told, f"at most {_whole(most)}, drain.quietFor ({quiet}) included"


def _size(secret: SecretSection, defaults: ScheduleSection | None) -> Found:
    size = len(written_schedule(_known(secret, defaults)[1]))
    if size > LONGEST_FORM:
        yield "schedule", f"takes {size} characters in the store's metadata", f"at most {LONGEST_FORM}"


def _known(secret: SecretSection, defaults: ScheduleSection | None) -> tuple[timedelta, Schedule]:
    known = timing(secret, defaults)
    assert known is not None, "how often has been looked at before"
    return known


def _whole(span: timedelta) -> str:
    return show_duration(timedelta(minutes=max(span // timedelta(minutes=1), 0)))
