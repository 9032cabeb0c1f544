"""Every order of events, drawn by seeds: calls, reads, rotations, emergencies and an absent vault, step by step.

Calls are coroutines and reads are threads, and none goes a step unless the schedule says so: a read first takes what the vault
has at that moment, and lands some steps later. So each seed is one schedule, and the same every time.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from rotation.consumer import Secret, Unavailable, Value
from tests.consumer.test_secret import KEEP, TTL, RefusedError

SEEDS = 150
STEPS = 120


class Read:
    """One read that is under way, in a thread that waits for the schedule."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._may, self._has = threading.Semaphore(0), threading.Semaphore(0)
        self.over = False
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        self._may.acquire()
        work()
        self.over = True
        self._has.release()

    def step(self) -> None:
        """Goes on to the next pause, or to the end."""
        self._may.release()
        assert self._has.acquire(timeout=30)

    def pause(self) -> None:
        """Called by the read itself."""
        self._has.release()
        assert self._may.acquire(timeout=30)


@dataclass(eq=False)
class Call:
    """One call of the application, between having its value and using it."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    struck: int = 0
    """Emergencies that it is to get over: one before it whose old value is still held, or is being read; those since."""
    absent: bool = False
    """The vault was away at some time since then, or just before: it is not asked again at once."""
    waits: bool = False
    """It has a value and is about to use it."""


class Stage:
    """A vault, an issuer and an application, all of whose steps the seed decides."""

    def __init__(self, seed: int, *, leaves: bool) -> None:
        self.chance = random.Random(seed)
        self.leaves = leaves
        self.current, self.accepted = 1, {1}
        self.away = False
        self.now = 0.0
        self.reads: list[Read] = []
        self.read_now: Read | None = None
        self.taken = 0
        self.calls: dict[Call, asyncio.Task[str]] = {}
        self.failed: list[Call] = []
        self.excused: list[Call] = []
        """Failed while the vault was away: there was nothing yet, or what there was had died."""
        self.done = 0
        self.secret = Secret(
            self.read, ttl=TTL, keep=KEEP, monotonic=lambda: self.now, chance=self.chance.random, spawn=self.spawn
        )

    def spawn(self, work: Callable[[], None]) -> None:
        assert not self.reads, "two reads at once"
        self.reads.append(Read(work))

    def read(self) -> Value:
        if self.away:
            raise ConnectionError
        taken = self.taken = self.current
        assert self.read_now is not None
        self.read_now.pause()
        return Value(str(taken), str(taken))

    async def call(self, call: Call) -> str:
        async def work(value: Value) -> str:
            call.waits = True
            call.go.clear()
            await call.go.wait()
            call.waits = False
            if int(value.reveal()) not in self.accepted:
                raise RefusedError
            return value.reveal()

        return await self.secret.acall(work)

    # --- what can happen ---------------------------------------------------------------------------

    def begin(self) -> None:
        held = int(self.secret.status().version or 0)
        at_hand = {held, self.taken if self.reads else held} - {0}
        call = Call(absent=self.away or self.secret.status().failures > 0, struck=int(not at_hand <= self.accepted))
        self.calls[call] = asyncio.ensure_future(self.call(call))

    def use(self) -> None:
        if ready := [call for call in self.calls if call.waits]:
            self.chance.choice(ready).go.set()

    def go_on_reading(self) -> None:
        if self.reads:
            self.read_now = self.reads[0]
            self.read_now.step()
            if self.read_now.over:
                self.reads.clear()

    def rotate(self) -> None:
        self.current += 1
        self.accepted.add(self.current)

    def emergency(self) -> None:
        """The old ones are dead at once. One for each call: after two there is no value that a call could have had."""
        if not any(call.struck for call in self.calls):
            self.rotate()
            self.accepted = {self.current}
            for call in self.calls:
                call.struck += 1

    def wait(self) -> None:
        self.now += self.chance.choice([0.5, 5, 60, 290])

    def leave(self) -> None:
        if self.leaves:
            self.away = not self.away
            for call in self.calls:
                call.absent = True

    async def step(self) -> None:
        kinds = [self.begin, self.use, self.use, self.go_on_reading, self.go_on_reading]
        self.chance.choice([*kinds, self.rotate, self.emergency, self.wait, self.leave])()
        await self.settle()

    async def settle(self) -> None:
        """Lets every coroutine go on until it waits for the schedule."""
        for _ in range(12):
            await asyncio.sleep(0)
        for call in [call for call, task in self.calls.items() if task.done()]:
            task = self.calls.pop(call)
            self.done += 1
            if error := task.exception():
                lacked = call.absent and (call.struck or isinstance(error, Unavailable))
                (self.excused if lacked else self.failed).append(call)

    async def play(self) -> None:
        for _ in range(STEPS):
            await self.step()
        self.away = False
        while self.calls:
            self.now += 1
            self.go_on_reading()
            self.use()
            await self.settle()


@pytest.mark.parametrize("leaves", [False, True], ids=["vault there", "vault comes and goes"])
def test_no_call_fails_in_any_order_of_events(leaves: bool) -> None:
    """Rotations and emergencies. Only a call that needs a value just when the vault is away may fail."""
    done = excused = 0
    for seed in range(SEEDS):
        stage = Stage(seed, leaves=leaves)
        asyncio.run(stage.play())
        assert stage.failed == [], f"seed {seed}"
        done, excused = done + stage.done, excused + len(stage.excused)
    assert done > SEEDS * 10, "too little happened"
    assert bool(excused) is leaves, "nothing is shown by a vault that is never missed"


@pytest.mark.parametrize("seed", range(4))
def test_threads_that_the_machine_interleaves(seed: int) -> None:
    """Real threads, switched as often as it goes, each calling all the time through twenty emergencies and rotations."""
    stage = Stage(seed, leaves=False)
    secret = Secret(lambda: Value(str(stage.current), str(stage.current)), monotonic=lambda: stage.now)
    over, failures, done = threading.Event(), [], [0] * 6

    def work(value: Value) -> None:
        if int(value.reveal()) not in stage.accepted:
            raise RefusedError

    def run(number: int) -> None:
        while not over.is_set():
            try:
                secret.call(work)
            except RefusedError:
                failures.append(number)
            done[number] += 1

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(done))]
    try:
        for thread in threads:
            thread.start()
        for _ in range(20):
            stage.chance.choice([stage.rotate, stage.emergency])()
            stage.wait()
            reached = [count + 2 for count in done]  # of which one has begun since
            while any(count < enough for count, enough in zip(done, reached, strict=True)):
                over.wait(0.001)
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
        sys.setswitchinterval(usual)
    assert failures == []
