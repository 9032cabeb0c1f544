"""A freeze: in an incident scheduled work waits, what the emergency and people need goes on, and it ends as it should."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest

from rotation import actions
from rotation.engine import Outcome
from rotation.errors import Code, Trouble
from rotation.journal import Frozen, Journal
from rotation.ports import Record
from rotation.situation import Stop
from rotation.status import Row, row
from tests.simulation.explore import NATURES, SINGLE, successors
from tests.simulation.scenarios import PATIENCE, Case, Scenario, execute, in_grace, settled
from tests.simulation.wire import Planned
from tests.simulation.world import Setting
from tests.simulation.world import World as Simulated
from tests.test_counterexamples import NarrowWorld
from tests.test_native_crash import NativeWorld
from tests.world import ENTRY, START, World

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
OURS, THEIRS = "INC-2026-0012", "INC-2026-0007"


def journal_of(world: World) -> Journal:
    return Journal(world.vaults["vault"].entries[ENTRY].facts)


def frozen_by(world: World) -> str | None:
    frozen = journal_of(world).frozen
    return frozen.incident if frozen else None


def emergency(world: World, incident: str = OURS, *, keep_frozen: bool = False) -> Outcome:
    return world.engine().emergency(
        world.target, incident=incident, keep_frozen=keep_frozen, patience=timedelta(minutes=2)
    )


def due(days: int = 30) -> World:
    """A secret that was rotated so long ago."""
    world = World()
    world.run()
    world.clock.move(days * DAY)
    return world


# --- the fact --------------------------------------------------------------------------------------


@pytest.mark.parametrize("incident", [OURS, "leak of 3 March, chat & batch", "x=1 y=2", "ünïcode"])
def test_a_freeze_reads_as_it_was_written(incident: str) -> None:
    """Whatever an incident is called, in characters that a tag may hold."""
    frozen = Frozen(START, incident)
    written = frozen.written()
    assert Journal(written).frozen == frozen
    assert Journal(written).tokens() == set()
    assert set(written) == {"frozen"}
    assert all(c.isascii() and (c.isalnum() or c in " _.:/=+-@") for c in written["frozen"])


# --- laying it -------------------------------------------------------------------------------------


def test_an_emergency_freezes_without_a_call_more() -> None:
    """The freeze is written with the condemnations: the first thing that counts is that the leaked key is marked."""
    plain, iced = World(), World()
    for world in (plain, iced):
        world.run()
        world.calls.clear()
    plain.engine().condemn(plain.target)
    iced.engine().condemn(iced.target, incident=OURS)
    assert iced.calls == plain.calls
    assert set(journal_of(iced).facts) - set(journal_of(plain).facts) == {"frozen"}
    assert journal_of(iced).frozen == Frozen(iced.clock.now(), OURS)
    assert iced.trail.events()[-2:] == ["condemn", "freeze"]


def test_where_there_is_no_room_for_a_freeze_the_keys_are_condemned_all_the_same() -> None:
    """What matters most; and the trail says that nothing is frozen."""
    world = NarrowWorld()
    world.run()
    entry = world.vaults["vault"].entries[ENTRY]
    entry.facts |= {f"unknown.{n}": "at=now" for n in range(24 - len(entry.facts) - 2)}
    with suppress(Trouble):  # whatever it says, what counts is what it has written
        world.engine().condemn(world.target, incident=OURS)
    assert (len(journal_of(world).contain), frozen_by(world)) == (1, None)
    assert world.trail.events()[-3:] == ["condemn", "freeze", "freeze.failed"]


def test_the_first_incident_keeps_its_freeze() -> None:
    """Another one that meets it neither takes it over nor, at its end, takes it off."""
    world = due()
    assert world.engine().freeze(world.target, THEIRS) == Frozen(world.clock.now(), THEIRS)
    assert world.engine().freeze(world.target, OURS).incident == THEIRS
    outcome = emergency(world)
    assert (outcome.achieved, outcome.unproven, outcome.trouble) == (True, False, None)
    assert frozen_by(world) == THEIRS
    assert world.trail.events().count("freeze") == 1
    assert "thaw" not in world.trail.events()


# --- what waits, and what goes on ------------------------------------------------------------------


def test_what_is_due_waits_for_the_thaw() -> None:
    """However often is swept; once it is overdue people are told. After the thaw the next sweep rotates."""
    world = due()
    world.engine().freeze(world.target, OURS)
    outcome = world.sweep()
    assert isinstance(outcome.rest, actions.Hold)
    assert outcome.rest.cause is actions.Cause.FROZEN
    assert "overdue, and frozen by incident INC-2026-0012 since 2026-01-31 00:00Z" in outcome.rest.reason
    world.sweep_until_quiet()
    assert world.live() == {"value-1"}
    world.engine().thaw(world.target)
    world.sweep()
    assert world.live() == {"value-1", "value-2"}


def test_a_person_may_still_rotate_and_go_back() -> None:
    """A freeze keeps away what nobody asked for, nothing else."""
    world = due()
    world.engine().freeze(world.target, OURS)
    assert world.engine().rotate(world.target).achieved
    world.clock.move(3 * DAY)
    world.sweep()
    assert world.live() == {"value-1", "value-2"}, "the old credential was retired in spite of the freeze"
    assert world.engine().rollback(world.target).achieved
    assert world.handed_out() == {"vault": "value-1"}


def test_where_the_issuer_is_full_the_old_credential_makes_place_for_what_a_person_asks() -> None:
    """Or a freeze would keep people from what it is laid for."""
    world = World(max_keys=2)
    world.run()
    world.engine().rotate(world.target)
    world.engine().freeze(world.target, OURS)
    world.clock.move(3 * DAY)
    world.sweep()
    assert world.live() == {"value-1", "value-2"}
    assert world.engine().rotate(world.target).achieved
    assert world.live() == {"value-2", "value-3"}


def test_a_rotation_that_was_begun_is_finished() -> None:
    """Half a rotation helps nobody in an incident."""
    world = due()

    def die(_: int, call: str) -> None:
        if call == "before promote":
            raise Trouble(Code.UNAVAILABLE, "vault", "no answer")

    world.fault = die
    world.run()
    world.fault = None
    world.engine().freeze(world.target, OURS)
    world.sweep()
    assert world.handed_out() == {"vault": "value-2"}


def test_the_journal_keeps_room_for_a_freeze() -> None:
    """As many rotations as fit leave room for an emergency over all keys, its freeze included."""
    world = NarrowWorld(rotate_every=365 * DAY)
    world.run()
    for _ in range(12):
        world.clock.move(HOUR)
        world.engine().rotate(world.target)
    outcome = emergency(world, keep_frozen=True)
    assert "freeze.failed" not in [record.event for record in outcome.records]
    assert frozen_by(world) == OURS


def test_the_stores_own_service_is_refused_and_people_are_not() -> None:
    """A step of its schedule is refused in words; a person's rotation goes past the service, which would refuse it.

    Once thawed the service's rotations go on, and what it had begun in vain is not in their way.
    """
    world = NativeWorld()
    world.run()
    world.clock.move(30 * DAY)
    world.engine().freeze(world.target, OURS)
    world.begin()
    (token,) = world.service.asked
    outcome = world.engine().step(world.target, token, Stop.STAGED, patience=MINUTE)
    assert outcome.achieved is False
    assert outcome.rest is not None
    assert outcome.rest.reason.startswith(f"frozen by incident {OURS} since 2026-01-31")
    world.serve()
    assert world.live() == {"value-1"}
    assert world.engine().rotate(world.target).achieved
    assert world.live() == {"value-1", "value-2"}
    world.engine().thaw(world.target)
    world.clock.move(32 * DAY)
    world.sweep_until_quiet()
    assert "value-3" in world.live()


# --- how it ends -----------------------------------------------------------------------------------


def test_an_emergency_that_has_come_to_its_end_thaws() -> None:
    """All is replaced and shown dead: nothing of the incident is left in the journal, and the trail has it all."""
    world = due()
    outcome = emergency(world)
    assert (outcome.achieved, outcome.unproven) == (True, False)
    assert frozen_by(world) is None
    assert outcome.seen is not None
    assert outcome.seen.primary.journal.frozen is None
    events = [record.event for record in outcome.records]
    assert events.index("freeze") < events.index("mint") < events.index("proven") < events.index("thaw")
    assert outcome.records == world.trail.records[-len(outcome.records) :]


def test_a_freeze_that_is_to_be_kept_is_kept() -> None:
    """The incident goes on although this secret's part of it is over."""
    world = due()
    assert emergency(world, keep_frozen=True).achieved
    assert frozen_by(world) == OURS


def test_a_freeze_stays_until_all_is_proven() -> None:
    """A sweep that gets there later leaves the thaw to who looks after the incident."""
    world = World(revoke_delay=HOUR)
    world.run()
    outcome = emergency(world)
    assert (outcome.unproven, frozen_by(world)) == (True, OURS)
    world.clock.move(2 * HOUR)
    world.sweep()
    assert journal_of(world).unproven() == ()
    assert frozen_by(world) == OURS
    assert world.engine().thaw(world.target, OURS)


def test_an_emergency_that_is_run_again_ends_with_a_thaw() -> None:
    """It goes on with what it began, the freeze included."""
    world = World(revoke_delay=5 * MINUTE)
    world.run()
    assert emergency(world).unproven
    laid = journal_of(world).frozen
    world.clock.move(5 * MINUTE)
    outcome = emergency(world)
    assert (outcome.achieved, outcome.unproven, frozen_by(world)) == (True, False, None)
    assert laid is not None
    assert outcome.records[-1].reason == f"incident {OURS}, frozen since {laid.at:%Y-%m-%d %H:%M}Z"
    assert world.live() == {"value-2"}


def test_a_freeze_stays_where_a_replica_hands_out_the_old_key() -> None:
    """Replaced is replaced everywhere."""
    world = World(stores=("vault", "second"), allow_outage=True)
    world.run()
    world.denied = ("second", ("observe",))
    outcome = emergency(world)
    assert (outcome.achieved, frozen_by(world)) == (False, OURS)


def test_a_thaw_that_fails_leaves_the_emergency_achieved() -> None:
    """The leaked key is dead all the same; what failed is told, and status goes on saying that it is frozen."""
    world = due()

    def refuse(_: int, call: str) -> None:
        if call == "before forget" and world.trail.events()[-1] == "thaw":
            raise Trouble(Code.DENIED, "vault", "not allowed")

    world.fault = refuse
    outcome = emergency(world)
    assert (outcome.achieved, outcome.unproven) == (True, False)
    assert outcome.trouble is not None
    assert outcome.trouble.code is Code.DENIED
    assert frozen_by(world) == OURS


def test_a_thaw_tells_what_it_took_off_and_whose() -> None:
    """Of one incident only, where it is named; nothing twice."""
    world = due()
    laid = world.engine().freeze(world.target, THEIRS)
    assert world.engine().thaw(world.target, OURS) is None
    assert frozen_by(world) == THEIRS
    assert world.engine().thaw(world.target) == laid
    assert world.trail.events()[-2:] == ["freeze", "thaw"]
    assert world.trail.records[-1].reason == "incident INC-2026-0007, frozen since 2026-01-31 00:00Z"
    assert world.engine().thaw(world.target) is None
    assert world.trail.events()[-1:] == ["thaw"]


@pytest.mark.parametrize("before", [None, THEIRS])
def test_nothing_is_frozen_or_thawed_without_a_record(before: str | None) -> None:
    """The audit trail comes before the effect, as everywhere."""
    world = due()
    if before:
        world.engine().freeze(world.target, before)

    def refuse(record: Record) -> None:
        raise Trouble(Code.UNAVAILABLE, "audit", "the disk is full")

    world.trail.write = refuse  # type: ignore[method-assign]
    with pytest.raises(Trouble, match="the disk is full"):
        world.engine().thaw(world.target) if before else world.engine().freeze(world.target, OURS)
    assert frozen_by(world) == before


# --- being seen ------------------------------------------------------------------------------------


def seen(world: World) -> Row:
    engine = world.engine()
    return row(engine, world.target, world.policy, world.clock.now(), engine.outside.issuers)


def test_status_says_frozen_by_whom_and_since_when() -> None:
    """As scripts read it, whatever else there is to say of the secret."""
    world = due(3)
    assert (seen(world).frozen, seen(world).as_json()["frozen"]) == (None, None)
    world.engine().freeze(world.target, OURS)
    assert seen(world).as_json()["frozen"] == {"incident": OURS, "since": "2026-01-04T00:00:01+00:00"}
    assert seen(world).phase.value == "steady"


# --- under faults ----------------------------------------------------------------------------------


def freezing(world: Simulated) -> object:
    return world.engine().emergency(world.target, patience=PATIENCE, incident=OURS)


@pytest.mark.parametrize("stores", ["vault", "aws", "azure", "vault+aws"])
@pytest.mark.parametrize("prepare", [settled, in_grace])
def test_an_emergency_that_freezes_settles(prepare: Callable[[Simulated], object], stores: str) -> None:
    """Whatever single call fails, is lost or comes late: sweeps end it, and no freeze stands in the way of that."""
    case = Case(
        Scenario("emergency", prepare, (("emergency", freezing),)), Setting(tuple(stores.split("+")), NATURES["free"])
    )
    bare = execute(case, Planned())
    assert bare.broken is None
    assert [step.call for step in bare.log if step.call.startswith("audit: thaw")]
    plans = list(successors(bare, SINGLE))
    assert len(plans) > 50
    broken = {str(execution.broken) for plan in plans if (execution := execute(case, Planned(plan))).broken}
    assert broken == set()
