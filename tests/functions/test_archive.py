"""Archives: the same files give the same bytes, whenever, wherever and in whatever order."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from hosting.packages import archive

ENTRIES = {"b/two.py": b"2", "a.py": b"1" * 5000, "b/one.py": b""}


def test_the_same_entries_give_the_same_bytes(tmp_path: Path) -> None:
    """In whatever order they come; and they come out again."""
    archive.write(tmp_path / "one" / "a.zip", ENTRIES)
    archive.write(tmp_path / "b.zip", dict(reversed(ENTRIES.items())))
    assert (tmp_path / "one" / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "b.zip") as read:
        assert {name: read.read(name) for name in read.namelist()} == ENTRIES
        assert {(info.date_time, info.external_attr >> 16) for info in read.infolist()} == {
            ((1980, 1, 1, 0, 0, 0), 0o100644)
        }


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a//b", "./a", ""])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    """So that unpacking writes nowhere but below its folder."""
    with pytest.raises(ValueError, match="plain relative path"):
        archive.write(tmp_path / "a.zip", {name: b""})


def test_modules_are_sources_and_descriptions_only(tmp_path: Path) -> None:
    """Whatever lies about beside them, and whenever it was touched."""
    for name in (
        "p/a.py",
        "p/q/b.yaml",
        "p/__pycache__/a.cpython-311.pyc",
        "p/__pycache__/b.py",
        "p/notes.txt",
        "r/c.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (0, 0))
    assert archive.modules(tmp_path, "p") == {"p/a.py": b"p/a.py", "p/q/b.yaml": b"p/q/b.yaml"}
