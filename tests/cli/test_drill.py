"""drill: as a person runs it, over a real vault and the issuer's stand-in."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from tests.cli.project import CHAT, HOOK, Project

CANARY = "drill-canary-vault-openai"


def test_a_drill_passes_and_is_compared_with_the_next(project: Project) -> None:
    """Exit code 0, and what every part took; nobody's secret is touched, and nothing of the drill is left alive."""
    project.apply()
    before = project.value(CHAT)
    ran = project.run("drill")
    assert ran.code == 0, ran.text
    assert f"Made 2 canaries: {CANARY}, drill-canary-vault-generated." in ran.out
    assert "passed: nothing of it is left." in ran.out
    assert "support-platform has no channel: of a real leak it would not be told" in ran.out
    assert project.value(CHAT) == before
    assert len(project.alive()) == 1
    again = project.run("drill", "--json")
    assert again.code == 0
    assert again.json["state"] == "passed"
    assert again.json["compared_with"] is not None
    assert {one["name"] for one in again.json["differences"]} >= {"match", "replace", "prove", "total"}
    assert again.json["trail"]["sha256"]
    listed = project.run("drill", "list", "--json").json
    assert [one["state"] for one in listed] == ["passed", "passed"]
    assert project.run("incident", "list").code == 0
    assert project.run("audit", "verify").code == 0


def test_a_named_secret_goes_through_it_too(project: Project) -> None:
    """It is replaced for good; nobody is asked with --yes, and without it nobody is there to ask."""
    project.apply()
    leaked = project.value(CHAT)
    refused = project.run("drill", CHAT)
    assert (refused.code, project.value(CHAT)) == (2, leaked)
    assert "give --yes" in refused.err
    ran = project.run("drill", CHAT, "--yes")
    assert ran.code == 0, ran.text
    assert list(project.keys().values()) == [False, True]
    everything = [path.read_text() for path in (project.root / ".keyturn").rglob("*") if path.is_file()]
    assert not any(leaked in text for text in [*everything, ran.text])


def test_production_has_to_be_asked_for(project: Project) -> None:
    """Exit code 2, and no canary is made, neither of the stack's pairs nor of a named secret."""
    project.declare(environment="prod")
    for arguments in ((), (CHAT,)):
        ran = project.run("drill", *arguments, "--yes")
        assert ran.code == 2
        assert "--production-too" in ran.err
    assert project.keys() == {}


def test_an_issuer_that_does_not_revoke_is_exit_code_3(project: Project) -> None:
    """The drill tells what state things are in, and the next one removes what is left."""
    project.apply(CHAT)
    project.services.openai.control.fault("DELETE", "/v1/organization/projects/*/api_keys/*", times=1000, status=500)
    ran = project.run("drill")
    assert ran.code == 3
    assert f"{CANARY}: what leaked is alive, or not shown dead" in ran.err
    assert f"Still there: {CANARY}." in ran.err
    project.services.openai.control.clear_faults()
    project.services.time.move(timedelta(minutes=10))
    again = project.run("drill")
    assert again.code == 0, again.text
    assert f"Removed, from earlier drills: {CANARY}." in again.out
    assert len(project.alive()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("nope-such",), "declares no secret nope-such"), (("--compare", "none.json"), "--compare: none.json")],
)
def test_what_can_not_be_meant_changes_nothing(project: Project, arguments: tuple[str, ...], told: str) -> None:
    """Exit code 2."""
    ran = project.run("drill", *arguments)
    assert ran.code == 2
    assert told in ran.err
    assert project.keys() == {}


def test_evidence_of_something_else_is_not_compared_with(project: Project) -> None:
    """A file that is no evidence is refused before anything is made."""
    other = project.root / "other.json"
    other.write_text(json.dumps({"schema": "something/1"}))
    ran = project.run("drill", "--compare", str(other))
    assert ran.code == 2
    assert "is of version something/1" in ran.err
    assert project.keys() == {}


def test_a_generated_value_is_drilled_alone(project: Project) -> None:
    """Nobody refuses it, so what counts is that it is replaced."""
    project.declare(project.secret(HOOK))
    ran = project.run("drill", "--json")
    assert ran.code == 0, ran.text
    (one,) = ran.json["subjects"]
    assert (one["enforced"], one["cleaned"], one["times"]["prove"]) == (False, True, None)
    assert one["times"]["replace"] is not None
