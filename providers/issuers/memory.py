"""The reference issuer: keys in memory, with the delays and lies that real issuers are known for.

`MemoryVendor` is the service, `MemoryIssuer` an administrative client of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from providers.stores.memory import Hook, undisturbed
from rotation.errors import Code, Trouble
from rotation.model import Capabilities, Check, Credential, Issued, KeyInfo, LastUse, Model, Verdict


@dataclass(eq=False)
class VendorKey:
    """One key as the vendor keeps it."""

    key_id: str
    name: str
    value: str
    created_at: datetime
    accepted_from: datetime
    accepted_until: datetime | None = None
    slot: str | None = None
    revoked: bool = False
    last_used_at: datetime | None = None


@dataclass(eq=False)
class MemoryVendor:
    """Keys, shared by all clients. Delays say how long a change takes to be seen by those who use keys."""

    now: Callable[[], datetime]
    max_keys: int | None = None
    create_delay: timedelta = timedelta(0)
    revoke_delay: timedelta = timedelta(0)
    unreachable: bool = False
    """verify() can not be answered: the network, or an allowlist."""
    model: Model = Model.MINT
    expires_after: timedelta | None = None
    """Keys stop working by themselves after this long."""
    prefix: str = "value-"
    """What its values begin with; a number follows."""
    guarded: frozenset[str] = frozenset()
    """Slots that somebody else gives values to: no mint may have them."""
    redacts: bool = False
    """Its list shows the beginning and the end of each value."""
    keys: list[VendorKey] = field(default_factory=list)

    def accepts(self, value: str) -> bool:
        """Whether a consumer that shows this value now gets in."""
        now = self.now()
        return any(
            key.value == value
            and now >= key.accepted_from
            and (self.expires_after is None or now < key.created_at + self.expires_after)
            and (not key.revoked or (key.accepted_until is not None and now < key.accepted_until))
            for key in self.keys
        )

    def use(self, credential: Credential) -> bool:
        """A consumer's request: accepted or not, and remembered as a use."""
        value = credential.fields["value"].reveal()
        for key in self.keys:
            if key.value == value:
                key.last_used_at = self.now()
        return self.accepts(value)

    def live(self) -> list[VendorKey]:
        return [key for key in self.keys if not key.revoked]


class MemoryIssuer:
    """An administrative client of a MemoryVendor."""

    def __init__(
        self,
        name: str,
        vendor: MemoryVendor,
        capabilities: Capabilities | None = None,
        hook: Hook = undisturbed,
    ) -> None:
        self.name: Final = name
        self.capabilities: Final = capabilities or Capabilities(tells_last_use=True, max_keys=vendor.max_keys)
        self._vendor = vendor
        self._hook = hook

    def mint(self, key_name: str, slot: str | None = None) -> Issued:
        self._hook("before mint")
        vendor = self._vendor
        if vendor.max_keys is not None and len(vendor.live()) >= vendor.max_keys:
            raise Trouble(Code.LIMIT, self.name, f"holds {vendor.max_keys} keys already")
        if slot in vendor.guarded:
            raise Trouble(Code.INVALID, self.name, f"{slot} is somebody else's")
        now, serial = vendor.now(), len(vendor.keys) + 1
        for held in vendor.live():
            if vendor.model is Model.REPLACE or (vendor.model is Model.SLOTS and held.slot == slot):
                held.revoked = True
        key = VendorKey(
            f"key_{serial}", key_name, f"{vendor.prefix}{serial}", now, now + vendor.create_delay, slot=slot
        )
        vendor.keys.append(key)
        self._hook("after mint")
        expires_at = None if vendor.expires_after is None else now + vendor.expires_after
        return Issued(key.key_id, Credential.of(value=key.value), now, expires_at)

    def keys(self) -> Iterator[KeyInfo]:
        self._hook("before keys")
        named = self._vendor.model is Model.MINT  # a slot, or the one credential, has no name of ours
        shown = self.capabilities.names_keys
        found = [
            KeyInfo(k.key_id, k.name if shown else "", k.created_at, self._redacted(k))
            for k in self._vendor.live()
            if named
        ]
        self._hook("after keys")
        return iter(found)

    def _redacted(self, key: VendorKey) -> str | None:
        return f"{key.value[:8]}****{key.value[-4:]}" if self._vendor.redacts else None

    def verify(self, credential: Credential) -> Check:
        try:
            self._hook("before verify")
            if self._vendor.unreachable:
                return Check(Verdict.UNKNOWN, "no answer")
            accepted = self._vendor.use(credential)
            self._hook("after verify")
        except Trouble as trouble:
            return Check(Verdict.UNKNOWN, f"no answer: {trouble.code}")
        return Check(Verdict.VALID, "accepted") if accepted else Check(Verdict.INVALID, "refused")

    def smoke(self, credential: Credential) -> Check:
        return self.verify(credential)

    def revoke(self, key_id: str) -> None:
        self._hook("before revoke")
        for key in self._vendor.keys:
            if key.key_id == key_id and not key.revoked:
                key.revoked = True
                key.accepted_until = self._vendor.now() + self._vendor.revoke_delay
        self._hook("after revoke")

    def last_use(self, key_id: str) -> LastUse:
        self._hook("before last_use")
        key = next((key for key in self._vendor.keys if key.key_id == key_id), None)
        self._hook("after last_use")
        # As vendors do: of a key that is gone nothing is known.
        if key is None or key.revoked:
            return LastUse(known=False)
        return LastUse(known=True, at=key.last_used_at)
