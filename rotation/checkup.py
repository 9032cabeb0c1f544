"""Does what the stores hand out work, and do they agree? Looks only; never touches a draining credential."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rotation.engine import Engine, Target
from rotation.errors import Code, Trouble
from rotation.model import Check, Entry, Verdict, Version
from rotation.ports import Issuer, ReadsMany, SecretStore
from rotation.situation import Absent, Evidence, Observation, Order, Situation


@dataclass(frozen=True, slots=True)
class Finding:
    """What one store hands out for one secret."""

    name: str
    store: str
    verdict: Verdict
    agrees: bool
    """Holds the same value as the primary."""
    reason: str
    key_id: str | None = None
    shown: bool = True
    """The credential went to its issuer, so that the verdict is the issuer's. Not in the JSON, as the next."""
    trouble: Code | None = None
    """Why the store did not give the value, where it refused or did not answer."""

    @property
    def good(self) -> bool:
        return self.verdict.live and self.agrees

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "store": self.store,
            "verdict": self.verdict.value,
            "agrees": self.agrees,
            "key_id": self.key_id,
            "reason": self.reason,
        }


Held = Mapping[tuple[str, str], Version]
"""Values that were read together, by store and entry."""


def held_by(stores: Mapping[str, SecretStore], entries: Iterable[tuple[str, str]]) -> Held:
    """Reads values ahead, where a store can read many in few calls. What is missing is read when it is needed.

    Parameters:
        entries: (store, entry) of everything that will be looked at.
    """
    held: dict[tuple[str, str], Version] = {}
    by_store: dict[str, list[str]] = {}
    for name, entry in entries:
        by_store.setdefault(name, []).append(entry)
    for name, some in by_store.items():
        store = stores[name]
        if isinstance(store, ReadsMany):
            with contextlib.suppress(Trouble):
                held |= {(name, entry): version for entry, version in store.read_many(some).items()}
    return held


def verify(
    engine: Engine, issuers: Mapping[str, Issuer], target: Target, name: str, held: Held = MappingProxyType({})
) -> list[Finding]:
    """One finding per store of the secret. The issuer is asked once per distinct value.

    Parameters:
        held: see held_by(); used for a version that is still current.

    A primary that can not be read gives one finding UNKNOWN, never an exception.
    """
    try:
        seen = engine.observe(target)
    except Trouble as trouble:
        return [_untold(name, target.store, str(trouble), trouble=trouble.code, agrees=True)]
    return findings(engine, issuers[seen.policy.issuer], seen, name, held)


def findings(
    engine: Engine, issuer: Issuer, seen: Observation, name: str, held: Held = MappingProxyType({})
) -> list[Finding]:
    """The same, from a look at the secret.

    A replica that still hands out a credential which is on its way out is told and not tried: showing it to the
    issuer would count as use.
    """
    primary = seen.primary
    s = Situation(seen, Evidence(), issuer.capabilities, Order(), primary.read_at)
    if primary.current is None:
        return [_untold(name, primary.store, _EMPTY, agrees=True)]
    try:
        ours = engine.read(seen, primary, _with_value(primary, held) or primary.current)
    except Trouble as trouble:
        return [_untold(name, primary.store, str(trouble), trouble=trouble.code, agrees=True)]
    check = issuer.verify(ours)

    def key_id(version: Version) -> str | None:
        return version.key_id or s.key_id(s.key_of(version) or "")

    def told(store: str, version: Version, said: Check, *, agrees: bool) -> Finding:
        return Finding(name, store, said.verdict, agrees, said.reason, key_id(version))

    found = [told(primary.store, primary.current, check, agrees=True)]
    for store, replica in seen.replicas.items():
        if isinstance(replica, Absent):
            found.append(_untold(name, store, replica.reason, trouble=None if replica.missing else Code.UNAVAILABLE))
            continue
        if replica.current is None:
            found.append(_untold(name, store, _EMPTY))
            continue
        try:
            theirs = engine.read(seen, replica, _with_value(replica, held) or replica.current)
        except Trouble as trouble:
            found.append(_untold(name, store, str(trouble), trouble=trouble.code))
            continue
        if ours.same_as(theirs):
            found.append(told(store, replica.current, check, agrees=True))
        elif s.key_of(replica.current) in s.retiring:
            found.append(_untold(name, store, _RETIRING, key_id=key_id(replica.current)))
        else:
            found.append(told(store, replica.current, issuer.verify(theirs), agrees=False))
    return found


_EMPTY = "holds no credential yet"
_RETIRING = "holds a credential that is on its way out; not tried, as that would count as use"


def _untold(
    name: str, store: str, why: str, *, trouble: Code | None = None, agrees: bool = False, key_id: str | None = None
) -> Finding:
    return Finding(name, store, Verdict.UNKNOWN, agrees, why, key_id, shown=False, trouble=trouble)


def _with_value(entry: Entry, held: Held) -> Version | None:
    """The current version with the value that was read ahead, provided that it is of this version."""
    ahead = held.get((entry.store, entry.name))
    return ahead if ahead and entry.current and ahead.id == entry.current.id else None
