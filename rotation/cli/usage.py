"""What `keyturn status --usage` adds: last use and requests of each key, and what is worth a warning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rotation.cli import show
from rotation.cli.context import Context
from rotation.errors import Trouble
from rotation.model import Counting, KeyUse, LastUse, Policy
from rotation.notify import uses
from rotation.policy import show_duration
from rotation.ports import Severity
from rotation.status import Row
from rotation.usage import Role, Watched, Why


@dataclass(frozen=True, slots=True)
class Usage:
    """How the keys of some secrets are used."""

    found: tuple[uses.Used, ...]
    countings: dict[str, Counting | None]
    """By issuer."""
    troubles: tuple[Trouble, ...]

    @property
    def alive(self) -> bool:
        """Whether a key is accepted that was revoked."""
        return any(w.severity is Severity.CRITICAL for one in self.found for w in one.warned)

    def show(self, now: datetime) -> None:
        """For people."""
        rows = []
        for one in self.found:
            for key in one.keys:
                use = one.uses.get(key.key_id)
                if use is None and key.role is Role.DEAD:
                    continue  # nothing new to tell of it
                rows.append(
                    [one.policy.name, show.key(key.key_id), key.role, _last(use, now), self._requests(one.policy, use)]
                )
        show.say("")
        show.table(("SECRET", "KEY", "IS", "LAST USE", "REQUESTS"), rows)
        silent = sorted({one.policy.issuer for one in self.found if one.keys and not one.uses})
        silent = [name for name in silent if name not in {trouble.service for trouble in self.troubles}]
        if silent:
            show.say(f"Not told of many keys at once: {', '.join(silent)}. That is not unused.")
        for one in self.found:
            for warned in one.warned:
                style = "bold red" if warned.severity is Severity.CRITICAL else "yellow"
                word = "retired" if warned.why is Why.RETIRED else "jump"
                show.complain(f"{one.policy.name}: {word}: {warned.text}.", style)
        for trouble in self.troubles:
            show.complain(f"{trouble}. What it would have told is missing.", "yellow")

    def _requests(self, policy: Policy, use: KeyUse | None) -> str:
        counting = self.countings.get(policy.issuer)
        if use is None or use.counts is None or counting is None:
            return "not counted"
        day = max(1, timedelta(days=1) // counting.width)
        counts = [span.count for span in use.counts]
        spans = f"{counts[-1] if counts else 0} in the last {show_duration(counting.width)}"
        if counting.width < timedelta(days=1):
            spans += f", {sum(counts[-day:])} in 1d"
        return f"{spans}, {sum(counts)} in {show_duration(counting.width * len(counts))} ({counting.of})"

    def into(self, rows: list[dict[str, object]]) -> list[dict[str, object]]:
        """For scripts: the rows of the status, with `usage`; null of a secret that could not be looked at."""
        told = {one.policy.name: self._as_json(one) for one in self.found}
        return [{**row, "usage": told.get(str(row["name"]))} for row in rows]

    def _as_json(self, one: uses.Used) -> dict[str, Any]:
        counting = self.countings.get(one.policy.issuer)
        trouble = next((str(t) for t in self.troubles if t.service == one.policy.issuer), None)
        return {
            "counts": counting.of if counting else None,
            "span_seconds": counting.width.total_seconds() if counting else None,
            "keys": [_key(key, one.uses.get(key.key_id)) for key in one.keys],
            "warnings": [
                {
                    "why": warned.why.value,
                    "key_id": warned.key_id,
                    "severity": warned.severity.value,
                    "requests": warned.requests,
                    "text": warned.text,
                }
                for warned in one.warned
            ],
            "error": trouble,
        }


def ask(context: Context, policies: Sequence[Policy], rows: Sequence[Row]) -> Usage:
    """Asks each issuer once for the keys of the secrets that could be looked at."""
    assembly = context.assembly
    seen = [
        (assembly.target(policy), row.seen) for policy, row in zip(policies, rows, strict=True) if row.seen is not None
    ]
    found, troubles = uses.asked(assembly, seen)
    issuers: dict[str, Any] = {one.policy.issuer: assembly.issuers[one.policy.issuer] for one in found}
    return Usage(tuple(found), {name: issuer.counting for name, issuer in issuers.items()}, tuple(troubles))


def _last(use: KeyUse | None, now: datetime) -> str:
    last = use.last if use else LastUse(known=False)
    if not last.known:
        return "unknown"
    if last.at is None:
        return "never"
    late = f", to {show_duration(last.granularity)}" if last.granularity else ""
    return f"{show.when(last.at, now)}{late}"


def _key(key: Watched, use: KeyUse | None) -> dict[str, Any]:
    last = use.last if use else LastUse(known=False)
    counts = use.counts if use else None
    return {
        "key_id": key.key_id,
        "is": key.role.value,
        "over_at": key.over_at.isoformat() if key.over_at else None,
        "last_use": "unknown" if not last.known else "never" if last.at is None else last.at.isoformat(),
        "granularity_seconds": last.granularity.total_seconds() if last.known else None,
        "requests": None if counts is None else sum(span.count for span in counts),
        "spans": None
        if counts is None
        else [{"start": span.start.isoformat(), "requests": span.count} for span in counts if span.count],
    }
