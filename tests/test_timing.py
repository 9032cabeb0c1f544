"""How often a secret rotates, as a stack declares it: what is understood, what is refused and in which words."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.pulumi import rotated_secret
from rotation.config import ConfigError, parse, schema
from rotation.model import Blackout, Policy, Restraint, Schedule
from rotation.policy import read_moment, read_window
from tests.test_schedule import SCHEDULES

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
STACK: dict[str, Any] = {
    "installation": "acme",
    "environment": "dev",
    "stores": {"vault": {"kind": "hashicorp-vault", "address": "https://vault.example:8200"}},
    "issuers": {"own": {"kind": "generated"}},
    "owners": {"team": {}},
}
FREEZE = {"from": "2026-12-18", "to": "2027-01-04", "reason": "year-end freeze"}
HELD = Blackout(read_moment("2026-12-18"), read_moment("2027-01-04", end=True), "year-end freeze")
SPAN = "a number and one of w, d, h, m, s, as in 30d or 1h30m"
WINDOW = "days and local times, or a list of such: Sun 02:00-05:00, Mon-Fri 22:00-04:00, Tue Thu 20:00-24:00"
ZONE = "a time zone by its IANA name, as in Europe/Berlin"
MOMENT = "a date or a local time, as in 2026-12-18 or 2026-12-18T18:00"
CRON = "five fields (minute hour day month weekday), as in 0 3 * * SUN"
OVERRIDES = "a list of window and blackout, or of none: what gives way before the secret becomes overdue"
KEYS = "every, cron, timeZone, window, blackouts, jitter, earliest, latest, overrides"


def stack(schedule: object = None, defaults: object = None, **secret: object) -> dict[str, Any]:
    values = copy.deepcopy(STACK)
    whole = {"name": "support-chat", "store": "vault", "issuer": "own", "owner": "team", **secret}
    values["secrets"] = [whole | ({} if schedule is None else {"schedule": schedule})]
    return values | ({} if defaults is None else {"defaults": defaults})


def policy(schedule: object = None, defaults: object = None, **secret: object) -> Policy:
    return parse(stack(schedule, defaults, **secret)).policies[0]


def told(schedule: object = None, defaults: object = None, **secret: object) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(stack(schedule, defaults, **secret))
    return [str(fault).removeprefix("keyturn:secrets[0].") for fault in raised.value.faults]


# --- what is understood --------------------------------------------------------------------------


def test_the_simple_form_is_a_plain_interval() -> None:
    """Both spellings, and nothing besides."""
    for declared in (policy(rotateEvery="30d"), policy({"every": "30d"})):
        assert (declared.rotate_every, declared.schedule) == (30 * DAY, Schedule())


def test_everything_at_once() -> None:
    """Each field arrives."""
    declared = policy(
        {
            "every": "45d",
            "latest": "60d",
            "timeZone": "Europe/Berlin",
            "window": ["Sun 02:00-05:00", "Wed 22:00-02:00"],
            "blackouts": [FREEZE, {"from": "2026-06-01T18:00", "to": "2026-06-02T06:30", "reason": "audit"}],
            "jitter": "2h",
            "earliest": "20d",
            "overrides": ["blackout", "window"],
        }
    )
    audit = Blackout(read_moment("2026-06-01T18:00"), read_moment("2026-06-02T06:30"), "audit")
    assert declared.rotate_every == 60 * DAY
    assert declared.schedule == Schedule(
        every=45 * DAY,
        zone="Europe/Berlin",
        windows=(read_window("Sun 02:00-05:00"), read_window("Wed 22:00-02:00")),
        blackouts=(HELD, audit),
        jitter=2 * HOUR,
        earliest=20 * DAY,
        overrides=(Restraint.WINDOW, Restraint.BLACKOUT),
    )


def test_cron_gets_the_bound_that_it_keeps() -> None:
    """Its longest gap, and what jitter and a pair add; or the one that is declared."""
    weekly = {"cron": "0 3  * * SUN", "timeZone": "Europe/Berlin"}
    declared = policy(weekly)
    assert (declared.rotate_every, declared.schedule.cron) == (7 * DAY + 3 * HOUR, "0 3 * * SUN")  # the week in autumn
    assert policy(weekly | {"jitter": "5h"}).rotate_every == 7 * DAY + 8 * HOUR
    assert policy(weekly | {"latest": "20d"}).rotate_every == 20 * DAY


def test_the_stack_says_what_a_secret_leaves_open() -> None:
    """Field by field; freezes add up, as they are for everybody."""
    defaults = {
        "schedule": {"every": "60d", "timeZone": "Europe/Berlin", "window": "Sun 02:00-05:00", "blackouts": [FREEZE]}
    }
    plain = policy(None, defaults)
    assert (plain.rotate_every, plain.schedule.zone, plain.schedule.blackouts) == (60 * DAY, "Europe/Berlin", (HELD,))
    audit = {"from": "2026-06-01", "to": "2026-06-01", "reason": "audit"}
    own = policy({"window": [], "blackouts": [audit, FREEZE]}, defaults, rotateEvery="40d")
    assert (own.rotate_every, own.schedule.windows) == (40 * DAY, ())
    assert [held.reason for held in own.schedule.blackouts] == ["year-end freeze", "audit"]
    assert policy({"blackouts": []}, defaults).schedule.blackouts == ()
    cron = policy({"cron": "0 3 1 * *"}, {"schedule": {"every": "60d", "latest": "90d"}})
    assert (cron.schedule.cron, cron.schedule.every, cron.rotate_every) == ("0 3 1 * *", None, 31 * DAY + 2 * HOUR)


def test_defaults_reach_a_program_as_json() -> None:
    """As Pulumi hands structured values over; and dates without quotes as Go writes them."""
    go = {"from": "2026-12-18T00:00:00Z", "to": "2027-01-04T00:00:00Z", "reason": "year-end freeze"}
    values = stack(rotateEvery="60d") | {"defaults": json.dumps({"schedule": {"blackouts": [go]}})}
    assert parse(values).policies[0].schedule.blackouts == (HELD,)


def test_the_example_of_the_page_means_what_the_page_says() -> None:
    """What people copy works."""
    page = (Path(__file__).parents[1] / "docs" / "schedules.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    values = {key.removeprefix("keyturn:"): part for key, part in yaml.safe_load(block)["config"].items()}
    values["stores"] = {"aws": STACK["stores"]["vault"]}
    values |= {"issuers": {"openai": {"kind": "generated"}}, "owners": {"support-platform": {}}}
    declared = parse({**STACK, **values}).policies[0]
    assert (declared.rotate_every, declared.schedule.every) == (60 * DAY, 45 * DAY)
    assert (declared.schedule.zone, declared.schedule.blackouts) == ("Europe/Berlin", (HELD,))


def test_the_schema_knows_schedules() -> None:
    """Editors accept what is accepted, and mark what is misspelt."""
    good = stack(
        {"cron": "0 3 * * SUN", "window": "Sun 02:00-05:00", "blackouts": [FREEZE]}, {"schedule": {"every": "60d"}}
    )
    whole = {"config": {f"keyturn:{key}": value for key, value in good.items()}}
    jsonschema.validate(whole, schema())
    whole["config"]["keyturn:secrets"][0]["schedule"]["windows"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(whole, schema())


@settings(max_examples=60, deadline=None)
@given(SCHEDULES, st.booleans())
def test_a_resource_says_what_the_stack_says(schedule: Schedule, aimed: bool) -> None:
    """Through Pulumi's inputs and back, and to the same schedule by the rules of a stack file."""
    whole = replace(schedule, every=80 * DAY) if aimed else schedule
    declared = replace(policy(rotateEvery="100d"), schedule=whole)
    props = rotated_secret.inputs(declared)
    assert rotated_secret.policy_of(props) == declared
    section = rotated_secret.section(props)
    try:
        read = parse({**STACK, "secrets": [section]}).policies[0]
    except ConfigError as error:  # what could not be kept, or takes too much room, no stack file says either
        assert all(fault.path.startswith("keyturn:secrets[0].schedule") for fault in error.faults)  # noqa: PT017
        return
    assert (read.rotate_every, read.schedule) == (declared.rotate_every, whole)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "fault"),
    [
        ({"windows": []}, f"schedule.windows: unknown key (did you mean window?); allowed: {KEYS}"),
        ({"window": "Son 02:00-05:00"}, f"schedule.window: has no day Son; allowed: {WINDOW}"),
        ({"window": ["Sun 02:00-05:00", 3]}, f"schedule.window: is not a window; allowed: {WINDOW}"),
        (
            {"window": "Sun 02:00-02:30"},
            f"schedule.window: is open for less than 1h: two sweeps may miss it; allowed: {WINDOW}",
        ),
        ({"timeZone": "Europe/Berln"}, f"schedule.timeZone: is no time zone (did you mean Europe/Berlin?); allowed: {ZONE}"),
        ({"timeZone": "../../etc/passwd"}, f"schedule.timeZone: is no time zone; allowed: {ZONE}"),
        ({"jitter": "soon"}, f"schedule.jitter: is not a duration; allowed: {SPAN}"),
        ({"jitter": "20d"}, "schedule.jitter: 20d is too much for a credential that lives for 30d; allowed: at most 14d23h"),
        ({"earliest": "30d"}, "schedule.earliest: 30d is later than it has to rotate; allowed: at most 29d22h"),
        ({"latest": "20d"}, "schedule.latest: 20d is before every; allowed: at least 30d"),
        ({"latest": "1001d"}, "schedule.latest: 1001d is out of range; allowed: 4h to 1000d"),
        ({"every": "30d"}, "schedule.every: is said by rotateEvery already; allowed: one of the two"),
        ({"cron": "0 3 * * SUN"}, "schedule.cron: says when it rotates, and so does rotateEvery; allowed: one of the two"),
        ({"overrides": ["everything"]}, f"schedule.overrides: is not such a list; allowed: {OVERRIDES}"),
        ({"blackouts": [FREEZE | {"to": "2026-12-01"}]}, "schedule.blackouts[0].to: is before from; allowed: a later date or time"),
        (
            {"blackouts": [FREEZE | {"to": "2027-02-29"}]},
            f"schedule.blackouts[0].to: is not a date; allowed: {MOMENT}",
        ),
        (
            {"blackouts": [FREEZE | {"from": "18 December"}]},
            f"schedule.blackouts[0].from: is not a date; allowed: {MOMENT}",
        ),
        (
            {"blackouts": [FREEZE | {"reason": "a_b"}]},
            "schedule.blackouts[0].reason: has the wrong form; allowed: 1 to 40 letters, digits, spaces and .:+@-",
        ),
        (
            {"blackouts": [FREEZE | {"reason": f"{'r' * 30} {n}"} for n in range(12)]},
            "schedule: takes 769 characters in the store's metadata; allowed: at most 512",
        ),
        ("30d", "schedule: must be a mapping; allowed: {every: DURATION or cron: CRON, timeZone: ZONE, window: WINDOW, blackouts: […], …}"),
    ],
    ids=lambda part: "" if isinstance(part, str) else next(iter(part)),
)  # fmt: skip
def test_each_fault_has_its_path_and_words(schedule: object, fault: str) -> None:
    """Where, what, and what is allowed instead; one mistake is told once."""
    assert told(schedule, rotateEvery="30d") == [fault]


@pytest.mark.parametrize(
    ("cron", "fault"),
    [
        ("0 */2 * * *", "schedule.cron: has moments that lie 2h apart; allowed: 4h to 1000d"),
        ("0 3 29 2 *", "schedule.cron: has moments that lie 1461d apart; allowed: 4h to 1000d"),
        ("61 3 * * *", f"schedule.cron: is not a cron expression: bad minute; allowed: {CRON}"),
        ("0 3 * * * *", f"schedule.cron: is not a cron expression; allowed: {CRON}"),
        ("@daily", f"schedule.cron: is not a cron expression; allowed: {CRON}"),
    ],
)
def test_cron_expressions_that_are_refused(cron: str, fault: str) -> None:
    """Those that can not be read, and those that mean no rotation's pace."""
    assert told({"cron": cron}) == [fault]


def test_a_secret_must_say_how_often() -> None:
    """Or the stack does."""
    missing = f"rotateEvery: is missing; allowed: {SPAN}"
    assert told() == [missing]
    assert told({"window": "Sun 02:00-05:00"}) == [missing]
    assert told({"latest": "30d"}) == [missing]


def test_what_can_not_be_kept_is_refused() -> None:
    """A window that opens too rarely, alone or for two that take turns; a cron that is too slow for its bound."""
    sundays = {"window": "Sun 02:00-05:00"}
    assert told(sundays, rotateEvery="7d") == [
        "schedule.window: opens too rarely for a credential that may be 7d old; allowed: more windows, or 7d21h and more"
    ]
    two = stack(sundays, rotateEvery="14d", pairedWith="support-batch")
    two["secrets"].append(two["secrets"][0] | {"name": "support-batch", "pairedWith": "support-chat"})
    with pytest.raises(
        ConfigError, match="as two that are paired take turns; allowed: more windows, or 16d1h and more"
    ):
        parse(two)
    assert told({"cron": "0 3 * * SUN", "latest": "5d"}) == [
        "schedule.latest: 5d is too short for moments that lie up to 7d apart; allowed: at least 7d2h"
    ]


def test_two_that_are_paired_need_time_for_both() -> None:
    """Each waits for the other's grace period."""
    two = stack(rotateEvery="4d", grace="2d", pairedWith="support-batch")
    two["secrets"].append(
        two["secrets"][0] | {"name": "support-batch", "pairedWith": "support-chat", "rotateEvery": "30d"}
    )
    with pytest.raises(ConfigError) as raised:
        parse(two)
    assert str(raised.value) == (
        "keyturn:secrets[0].grace: 2d is too long for two that are paired to take turns in 4d; "
        "allowed: at most 1d22h, drain.quietFor (1h) included"
    )


def test_a_freeze_that_is_too_long_asks_for_a_decision() -> None:
    """Nobody finds out in the freeze that a secret is overdue: what wins is declared, one way or the other."""
    freeze = {"blackouts": [FREEZE]}
    asked = (
        "schedule.overrides: must be said: year-end freeze, 2026-12-18 to 2027-01-04, is too long for what may be 7d old; "
        "allowed: [window, blackout] to rotate in it all the same, [window] to be overdue until it ends"
    )
    assert told(freeze, rotateEvery="7d") == [asked]
    assert told(None, {"schedule": freeze}, rotateEvery="7d") == [asked]
    for overrides in (["window"], ["blackout"], []):
        declared = policy(freeze | {"overrides": overrides}, rotateEvery="7d")
        assert declared.schedule.overrides == tuple(map(Restraint, overrides))
    assert policy(freeze, rotateEvery="30d").schedule.blackouts == (HELD,)


def test_what_is_wrong_with_the_stacks_own_is_told_once() -> None:
    """Not for every secret again."""
    with pytest.raises(ConfigError) as raised:
        parse(stack({"jitter": "1h"}, {"schedule": {"timeZone": "Mars"}}, rotateEvery="30d"))
    assert str(raised.value) == f"keyturn:defaults.schedule.timeZone: is no time zone; allowed: {ZONE}"
    with pytest.raises(ConfigError, match=r"^keyturn:defaults.grace: unknown key; allowed: schedule$"):
        parse(stack(None, {"grace": "1d"}, rotateEvery="30d"))
