"""What is worth a warning about the use of a key: rules that are pure, tried with whatever counts there may be."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotation.model import Counting, KeyUse, LastUse, Requests
from rotation.ports import Severity
from rotation.usage import FACTOR, HISTORY, LEAST, Role, Watched, Why, dead, jump, used_since, warnings
from tests.world import START

HOUR = timedelta(hours=1)
COUNTING = Counting("model requests", HOUR, timedelta(days=7))
UNKNOWN = LastUse(known=False)

counts = st.lists(st.integers(0, 10_000), max_size=60)
history = st.lists(st.integers(1, 10_000), min_size=HISTORY, max_size=60)


def use(*numbers: int, last: LastUse = UNKNOWN) -> KeyUse:
    return KeyUse(last, tuple(Requests(START + n * HOUR, number) for n, number in enumerate(numbers)))


class TestJumps:
    def test_far_beyond_what_was(self) -> None:
        """Of a key that has between 90 and 110 requests an hour, 551 are a jump and 550 are not."""
        usual = [90, 100, 110] * 8
        assert jump([*usual, FACTOR * 110]) is None
        found = jump([*usual, FACTOR * 110 + 1])
        assert found is not None
        assert (found.requests, found.baseline) == (551, 110)

    @given(st.lists(st.integers(0, 2 * LEAST), max_size=60), st.integers(0, FACTOR * LEAST))
    def test_small_numbers_never_jump(self, before: list[int], last: int) -> None:
        """However few there were before."""
        assert jump([*before, last]) is None

    @given(st.lists(st.integers(1, 10_000), max_size=HISTORY - 1), st.integers(0, 20), st.integers(0, 10**9))
    def test_no_history_no_jump(self, before: list[int], idle: int, last: int) -> None:
        """A key that is new, or was idle, has no baseline."""
        assert jump([*before, *[0] * idle, last]) is None

    @given(history, st.integers(0, 10**6), st.integers(0, 10**6))
    def test_more_is_more(self, before: list[int], last: int, more: int) -> None:
        """What is a jump still is one with more requests."""
        if jump([*before, last]):
            assert jump([*before, last + more])

    @given(history, st.data(), st.integers(1, 10_000), st.integers(0, 10**6))
    def test_a_busier_past_hides_jumps_and_makes_none(
        self, before: list[int], data: st.DataObject, more: int, last: int
    ) -> None:
        """Raising an earlier count never makes a jump."""
        at = data.draw(st.integers(0, len(before) - 1))
        busier = [*before]
        busier[at] += more
        if jump([*busier, last]):
            assert jump([*before, last])

    @given(history, st.randoms(), st.integers(0, 30), st.integers(0, 10**6))
    def test_order_and_idle_spans_do_not_matter(self, before: list[int], chance: object, idle: int, last: int) -> None:
        """A key that works at night only is held against its nights."""
        shuffled = [*before, *[0] * idle]
        chance.shuffle(shuffled)  # type: ignore[attr-defined]
        assert jump([*shuffled, last]) == jump([*before, last])

    @given(history, st.integers(0, 10**6))
    def test_one_wild_span_does_not_set_the_baseline(self, before: list[int], wild: int) -> None:
        """Up to one in ten may have been wild, and the next is still told of."""
        calm = [min(number, 100) for number in before]
        found = jump([*calm * 2, wild + 10_000, 10_000])
        assert found is not None
        assert found.baseline <= 100

    def test_of_nothing(self) -> None:
        """There is no jump without counts."""
        assert jump([]) is None


class TestUsedSince:
    @given(counts, st.integers(0, 60))
    def test_only_spans_that_lie_wholly_after(self, numbers: list[int], after: int) -> None:
        """A span in which it was still allowed tells nothing."""
        moment = START + after * HOUR - timedelta(minutes=1)
        assert used_since(use(*numbers), moment) == sum(numbers[after:])

    @pytest.mark.parametrize(("minutes", "told"), [(-1, 0), (0, 0), (1, None)])
    def test_a_last_use_counts_where_nothing_is_counted(self, minutes: int, told: int | None) -> None:
        """None: it was used, nobody knows how often. Unknown is neither."""
        last = LastUse(known=True, at=START + timedelta(minutes=minutes))
        assert used_since(KeyUse(last), START) == told
        assert used_since(KeyUse(LastUse(known=True)), START) == 0
        assert used_since(KeyUse(UNKNOWN), START) == 0


class TestWarnings:
    def test_a_key_that_may_be_used(self) -> None:
        """Whatever it does as usual."""
        assert not list(warnings(Watched("k", Role.CURRENT), use(*[50] * 30), COUNTING))

    @pytest.mark.parametrize(
        ("role", "severity"),
        [
            (Role.RETIRING, Severity.WARNING),
            (Role.CONDEMNED, Severity.WARNING),
            (Role.REVOKED, Severity.CRITICAL),
            (Role.DEAD, Severity.CRITICAL),
        ],
    )
    def test_a_key_that_nobody_should_use(self, role: Role, severity: Severity) -> None:
        """Once it was revoked, a request that counts means that it is accepted."""
        (warned,) = warnings(Watched("k", role, START + HOUR), use(7, 3, 4), COUNTING)
        assert (warned.why, warned.severity, warned.requests) == (Why.RETIRED, severity, 7)
        assert ("it is accepted" in warned.text) is (severity is Severity.CRITICAL)
        assert not list(warnings(Watched("k", role, START + 3 * HOUR), use(7, 3, 4), COUNTING))

    def test_refused_requests_show_who_holds_on_to_it(self) -> None:
        """Where they are counted; before the proof they may be our own."""
        counting = Counting("requests", HOUR, timedelta(days=1), refused=True)
        (warned,) = warnings(Watched("k", Role.DEAD, START), use(7), counting)
        assert warned.severity is Severity.WARNING
        assert "somebody holds on to it" in warned.text
        assert not list(warnings(Watched("k", Role.REVOKED, START), use(7), counting))

    def test_a_jump_in_the_running_span_or_the_one_before(self) -> None:
        """Whoever looks just after the hour is told of the hour."""
        for counts in ([50] * 20 + [900], [50] * 20 + [900, 1]):
            (warned,) = warnings(Watched("k", Role.CURRENT), use(*counts), COUNTING)
            assert (warned.why, warned.requests) == (Why.JUMP, 900)
        assert not list(warnings(Watched("k", Role.CURRENT), use(*[50] * 20, 900, 1, 1), COUNTING))


def test_keys_that_only_the_trail_knows() -> None:
    """Each once, as of its last proof, unless the journal has it."""
    known = [Watched("here", Role.CURRENT)]
    proven = [("gone", START + HOUR), ("here", START), ("gone", START)]
    assert list(dead(proven, known)) == [Watched("gone", Role.DEAD, START + HOUR)]
