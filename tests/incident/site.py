"""A stack of many secrets in memory, several processes after each other, and the calls that each makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from providers.issuers.memory import MemoryIssuer, MemoryVendor
from providers.stores.memory import MemoryStore, MemoryVault
from rotation import policy as policies
from rotation.assembly import Assembly
from rotation.declared import Config
from rotation.engine import Engine, Places, Target
from rotation.errors import Code, Trouble
from rotation.incident import gather as gathering
from rotation.incident import plan as plans
from rotation.incident import record as records
from rotation.incident.plan import Plan
from rotation.incident.record import Files, Incident
from rotation.incident.run import Runner, Tapped
from rotation.incident.selection import Selection
from rotation.model import Capabilities, Consumer, Model, Policy, Propagation
from rotation.ports import Notice, Record
from rotation.sections import OpenAIConfig, Owner, SecretsManagerConfig, VaultConfig
from rotation.situation import Order
from tests.world import FakeClock

VAULT = VaultConfig.model_validate({"kind": "hashicorp-vault", "address": "https://127.0.0.1:1"})
AWS = SecretsManagerConfig.model_validate({"kind": "aws-secrets-manager", "region": "eu-west-1"})


def issuer(admin: Mapping[str, str] | None = None, project: str = "proj_a", **more: Any) -> OpenAIConfig:
    reference = admin or {"env": "OPENAI_ADMIN_KEY"}
    return OpenAIConfig.model_validate({"kind": "openai", "project": project, "admin": reference, **more})


def policy(name: str, **changes: Any) -> Policy:
    usual = Policy(
        installation="acme",
        environment="test",
        name=name,
        store="vault",
        issuer="openai",
        owner="team",
        rotate_every=timedelta(days=30),
        grace=timedelta(hours=24),
    )
    return replace(usual, **changes)


@dataclass
class Trail:
    """Records of all processes, and who else hears them."""

    records: list[Record] = field(default_factory=list)

    def write(self, record: Record) -> None:
        self.records.append(record)


@dataclass
class Switch:
    """What an engine writes its records to; may be tapped later."""

    auditor: Any

    def write(self, record: Record) -> None:
        self.auditor.write(record)


@dataclass
class Site:
    """The services, which outlive every process."""

    policies: Sequence[Policy]
    root: Path
    stores: Mapping[str, Any] = field(default_factory=lambda: {"vault": VAULT})
    issuers: Mapping[str, Any] = field(default_factory=lambda: {"openai": issuer()})
    models: Mapping[str, Model] = field(default_factory=dict)
    """By issuer, where it is not MINT."""

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.vaults = {name: MemoryVault() for name in self.stores}
        self.vendors = {name: MemoryVendor(self.clock.now) for name in self.issuers}
        self.trail = Trail()
        self.notices: list[Notice] = []
        self.calls: Counter[tuple[str, str]] = Counter()
        self.fault: Callable[[int, str, str], None] | None = None
        self.away: set[str] = set()
        """Stores that do not answer."""
        self.passed = 0
        self.serial = 0
        self.config = Config(
            installation="acme",
            environment="test",
            stores=self.stores,
            issuers=self.issuers,
            owners={one.owner: Owner.model_validate({}) for one in self.policies},
            policies=tuple(self.policies),
        )
        for one in self.policies:
            for store in one.stores:
                MemoryStore(store, self.vaults[store], self.clock.now).create(
                    self.entry(one.name), policies.written(one)
                )
            if self.models.get(one.issuer) is not Model.MANUAL:
                assert self.process().engine.run(self.target(one.name)).trouble is None
        self.calls.clear()
        self.passed = 0

    # --- processes -------------------------------------------------------------------------------

    def process(self) -> Assembly:
        """A new one: clients of its own, no memory of earlier ones."""

        def hook(service: str) -> Callable[[str], None]:
            def passed(call: str) -> None:
                self.passed += 1
                if service in self.away:
                    raise Trouble(Code.UNAVAILABLE, service, "does not answer")
                if call.startswith("before "):
                    self.calls[service, call.removeprefix("before ")] += 1
                if self.fault:
                    self.fault(self.passed, service, call)

            return passed

        def token() -> str:
            self.serial += 1
            return f"token{self.serial:027d}"

        stores = {name: MemoryStore(name, vault, self.clock.now, hook(name)) for name, vault in self.vaults.items()}
        issuers = {
            name: MemoryIssuer(name, vendor, self.capabilities(name), hook(name))
            for name, vendor in self.vendors.items()
        }
        primaries = {one.name: one.store for one in self.policies}

        def locate(_: str, name: str) -> Target | None:
            return Target(primaries[name], self.entry(name)) if name in primaries else None

        places = Places(lambda store, environment, name: f"{environment}/{name}", locate)
        self.switch = Switch(self.trail)
        engine = Engine(stores, issuers, places, self.clock, self.switch, token)
        return Assembly(self.config, engine, stores, issuers, places, self.clock, notifier=self)

    def capabilities(self, name: str) -> Capabilities:
        model = self.models.get(name, Model.MINT)
        spread = Propagation(in_a_row=2, interval=timedelta(seconds=1), timeout=timedelta(minutes=1))
        return Capabilities(model=model, revokes=model is Model.MINT, tells_last_use=True, create=spread, revoke=spread)

    def tell(self, notice: Notice) -> None:
        self.notices.append(notice)

    # --- incidents -------------------------------------------------------------------------------

    @property
    def files(self) -> Files:
        return Files(self.root / "incidents")

    def plan(self, selection: Selection, assembly: Assembly | None = None, **more: Any) -> Plan:
        a = assembly or self.process()
        return plans.make(a, selection, gathering.gather(a, selection), **more)

    def begin(self, selection: Selection, identity: str = "2026-01-01-0000-ab12", **more: Any) -> Incident:
        """The plan, confirmed and written down."""
        incident = records.begin(
            self.plan(selection, **more),
            [],
            identity=identity,
            installation="acme",
            environment="test",
            stack="Pulumi.test.yaml",
            began_at=self.clock.now(),
            ran_by="oncall@laptop",
        )
        self.files.save(incident)
        return incident

    def run(self, incident: Incident, *, patience: timedelta = timedelta(minutes=10), workers: int = 1) -> Runner:
        """One process that carries it out."""
        runner = Runner(
            self.process(), incident, save=lambda: self.files.save(incident), patience=patience, workers=workers
        )
        self.switch.auditor = Tapped(self.trail, runner.heard)
        runner.run()
        return runner

    def resume(self, identity: str = "2026-01-01-0000-ab12", **more: Any) -> Incident:
        """Another process, which has the file alone."""
        incident = self.files.load(identity)
        incident.resumed_at.append(self.clock.now())
        self.run(incident, **more)
        return incident

    def sweep(self) -> None:
        """Another process that takes every secret as far as it goes."""
        a = self.process()
        for one in self.policies:
            a.engine.run(self.target(one.name), Order())

    # --- what is there ---------------------------------------------------------------------------

    def entry(self, name: str) -> str:
        return f"test/{name}"

    def target(self, name: str) -> Target:
        return Target(next(one.store for one in self.policies if one.name == name), self.entry(name))

    def value(self, name: str, store: str | None = None) -> str:
        """What a consumer reads now."""
        where = store or self.target(name).store
        held = MemoryStore(where, self.vaults[where], self.clock.now).handed_out(self.entry(name))
        assert held is not None
        return held.fields["value"].reveal()

    def accepted(self, value: str, issuer: str = "openai") -> bool:
        return self.vendors[issuer].accepts(value)

    def live(self) -> int:
        return sum(len(vendor.live()) for vendor in self.vendors.values())

    def values(self) -> list[str]:
        """Everything that was ever minted."""
        return [key.value for vendor in self.vendors.values() for key in vendor.keys]


def consumer(name: str, minutes: int = 15) -> Consumer:
    return Consumer(name, timedelta(minutes=minutes))
