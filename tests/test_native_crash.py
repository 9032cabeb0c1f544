"""A native rotation with a crash, an error or a lost answer at every call: the service retries, sweeps go on, nothing is lost.

The primary store here is the reference store with a service that rotates by itself: it registers a version without a
value, calls the steps one after the other, and when one fails all of them again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from providers.issuers.memory import MemoryIssuer
from providers.stores.memory import MemoryStore, MemoryVault
from rotation.engine import Engine, Outcome
from rotation.errors import Code, Trouble
from rotation.model import Credential, Entry, Policy, SecretValue, ServiceRotation, Version
from rotation.policy import written
from rotation.ports import SecretStore
from rotation.situation import Stop
from tests.world import ENTRY, SWEEPS, Crash, World

RETRIES = 2
STEPS = (Stop.STAGED, Stop.VERIFIED, Stop.PROMOTED)


@dataclass(eq=False)
class RotatingVault(MemoryVault):
    """A vault whose service rotates: versions go by their tokens, as in Secrets Manager."""

    begun: str | None = None
    changed_at: datetime | None = None
    asked: list[str] = field(default_factory=list)
    """Tokens of rotations that the service has to do."""

    def add_version(self, entry: object, token: str | None, credential: Credential, **known: object) -> Version:
        version = super().add_version(entry, token, credential, **known)  # type: ignore[arg-type]
        if token is None:
            return version
        named = replace(version, id=token)
        entry.versions[-1] = named  # type: ignore[attr-defined]
        return named


class RotatingStore(MemoryStore):
    """A client of it."""

    _vault: RotatingVault

    def observe(self, entry: str) -> Entry:
        seen = super().observe(entry)
        service = ServiceRotation(enabled=True, begun=self._vault.begun, idle_since=self._vault.changed_at)
        return replace(seen, service=service)

    def stage(self, entry: str, token: str, credential: Credential, *, key_id: str | None) -> None:
        self._hook("before label")  # the label moves with the value, and not without it
        self._vault.begun, self._vault.changed_at = None, self._now()
        super().stage(entry, token, credential, key_id=key_id)

    def discard(self, entry: str, pending: Version) -> None:
        super().discard(entry, pending)
        if self._vault.begun == pending.id:
            self._vault.begun = None

    def start_rotation(self, entry: str, token: str) -> None:
        self._hook("before start_rotation")
        found = self._vault.entries[entry]
        waiting = found.pending is not None and found.pending is not found.current
        if waiting or self._vault.begun not in (None, token):
            raise Trouble(Code.CONFLICT, self.name, f"{entry}: a rotation is begun")
        self._vault.begun, self._vault.changed_at = token, self._now()
        self._vault.asked.append(token)
        self._hook("after start_rotation")

    def set_rotation(self, entry: str, every: timedelta | None) -> None:
        """Nothing: it is on."""

    @contextmanager
    def rotating(self, entry: str, token: str, right: SecretValue) -> Iterator[None]:
        yield


@dataclass
class NativeWorld(World):
    """A world whose primary store's service starts what is due."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.policy: Policy = replace(self.policy, native=True)
        primary = self.stores[0]
        self.service = RotatingVault()
        self.vaults[primary] = self.service
        for name in self.stores:
            store = MemoryStore(name, self.vaults[name], self.clock.now)
            if name == primary:
                store.create(ENTRY, written(self.policy))
            else:
                store.set_policy(ENTRY, written(self.policy))

    def engine(self) -> Engine:
        usual = super().engine().outside
        primary = self.stores[0]
        stores: dict[str, SecretStore] = dict(usual.stores)
        stores[primary] = RotatingStore(primary, self.service, self.clock.now, self._hook_of(primary))
        issuer = usual.issuers["vendor"]
        assert isinstance(issuer, MemoryIssuer)
        return Engine(stores, {"vendor": issuer}, usual.places, self.clock, self.trail, usual.tokens)

    def begin(self) -> None:
        """The service's own schedule, or somebody's button."""
        store = RotatingStore(self.stores[0], self.service, self.clock.now)
        with contextlib.suppress(Trouble):
            store.start_rotation(ENTRY, self.engine().outside.tokens())

    def serve(self) -> None:
        """What the service does of what it was asked for: steps, and all of them again."""
        while self.service.asked:
            token = self.service.asked.pop(0)
            any(all(self.step(token, stop) for stop in STEPS) for _ in range(RETRIES + 1))

    def step(self, token: str, stop: Stop) -> bool:
        """One invocation; one that dies is one that failed."""
        with contextlib.suppress(Crash):
            return bool(self.engine().step(self.target, token, stop, patience=timedelta(minutes=5)).achieved)
        return False

    def sweep(self) -> Outcome:
        outcome = super().sweep()
        self.serve()
        return outcome

    def sweep_until_quiet(self) -> Outcome:
        outcome = self.sweep()
        for minutes in (*SWEEPS, 25 * 60, 25 * 60):
            self.clock.move(timedelta(minutes=minutes))
            outcome = self.sweep()
        return outcome


Scenario = Callable[[NativeWorld], object]


def scheduled(world: NativeWorld) -> None:
    world.clock.move(timedelta(days=30))
    world.begin()
    world.serve()
    world.clock.move(timedelta(hours=25))
    world.sweep()


def missed(world: NativeWorld) -> None:
    world.clock.move(timedelta(days=31, minutes=1))
    world.sweep()


def poisoned(world: NativeWorld) -> None:
    world.clock.move(timedelta(days=30))
    world.vendor.create_delay = timedelta(days=2)
    world.begin()
    world.serve()
    world.vendor.create_delay = timedelta(0)
    world.clock.move(timedelta(minutes=20))
    world.sweep()


def leaked_between_steps(world: NativeWorld) -> None:
    world.clock.move(timedelta(days=30))
    world.begin()
    (token,) = world.service.asked
    world.step(token, Stop.STAGED)
    world.emergency()
    world.serve()


def leaked_before_the_first_step(world: NativeWorld) -> None:
    world.clock.move(timedelta(days=30))
    world.begin()
    world.emergency()
    world.serve()


SCENARIOS: list[Scenario] = [scheduled, missed, poisoned, leaked_between_steps, leaked_before_the_first_step]


def prepare(stores: tuple[str, ...]) -> NativeWorld:
    world = NativeWorld(stores=stores)
    world.run()
    world.calls.clear()
    return world


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_without_faults_each_comes_to_its_end(scenario: Scenario) -> None:
    """Rotated, and what should be dead is; the first three by the service's own steps."""
    world = prepare(("vault",))
    before = world.handed_out()
    scenario(world)
    world.sweep_until_quiet()
    world.check_settled()
    assert world.handed_out() != before
    assert world.service.begun is None


@pytest.mark.parametrize(
    ("stores", "kind"),
    [(("vault",), "crash"), (("vault",), "error"), (("vault",), "unsure"), (("vault", "second"), "crash")],
)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_fault_at_every_call_heals_by_itself(scenario: Scenario, stores: tuple[str, ...], kind: str) -> None:
    """At each point: fault, then the service's retries and sweeps. No outage, no orphan, nothing stuck."""
    dry = prepare(stores)
    scenario(dry)
    points = len(dry.calls)
    assert points > 10
    for point in range(1, points + 1):
        world = prepare(stores)

        def once(count: int, call: str, world: NativeWorld = world, point: int = point) -> None:
            if count == point:
                world.fault = None
                if kind == "crash":
                    raise Crash(call)
                applied = call.startswith("after")
                raise Trouble(Code.UNAVAILABLE, "wire", "no answer", maybe_applied=kind == "unsure" or applied)

        world.fault = once
        with contextlib.suppress(Crash, Trouble):
            scenario(world)
        world.vendor.create_delay = timedelta(0)
        world.fault = None
        world.sweep_until_quiet()
        try:
            world.check_settled()
            assert None not in world.handed_out().values()
            assert world.service.begun is None, "the service could not begin another"
        except AssertionError as broken:
            told = f"{kind} at call {point} of {points}, {dry.calls[point - 1]!r}: {broken}"
            raise AssertionError(told) from None


def test_two_functions_at_the_same_step_mint_once() -> None:
    """An invocation that Lambda repeats while the first is still at work: a token mints once."""
    world = prepare(("vault",))
    world.clock.move(timedelta(days=30))
    world.begin()
    (token,) = world.service.asked
    minted = len(world.vendor.keys)
    done: list[bool] = []

    def meanwhile(_: int, call: str) -> None:
        if call == "before mint" and not done:
            done.append(False)
            done[0] = world.step(token, Stop.STAGED)

    world.fault = meanwhile
    first = world.step(token, Stop.STAGED)
    world.fault = None
    assert done, "the second came while the first was at its mint"
    assert len(world.vendor.keys) == minted + 1
    assert not (first and done[0] and world.service.begun)
    world.sweep_until_quiet()
    world.check_settled()
