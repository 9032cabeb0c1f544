"""A fleet is killed and killed again; what must hold when it is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Final

from tests.fleet.site import Consumer, Site

_HEALING: Final = tuple(timedelta(minutes=minutes) for minutes in (16, 16, 60, 26 * 60, 26 * 60, 26 * 60))
"""How long after the one before each dispatch comes that heals: past the life of an attempt, a back-off, grace periods."""
_SETTLED: Final = {"attempt", "key", "promoted"}


@dataclass
class Result:
    """What it came to. Every list is empty when all is well."""

    site: Site
    seconds: float = 0.0
    consumed: int = 0
    faults: dict[str, list[str]] = field(default_factory=dict)
    told: str = ""

    def __str__(self) -> str:
        site = self.site
        told = "; ".join(f"{kind}: {', '.join(found[:5])}" for kind, found in self.faults.items() if found)
        return (
            f"{site.secrets} secrets, {site.workers} workers of 2 processes, seed {site.seed}: killed {site.killed.workers} "
            f"workers and {site.killed.children} processes; {site.dispatches} dispatches, {site.messages} messages; "
            f"{len(site.issued())} credentials made; {self.consumed} uses; {self.seconds:.0f} s: {told or 'all is well'}"
        )


def execute(secrets: int, workers: int, kills: int, seed: int) -> Result:
    """Everything is due at once; workers die at it; dispatches go on until all is settled."""
    began = monotonic()
    with Site(secrets, workers, seed) as site:
        first = {name: site.read(name) for name in site.names}
        with Consumer(site.read, site.use, site.names) as consumer:
            site.move(timedelta(days=31))
            site.start()
            site.round(kills)
            # Whose worker was killed has its message again by now, without another dispatch.
            ignored = [name for name in site.names if site.read(name) == first[name] and site.attempts(name) < 2]
            for pause in _HEALING:
                if all(site.read(name) != first[name] and site.facts(name) == _SETTLED for name in site.names):
                    break
                site.move(pause)
                site.round()
        result = Result(site, monotonic() - began, consumer.uses)
        result.faults = _judge(site, first) | {"outages": consumer.refused, "not taken up": ignored}
        result.seconds = monotonic() - began
        result.told = str(result)
    return result


def _judge(site: Site, first: dict[str, str]) -> dict[str, list[str]]:
    now = {name: site.read(name) for name in site.names}
    alive = [key for key in site.issued() if key["accepted"]]
    accounts = site._administer("GET", f"/{site.project}/service_accounts", params={"limit": 100})
    dead = {key["id"] for key in site.issued()} - {key["id"] for key in alive}
    shown = {str(r.get("key_id", "")).rpartition("/")[2] for r in site.records() if r["event"] == "proven"}
    said = site.said() + "".join(str(record) for record in site.records())
    values = {*first.values(), *now.values(), site.broker.password, site.openai.admin_key, site.role[1]}
    return {
        "not rotated": [name for name in site.names if now[name] == first[name]],
        "rotated again": [name for name in site.names if len(site.history(name)) != 2],
        "not settled": [f"{name} {sorted(f)}" for name in site.names if (f := site.facts(name)) != _SETTLED],
        "orphans": [key["id"] for key in alive][len(site.names) :],
        "too few": ["keys"] if len(alive) < len(site.names) else [],
        "unproven": sorted(dead - shown),
        "accounts": [a["id"] for a in accounts["data"]][len(site.names) :],
        "leaks": ["a value was said"] if any(value in said for value in values) else [],
        "lost messages": [f"{left} left"] if (left := site.broker.waiting("keyturn-runs")) else [],
    }
