"""The commands over a real trail: rotations against a vault and an issuer, then looked at, spoilt, and anchored."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rotation.cli.audit import app
from tests.cli.project import CHAT, HOOK, Project

COMMANDS = sorted(str(command.name) for command in app.registered_commands)
SHOWN = ("at", "event", "outcome", "secret", "writer", "seq", "prev", "who")


def rotated(project: Project) -> Project:
    """Applied, and one of its secrets rotated."""
    project.apply()
    assert project.run("rotate", CHAT).code == 0
    return project


def spoil(project: Project, number: int, **changed: Any) -> None:
    """Changes a line of the trail as somebody with an editor would."""
    lines = project.audit_file.read_text().splitlines(keepends=True)
    said = json.loads(lines[number]) | changed
    lines[number] = json.dumps(said, sort_keys=True, separators=(",", ":")) + "\n"
    project.audit_file.write_text("".join(lines))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_by_an_example(project: Project, command: str) -> None:
    """With options that it has."""
    shown = project.run("audit", command, "--help")
    assert shown.code == 0
    example = re.search(rf"Example: (keyturn audit {command} .*?)\n\n", shown.out, re.DOTALL)
    assert example is not None
    for option in re.findall(r"--[a-z-]+", example[1]):
        assert re.search(rf"^ +(-\w, )?{option}\b", shown.out, re.MULTILINE), option


def test_a_rotation_leaves_a_chain_that_says_who_and_by_which_requests(project: Project) -> None:
    """As whom the vault let us in, and ids by which its own audit log is searched."""
    lines = rotated(project).audit()
    assert all(set(SHOWN) <= set(line) for line in lines)
    assert {line["who"]["vault"] for line in lines} == {lines[0]["who"]["vault"]}
    assert re.fullmatch(r"AppRole at auth/approle role_name=\S+( entity=\S+)?", lines[0]["who"]["vault"])
    log = project.services.bao.audit_log.read_text()
    (requested,) = [line for line in lines if line["event"] == "promote.done"]
    ids = [text.split()[2] for text in requested["requests"] if text.startswith("vault promote ")]
    assert ids
    assert all(found in log for found in ids)
    outcomes = {line["event"]: line["outcome"] for line in lines}
    assert (outcomes["mint"], outcomes["mint.done"], outcomes["verify"]) == ("intended", "done", "valid")


def test_show_tells_what_was_asked_for(project: Project) -> None:
    """By secret and time; as sentences, and as JSON."""
    rotated(project)
    assert project.run("rotate", HOOK).code == 0
    everything = project.run("audit", "show", "--json")
    assert everything.code == 0
    assert len(everything.json) == len(project.audit())
    of_one = project.run("audit", "show", "--secret", CHAT, "--json").json
    assert {line["secret"] for line in of_one} == {project.entry(CHAT)}
    assert 0 < len(of_one) < len(everything.json)
    assert project.run("audit", "show", "--since", "2099-01-01", "--json").json == []
    assert len(project.run("audit", "show", "--since", "1h", "--json").json) == len(everything.json)
    assert project.run("audit", "show", "--incident", "none-such").out == "0 records.\n"
    people = project.run("audit", "show", "--secret", CHAT).out
    assert re.search(rf"^\S+  {project.entry(CHAT)}  promote\.done: in vault$", people, re.MULTILINE)
    assert project.run("audit", "show", "--since", "yesterday").code == 2


def test_verify_finds_a_change_by_its_line_and_says_what_it_can_not_see(project: Project) -> None:
    """Exit codes 0 and 1; nothing is changed."""
    rotated(project)
    good = project.run("audit", "verify")
    assert good.code == 0, good.text
    assert "whole" in good.out
    assert "What this can not see:" in good.out
    assert "are after the last anchor" in good.out
    spoil(project, 2, reason="all is well")
    bad = project.run("audit", "verify")
    assert bad.code == 1
    assert re.search(
        rf"{project.audit_file}:4: record 3 of writer \S+ does not follow from {project.audit_file}:3", bad.out
    )
    told = project.run("audit", "verify", "--json")
    assert (told.code, told.json["good"]) == (1, False)


def test_anchors_hold_the_tail_and_the_chain(project: Project, tmp_path: Path) -> None:
    """Each command anchors its own chain when it is over; what is missed is the end of the trail, or all of it."""
    anchors = tmp_path / "anchors.jsonl"
    project.change("audit", [{"file": str(anchors), "keeps": "anchors"}])
    rotated(project)
    assert len(anchors.read_text().splitlines()) == 1
    assert project.run("audit", "verify").code == 0
    whole = project.audit_file.read_text()
    project.audit_file.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    missed = project.run("audit", "verify")
    assert missed.code == 1
    assert f"the anchor at {anchors}:1 names it" in missed.out
    project.audit_file.unlink()
    assert "the whole chain is gone" in project.run("audit", "verify").out
    assert project.run("audit", "anchor").code == 1, "what is left is not made to look whole"
    project.audit_file.write_text(whole)
    assert project.run("audit", "anchor").out == "✓ every chain is anchored already\n"


def test_a_person_anchors_where_only_that_person_can_write(project: Project, tmp_path: Path) -> None:
    """On a disk that is taken away; and gives it to verify."""
    rotated(project)
    elsewhere = tmp_path / "elsewhere.jsonl"
    assert project.run("audit", "anchor").code == 2
    made = project.run("audit", "anchor", "--to", str(elsewhere))
    assert made.out == f"✓ 1 heads anchored in {elsewhere}\n"
    assert project.run("audit", "verify", "--anchor", str(elsewhere)).code == 0
    project.audit_file.write_text("".join(project.audit_file.read_text().splitlines(keepends=True)[:-1]))
    assert project.run("audit", "verify").code == 0
    assert project.run("audit", "verify", "--anchor", str(elsewhere)).code == 1
    assert project.run("audit", "verify", "--anchor", "no-such-file").code == 2


def test_export_is_a_table_or_a_document(project: Project, tmp_path: Path) -> None:
    """Never over a file that is there, and private."""
    rotated(project)
    table, document = tmp_path / "trail.csv", tmp_path / "trail.json"
    assert project.run("audit", "export", str(table)).code == 0
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["event"] for row in rows] == [line["event"] for line in project.audit()]
    assert table.stat().st_mode & 0o777 == 0o600
    assert project.run("audit", "export", "--json", str(document)).code == 0
    assert [row["seq"] for row in json.loads(document.read_text())] == [line["seq"] for line in project.audit()]
    assert project.run("audit", "export", str(table)).code == 2
    assert project.run("audit", "export", "--csv", "--json", "-").code == 2


def test_a_cell_is_no_formula(project: Project, tmp_path: Path) -> None:
    """A reason quotes a vendor, and a vendor may say anything."""
    rotated(project)
    spoil(project, 0, reason='=HYPERLINK("http://x","y")')
    shown = list(csv.DictReader(project.run("audit", "export", "--csv", "-").out.splitlines()))
    assert shown[0]["reason"] == '\'=HYPERLINK("http://x","y")'
    assert not (tmp_path / "-").exists()


def test_a_trail_from_elsewhere_is_given_as_a_file(project: Project, tmp_path: Path) -> None:
    """As what a platform has kept of a function's output; several files are one trail."""
    rotated(project)
    copy, rest = tmp_path / "copy.jsonl", tmp_path / "rest.jsonl"
    lines = project.audit_file.read_text().splitlines(keepends=True)
    copy.write_text("".join(lines[:3]))
    rest.write_text("".join(lines[3:]))
    assert project.run("audit", "verify", "--file", str(rest)).code == 1
    assert project.run("audit", "verify", "--file", str(copy), "--file", str(rest)).code == 0
    assert len(project.run("audit", "show", "--file", str(copy), "--json").json) == 3
    assert project.run("audit", "verify", "--file", str(tmp_path / "none")).code == 2
    project.change("audit", [{"stream": "stdout"}])
    assert "give --file" in project.run("audit", "verify").err


def test_the_chain_is_verified_by_hand(project: Project) -> None:
    """With the tools that every system has, as docs/audit.md says it: the page's own lines are run."""
    rotated(project)
    page = Path(__file__).parents[2].joinpath("docs", "audit.md").read_text()
    (script,) = re.findall(r"```bash\n# by hand\n(.*?)```", page, re.DOTALL)
    tools = [tool for tool in ("jq", "sha256sum") if shutil.which(tool) is None]
    if tools:
        pytest.fail(f"this machine lacks {tools}")
    trail = project.root / "trail.jsonl"
    shutil.copy(project.audit_file, trail)

    def by_hand() -> str:
        done = subprocess.run(["bash", "-c", script], cwd=project.root, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    assert by_hand() == ""
    lines = trail.read_text().splitlines(keepends=True)
    trail.write_text("".join([*lines[:1], lines[1].replace("intended", "done"), *lines[2:]]))
    assert by_hand().startswith("3: does not follow from the record before it")


# --- an emergency ----------------------------------------------------------------------------------


def test_an_emergency_goes_on_without_its_trail_when_told_to_and_writes_it_afterwards(project: Project) -> None:
    """The disk is full for as long as the records of the first moments; they are lines on standard error, too."""
    project.apply()
    (project.root / "file").write_text("")
    trail = project.root / "file" / "audit.jsonl"
    refused = project.run("emergency", CHAT, "--yes", KEYTURN_AUDIT_FILE=str(trail))
    assert refused.code == 3
    before = project.alive()
    gone_on = project.run("emergency", CHAT, "--yes", "--no-audit", KEYTURN_AUDIT_FILE=str(trail))
    assert gone_on.code == 0, gone_on.text
    assert project.alive() != before
    assert "Going on without it" in gone_on.err
    said = [json.loads(line) for line in gone_on.err.splitlines() if line.startswith('{"at"')]
    events = [line["event"] for line in said]
    assert {"condemn", "mint.done", "promote.done", "revoke.done", "proven"} <= set(events)
    assert all(line["late"] for line in said)
    assert f"{len(said)} records are not in the audit trail" in gone_on.err


def test_records_of_an_emergency_name_its_incident(project: Project) -> None:
    """So that show finds them again."""
    project.apply()
    assert project.run("emergency", CHAT, "--yes", "--no-audit").code == 0
    (incident,) = {line.get("incident") for line in project.audit()}
    assert incident
    shown = project.run("audit", "show", "--incident", incident, "--json").json
    assert len(shown) == len(project.audit())
    assert not any(line.get("late") for line in shown)
    assert project.run("audit", "verify").code == 0
