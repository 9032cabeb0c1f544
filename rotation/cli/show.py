"""What goes to the screen: tables and sentences for people, JSON for scripts. Never a value."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from rotation.checkup import Finding
from rotation.logs import masked, masked_parts
from rotation.status import Phase, Row

_PIPED = 10_000
"""Columns where nobody looks on: a pipe gets whole lines."""

out = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _PIPED)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)

_KEY = 16
_WIDE = 130
"""Columns from which on a row shows everything."""
_LEAST = 16
"""Columns that the last column of a table needs to be read."""

_PHASE_STYLE = {
    Phase.STEADY: "green",
    Phase.DRAINING: "cyan",
    Phase.ROTATING: "cyan",
    Phase.EMPTY: "yellow",
    Phase.NOT_APPLIED: "yellow",
    Phase.HELD: "bold yellow",
    Phase.UNREACHABLE: "bold yellow",
    Phase.CONDEMNED: "bold red",
    Phase.UNPROVEN: "bold red",
}


def as_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(masked_parts(value), indent=2) + "\n")


def complain(text: str, style: str = "red") -> None:
    """A sentence on standard error."""
    err.print(_plain(text, style), soft_wrap=True)


def unapplied(name: str, fields: Sequence[str], file: str) -> None:
    """Nothing acts on a policy that is not applied; whoever has just edited the file may think so.

    Parameters:
        fields: as the file names them, in which it declares the secret differently from what is applied.
    """
    if fields:
        told = f"{', '.join(fields)} in {file} differ from what is applied, which counts"
        complain(f"{name}: {told}; `pulumi up` applies them", "yellow")


def finish() -> None:
    """Sends what is still buffered. Whoever read it may have gone, as `head` does."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # What Python still tries to write when it ends must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str, style: str = "") -> None:
    """A sentence on standard output."""
    out.print(_plain(text, style), soft_wrap=True)


def _plain(text: str, style: str = "") -> Text:
    """Text as it stands, but for values, and characters that would command the terminal.

    There should be neither; but services put words of theirs into what is shown.
    """
    shown = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in masked(text))
    return Text(shown, style=style)


def when(at: datetime | None, now: datetime) -> str:
    """`2026-11-22 06:17Z (in 3 d)`; a dash for nothing."""
    if at is None:
        return "-"
    gap = at - now
    return f"{at:%Y-%m-%d %H:%M}Z ({f'in {span(gap)}' if gap > timedelta(0) else f'{span(-gap)} ago'})"


def span(gap: timedelta) -> str:
    """A length of time in its largest fitting unit: `3 d`, `5 h`, `12 min`, `4.2 s`."""
    seconds = gap.total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (unit == "min" and seconds >= 60):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


def key(key_id: str | None) -> str:
    """A key id short enough for a table: its last part, as consoles show it. JSON has the whole."""
    last = (key_id or "-").rpartition("/")[2]
    return last if len(last) <= _KEY else f"{last[:_KEY]}…"


def status(rows: Sequence[Row], now: datetime) -> None:
    """One row per secret. A narrow terminal leaves out what the stack's file says anyway."""
    wide = out.width >= _WIDE
    headings = ("SECRET", "PHASE", *(("STORES", "ISSUER", "OWNER") if wide else ()), "KEY", "ROTATED", "NEXT")
    shown = []
    for row in rows:
        declared = (" + ".join((row.store, *row.replicas)), row.issuer, row.owner)
        shown.append(
            (
                _plain(row.name),
                _plain(row.phase.value + (", frozen" if row.frozen else ""), _PHASE_STYLE[row.phase]),
                *(_plain(text) for text in (declared if wide else ())),
                _plain(key(row.key_id)),
                _plain(f"{span(now - row.rotated_at)} ago" if row.rotated_at else "-"),
                _plain(row.next_action),
            )
        )
    _table(headings, shown)
    for row in rows:
        if row.last_error:
            say(f"{row.name}: {row.last_error}", "yellow")
        if row.frozen:
            say(f"{row.name}: {row.frozen.told(row.name)}", "cyan")


def findings(found: Iterable[Finding]) -> None:
    """One row per secret and store."""
    shown = [
        (
            _plain(finding.name),
            _plain(finding.store),
            _plain(finding.verdict.value, "green" if finding.good else "bold red"),
            _plain("yes" if finding.agrees else "no"),
            _plain(key(finding.key_id)),
            _plain(finding.reason),
        )
        for finding in found
    ]
    _table(("SECRET", "STORE", "VERDICT", "AGREES", "KEY", "SAID"), shown)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Plain cells; the last column may wrap."""
    _table(headings, [tuple(_plain(cell) for cell in row) for row in rows])


def _table(headings: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    """A table whose last column may wrap; where there is no room for that, a paragraph for each row."""
    fixed = [max(cell.cell_len for cell in column) for column in zip(map(Text, headings), *rows, strict=True)][:-1]
    if out.width < sum(fixed) + 2 * len(fixed) + _LEAST:
        for row in rows:
            out.print(row[0], soft_wrap=True)
            for heading, cell in zip(headings[1:], row[1:], strict=True):
                out.print(Text.assemble(f"    {heading.lower():<8} ", cell), soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, heading in enumerate(headings, 1):
        table.add_column(heading, no_wrap=number < len(headings))
    for row in rows:
        table.add_row(*row)
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:  # a pipe does without the spaces that fill the last column
        out.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def progress() -> Progress:
    """A bar on standard error, shown on a terminal only."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
