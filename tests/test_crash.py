"""A crash, an error or a lost answer at every outgoing call, before and after: nothing is lost, nothing left behind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta

import pytest

from rotation.errors import Code, Trouble
from tests.world import Crash, World

Scenario = Callable[[World], object]


def bootstrap(world: World) -> None:
    world.run()


def scheduled(world: World) -> None:
    world.clock.move(timedelta(days=30))
    world.run()
    world.clock.move(timedelta(hours=25))
    world.run()


def emergency(world: World) -> None:
    world.emergency()


def poisoned(world: World) -> None:
    world.clock.move(timedelta(days=30))
    world.vendor.create_delay = timedelta(days=2)
    world.run()
    world.vendor.create_delay = timedelta(0)
    world.clock.move(timedelta(minutes=10))
    world.run()


def prepare(scenario: Scenario, stores: tuple[str, ...], max_keys: int | None) -> World:
    world = World(stores=stores, max_keys=max_keys)
    if scenario is not bootstrap:
        world.run()
    world.calls.clear()
    return world


def faults(kind: str) -> Callable[[str], None]:
    def strike(call: str) -> None:
        if kind == "crash":
            raise Crash(call)
        applied = call.startswith("after")
        raise Trouble(Code.UNAVAILABLE, "wire", "no answer", maybe_applied=kind == "unsure" or applied)

    return strike


@pytest.mark.parametrize("kind", ["crash", "error", "unsure"])
@pytest.mark.parametrize(("stores", "max_keys"), [(("vault",), None), (("vault",), 2), (("vault", "second"), None)])
@pytest.mark.parametrize("scenario", [bootstrap, scheduled, emergency, poisoned])
def test_a_fault_at_every_call_heals_by_itself(
    scenario: Scenario, stores: tuple[str, ...], max_keys: int | None, kind: str
) -> None:
    """At each point: fault, then sweeps only. No outage after any call, no orphan and nothing stuck at the end."""
    dry = prepare(scenario, stores, max_keys)
    scenario(dry)
    points = len(dry.calls)
    assert points > 10
    for point in range(1, points + 1):
        world = prepare(scenario, stores, max_keys)

        def once(count: int, call: str, world: World = world, point: int = point) -> None:
            if count == point:
                world.fault = None
                faults(kind)(call)

        world.fault = once
        with contextlib.suppress(Crash, Trouble):
            scenario(world)
        world.vendor.create_delay = timedelta(0)
        world.sweep_until_quiet()
        try:
            world.check_settled()
            assert None not in world.handed_out().values()
        except AssertionError as broken:
            message = f"{scenario.__name__}: {kind} at call {point} of {points}, {dry.calls[point - 1]!r}: {broken}"
            raise AssertionError(message) from None
