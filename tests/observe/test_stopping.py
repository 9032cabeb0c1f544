"""A run whose process is asked to end, at any point: it leaves nothing half done, and the next one does not start over."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rotation.actions import Wait
from rotation.engine import Engine
from rotation.model import Capabilities, Propagation
from tests.world import World


def engine(world: World, event: str) -> Engine:
    """One that is asked to end as soon as this stands in the audit trail."""
    made = world.engine()
    seen = len(world.trail.records)
    made._stopping = lambda: event in world.trail.events()[seen:]
    return made


POINTS = ["intend", "mint", "mint.done", "stage", "verify", "promote", "promote.done"]


@pytest.mark.parametrize("event", POINTS)
def test_a_rotation_ends_between_two_effects(event: str) -> None:
    """A key whose intent is written is minted and stored, so that the next run finds it: no 15 minutes of waiting for a mint that
    nobody makes, and no second mint."""
    world = World(stores=("vault", "mirror"))
    world.run()
    world.clock.move(timedelta(days=31))
    outcome = engine(world, event).run(world.target)
    assert outcome.trouble is None
    assert isinstance(outcome.rest, Wait)
    before = len(world.trail.events())
    assert len(world.vendor.keys) == 2
    world.run()
    assert len(world.vendor.keys) == 2
    assert world.handed_out() == {"vault": "value-2", "mirror": "value-2"}
    went_on = world.trail.events()[before:]
    assert "promote.done" in went_on or event == "promote.done"
    world.sweep_until_quiet()
    world.check_settled()


def test_a_wait_for_something_to_propagate_ends() -> None:
    """Within half a second, not when the wait is over."""
    world = World(create_delay=timedelta(minutes=2))
    slow = Propagation(in_a_row=2, interval=timedelta(seconds=90), timeout=timedelta(minutes=5))
    world.capabilities = Capabilities(create=slow)
    made = world.engine()
    slept: list[float] = []
    plain = world.clock.sleep

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        plain(seconds)

    world.clock.sleep = sleep  # type: ignore[method-assign]
    made._stopping = lambda: len(slept) >= 3
    assert isinstance(made.run(world.target).rest, Wait)
    assert slept == [0.5, 0.5, 0.5]
    del world.clock.sleep
    world.sweep_until_quiet()
    world.check_settled()
