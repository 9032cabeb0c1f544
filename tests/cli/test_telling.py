"""What runs came to, told of few and of many; and how far a long run is."""

import io
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from rich.console import Console
from rich.progress import Progress

from rotation import actions
from rotation.cli import outcomes, show
from rotation.engine import Outcome, Target
from rotation.model import Policy
from tests.cli.test_rows import Person

DUE = datetime(2026, 12, 2, 6, 0, tzinfo=UTC)


def policy(name: str) -> Policy:
    return Policy("i", "prod", name, "aws", "openai", "support", timedelta(days=30), timedelta(days=1))


def outcome(name: str, rest: actions.Rest) -> Outcome:
    return Outcome(Target("aws", f"prod/{name}"), rest, None, None, [])


def told(number: int, *, columns: int | None) -> str:
    """Of one that is held and so many that have nothing to do."""
    pairs = [
        (policy("held"), outcome("held", actions.Hold(reason="the issuer is silent", cause=actions.Cause.UNVERIFIED)))
    ]
    pairs += [
        (policy(f"idle-{n}"), outcome(f"idle-{n}", actions.Done(reason="as declared", due_at=DUE)))
        for n in range(number)
    ]
    file = Person() if columns else io.StringIO()
    with mock.patch.object(show, "out", Console(file=file, width=columns or 10_000, no_color=True, highlight=False)):
        outcomes._tell_all(pairs)
    return file.getvalue()


def test_few_are_told_of_one_by_one() -> None:
    """In a pipe as sentences, at a terminal lined up, at a narrow one folded."""
    rest = "· idle-0: rotate at 2026-12-02 06:00Z\n"
    assert told(1, columns=None) == "! held: held: the issuer is silent\n" + rest
    assert told(1, columns=100).splitlines() == [
        "! held:   held: the issuer is silent",
        "· idle-0: rotate at 2026-12-02 06:00Z",
    ]
    assert told(1, columns=30).splitlines()[-2:] == ["· idle-0: rotate at 2026-12-02", "    06:00Z"]


@pytest.mark.parametrize("columns", [None, 100])
def test_of_many_only_what_is_not_as_it_should_be_is_told(columns: int | None) -> None:
    """The others are counted."""
    assert told(5_000, columns=columns).splitlines() == [
        "! held: held: the issuer is silent",
        "· 5,000 others have nothing to do now",
    ]


def test_a_long_run_tells_its_pace_and_how_long_it_takes_yet() -> None:
    """By what it has done so far."""
    passed = 0.0
    console = Console(file=Person(), width=100, force_terminal=True)
    with mock.patch.object(show, "err", console):
        bar = show.progress()
        assert not bar.disable
        watched = Progress(*bar.columns, console=console, auto_refresh=False, get_time=lambda: passed)
    task = watched.add_task("sweeping", total=1_000)
    for _ in range(10):
        passed += 1.0
        watched.update(task, advance=20)
    shown = io.StringIO()
    Console(file=shown, width=100).print(watched.get_renderable())
    assert "sweeping" in shown.getvalue()
    assert "200/1000" in shown.getvalue()
    assert "20/s, about 40 s left" in shown.getvalue()


@pytest.mark.parametrize(("file", "term"), [(io.StringIO(), "xterm"), (Person(), "dumb")])
def test_there_is_no_bar_where_nobody_could_see_it_move(
    monkeypatch: pytest.MonkeyPatch, file: io.StringIO, term: str
) -> None:
    """In a pipe, FORCE_COLOR or not, and at a terminal that can not redraw."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with mock.patch.object(show, "err", Console(file=file)):
        assert show.progress().disable
