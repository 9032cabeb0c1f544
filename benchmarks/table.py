"""Rows of measurements, and how they look."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured."""

    what: str
    measured: str
    compared: str = ""
    """What stands beside it, measured in the same run."""
    target: str = ""
    met: bool | None = None
    """None where there is no target."""
    note: str = ""
    """What explains it; printed below."""


def show(title: str, rows: Iterable[Row]) -> bool:
    """Prints a table. Whether every target was met."""
    given = list(rows)
    cells = [("", "measured", "compared with", "target", "")]
    marks = {True: "met", False: "MISSED", None: ""}
    cells += [(row.what, row.measured, row.compared, row.target, marks[row.met]) for row in given]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    print(f"\n{title}\n")
    for line, note in zip(cells, ["", *(row.note for row in given)], strict=True):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
        if note:
            print(textwrap.fill(note, 110, initial_indent="      ", subsequent_indent="      "))
    return all(row.met is not False for row in given)
