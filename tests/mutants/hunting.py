"""Looks for what shows a fault: an execution of the simulation that breaks an invariant, or a test that fails."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.mutants.catalogue import MUTANTS, Cue, Mutant, Race
from tests.mutants.patching import StaleError
from tests.simulation.explore import FAULTS, NATURES, RANDOM, SHUTTLE, SINGLE, SWITCHES, Job, jobs, replayed, results
from tests.simulation.scenarios import ALL, Case, Execution, execute
from tests.simulation.wire import Deed, Step, show_plan
from tests.simulation.world import Broken, Harm, Setting

MOST: Final = 20_000
"""Executions after which a fault counts as not caught."""
SHARES: Final = (0.02, 0.2, 1.0)
"""Of the executions with several deeds: first a few from everywhere, or the hunt would stay at their beginnings."""
FALLS: Final = 20
"""So often may the code fall over before it is clear that the edit is no fault of the engine, but nonsense."""


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a hunt."""

    name: str
    harm: str = ""
    """Empty when it was not caught."""
    executions: int = 0
    by: str = ""
    """The execution as `--replay` takes it, or the test."""
    why: str = ""
    """What was broken; for what was not caught, why not."""

    @property
    def caught(self) -> bool:
        return bool(self.harm)


class Guided:
    """Stops those who act where it was told to, one cue after the other."""

    def __init__(self, cues: tuple[Cue, ...]) -> None:
        self._cues = list(cues)

    def __call__(self, number: int, step: Step) -> Deed | None:
        if not self._cues:
            return None
        actor, call, deed = self._cues[0]
        if step.actor != actor or call not in f"{step.call} at {step.service}":
            return None
        del self._cues[0]
        return Deed.read(deed) if deed else None

    def over(self, number: int) -> bool:
        return not self._cues


def stale(name: str) -> str:
    """Why a fault can not be put into the code as it is. Empty when it can; this process has it then."""
    try:
        MUTANTS[name].put()
    except StaleError as error:
        return f"stale: {error}"
    except Exception as error:  # noqa: BLE001 - whatever it is, there is no fault in the code now
        return f"stale: {type(error).__name__}: {error}"
    return ""


def hunt(name: str, most: int = MOST) -> Found:
    """Puts the fault into this process and looks for what shows it."""
    fault = MUTANTS[name]
    if problem := stale(name):
        return Found(name, why=problem)
    if fault.test:
        failure = _failure(fault.test)
        return Found(name, "a test fails", 1, fault.test, failure) if failure else Found(name, why="the test passes")
    count, falls, fell = 0, 0, ""
    for where, execution in _executions(fault):
        count += 1
        broken = execution.broken
        if broken and broken.__cause__ is None:
            return Found(name, broken.harm, count, f"{where} / {show_plan(execution.plan)}", str(broken))
        if broken:
            falls, fell = falls + 1, f"stale: it falls over: {broken.__cause__!r}"
        if falls >= FALLS or count >= most:
            break
    return Found(name, executions=count, why=fell or "no invariant was broken")


def control(found: Found) -> str:
    """What is wrong when the same is done without the fault. Empty, or it was not the fault that was caught."""
    fault = MUTANTS[found.name]
    if fault.test:
        return _failure(fault.test)
    for race in fault.races:
        if found.by.startswith(f"{race.where} / "):
            return str(_raced(race).broken or "")
    return str(replayed(found.by).broken or "")


def _executions(fault: Mutant) -> Iterator[tuple[str, Execution]]:
    for race in fault.races:
        yield race.where, _raced(race)
    for job in _in_order(fault):
        for execution in results(job):
            yield job.where, execution


def _in_order(fault: Mutant) -> Iterator[Job]:
    """Every single deed where it is looked for; then several."""
    for words in fault.look_in:
        yield from (job for job in jobs(only=words) if job.kind == SINGLE)
    for share in SHARES:
        for words in fault.look_in:
            for kind in (FAULTS, SWITCHES, SHUTTLE, RANDOM):
                yield from (job for job in jobs(only=words, deep=True, share=share) if job.kind == kind)


def _raced(race: Race) -> Execution:
    scenario, stores, nature = race.where.split(" / ")
    try:
        case = Case(ALL[scenario], Setting(tuple(stores.split("+")), NATURES[nature]))
    except Exception as error:  # noqa: BLE001 - an engine that can not even be led to the beginning
        broken = Broken(Harm.STUCK, f"{type(error).__name__}: {error}")
        broken.__cause__ = error
        return Execution((), [], broken, [], known=False)
    return execute(case, Guided(race.cues))


class _Failures:
    """A pytest plugin that notes which checks failed. An error that no check raised is none."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pytest_exception_interact(self, call: pytest.CallInfo[object]) -> None:
        error = call.excinfo
        if error is not None and call.when == "call" and issubclass(error.type, AssertionError | pytest.fail.Exception):
            self.told.append((str(error.value).splitlines() or ["a check fails"])[0])


def _failure(test: str) -> str:
    """What a test's failed check says. Empty when none failed."""
    failures = _Failures()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pytest.main([test, "-p", "no:xdist"], plugins=[failures])
    return failures.told[0] if failures.told else ""
