"""A seeded share of the kills, of every scenario; `make kill` does all of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from rotation.assembly import clock_of
from rotation.config import Config
from sandbox.clock import SandboxClock
from tests.kill.execution import SCENARIOS, Scenario, execute, points
from tests.kill.site import Site
from tests.kill.wire import Moment, Strike

KILLS = 2
"""Of each scenario."""
REACH = {
    "rotation vault openai": 46,
    "emergency vault openai": 32,
    "rotation vault generated": 24,
    "emergency vault generated": 17,
    "rotation aws openai": 32,
    "emergency aws openai": 25,
    "rotation azure openai": 68,
    "emergency azure openai": 50,
    "rotation aws+vault openai": 69,
    "emergency aws+vault openai": 50,
    "containment vault openai": 35,
}
"""Up to which request. About as many as there are, without those that wait; where there are fewer, nothing is killed."""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_a_kill_leaves_behind_heals_by_sweeps(site: Site, scenario: Scenario) -> None:
    """Killed here and there: no outage, no orphan, nothing stuck, unproven or leaked."""
    lot = random.Random(scenario.name)
    for point in lot.sample(range(1, REACH[scenario.name] + 1), KILLS):
        result = execute(site, scenario, Strike(point, lot.choice([*Moment])))
        assert not result.faults, result


def test_idle_rounds_are_struck_at_their_beginning_and_end() -> None:
    """Every request counts once; of a round that repeats unchanged more than three times, the first two and the last."""
    assert points(["a", "b", "c"]) == [1, 2, 3]
    assert points(["m", "m", "m"]) == [1, 2, 3]
    assert points(["w", *["a", "b"] * 5, "z"]) == [1, 2, 3, 4, 5, 10, 11, 12]


def test_time_is_skipped_in_the_sandbox_only(tmp_path: Path) -> None:
    """Whoever sleeps moves the sandbox's clock, and monotonic time with it; elsewhere nothing of this is heard."""
    file = tmp_path / "clock.json"
    env = {"KEYTURN_SANDBOX_CLOCK": str(file), "KEYTURN_SANDBOX_SLEEP": "skip"}
    clock = clock_of(Config("acme", "sandbox", {}, {}, {}, ()), env)
    before, monotonic = SandboxClock(file).now(), clock.monotonic()
    clock.sleep(3600)
    assert timedelta(hours=1) <= SandboxClock(file).now() - before < timedelta(hours=1, minutes=5)
    assert 3600 <= clock.monotonic() - monotonic < 3900
    elsewhere = clock_of(Config("acme", "prod", {}, {}, {}, ()), env)
    assert abs(SandboxClock(file).now() - elsewhere.now()) > timedelta(minutes=50)
    elsewhere.sleep(0.001)
    assert not elsewhere.monotonic() - monotonic > 3600
