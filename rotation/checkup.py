"""Does what the stores hand out work, and do they agree? Looks only; never touches a draining credential."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rotation.engine import Engine, Target
from rotation.errors import Trouble
from rotation.model import Verdict, Version
from rotation.ports import Issuer
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


def verify(engine: Engine, issuers: Mapping[str, Issuer], target: Target, name: str) -> list[Finding]:
    """One finding per store of the secret. The issuer is asked once per distinct value.

    A primary that can not be read gives one finding UNKNOWN, never an exception.
    """
    try:
        seen = engine.observe(target)
        primary = seen.primary
        if primary.current is None:
            return [Finding(name, target.store, Verdict.UNKNOWN, agrees=True, reason="holds no credential yet")]
        ours = engine.read(seen, primary, primary.current)
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
            theirs = engine.read(seen, replica, replica.current)
        except Trouble as trouble:
            findings.append(Finding(name, store, Verdict.UNKNOWN, agrees=False, reason=str(trouble)))
            continue
        same = ours.same_as(theirs)
        said = check if same else issuer.verify(theirs)
        findings.append(Finding(name, store, said.verdict, same, said.reason, key_id(replica.current)))
    return findings
