"""Which executions there are: every single deed, every pair of deeds up to a bound, and seeded random ones."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Final

from rotation.model import Model
from tests.simulation.issuer import Nature, slow
from tests.simulation.scenarios import ALL, ALONE, CROWDED, Case, Execution, Scenario, execute
from tests.simulation.wire import Deed, Fate, Kind, Plan, Planned, Step, What, read_plan, show_plan
from tests.simulation.world import Broken, Harm, Setting

NATURES: Final[Mapping[str, Nature]] = {
    "free": Nature(),
    "two keys": Nature(max_keys=2),
    "slow": slow(Nature()),
    "two keys, slow": slow(Nature(max_keys=2)),
    "unlisted": Nature(registry=False),
    "slots": Nature(model=Model.SLOTS),
    "regenerated slots": Nature(model=Model.SLOTS, regenerates=True),
    "replace": Nature(model=Model.REPLACE),
    "last use unknown": Nature(knows_last_use=False),
    "slow consumers": Nature(consumers_keep=timedelta(hours=30)),
}
"""Issuers."""

STORES: Final = ("vault", "aws", "azure", "vault+aws", "aws+azure", "azure+vault")
"""Stores, the primary first."""

JUMPS: Final = ("70s", "16m", "26h")
"""How long a call may be under way: past its time limit, past the life of an attempt, past a grace period."""

_READ: Final = (Deed(What.FAIL), Deed(What.STALE), Deed(What.STALER))
_WRITE: Final = tuple(
    Deed(what) for what in (What.DIE, What.DIE_AFTER, What.DIE_LATE, What.FAIL, What.UNSURE, What.LOST, What.LATE)
)


# --- one deed more ---------------------------------------------------------------------------------


def faults(step: Step) -> tuple[Deed, ...]:
    """What can go wrong with a call, without anybody else taking part.

    A crash at a read is a crash after the write before it, and so is not repeated.
    """
    land = (Deed(What.LAND),) if step.latecomers else ()
    match step.kind:
        case Kind.READ:
            return (*_READ, *land)
        case Kind.RECORD:
            return (Deed(What.FAIL), *land)
        case Kind.BOUNDED if step.service.startswith("azure") or step.call.startswith("mint"):
            return (*_WRITE, Deed(What.TWICE), *land)
    return (*_WRITE, *land)


def turns(step: Step, *, brief: bool = False) -> tuple[Deed, ...]:
    """Who else can go on before a call is carried out, or before its answer arrives, and how much later.

    Parameters:
        brief: only to the others, at once, or after the call's time limit, or the life of an attempt.
    """
    if step.phase or step.kind is Kind.RECORD:
        return ()
    deeds: list[Deed] = []
    for to in step.others or ("",):
        if to:
            deeds.append(Deed(What.PAUSE, to))
        for jump in JUMPS[: 2 if brief else 3]:
            deeds.append(Deed(What.PAUSE, to, jump))
            if brief:
                continue
            if to:
                deeds.append(Deed(What.LINGER, to, jump))
            if step.kind is Kind.WRITE:
                deeds.append(Deed(What.PAUSE, to, jump, Fate.ANSWERED))
            if step.kind is not Kind.READ:
                deeds.append(Deed(What.AFTER, to, jump))
    return tuple(deeds)


def successors(execution: Execution, kind: str) -> Iterator[Plan]:
    """Every plan with one deed more, later than all of this one's, while anything still happens."""
    busy = {step.phase for step in execution.log if step.kind in (Kind.WRITE, Kind.BOUNDED)} | {0}
    first = execution.plan[-1][0] + 1 if execution.plan else 0
    for number in range(first, len(execution.log)):
        step = execution.log[number]
        if step.phase not in busy:
            continue
        deeds = faults(step) if kind in (SINGLE, FAULTS) else ()
        if kind in (SINGLE, SWITCHES):
            deeds += turns(step, brief=kind == SWITCHES)
        elif kind == SHUTTLE and not step.phase and step.kind is not Kind.RECORD:
            deeds += tuple(Deed(What.PAUSE, to) for to in step.others)
        for deed in deeds:
            yield (*execution.plan, (number, deed))


class Dice:
    """Decides by chance, until a few sweeps have been disturbed, or enough has happened."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._fault = self._random.choice((0.0, 0.01, 0.03, 0.1))
        self._turn = self._random.choice((0.03, 0.1, 0.3))
        self._left = self._random.randint(2, 12)
        self._done = False

    def __call__(self, number: int, step: Step) -> Deed | None:
        self._done = self._done or step.phase > 2 or self._left == 0
        if self._done:
            return None
        chance = self._random.random()
        deeds: tuple[Deed, ...] = ()
        if chance < self._fault:
            deeds = faults(step)
        elif chance < self._fault + (self._turn if step.others else self._fault):
            deeds = turns(step)
        if not deeds:
            return None
        self._left -= 1
        return self._random.choice(deeds)

    def over(self, number: int) -> bool:
        return self._done


# --- many ------------------------------------------------------------------------------------------

SINGLE: Final = "each deed"
FAULTS: Final = "pairs of faults"
SWITCHES: Final = "two switches"
SHUTTLE: Final = "three switches at once"
"""Without any time passing."""
RANDOM: Final = "random"

DEEP: Final = (("vault", "free"), ("aws", "two keys"), ("azure", "free"))
DEEP_TOO: Final = ("vault+aws", "free")
"""Settings in which all pairs are gone through, the latter for scenarios about a replica. In all others: each
single deed, and random ones."""
PARTS: Final = 8
"""Jobs into which the pairs of one scenario in one setting are cut, by their first deed."""
BATCH: Final = 250
"""Random executions that make one job."""
BATCHES: Final = 1
EXAMPLES: Final = 60


@dataclass(slots=True)
class Tally:
    """What came of many executions."""

    executions: int = 0
    known: int = 0
    """Of these, how many led to a world whose end was known."""
    harms: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    """By what is wrong, with numbers left out: the shortest execution that shows it."""

    def add(self, job: Job, execution: Execution) -> None:
        self.executions += 1
        self.known += execution.known
        if broken := execution.broken:
            self.harms[broken.harm] += 1
            text = f"{job.scenario} / {job.stores} / {job.nature}: {re.sub('[0-9]+', '#', str(broken))[:150]}"
            self._keep(text, f"{job.where} / {show_plan(execution.plan)}")

    def merge(self, other: Tally) -> None:
        self.executions += other.executions
        self.known += other.known
        self.harms += other.harms
        for text, example in other.examples.items():
            self._keep(text, example)

    def _keep(self, text: str, example: str) -> None:
        if text in self.examples or len(self.examples) < EXAMPLES:
            self.examples[text] = min(self.examples.get(text, example), example, key=len)


@dataclass(frozen=True, slots=True)
class Job:
    """Some executions of one scenario in one setting."""

    scenario: str
    stores: str
    nature: str
    kind: str
    part: int = 0
    share: float = 1.0
    seed: int = 1

    @property
    def where(self) -> str:
        return f"{self.scenario} / {self.stores} / {self.nature}"


def makes_sense(scenario: Scenario, stores: str, nature: Nature) -> bool:
    """Some scenarios need a replica, or an issuer that can do what they are about."""
    if scenario.replica and "+" not in stores:
        return False
    about = scenario.name
    if not nature.registry or nature.model is not Model.MINT:
        # No verification that could fail, no list, no key that a person could have made besides.
        return not any(word in about for word in ("poisoned", "orphan", "edit"))
    return True


def jobs(*, share: float = 1.0, seed: int = 1, only: str = "", deep: bool = False) -> Iterator[Job]:
    """All of the work, the longest first.

    Parameters:
        only: scenarios and settings with this in their name, as `due twice / vault+aws / slow`.
        deep: pairs in every setting.
    """
    places = [
        (scenario, stores, nature)
        for scenario in ALL.values()
        for stores in STORES
        for nature in NATURES
        if makes_sense(scenario, stores, NATURES[nature]) and only in f"{scenario.name} / {stores} / {nature}"
    ]
    for scenario, stores, nature in places:
        place = (stores, nature)
        if scenario not in CROWDED and (deep or place in DEEP or (scenario.replica and place == DEEP_TOO)):
            for part in range(PARTS):
                for kind in (FAULTS,) if scenario in ALONE else (SWITCHES, SHUTTLE):
                    yield Job(scenario.name, stores, nature, kind, part, share, seed)
    for scenario, stores, nature in places:
        yield Job(scenario.name, stores, nature, SINGLE, 0, share, seed)
        for part in range(BATCHES):
            yield Job(scenario.name, stores, nature, RANDOM, part, share, seed)


def work(job: Job) -> tuple[Job, Tally]:
    """Does one job."""
    tally = Tally()
    for execution in results(job):
        tally.add(job, execution)
    return job, tally


def results(job: Job) -> Iterator[Execution]:
    """The executions of one job, one after the other."""
    try:
        case = _case(job.scenario, job.stores, job.nature)
    except Exception as error:  # noqa: BLE001 - an engine that can not even be led to the beginning
        broken = Broken(Harm.STUCK, f"{type(error).__name__}: {error}")
        broken.__cause__ = error
        broken = error if isinstance(error, Broken) else broken
        yield Execution((), [], broken, [], known=False)
        return
    dice = random.Random(f"{job}")
    if job.kind == RANDOM:
        for number in range(BATCH):
            if dice.random() < job.share:
                execution = execute(case, Dice(f"{job.seed} {job.where} {job.part} {number}"))
                yield _shortened(case, execution) if execution.broken else execution
        return
    bare = execute(case, Planned())
    plans = list(successors(bare, job.kind))
    if job.kind == SINGLE:
        yield bare
        for plan in plans:
            if dice.random() < job.share:
                yield execute(case, Planned(plan))
        return
    depth = 3 if job.kind == SHUTTLE else 2
    rare = job.share ** (1 / depth)
    for plan in plans[job.part :: PARTS]:
        if dice.random() < rare:
            yield from _deeper(job, case, plan, depth - 1, dice, rare)


def _deeper(job: Job, case: Case, plan: Plan, more: int, dice: random.Random, rare: float) -> Iterator[Execution]:
    """Every plan with so many deeds more."""
    execution = execute(case, Planned(plan))
    if not more:
        yield execution
        return
    for longer in successors(execution, job.kind):
        if dice.random() < rare:
            yield from _deeper(job, case, longer, more - 1, dice, rare)


@lru_cache(maxsize=2)
def _case(scenario: str, stores: str, nature: str) -> Case:
    return Case(ALL[scenario], Setting(tuple(stores.split("+")), NATURES[nature]))


def _shortened(case: Case, execution: Execution) -> Execution:
    """The same harm with as few deeds as can be found by leaving out one after the other."""
    shortest = execution
    for deed in reversed(execution.plan):
        fewer = tuple(kept for kept in shortest.plan if kept != deed)
        tried = execute(case, Planned(fewer))
        if tried.broken and execution.broken and tried.broken.harm is execution.broken.harm:
            shortest = tried
    return shortest


def replayed(text: str) -> Execution:
    """One execution again, as a story. Raises ValueError for what names none."""
    parts = [part.strip() for part in text.split(" / ")]
    if len(parts) != 4 or parts[0] not in ALL or parts[2] not in NATURES:
        raise ValueError(f"{text!r} is not `scenario / stores / issuer / plan`")
    case = _case(parts[0], parts[1], parts[2])
    return execute(case, Planned(read_plan(parts[3])), tell=True)
