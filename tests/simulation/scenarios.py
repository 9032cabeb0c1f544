"""From where, who acts, and what must have come of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Final

from rotation import actions
from rotation.engine import Outcome
from rotation.names import KeyName
from tests.simulation.issuer import ENVIRONMENT, INSTALLATION, NAME
from tests.simulation.wire import Actor, Chooser, Crash, Deed, Kind, Plan, Planned, Step, What, Wire
from tests.simulation.world import EVERY, GRACE, Broken, Harm, Setting, World

MINUTES: Final = (0, 1, 5, 16, 16, 60, 6 * 60, *(25 * 60, 60) * 5)
"""Between sweeps: past every claim, the life of an attempt, a back-off, the grace periods of two rotations, and the drain
of an orphan that waited for them."""
CONFIRM: Final = timedelta(hours=25)
PATIENCE: Final = timedelta(seconds=30)

Act = Callable[[World], object]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Who acts on what.

    Parameters:
        prepare: leads a new world to where it begins.
        actors: by name, in the order in which they begin.
        changes: whether another credential must be handed out in the end.
        minutes: between sweeps.
        replica: whether it needs one.
    """

    name: str
    prepare: Act
    actors: tuple[tuple[str, Act], ...]
    changes: bool = False
    minutes: tuple[int, ...] = MINUTES
    replica: bool = False


# --- where it begins -------------------------------------------------------------------------------


def fresh(world: World) -> None:
    """An entry without any value."""


def settled(world: World) -> None:
    """A first credential, nothing to do."""
    world.sweep()
    world.wire.move(timedelta(hours=1))


def due(world: World) -> None:
    settled(world)
    world.wire.move(EVERY)


def in_grace(world: World) -> None:
    """Rotated an hour ago."""
    due(world)
    world.sweep()
    world.wire.move(timedelta(hours=1))


def after_grace(world: World) -> None:
    """Rotated a day ago: the old credential is to go."""
    in_grace(world)
    world.wire.move(timedelta(hours=25))


def last_minute(world: World) -> None:
    """Rotated nearly a day ago: the old credential can still be gone back to."""
    due(world)
    world.sweep()
    world.wire.move(GRACE - timedelta(minutes=1))


def poisoned(world: World) -> None:
    """Due, and the next key will never be accepted."""
    due(world)
    world.vendor.poisoned = 1


def edited(world: World) -> None:
    """A person's credential is current, for so long that it is due."""
    settled(world)
    world.edit_by_hand()
    world.wire.move(timedelta(hours=26))
    world.sweep()
    world.wire.move(EVERY)


def orphaned(world: World, old: timedelta = timedelta(minutes=16)) -> None:
    """A key of ours that nothing claims, old enough to be swept."""
    settled(world)
    name = KeyName(INSTALLATION, ENVIRONMENT, NAME, f"{0xF00:032x}")
    keys, _ = world.vendor.made(world.vendor.box.state, str(name), world.wire.now)
    world.vendor.box.put(keys, world.wire.now)
    world.wire.move(old)


def young(world: World) -> None:
    """A key of ours that nothing claims yet: somebody may be about to."""
    orphaned(world, timedelta(minutes=1))


class _DieAtMirror:
    """The process dies when it is about to make a replica follow."""

    def __init__(self, replica: str) -> None:
        self._replica = replica
        self._done = False

    def __call__(self, number: int, step: Step) -> Deed | None:
        if step.service == self._replica and "current" in step.call.lower() and step.kind is not Kind.READ:
            self._done = True
        return Deed(What.DIE) if self._done else None

    def over(self, number: int) -> bool:
        return self._done


def lagging(world: World) -> None:
    """The primary has another credential than its replica."""
    due(world)
    wire = world.wire
    wire.choose = _DieAtMirror(world.setting.names[-1])
    with suppress(Crash):
        run(world)
    wire.choose = Planned()
    wire.move(timedelta(minutes=1))


# --- who acts --------------------------------------------------------------------------------------


def run(world: World) -> Outcome:
    """What cron does for one secret."""
    return world.engine().run(world.target, patience=PATIENCE)


def sweep(world: World) -> Outcome:
    return world.sweep()


def rotate(world: World) -> Outcome:
    """A person wants another credential now."""
    return world.engine().rotate(world.target, take_over=True, patience=PATIENCE)


def roll_back(world: World) -> Outcome:
    return world.engine().rollback(world.target, patience=PATIENCE)


def emergency(world: World, contain_after: timedelta | None = None) -> Outcome | None:
    return world.engine().emergency(world.target, contain_after=contain_after, patience=PATIENCE)


contain = partial(emergency, contain_after=timedelta(0))


def edit(world: World) -> None:
    world.edit_by_hand()


AND_A_MONTH: Final = (*MINUTES, 31 * 24 * 60, 5, 16, 16, 60, 25 * 60, 60, 25 * 60)
"""So that a person's credential is due, too."""

ALONE: Final = (
    Scenario("bootstrap", fresh, (("run", run),), changes=True),
    Scenario("due", due, (("run", run),), changes=True),
    Scenario("retire", after_grace, (("sweep", sweep),)),
    Scenario("asked", settled, (("rotate", rotate),)),
    Scenario("rollback", in_grace, (("rollback", roll_back),)),
    Scenario("emergency", settled, (("emergency", emergency),)),
    Scenario("emergency in grace", in_grace, (("emergency", emergency),)),
    Scenario("contain", settled, (("emergency", contain),)),
    Scenario("poisoned", poisoned, (("run", run),), changes=True),
    Scenario("edited", edited, (("run", run),), changes=True),
    Scenario("orphan", orphaned, (("sweep", sweep),)),
    Scenario("young orphan", young, (("sweep", sweep),)),
    Scenario("lagging", lagging, (("run", run),), replica=True),
)

TOGETHER: Final = (
    Scenario("bootstrap twice", fresh, (("one", run), ("two", run)), changes=True),
    Scenario("due twice", due, (("one", run), ("two", run)), changes=True),
    Scenario("asked twice", settled, (("one", rotate), ("two", rotate))),
    Scenario("due and asked", due, (("run", run), ("rotate", rotate)), changes=True),
    Scenario("due and emergency", due, (("run", run), ("emergency", emergency)), changes=True),
    Scenario("emergency twice", settled, (("one", emergency), ("two", emergency))),
    Scenario("retire twice", after_grace, (("one", run), ("two", run))),
    Scenario("retire and rollback", after_grace, (("run", run), ("rollback", roll_back))),
    Scenario("rollback in the last minute", last_minute, (("rollback", roll_back), ("run", run))),
    Scenario("emergency and rollback", in_grace, (("emergency", emergency), ("rollback", roll_back))),
    Scenario("rollback twice", in_grace, (("one", roll_back), ("two", roll_back))),
    Scenario("poisoned twice", poisoned, (("one", run), ("two", run)), changes=True),
    Scenario("orphan twice", orphaned, (("one", sweep), ("two", sweep))),
    Scenario("lagging twice", lagging, (("one", run), ("two", run)), replica=True),
    Scenario("lagging and emergency", lagging, (("run", run), ("emergency", emergency)), replica=True),
    Scenario("due and an edit", due, (("run", run), ("person", edit)), changes=True, minutes=AND_A_MONTH),
    Scenario("emergency and an edit", settled, (("emergency", emergency), ("person", edit)), minutes=AND_A_MONTH),
)

CROWDED: Final = (
    Scenario("due twice and emergency", due, (("one", run), ("two", run), ("emergency", emergency)), changes=True),
    Scenario(
        "asked, emergency and rollback",
        in_grace,
        (("rotate", rotate), ("emergency", emergency), ("rollback", roll_back)),
    ),
    Scenario(
        "due, emergency and an edit",
        due,
        (("run", run), ("emergency", emergency), ("person", edit)),
        changes=True,
        minutes=AND_A_MONTH,
    ),
)

ALL: Final = {scenario.name: scenario for scenario in (*ALONE, *TOGETHER, *CROWDED)}


# --- one execution ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Case:
    """A scenario in a setting, prepared once, with what is known of its ends.

    Where an issuer allows two keys and there is no first credential yet, nothing voids the attempts that fill it:
    no value can be stored anew, and there is no room for another. A key of theirs is revoked once no write of its
    attempt can land in time any more; so there every store keeps to the time limit here.
    """

    scenario: Scenario
    setting: Setting
    base: World = field(init=False)
    good: set[object] = field(default_factory=set)
    """Worlds between sweeps that are known to end well."""

    def __post_init__(self) -> None:
        if self.scenario.prepare is fresh and self.setting.nature.max_keys is not None:
            self.setting = replace(self.setting, bounded=True)
        self.base = World.new(self.setting, Wire(Planned()))
        self.scenario.prepare(self.base)


@dataclass(slots=True)
class Execution:
    """How one went."""

    plan: Plan
    log: list[Step]
    broken: Broken | None
    story: list[str]
    known: bool
    """Its end was known from an earlier one."""


def execute(case: Case, choose: Chooser, *, tell: bool = False) -> Execution:
    """One execution, from the actors' first call until all has settled."""
    wire = Wire(choose, story=[] if tell else None)
    world = case.base.copy(wire)
    broken, known = None, False
    try:
        wire.act([Actor(name, partial(act, world)) for name, act in case.scenario.actors])
        world.check()
        known = _settle(case, world, choose)
    except Broken as error:
        broken = error
    except (Exception, Crash) as error:  # noqa: BLE001 - an engine that falls over does not settle
        broken = Broken(Harm.STUCK, f"{type(error).__name__}: {error}")
        broken.__cause__ = error
    if broken:
        wire.tell(str(broken))
    return Execution(tuple(wire.taken), wire.log, broken, wire.story or [], known)


def _settle(case: Case, world: World, choose: Chooser) -> bool:
    """Sweeps until nothing is left to do. True when the rest was known from an earlier execution.

    Raises:
        Broken: it is never so.
    """
    wire, minutes = world.wire, case.scenario.minutes
    met: list[object] = []
    place, calm = 0, False
    outcome: Outcome | None = None
    while place < len(minutes):
        wire.phase += 1
        wire.move(CONFIRM if calm else timedelta(minutes=minutes[place]))
        if choose.over(len(wire.log)) and not wire.latecomers:
            state = (place, calm, world.key)
            if state in case.good:
                case.good.update(met)
                return True
            met.append(state)
        taken = len(wire.taken)
        try:
            outcome = world.sweep()
        except Crash:
            outcome = None
        if (
            outcome
            and isinstance(outcome.rest, actions.Hold)
            and outcome.rest.unproven
            and "by hand" in outcome.rest.reason
        ):
            world.revoke_by_hand()
        if len(wire.taken) > taken:
            place, calm = 0, False  # disturbed again: it has as many sweeps as before
        elif not (outcome and isinstance(outcome.rest, actions.Done)) or world.unsettled() or _missing(case, world):
            place, calm = place + 1, False
        elif not calm:
            calm = True
        elif wire.latecomers:
            wire.land_all()
            place, calm = 0, False
        else:
            case.good.update(met)
            return False
    problem = world.unsettled() or _missing(case, world)
    raise problem or Broken(Harm.STUCK, f"the last sweep ended with {outcome and (outcome.rest or outcome.trouble)}")


def _missing(case: Case, world: World) -> Broken | None:
    """What was asked for and did not happen."""
    if case.scenario.changes and world.handed == case.base.handed:
        return Broken(Harm.STUCK, f"stores still hand out {world.handed}")
    return None
