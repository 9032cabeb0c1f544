"""One secret in the simulated services, and the invariants, checked after every change."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Final

from rotation import orphans
from rotation import policy as policies
from rotation.engine import CALL_LIMIT, Engine, Outcome, Places, Target
from rotation.errors import Trouble
from rotation.journal import Why
from rotation.model import Credential, Drain, Ending, Model, Policy
from rotation.names import KeyName
from rotation.ports import Record, SecretStore
from rotation.situation import ATTEMPT_LIFE, Order
from tests.simulation.issuer import ENVIRONMENT, INSTALLATION, NAME, Issuer, Key, Nature, Regenerating, Vendor, last_use
from tests.simulation.stores import KINDS, Facts, Service, Store
from tests.simulation.wire import START, Box, Wire

ENTRY: Final = f"{ENVIRONMENT}/{NAME}"
DRAIN: Final = Drain(quiet_for=timedelta(hours=1), at_most=timedelta(days=2), then=Ending.REVOKE)
GRACE: Final = timedelta(hours=24)
EVERY: Final = timedelta(days=30)


class Harm(StrEnum):
    """What an execution can show to be wrong."""

    OUTAGE = "outage"
    """A store hands out what the issuer refuses, and no containment was declared."""
    ORPHAN = "orphan"
    """A key of ours lives that no store hands out, once all is settled."""
    STUCK = "stuck"
    """It does not settle, or what was asked for did not happen."""
    WRONGFUL = "wrongful revocation"
    """Not ours, or not yet, or not without more evidence."""
    FALSE_PROOF = "false proof"
    """A key counts as shown dead while it is accepted, or is verified in a way that spoils the evidence."""


class Broken(Exception):  # noqa: N818 - reads as what it is
    """An invariant does not hold."""

    def __init__(self, harm: Harm, message: str) -> None:
        super().__init__(f"{harm}: {message}")
        self.harm = harm


@dataclass(frozen=True)
class Setting:
    """Which services a world has."""

    stores: tuple[str, ...] = ("vault",)
    """Their kinds, the primary first."""
    nature: Nature = field(default_factory=Nature)
    grace: timedelta = GRACE
    drain: Drain = DRAIN
    bounded: bool = False
    """Whether every store carries out a write in time or never, compare-and-set or not."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{kind}-{number}" for number, kind in enumerate(self.stores, 1))

    @cached_property
    def policy(self) -> Policy:
        return Policy(
            installation=INSTALLATION,
            environment=ENVIRONMENT,
            name=NAME,
            store=self.names[0],
            replicas=self.names[1:],
            issuer="issuer",
            owner="team",
            rotate_every=EVERY,
            grace=self.grace,
            drain=self.drain,
        )


@dataclass(eq=False)
class World:
    """Services, an engine for whoever asks, consumers of every store, and what they would notice."""

    setting: Setting
    wire: Wire
    services: dict[str, Service]
    vendor: Vendor
    serial: int = 0
    verified: frozenset[str] = frozenset()
    """Values that were accepted when they were shown alone."""
    out: Mapping[str, datetime] = field(default_factory=dict)
    """By value that no store hands out any more: since when."""
    handed: tuple[str | None, ...] = ()
    """What each store hands out."""
    contained: frozenset[str] = frozenset()
    """Ids of keys whose containment was declared."""
    emergencies: frozenset[str] = frozenset()
    """Tokens that the journal has ever told to be condemned in an emergency."""
    foreign: frozenset[str] = frozenset()
    """Ids of keys that are not ours."""
    facts: Facts = field(default_factory=Facts)
    """Those of the primary's journal."""
    seen: tuple[object, ...] = ()
    """The stores as they were when they were last looked at."""
    records: list[Record] = field(default_factory=list)
    lookers: dict[str, Store] = field(default_factory=dict)

    @classmethod
    def new(cls, setting: Setting, wire: Wire) -> World:
        """An entry without any value, its issuer with keys of others."""
        services = {name: Service(Box(name, {})) for name in setting.names}
        world = cls(setting, wire, services, Vendor(setting.nature, Box("issuer", ())))
        for name in setting.names:
            world.client(name).create(ENTRY, policies.written(setting.policy))
        token = "f" * 32
        for other in (
            KeyName("other", ENVIRONMENT, NAME, token),
            KeyName(INSTALLATION, "prod", NAME, token),
            KeyName(INSTALLATION, ENVIRONMENT, f"{NAME}-01", token),
            "a person's key",
        ):
            world.made_by_others(str(other))
        world.handed = tuple(None for _ in setting.names)
        world.seen = world.handed
        wire.watch = world
        return world

    def copy(self, wire: Wire) -> World:
        """The same again, to be led elsewhere."""
        wire.now = self.wire.now
        services = {name: service.copy() for name, service in self.services.items()}
        world = replace(self, wire=wire, services=services, vendor=self.vendor.copy(), records=[], lookers={})
        wire.watch = world
        return world

    @property
    def key(self) -> object:
        """Equal for worlds that will go on in the same way, and be judged in the same way."""
        return (
            self.wire.now,
            tuple(
                (service.serial, tuple(state.key for state in service.box.state.values()))
                for service in self.services.values()
            ),
            self.vendor.box.state,
            self.vendor.serial,
            self.vendor.poisoned,
            self.serial,
            self.verified,
            frozenset(self.out.items()),
            self.contained,
            self.emergencies,
        )

    # --- who acts ----------------------------------------------------------------------------------

    @property
    def target(self) -> Target:
        return Target(self.setting.names[0], ENTRY)

    def client(self, name: str) -> Store:
        """A store's client of a new process."""
        kind = KINDS[self.setting.stores[self.setting.names.index(name)]]
        client = kind(name, self.services[name], self.wire)
        client.bounded = client.bounded or self.setting.bounded
        return client

    def _client(self, name: str) -> Store:
        """For looking on."""
        if name not in self.lookers:
            self.lookers[name] = self.client(name)
        return self.lookers[name]

    def engine(self) -> Engine:
        """A new process: clients of its own, no memory of earlier ones."""
        stores: dict[str, SecretStore] = {name: self.client(name) for name in self.setting.names}
        places = Places(lambda store, environment, name: f"{environment}/{name}", lambda environment, name: None)
        clock = _Clock(self.wire)
        kind = Regenerating if self.vendor.nature.regenerates else Issuer
        issuer = kind("issuer", self.vendor, self.wire, self)
        return Engine(stores, {"issuer": issuer}, places, clock, self, self._token)

    def sweep(self) -> Outcome:
        """What cron does: a fresh process, orphans first, then the secret."""
        engine, policy = self.engine(), self.setting.policy
        listed = orphans.listings(engine.outside.issuers, [policy.issuer], engine.outside.clock)
        with suppress(Trouble):  # told to the person, and the secret is looked after all the same
            for orphan, seen in orphans.unclaimed(listed, [(self.target, policy)], engine, engine.outside.clock):
                born = orphan.key.created_at or self.wire.now
                engine.adopt_orphan(orphan.target, seen, orphan.token, orphan.key.key_id, born)
        outcome = engine.run(self.target, Order(listed=listed.ids(policy.issuer), listed_at=listed.at))
        if outcome.trouble and "no end after" in str(outcome.trouble):
            raise Broken(Harm.STUCK, str(outcome.trouble))
        return outcome

    def edit_by_hand(self) -> None:
        """A person puts a credential of their own into the primary store."""
        key = self.made_by_others("a key made by hand")
        self.client(self.setting.names[0]).put_by_hand(ENTRY, Credential.of(value=key.value))
        self.wire.tell(f"a person puts {key.value} into {self.setting.names[0]}")
        self.check()

    def made_by_others(self, name: str) -> Key:
        keys, key = self.vendor.made(self.vendor.box.state, name, self.wire.now, timedelta(0))
        self.vendor.box.put(keys, self.wire.now)
        self.foreign |= {key.key_id}
        self.verified |= {key.value}
        return key

    def revoke_by_hand(self) -> None:
        """A person revokes what they once put there, as they were told to."""
        now = self.wire.now
        theirs = [k for k in self.vendor.live() if k.key_id in self.foreign and k.value not in self.handed]
        dead = [key._replace(revoked_at=now) if key in theirs else key for key in self.vendor.box.state]
        self.vendor.box.put(tuple(dead), now)
        self.wire.tell(f"a person revokes {', '.join(key.key_id for key in theirs)}")

    def _token(self) -> str:
        self.serial += 1
        return f"{self.serial:032x}"

    # --- watching ----------------------------------------------------------------------------------

    def check(self) -> None:
        """Invariant 1, at this instant; and what later judgements need."""
        states = [service.box.state for service in self.services.values()]
        if any(state is not seen for state, seen in zip(states, self.seen, strict=True)):
            self.seen = tuple(states)
            self._take_note()
        if self.setting.nature.model is Model.REPLACE:
            return  # from the mint to the promotion nobody can log in; that is declared
        for name, value in zip(self.services, self.handed, strict=True):
            if value is not None and not self.vendor.accepts(value, self.wire.now):
                key = self.vendor.of(value)
                if key is None or not (key.key_id in self.contained or self._came_late(name, key)):
                    raise Broken(Harm.OUTAGE, f"{name} hands out {value}, which is refused")

    def _came_late(self, name: str, key: Key) -> bool:
        """Whether a leaked key was mirrored while it was being killed, into a replica that fences nothing.

        An emergency does not wait for such a write. Whoever looks next, as a rule itself, mirrors again; in the end all
        stores must agree.
        """
        replica = name != self.setting.names[0] and not self._client(name).features.compare_and_set
        return replica and key.token in self.emergencies and bool(self.wire.taken)

    def _take_note(self) -> None:
        """Some store is not as it was."""
        facts = self.services[self.setting.names[0]].box.state[ENTRY].facts
        if facts is not self.facts:
            self.facts = facts
            # Another run may have condemned one besides, for a reason of its own.
            leaked = [t for t, mark in facts.journal.condemned.items() if mark.why is Why.EMERGENCY]
            leaked += facts.journal.contain
            self.emergencies = self.emergencies.union(leaked) if leaked else self.emergencies
        handed = tuple(self._client(name).consumed(ENTRY) for name in self.services)
        if handed != self.handed:
            gone = {value for value in self.handed if value} - set(handed)
            still = {value: at for value, at in self.out.items() if value not in handed}
            self.out = still | dict.fromkeys(gone, self.wire.now)
            self._refuse_condemned(handed)
            shown = ", ".join(f"{name} hands out {value}" for name, value in zip(self.services, handed, strict=True))
            self.wire.tell(f"→ {shown}")
            self.handed = handed

    def _refuse_condemned(self, handed: tuple[str | None, ...]) -> None:
        """Who looks before promoting does not make a condemned key current. (What another run does meanwhile is seen
        by neither; hence only where nobody else acts, and everybody sees things as they are.)"""
        for value in handed:
            key = self.vendor.of(value) if value and value not in self.handed else None
            if key and key.token in self.facts.journal.condemned and self.wire.orderly and self.wire.alone:
                raise Broken(Harm.WRONGFUL, f"{key.key_id} is condemned, and is made current")

    def _refuse_needless(self, token: str, key_id: str) -> None:
        """Containing is for what can not be replaced in time. When nothing goes wrong and there is room, everything can."""
        mark, at = self.facts.journal.condemned.get(token), self.facts.journal.contain.get(token)
        asked = mark is None or at is None or at <= mark.at
        roomy = self.setting.nature.model is Model.MINT and self.setting.nature.max_keys is None
        handed = any(key.key_id == key_id and key.value in self.handed for key in self.vendor.live())
        if handed and roomy and not asked and not self.wire.taken:
            raise Broken(Harm.OUTAGE, f"{key_id} is contained, and nothing was in the way of replacing it before")

    def write(self, record: Record) -> None:
        """The audit trail: what is declared there, and what it claims."""
        self.wire.record(f"audit: {record.event} {(record.token or '').lstrip('0')} {record.reason}".rstrip())
        self.records.append(record)
        if record.event == "contain" and record.key_id:
            if record.token not in self.emergencies:
                raise Broken(Harm.WRONGFUL, f"{record.key_id} is contained, and no emergency condemned it")
            self._refuse_needless(record.token or "", record.key_id)
            self.contained |= {record.key_id}
        begun = self.facts.journal.attempts.get(record.token or "")
        if record.event == "mint" and begun and self.wire.now >= begun.at + ATTEMPT_LIFE:
            raise Broken(Harm.WRONGFUL, f"{begun.token} is minted when others count on it that no mint comes any more")
        if record.event == "condemn" and record.reason.startswith(Why.ORPHAN):
            made = next((key.created_at for key in self.vendor.box.state if key.key_id == record.key_id), START)
            if self.wire.now < made + ATTEMPT_LIFE:
                raise Broken(Harm.WRONGFUL, f"{record.key_id} is taken for an orphan while somebody may be storing it")
        if record.event == "proven" and self.setting.nature.registry:
            for key in self.vendor.box.state:
                told = key.key_id == record.key_id if record.key_id else key.token == record.token
                if told and self.vendor.accepts(key.value, self.wire.now):
                    raise Broken(Harm.FALSE_PROOF, f"{key.key_id} is told to be dead ({record.reason}) and is accepted")

    def verifying(self, key: Key, *, accepted: bool) -> None:
        """Invariant 5: a draining credential is never verified by us, for that would count as use."""
        if accepted and key.key_id not in self.foreign:
            self.verified |= {key.value}
            # Nobody can help verifying what a person replaces in that very moment; it tells of no use later than that.
            since = self.out.get(key.value)
            edited = any(
                other and other.key_id in self.foreign for other in map(self.vendor.of, filter(None, self.handed))
            )
            draining = since is not None and (not edited or self.wire.now - since > CALL_LIMIT)
            if draining and key.revoked_at is None and not self._on_its_way(key) and self.wire.orderly:
                raise Broken(Harm.FALSE_PROOF, f"{key.key_id} is draining and was verified, which counts as use")

    def last_out(self, value: str) -> datetime | None:
        return self.wire.now if value in self.handed else self.out.get(value)

    def revoking(self, key: Key) -> None:
        """Invariants 4 and 5, at the instant at which a key is revoked."""
        now, setting = self.wire.now, self.setting
        told = f"{key.key_id} is revoked"
        if key.key_id in self.foreign or key.token is None:
            raise Broken(Harm.WRONGFUL, f"{told}, and is not ours")
        if key.key_id in self.contained:
            return
        # One of two that a doubled mint left under one name may be condemned under a name of its own.
        names = {key.token, uuid.uuid5(uuid.NAMESPACE_OID, key.key_id).hex}
        if not names & self.facts.journal.condemned.keys():
            raise Broken(Harm.WRONGFUL, f"{told}, and was not condemned before")
        if key.value in self.handed:
            raise Broken(Harm.WRONGFUL, f"{told} while it is handed out")
        if (out := self.out.get(key.value)) is None:
            return
        unverified = [value for value in self.handed if value not in self.verified]
        if unverified:
            raise Broken(Harm.WRONGFUL, f"{told}, and {unverified} handed out instead was never seen to work")
        if key.token in self.emergencies:
            return
        if now < out + setting.grace:
            raise Broken(Harm.WRONGFUL, f"{told} {now - out} after it was handed out, before its grace was over")
        used = last_use(setting.nature, key._replace(used_at=None), out, now)  # what we tried ourselves deprives nobody
        quiet = setting.nature.knows_last_use and (used is None or used + setting.drain.quiet_for <= now)
        over = now >= out + setting.drain.at_most and setting.drain.then is Ending.REVOKE
        if setting.nature.tells_last_use and not quiet and not over:
            raise Broken(Harm.WRONGFUL, f"{told}; last used {used}, known: {setting.nature.knows_last_use}")

    def destroying(self, key: Key) -> None:
        """The same, where making another key destroys it. Of keys that nobody holds, nobody is deprived."""
        if self.setting.nature.model is Model.REPLACE or key.value not in self.out.keys() | set(self.handed):
            return
        if key.value in self.handed and key.key_id not in self.contained:
            raise Broken(Harm.OUTAGE, f"{key.key_id} is destroyed while it is handed out")
        if key.token not in self.emergencies and self.wire.now < self.out[key.value] + self.setting.grace:
            raise Broken(Harm.WRONGFUL, f"{key.key_id} is destroyed before its grace was over")

    def _on_its_way(self, key: Key) -> bool:
        """Whether some store holds it as pending: a rollback, or a copy."""
        return any(
            stored is not None and stored.consumed() == key.value
            for service in self.services.values()
            for state in service.box.state.values()
            for stored in (*state.side[-1:], *(s for s in state.main if (("AWSPENDING", s.id) in state.labels)))
        )

    # --- the end -----------------------------------------------------------------------------------

    def unsettled(self) -> Broken | None:
        """Invariant 2, that all stores agree, and that what leaked is dead. None when all is as it should be."""
        shown = set(self.handed)
        if None in shown or len(shown) > 1:
            return Broken(Harm.STUCK, f"stores hand out {self.handed}")
        if lost := {value for value in shown if value and not self.vendor.accepts(value, self.wire.now)}:
            return Broken(Harm.STUCK, f"{sorted(lost)} handed out and refused")
        live = {key.value for key in self.vendor.ours()}
        if self.setting.nature.model is not Model.MINT:
            live &= self._stored()  # what a slot holds when no answer came, nobody knows
        leaked = [key.key_id for key in self.vendor.ours() if key.value in live and key.token in self.emergencies]
        if self.setting.nature.registry and leaked:
            return Broken(Harm.STUCK, f"{leaked} condemned in an emergency, and alive")
        if self.setting.nature.registry and (extra := live - shown):
            return Broken(Harm.ORPHAN, f"{sorted(extra)} live, and stores hand out {self.handed}")
        return None

    def _stored(self) -> set[str]:
        """Values that some store has ever held."""
        return {
            stored.consumed()
            for service in self.services.values()
            for state in service.box.state.values()
            for stored in (*state.main, *state.side)
            if stored
        }


@dataclass(frozen=True, slots=True)
class _Clock:
    wire: Wire

    def now(self) -> datetime:
        return self.wire.now

    def monotonic(self) -> float:
        return self.wire.monotonic()

    def sleep(self, seconds: float) -> None:
        self.wire.sleep(seconds)
