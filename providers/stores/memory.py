"""The reference store: the port's semantics in memory, and nothing else.

Tests and the simulation run against it; every other store must behave like it (tests/contracts).
`MemoryVault` is the service, `MemoryStore` a client of it: two runners have two clients of one service.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Lock
from typing import Final

from rotation.errors import Code, Trouble
from rotation.journal import Journal
from rotation.model import Credential, Entry, Version
from rotation.ports import Glance, Listed, StoreFeatures

Hook = Callable[[str], None]
"""Called with `before <operation>` and `after <operation>` around every call; raises to inject a fault."""


def undisturbed(_: str) -> None:
    """The hook that injects nothing."""


@dataclass(eq=False)
class _Entry:
    policy: dict[str, str]
    facts: dict[str, str] = field(default_factory=dict)
    versions: list[Version] = field(default_factory=list)
    current: Version | None = None
    pending: Version | None = None
    deleted: bool = False


@dataclass(eq=False)
class MemoryVault:
    """Entries, shared by all clients."""

    entries: dict[str, _Entry] = field(default_factory=dict)
    serial: int = 0
    lock: Lock = field(default_factory=Lock)
    """Held where looking and changing must be one."""

    def add_version(self, entry: _Entry, token: str | None, credential: Credential, **known: object) -> Version:
        self.serial += 1
        version = Version(id=f"v{self.serial}", token=token, credential=credential, **known)  # type: ignore[arg-type]
        entry.versions.append(version)
        return version


class MemoryStore:
    """A client of a MemoryVault.

    Parameters:
        name: the store's configured name.
        vault: the service.
        now: the service's clock.
        hook: see Hook.
        fenced: False makes promote() read and then write, as a store without compare-and-set must.
        text_only: a version holds one text, as a service without fields keeps it.
        keeps_key_id: False: a version names no key, as in Secrets Manager.
    """

    def __init__(
        self,
        name: str,
        vault: MemoryVault,
        now: Callable[[], datetime],
        hook: Hook = undisturbed,
        *,
        fenced: bool = True,
        text_only: bool = False,
        keeps_key_id: bool = True,
    ) -> None:
        self.name: Final = name
        self.features: Final = StoreFeatures(
            compare_and_set=fenced,
            keeps_key_id=keeps_key_id,
            max_value_bytes=65_536,
            recovers_deleted=True,
            text_only=text_only,
        )
        self._vault = vault
        self._now = now
        self._hook = hook

    def observe(self, entry: str) -> Entry:
        seen = self._seen(entry, self._call("observe", entry))
        self._hook("after observe")
        return seen

    def _seen(self, entry: str, found: _Entry) -> Entry:
        return Entry(
            store=self.name,
            name=entry,
            read_at=self._now(),
            current=found.current,
            pending=found.pending,
            journal=self._journal(entry, found.facts),
            policy=dict(found.policy),
        )

    def read(self, entry: str, version: Version) -> Credential:
        found = self._call("read", entry)
        for kept in found.versions:
            if kept.id == version.id and kept.credential is not None:
                self._hook("after read")
                return kept.credential
        raise Trouble(Code.NOT_FOUND, self.name, f"{entry}: version {version.id} can not be read")

    def current(self, entry: str) -> Credential:
        found = self._call("current", entry)
        self._hook("after current")
        if found.current is None or found.current.credential is None:
            raise Trouble(Code.NOT_FOUND, self.name, f"{entry}: has no value")
        return found.current.credential

    def applied(self, entry: str) -> Mapping[str, str]:
        found = self._call("applied", entry)
        self._hook("after applied")
        return dict(found.policy)

    def find(self, entry: str, token: str) -> Version | None:
        found = self._call("find", entry)
        self._hook("after find")
        return next((v for v in reversed(found.versions) if v.token == token), None)

    def stage(self, entry: str, token: str, credential: Credential, *, key_id: str | None) -> None:
        found = self._call("stage", entry)
        credential = self._kept(credential)
        self._check(entry, credential)
        known = next((v for v in found.versions if v.token == token), None)
        if known and known.credential and not known.credential.same_as(credential):
            raise Trouble(Code.CONFLICT, self.name, f"{entry}: token {token} already names another value")
        named = key_id if self.features.keeps_key_id else None
        found.pending = known or self._vault.add_version(found, token, credential, key_id=named, created_at=self._now())
        self._hook("after stage")

    def promote(self, entry: str, pending: Version, expected: str | None) -> None:
        found = self._call("promote", entry)
        kept = next((v for v in found.versions if v.id == pending.id), None)
        if kept is None:
            raise Trouble(Code.NOT_FOUND, self.name, f"{entry}: version {pending.id} is gone")
        if self.features.compare_and_set:
            with self._vault.lock:
                self._expect(found, entry, expected)
                found.current = kept
        else:
            self._expect(found, entry, expected)
            self._hook("after promote.read")
            self._hook("before promote.write")
            known = {"key_id": kept.key_id, "created_at": self._now()}
            found.current = self._vault.add_version(found, kept.token, kept.credential or Credential({}), **known)
        self._hook("after promote")

    def _expect(self, found: _Entry, entry: str, expected: str | None) -> None:
        if (found.current.id if found.current else None) != expected:
            raise Trouble(Code.CONFLICT, self.name, f"{entry}: version {expected} is not current any more")

    def discard(self, entry: str, pending: Version) -> None:
        found = self._call("discard", entry)
        if found.pending and found.pending.id == pending.id:
            found.pending = None
        self._hook("after discard")

    def record(self, entry: str, facts: Mapping[str, str]) -> None:
        found = self._call("record", entry)
        found.facts.update(facts)
        self._hook("after record")

    def forget(self, entry: str, facts: Iterable[str]) -> None:
        found = self._call("forget", entry)
        for key in facts:
            found.facts.pop(key, None)
        self._hook("after forget")

    def listing(self) -> Iterator[Listed]:
        self._hook("before listing")
        for name, found in sorted(self._vault.entries.items()):
            if found.policy and not found.deleted:
                yield Listed(name, dict(found.policy), dict(found.facts))
        self._hook("after listing")

    def glances(self) -> Iterator[Glance]:
        """As listing(), with all that observe() would see."""
        for listed in self.listing():
            yield Glance(listed.name, listed.policy, self._glimpsed(listed.name, self._vault.entries[listed.name]))

    def _glimpsed(self, name: str, found: _Entry) -> Entry | None:
        """As observe(), without values; nothing where its journal can not be read."""
        try:
            seen = self._seen(name, found)
        except Trouble:
            return None
        current, pending = (
            version and replace(version, credential=None) for version in (seen.current, seen.pending)
        )  # fmt: skip
        return replace(seen, current=current, pending=pending)

    def create(self, entry: str, policy: Mapping[str, str]) -> None:
        self._hook("before create")
        if entry in self._vault.entries:
            raise Trouble(Code.CONFLICT, self.name, f"{entry} exists already")
        self._vault.entries[entry] = _Entry(dict(policy))
        self._hook("after create")

    def set_policy(self, entry: str, policy: Mapping[str, str]) -> None:
        found = self._call("set_policy", entry)
        found.policy = dict(policy)
        self._hook("after set_policy")

    def delete(self, entry: str) -> None:
        self._hook("before delete")
        if found := self._vault.entries.get(entry):
            found.deleted = True
        self._hook("after delete")

    def restore(self, entry: str) -> bool:
        self._hook("before restore")
        found = self._vault.entries.get(entry)
        deleted = found is not None and found.deleted
        if found:
            found.deleted = False
        self._hook("after restore")
        return deleted

    def put_by_hand(self, entry: str, credential: Credential) -> None:
        """What a person in a console does: a new current version that Keyturn knows nothing of."""
        found = self._vault.entries.setdefault(entry, _Entry({}))
        found.current = self._vault.add_version(found, None, self._kept(credential), created_at=self._now())

    def handed_out(self, entry: str) -> Credential | None:
        """What a consumer reads now. No hook: looking on is not a call of ours."""
        found = self._vault.entries.get(entry)
        return found.current.credential if found and found.current and not found.deleted else None

    def _call(self, operation: str, entry: str) -> _Entry:
        self._hook(f"before {operation}")
        found = self._vault.entries.get(entry)
        if found is None or found.deleted:
            raise Trouble(Code.NOT_FOUND, self.name, f"{entry}: no such entry")
        return found

    def _journal(self, entry: str, facts: Mapping[str, str]) -> Journal:
        try:
            return Journal(facts)
        except ValueError as error:
            raise Trouble(Code.INVALID, self.name, f"{entry}: {error}") from None

    def _kept(self, credential: Credential) -> Credential:
        """What is stored of a credential: itself, or one text."""
        if not self.features.text_only or credential.fields.keys() == {"value"}:
            return credential
        fields = {name: value.reveal() for name, value in sorted(credential.fields.items())}
        return Credential.of(value=json.dumps(fields, ensure_ascii=False))

    def _check(self, entry: str, credential: Credential) -> None:
        if any("\ud800" <= letter <= "\udfff" for value in credential.fields.values() for letter in value.reveal()):
            raise Trouble(Code.INVALID, self.name, f"{entry}: the value is not valid Unicode text")
        names = 0 if self.features.text_only else sum(map(len, credential.fields))
        size = names + sum(len(value.reveal().encode()) for value in credential.fields.values())
        if size > self.features.max_value_bytes:
            limit = self.features.max_value_bytes
            raise Trouble(Code.INVALID, self.name, f"{entry}: the value has {size} bytes, at most {limit} are allowed")
