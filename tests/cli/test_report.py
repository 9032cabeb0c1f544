"""The command `keyturn report`, from real stores and a real trail to a page, a document and a table."""

from __future__ import annotations

import csv
import io
import json
import re
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rotation import inventory
from rotation.assembly import assemble
from rotation.audit import FileAuditor
from rotation.config import load
from rotation.report.gather import gather
from rotation.telemetry import Call, Run, Sweep
from tests.cli.project import CHAT, HOOK, Project


class Counted:
    """A watcher that counts requests by service and operation."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def watch(self, what: Call | Run | Sweep) -> Iterator[None]:
        yield
        if isinstance(what, Call):
            self.calls[what.service, what.operation] += 1


def test_a_life_from_creation_to_proof(project: Project) -> None:
    """What the commands did, as they recorded it: in the document, the table and the page; and none of it has a value."""
    project.apply()
    project.services.time.move(timedelta(days=29, hours=23))
    assert project.run("sweep").code == 0
    project.services.time.move(timedelta(days=2))
    assert project.run("sweep").code == 0
    values = {project.value(CHAT), project.value(HOOK)}
    ran = project.run("report", "--json", "--html", "report.html", "--csv", "secrets.csv")
    assert ran.code == 0, ran.text
    assert ran.err == "Written: report.html\nWritten: secrets.csv\n"
    made = ran.json
    chat = next(one for one in made["secrets"] if one["name"] == CHAT)
    assert [life["state"] for life in chat["credentials"]] == ["shown dead", "current"]
    steps = {step["what"]: step for step in chat["credentials"][0]["steps"]}
    assert steps["shown dead"]["note"] == "refused by its issuer"
    assert steps["shown dead"]["run"] in {run["id"] for run in made["runs"]}
    assert any("AppRole" in (run["who"] or "") for run in made["runs"])
    assert (chat["standing"], chat["phase"], chat["key_id"]) == (
        "within policy",
        "steady",
        chat["credentials"][1]["key_id"],
    )
    shown = project.run("status", CHAT, "--json").json[0]
    assert (chat["due_at"], chat["overdue_at"], chat["key_id"]) == (
        shown["due_at"],
        shown["overdue_at"],
        shown["key_id"],
    )
    page = (project.root / "report.html").read_text()
    assert stat.S_IMODE((project.root / "report.html").stat().st_mode) == 0o600
    table = (project.root / "secrets.csv").read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(table, newline="")))
    assert [row["secret"] for row in rows] == [CHAT, HOOK]
    assert rows[0]["shown_dead"] == "1"
    for text in (page, table, ran.out):
        assert not [value for value in values if value in text]


def test_it_asks_no_more_than_a_sweep_does_to_begin_with(project: Project) -> None:
    """One listing of each store; no look at an entry, no value, no issuer; and its login asks who it is of none."""
    project.apply()

    def counted() -> tuple[Counted, object]:
        watching = Counted()
        trail = FileAuditor(project.root / "unused.jsonl")
        return watching, assemble(load(project.stack_file), project.environ, trail, project.services.time, watching)

    sweeping, assembly = counted()
    inventory.managed(assembly)  # type: ignore[arg-type]
    reporting, assembly = counted()
    found = gather(assembly, [], [], [], stack="Pulumi.sandbox.yaml")  # type: ignore[arg-type]
    assert len(found.secrets) == 2
    assert reporting.calls == sweeping.calls == {("vault", "listing"): 1, ("mirror", "listing"): 1}


def test_names_narrow_it(project: Project) -> None:
    """To one secret; a name that nobody knows is a fault of usage."""
    project.apply()
    made = project.run("report", HOOK, "--json").json
    assert [one["name"] for one in made["secrets"]] == [HOOK]
    ran = project.run("report", "no-such-secret", "--json")
    assert ran.code == 2
    assert "no-such-secret" in ran.err


def test_the_table_goes_where_it_is_told(project: Project) -> None:
    """Standard output without a file, or with -; beside other options; never mixed with the document."""
    project.apply()
    for arguments in (("--csv",), ("--csv", "-"), ("--csv", "-s", "sandbox"), ("--csv", "--html", "x.html")):
        ran = project.run("report", *arguments)
        assert ran.code == 0
        assert ran.out.startswith("secret,environment,owner,"), arguments
    assert project.run("report", "--csv", "--json").code == 2
    ran = project.run("report")
    assert ran.code == 2
    assert "--html FILE" in ran.err
    assert project.run("report", "--html", "no/such/folder.html").code == 1


def test_what_is_not_shown_dead_is_exit_code_three(project: Project) -> None:
    """So that a job which makes reports is not green while something lives that should not."""
    project.apply()
    engine = project.assembly().engine
    engine.condemn(project.assembly().target(project.policy(CHAT)), contain_after=timedelta(minutes=5))
    ran = project.run("report", "--json")
    assert ran.code == 3
    assert ran.json["alive"] == [CHAT]
    assert ran.json["attention"][0]["urgent"] is True


def test_a_store_that_is_away_is_said(project: Project) -> None:
    """Exit code 1, on standard error and in the report; what the others have is there."""
    project.apply()
    project.change("stores.mirror.address", "https://127.0.0.1:1")
    ran = project.run("report", "--json", "--html", "report.html")
    assert ran.code == 1
    assert ran.json["complete"] is False
    assert "mirror" in ran.json["troubles"][0]
    assert "mirror" in ran.err
    assert len([one for one in ran.json["secrets"] if one["standing"] == "within policy"]) == 2
    assert "Not everything could be looked at" in (project.root / "report.html").read_text()


def test_a_trail_from_elsewhere(project: Project) -> None:
    """What a platform has kept of standard output is given as a file; one that is not there is told."""
    project.apply()
    trail = project.root / "saved.jsonl"
    line = {
        "at": "2026-01-01T00:00:00+00:00",
        "event": "mint.done",
        "secret": "sandbox/long-gone",
        "token": "t",
        "key_id": "key_gone",
    }
    trail.write_text(json.dumps(line) + "\n")
    made = project.run("report", "--json", "--file", "saved.jsonl").json
    gone = next(one for one in made["secrets"] if one["gone"])
    assert (gone["name"], gone["credentials"][0]["key_id"]) == ("long-gone", "key_gone")
    assert project.run("report", "--json", "--file", "nowhere.jsonl").code == 2


def test_help_has_an_example(project: Project) -> None:
    """Of this command, with what it is mostly used for."""
    text = project.run("report", "--help").out
    assert re.search(r"Example: keyturn report .*--html", text)
