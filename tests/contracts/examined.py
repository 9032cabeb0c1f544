"""What every store that tells of itself has to keep to (rotation.ports.ExaminedStore, TellsTime)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

from rotation.ports import Diagnosis, ExaminedStore, Grade, SecretStore, TellsTime
from tests.contracts.store import same_state
from tests.world import FakeClock

SWEEP = ("observe", "read", "stage", "promote", "discard", "find", "record", "forget")
"""What a sweep does in a primary store."""


class Telling(SecretStore, ExaminedStore, TellsTime, Protocol):
    """A store with all that is under contract here."""


Log = Callable[[], Sequence[str]]
"""The names of all requests that have reached the service so far."""


def failing(found: Sequence[Diagnosis]) -> list[str]:
    return [f"{each.entry}: {each.text}" for each in found if each.grade is Grade.FAILING]


def by_check(found: Sequence[Diagnosis]) -> dict[str, Grade]:
    """The last grade of each check."""
    return {each.check: each.grade for each in found}


class ExaminedStoreContract:
    """Give the fixtures `store`, with the entry `entry`, `log`, and `writes`, which tells a request that may change something."""

    absent = "prod/not-applied-yet"

    def test_looking_changes_nothing(self, store: Telling, entry: str, log: Log, writes: Callable[[str], bool]) -> None:
        """Neither versions nor journal nor policy; no request of all is one that could."""
        before = store.observe(entry)
        start = len(log())
        found = list(store.examine({entry: SWEEP, self.absent: SWEEP}))
        asked = log()[start:]
        assert found
        assert asked
        assert [request for request in asked if writes(request)] == []
        assert same_state(before, store.observe(entry))

    def test_a_login_that_may_do_everything_fails_in_nothing(self, store: Telling, entry: str) -> None:
        """Entries that are not there yet included."""
        assert failing(list(store.examine({entry: SWEEP, self.absent: SWEEP}))) == []

    def test_what_is_told_can_be_acted_upon(self, store: Telling, entry: str) -> None:
        """Each has words; what is unchecked says why; nothing tells a value."""
        current = store.observe(entry).current
        assert current is not None
        secret = store.read(entry, current).fields["value"].reveal()
        for found in store.examine({entry: SWEEP}):
            assert found.check
            assert found.text
            assert secret not in found.text + found.remedy

    def test_the_time_is_told_by_answers(self, store: Telling, entry: str) -> None:
        """Both clocks are this machine's."""
        store.observe(entry)
        assert store.skew is not None
        assert abs(store.skew) < timedelta(seconds=5)

    def test_a_clock_that_is_off_is_noticed(self, late: Telling, entry: str) -> None:
        """By as much as it is off: `late` is a client whose clock stands at the first of January 2026."""
        late.observe(entry)
        assert late.skew is not None
        assert late.skew < FakeClock().now() - FakeClock().now() - timedelta(days=1)
