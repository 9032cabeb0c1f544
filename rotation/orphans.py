"""Finds live keys of ours that nothing claims, and hands them to their secret's journal as condemned.

Looks at issuers' lists and compares with what every entry says of itself. Only our own installation
and environment, only keys older than any attempt may run, and only where the entry itself answered.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rotation.engine import Engine, Places, Target
from rotation.errors import Code, Trouble
from rotation.model import Capabilities, KeyInfo, Policy
from rotation.names import token_in
from rotation.ports import Clock, Issuer, SecretStore
from rotation.situation import ATTEMPT_LIFE, MOST_DOOMED, Absent, Evidence, Observation, Order, Situation


@dataclass(frozen=True, slots=True)
class Orphan:
    """A live key that nothing claims."""

    policy: Policy
    target: Target
    key: KeyInfo
    token: str
    """What it is to go by in the journal."""


@dataclass(frozen=True, slots=True)
class Listings:
    """What the issuers list, read once."""

    at: datetime
    keys: Mapping[str, list[KeyInfo]]
    """By issuer; only those that keep a list and gave it whole."""
    troubles: tuple[Trouble, ...]
    """Of those that did not answer. The others are not held up by them."""

    def ids(self, issuer: str) -> frozenset[str] | None:
        """Key ids of one issuer; None when its list is not known."""
        listed = self.keys.get(issuer)
        return None if listed is None else frozenset(key.key_id for key in listed)


def listings(issuers: Mapping[str, Issuer], names: Iterable[str], clock: Clock) -> Listings:
    """Asks each of the named issuers for its list."""
    keys: dict[str, list[KeyInfo]] = {}
    troubles: list[Trouble] = []
    at = clock.now()
    for name in sorted(set(names)):
        if not issuers[name].capabilities.registry:
            continue
        try:
            keys[name] = list(issuers[name].keys())
        except Trouble as trouble:
            troubles.append(trouble)
    return Listings(at, keys, tuple(troubles))


def find(
    issuers: Mapping[str, Issuer], secrets: Iterable[tuple[Target, Policy]], engine: Engine, clock: Clock
) -> Iterator[tuple[Orphan, Observation]]:
    """Yields every orphan of these secrets, with the look that confirmed it.

    Raises:
        Trouble: an issuer's list could not be read to its end.
    """
    secrets = list(secrets)
    listed = listings(issuers, (policy.issuer for _, policy in secrets), clock)
    if listed.troubles:
        raise listed.troubles[0]
    yield from unclaimed(listed, secrets, engine, clock)


def unclaimed(
    listed: Listings,
    secrets: Iterable[tuple[Target, Policy]],
    engine: Engine,
    clock: Clock,
    *,
    began: datetime | None = None,
) -> Iterator[tuple[Orphan, Observation]]:
    """Yields every listed key of ours that no entry of its secret claims, with the look that confirmed it.

    Parameters:
        secrets: all entries of each secret; see of_one().
        began: when somebody began to look for them, where they were listed.

    One more look at each secret with a key that is old enough. A secret whose stores do not all
    answer has no orphans as far as can be told, and is left alone; so is one whose current credential has no known id,
    until its next rotation.
    """
    groups: dict[tuple[str, str, str, str], list[tuple[Target, Policy]]] = {}
    for target, policy in secrets:
        same = (policy.issuer, policy.installation, policy.environment, policy.name)
        groups.setdefault(same, []).append((target, policy))
    for (issuer, installation, environment, secret), places in sorted(groups.items(), key=lambda item: item[0]):
        ours = [
            (token, key)
            for key in listed.keys.get(issuer, ())
            if (token := token_in(key.name, installation=installation, environment=environment, secret=secret))
        ]
        yield from of_one(places, ours, engine, clock, began=began)


def claims(seen: Observation, now: datetime) -> dict[str, str | None] | None:
    """The keys that an entry claims: by token, the id that goes with it where that is known.

    None: it hands out what the issuer may know by any name, so that nobody can tell.
    """
    s = Situation(seen, Evidence(), Capabilities(), Order(), now)
    if s.current_unnamed:
        return None
    return {known: s.key_id(known) for known in (*seen.primary.journal.tokens(), *s.keys)}


def elsewhere(
    stores: Mapping[str, SecretStore],
    places: Places,
    policies: Sequence[Policy],
    names: Collection[str],
    *,
    denied_is_absent: bool = False,
) -> set[str] | None:
    """Tokens and key ids that entries of a secret's name claim in stores that it does not use: it is moved from or to there.

    A key's name does not say which store it went to, so that the keys of such an entry look like orphans of the others.

    Parameters:
        policies: all that are applied to entries of the secret.
        names: the tokens in the names of the listed keys that may be theirs.
        denied_is_absent: where nobody lets us look there is no entry, as rights are given entry by entry.

    Returns:
        None where one has a version of ours whose key goes by another name at the issuer: it may be any of these. What a
        rollback brought back, and was released with its entry, which so lost its journal, is such a one.

    Raises:
        Trouble: a store does not answer; then nobody knows.
        ConfigError: its client can not be made.
    """
    used, policy = {store for one in policies for store in one.stores}, policies[0]
    claimed: set[str] = set()
    for name in stores:
        if name in used:
            continue
        try:
            seen = stores[name].observe(places.entry_name(name, policy.environment, policy.name))
        except Trouble as trouble:
            if trouble.code is Code.NOT_FOUND or (denied_is_absent and trouble.code is Code.DENIED):
                continue
            raise
        claimed |= seen.journal.tokens() | {attempt.key for attempt in seen.journal.attempts.values()}
        held = [version for version in (seen.current, seen.pending) if version]
        claimed |= {name for version in held for name in (version.token, version.key_id) if name}
        told = seen.journal.tokens() | {*names}
        if any(version.token and version.key_id is None and version.token not in told for version in held):
            return None
    return claimed


def of_one(
    places: list[tuple[Target, Policy]],
    ours: list[tuple[str, KeyInfo]],
    engine: Engine,
    clock: Clock,
    *,
    began: datetime | None = None,
) -> Iterator[tuple[Orphan, Observation]]:
    """Keys of one secret that none of its entries claims; while it moves between stores it has several.

    Parameters:
        ours: listed keys of the secret, with the token in the name of each.
        began: when somebody began to look for its entries. A key that was minted later may be of one that was not there
            yet when its store was listed.
    """
    now = clock.now()
    born = (began or now) - ATTEMPT_LIFE
    old = [(token, key) for token, key in ours if key.created_at is None or key.created_at <= born]
    if not old:
        return
    looks: list[Observation] = []
    claimed: dict[str, str | None] = {}
    """By token: the id that goes with it, where that is known."""
    for target, _ in places:
        try:
            seen = engine.observe(target)
        except Trouble:
            return
        if any(isinstance(replica, Absent) and not replica.missing for replica in seen.replicas.values()):
            return
        looks.append(seen)
        if (its_own := claims(seen, now)) is None:
            return  # one of the listed keys may be what is handed out
        for known, key_id in its_own.items():
            claimed[known] = key_id or claimed.get(known)
    (target, policy), seen = places[0], looks[0]
    journal = seen.primary.journal
    left = [(token, key) for token, key in old if key.key_id not in claimed.values()]
    if not left:
        return
    outside, policies = engine.outside, [policy for _, policy in places]
    try:
        tokens = {token for token, _ in ours}
        others = elsewhere(outside.stores, outside.places, policies, tokens, denied_is_absent=True)
    except Trouble:
        return
    if others is None:
        return
    room = MOST_DOOMED - len(journal.condemned.keys() - journal.revoked.keys() - journal.foreign.keys())
    for token, key in sorted(left, key=lambda pair: pair[1].created_at or now):
        if token in others or key.key_id in others:
            continue
        if (room := room - 1) < 0:
            return  # the next sweep takes the next
        if token not in claimed:
            yield Orphan(policy, target, key, token), seen
        elif claimed[token] is not None:
            # The request of one mint arrived twice. This is the one whose value nobody ever saw.
            own = uuid.uuid5(uuid.NAMESPACE_OID, key.key_id).hex
            yield Orphan(policy, target, key, own), seen
