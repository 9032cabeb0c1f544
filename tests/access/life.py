"""The life of secrets, each part of it done by the persona whose work it is, with that persona's login and no other.

Every function here fails when something that its persona is for does not come about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from providers.issuers.memory import MemoryIssuer, MemoryVendor
from rotation import access, checkup, status, sweep
from rotation.access import Access, Persona
from rotation.assembly import Assembly
from rotation.config import parse
from rotation.declared import Config, entry_name
from rotation.engine import Engine, Places, Target
from rotation.errors import Code, Trouble
from rotation.model import Credential, Policy, SecretValue
from rotation.names import KeyName
from rotation.policy import written
from rotation.ports import SecretStore
from rotation.provision import Applied, Provisioner
from rotation.situation import Absent
from tests.world import FakeClock, Trail

CHAT, BATCH = "support-copilot-chat", "support-copilot-batch"
ADMIN = "keyturn-openai-admin"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def declared(stores: Mapping[str, Any], **about_chat: Any) -> dict[str, Any]:
    """A stack with two secrets; the first also in the second store, if there is one."""
    first, *others = stores
    usual = {"store": first, "issuer": "openai", "owner": "support-platform", "rotateEvery": "30d"}
    return {
        "installation": "acme",
        "environment": "prod",
        "stores": dict(stores),
        "issuers": {"openai": {"kind": "openai", "project": "p", "admin": {"store": first, "name": ADMIN}}},
        "owners": {"support-platform": {}, "support-old": {}},
        "secrets": [
            {"name": CHAT, **usual, "replicas": others, "tags": {"team": "support"}, **about_chat},
            {"name": BATCH, **usual},
        ],
    }


@dataclass
class Site:
    """One kind of store with a stack declared on it. Subclasses bring the service."""

    config: Config
    clock: FakeClock
    vendor: MemoryVendor = field(init=False)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.vendor = MemoryVendor(self.clock.now)

    # --- what a kind of store brings -------------------------------------------------------------

    def store(self, name: str, persona: Persona | None) -> SecretStore:
        """A fresh client with a persona's login; None: with an administrator's."""
        raise NotImplementedError

    def put_by_hand(self, store: str, entry: str, value: str) -> None:
        """What a person does in a console."""
        raise NotImplementedError

    def remove(self, store: str, entry: str) -> None:
        """For good: as if it had never been."""
        raise NotImplementedError

    # --- what all have in common -----------------------------------------------------------------

    def policy(self, name: str) -> Policy:
        return next(policy for policy in self.config.policies if policy.name == name)

    def entry(self, policy: Policy, store: str | None = None) -> str:
        return entry_name(self.config.stores[store or policy.store], policy.environment, policy.name)

    def needs(self, persona: Persona, *names: str, mints: bool = False) -> Mapping[str, Access]:
        policies = [policy for policy in self.config.policies if not names or policy.name in names]
        return access.needs(self.config, persona, policies, mints=mints)

    def assembly(self, persona: Persona | None) -> Assembly:
        """A process of a persona's. Its issuer asks for the administrative credential as ours do."""
        stores = {name: self.store(name, persona) for name in self.config.stores}

        def admin(call: str) -> None:
            if call in ("before mint", "before keys", "before revoke", "before last_use"):
                try:
                    stores[next(iter(stores))].current(ADMIN)
                except Trouble as trouble:
                    raise Trouble(Code.DENIED, "openai", f"admin credential: {trouble}") from None

        issuers = {"openai": MemoryIssuer("openai", self.vendor, hook=admin)}
        places = Places(
            lambda store, environment, name: entry_name(self.config.stores[store], environment, name),
            lambda environment, name: None,
        )
        engine = Engine(stores, issuers, places, self.clock, Trail())
        return Assembly(self.config, engine, stores, issuers, places, self.clock)

    def provisioner(self, persona: Persona | None) -> Provisioner:
        made = self.assembly(persona)
        return Provisioner(made.engine, made.stores, made.issuers, made.places, made.clock, self.told.append)

    def target(self, name: str) -> Target:
        policy = self.policy(name)
        return Target(policy.store, self.entry(policy))

    def handed_out(self, name: str) -> dict[str, str]:
        """What consumers get now, by store."""
        policy = self.policy(name)
        return {
            store: self.store(store, None).current(self.entry(policy, store)).fields["value"].reveal()
            for store in policy.stores
        }

    def live(self) -> set[str]:
        return {key.value for key in self.vendor.live()}

    def seed(self) -> None:
        """What an administrator makes once by hand."""
        self.put_by_hand(next(iter(self.config.stores)), ADMIN, "sk-admin")


def site_config(stores: Mapping[str, Any], **about_chat: Any) -> Config:
    return parse(declared(stores, **about_chat))


# --- provision, as in production ---------------------------------------------------------------------


def provision(site: Site) -> None:
    """`pulumi up` with bootstrap function: create, refresh, update, put right, restore. No value is read or written."""
    policy, p = site.policy(CHAT), site.provisioner(Persona.PROVISION)
    before = replace(policy, smoke_test=True, owner="support-old", tags=(("team", "old"),))
    assert p.read(policy) is None, "an entry that is not there is told from one that may not be looked at"
    p.create(before, bootstrap="function")
    for store in policy.replicas:
        site.remove(store, site.entry(policy, store))
    assert p.read(before) == Applied(replace(before, replicas=())), "a replica that is not there is told as such"
    p.create(before, bootstrap="function")
    assert p.read(before) == Applied(before)
    p.update(before, policy, bootstrap="function")
    assert p.read(policy) == Applied(policy)
    opened = replace(policy, allowed_cidrs=(), allowed_vpces=())
    p.update(policy, opened, bootstrap="function")
    assert p.read(opened) == Applied(opened)
    p.update(opened, policy, bootstrap="function")
    for store in policy.stores:
        site.store(store, None).delete(site.entry(policy, store))
    assert p.read(policy) is None
    p.create(policy, bootstrap="function")
    assert any("has been restored" in told for told in site.told)
    assert p.read(policy) == Applied(policy)
    # Once it has a value, the same again.
    site.assembly(None).engine.run(site.target(CHAT))
    assert set(site.handed_out(CHAT)) == set(policy.stores)
    for store in policy.stores:
        site.store(store, None).delete(site.entry(policy, store))
    site.provisioner(Persona.PROVISION).create(policy, bootstrap="function")
    assert len(set(site.handed_out(CHAT).values())) == 1


# --- provision, as in development --------------------------------------------------------------------


def provision_and_mint(site: Site) -> None:
    """`pulumi up` with bootstrap apply, and `pulumi destroy`."""
    p, policy = site.provisioner(Persona.PROVISION), site.policy(CHAT)
    p.create(policy, bootstrap="apply")
    assert set(site.handed_out(CHAT).values()) == site.live()
    rounds(site, Persona.PROVISION)
    p.delete(policy, force_revoke=True)
    assert site.live() == set()
    assert p.read(policy) is None
    for store in policy.stores:
        site.remove(store, site.entry(policy, store))
    provision(site)


def rounds(site: Site, persona: Persona) -> None:
    """What a run may come to do with one secret that is there, whoever runs it."""
    engine, target, policy = site.assembly(persona).engine, site.target(CHAT), site.policy(CHAT)
    if not site.store(target.store, None).observe(target.entry).current:
        assert engine.rotate(target).achieved
    first = site.handed_out(CHAT)
    assert engine.rotate(target).achieved
    assert site.handed_out(CHAT).keys() == first.keys()
    assert site.handed_out(CHAT) != first
    # Something that nobody can explain lies there as pending: it is discarded, in every store.
    for store in policy.stores:
        garbage = Credential({"value": SecretValue("garbage")})
        site.store(store, None).stage(site.entry(policy, store), "0" * 32, garbage, key_id=None)
    outcome = engine.run(target)
    assert outcome.trouble is None
    assert site.store(target.store, None).observe(target.entry).pending is None
    # A person pastes the earlier value: in the primary it is known again and then replaced, in replicas put right.
    for store in policy.stores:
        site.put_by_hand(store, site.entry(policy, store), first[store])
        assert engine.run(target).trouble is None
        assert len(set(site.handed_out(CHAT).values())) == 1
        assert engine.rotate(target).achieved
    settle(site, persona)


def settle(site: Site, persona: Persona) -> None:
    """Retires what has drained, and shows it dead."""
    for _ in range(4):
        site.clock.move(2 * DAY)
        outcome = site.assembly(persona).engine.run(site.target(CHAT))
        assert outcome.trouble is None, outcome.trouble
    mine = f".prod-{CHAT}."
    assert {key.value for key in site.vendor.live() if mine in key.name} == set(site.handed_out(CHAT).values())


# --- rotate ------------------------------------------------------------------------------------------


def rotate(site: Site) -> None:
    """Sweeps: the first mint, what is due, what has drained, orphans; and what a run may meet."""

    def swept() -> None:
        assert sweep.sweep(site.assembly(Persona.ROTATE)) is sweep.Ended.DONE

    policy, target = site.policy(CHAT), site.target(CHAT)
    gone = site.assembly(Persona.ROTATE).engine.run(target).trouble
    assert gone is not None
    assert gone.code is Code.NOT_FOUND, "listed, and gone by now"
    site.store(target.store, None).create(target.entry, written(policy))
    absent = site.assembly(Persona.ROTATE).engine.observe(target).replicas.values()
    assert all(isinstance(look, Absent) and look.missing for look in absent), "not there yet, and told as such"
    sweep.sweep(site.assembly(Persona.ROTATE))
    site.provisioner(None).create(policy, bootstrap="function")
    site.clock.move(DAY)
    swept()
    first = site.handed_out(CHAT)
    assert len(set(first.values())) == 1
    assert first.keys() == set(policy.stores)
    site.clock.move(31 * DAY)
    swept()
    second = site.handed_out(CHAT)
    assert len(set(second.values())) == 1
    assert second != first
    orphan = MemoryIssuer("openai", site.vendor).mint(str(KeyName("acme", "prod", CHAT, "f" * 32)))
    site.clock.move(2 * DAY)
    swept()
    site.clock.move(2 * DAY)
    swept()
    assert orphan.credential.fields["value"].reveal() not in site.live()
    assert site.live() == set(site.handed_out(CHAT).values())
    rounds(site, Persona.ROTATE)


# --- respond -----------------------------------------------------------------------------------------


def respond(site: Site) -> None:
    """Status, verify, first mint, rotate, rollback, emergency: by name."""
    policy = site.policy(CHAT)
    made = site.assembly(Persona.RESPOND)

    def phase() -> status.Phase:
        return status.row(made.engine, site.target(CHAT), policy, site.clock.now(), made.issuers).phase

    assert phase() is status.Phase.NOT_APPLIED
    main = policy.store
    site.store(main, None).create(site.entry(policy), written(policy))
    absent = made.engine.observe(site.target(CHAT)).replicas.values()
    assert all(isinstance(look, Absent) and look.missing for look in absent), "not there yet, and told as such"
    site.provisioner(None).create(policy, bootstrap="function")
    assert phase() is status.Phase.EMPTY
    assert made.engine.rotate(site.target(CHAT)).achieved
    assert phase() is status.Phase.STEADY
    entries = [(store, site.entry(policy, store)) for store in policy.stores]
    held = checkup.held_by(made.stores, entries)
    assert all(finding.good for finding in checkup.verify(made.engine, made.issuers, site.target(CHAT), CHAT, held))
    leaked = site.handed_out(CHAT)
    assert made.engine.rotate(site.target(CHAT)).achieved
    assert made.engine.rollback(site.target(CHAT)).achieved
    assert site.handed_out(CHAT) == leaked
    outcome = made.engine.emergency(site.target(CHAT))
    assert outcome.achieved, outcome.trouble
    if not all(made.stores[store].features.compare_and_set for store in policy.stores):
        site.clock.move(HOUR)  # until then a write of an attempt that was under way could still come
        outcome = made.engine.emergency(site.target(CHAT))
    assert not outcome.unproven
    assert not set(leaked.values()) & site.live()
    rounds(site, Persona.RESPOND)


def attempts(store: SecretStore, entry: str) -> tuple[Callable[[], object], ...]:
    """What nobody may do with somebody else's entry."""
    credential = Credential({"value": SecretValue("x")})
    return (
        lambda: store.observe(entry),
        lambda: store.current(entry),
        lambda: store.stage(entry, "0" * 32, credential, key_id=None),
        lambda: store.record(entry, {"future.x": "a=b"}),
        lambda: store.set_policy(entry, {"owner": "x"}),
        lambda: store.delete(entry),
    )


@dataclass(frozen=True)
class Part:
    """A persona's work, and whether it mints as `pulumi up` does in development."""

    persona: Persona
    work: Callable[[Site], None]
    mints: bool = False

    def __str__(self) -> str:
        return self.persona.value + (", minting" if self.mints else "")


PARTS = (
    Part(Persona.PROVISION, provision),
    Part(Persona.PROVISION, provision_and_mint, mints=True),
    Part(Persona.ROTATE, rotate),
    Part(Persona.RESPOND, respond),
)
"""All that Keyturn does itself."""
