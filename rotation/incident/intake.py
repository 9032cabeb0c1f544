"""From what a leak report has of ours to what an emergency is about, and what its record keeps of the report. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rotation.engine import Target
from rotation.incident.plan import Leak
from rotation.incident.record import LeakRecord
from rotation.incident.selection import Selection
from rotation.leaks.match import Match, Standing


def narrowed(selection: Selection, matches: Sequence[Match]) -> Selection:
    """The same, about what the report has that is alive and ours."""
    admins = [one.issuer for one in matches if one.standing is Standing.ADMIN and one.alive and one.issuer]
    targets = dict.fromkeys(one.target for one in matches if one.target is not None and one.alive)
    return replace(selection, leaked=tuple(targets), leaked_admins=tuple(dict.fromkeys(admins)))


def by_secret(matches: Sequence[Match]) -> Mapping[Target, Sequence[Leak]]:
    """What the report has of each secret that is alive, for its plan."""
    leaks: dict[Target, list[Leak]] = {}
    for one in matches:
        if one.target is not None and one.alive:
            leaks.setdefault(one.target, []).append(_leak(one))
    return leaks


def _leak(one: Match) -> Leak:
    finding = one.finding
    return Leak(
        source=finding.source,
        rule=finding.rule,
        where=finding.where,
        standing=one.standing.value,
        how=one.how,
        token=one.token,
        key_id=one.key_id,
        public=finding.public,
        found_at=finding.found_at,
    )


def recorded(matches: Sequence[Match]) -> list[LeakRecord]:
    """All of the report, for the record of the incident."""
    return [
        LeakRecord(
            source=one.finding.source,
            rule=one.finding.rule,
            where=one.finding.where,
            standing=one.standing.value,
            how=one.how,
            secret=one.policy.name if one.policy else None,
            key_id=one.key_id,
            public=one.finding.public,
            found_at=one.finding.found_at,
            alive=one.alive,
            next_step=one.next_step,
        )
        for one in matches
    ]
