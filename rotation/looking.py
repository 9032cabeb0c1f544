"""Looking at a secret in all of its stores, and at the one it is paired with."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from rotation import policy as policies
from rotation.errors import Code, Trouble
from rotation.journal import Journal, Why
from rotation.model import Entry, Model, Policy, Version
from rotation.outside import Outside, Target
from rotation.situation import Absent, Evidence, Observation, Order, Situation

CLOCKS_AGREE: Final = timedelta(seconds=30)
"""A difference below this is the age of an answer, and not worth telling from none."""
_UNSEEN: Final = {
    Code.NOT_FOUND: "there is no such entry",
    Code.DENIED: "its login may not read the entry",
    Code.INVALID: "what it answers can not be understood",
    Code.THROTTLED: "it asks for fewer requests",
    Code.UNAVAILABLE: "no answer",
}
"""Why a replica could not be looked at, in words; `keyturn doctor` looks more closely."""


class Observer:
    """Makes observations. Changes nothing."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._stores = outside.stores

    def observe(self, target: Target, known: Observation | None = None) -> Observation:
        """One look at a secret in all of its stores: replicas first, the primary last.

        Parameters:
            known: an earlier look of the same run; saves the call that finds out where replicas are.

        Raises:
            Trouble: the primary can not be read, or its metadata can not be understood.
        """
        store = self._stores[target.store]
        primary, fresh = (known.primary, False) if known else (store.observe(target.entry), True)
        for _ in range(3):
            policy = self._policy(primary)
            others = _other_stores(policy, primary.journal)
            looks = {name: self._look(name, policy) for name in others}
            replicas = {name: look for name, look in looks.items() if look is not None}
            if others or not fresh:
                primary = store.observe(target.entry)
            if set(_other_stores(self._policy(primary), primary.journal)) <= set(others):
                return self._seen(target.store, primary, replicas)
            fresh = True
        raise Trouble(Code.CONFLICT, target.store, f"{target.entry}: its replicas change faster than they can be read")

    def listed(self, store: str, primary: Entry) -> Observation | None:
        """The same from what a listing has told of the primary. None where a look would see other stores, too.

        Raises:
            Trouble: its metadata can not be understood.
        """
        return None if _other_stores(self._policy(primary), primary.journal) else self._seen(store, primary, {})

    def _seen(self, store: str, primary: Entry, replicas: dict[str, Entry | Absent]) -> Observation:
        known_stores = [name for name in (store, *replicas) if name in self._stores]
        open_doors = {name for name in known_stores if not self._stores[name].features.compare_and_set}
        ahead = self._outside.ahead(store) if self._outside.ahead else timedelta(0)
        ahead = ahead if abs(ahead) > CLOCKS_AGREE else timedelta(0)
        named = named_as_adopted(replace(primary, read_at=primary.read_at - ahead) if ahead else primary)
        replicas = {name: _told_by(primary.journal, look) for name, look in replicas.items()} | {
            f"{entry.store}/{place}": Absent(f"{entry.store}/{place}", why, missing=False, soon=place in entry.copying)
            for entry in (primary, *replicas.values())
            if isinstance(entry, Entry)
            for place, why in entry.behind.items()  # its service copies the entry to them
        }
        return Observation(self._policy(primary), named, replicas, ahead=ahead, unfenced=frozenset(open_doors))

    def _look(self, store: str, policy: Policy) -> Entry | Absent | None:
        """A replica; None when it was released, or its store is not configured any more."""
        named = store in policy.replicas
        if store not in self._stores:
            return Absent(store, "not configured", missing=False) if named else None
        try:
            entry = self._stores[store].observe(self._outside.places.entry_name(store, policy.environment, policy.name))
        except Trouble as trouble:
            missing = trouble.code is Code.NOT_FOUND
            why = _UNSEEN.get(trouble.code, trouble.code.value)
            return Absent(store, why, missing=missing) if named or not missing else None
        return entry if named or entry.policy else None

    def _policy(self, entry: Entry) -> Policy:
        try:
            policy = policies.read(entry.policy)
        except ValueError as error:
            raise Trouble(Code.INVALID, entry.store, f"{entry.name}: {error}; apply the stack again") from None
        if (own := self._outside.places.entry_name(entry.store, policy.environment, policy.name)) != entry.name:
            # A copy, or a backup restored under another name, would retire the keys of the original.
            told = f"{entry.name} carries the policy and journal of {own}: take its metadata off"
            raise Trouble(Code.INVALID, entry.store, told)
        return policy

    def with_pair(self, seen: Observation, evidence: Evidence, order: Order) -> Observation:
        """A look at a secret that is about to rotate, with when the window of its pair is over."""
        due = self._outside.situation(seen, evidence, order)
        scheduled = due.current is not None and not due.urgent and due.pending is None and not evidence.unspent
        wanted = due.asked or due.due_now
        if seen.policy.paired_with and scheduled and wanted:
            return replace(seen, pair_free_at=self._pair_free_at(seen))
        return seen

    def _pair_free_at(self, seen: Observation) -> datetime | None:
        """When the paired secret's window is over. None when there is no pair, or it is idle."""
        policy, now = seen.policy, self._outside.now(seen)
        if policy.paired_with is None:
            return None
        where = self._outside.places.locate(policy.environment, policy.paired_with)
        if where is None:
            return None
        mine = self._outside.situation(seen)
        # A drain that does not end, or a pair that fails and fails, or is away, is no reason to become overdue.
        latest = mine.cycle.latest if mine.cycle else now
        late = now >= latest
        try:
            pair = self.observe(where)
        except Trouble as trouble:
            # One that is not there has no window. One that does not answer may have.
            away = trouble.code in (Code.UNAVAILABLE, Code.THROTTLED)
            return now + policy.grace if away and not late else None
        s = Situation(pair, Evidence(), self._outside.issuer(pair).capabilities, Order(), now)
        since = s.promoted_at(s.current_key) if s.current_key else None
        if late:
            return self._late_pair_free_at(s, mine, since)
        if s.pending is not None or s.at_work is not None:
            return now + pair.policy.grace
        if s.retiring and since:
            drained = min(now + pair.policy.grace, since + pair.policy.drain.at_most, latest)
            return max(since + pair.policy.grace, drained)
        older = mine.due_at and s.due_at and (s.due_at, pair.policy.name) < (mine.due_at, policy.name)
        if older and s.due_now and not s.frozen:
            return now + pair.policy.grace  # both are due: the one that has waited longer goes first
        first = since is None or len([a for a in pair.primary.journal.attempts.values() if a.why is not Why.FIRST]) == 0
        return None if first or since is None else since + pair.policy.grace

    @staticmethod
    def _late_pair_free_at(s: Situation, mine: Situation, since: datetime | None) -> datetime | None:
        """When its window is over for one that is late itself, as both are after an outage: they still take turns.

        What was begun for another reason than its date, or does not get on, is not waited for.
        """
        pair, attempts = s.policy, s.seen.primary.journal.attempts
        begun = s.at_work or (attempts.get(s.pending.token or "") if s.pending else None)
        last = attempts.get((s.current.token if s.current else None) or "")
        if begun is not None:
            return begun.at + pair.grace if begun.why is Why.DUE else None
        if last is not None and last.why is Why.DUE and since is not None and since + pair.grace > s.now:
            return since + pair.grace
        older = mine.due_at and s.due_at and (s.due_at, pair.name) < (mine.due_at, mine.policy.name)
        stuck = s.frozen or s.seen.primary.journal.backoff or s.full or s.crowded or s.issuer.model is Model.MANUAL
        return s.now + pair.grace if older and s.due_now and not stuck else None


def named_as_adopted(entry: Entry) -> Entry:
    """The entry with its current version under the token that an adopted version goes by, whatever it says itself."""
    if entry.current is None or entry.current.token in entry.journal.attempts:
        return entry
    # Once it is known whose it is, that name counts, and no longer the one from when nobody could tell.
    names = (t for t, version in entry.journal.adopted.items() if version == entry.current.id)
    token = min(names, key=lambda t: t in entry.journal.foreign, default=None)
    return replace(entry, current=replace(entry.current, token=token)) if token else entry


def _told_by(journal: Journal, replica: Entry | Absent) -> Entry | Absent:
    """A replica with the tokens of its versions as the primary's journal has them: one alone does not tell what is ours."""
    if isinstance(replica, Absent):
        return replica
    known = journal.tokens()

    def named(version: Version | None) -> Version | None:
        ours = version is not None and version.token is None and version.id in known
        return replace(version, token=version.id) if version and ours else version

    return replace(replica, current=named(replica.current), pending=named(replica.pending))


def _other_stores(policy: Policy, journal: Journal) -> list[str]:
    """Replicas of the policy, and stores of journaled attempts that it names no more: they count until released."""
    named = dict.fromkeys(policy.replicas)
    for attempt in journal.attempts.values():
        named.update(dict.fromkeys(attempt.stores))
    named.pop(policy.store, None)
    return list(named)
