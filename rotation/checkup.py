"""Does what the stores hand out work, and do they agree? Looks only; never touches a draining credential."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rotation.engine import Engine, Target
from rotation.errors import Trouble
from rotation.model import Entry, Verdict, Version
from rotation.ports import Issuer, ReadsMany, SecretStore
from rotation.situation import Absent, Evidence, Order, Situation


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
        primary = seen.primary
        if primary.current is None:
            return [Finding(name, target.store, Verdict.UNKNOWN, agrees=True, reason="holds no credential yet")]
        ours = engine.read(seen, primary, _with_value(primary, held) or primary.current)
    except Trouble as trouble:
        return [Finding(name, target.store, Verdict.UNKNOWN, agrees=True, reason=str(trouble))]
    issuer = issuers[seen.policy.issuer]
    check = issuer.verify(ours)
    s = Situation(seen, Evidence(), issuer.capabilities, Order(), seen.primary.read_at)

    def key_id(version: Version) -> str | None:
        return version.key_id or s.key_id(s.key_of(version) or "")

    findings = [Finding(name, target.store, check.verdict, True, check.reason, key_id(primary.current))]
    for store, replica in seen.replicas.items():
        if isinstance(replica, Absent):
            findings.append(Finding(name, store, Verdict.UNKNOWN, agrees=False, reason=replica.reason))
            continue
        if replica.current is None:
            findings.append(Finding(name, store, Verdict.UNKNOWN, agrees=False, reason="holds no credential yet"))
            continue
        try:
            theirs = engine.read(seen, replica, _with_value(replica, held) or replica.current)
        except Trouble as trouble:
            findings.append(Finding(name, store, Verdict.UNKNOWN, agrees=False, reason=str(trouble)))
            continue
        same = ours.same_as(theirs)
        said = check if same else issuer.verify(theirs)
        findings.append(Finding(name, store, said.verdict, same, said.reason, key_id(replica.current)))
    return findings


def _with_value(entry: Entry, held: Held) -> Version | None:
    """The current version with the value that was read ahead, provided that it is of this version."""
    ahead = held.get((entry.store, entry.name))
    return ahead if ahead and entry.current and ahead.id == entry.current.id else None
