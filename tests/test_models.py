"""Issuers that are not like OpenAI: slots, one credential only, and a person who makes it."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest

from rotation import actions
from rotation.errors import Code, Trouble
from rotation.model import Credential, Model, Version
from tests.world import Crash, World


def slots() -> World:
    return World(model=Model.SLOTS)


def test_slots_are_used_in_turn_and_only_when_free() -> None:
    """The other slot is regenerated; the old one only after its grace, and then its value is discarded."""
    world = slots()
    world.run()
    world.clock.move(timedelta(days=30))
    world.run()
    assert [key.slot for key in world.vendor.keys] == ["key1", "key2"]
    assert world.live() == {"value-1", "value-2"}
    world.clock.move(timedelta(hours=25))
    world.run()
    assert world.live() == {"value-2"}
    world.clock.move(timedelta(days=30))
    world.run()
    assert [key.slot for key in world.vendor.keys] == ["key1", "key2", "key1"]
    world.sweep_until_quiet()
    world.check_settled()


def test_a_slot_is_not_regenerated_while_its_old_holder_drains() -> None:
    """A second rotation has to wait for the first one's drain: creating would destroy a key in use."""
    world = slots()
    world.run()
    world.clock.move(timedelta(days=30))
    world.run()
    outcome = world.engine().rotate(world.target)
    assert len(world.vendor.keys) == 2
    assert isinstance(outcome.rest, actions.Wait)
    assert world.live() == {"value-1", "value-2"}


def test_an_emergency_on_slots_regenerates_the_other_one_first() -> None:
    """The leaked key dies when its slot is regenerated; consumers never read a dead value."""
    world = slots()
    world.run()
    world.emergency()
    assert world.live() == {"value-2"}
    assert "proven" in world.trail.events()


def strike(world: World, kind: str, point: int) -> None:
    def fault(count: int, call: str) -> None:
        if count == point:
            world.fault = None
            if kind == "crash":
                raise Crash(call)
            raise Trouble(Code.UNAVAILABLE, "wire", "no answer", maybe_applied=True)

    world.fault = fault


@pytest.mark.parametrize("kind", ["crash", "unsure"])
@pytest.mark.parametrize("emergency", [False, True])
def test_slots_heal_from_a_fault_at_every_call(kind: str, emergency: bool) -> None:
    """No outage after any call. At the end only the current value lives of those that anybody ever held;
    a slot whose regeneration was not answered holds a value that nobody knows, and is free."""

    def scenario(world: World) -> None:
        if emergency:
            world.emergency()
        else:
            world.clock.move(timedelta(days=30))
            world.run()
            world.clock.move(timedelta(hours=25))
            world.run()

    def prepared() -> World:
        world = slots()
        world.run()
        world.calls.clear()
        return world

    dry = prepared()
    scenario(dry)
    for point in range(1, len(dry.calls) + 1):
        world = prepared()
        strike(world, kind, point)
        with contextlib.suppress(Crash, Trouble):
            scenario(world)
        world.sweep_until_quiet()
        world.check()
        current = world.handed_out()["vault"]
        held = {v.credential.fields["value"].reveal() for v in stored(world) if v.credential}
        assert world.live() & held == {current}, f"{kind} at {point}"


def stored(world: World) -> list[Version]:
    return world.vaults["vault"].entries[world.target.entry].versions


def test_replacing_has_a_measured_window() -> None:
    """The old credential dies at the mint; how long until the promotion stands in the audit trail."""
    world = World(model=Model.REPLACE, allow_outage=True)
    world.run()
    world.clock.move(timedelta(days=30))
    outcome = world.run()
    promoted = [r for r in world.trail.records if r.event == "promote.done"][-1]
    assert promoted.detail
    assert float(promoted.detail["window_seconds"]) < 5
    assert isinstance(outcome.rest, actions.Done), "there is nothing to drain"
    assert "proven" in world.trail.events()
    world.allow_outage = False
    world.check_settled()


@pytest.mark.parametrize("kind", ["crash", "unsure"])
def test_replacing_heals_from_a_fault_at_every_call(kind: str) -> None:
    """A value that was lost after it destroyed the old one is made afresh, without a person."""

    def scenario(world: World) -> None:
        world.clock.move(timedelta(days=30))
        world.run()

    def prepared() -> World:
        world = World(model=Model.REPLACE, allow_outage=True)
        world.run()
        world.calls.clear()
        return world

    dry = prepared()
    scenario(dry)
    for point in range(1, len(dry.calls) + 1):
        world = prepared()
        strike(world, kind, point)
        with contextlib.suppress(Crash, Trouble):
            scenario(world)
        down = [world.clock.now()]
        for minutes in (2, 2, 16, 16, 60, 1500):
            world.clock.move(timedelta(minutes=minutes))
            world.sweep()
            value = world.handed_out()["vault"]
            if not (value and world.vendor.accepts(value)):
                down.append(world.clock.now())
        assert down[-1] - down[0] < timedelta(minutes=4), f"{kind} at {point}: down until {down[-1]}"
        world.allow_outage = False
        world.check_settled()


def manual() -> World:
    return World(model=Model.MANUAL)


def test_a_manual_issuer_waits_for_a_person() -> None:
    """A rotation that is due is a hold which says what to do; nothing is minted or intended."""
    world = manual()
    outcome = world.run()
    assert isinstance(outcome.rest, actions.Hold)
    assert "keyturn submit support-copilot-chat" in outcome.rest.reason
    assert world.vendor.keys == []
    assert not outcome.seen or not outcome.seen.primary.journal.facts


def test_a_submitted_credential_is_verified_before_it_is_promoted() -> None:
    """A wrong one is never handed out; a right one replaces, and the old one is to be revoked by hand."""
    world = manual()
    issuer = world.engine().outside.issuers["vendor"]
    first = issuer.mint("made by a person")
    world.engine().submit(world.target, first.credential, first.key_id)
    assert world.handed_out() == {"vault": "value-1"}
    world.clock.move(timedelta(days=30))
    world.engine().submit(world.target, Credential.of(value="typed wrongly"), None)
    assert world.handed_out() == {"vault": "value-1"}
    world.clock.move(timedelta(minutes=10))
    second = issuer.mint("made by a person")
    world.engine().submit(world.target, second.credential, second.key_id)
    assert world.handed_out() == {"vault": "value-2"}
    world.clock.move(timedelta(hours=30))
    outcome = world.run()
    assert isinstance(outcome.rest, actions.Hold)
    assert first.key_id in outcome.rest.reason
    assert world.live() == {"value-1", "value-2"}
    world.vendor.keys[0].revoked = True
    world.run()
    assert "proven" in world.trail.events()
    assert isinstance(world.run().rest, actions.Done)
