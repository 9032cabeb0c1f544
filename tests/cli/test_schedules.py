"""A schedule by the commands: what status and plan say of it, and that sweeps keep to it. Against a real OpenBao."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from tests.cli.project import HOOK, Project
from tests.cli.test_looking import row

BERLIN = ZoneInfo("Europe/Berlin")
SUNDAYS = {"timeZone": "Europe/Berlin", "window": "Sun 02:00-05:00"}
HOUR = timedelta(hours=1)


def move_to(project: Project, moment: datetime) -> None:
    project.services.time.move(moment - project.services.time.now())


def next_of(project: Project, command: str) -> str:
    """What a command says comes next."""
    shown = project.run(command, HOOK, "--json").json[0]
    return str(shown["next_action"] if command == "status" else shown["next"])


def test_a_sweep_rotates_in_the_window_that_status_and_plan_named(project: Project) -> None:
    """Not at the sweep before, and with the old value until then."""
    project.declare(project.secret(HOOK, schedule=SUNDAYS))
    project.apply()
    shown, value = row(project, HOOK), project.value(HOOK)
    due, overdue = (datetime.fromisoformat(shown[at]) for at in ("due_at", "overdue_at"))
    assert f"{due.astimezone(BERLIN):%a %H:%M}" == "Sun 02:00"
    assert timedelta(hours=2) < overdue - due < timedelta(days=8)
    assert shown["due_why"] == f"its window, {due.astimezone(BERLIN):Sun %Y-%m-%d} 02:00 Europe/Berlin"
    for command in ("status", "plan"):
        assert next_of(project, command) == f"rotate at {due:%Y-%m-%d %H:%M}Z: {shown['due_why']}"
    move_to(project, due - HOUR)
    assert project.run("sweep").code == 0
    assert project.value(HOOK) == value
    move_to(project, due + HOUR)
    assert next_of(project, "plan").startswith("rotate now: due since")
    assert project.run("sweep").code == 0
    assert project.value(HOOK) != value


def test_a_missed_window_is_waited_for_and_a_person_need_not_wait(project: Project) -> None:
    """Until the next one; `rotate` and `emergency` do not ask the schedule."""
    project.declare(project.secret(HOOK, schedule=SUNDAYS | {"every": "20d", "latest": "45d"}, rotateEvery=None))
    project.apply()
    due = datetime.fromisoformat(row(project, HOOK)["due_at"])
    move_to(project, due + timedelta(days=1))
    following = (due.astimezone(BERLIN).replace(tzinfo=None) + timedelta(days=7)).replace(tzinfo=BERLIN)
    waits = f"waits for its window, {following:Sun %Y-%m-%d} 02:00 Europe/Berlin"
    for command in ("status", "plan"):
        assert next_of(project, command).endswith(waits)
    shown, value = row(project, HOOK), project.value(HOOK)
    assert (shown["phase"], datetime.fromisoformat(shown["due_at"])) == ("steady", following)
    assert project.run("sweep").code == 0
    assert project.value(HOOK) == value
    assert project.run("rotate", HOOK).code == 0
    assert project.value(HOOK) != value


def test_a_freeze_that_outlasts_the_age_is_announced_and_then_held(project: Project) -> None:
    """From the first day on status says from when it will be overdue; once it is, it is held, and the reason shown."""
    now = project.services.time.now()
    start, end = (f"{now + timedelta(days=days):%Y-%m-%d}" for days in (-1, 20))
    freeze = {"from": start, "to": end, "reason": "year-end freeze"}
    secret = project.secret(HOOK, rotateEvery="7d", schedule={"blackouts": [freeze], "overrides": ["window"]})
    project.declare(secret)
    project.apply()
    assert f"after the blackout year-end freeze; overdue from {now + timedelta(days=7):%Y-%m-%d}" in next_of(
        project, "plan"
    )
    project.services.time.move(timedelta(days=8))
    shown, value = row(project, HOOK), project.value(HOOK)
    assert shown["phase"] == "held"
    assert shown["last_error"].startswith("overdue, and waits for ")
    assert f"`keyturn rotate {HOOK}` does not wait" in shown["last_error"]
    project.run("sweep")
    assert project.value(HOOK) == value
    project.services.time.move(timedelta(days=14))
    assert project.run("sweep").code == 0
    assert project.value(HOOK) != value


def test_a_freeze_that_is_too_long_is_refused_before_anything_is_done(project: Project) -> None:
    """With the field, and both ways to decide it."""
    freeze = {"from": "2026-12-18", "to": "2027-01-04", "reason": "year-end freeze"}
    project.declare(project.secret(HOOK, rotateEvery="7d"), defaults={"schedule": {"blackouts": [freeze]}})
    ran = project.run("status")
    assert ran.code == 2
    assert "keyturn:secrets[0].schedule.overrides: must be said: year-end freeze" in ran.err
