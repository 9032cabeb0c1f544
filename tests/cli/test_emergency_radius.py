"""emergency over more than names: what is chosen, confirmed, resumed and recorded, and what each exit code says."""

from __future__ import annotations

import json
import os
import re
from datetime import timedelta
from pathlib import Path

import pytest

from tests.cli.project import BATCH, CHAT, HOOK, Project

REVOCATION = ("DELETE", "/v1/organization/projects/*/api_keys/*")


@pytest.fixture
def pair(project: Project) -> Project:
    """Two keys of OpenAI with two owners."""
    owners: dict[str, dict[str, list[str]]] = {"support-platform": {"notify": []}, "batch-team": {"notify": []}}
    consumers = [{"name": "support-api", "refreshWithin": "15m"}]
    project.declare(
        project.secret(CHAT, consumers=consumers, tags={"tier": "one"}),
        project.secret(BATCH, owner="batch-team"),
        owners=owners,
    )
    project.apply()
    return project


def gitleaks(project: Project, *values: str) -> str:
    found = [
        {"RuleID": "openai-api-key", "Secret": value, "Match": f"KEY={value}", "File": "app/a.py", "StartLine": number}
        for number, value in enumerate(values, 1)
    ]
    (project.root / "report.json").write_text(json.dumps(found))
    return "report.json"


def test_a_plan_changes_nothing(pair: Project) -> None:
    """Order, owners, consumers, when it is contained, calls and time, for people and for scripts."""
    before = pair.everything()
    ran = pair.run("emergency", "--all", "--plan")
    assert ran.code == 0
    assert f"{CHAT} (sandbox, owner support-platform): replace, then revoke without grace" in ran.out
    assert "support-api fails with what it has cached until it refreshes, within 15 min" in ran.out
    assert re.search(
        r"^Owners: support-platform, batch-team\. Calls: openai 16, vault 30\. Expected:", ran.out, re.MULTILINE
    )
    found = pair.run("emergency", "--all", "--plan", "--json").json
    assert [(one["name"], one["contain_after_seconds"]) for one in found["secrets"]] == [(CHAT, 300.0), (BATCH, 300.0)]
    assert found["services"]["openai"]["calls"] == 16
    assert pair.everything() == before
    assert not (pair.root / ".keyturn" / "incidents").exists()


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (("--owner", "batch-team"), [BATCH]),
        (("--tag", "tier=one"), [CHAT]),
        (("--reader", "support-api"), [CHAT]),
        (("--issuer", "openai", "--store", "vault"), [CHAT, BATCH]),
        (("--environment", "sandbox", "--owner", "batch-team"), [BATCH]),
        (("--older-than", "0s", CHAT), [CHAT]),
    ],
    ids=" ".join,
)
def test_a_blast_radius_is_chosen_by_options(pair: Project, options: tuple[str, ...], chosen: list[str]) -> None:
    """Each narrows the others and the names."""
    pair.services.time.move(timedelta(minutes=1))
    found = pair.run("emergency", *options, "--plan", "--json")
    assert [one["name"] for one in found.json["secrets"]] == chosen


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "say which secrets"),
        (("--owner", "nobody"), "--owner: there is no nobody in this stack; there is: support-platform, batch-team"),
        (("--tag", "tier"), "'tier' is not NAME=TEXT"),
        (("--tag", "tier=nine"), "no secret is chosen by tag tier=nine"),
        (("--older-than", "soon"), "--older-than: 'soon' is not a duration"),
        (("--check",), "give --leak FILE or --fd N"),
        (("--resume", "2026-01-01-0000-ab12", CHAT), "give it alone"),
        (("--resume", "../x"), "is not the id of an incident"),
        (("--resume", "2026-01-01-0000-ab12"), "there is no incident 2026-01-01-0000-ab12"),
        (("--admin", "openai"), "puts the new one where OPENAI_ADMIN_KEY comes from"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else "",
)
def test_what_can_not_be_meant_changes_nothing(pair: Project, options: tuple[str, ...], told: str) -> None:
    """Exit code 2, and every key lives."""
    before = pair.everything()
    ran = pair.run("emergency", *options, "--yes")
    assert ran.code == 2
    assert told in ran.err
    assert pair.everything() == before


def test_all_that_an_administrative_credential_minted_is_replaced_after_it(pair: Project) -> None:
    """Once a person says that it is replaced itself."""
    leaked = set(pair.alive())
    ran = pair.run("emergency", "--admin", "openai", "--admin-replaced", "--yes", "--json")
    assert ran.code == 0
    assert {one["name"] for one in ran.json} == {CHAT, BATCH}
    assert not leaked & set(pair.alive())


def test_many_are_done_recorded_and_shown(pair: Project) -> None:
    """Totals on the screen; the record as a list, as Markdown, as a page and as JSON; no value in any of it."""
    leaked = [pair.value(CHAT), pair.value(BATCH)]
    ran = pair.run("emergency", "--all", "--yes")
    assert ran.code == 0
    assert re.search(
        r"^All 2: replaced \d+\.\d s, contained \d+\.\d s, shown dead \d+\.\d s; none alive\.$", ran.out, re.MULTILINE
    )
    found = re.search(r"^Recorded: keyturn incident show (\S+)$", ran.out, re.MULTILINE)
    assert found is not None
    (listed,) = pair.run("incident", "list", "--json").json
    assert (listed["id"], listed["over"], listed["alive"]) == (found[1], True, [])
    assert found[1] in pair.run("incident", "list").out
    shown = pair.run("incident", "show", found[1], "--html", "i.html", "--markdown", "i.md")
    assert shown.code == 0
    page, text = (pair.root / "i.html").read_text(), (pair.root / "i.md").read_text()
    record = pair.run("incident", "show", found[1], "--json")
    assert record.json["secrets"][0]["keys"][0]["request_ids"]
    for told in (page, text, record.out, pair.run("incident", "show", found[1]).out):
        assert CHAT in told
        assert not [value for value in leaked if value in told]
    assert {line["incident"] for line in pair.audit() if line["event"] == "revoke.done"} == {found[1]}


def test_more_than_one_is_confirmed_by_their_number(pair: Project) -> None:
    """Nobody types that by habit; anything else changes nothing."""
    before = pair.everything()
    terminal = pair.at_terminal("emergency", "--all")
    terminal.read_until("or the incident's id:")
    terminal.type("y\n")
    shown = terminal.end()
    assert shown.code == 1
    assert "Nothing was changed." in shown.out
    assert pair.everything() == before
    terminal = pair.at_terminal("emergency", "--all")
    terminal.read_until("or the incident's id:")
    terminal.type("2\n")
    assert terminal.end().code == 0


def test_what_could_not_be_ended_is_resumed_by_its_id(pair: Project) -> None:
    """Exit code 3 until it is; what has replaced a key stays; a resumption of what is over is a mistake."""
    pair.services.openai.control.fault(*REVOCATION, times=1000, status=500)
    ran = pair.run("emergency", "--all", "--yes", "--json")
    assert ran.code == 3
    identity = ran.json[0]["incident"]
    assert pair.run("incident", "show", identity).code == 3
    values = [pair.value(CHAT), pair.value(BATCH)]
    pair.services.openai.control.clear_faults()
    resumed = pair.run("emergency", "--resume", identity, "--yes")
    assert resumed.code == 0
    assert [pair.value(CHAT), pair.value(BATCH)] == values
    assert sorted(pair.keys().values()) == [False, False, True, True]
    assert pair.run("incident", "show", identity).code == 0
    again = pair.run("emergency", "--resume", identity, "--yes")
    assert again.code == 2
    assert "is over" in again.err


def test_a_killed_command_is_resumed(pair: Project) -> None:
    """Killed outright while the issuer keeps it waiting; the record was there before the first key was condemned."""
    pair.services.openai.control.fault(*REVOCATION, times=1000, status=500)
    with pair.start("emergency", "--all", "--yes") as process:
        while not any(line["event"] == "revoke" for line in pair.audit()):
            assert process.poll() is None
        process.kill()
    (identity,) = [path.stem for path in (pair.root / ".keyturn" / "incidents").glob("2*.json")]
    pair.services.openai.control.clear_faults()
    ran = pair.run("emergency", "--resume", identity, "--yes")
    assert ran.code == 0
    assert sorted(pair.keys().values()) == [False, False, True, True]


def test_a_report_is_checked_then_acted_on(pair: Project) -> None:
    """3 while something of ours is alive, nothing changed by looking; then it is dead, and the report is harmless."""
    leaked = pair.value(CHAT)
    report = gitleaks(pair, leaked, "sk-proj-" + "z" * 40)
    before = pair.everything()
    ran = pair.run("emergency", "--leak", report, "--check")
    assert ran.code == 3
    assert pair.everything() == before
    ran = pair.run("emergency", "--leak", report, "--yes")
    assert ran.code == 0
    assert f"{CHAT} (sandbox" in ran.out
    assert "leaked: its current credential, in app/a.py" in ran.out
    assert BATCH not in ran.out
    again = pair.run("emergency", "--leak", report, "--yes")
    assert again.code == 0
    assert "Nothing in the report is ours and alive." in again.out
    assert pair.run("emergency", "--leak", report, "--check").code == 0
    everywhere = (
        ran.text
        + again.text
        + "".join(path.read_text() for path in (pair.root / ".keyturn").rglob("*") if path.is_file())
    )
    assert leaked not in everywhere


def test_a_leaked_previous_credential_takes_the_current_one_along(pair: Project) -> None:
    """What drains has leaked: everything alive of its secret goes, and the plan says so."""
    previous = pair.value(CHAT)
    assert pair.run("rotate", CHAT).code == 0
    ran = pair.run("emergency", "--leak", gitleaks(pair, previous), "--yes")
    assert ran.code == 0
    assert "leaked: its previous credential" in ran.out
    assert "all of its 2 live credentials go, not just what leaked" in ran.out
    assert sum(pair.keys().values()) == 2


def test_a_value_comes_by_a_descriptor(pair: Project) -> None:
    """Never by the command line; the answer is the same."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        pipe.write(pair.value(CHAT))
    ran = pair.run("emergency", "--fd", str(reading), "--check", "--json")
    assert ran.code == 3
    assert [(one["secret"], one["standing"], one["alive"]) for one in ran.json] == [(CHAT, "current", True)]
    assert pair.value(CHAT) not in ran.text


def test_a_record_that_can_not_be_written_stops_nothing(pair: Project) -> None:
    """The keys die; the log says what can not be kept."""
    folder = pair.root / ".keyturn"
    folder.mkdir(exist_ok=True)
    Path(folder, "incidents").write_text("no folder")
    ran = pair.run("emergency", CHAT, "--yes")
    assert ran.code == 0
    assert sum(pair.keys().values()) == 2


def test_no_incident_is_no_fault(project: Project) -> None:
    """An empty list says so, and is an empty list for scripts."""
    assert "No incident was run from here" in project.run("incident", "list").out
    assert project.run("incident", "list", "--json").json == []
    assert project.run("emergency", HOOK, "--resume", "x").code == 2
