"""thaw, and a freeze as status and plan show it: on a real vault, as scripts and people see it."""

from datetime import timedelta

import pytest

from tests.cli.project import CHAT, HOOK, Project

DAY = timedelta(days=1)
INCIDENT = "INC-2026-0012"


def freeze(project: Project, name: str, incident: str = INCIDENT) -> str:
    """Freezes a secret, and gives since when, as people read it."""
    a = project.assembly()
    return f"{a.engine.freeze(a.target(project.policy(name)), incident).at:%Y-%m-%d %H:%M}Z"


def test_a_frozen_secret_is_shown_and_left_alone_until_it_is_thawed(project: Project) -> None:
    """By which incident, since when, and the command that ends it; and after that, the next sweep rotates."""
    project.apply()
    since = freeze(project, CHAT)
    told = f"frozen by incident {INCIDENT} since {since}; `keyturn thaw {CHAT}`"
    project.services.time.move(31 * DAY)
    shown = project.run("status")
    assert f"{CHAT}: {told}" in shown.out
    assert "held, frozen" in shown.out
    assert project.run("status", HOOK, "--json").json[0]["frozen"] is None
    assert project.run("status", CHAT, "--json").json[0]["frozen"]["incident"] == INCIDENT
    assert f"· {CHAT}: held: overdue, and {told}" in project.run("plan", CHAT).out
    assert project.run("plan", CHAT, "--json").json[0]["frozen"] == told
    assert project.run("sweep").code == 0
    assert len(project.keys()) == 1
    ran = project.run("thaw", CHAT)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"✓ {CHAT}: thawed; incident {INCIDENT} had frozen it since {since}\n"
    assert project.run("sweep").code == 0
    assert len(project.keys()) == 2
    assert [line["event"] for line in project.audit() if line["event"] == "thaw"] == ["thaw"]


def test_a_plan_says_frozen_of_what_has_nothing_to_do(project: Project) -> None:
    """Or who reads it would believe that it will rotate on its day."""
    project.apply(CHAT)
    since = freeze(project, CHAT)
    assert f"    frozen by incident {INCIDENT} since {since}; `keyturn thaw {CHAT}`" in project.run("plan", CHAT).out


def test_thawing_twice_does_no_harm(project: Project) -> None:
    """What is not frozen is said, and is no failure."""
    project.apply(CHAT)
    ran = project.run("thaw", CHAT)
    assert (ran.code, ran.out) == (0, f"· {CHAT}: not frozen\n")


def test_all_of_one_incident(project: Project) -> None:
    """Those of another one stay frozen, and what is not applied is nobody's."""
    other = "support-copilot-batch"
    project.declare(project.secret(CHAT), project.secret(HOOK), project.secret(other))
    project.apply(CHAT, HOOK)
    freeze(project, CHAT)
    freeze(project, HOOK, "INC-2026-0007")
    ran = project.run("thaw", "--incident", INCIDENT, "--json")
    assert ran.code == 0
    assert [(one["name"], one["thawed"], one["incident"], one["error"]) for one in ran.json] == [
        (CHAT, True, INCIDENT, None)
    ]
    again = project.run("thaw", "--incident", INCIDENT)
    assert (again.code, again.out) == (0, f"Nothing is frozen by incident {INCIDENT}.\n")
    assert project.run("thaw", HOOK, "--incident", INCIDENT).out == f"· {HOOK}: not frozen by incident {INCIDENT}\n"
    assert project.run("status", HOOK, "--json").json[0]["frozen"]["incident"] == "INC-2026-0007"


@pytest.mark.parametrize(("arguments", "told"), [((), "which secrets?"), (("nope",), "declares no secret nope")])
def test_thawing_nothing_in_particular_is_refused(project: Project, arguments: tuple[str, ...], told: str) -> None:
    """A whole stack would be thawed by a slip."""
    ran = project.run("thaw", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err


def test_a_thaw_of_what_is_not_applied_fails(project: Project) -> None:
    """Whoever names it believes that there is something."""
    ran = project.run("thaw", CHAT)
    assert ran.code == 1
    assert "It is not applied, so nothing is frozen; `pulumi up` makes it." in ran.err
