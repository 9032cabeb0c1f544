"""The reference says what the code says: written anew it is the same, and it leaves nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from rotation.cli.main import app
from rotation.config import schema
from tools import reference


def test_the_reference_is_what_the_code_says() -> None:
    """`python -m tools.reference` writes it anew."""
    assert reference.stale() == [], "run `python -m tools.reference` (or `make reference`) and commit docs/reference"


def test_a_page_that_was_edited_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    for name, text in reference.written().items():
        (tmp_path / name).write_text(text)
    (tmp_path / "cli.md").write_text((tmp_path / "cli.md").read_text().replace("keyturn status", "keyturn state"))
    (tmp_path / "metrics.md").unlink()
    assert reference.stale() == ["cli.md", "metrics.md"]


def test_every_command_has_its_section_and_example() -> None:
    """House rule: a command's help has one example, and it is of that command."""
    page = reference.cli()
    faults = []
    for path, node in reference.commands(typer.main.get_command(app)):
        name = " ".join(("keyturn", *path))
        section = page.partition(f"# {name}\n")[2].partition("\n## ")[0]
        if path and not getattr(node, "commands", None) and f"Example: `keyturn {path[0]}" not in section:
            faults.append(name)
    assert faults == []


def test_every_field_of_the_schema_is_listed() -> None:
    """By its name, wherever in the file it stands."""
    page = reference.configuration()
    listed = set(re.findall(r"[.`](\w+)(?:\[\])?`", page))
    fields = {name for section in schema()["$defs"].values() for name in section.get("properties", {})}
    assert fields - listed - {"kind", "method"} == set()


def test_every_field_of_a_secret_is_explained() -> None:
    """What may stand there is half of it."""
    assert schema()["$defs"]["SecretSection"]["properties"].keys() - reference._MEANS.keys() == set()
