"""Noticing another value: by versions, once for a burst, and through a vault that is away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from rotation.consumer import Unavailable, Value
from rotation.consumer.watch import Watch

SETTLE = timedelta(seconds=5)


@dataclass
class Entry:
    """One entry of a vault in memory."""

    where: str = "vault://secret/entry"
    number: int = 1
    text: str = "one"
    tells_versions: bool = True
    away: bool = False
    reads: int = 0

    def read(self) -> Value:
        self._there()
        self.reads += 1
        return Value(self.text, str(self.number))

    def version(self) -> str | None:
        self._there()
        return str(self.number) if self.tells_versions else None

    def _there(self) -> None:
        if self.away:
            raise Unavailable(self.where, "no answer (TimeoutError)")

    def put(self, text: str) -> None:
        self.number, self.text = self.number + 1, text


class Pauses:
    """What happens in each pause, in turn; nothing once they are used up."""

    def __init__(self, *then: Callable[[], object]) -> None:
        self._then = list(then)
        self.waited: list[timedelta] = []

    def __call__(self, span: timedelta) -> bool:
        self.waited.append(span)
        if self._then:
            self._then.pop(0)()
        return False


@pytest.mark.parametrize("tells", [True, False], ids=["by versions", "by values"])
def test_it_tells_of_another_value_once(tells: bool) -> None:
    """After a pause in which nothing more happened; a login that may not see versions reads the value each time."""
    entry, pauses = Entry(tells_versions=tells), Pauses()
    watch = Watch([entry], SETTLE)
    assert [value.reveal() for value in watch.first()] == ["one"]
    reads = entry.reads
    assert watch.changed(pauses) is None
    assert (entry.reads == reads) is tells
    entry.put("two")
    found = watch.changed(pauses)
    assert found
    assert [value.reveal() for value in found] == ["two"]
    assert watch.changed(pauses) is None
    assert pauses.waited == [SETTLE]


def test_a_burst_is_one_change() -> None:
    """Two entries that are rotated one after the other, and one of them twice."""
    one, other = Entry(), Entry()
    watch = Watch([one, other], SETTLE)
    watch.first()
    one.put("two")
    pauses = Pauses(lambda: other.put("zwei"), lambda: one.put("three"))
    found = watch.changed(pauses)
    assert found
    assert [value.reveal() for value in found] == ["three", "zwei"]
    assert len(pauses.waited) == 3


def test_a_new_version_of_the_same_text_is_no_change() -> None:
    """As when the current value is written again; nobody needs a restart for it."""
    entry, pauses = Entry(), Pauses()
    watch = Watch([entry], SETTLE)
    watch.first()
    entry.put("one")
    assert watch.changed(pauses) is None
    assert watch.changed(pauses) is None
    assert len(pauses.waited) == 1


def test_a_change_before_the_first_reading_is_over_is_not_missed() -> None:
    """The version is asked for first: then it is the old one, and the next look finds another."""

    class Moving(Entry):
        def version(self) -> str | None:
            found = super().version()
            if self.number == 1:
                self.put("two")
            return found

    entry = Moving()
    watch = Watch([entry], SETTLE)
    assert [value.reveal() for value in watch.first()] == ["two"]
    assert watch.changed(Pauses()) is None, "the value that was handed on is the newest"
    entry.put("three")
    assert watch.changed(Pauses()) is not None


def test_a_vault_that_is_away_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is told once, and when it is over; what was missed meanwhile is found then, also when it left amid a change."""
    entry = Entry()
    watch = Watch([entry], SETTLE)
    watch.first()
    entry.put("two")

    def leave() -> None:
        entry.away = True

    assert watch.changed(Pauses(leave)) is None
    assert watch.changed(Pauses()) is None
    entry.away = False
    found = watch.changed(Pauses())
    assert found
    assert found[0].reveal() == "two"
    told = f"{entry.where}: no answer (TimeoutError); what was handed on stays"
    assert caplog.messages == [told, f"{entry.where} can be read again"]


def test_who_ends_during_the_pause_is_not_kept() -> None:
    """Nothing more is asked."""
    entry = Entry()
    watch = Watch([entry], SETTLE)
    watch.first()
    entry.put("two")
    reads = entry.reads
    assert watch.changed(lambda _: True) is None
    assert entry.reads == reads
