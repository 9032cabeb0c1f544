"""Finds live keys of ours that nothing claims, and hands them to their secret's journal as condemned.

Looks at issuers' lists and compares with what every entry says of itself. Only our own installation
and environment, only keys older than any attempt may run, and only where the entry itself answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rotation.engine import Engine, Target
from rotation.errors import Trouble
from rotation.model import Capabilities, KeyInfo, Policy
from rotation.names import token_in
from rotation.ports import Clock, Issuer
from rotation.situation import ATTEMPT_LIFE, Absent, Evidence, Observation, Order, Situation


@dataclass(frozen=True, slots=True)
class Orphan:
    """A live key that nothing claims."""

    policy: Policy
    target: Target
    key: KeyInfo
    token: str


def find(
    issuers: Mapping[str, Issuer], secrets: Iterable[tuple[Target, Policy]], engine: Engine, clock: Clock
) -> Iterable[tuple[Orphan, Observation]]:
    """Yields every orphan of these secrets, with the look that confirmed it.

    One listing per issuer, and one more look at each secret with a key that is not explained. A
    secret whose stores do not all answer has no orphans as far as can be told, and is left alone.

    Raises:
        Trouble: an issuer's list could not be read to its end.
    """
    by_issuer: dict[str, dict[tuple[str, str, str], list[tuple[Target, Policy]]]] = {}
    for target, policy in secrets:
        secret_name = (policy.installation, policy.environment, policy.name)
        by_issuer.setdefault(policy.issuer, {}).setdefault(secret_name, []).append((target, policy))
    for name, group in sorted(by_issuer.items()):
        issuer = issuers[name]
        if not issuer.capabilities.registry:
            continue
        listed = list(issuer.keys())
        for (installation, environment, secret), places in group.items():
            ours = [
                (token, key)
                for key in listed
                if (token := token_in(key.name, installation=installation, environment=environment, secret=secret))
            ]
            yield from _unclaimed(places, ours, engine, clock)


def _unclaimed(
    places: list[tuple[Target, Policy]], ours: list[tuple[str, KeyInfo]], engine: Engine, clock: Clock
) -> Iterable[tuple[Orphan, Observation]]:
    """Keys of one secret that none of its entries claims; while it moves between stores it has several."""
    now = clock.now()
    old = [(token, key) for token, key in ours if key.created_at is None or key.created_at + ATTEMPT_LIFE <= now]
    if not old:
        return
    looks: list[Observation] = []
    claimed: set[str] = set()
    for target, _ in places:
        try:
            seen = engine.observe(target)
        except Trouble:
            return
        if any(isinstance(replica, Absent) and not replica.missing for replica in seen.replicas.values()):
            return
        looks.append(seen)
        claimed |= seen.primary.journal.tokens()
        claimed |= set(Situation(seen, Evidence(), Capabilities(), Order(), now).keys)
    (target, policy), seen = places[0], looks[0]
    for token, key in old:
        if token not in claimed:
            yield Orphan(policy, target, key, token), seen
