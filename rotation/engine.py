"""Carries out what `decide` decides: observe, decide, one effect, look again.

The engine holds no state between runs and has no opinion of its own. What it adds is care in
carrying out: the audit record before the effect, the deadline before a write, the doubt after a
lost answer.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from rotation import decide as d
from rotation import form as forms
from rotation import journal as facts
from rotation import policy as policies
from rotation.errors import Code, Trouble
from rotation.journal import Attempt, Journal, Of, Why
from rotation.model import Check, Credential, Entry, Issued, Model, Policy, Verdict, Version
from rotation.names import KeyName, token_in
from rotation.ports import Auditor, Clock, Issuer, Record, RotatesByItself, SecretStore
from rotation.situation import (
    ATTEMPT_LIFE,
    Absent,
    Evidence,
    Observation,
    Order,
    Situation,
    Stop,
    Streak,
    foreign_token,
)

CALL_LIMIT: Final = timedelta(seconds=60)
"""Total timeout of one outgoing call; providers keep to it."""

MOST_STEPS: Final = 300
"""Far above what any run needs. Reaching it is a fault of ours, and better than running for ever."""

CLOCKS_AGREE: Final = timedelta(seconds=30)
"""A difference below this is the age of an answer, and not worth telling from none."""

_ASK_AGAIN: Final = 5.0
_ASK_SELDOM: Final = 40.0
"""Seconds between tries while an emergency waits for something outside: at first, doubling, and at most."""

_NOTICE: Final = 0.5
"""Seconds within which a run that waits notices that the process is stopping."""

_DOUBTS: Final = 3
"""How many uncertain answers one run follows up by looking again before it leaves it to the next run."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where one secret is: its primary store and its entry's name there."""

    store: str
    entry: str


@dataclass(frozen=True, slots=True)
class Places:
    """How names of secrets map to entries. Comes from configuration; holds no policy."""

    entry_name: Callable[[str, str, str], str]
    """(store, environment, secret) to the entry's name in that store."""
    locate: Callable[[str, str], Target | None]
    """(environment, secret) to its primary entry, or None when nothing is known of it."""


@dataclass(slots=True, eq=False)
class Outcome:
    """How a run ended, and what it did."""

    target: Target
    rest: d.Rest | None
    """Why it stopped; None when a call failed."""
    trouble: Trouble | None
    seen: Observation | None
    """The last look."""
    records: list[Record]
    """What was done and found, in order, as it stands in the audit trail."""
    achieved: bool | None = None
    """Whether what was asked for is so; None where nothing was asked for."""

    @property
    def unproven(self) -> bool:
        """Whether a credential that should be dead is alive, or not shown dead, or nobody could look."""
        return self.seen is None or bool(self.seen.primary.journal.unproven())


@dataclass(slots=True, eq=False)
class _Run:
    """What one run knows beyond its look: evidence, deadlines, values on their way."""

    target: Target
    order: Order
    evidence: Evidence = field(default_factory=Evidence)
    deadlines: dict[str, float] = field(default_factory=dict)
    ends: dict[str, datetime] = field(default_factory=dict)
    """By attempt token: until when it may write, by the monotonic clock and by the wall's. Whichever is first counts."""
    old: dict[str, Credential] = field(default_factory=dict)
    staged: dict[str, Credential] = field(default_factory=dict)
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
    quiet: bool = False
    """A plan: nothing is done, so nothing is evidence."""
    records: list[Record] = field(default_factory=list)


class Engine:
    """Runs secrets to where their policy wants them.

    Parameters:
        stores: by configured name. Looked up lazily, so a mapping may open them on demand.
        issuers: likewise.
        places: how names map to entries.
        clock: time.
        auditor: is written to before every effect; when it fails the effect does not happen.
        tokens: gives a fresh rotation token, 32 to 64 characters of letters, digits and `-`.
        stopping: asked between two effects; once it is true a run begins no more of them, finishes a mint whose intent
            it has written, and leaves the rest to the next one.
        ahead: how far our clock is ahead of a store's, by its name. A grace period ends by the store's clock, so that
            a runner whose own is wrong revokes nothing too early.
    """

    def __init__(
        self,
        stores: Mapping[str, SecretStore],
        issuers: Mapping[str, Issuer],
        places: Places,
        clock: Clock,
        auditor: Auditor,
        tokens: Callable[[], str] = lambda: uuid.uuid4().hex,
        stopping: Callable[[], bool] | None = None,
        ahead: Callable[[str], timedelta] | None = None,
    ) -> None:
        self._stores = stores
        self._issuers = issuers
        self._places = places
        self._clock = clock
        self._auditor = auditor
        self._tokens = tokens
        self._stopping = stopping
        self._ahead = ahead

    # --- looking ---------------------------------------------------------------------------------

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
                known_stores = [name for name in (target.store, *replicas) if name in self._stores]
                open_doors = {name for name in known_stores if not self._stores[name].features.compare_and_set}
                ahead = self._ahead(target.store) if self._ahead else timedelta(0)
                ahead = ahead if abs(ahead) > CLOCKS_AGREE else timedelta(0)
                named = _named(replace(primary, read_at=primary.read_at - ahead) if ahead else primary)
                replicas = {name: _told_by(primary.journal, look) for name, look in replicas.items()}
                return Observation(self._policy(primary), named, replicas, ahead=ahead, unfenced=frozenset(open_doors))
            fresh = True
        raise Trouble(Code.CONFLICT, target.store, f"{target.entry}: its replicas change faster than they can be read")

    def _now(self, seen: Observation) -> datetime:
        """The time by the primary's clock, which every runner shares."""
        return self._clock.now() - seen.ahead

    def _look(self, store: str, policy: Policy) -> Entry | Absent | None:
        """A replica; None when it was released, or its store is not configured any more."""
        named = store in policy.replicas
        if store not in self._stores:
            return Absent(store, "not configured", missing=False) if named else None
        try:
            entry = self._stores[store].observe(self._places.entry_name(store, policy.environment, policy.name))
        except Trouble as trouble:
            missing = trouble.code is Code.NOT_FOUND
            return Absent(store, trouble.code.value, missing=missing) if named or not missing else None
        return entry if named or entry.policy else None

    def _policy(self, entry: Entry) -> Policy:
        try:
            policy = policies.read(entry.policy)
        except ValueError as error:
            raise Trouble(Code.INVALID, entry.store, f"{entry.name}: {error}; apply the stack again") from None
        if (own := self._places.entry_name(entry.store, policy.environment, policy.name)) != entry.name:
            # A copy, or a backup restored under another name, would retire the keys of the original.
            told = f"{entry.name} carries the policy and journal of {own}: take its metadata off"
            raise Trouble(Code.INVALID, entry.store, told)
        return policy

    def _pair_free_at(self, seen: Observation) -> datetime | None:
        """When the paired secret's window is over. None when there is no pair, or it is idle."""
        policy, now = seen.policy, self._now(seen)
        if policy.paired_with is None:
            return None
        where = self._places.locate(policy.environment, policy.paired_with)
        if where is None:
            return None
        mine = Situation(seen, Evidence(), self._issuer(seen).capabilities, Order(), now)
        # A drain that does not end, or a pair that fails and fails, or is away, is no reason to become overdue.
        latest = mine.cycle.latest if mine.cycle else now
        late = now >= latest
        try:
            pair = self.observe(where)
        except Trouble as trouble:
            # One that is not there has no window. One that does not answer may have.
            away = trouble.code in (Code.UNAVAILABLE, Code.THROTTLED)
            return now + policy.grace if away and not late else None
        s = Situation(pair, Evidence(), self._issuer(pair).capabilities, Order(), now)
        since = s.promoted_at(s.current_key) if s.current_key else None
        if late:
            return self._late_pair_free_at(s, mine, since)
        if s.pending is not None or s.at_work is not None:
            return now + pair.policy.grace
        if s.retiring and since:
            drained = min(now + pair.policy.grace, since + pair.policy.drain.at_most, latest)
            return max(since + pair.policy.grace, drained)
        older = mine.due_at and s.due_at and (s.due_at, pair.policy.name) < (mine.due_at, policy.name)
        if older and s.due_now:
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
        stuck = s.seen.primary.journal.backoff or s.full or s.crowded or s.issuer.model is Model.MANUAL
        return s.now + pair.grace if older and s.due_now and not stuck else None

    def _situation(self, seen: Observation, run: _Run) -> Situation:
        return Situation(seen, run.evidence, self._issuer(seen).capabilities, run.order, self._now(seen))

    # --- deciding --------------------------------------------------------------------------------

    def plan(self, target: Target, order: Order | None = None) -> tuple[d.Decision, Observation]:
        """What a run would do first, from one look and the questions to the issuer that it depends on.

        Changes nothing and leaves no trace in the audit trail.

        Raises:
            Trouble: a store or the issuer did not answer.
        """
        run = _Run(target, order or Order(), quiet=True)
        seen = self._with_pair(self.observe(target), run)
        decision = self._decide(seen, run)
        for _ in range(MOST_STEPS):
            if not isinstance(decision, d.AskLastUse | d.ListKeys):
                break
            self._handlers[type(decision)](self, decision, seen, run)
            decision = self._decide(seen, run)
        return decision, seen

    def _decide(self, seen: Observation, run: _Run) -> d.Decision:
        issuer = self._issuer(seen)
        return d.decide(seen, issuer.capabilities, run.evidence, run.order, self._now(seen))

    def _with_pair(self, seen: Observation, run: _Run) -> Observation:
        due = Situation(seen, run.evidence, self._issuer(seen).capabilities, run.order, self._now(seen))
        scheduled = due.current is not None and not due.urgent and due.pending is None and not run.evidence.unspent
        wanted = run.order.replace == due.handed_out or due.due_now
        if seen.policy.paired_with and scheduled and wanted:
            return replace(seen, pair_free_at=self._pair_free_at(seen))
        return seen

    # --- running ---------------------------------------------------------------------------------

    def run(
        self,
        target: Target,
        order: Order | None = None,
        *,
        patience: timedelta = timedelta(minutes=5),
        submitted: Issued | None = None,
    ) -> Outcome:
        """Takes a secret as far as it goes now.

        Parameters:
            target: which one.
            order: what was asked for beyond what is due.
            patience: how long to stay, in all, for changes to propagate at the issuer.
            submitted: see submit().

        Never raises Trouble: a call that failed is in the outcome, and the next run goes on from there.
        """
        run = _Run(target, order or Order(), submitted=submitted)
        leave_at = self._clock.monotonic() + patience.total_seconds()
        seen: Observation | None = None
        try:
            steps = 0
            while steps < MOST_STEPS:
                if self._stopping and self._stopping() and not run.evidence.unspent:
                    left = d.Wait(until=self._clock.now(), reason="the process is stopping; the next run goes on")
                    return Outcome(target, left, run.trouble, seen or run.known, run.records)
                if seen is None:
                    run.looked = (self._clock.monotonic(), self._clock.now())
                    seen = run.known = self._with_pair(self.observe(target, run.known), run)
                decision = self._decide(seen, run)
                if isinstance(decision, d.Rest):
                    if not self._stay(decision, seen, leave_at):
                        return Outcome(target, decision, run.trouble, seen, run.records)
                    run.evidence.listed = None  # what was listed before the wait is old
                    seen = None if isinstance(decision, d.Wait) and decision.look else seen
                    continue
                steps += 1
                begun, known = self._clock.monotonic(), run.evidence.known()
                seen = self._carry_out(decision, seen, run)
                if self._clock.monotonic() - begun > ATTEMPT_LIFE.total_seconds():
                    run.evidence.expire(known)
                    seen = None
        except Trouble as trouble:
            return Outcome(target, None, trouble, seen or run.known, run.records)
        endless = Trouble(
            Code.INVALID, target.store, f"{target.entry}: no end after {MOST_STEPS} steps; please report it"
        )
        return Outcome(target, None, endless, seen or run.known, run.records)

    def condemn(
        self, target: Target, *, contain_after: timedelta | None = None, everything: bool = False
    ) -> list[Record]:
        """Marks every live credential of a secret for an emergency: final, and picked up by any runner.

        Condemns key ids as seen now, not "whatever is current", so that it can not kill a key that
        another run promotes meanwhile.

        Parameters:
            contain_after: when to revoke although stores still hand it out; the policy's when None.
            everything: also what has replaced an earlier condemned key just now.

        Returns:
            The audit records: one per key.

        Raises:
            Trouble: the entry could not be read or marked.
        """
        seen = self.observe(target)
        run = _Run(target, Order())
        now = self._now(seen)
        s = Situation(seen, Evidence(), self._issuer(seen).capabilities, Order(), now)
        journal = seen.primary.journal
        delay = seen.policy.contain_after if contain_after is None else contain_after
        written: dict[str, dict[str, str]] = {}
        # A command that is run again goes on with its emergency. It does not condemn what replaced the leaked key.
        at = s.promoted_at(s.current_key or "")
        fresh = at is not None and now < at + ATTEMPT_LIFE
        begun = [held.at for key, held in journal.condemned.items() if key in journal.contain]
        for key in s.keys:
            held = journal.condemned.get(key)
            young = begun and s.attempts_of(key) and all(a.at >= min(begun) for a in s.attempts_of(key))
            if held is None and young and not everything and (fresh or s.promoted_at(key) is None):
                continue
            if key in journal.revoked:
                continue
            mark: dict[str, str] = {}
            if held is None or held.why is not Why.EMERGENCY:
                mark |= facts.condemned(key, now, Why.EMERGENCY)
            if key not in journal.contain or now + delay < journal.contain[key]:
                mark |= facts.contain(key, now + delay)
            if key not in journal.key_ids and (key_id := s.key_id(key)):
                mark |= facts.key_fact(key, key_id)
            written[key] = mark
            self._audit(run, "condemn", seen, reason="emergency", token=key, key_id=s.key_id(key))
        self._mark(target, s.current_key, written)
        return run.records

    def _mark(self, target: Target, current: str | None, written: Mapping[str, Mapping[str, str]]) -> None:
        """Writes facts by key: all at once, or where there is no room for all, those of the current key alone.

        The others are draining or were never handed out: a repetition takes them, once the first have gone.
        """
        store, everything = (
            self._stores[target.store],
            {k: text for mark in written.values() for k, text in mark.items()},
        )
        try:
            if everything:
                store.record(target.entry, everything)
        except Trouble as trouble:
            if trouble.code is not Code.INVALID or not (only := written.get(current or "")) or only == everything:
                raise
            store.record(target.entry, only)

    def rotate(self, target: Target, *, take_over: bool = False, patience: timedelta = timedelta(minutes=5)) -> Outcome:
        """Rotates now, up to promoted; the old credential drains and later sweeps retire it."""
        try:
            was = self._handed_out(target)
        except Trouble as trouble:
            return Outcome(target, None, trouble, None, [])
        outcome = self.run(target, Order(replace=was, take_over=take_over), patience=patience)
        return replace(outcome, achieved=self._key_now(outcome) not in (None, was))

    def _handed_out(self, target: Target) -> str | None:
        return self._situation(self.observe(target), _Run(target, Order())).handed_out

    def _key_now(self, outcome: Outcome) -> str | None:
        if outcome.seen is None:
            return None
        return self._situation(outcome.seen, _Run(outcome.target, Order())).handed_out

    def step(self, target: Target, token: str, stop: Stop, *, patience: timedelta) -> Outcome:
        """One step of a rotation that the store's own service has started. Again, it is the same step.

        Parameters:
            token: the service's, under which the new version is to be; the attempt's, too.
            stop: how far the step goes.
            patience: how long it may wait for the issuer.

        The outcome's `achieved` says whether it got there. The service has to hear of it when it did not.
        """
        outcome = self.run(target, Order(token=token, stop=stop), patience=patience)
        return replace(outcome, achieved=isinstance(outcome.rest, d.Reached))

    def submit(
        self, target: Target, credential: Credential, key_id: str | None, *, patience: timedelta = timedelta(minutes=5)
    ) -> Outcome:
        """Takes a credential that a person created, as one has to at a manual issuer: stages, verifies, promotes it.

        Parameters:
            key_id: the issuer's id of it, which tells the person later what to revoke.

        What is in the way of it is in the outcome: that it is, or its id is, of a credential that Keyturn has.
        """
        try:
            seen = self.observe(target)
            told = self._in_the_way(credential, key_id, seen)
        except Trouble as trouble:
            return Outcome(target, None, trouble, None, [])
        if told:
            refusal = Trouble(Code.INVALID, seen.policy.issuer, told)
            return Outcome(target, None, refusal, seen, [], achieved=False)
        was = self._situation(seen, _Run(target, Order())).handed_out
        issued = Issued(key_id or f"submitted-{self._clock.now():%Y-%m-%dT%H%M%S}", credential)
        outcome = self.run(target, Order(replace=was, submitted=True), patience=patience, submitted=issued)
        promoted = outcome.seen.primary.journal.key_ids.get(self._key_now(outcome) or "") if outcome.seen else None
        return replace(outcome, achieved=promoted == issued.key_id)

    def _in_the_way(self, credential: Credential, key_id: str | None, seen: Observation) -> str | None:
        """Why a credential can not be submitted; None when it can."""
        run = _Run(Target(seen.primary.store, seen.primary.name), Order())
        s = self._situation(seen, run)
        if key_id and any(s.key_id(key) == key_id for key in s.keys):
            return f"{key_id} is the id of a credential that {seen.primary.name} has or had already"
        if key_id and _has_value(key_id, credential):
            return _VALUE_IN_ID
        values = (self._value_of(key, seen, run) for key in s.keys)
        if any(value is not None and value.same_as(credential) for value in values):
            return f"{seen.primary.name} has or had this very credential already"
        return None

    def rollback(self, target: Target, *, patience: timedelta = timedelta(minutes=5)) -> Outcome:
        """Makes the previous credential current again, as a new version, while it still lives.

        A new attempt like any other: staged, verified, promoted. Never goes back to a key that is
        condemned or revoked. The credential that was current drains.
        """
        try:
            seen = self.observe(target)
        except Trouble as trouble:
            return Outcome(target, None, trouble, None, [])
        s = self._situation(seen, _Run(target, Order()))
        earlier = [key for key in s.retiring if s.promoted_at(key) and key not in seen.primary.journal.condemned]
        if not earlier:
            hold = d.Hold(cause=d.Cause.IMPOSSIBLE, reason="there is no earlier credential that still lives")
            return Outcome(target, hold, None, seen, [], achieved=False)
        newest = max(earlier, key=lambda key: s.promoted_at(key) or seen.primary.read_at)
        outcome = self.run(target, Order(replace=s.handed_out, back_to=newest), patience=patience)
        doomed = outcome.seen.primary.journal.condemned if outcome.seen else {}
        return replace(outcome, achieved=self._key_now(outcome) == newest and newest not in doomed)

    def adopt(self, target: Target, policy: Policy, *, key_id: str | None) -> Observation:
        """Brings an existing entry under management. Its value and versions stay as they are.

        Parameters:
            policy: what is written as the applied policy.
            key_id: the issuer's id of the credential in it. With it the credential retires like one of
                ours after the next rotation; without it Keyturn never revokes it.

        Raises:
            Trouble: there is no such entry or value, it is managed already (CONFLICT), its value is not
                of the policy's form, or the issuer refuses it (INVALID). Nothing was changed then.
        """
        store = self._stores[target.store]
        entry = store.observe(target.entry)
        if entry.policy:
            raise Trouble(Code.CONFLICT, target.store, f"{target.entry} is managed already")
        if entry.current is None:
            raise Trouble(Code.INVALID, target.store, f"{target.entry} has no value to adopt; let `pulumi up` make it")
        seen = Observation(policy, entry, {})
        issuer, credential = self._issuer(seen), self.read(seen, entry, entry.current)
        if key_id and _has_value(key_id, credential):
            raise Trouble(Code.INVALID, policy.issuer, f"{target.entry}: {_VALUE_IN_ID}")
        check = issuer.verify(credential)
        if check.verdict is Verdict.INVALID:
            raise Trouble(Code.INVALID, policy.issuer, f"{target.entry}: its credential is refused: {check.reason}")
        if key_id and (refusal := self._not_its_id(key_id, policy, issuer)):
            raise Trouble(Code.INVALID, policy.issuer, f"{target.entry}: {refusal}")
        run = _Run(target, Order())
        # An adoption whose answer was lost has written its facts already.
        known = [token for token, version in entry.journal.adopted.items() if version == entry.current.id]
        token = known[0] if known else entry.current.token or foreign_token(entry, entry.current)
        since = entry.current.created_at or self._now(seen)
        written = facts.adopted(
            token, entry.current.id, since, Of.GIVEN if key_id else Of.PERSON, issuer.capabilities.scope
        )
        written |= facts.key_fact(token, key_id) if key_id else {}
        self._audit(run, "adopt", seen, reason=check.reason, token=token, key_id=key_id)
        store.record(target.entry, written)
        store.set_policy(target.entry, policies.written(policy))
        return self.observe(target)

    @staticmethod
    def _not_its_id(key_id: str, policy: Policy, issuer: Issuer) -> str | None:
        """Why an id can not be that of an entry's credential; None where it may be, or nobody can tell.

        It is what the next rotation revokes.
        """
        if not issuer.capabilities.registry or issuer.capabilities.model is not Model.MINT:
            return None
        found = {info.key_id: info for info in iter(issuer.keys())}.get(key_id)
        if found is None:
            return f"{issuer.name} lists no key {key_id}"
        ours = KeyName.parse(found.name)
        mine = (policy.installation, policy.environment, policy.name)
        if ours and (ours.installation, ours.environment, ours.secret) != mine:
            return f"{key_id} was minted by Keyturn for {ours.secret} in {ours.environment} of {ours.installation}"
        return None

    def release(self, target: Target) -> None:
        """Hands an entry back: policy and journal are taken off it, value and versions stay.

        Raises:
            Trouble: a credential of it is still on its way in or out (CONFLICT); nothing was changed then.
        """
        seen = self.observe(target)
        s = self._situation(seen, _Run(target, Order()))
        if s.retiring or s.pending or s.urgent:
            raise Trouble(
                Code.CONFLICT,
                target.store,
                f"{target.entry} can not be released while a rotation is under way or an old credential drains; "
                "see `keyturn status`",
            )
        self._audit(_Run(target, Order()), "release", seen, token=s.current_key)
        for store in reversed(seen.policy.replicas):
            name = self._places.entry_name(store, seen.policy.environment, seen.policy.name)
            if facts_there := self._stores[store].observe(name).journal.facts:
                self._stores[store].forget(name, list(facts_there))
            self._stores[store].set_policy(name, {})
        # The policy goes, then comes a look: a run that wrote an intent meanwhile keeps the entry, or its key were lost.
        primary, known = self._stores[target.store], seen.primary.journal.facts
        primary.set_policy(target.entry, {})
        if primary.observe(target.entry).journal.facts.keys() - known.keys():
            primary.set_policy(target.entry, seen.primary.policy)
            raise Trouble(Code.CONFLICT, target.store, f"{target.entry} is not released: a run has just begun on it")
        primary.forget(target.entry, list(known))
        if seen.primary.service and seen.primary.service.enabled and isinstance(primary, RotatesByItself):
            primary.set_rotation(target.entry, None)

    def emergency(
        self, target: Target, *, contain_after: timedelta | None = None, patience: timedelta = timedelta(minutes=10)
    ) -> Outcome:
        """Replaces and revokes now: no grace, no quiet period, containment when replacing takes too long.

        Stays until every condemned key is shown dead, or patience is over; sweeps go on from there.
        The outcome's records are those of all that was done here.

        Raises:
            Trouble: the entry could not be read or marked; nothing was changed.
        """
        leave_at = self._clock.monotonic() + patience.total_seconds()
        before = self._situation(self.observe(target), _Run(target, Order()))
        theirs = None if before.current_key else before.handed_out  # not ours to condemn, so it is named
        records = self.condemn(target, contain_after=contain_after)
        pause = _ASK_AGAIN
        while True:
            left = timedelta(seconds=max(leave_at - self._clock.monotonic(), 0))
            outcome = self.run(target, Order(replace=theirs, take_over=True), patience=left)
            records += outcome.records
            outcome = replace(outcome, records=records, achieved=self._replaced(outcome, theirs))
            if (outcome.achieved and not outcome.unproven) or self._clock.monotonic() + pause > leave_at:
                return outcome
            self._clock.sleep(pause)
            pause = min(pause * 2, _ASK_SELDOM)

    def _replaced(self, outcome: Outcome, theirs: str | None) -> bool:
        """Whether every store hands out the same, it is not condemned, and not the foreign value of before."""
        if outcome.seen is None:
            return False
        s = self._situation(outcome.seen, _Run(outcome.target, Order()))
        return self._key_now(outcome) not in (None, theirs) and not s.urgent and not s.lagging

    def destroy(self, target: Target) -> Outcome:
        """Revokes every key that was minted for a secret and shows each one dead; leaves the entry for the caller.

        The outcome's rest is Done when nothing of the secret lives any more.
        """
        self.condemn(target, contain_after=timedelta(0), everything=True)
        return self.run(target, Order(take_over=True, destroy=True))

    def adopt_orphan(self, target: Target, seen: Observation, token: str, key_id: str, created_at: datetime) -> None:
        """Writes a key that nothing claims into its secret's journal as condemned; runs take it from there."""
        base = seen.primary.current.id if seen.primary.current else None
        scope = self._issuer(seen).capabilities.scope
        attempt = Attempt(token, base, seen.policy.stores, created_at, Why.ORPHAN, scope=scope)
        written = attempt.written() | facts.key_fact(token, key_id)
        written |= facts.condemned(token, self._now(seen), Why.ORPHAN)
        run = _Run(target, Order())
        self._audit(
            run, "condemn", seen, reason="orphan: alive at the issuer, claimed by nothing", token=token, key_id=key_id
        )
        self._stores[target.store].record(target.entry, written)

    def _stay(self, rest: d.Rest, seen: Observation, leave_at: float) -> bool:
        if not isinstance(rest, d.Wait) or not rest.soon or (self._stopping and self._stopping()):
            return False
        seconds = max((rest.until - self._now(seen)).total_seconds(), 0.01)
        if self._clock.monotonic() + seconds > leave_at:
            return False
        while seconds > 0 and not (self._stopping and self._stopping()):
            nap = min(seconds, _NOTICE) if self._stopping else seconds
            self._clock.sleep(nap)
            seconds -= nap
        return True

    # --- effects ---------------------------------------------------------------------------------

    def _carry_out(self, action: d.Action, seen: Observation, run: _Run) -> Observation | None:
        """Does it. Returns the look as it is now, or None when another look is needed."""
        try:
            return self._handlers[type(action)](self, action, seen, run)
        except Trouble as trouble:
            name = type(action).__name__.lower()
            self._audit(run, f"{name}.failed", seen, reason=str(trouble), detail={"code": trouble.code.value})
            run.doubts += 1
            if run.doubts > _DOUBTS:
                raise
            if not trouble.maybe_applied and trouble.code is not Code.CONFLICT:
                # It will not do now. What does not depend on it still may.
                run.evidence.failed[d.signature(action)] = str(trouble)
                run.trouble = run.trouble or trouble
            return None  # look at what is really there

    def _note(self, action: d.Note, seen: Observation, run: _Run) -> Observation:
        for fact in action.facts:
            kind, _, token = fact.partition(".")
            if kind == "proven":
                stages = _stages(seen.primary.journal, token)
                self._audit(run, "proven", seen, reason=action.reason, token=token, detail=stages)
        return self._record(seen, run, action.facts)

    def _condemn(self, action: d.Condemn, seen: Observation, run: _Run) -> None:
        self._audit(run, "condemn", seen, reason=action.reason, token=action.key)
        self._record(seen, run, action.facts)

    def _ask_last_use(self, action: d.AskLastUse, seen: Observation, run: _Run) -> Observation:
        use = self._issuer(seen).last_use(action.key_id)
        run.evidence.last_use[action.key] = use
        told = {"known": str(use.known).lower(), "at": use.at.isoformat() if use.at else "never"}
        self._audit(run, "last-use", seen, token=action.key, key_id=action.key_id, detail=told)
        return seen

    def _intend(self, action: d.Intend, seen: Observation, run: _Run) -> Observation | None:
        current = seen.primary.current
        made = seen.primary.journal.attempts.get((current and current.token) or "")
        # What is stored anew stays in the form that it has.
        kept = made.form if made and action.why is Why.REWRITE else None
        if action.why is Why.REWRITE and made is None and current and self._parsed(seen, seen.primary, current) is None:
            kept = "other"  # whatever a person stored: no digest of a declared form
        attempt = Attempt(
            run.order.token or self._tokens(),
            action.base,
            seen.policy.stores,
            self._now(seen),
            action.why,
            action.of,
            kept if kept is not None else forms.digest(self._form(seen)),
            action.slot,
            self._issuer(seen).capabilities.scope,
        )
        life = (ATTEMPT_LIFE - CALL_LIMIT).total_seconds()
        run.deadlines[attempt.token] = self._clock.monotonic() + life
        run.ends[attempt.token] = self._clock.now() + timedelta(seconds=life)
        self._audit(run, "intend", seen, reason=action.reason, token=attempt.token)
        after = self._record(seen, run, attempt.written())
        run.evidence.unspent.add(attempt.token)
        destroys = self._issuer(seen).capabilities.model in (Model.SLOTS, Model.REPLACE)
        # Where creating destroys: write, then look. Of two runs at least one sees the other, and gives way.
        return None if destroys and action.of is None else after

    def _start(self, action: d.Start, seen: Observation, run: _Run) -> None:
        store, entry = self._stores[run.target.store], run.target.entry
        if not isinstance(store, RotatesByItself):
            raise Trouble(
                Code.INVALID, store.name, f"{entry}: its applied policy is native, and {store.name} has no such"
            )
        if run.order.replace and seen.primary.journal.backoff:
            store.forget(entry, ["backoff"])  # who asks has seen to what failed, or wants to see it fail
        token = self._tokens()
        self._audit(run, "start", seen, reason=action.reason, token=token)
        run.evidence.started = True
        try:
            store.start_rotation(entry, token)
        except Trouble as trouble:
            run.evidence.started = trouble.maybe_applied
            raise

    def _mint(self, action: d.Mint, seen: Observation, run: _Run) -> None:
        attempt, policy, issuer = action.attempt, seen.policy, self._issuer(seen)
        run.evidence.unspent.discard(attempt.token)
        name = KeyName(policy.installation, policy.environment, policy.name, attempt.token)
        self._in_time(attempt.token, run)
        self._audit(run, "mint", seen, reason=action.reason, token=attempt.token)
        self._in_time(attempt.token, run)  # an audit trail may take its time, too
        try:
            issued = run.submitted or issuer.mint(str(name), attempt.slot)
        except Trouble as trouble:
            if not trouble.maybe_applied:
                run.evidence.gave_way = True  # what refuses one mint refuses the next one too
                self._give_up(attempt, trouble, seen, run)
            raise
        if run.submitted is not None:
            run.submitted, run.order = None, replace(run.order, submitted=False, replace=None)
        run.minted_at = self._clock.monotonic()
        run.evidence.issued[attempt.token] = issued.key_id
        if issued.expires_at:
            run.evidence.expires[attempt.token] = issued.expires_at
        self._audit(run, "mint.done", seen, token=attempt.token, key_id=issued.key_id)
        # What no list of this issuer will tell again, another run may need.
        written = facts.key_fact(attempt.token, issued.key_id) if issuer.capabilities.model is not Model.MINT else {}
        written |= facts.expires(attempt.token, issued.expires_at) if issued.expires_at else {}
        seen = self._record(seen, run, written) if written else seen
        self._stage(attempt, issued.credential, issued.key_id, seen, run)

    def _give_up(self, attempt: Attempt, trouble: Trouble, seen: Observation, run: _Run) -> None:
        """The issuer refused for certain: nothing was minted, so the intent goes, and the next try waits."""
        s = self._situation(seen, run)
        store = self._stores[run.target.store]
        store.record(run.target.entry, d.backoff(s, trouble.code.value))
        # Somebody may have condemned it meanwhile, not knowing that it never came to be.
        kinds = ("attempt", "condemned", "contain", "key")
        store.forget(run.target.entry, [f"{kind}.{attempt.token}" for kind in kinds])

    def _stage(
        self,
        attempt: Attempt,
        credential: Credential,
        key_id: str | None,
        seen: Observation,
        run: _Run,
        *,
        rendered: bool = False,
    ) -> None:
        self._audit(run, "stage", seen, token=attempt.token, key_id=key_id, store=run.target.store)
        self._in_time(attempt.token, run)
        try:
            stored = credential if rendered else self._rendered(seen, credential)
            self._stores[run.target.store].stage(run.target.entry, attempt.token, stored, key_id=key_id)
        except Trouble as trouble:
            written = facts.key_fact(attempt.key, key_id) if key_id else {}
            if not trouble.maybe_applied and attempt.of is None:
                s = self._situation(seen, run)
                written |= facts.condemned(attempt.key, self._now(seen), Why.LOST) | d.backoff(s, trouble.code.value)
            if written:
                self._stores[run.target.store].record(run.target.entry, written)
            raise

    def _restage(self, action: d.Restage, seen: Observation, run: _Run) -> None:
        attempt = action.attempt
        run.evidence.unspent.discard(attempt.token)
        s = self._situation(seen, run)
        if s.rewrites(attempt) and seen.primary.current is not None:
            same = self._stored(seen.primary, seen.primary.current)
            self._stage(attempt, same, s.key_id(attempt.key), seen, run, rendered=True)
            return
        credential = self._value_of(attempt.key, seen, run)
        if credential is None:
            raise Trouble(Code.NOT_FOUND, run.target.store, f"{run.target.entry}: the stored value is gone")
        self._stage(attempt, credential, s.key_id(attempt.key), seen, run)

    def _copy(self, action: d.Copy, seen: Observation, run: _Run) -> None:
        token = action.version.token or ""
        s, credential = self._situation(seen, run), self.read(seen, seen.primary, action.version)
        stored = self._rendered(seen, credential)
        self._audit(run, "stage", seen, reason=action.reason, token=token, store=action.store)
        self._in_time(token, run)
        entry = self._replica(seen, action.store)
        key_id = s.key_id(s.key_of(action.version) or "")
        self._stores[action.store].stage(entry.name, token, stored, key_id=key_id)

    def _compare(self, action: d.Compare, seen: Observation, run: _Run) -> Observation | None:
        token = action.version.token or ""
        entry = self._replica(seen, action.store)
        # Stores may hold one credential in several shapes: what is in them is compared.
        ours, theirs = self.read(seen, seen.primary, action.version), self.read(seen, entry, action.copy)
        if ours.same_as(theirs):
            run.evidence.matched.add((action.store, token))
            return seen
        if (action.store, token) in run.mismatched:
            told = f"{entry.name}: gives back something else than it was given"
            raise Trouble(Code.INVALID, action.store, told)
        run.mismatched.add((action.store, token))
        self._audit(run, "mismatch", seen, reason="a staged copy differs", token=token, store=action.store)
        self._stores[action.store].discard(entry.name, action.copy)
        return None

    def _verify(self, action: d.Verify, seen: Observation, run: _Run) -> Observation:
        token = action.attempt.token
        if action.against is not None:
            anew, current = self._stored(seen.primary, action.pending), self._stored(seen.primary, action.against)
            same = anew.same_as(current)
            check = Check(Verdict.VALID, "the same value") if same else Check(Verdict.INVALID, "another value")
        else:
            credential = run.staged.get(token) or self.read(seen, seen.primary, action.pending)
            run.staged[token] = credential  # a version's value never changes: once read back, it is shown again
            check = self._issuer(seen).verify(credential)
        run.evidence.checks[token] = self._streak(run.evidence.checks.get(token), check, seen)
        self._audit_check("verify", check, seen, run, token)
        return seen

    def _identify(self, action: d.Identify, seen: Observation, run: _Run) -> Observation:
        """A person, or a write that came late, may have put the value of one of our keys there.

        Then it is that key which is current, and where it is dead it has to go again. It counts as compared only
        once every value could be read, or it would be taken for a stranger's.
        """
        mine, s = self._match(action.version, seen, run), self._situation(seen, run)
        run.evidence.identified.add(action.version.id)
        return seen if mine is None else self._identified(mine, action.version, s, seen, run)

    def _identified(self, mine: str, version: Version, s: Situation, seen: Observation, run: _Run) -> Observation:
        """Notes that a version of the primary carries one of our keys."""
        journal = seen.primary.journal
        of = Of.OURS if mine in journal.attempts else Of.PERSON if mine in journal.foreign else Of.GIVEN
        self._audit(run, "identify", seen, reason="put there by something else", token=mine, key_id=s.key_id(mine))
        written = facts.adopted(mine, version.id, self._now(seen), of, s.issuer.scope)
        if (key_id := s.key_id(mine)) and mine not in journal.key_ids:
            written |= facts.key_fact(mine, key_id)
        after = self._record(seen, run, written)
        return replace(after, primary=_named(after.primary))

    def _match(self, version: Version, seen: Observation, run: _Run) -> str | None:
        """Token of the key whose value a version of the primary holds."""
        held = self._parsed(seen, seen.primary, version)
        if held is None:
            return None
        s = self._situation(seen, run)
        for key in reversed(s.keys):
            if key != s.current_key and any(ours.same_as(held, trimmed=True) for ours in self._values(key, seen, run)):
                return key
        return None

    def _tell_apart(self, action: d.TellApart, seen: Observation, run: _Run) -> Observation | None:
        s = self._situation(seen, run)
        values = list(self._values(action.key, seen, run))
        for entry in (seen.primary, *seen.replicas.values()):
            version = None if isinstance(entry, Absent) else entry.current
            if isinstance(entry, Absent) or version is None or s.key_id(s.key_of(version) or "") is not None:
                continue
            held = self._parsed(seen, entry, version)
            if held is None or not values or any(ours.same_as(held, trimmed=True) for ours in values):
                run.evidence.alike.add(action.key)
                if held is not None and values and entry is seen.primary:
                    return self._identified(action.key, version, s, seen, run)
                return seen
        run.evidence.apart.add(action.key)
        return seen

    def _values(self, key: str, seen: Observation, run: _Run) -> Iterator[Credential]:
        """Every value of a key that a store of the secret still gives."""
        if (ours := self._value_of(key, seen, run)) is not None:
            yield ours
        s = self._situation(seen, run)
        for entry in seen.replicas.values():
            if isinstance(entry, Absent):
                continue
            for version in (entry.current, entry.pending):
                mine = version is not None and s.key_of(version) == key
                if version and mine and (theirs := self._parsed(seen, entry, version)) is not None:
                    yield theirs

    def _parsed(self, seen: Observation, entry: Entry, version: Version) -> Credential | None:
        """The credential in a version; None when it is not of the declared form."""
        try:
            return self.read(seen, entry, version)
        except Trouble as trouble:
            if trouble.code is Code.INVALID:
                return None
            raise

    def _adopt(self, action: d.Adopt, seen: Observation, run: _Run) -> Observation:
        version = action.version
        token = foreign_token(seen.primary, version)
        since = version.created_at or self._now(seen)
        self._audit(run, "adopt", seen, reason=action.reason, token=token)
        written = facts.adopted(token, version.id, since, Of.PERSON)
        if action.dead:
            written |= facts.condemned(token, self._now(seen), Why.NEVER_VERIFIED)
        after = self._record(seen, run, written)
        return replace(after, primary=_named(after.primary))

    def _verify_current(self, action: d.VerifyCurrent, seen: Observation, run: _Run) -> Observation:
        try:
            check = self._issuer(seen).verify(self.read(seen, seen.primary, action.version))
        except Trouble as trouble:
            if trouble.code is not Code.INVALID:
                raise
            check = Check(Verdict.UNKNOWN, str(trouble))
        known = run.evidence.current
        known[action.version.id] = self._streak(known.get(action.version.id), check, seen)
        self._audit_check("verify-current", check, seen, run, action.version.token)
        return seen

    def _look_again(self, _: d.Look, _seen: Observation, _run: _Run) -> None:
        return None

    def _smoke(self, action: d.Smoke, seen: Observation, run: _Run) -> Observation:
        check = self._issuer(seen).smoke(self.read(seen, seen.primary, action.pending))
        run.evidence.smoked[action.attempt.token] = check
        self._audit_check("smoke", check, seen, run, action.attempt.token)
        return seen

    def _promote(self, action: d.Promote, seen: Observation, run: _Run) -> None:
        token = action.version.token or ""
        entry = seen.primary if action.store == run.target.store else self._replica(seen, action.store)
        if action.store != run.target.store and action.store in seen.unfenced and self._outdated(run):
            return  # the primary may have moved on, and nothing would fence this write
        self._audit(run, "promote", seen, reason=action.reason, token=token, store=action.store)
        self._in_time(token, run)
        self._stores[action.store].promote(entry.name, action.version, action.expected)
        window = None
        if self._issuer(seen).capabilities.model is Model.REPLACE and run.minted_at is not None:
            window = {"window_seconds": f"{self._clock.monotonic() - run.minted_at:.3f}"}
        self._audit(run, "promote.done", seen, token=token, store=action.store, detail=window)

    def _discard(self, action: d.Discard, seen: Observation, run: _Run) -> None:
        entry = seen.primary if action.store == run.target.store else self._replica(seen, action.store)
        self._audit(run, "discard", seen, reason=action.reason, token=action.version.token, store=action.store)
        self._stores[action.store].discard(entry.name, action.version)

    def _list(self, _: d.ListKeys, seen: Observation, run: _Run) -> Observation:
        policy, at, s = seen.policy, self._now(seen), self._situation(seen, run)
        names = {"installation": policy.installation, "environment": policy.environment, "secret": policy.name}
        infos = list(self._issuer(seen).keys())
        ours = [(token, info) for info in infos if (token := token_in(info.name, **names))]
        run.evidence.listed = {t: info for t, info in ours if s.recorded_id(t) in (None, info.key_id)}
        run.evidence.listed_ids = frozenset(info.key_id for info in infos)
        run.evidence.listed_at = at
        return seen

    def _revoke(self, action: d.Revoke, seen: Observation, run: _Run) -> Observation:
        self._audit(
            run,
            "contain" if action.contained else "revoke",
            seen,
            reason=action.reason,
            token=action.key,
            key_id=action.key_id,
        )
        self._issuer(seen).revoke(action.key_id)
        run.evidence.listed = None
        run.evidence.refusals.pop(action.key, None)
        self._audit(run, "revoke.done", seen, token=action.key, key_id=action.key_id)
        return self._record(seen, run, facts.revoked(action.key, self._now(seen)))

    def _prove(self, action: d.Prove, seen: Observation, run: _Run) -> Observation:
        credential = run.old.get(action.key) or self._value_of(action.key, seen, run)
        if credential is None:
            run.evidence.unreadable.add(action.key)
            return seen
        run.old[action.key] = credential
        check = self._issuer(seen).verify(credential)
        run.evidence.refusals[action.key] = self._streak(run.evidence.refusals.get(action.key), check, seen)
        self._audit_check("prove", check, seen, run, action.key)
        return seen

    def _forget(self, action: d.Forget, seen: Observation, run: _Run) -> Observation:
        if action.key:
            s = self._situation(seen, run)
            event = "proven" if action.proof in ("refused", "absent") else "closed"
            self._audit(
                run, event, seen, reason=action.reason, token=action.key, key_id=s.key_id(action.key),
                detail={"how": action.proof, **_stages(seen.primary.journal, action.key)},
            )  # fmt: skip
        self._stores[run.target.store].forget(run.target.entry, action.facts)
        given_up = run.evidence.unspent & {fact.partition(".")[2] for fact in action.facts}
        run.evidence.unspent -= given_up
        run.evidence.gave_way |= bool(given_up)
        return replace(seen, primary=replace(seen.primary, journal=seen.primary.journal.minus(action.facts)))

    # --- small parts -----------------------------------------------------------------------------

    def _issuer(self, seen: Observation) -> Issuer:
        """Raises Trouble when the applied policy names an issuer that is not configured."""
        name = seen.policy.issuer
        if name not in self._issuers:
            told = f"{seen.primary.name} is applied with the issuer {name}, which is not configured any more"
            raise Trouble(Code.INVALID, seen.primary.store, told)
        return self._issuers[name]

    @staticmethod
    def _replica(seen: Observation, store: str) -> Entry:
        entry = seen.replicas[store]
        assert isinstance(entry, Entry), "decide acts only on replicas that were seen"
        return entry

    def read(self, seen: Observation, entry: Entry, version: Version) -> Credential:
        """The credential in a version of an entry, out of the form that it is stored in.

        Raises:
            Trouble: it can not be read, or is not of the declared form (INVALID).
        """
        try:
            return forms.parse(self._stored(entry, version), self._form(seen))
        except forms.FormError as error:
            raise Trouble(Code.INVALID, entry.store, f"{entry.name}: {error}") from None

    def _stored(self, entry: Entry, version: Version) -> Credential:
        """What a version of an entry holds, in whatever form that is."""
        return version.credential or self._stores[entry.store].read(entry.name, version)

    def _rendered(self, seen: Observation, credential: Credential) -> Credential:
        try:
            return forms.render(credential, self._form(seen))
        except forms.FormError as error:
            raise Trouble(Code.INVALID, seen.policy.issuer, f"{seen.primary.name}: {error}") from None

    def _form(self, seen: Observation) -> str:
        return seen.policy.form or forms.default(self._issuer(seen).capabilities.fields)

    def _value_of(self, key: str, seen: Observation, run: _Run) -> Credential | None:
        """The value of a key, from whatever version of the primary still holds it."""
        s = self._situation(seen, run)
        for version in (seen.primary.current, seen.primary.pending):
            if version is not None and s.key_of(version) == key and s.readable(version):
                return self.read(seen, seen.primary, version)
        store = self._stores[run.target.store]
        if (adopted := seen.primary.journal.adopted.get(key)) is not None:
            try:
                return self.read(seen, seen.primary, Version(adopted, None))
            except Trouble as trouble:
                if trouble.code not in (Code.NOT_FOUND, Code.INVALID):
                    raise
                return None
        for token in (key, *(a.token for a in s.attempts_of(key) if a.token != key)):
            if (found := store.find(run.target.entry, token)) is not None and s.readable(found):
                return self.read(seen, seen.primary, found)
        return None

    def _record(self, seen: Observation, run: _Run, written: Mapping[str, str]) -> Observation:
        self._stores[run.target.store].record(run.target.entry, written)
        return replace(seen, primary=replace(seen.primary, journal=seen.primary.journal.plus(written)))

    def _in_time(self, token: str, run: _Run) -> None:
        """No write of an attempt after its life: others may count on it."""
        deadline = run.deadlines.get(token)
        if deadline is None and run.known and run.known.unfenced:
            attempt = run.known.primary.journal.attempts.get(token)
            if attempt and token not in run.known.primary.journal.promoted:
                left = attempt.at + ATTEMPT_LIFE - CALL_LIMIT - self._now(run.known)
                deadline = run.deadlines[token] = self._clock.monotonic() + left.total_seconds()
        # A machine that slept may not have counted that; its wall clock has.
        wall = run.ends.get(token)
        late = wall is not None and self._clock.now() >= wall
        if late or (deadline is not None and self._clock.monotonic() >= deadline):
            raise Trouble(Code.UNAVAILABLE, run.target.store, f"{run.target.entry}: this attempt ran out of time")

    def _outdated(self, run: _Run) -> bool:
        """Whether the last look is older than a call may take."""
        if run.looked is None:
            return True
        began, at = run.looked
        # A machine that slept may not have counted that; its wall clock has.
        return (
            max(self._clock.monotonic() - began, (self._clock.now() - at).total_seconds()) > CALL_LIMIT.total_seconds()
        )

    def _streak(self, before: Streak | None, check: Check, seen: Observation) -> Streak:
        now = self._now(seen)
        return before.then(check.verdict, now, check.reason) if before else Streak(check.verdict, 1, now, check.reason)

    def _audit_check(self, event: str, check: Check, seen: Observation, run: _Run, token: str | None) -> None:
        detail = {"verdict": check.verdict.value, **check.facts}
        if check.request_id:
            detail["request_id"] = check.request_id
        self._audit(run, event, seen, reason=check.reason, token=token, detail=detail)

    def _audit(
        self,
        run: _Run,
        event: str,
        seen: Observation,
        *,
        reason: str = "",
        token: str | None = None,
        key_id: str | None = None,
        store: str | None = None,
        detail: Mapping[str, str] | None = None,
    ) -> None:
        if run.quiet:
            return
        record = Record(self._clock.now(), event, seen.primary.name, reason, token, key_id, store, detail)
        self._auditor.write(record)
        run.records.append(record)

    _handlers: ClassVar[Mapping[type[d.Action], Callable[[Engine, Any, Observation, _Run], Observation | None]]] = {
        d.Start: _start,
        d.Intend: _intend,
        d.Mint: _mint,
        d.Restage: _restage,
        d.Copy: _copy,
        d.Compare: _compare,
        d.Verify: _verify,
        d.Smoke: _smoke,
        d.Identify: _identify,
        d.TellApart: _tell_apart,
        d.Adopt: _adopt,
        d.VerifyCurrent: _verify_current,
        d.Look: _look_again,
        d.Promote: _promote,
        d.Discard: _discard,
        d.Note: _note,
        d.Condemn: _condemn,
        d.ListKeys: _list,
        d.AskLastUse: _ask_last_use,
        d.Revoke: _revoke,
        d.Prove: _prove,
        d.Forget: _forget,
    }
    """How each action is carried out: the look as it is afterwards, or None when another look is needed."""


def _stages(journal: Journal, key: str) -> dict[str, str]:
    """When a key came to each stage of its end, for the record of its proof: the journal forgets them with the key."""
    emergency = key in journal.contain and key in journal.condemned
    times = {
        "superseded": journal.superseded.get(key),
        "emergency": journal.condemned[key].at if emergency else None,
        "revoked": journal.revoked.get(key),
        "proven": journal.proven.get(key),
    }
    return {stage: at.isoformat() for stage, at in times.items() if at is not None}


_VALUE_IN_ID: Final = "what was given as the key's id has the value in it"


def _has_value(key_id: str, credential: Credential) -> bool:
    """Whether somebody has mixed up the two: an id stands in journals and messages."""
    return any(value.reveal() in key_id for value in credential.fields.values())


def _named(entry: Entry) -> Entry:
    """The entry with its current version under the token that an adopted version goes by, whatever it says itself."""
    if entry.current is None or entry.current.token in entry.journal.attempts:
        return entry
    token = next((t for t, version in entry.journal.adopted.items() if version == entry.current.id), None)
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
