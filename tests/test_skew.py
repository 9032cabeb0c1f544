"""Clocks are compared by the Date of answers that come anyway."""

from __future__ import annotations

from datetime import timedelta
from email.utils import format_datetime

import pytest

from rotation.skew import Skew
from tests.world import FakeClock


def test_the_last_answer_counts() -> None:
    """Ours minus theirs: positive when this machine is ahead."""
    clock = FakeClock()
    skew = Skew(clock)
    assert skew.last is None
    skew.heard(format_datetime(clock.now() - timedelta(minutes=7), usegmt=False))
    assert skew.last == timedelta(minutes=7)
    skew.heard(format_datetime(clock.now().replace(tzinfo=None) + timedelta(seconds=5)))
    assert skew.last == timedelta(seconds=-5)


@pytest.mark.parametrize("date", [None, "", "yesterday", "Sun, 99 Nov 2026 08:49:37 GMT", "0"])
def test_what_is_no_date_changes_nothing(date: str | None) -> None:
    """A gateway may send anything, or leave it out."""
    clock = FakeClock()
    skew = Skew(clock)
    skew.heard(date)
    assert skew.last is None
    skew.heard(format_datetime(clock.now()))
    skew.heard(date)
    assert skew.last == timedelta(0)
