"""What is drawn of fixed rows: at three widths, with colours and without, piped; and that a colour never tells anything alone."""

import io
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest
from rich.console import Console

from rotation.cli import rows as drawing
from rotation.cli import show
from rotation.cli.chosen import Choice, Sort
from rotation.journal import Frozen
from rotation.status import Phase, Row

NOW = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def row(name: str, phase: Phase, **more: object) -> Row:
    usual: dict[str, object] = {
        "replicas": (),
        "key_id": f"key_{name}",
        "rotated_at": NOW - timedelta(days=20),
        "due_at": NOW + timedelta(days=10),
        "overdue_at": NOW + timedelta(days=11),
        "next_action": "rotate at 2026-12-02 06:00Z",
    }
    return Row(name, "prod", "aws", issuer="openai", owner="support", phase=phase, **usual | more)  # type: ignore[arg-type]


ROWS = [
    row("chat", Phase.STEADY, replicas=("vault",)),
    row("batch", Phase.DRAINING, next_action="wait until 2026-11-23 06:00Z: grace period of the old credential"),
    row(
        "embed",
        Phase.HELD,
        due_at=NOW - timedelta(days=2),
        overdue_at=NOW - timedelta(days=1),
        next_action="held: the issuer's answer is missing",
        last_error="openai: embed: HTTP 503",
    ),
    row("hook", Phase.NOT_APPLIED, key_id=None, rotated_at=None, due_at=None, overdue_at=None, next_action="pulumi up"),
    row("leaked", Phase.CONDEMNED, frozen=Frozen(NOW - timedelta(minutes=8), "2026-11-22-0552-ab12")),
]

DRAWN = Path(__file__).with_name("drawn")


class Person(io.StringIO):
    """A terminal, as far as a program can tell."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def printed(columns: int | None, *, exact: bool = False) -> str:
    """What a terminal of this width shows of the rows, or what a pipe gets; escapes included."""
    file = Person() if columns else io.StringIO()
    console = Console(file=file, width=columns or 10_000, highlight=False, markup=False, emoji=False)
    with mock.patch.object(show, "out", console):
        show.lines(drawing.drawn(ROWS, NOW, exact=exact))
        for text, style in drawing.remarks(ROWS):
            show.say(text, style)
        show.say(drawing.summary(ROWS, NOW))
    return file.getvalue()


@pytest.mark.parametrize("columns", [60, 100, 200, None])
def test_what_is_drawn(columns: int | None) -> None:
    """Aligned, nothing torn apart, the most that there is room for; a pipe gets one whole line for each secret."""
    assert ESCAPES.sub("", printed(columns)) == (DRAWN / f"{columns or 'pipe'}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("columns", range(40, 210, 7))
def test_no_line_is_longer_than_the_terminal_is_wide(columns: int) -> None:
    """Nor does one end in spaces."""
    for line in ESCAPES.sub("", printed(columns)).splitlines():
        assert len(line) <= columns
        assert line == line.rstrip()


def test_exact_times_stand_where_relative_ones_did() -> None:
    """In a pipe and at a terminal."""
    for shown in (printed(None, exact=True), ESCAPES.sub("", printed(160, exact=True))):
        assert "2026-11-02 06:00Z  2026-12-02 06:00Z" in shown
        assert "overdue since 2026-11-21 06:00Z" in shown
        assert " ago" not in shown


def styles(text: str) -> Iterator[tuple[str, str]]:
    """Each piece of text that is coloured, and how."""
    yield from re.findall(r"\x1b\[([0-9;]+)m([^\x1b]*)\x1b\[0m", text)


def test_a_colour_never_tells_anything_alone() -> None:
    """Whatever is coloured differently reads differently; and without colours the words are the same."""
    meant: dict[str, set[str]] = {}
    for style, text in styles(printed(200)):
        meant.setdefault(text.strip(), set()).add(style)
    assert {"steady", "draining", "held", "not applied", "condemned, frozen"} <= set(meant)
    assert all(len(used) == 1 for used in meant.values()), meant
    for columns in (60, 100, 200):
        with mock.patch.dict("os.environ", {"NO_COLOR": "1"}):
            plain = printed(columns)
        assert ESCAPES.sub("", plain) == ESCAPES.sub("", printed(columns))


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """What is bold may stay so."""
    monkeypatch.setenv(name, value)
    assert not re.search(r"\x1b\[[0-9;]*\b(3[0-7]|9[0-7]|38)", printed(200))


def test_colours_can_be_asked_for_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """By FORCE_COLOR; the lines stay whole, and there is no bar."""
    assert "\x1b" not in printed(None)
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = printed(None)
    assert "\x1b[32msteady" in shown
    assert ESCAPES.sub("", shown) == (DRAWN / "pipe.txt").read_text(encoding="utf-8")
    assert show.progress().disable


def test_what_many_have_in_common_is_said_once() -> None:
    """By name while they are few; a single one in its own words."""
    alike = [row(f"s{n}", Phase.UNREACHABLE, last_error=f"aws: prod/s{n}: no credentials") for n in range(1000)]
    other = row("t", Phase.UNREACHABLE, last_error="vault: prod/t: sealed")
    assert drawing.remarks([*alike, other]) == [
        ("s0, s1, s2 and 997 others: aws: prod/…: no credentials", "yellow"),
        ("t: vault: prod/t: sealed", "yellow"),
    ]


def test_rows_are_ordered_as_asked() -> None:
    """What has no such time comes last; those alike stay as they are declared."""

    def order(by: Sort | None) -> list[str]:
        asked = Choice((), (), (), (), (), overdue=False, sort=by)
        return [one.name for one in asked.of(ROWS, lambda one: one, NOW)]

    assert order(None) == ["chat", "batch", "embed", "hook", "leaked"]
    assert order(Sort.DUE) == ["embed", "chat", "batch", "leaked", "hook"]
    assert order(Sort.AGE) == ["chat", "batch", "embed", "leaked", "hook"]
    assert order(Sort.NAME) == ["batch", "chat", "embed", "hook", "leaked"]
    assert order(Sort.OWNER) == order(None)


def test_thousands_of_rows_are_there_in_a_moment() -> None:
    """5,000 of them, at a terminal, by the processor's time: a machine that is busy is no fault of theirs."""
    many = [row(f"support-copilot-{n:04}", [*Phase][n % 4 + 2]) for n in range(5_000)]
    file = Person()
    with mock.patch.object(show, "out", Console(file=file, width=140, highlight=False, markup=False, emoji=False)):
        began = time.process_time()
        show.lines(drawing.drawn(many, NOW))
        took = time.process_time() - began
    assert file.getvalue().count("\n") == 5_001
    assert took < 3
