"""A small world for engine tests: stores and issuer in memory, a clock, a consumer, and the invariants.

Every outgoing call of the engine passes through `World.hook`, which is where faults are injected and
where the invariants are checked: after every single call, not just at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from providers.issuers.memory import MemoryIssuer, MemoryVendor
from providers.stores.memory import MemoryStore, MemoryVault
from rotation import orphans
from rotation import policy as policies
from rotation.engine import Engine, Outcome, Places, Target
from rotation.errors import Code, Trouble
from rotation.model import Capabilities, Credential, Drain, Model, Policy, Propagation
from rotation.ports import Record
from rotation.situation import Order

START = datetime(2026, 1, 1, tzinfo=UTC)
SWEEPS = (1, 5, 16, 16, 60, 6 * 60, 25 * 60, 60, 25 * 60, 60)
"""Minutes between sweeps: past every claim, the life of an attempt, a back-off, and two grace periods."""
NAME = "support-copilot-chat"
ENTRY = f"test/{NAME}"


class Crash(BaseException):
    """The process dies here. Not an Exception: nothing may catch it."""


@dataclass
class FakeClock:
    """Time that moves only when it is told to, or slept through."""

    at: datetime = START

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - START).total_seconds()

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    def move(self, by: timedelta) -> None:
        self.at += by


@dataclass
class Trail:
    """An auditor that keeps records in memory."""

    records: list[Record] = field(default_factory=list)

    def write(self, record: Record) -> None:
        self.records.append(record)

    def events(self) -> list[str]:
        return [record.event for record in self.records]


class BrokenError(AssertionError):
    """An invariant does not hold."""


@dataclass
class World:
    """One secret in one or several stores, its issuer, and a consumer per store that reads afresh each time."""

    stores: tuple[str, ...] = ("vault",)
    rotate_every: timedelta = timedelta(days=30)
    grace: timedelta = timedelta(hours=24)
    create_delay: timedelta = timedelta(0)
    revoke_delay: timedelta = timedelta(0)
    max_keys: int | None = None
    allow_outage: bool = False
    drain: Drain = field(default_factory=Drain)
    fenced: bool = True
    keeps_key_id: bool = True
    model: Model = Model.MINT
    capabilities: Capabilities | None = None
    prints: Callable[[Credential, str | None], tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.vaults = {name: MemoryVault() for name in self.stores}
        self.vendor = MemoryVendor(self.clock.now, self.max_keys, self.create_delay, self.revoke_delay)
        self.vendor.model = self.model
        self.calls: list[str] = []
        self.fault: Callable[[int, str], None] | None = None
        self.denied: tuple[str, tuple[str, ...]] = ("", ())
        """A store, and what it refuses there."""
        self.opened: dict[str, type[MemoryStore]] = {}
        """Stores that a process opens as something else than they are."""
        self.trail = Trail()
        self.serial = 0
        self.settled = False
        self.policy = Policy(
            installation="acme",
            environment="test",
            name=NAME,
            store=self.stores[0],
            replicas=self.stores[1:],
            issuer="vendor",
            owner="team",
            rotate_every=self.rotate_every,
            grace=self.grace,
            drain=self.drain,
        )
        for name in self.stores:
            MemoryStore(name, self.vaults[name], self.clock.now).create(ENTRY, policies.written(self.policy))

    def hook(self, call: str) -> None:
        """Passed by every call, before and after. Checks the world, then lets a fault happen."""
        self.check()
        self.calls.append(call)
        if self.fault:
            self.fault(len(self.calls), call)

    def engine(self) -> Engine:
        """A new process: clients of its own, no memory of earlier runs."""
        stores = {
            n: self.opened.get(n, MemoryStore)(
                n, v, self.clock.now, self._hook_of(n), fenced=self.fenced, keeps_key_id=self.keeps_key_id
            )
            for n, v in self.vaults.items()
        }
        capabilities = self.capabilities or Capabilities(
            model=self.model,
            slots=("key1", "key2") if self.model is Model.SLOTS else (),
            revokes=self.model in (Model.MINT, Model.SLOTS),
            tells_last_use=True,
            max_keys=self.max_keys,
            create=Propagation(in_a_row=2, interval=timedelta(seconds=1), timeout=timedelta(minutes=1)),
            revoke=Propagation(in_a_row=2, interval=timedelta(seconds=1), timeout=timedelta(minutes=1)),
        )
        issuer = MemoryIssuer("vendor", self.vendor, capabilities, self.hook)

        def token() -> str:
            self.serial += 1
            return f"token{self.serial:027d}"

        places = Places(lambda store, environment, name: f"{environment}/{name}", lambda environment, name: None)
        return Engine(stores, {"vendor": issuer}, places, self.clock, self.trail, token, prints=self.prints)

    def _hook_of(self, store: str) -> Callable[[str], None]:
        def hook(call: str) -> None:
            self.hook(call)
            denied, operations = self.denied
            if store == denied and call.removeprefix("before ") in operations:
                raise Trouble(Code.DENIED, store, f"{call} is not allowed")

        return hook

    @property
    def target(self) -> Target:
        return Target(self.stores[0], ENTRY)

    def run(self, order: Order | None = None) -> Outcome:
        return self.engine().run(self.target, order)

    def emergency(self, contain_after: timedelta | None = None) -> Outcome:
        engine = self.engine()
        engine.condemn(self.target, contain_after=contain_after)
        return engine.run(self.target, Order(take_over=True))

    def sweep(self) -> Outcome:
        """What cron does: a fresh process, orphans first, then the secret."""
        engine = self.engine()
        listed = orphans.listings(engine.outside.issuers, ["vendor"], self.clock)
        for orphan, seen in list(orphans.unclaimed(listed, [(self.target, self.policy)], engine, self.clock)):
            born = orphan.key.created_at or self.clock.now()
            engine.adopt_orphan(orphan.target, seen, orphan.token, orphan.key.key_id, born)
        return engine.run(self.target, Order(listed=listed.ids("vendor"), listed_at=listed.at))

    def sweep_until_quiet(self) -> Outcome:
        """Sweeps for a few days, and no person."""
        outcome = self.sweep()
        for minutes in SWEEPS:
            self.clock.move(timedelta(minutes=minutes))
            outcome = self.sweep()
        return outcome

    # --- invariants ------------------------------------------------------------------------------

    def handed_out(self) -> Mapping[str, str | None]:
        out = {}
        for name, vault in self.vaults.items():
            credential = MemoryStore(name, vault, self.clock.now).handed_out(ENTRY)
            out[name] = credential.fields["value"].reveal() if credential else None
        return out

    def check(self) -> None:
        """Invariant 1: what any store hands out is accepted, at every instant; a declared containment excepted."""
        if self.allow_outage:
            return
        contained = {r.key_id for r in self.trail.records if r.event == "contain"}
        declared = {key.value for key in self.vendor.keys if key.key_id in contained}
        for store, value in self.handed_out().items():
            if value is not None and value not in declared and not self.vendor.accepts(value):
                message = f"outage: {store} hands out a credential that is refused; calls: {self.calls[-8:]}"
                raise BrokenError(message)

    def live(self) -> set[str]:
        return {key.value for key in self.vendor.live()}

    def check_settled(self) -> None:
        """Invariant 2, once all work is done and every grace is over: live keys are what stores hand out."""
        self.check()
        handed = set(self.handed_out().values())
        if self.live() != handed:
            message = f"live keys {sorted(self.live())}, handed out {handed}"
            raise BrokenError(message)

    def key_values(self) -> Iterator[str]:
        return (key.value for key in self.vendor.keys)
