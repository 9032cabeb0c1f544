"""The rows of `keyturn status` as lines of text: the columns that there is room for, and what is said below them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from rich.text import Text

from rotation.cli import show
from rotation.status import Phase, Row

_STYLE: Final = {
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
"""Beside the word, never instead of it."""
_NEXT: Final = 28
"""Columns that what comes next needs to be read."""
_SKEW: Final = timedelta(minutes=1)
_FEW: Final = 3
"""Secrets that are named where the same is said of them; of more, their number."""


def drawn(rows: Sequence[Row], now: datetime, *, exact: bool = False) -> list[Text]:
    """One row per secret. Where there is no room, this goes first, and in this order: exact times beside relative ones,
    what the stack's file says anyway, the key, since when it is. Where that is not enough, each secret is a paragraph.

    Parameters:
        exact: times as they are, not how long ago.
    """
    name = ("SECRET", [show.plain(row.name) for row in rows])
    where = ("PHASE", [_phase(row) for row in rows])
    stores = ("STORES", [show.plain(" + ".join((row.store, *row.replicas))) for row in rows])
    issuer = ("ISSUER", [show.plain(row.issuer) for row in rows])
    owner = ("OWNER", [show.plain(row.owner) for row in rows])
    key = ("KEY", [show.plain(show.key(row.key_id)) for row in rows])
    rotated = ("ROTATED", [show.plain(_rotated(row, now, exact=exact)) for row in rows])
    due = ("DUE", [_due(row, now, exact=exact) for row in rows])
    then = ("NEXT", [show.plain(row.next_action) for row in rows])
    choices = [
        (name, where, stores, issuer, owner, key, rotated, due, then),
        (name, where, owner, key, rotated, due, then),
        (name, where, key, rotated, due, then),
        (name, where, rotated, due, then),
        (name, where, due, then),
    ]
    if show.on_terminal(show.out) and not exact:
        both = ("ROTATED", [show.plain(show.when(row.rotated_at, now)) for row in rows])
        choices.insert(0, (name, where, stores, issuer, owner, key, both, due, then))
    for columns in choices:
        headings = [heading for heading, _ in columns]
        shown = list(zip(*(cells for _, cells in columns), strict=True))
        if show.fit(show.column_widths(headings, shown), _NEXT):
            return show.aligned(headings, shown)
    return [line for row in rows for line in _paragraph(row, now, exact=exact)]


def _paragraph(row: Row, now: datetime, *, exact: bool) -> list[Text]:
    due = _due(row, now, exact=exact).plain
    times = f"rotated {_rotated(row, now, exact=exact)}, {due if due.startswith('overdue') else f'due {due}'}"
    facts = f"{show.key(row.key_id)}, {times}" if row.key_id else ""
    return [
        show.plain(f"{row.name}  ").append_text(_phase(row)),
        *(line for text in (facts, row.next_action) if text for line in show.beside(Text("    "), show.plain(text))),
    ]


def _phase(row: Row) -> Text:
    return show.plain(row.phase.value + (", frozen" if row.frozen else ""), _STYLE[row.phase])


def _rotated(row: Row, now: datetime, *, exact: bool) -> str:
    if row.rotated_at is None:
        return "-"
    gap = now - row.rotated_at
    if exact or gap < -_SKEW:  # this clock is behind: an age would be nonsense
        return f"{row.rotated_at:%Y-%m-%d %H:%M}Z"
    return f"{show.span(max(gap, timedelta(0)))} ago"


def _due(row: Row, now: datetime, *, exact: bool) -> Text:
    if row.overdue_at is not None and row.overdue_at <= now:
        since = f"since {row.overdue_at:%Y-%m-%d %H:%M}Z" if exact else show.span(now - row.overdue_at)
        return Text(f"overdue {since}", "bold yellow")
    if row.due_at is None:
        return Text("-")
    if row.due_at <= now:
        return Text("now", "cyan")
    return Text(f"{row.due_at:%Y-%m-%d %H:%M}Z" if exact else f"in {show.span(row.due_at - now)}")


def remarks(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """What is wrong and what is frozen, in sentences with a style each. What many have in common is said once."""
    told: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in rows:
        for text, style in ((row.last_error, "yellow"), (row.frozen and row.frozen.told(row.name), "cyan")):
            if text:
                told.setdefault((text.replace(row.name, "…"), style), []).append((row.name, text))
    return [
        (f"{several([name for name, _ in alike])}: {common if len(alike) > 1 else alike[0][1]}", style)
        for (common, style), alike in told.items()
    ]


def several(names: Sequence[str]) -> str:
    """`a`, `a, b, c`, or `a, b, c and 4,997 others`."""
    rest = len(names) - _FEW
    if rest <= 1:
        return ", ".join(names)
    return f"{', '.join(names[:_FEW])} and {rest:,} others"


def summary(rows: Sequence[Row], now: datetime) -> str:
    """How many stand where, and what is due next: `4 secrets: 3 steady, 1 draining. Next is support-chat, in 3 d.`."""
    phases = Counter(row.phase for row in rows)
    counts = ", ".join(f"{phases[phase]:,} {phase.value}" for phase in Phase if phases[phase])
    overdue = sum(row.overdue_at is not None and row.overdue_at <= now for row in rows)
    late = f"; {overdue:,} overdue" if overdue else ""
    coming = min(((row.due_at, row.name) for row in rows if row.due_at and row.due_at > now), default=None)
    first = f" Next is {coming[1]}, in {show.span(coming[0] - now)}." if coming else ""
    return f"{len(rows):,} {'secret' if len(rows) == 1 else 'secrets'}: {counts}{late}.{first}"
