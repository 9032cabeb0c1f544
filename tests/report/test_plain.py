"""The report for machines: a schema that is written down, and a table that is one."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rotation.model import MASK, SecretValue
from rotation.report import Facts, plain, report
from tests.report.made import NOW, facts
from tests.report.test_browser import hostile

DOCS = Path(__file__).parent.parent.parent / "docs" / "report.md"


def keys(value: Any) -> Iterator[str]:
    """Every key of a document, at any depth; those of consumers and tags are people's."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield key
            if key not in ("consumers", "tags"):
                yield from keys(part)
    elif isinstance(value, list):
        for part in value:
            yield from keys(part)


def test_every_field_is_written_down() -> None:
    """docs/report.md has each field of the JSON and each column of the table, and the schema's version."""
    text = DOCS.read_text()
    told = set(re.findall(r"`([a-z_]+)`", text))
    made = plain.as_json(report(facts(60)))
    assert set(keys(made)) <= told
    assert set(plain.COLUMNS) <= told
    assert f"`{plain.SCHEMA}`" in text


def test_the_document_is_json_and_says_it_all() -> None:
    """Times are ISO 8601 in UTC; what is not known is null; figures agree with what is listed."""
    made = json.loads(json.dumps(plain.as_json(report(facts(60)))))
    assert made["schema"] == "keyturn.report/1"
    assert datetime.fromisoformat(made["at"]) == NOW
    assert made["complete"] is True
    assert made["compliance"]["overdue"] == sum(one["standing"] == "overdue" for one in made["secrets"])
    assert made["alive"] == [one["name"] for one in made["secrets"] if one["alive"]]
    gone = [one for one in made["secrets"] if one["gone"]]
    assert [(one["policy"], one["phase"], one["due_at"]) for one in gone] == [(None, None, None)]
    steps = [step for one in made["secrets"] for life in one["credentials"] for step in life["steps"]]
    assert {step["run"] for step in steps if step["run"]} <= {run["id"] for run in made["runs"]}


def test_the_table_is_as_rfc_4180_has_it() -> None:
    """CRLF after every row, the last one as well; quotes doubled; as many cells in each row as there are headings."""
    text = plain.as_csv(report(hostile()))
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == list(plain.COLUMNS)
    assert {len(row) for row in rows} == {len(plain.COLUMNS)}
    assert text.endswith("\r\n")
    assert "\n" not in text.replace("\r\n", "")
    assert any(row[rows[0].index("owner")].startswith("<img src=x onerror=alert(1)>\"'&") for row in rows)


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\uff1d1", "\n=1"])
def test_no_cell_is_a_formula(formula: str) -> None:
    """Whatever an owner is called: a spreadsheet shows it and computes nothing."""
    found = facts(1)
    policy = replace(found.secrets[0].policy, owner=formula)
    text = plain.as_csv(report(replace(found, secrets=[replace(found.secrets[0], policy=policy)])))
    row = next(csv.DictReader(io.StringIO(text, newline="")))
    assert row["owner"] == f"'{formula}"
    assert float(row["age_days"]) > 0


def test_numbers_stay_numbers() -> None:
    """And words that begin like words stay as they are."""
    assert plain.inert(-1.5) == -1.5
    assert plain.inert("2026-11-22") == "2026-11-22"
    assert plain.inert(None) is None


def test_nothing_is_a_table_too() -> None:
    """No secrets: the headings alone, and a document with empty lists."""
    nothing = report(Facts("acme", "prod", "Pulumi.prod.yaml", NOW))
    assert plain.as_csv(nothing).count("\r\n") == 1
    assert plain.as_json(nothing)["secrets"] == []


def test_a_living_value_is_masked_everywhere() -> None:
    """None should ever come here; one that a service has quoted in a reason, say, goes no further."""
    from rotation.report import page

    value = SecretValue("kt-value-that-was-quoted")
    found = facts(2, past=timedelta(days=5))
    lines = [{**line, "reason": f"refused: {value.reveal()}"} for line in found.lines]
    made = report(replace(found, lines=lines, troubles=[f"vault: {value.reveal()}"]))
    for text in (page.html(made), json.dumps(plain.as_json(made)), plain.as_csv(made)):
        assert value.reveal() not in text
    assert MASK in page.html(made)
