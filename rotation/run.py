"""What one run knows beyond its look, and the records that it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rotation.errors import Trouble
from rotation.journal import Attempt, Journal
from rotation.model import Check, Credential, Issued
from rotation.outside import Target
from rotation.ports import Auditor, Clock, Record
from rotation.situation import Evidence, Observation, Order


@dataclass(slots=True, eq=False)
class Run:
    """Evidence, deadlines, values on their way. Ends with the run."""

    target: Target
    order: Order
    evidence: Evidence = field(default_factory=Evidence)
    deadlines: dict[str, float] = field(default_factory=dict)
    ends: dict[str, datetime] = field(default_factory=dict)
    """By attempt token: until when it may write, by the monotonic clock and by the wall's. Whichever is first counts."""
    old: dict[str, Credential] = field(default_factory=dict)
    staged: dict[str, Credential] = field(default_factory=dict)
    values: dict[str, Credential] = field(default_factory=dict)
    """By key token: what passed through this run anyway. For fingerprints alone: evidence is what stores give back."""
    known: Observation | None = None
    looked: tuple[float, datetime] | None = None
    """When the last look began, by the monotonic clock and by the wall's."""
    doubts: int = 0
    mismatched: set[tuple[str, str]] = field(default_factory=set)
    """(replica, attempt token): a staged copy was not what was staged, and has been made anew."""
    trouble: Trouble | None = None
    """The first failure that did not end the run."""
    submitted: Issued | None = None
    """What a person has brought, until it is staged."""
    minted_at: float | None = None
    minted: dict[str, Attempt] = field(default_factory=dict)
    """By token: what was minted in this run, and not asked to be promoted yet."""
    quiet: bool = False
    """A plan: nothing is done, so nothing is evidence."""
    records: list[Record] = field(default_factory=list)


class Records:
    """Writes the audit trail: before an effect, and when that fails the effect does not happen."""

    def __init__(self, clock: Clock, auditor: Auditor) -> None:
        self._clock = clock
        self._auditor = auditor

    def write(
        self,
        run: Run,
        event: str,
        seen: Observation,
        *,
        reason: str = "",
        token: str | None = None,
        key_id: str | None = None,
        store: str | None = None,
        detail: Mapping[str, str] | None = None,
    ) -> None:
        """One record, of a run that is not just a plan.

        Raises:
            Trouble: it could not be written, so what it tells of must not happen.
        """
        if run.quiet:
            return
        record = Record(self._clock.now(), event, seen.primary.name, reason, token, key_id, store, detail)
        self._auditor.write(record)
        run.records.append(record)

    def check(self, run: Run, event: str, seen: Observation, check: Check, token: str | None) -> None:
        """What the issuer said of a credential."""
        detail = {"verdict": check.verdict.value, **check.facts}
        if check.request_id:
            detail["request_id"] = check.request_id
        self.write(run, event, seen, reason=check.reason, token=token, detail=detail)


def stages_of(journal: Journal, key: str) -> dict[str, str]:
    """When a key came to each stage of its end, for the record of its proof: the journal forgets them with the key."""
    emergency = key in journal.contain and key in journal.condemned
    times = {
        "superseded": journal.superseded.get(key),
        "emergency": journal.condemned[key].at if emergency else None,
        "revoked": journal.revoked.get(key),
        "proven": journal.proven.get(key),
    }
    return {stage: at.isoformat() for stage, at in times.items() if at is not None}
