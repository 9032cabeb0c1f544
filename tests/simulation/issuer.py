"""An issuer with the limits and delays that are configured, and its administrative client."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from rotation.errors import Code, Trouble
from rotation.model import Capabilities, Check, Credential, Issued, KeyInfo, LastUse, Model, Propagation, Verdict
from rotation.names import token_in
from tests.simulation.stores import opened
from tests.simulation.wire import Box, Wire

INSTALLATION: Final = "acme"
ENVIRONMENT: Final = "test"
NAME: Final = "support-copilot-chat"
NEVER: Final = timedelta(days=4000)
LATEST: Final = timedelta(seconds=40)
"""After its look at a slot no request to regenerate it is begun."""


@dataclass(frozen=True, slots=True)
class Nature:
    """What kind of issuer it is."""

    model: Model = Model.MINT
    max_keys: int | None = None
    create_delay: timedelta = timedelta(0)
    """Until a new key is accepted."""
    revoke_delay: timedelta = timedelta(0)
    """As long is a revoked key accepted."""
    list_delay: timedelta = timedelta(0)
    """How far the list is behind."""
    registry: bool = True
    tells_last_use: bool = True
    knows_last_use: bool = True
    """False: it answers, but does not know."""
    regenerates: bool = False
    """Slots that are never empty: what is revoked gives way to a value that nobody has. Their list tells the values."""
    consumers_keep: timedelta = timedelta(0)
    """How long a consumer goes on using what a store does not hand out any more."""

    @property
    def capabilities(self) -> Capabilities:
        patience = Propagation(in_a_row=2, interval=timedelta(seconds=5), timeout=timedelta(seconds=20))
        return Capabilities(
            model=self.model,
            slots=("key1", "key2") if self.model is Model.SLOTS else (),
            revokes=self.model in (Model.MINT, Model.SLOTS),
            max_keys=self.max_keys,
            regenerates=self.regenerates,
            registry=self.registry,
            tells_last_use=self.tells_last_use and self.registry,
            create=patience if self.registry else Propagation(),
            revoke=patience,
        )


class Key(NamedTuple):
    """One key as the issuer keeps it."""

    key_id: str
    name: str
    value: str
    created_at: datetime
    accepted_from: datetime
    revoked_at: datetime | None = None
    slot: str | None = None
    used_at: datetime | None = None
    """Of uses other than those of consumers of a store."""

    @property
    def token(self) -> str | None:
        """Its rotation token, provided that it is a key of the simulated secret."""
        return token_in(self.name, installation=INSTALLATION, environment=ENVIRONMENT, secret=NAME)


Keys = tuple[Key, ...]


@dataclass(eq=False)
class Vendor:
    """The service, shared by its clients."""

    nature: Nature
    box: Box[Keys]
    serial: int = 0
    poisoned: int = 0
    """So many of the next keys are never accepted."""

    def copy(self) -> Vendor:
        return Vendor(self.nature, self.box.copy(), self.serial, self.poisoned)

    def made(
        self, keys: Keys, name: str, now: datetime, delay: timedelta | None = None, slot: str | None = None
    ) -> tuple[Keys, Key]:
        self.serial += 1
        if delay is None:
            delay = NEVER if self.poisoned else self.nature.create_delay
            self.poisoned = max(self.poisoned - 1, 0)
        key = Key(f"key_{self.serial}", name, f"value-{self.serial}", now, now + delay, slot=slot)
        return (*keys, key), key

    def accepts(self, value: str, now: datetime, keys: Keys | None = None) -> bool:
        """Whether somebody who shows this value now gets in."""
        if not self.nature.registry:
            return True
        delay = self.nature.revoke_delay
        return any(
            key.value == value and now >= key.accepted_from and (key.revoked_at is None or now < key.revoked_at + delay)
            for key in (self.box.state if keys is None else keys)
        )

    def of(self, value: str) -> Key | None:
        return next((key for key in self.box.state if key.value == value), None)

    def live(self) -> list[Key]:
        return [key for key in self.box.state if key.revoked_at is None]

    def ours(self) -> list[Key]:
        """Live keys of the simulated secret."""
        return [key for key in self.live() if key.token]

    def destroyed_by(self, slot: str | None) -> list[Key]:
        """What dies when another is made there."""
        model = self.nature.model
        return [k for k in self.ours() if model is Model.REPLACE or (model is Model.SLOTS and k.slot == slot)]


class Watcher(Protocol):
    """Is told what an issuer is asked to do, before it does it."""

    def revoking(self, key: Key) -> None: ...

    def destroying(self, key: Key) -> None:
        """Making another destroys this one."""

    def verifying(self, key: Key, *, accepted: bool) -> None: ...

    def last_out(self, value: str) -> datetime | None:
        """When some store last handed a value out; None: never."""


class Issuer:
    """An administrative client. A mint is carried out within CALL_LIMIT or never, a revocation at any time."""

    def __init__(self, name: str, vendor: Vendor, wire: Wire, watcher: Watcher) -> None:
        self.name: Final = name
        self.capabilities: Final = vendor.nature.capabilities
        self._vendor = vendor
        self._wire = wire
        self._watcher = watcher

    def mint(self, key_name: str, slot: str | None = None) -> Issued:
        vendor, wire = self._vendor, self._wire

        def change(keys: Keys) -> tuple[Keys, Key]:
            most = vendor.nature.max_keys
            if most is not None and len(vendor.ours()) >= most:
                raise Trouble(Code.LIMIT, self.name, f"holds {most} keys already")
            for key in vendor.destroyed_by(slot):
                self._watcher.destroying(key)
                keys = tuple(k._replace(revoked_at=wire.now) if k is key else k for k in keys)
            return vendor.made(keys, key_name, wire.now, slot=slot)

        token = key_name.rpartition(".")[2].lstrip("0")
        if not vendor.nature.registry:
            _, key = vendor.made((), key_name, wire.now)  # made up here: no call goes out
        else:
            key = wire.write(vendor.box, f"mint {token}", change, begun=wire.now)
        return Issued(key.key_id, opened(key.value, text_only=True), key.created_at)

    def keys(self) -> Iterator[KeyInfo]:
        vendor, wire = self._vendor, self._wire
        if not vendor.nature.registry:
            return iter(())
        at = wire.now - vendor.nature.list_delay
        found = wire.read(vendor.box, "list keys", lambda keys: keys)
        return iter(
            [
                KeyInfo(key.key_id, key.name, key.created_at)
                for key in found
                if vendor.nature.model is Model.MINT  # a slot, or the one credential, has no name of ours
                and key.created_at <= at
                and (key.revoked_at is None or key.revoked_at > at)
            ]
        )

    def verify(self, credential: Credential) -> Check:
        vendor, wire = self._vendor, self._wire
        value = credential.fields["value"].reveal()
        if not vendor.nature.registry:
            return Check(Verdict.VALID, "has the declared form")
        try:
            accepted = wire.read(vendor.box, f"verify {value}", lambda keys: vendor.accepts(value, wire.now, keys))
        except Trouble:
            return Check(Verdict.UNKNOWN, "no answer")
        if key := vendor.of(value):
            self._watcher.verifying(key, accepted=accepted)
            used = tuple(k._replace(used_at=wire.now) if k is key else k for k in vendor.box.state)
            vendor.box.state = used
        return Check(Verdict.VALID, "accepted") if accepted else Check(Verdict.INVALID, "refused")

    def smoke(self, credential: Credential) -> Check:
        return self.verify(credential)

    def revoke(self, key_id: str) -> None:
        wire = self._wire
        if not self._vendor.nature.registry:
            return

        def change(keys: Keys) -> tuple[Keys, None]:
            key = next((k for k in keys if k.key_id == key_id), None)
            if key is None or key.revoked_at:
                return keys, None
            self._watcher.revoking(key)
            return tuple(k._replace(revoked_at=wire.now) if k is key else k for k in keys), None

        wire.write(self._vendor.box, f"revoke {key_id}", change)

    def last_use(self, key_id: str) -> LastUse:
        wire, nature = self._wire, self._vendor.nature
        key = wire.read(
            self._vendor.box, f"last use of {key_id}", lambda keys: next((k for k in keys if k.key_id == key_id), None)
        )
        if key is None or key.revoked_at is not None or not nature.knows_last_use:  # of what is gone nothing is told
            return LastUse(known=False)
        return LastUse(known=True, at=self.used_at(key))

    def used_at(self, key: Key) -> datetime | None:
        """By a consumer, or by whoever verified it."""
        return last_use(self._vendor.nature, key, self._watcher.last_out(key.value), self._wire.now)


class Regenerating(Issuer):
    """An issuer whose slots are regenerated, as described vendors' are: a look at what the slot holds, then one request."""

    def mint(self, key_name: str, slot: str | None = None) -> Issued:
        def change(keys: Keys) -> tuple[Keys, Key]:
            for key in self._vendor.destroyed_by(slot):
                self._watcher.destroying(key)
            return self._regenerated(keys, slot, key_name)

        key = self._wire.write(self._vendor.box, f"mint in {slot}", change, begun=self._wire.now)
        return Issued(key.key_id, opened(key.value, text_only=True), key.created_at)

    def keys(self) -> Iterator[KeyInfo]:
        held = self._held("list keys")
        return iter([KeyInfo(key.key_id, key.slot or "", key.created_at) for key in held])

    def id_of(self, credential: Credential) -> str | None:
        """As rotation.ports.ListsValues says."""
        value = credential.fields["value"].reveal()
        for key in self._held("list keys with values"):
            if key.value == value:
                return key.key_id
        raise Trouble(Code.INVALID, self.name, "none of its slots holds this value")

    def revoke(self, key_id: str) -> None:
        slot, begun = key_id.partition("/")[0], self._wire.now
        if all(key.key_id != key_id for key in self._held(f"look at {slot}")):
            return
        if self._wire.now - begun > LATEST:
            raise Trouble(Code.UNAVAILABLE, self.name, "took too long")

        def change(keys: Keys) -> tuple[Keys, None]:
            for key in keys:
                if key.slot == slot and key.revoked_at is None and key.token:
                    self._watcher.revoking(key)
            return self._regenerated(keys, slot, "nobody's")[0], None

        self._wire.write(self._vendor.box, f"regenerate {slot}", change, begun=begun)

    def _held(self, call: str) -> list[Key]:
        found = self._wire.read(self._vendor.box, call, lambda keys: keys)
        return [key for key in found if key.slot and key.revoked_at is None]

    def _regenerated(self, keys: Keys, slot: str | None, name: str) -> tuple[Keys, Key]:
        gone = (k._replace(revoked_at=self._wire.now) if k.slot == slot and k.revoked_at is None else k for k in keys)
        kept, made = self._vendor.made(tuple(gone), name, self._wire.now, slot=slot)
        made = made._replace(key_id=f"{slot}/{made.key_id}")
        return (*kept[:-1], made), made


def last_use(nature: Nature, key: Key, out: datetime | None, now: datetime) -> datetime | None:
    """When a key was last used. Consumers use what they have all the time."""
    uses = [key.used_at] if key.used_at else []
    if out is not None:
        uses.append(min(now, out + nature.consumers_keep))
    return max(uses, default=None)


def slow(nature: Nature) -> Nature:
    """The same, with every change seen by others a little later."""
    lag = timedelta(seconds=7)
    return replace(nature, create_delay=lag, revoke_delay=lag, list_delay=lag)
