"""What goes to the screen: tables and sentences for people, JSON for scripts. Never a value."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from rotation.checkup import Finding
from rotation.status import Phase, Row

_PIPED = 200
"""Columns where nobody looks on: a pipe gets whole lines."""

out = Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else _PIPED)
err = Console(stderr=True, highlight=False)

_KEY = 16
_WIDE = 130
"""Columns from which on a row shows everything."""

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
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def complain(text: str) -> None:
    """A sentence on standard error."""
    err.print(Text(text, style="red" if err.color_system else ""), soft_wrap=True)


def say(text: str, style: str = "") -> None:
    out.print(Text(text, style=style), soft_wrap=True)


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
    table = _table("SECRET", "PHASE", *(("STORES", "ISSUER", "OWNER") if wide else ()), "KEY", "ROTATED", "NEXT")
    for row in rows:
        declared = (" + ".join((row.store, *row.replicas)), row.issuer, row.owner)
        table.add_row(
            row.name,
            Text(row.phase.value, style=_PHASE_STYLE[row.phase]),
            *(declared if wide else ()),
            key(row.key_id),
            f"{span(now - row.rotated_at)} ago" if row.rotated_at else "-",
            row.next_action,
        )
    out.print(table)
    for row in rows:
        if row.last_error:
            say(f"{row.name}: {row.last_error}", "yellow")


def findings(found: Iterable[Finding]) -> None:
    table = _table("SECRET", "STORE", "VERDICT", "AGREES", "KEY", "SAID")
    for finding in found:
        style = "green" if finding.good else "bold red"
        agrees = "yes" if finding.agrees else "no"
        table.add_row(
            finding.name,
            finding.store,
            Text(finding.verdict.value, style=style),
            agrees,
            key(finding.key_id),
            finding.reason,
        )
    out.print(table)


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading in ("SECRET", "PHASE", "ROTATED"))
    return table


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
