"""Owners are told of a key that is used as it should not be: once a day for each key, whatever the sweeps in between find."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from rotation.audit.files import FilePlace
from rotation.audit.lately import shown_dead
from rotation.audit.trail import ChainedAuditor
from rotation.cli.context import Trail
from rotation.notify.memory import Memory
from rotation.notify.telling import Route, Telling
from rotation.ports import Notice, Record, Severity
from tests.notify.places import Box, notice
from tests.world import START, FakeClock

HOUR = timedelta(hours=1)


def jumped(key_id: str, at: FakeClock, **facts: str) -> Notice:
    subject = f"prod/support-copilot-chat: {key_id} is used far more than before"
    return notice("usage.jump", subject, at=at.now(), facts={"key_id": key_id, **facts})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Site:
    """One channel, and what remembers what it was told."""

    def __init__(self, clock: FakeClock, path: Path, routes: Mapping[str, list[Route]]) -> None:
        self.box = Box()
        memory = Memory(path / "notices.json", clock.now)
        self.telling = Telling({"box": self.box.channel}, routes, {}, memory, clock)

    def tell(self, *notices: Notice) -> int:
        """How many messages that makes."""
        before = len(self.box.messages)
        for one in notices:
            self.telling.tell(one)
        assert self.telling.flush() == []
        return len(self.box.messages) - before


class TestTelling:
    def test_once_a_day_for_each_key(self, tmp_path: Path, clock: FakeClock) -> None:
        """Another key is news; the same one is not, by whatever number, until a day is over."""
        site = Site(clock, tmp_path, {"team": [Route("box")]})
        assert site.tell(jumped("key_a", clock, requests="900")) == 1
        for number in range(5):
            clock.move(HOUR)
            assert site.tell(jumped("key_a", clock, requests=str(number))) == 0
        assert site.tell(jumped("key_b", clock)) == 1
        assert site.tell(jumped("key_a", clock), jumped("key_b", clock)) == 0
        clock.move(timedelta(hours=19))
        assert site.tell(jumped("key_a", clock), jumped("key_b", clock)) == 1

    def test_another_process_knows(self, tmp_path: Path, clock: FakeClock) -> None:
        """Cron's next sweep says nothing again."""
        assert Site(clock, tmp_path, {"team": [Route("box")]}).tell(jumped("key_a", clock)) == 1
        assert Site(clock, tmp_path, {"team": [Route("box")]}).tell(jumped("key_a", clock)) == 0

    def test_who_wants_it(self, tmp_path: Path, clock: FakeClock) -> None:
        """Told unless a route says otherwise."""
        assert Site(clock, tmp_path / "1", {"team": [Route("box", on=("failed",))]}).tell(jumped("a", clock)) == 0
        assert Site(clock, tmp_path / "2", {"team": [Route("box", on=("usage",))]}).tell(jumped("a", clock)) == 1
        assert (
            Site(clock, tmp_path / "3", {"team": [Route("box", least=Severity.CRITICAL)]}).tell(jumped("a", clock)) == 0
        )


class TestTheTrail:
    def test_which_keys_were_shown_dead(self, tmp_path: Path) -> None:
        """By their proofs alone, and of late; what keeps no file tells nothing."""
        trail = ChainedAuditor([FilePlace(tmp_path / "trail.jsonl")])
        for hours, event, key_id in (
            (0, "proven", "old"),
            (2, "proven", None),
            (3, "revoke.done", "x"),
            (4, "proven", "new"),
        ):
            trail.write(Record(START + hours * HOUR, event, "sandbox/chat", key_id=key_id))
        for auditor in (trail, Trail(trail)):
            found = [(one.entry, one.key_id, one.at) for one in shown_dead(auditor, START + HOUR)]
            assert found == [("sandbox/chat", "new", START + 4 * HOUR)]
        assert not list(shown_dead(object(), START))
