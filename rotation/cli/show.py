"""What goes to the screen: tables and sentences for people, JSON for scripts. Never a value."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.segment import Segments
from rich.text import Text

from rotation.checkup import Finding
from rotation.logs import masked, masked_parts

_PIPED: Final = 10_000
"""Columns where nobody looks on: a pipe gets whole lines."""

out = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _PIPED)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)

_KEY: Final = 16
_NARROW: Final = 80
_LEAST: Final = 16
"""Columns that the last column of a table needs to be read."""
_SAID: Final = 40
"""Columns that what is said of a secret needs beside its name."""
_WHOLE: Final = re.compile(r"`[^`]*`|\d (?:d|h|min|s)\b")
"""What is not to be torn apart: commands that are there to be copied, and lengths of time."""


def on_terminal(console: Console) -> bool:
    """Whether a person looks on. FORCE_COLOR asks for colours in a file, not for lines that are folded, nor for a bar."""
    return console.file.isatty()


def as_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(masked_parts(value), indent=2) + "\n")


def complain(text: str, style: str = "red") -> None:
    """A sentence on standard error."""
    _sentence(err, text, style)


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
    _sentence(out, text, style)


def _sentence(console: Console, text: str, style: str) -> None:
    """In whole lines for a pipe; folded for a terminal, with what belongs to it set in."""
    told = plain(text, style).plain
    if on_terminal(console):
        folded: list[str] = []
        for line in told.split("\n"):
            words = line.lstrip(" ")
            first = " " * (len(line) - len(words))
            folded += fold(words, console.width, first, first + ("  " if first else "    "))
        told = "\n".join(folded)
    console.print(Text(told, style=style), soft_wrap=True)


MANY: Final = 20
"""From so many on, secrets of which there is nothing to tell are counted."""


def name_width(names: Iterable[str]) -> int:
    """For entry(): what a terminal lines names up to, where that leaves room for what is said of them; 0 elsewhere."""
    widest = max(map(len, names), default=0)
    return widest if on_terminal(out) and widest + _SAID <= out.width else 0


def entry(mark: str, name: str, said: str, style: str, *, width: int = 0, more: Sequence[str] = ()) -> None:
    """A secret and what is said of it: `✓ support-chat: minted …`; a terminal lines up what is said.

    Parameters:
        mark: tells in one character what the colour tells.
        width: see name_width().
        more: sentences below it.
    """
    if not width:
        say(f"{mark} {name}: {said}", style)
        for text in more:
            say(f"    {text}")
        return
    lines(beside(plain(f"{mark} {name}:".ljust(width + 4), style), plain(said, style)))
    for text in more:
        lines(beside(Text(" " * (width + 4)), plain(text)))


def fold(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Lines of at most this many columns, broken between words.

    Parameters:
        first: what the first line begins with.
        rest: what the others begin with.
    """
    room = width - len(rest)
    whole = _WHOLE.sub(lambda m: m[0].replace(" ", "\N{NO-BREAK SPACE}") if len(m[0]) <= room else m[0], text)
    lines = textwrap.wrap(
        whole, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines] or [first]


def plain(text: str, style: str = "") -> Text:
    """Text as it stands, but for values, and characters that would command the terminal.

    There should be neither; but services put words of theirs into what is shown.
    """
    shown = masked(text)
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in shown)
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


def findings(found: Iterable[Finding]) -> None:
    """One row per secret and store."""
    shown = [
        (
            plain(finding.name),
            plain(finding.store),
            plain(finding.verdict.value, "green" if finding.good else "bold red"),
            plain("yes" if finding.agrees else "no", "" if finding.agrees else "bold red"),
            plain(key(finding.key_id)),
            plain(finding.reason),
        )
        for finding in found
    ]
    lines(_table(("SECRET", "STORE", "VERDICT", "AGREES", "KEY", "SAID"), shown))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Plain cells; the last column may wrap."""
    lines(_table(headings, [tuple(plain(cell) for cell in row) for row in rows]))


def lines(drawn: Iterable[Text]) -> None:
    """Prints these as they are. Thousands of them take no noticeable time: rich is not asked to lay them out."""
    segments = [segment for line in drawn for segment in (*line.render(out, end="\n"),)]
    out.print(Segments(segments), soft_wrap=True, end="")


def _table(headings: Sequence[str], rows: Sequence[Sequence[Text]]) -> list[Text]:
    """A table whose last column may wrap; where there is no room for that, a paragraph for each row."""
    widths = column_widths(headings, rows)
    if fit(widths, _LEAST):
        return aligned(headings, rows)
    label = max(map(len, headings[1:]), default=0)
    drawn = []
    for row in rows:
        drawn.append(row[0])
        for heading, cell in zip(headings[1:], row[1:], strict=True):
            drawn += beside(Text(f"    {heading.lower():<{label}}  "), cell)
    return drawn


def column_widths(headings: Sequence[str], rows: Iterable[Sequence[Text]]) -> list[int]:
    """Of all columns but the last."""
    return [max(cell.cell_len for cell in column) for column in zip(map(Text, headings), *rows, strict=True)][:-1]


def fit(widths: Sequence[int], last: int) -> bool:
    """Whether columns of these widths leave so much room for one more."""
    return sum(widths) + 2 * len(widths) + last <= out.width


def aligned(headings: Sequence[str], rows: Sequence[Sequence[Text]]) -> list[Text]:
    """The lines of a table; those of its last column may be several."""
    widths = column_widths(headings, rows)
    drawn = []
    for row in ([Text(heading, "bold") for heading in headings], *rows):
        line = Text()
        for cell, width in zip(row[:-1], widths, strict=True):
            line.append_text(cell).append(" " * (width + 2 - cell.cell_len))
        drawn += beside(line, row[-1])
    return drawn


def beside(line: Text, last: Text) -> list[Text]:
    """What a line begins with, and its last part folded to the right of that."""
    if not on_terminal(out) or line.cell_len + last.cell_len <= out.width:
        return [line.append_text(last)]
    first, *more = fold(last.plain, max(out.width - line.cell_len, _LEAST))
    inset = " " * line.cell_len
    return [line.append(first, last.style), *(Text(inset).append(part, last.style) for part in more)]


def progress() -> Progress:
    """A bar on standard error with pace and time left; only where a person looks on, at a terminal that can redraw it."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20 if err.width < _NARROW else 40),
        MofNCompleteColumn(),
        _Pace(),
        console=err,
        transient=True,
        disable=not on_terminal(err) or err.is_dumb_terminal,
    )


class _Pace(ProgressColumn):
    """How fast it goes and how long it takes yet, as far as that can be told."""

    def render(self, task: Task) -> Text:
        elapsed = span(timedelta(seconds=int(task.elapsed or 0)))
        if not task.speed or task.finished:
            return Text(elapsed.replace(".0", ""))
        pace = f"{task.speed:.0f}/s" if task.speed >= 1 else f"{task.speed * 60:.0f}/min"
        left = span(timedelta(seconds=task.time_remaining or 0)).replace(".0", "")
        return Text(f"{pace}, about {left} left")
