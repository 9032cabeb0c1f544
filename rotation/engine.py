"""The engine's public face: runs secrets to where their policy wants them, and takes a person's commands.

A run is observe, decide, one effect, look again. The engine holds no state between runs and has no opinion of its own.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from rotation import actions
from rotation import form as forms
from rotation import journal as facts
from rotation import policy as policies
from rotation.decide import decide
from rotation.effects import Effects
from rotation.errors import Code, Trouble
from rotation.journal import Attempt, Frozen, Of, Why
from rotation.looking import Observer
from rotation.model import PUBLIC, Capabilities, Credential, Entry, Issued, Model, Policy, Verdict, Version
from rotation.names import KeyName
from rotation.outside import Outside, Places, Target
from rotation.ports import Auditor, Clock, Issuer, ListsValues, Record, RotatesByItself, SecretStore
from rotation.run import Records, Run
from rotation.situation import ATTEMPT_LIFE, CALL_LIMIT, Observation, Order, Stop, foreign_token
from rotation.values import Values

__all__ = ["CALL_LIMIT", "Engine", "Outcome", "Places", "Target", "unfit"]

MOST_STEPS: Final = 1_000
"""Far above what any run needs. Reaching it is a fault of ours, and better than running for ever."""

_ASK_AGAIN: Final = 5.0
_ASK_SELDOM: Final = 40.0
"""Seconds between tries while an emergency waits for something outside: at first, doubling, and at most."""

WORTH_RETURNING_TO: Final = timedelta(hours=2)
"""A key that expires by itself sooner is nothing to roll back to: sweeps, which replace it, may come once an hour."""
ENDING: Final = timedelta(minutes=30)
"""For so long after an entry's deletion was begun nothing is minted for it. Then it was given up."""

_SHORTEST: Final = 0.1
"""Seconds that a run waits at least before it looks again: a time that is just over asks for no burst of calls."""

_NOTICE: Final = 0.5
"""Seconds within which a run that waits notices that the process is stopping."""


@dataclass(slots=True, eq=False)
class Outcome:
    """How a run ended, and what it did."""

    target: Target
    rest: actions.Rest | None
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


def unfit(issuer: Capabilities, name: str, key_id: str | None) -> str | None:
    """Why nobody can bring a credential of an issuer by hand; None where that goes.

    Parameters:
        name: what the configuration calls the issuer.
        key_id: what is known of the credential beside its value.
    """
    if issuer.model is Model.SLOTS:
        return (
            f"{name} has slots, and which one a value is in is not known: put it into the store, then `keyturn adopt`"
        )
    if issuer.model is Model.MINT and issuer.registry and issuer.revokes and not key_id:
        return f"{name} revokes a credential by its id, which is needed with the value: --key-id"
    return None


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
        prints: makes the fingerprints of a credential, whose id may be known; () when it can not, and never raises.
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
        prints: Callable[[Credential, str | None], tuple[str, ...]] | None = None,
    ) -> None:
        self.outside = Outside(stores, issuers, places, clock, auditor, tokens, stopping, ahead, prints)
        self._stores = stores
        self._clock = clock
        self._stopping = stopping
        self._observer = Observer(self.outside)
        self._values = Values(self.outside)
        self._records = Records(clock, auditor)
        self._effects = Effects(self.outside, self._values, self._records)

    def observe(self, target: Target, known: Observation | None = None) -> Observation:
        """One look at a secret in all of its stores; see Observer.observe."""
        return self._observer.observe(target, known)

    def read(self, seen: Observation, entry: Entry, version: Version) -> Credential:
        """The credential in a version of an entry; see Values.read."""
        return self._values.read(seen, entry, version)

    def value_of(self, seen: Observation, key: str) -> Credential | None:
        """The value of a key, by its token; see Values.of."""
        return self._values.of(key, self.outside.situation(seen))

    # --- running ---------------------------------------------------------------------------------

    def plan(self, target: Target, order: Order | None = None) -> tuple[actions.Decision, Observation]:
        """What a run would do first, from one look and the questions to the issuer that it depends on.

        Changes nothing and leaves no trace in the audit trail.

        Raises:
            Trouble: a store or the issuer did not answer.
        """
        run = Run(target, order or Order(), quiet=True)
        seen = self._look(run)
        decision = self._decide(seen, run)
        for _ in range(MOST_STEPS):
            if not isinstance(decision, actions.AskLastUse | actions.ListKeys):
                break
            self._effects.perform(decision, seen, run)
            decision = self._decide(seen, run)
        return decision, seen

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
        run = Run(target, order or Order(), submitted=submitted)
        leave_at = self._clock.monotonic() + patience.total_seconds()
        seen: Observation | None = None
        try:
            steps = 0
            while steps < MOST_STEPS:
                if self._stopping and self._stopping() and not run.evidence.unspent:
                    left = actions.Wait(until=self._clock.now(), reason="the process is stopping; the next run goes on")
                    return Outcome(target, left, run.trouble, seen or run.known, run.records)
                if seen is None:
                    run.looked = (self._clock.monotonic(), self._clock.now())
                    seen = run.known = self._look(run)
                decision = self._decide(seen, run)
                if isinstance(decision, actions.Rest):
                    if not self._stay(decision, seen, leave_at):
                        return Outcome(target, decision, run.trouble, seen, run.records)
                    run.evidence.listed = None  # what was listed before the wait is old
                    seen = None if isinstance(decision, actions.Wait) and decision.look else seen
                    continue
                steps += 1
                begun, known = self._clock.monotonic(), run.evidence.known()
                seen = self._effects.carry_out(decision, seen, run)
                if self._clock.monotonic() - begun > ATTEMPT_LIFE.total_seconds():
                    run.evidence.expire(known)
                    seen = None
        except Trouble as trouble:
            return Outcome(target, None, trouble, seen or run.known, run.records)
        endless = Trouble(
            Code.INVALID, target.store, f"{target.entry}: no end after {MOST_STEPS} steps; please report it"
        )
        return Outcome(target, None, endless, seen or run.known, run.records)

    def _look(self, run: Run) -> Observation:
        try:
            seen = self._observer.observe(run.target, run.known)
        except Trouble as trouble:
            if trouble.code is Code.NOT_FOUND and not trouble.maybe_applied and run.minted:
                self._effects.bereaved(run)
            raise
        if run.known is not None and run.known.handed_out != seen.handed_out:
            # What was told apart, was told from what was handed out then.
            run.evidence.apart.clear()
            run.evidence.alike.clear()
        return self._observer.with_pair(seen, run.evidence, run.order)

    def _decide(self, seen: Observation, run: Run) -> actions.Decision:
        able = self.outside.issuer(seen).capabilities
        return decide(seen, able, run.evidence, run.order, self.outside.now(seen))

    def _stay(self, rest: actions.Rest, seen: Observation, leave_at: float) -> bool:
        if not isinstance(rest, actions.Wait) or not rest.soon or (self._stopping and self._stopping()):
            return False
        seconds = max((rest.until - self.outside.now(seen)).total_seconds(), _SHORTEST)
        if self._clock.monotonic() + seconds > leave_at:
            return False
        while seconds > 0 and not (self._stopping and self._stopping()):
            nap = min(seconds, _NOTICE) if self._stopping else seconds
            self._clock.sleep(nap)
            seconds -= nap
        return True

    # --- commands: an emergency ------------------------------------------------------------------

    def condemn(
        self,
        target: Target,
        *,
        contain_after: timedelta | None = None,
        everything: bool = False,
        leaked: frozenset[str] = frozenset(),
        incident: str | None = None,
    ) -> list[Record]:
        """Marks every live credential of a secret for an emergency: final, and picked up by any runner.

        Condemns key ids as seen now, not "whatever is current", so that it can not kill a key that
        another run promotes meanwhile.

        Parameters:
            contain_after: when to revoke although stores still hand it out; the policy's when None.
            everything: also what has replaced an earlier condemned key just now.
            leaked: tokens of keys that are known to have leaked; those of them that have replaced one just now, too.
            incident: freezes scheduled work, too, under this id, unless another incident has. Where there is no room
                for that, the keys are condemned all the same.

        Returns:
            The audit records: one per key, and one of the freeze.

        Raises:
            Trouble: the entry could not be read or marked.
        """
        seen = self.observe(target)
        run = Run(target, Order())
        now = self.outside.now(seen)
        s = self.outside.situation(seen)
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
            spared = young and not everything and key not in leaked
            if held is None and spared and (fresh or s.promoted_at(key) is None):
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
            self._records.write(run, "condemn", seen, reason="emergency", token=key, key_id=s.key_id(key))
        if journal.ending and not everything:  # what is wanted now is another credential
            self._stores[target.store].forget(target.entry, ["ending"])
        frozen = Frozen(now, incident).written() if incident and journal.frozen is None else {}
        if frozen:
            self._records.write(run, "freeze", seen, reason=f"incident {incident}")
        if not self._mark(target, written.get(s.current_key or "", {}), written.values(), frozen):
            self._records.write(run, "freeze.failed", seen, reason="there is no room for it")
        return run.records

    def _mark(
        self, target: Target, current: Mapping[str, str], every: Iterable[Mapping[str, str]], frozen: Mapping[str, str]
    ) -> bool:
        """Writes the facts of every key and a freeze: all at once, or where there is no room for all, what matters most.

        That is every key without the freeze, then the current key alone. The others are draining or were never handed
        out: a repetition takes them, once the first have gone. Gives whether a freeze that was wanted is written.
        """
        store, doomed = self._stores[target.store], {fact: text for mark in every for fact, text in mark.items()}
        tries: list[dict[str, str]] = []
        for facts_of in (doomed, current) if current else (doomed,):
            tries += [one for one in ({**facts_of, **frozen}, dict(facts_of)) if one and one not in tries]
        for written in tries:
            try:
                store.record(target.entry, written)
            except Trouble as trouble:
                if trouble.code is not Code.INVALID or written is tries[-1]:
                    raise
            else:
                return frozen.items() <= written.items()
        return True

    def freeze(self, target: Target, incident: str) -> Frozen:
        """Keeps scheduled work off a secret until thaw(): what is merely due, and the end of keys that did not leak.

        What an emergency needs, what a person asks for, and what heals an interrupted attempt goes on.

        Parameters:
            incident: its id; it stands in the journal, and whoever waits is told.

        Returns:
            The freeze that is in force: of an earlier incident where there is one.

        Raises:
            Trouble: the entry could not be read, or there is no room for it (INVALID).
        """
        seen = self.observe(target)
        if there := seen.primary.journal.frozen:
            return there
        frozen = Frozen(self.outside.now(seen), incident)
        self._records.write(Run(target, Order()), "freeze", seen, reason=f"incident {incident}")
        self._stores[target.store].record(target.entry, frozen.written())
        return frozen

    def thaw(self, target: Target, incident: str | None = None) -> Frozen | None:
        """Lets scheduled work go on. The next run does what has become due.

        Parameters:
            incident: leave the freeze of any other alone.

        Returns:
            The freeze that was taken off; None when there was none, or another incident's.

        Raises:
            Trouble: the entry could not be read or written.
        """
        seen = self.observe(target)
        frozen = seen.primary.journal.frozen
        if frozen is None or incident not in (None, frozen.incident):
            return None
        self._lift(seen, frozen, Run(target, Order()))
        return frozen

    def _lift(self, seen: Observation, frozen: Frozen, run: Run) -> Observation:
        told = f"incident {frozen.incident}, frozen since {frozen.at:%Y-%m-%d %H:%M}Z"
        self._records.write(run, "thaw", seen, reason=told)
        self._stores[run.target.store].forget(run.target.entry, ["frozen"])
        return replace(seen, primary=replace(seen.primary, journal=seen.primary.journal.minus(["frozen"])))

    def emergency(
        self,
        target: Target,
        *,
        contain_after: timedelta | None = None,
        patience: timedelta = timedelta(minutes=10),
        incident: str | None = None,
        keep_frozen: bool = False,
    ) -> Outcome:
        """Replaces and revokes now: no grace, no quiet period, containment when replacing takes too long.

        Stays until every condemned key is shown dead, or patience is over; sweeps go on from there.
        The outcome's records are those of all that was done here.

        Parameters:
            contain_after: see condemn().
            incident: freezes scheduled work meanwhile; see freeze(). Once all is replaced everywhere and shown dead, the
                freeze of this incident is taken off; otherwise it stays.
            keep_frozen: it stays until thaw(), however this ends.

        Raises:
            Trouble: the entry could not be read or marked; nothing was changed.
        """
        leave_at = self._clock.monotonic() + patience.total_seconds()
        before = self.outside.situation(self.observe(target))
        theirs = None if before.current_key else before.handed_out  # not ours to condemn, so it is named
        records = self.condemn(target, contain_after=contain_after, incident=incident)
        pause = _ASK_AGAIN
        while True:
            left = timedelta(seconds=max(leave_at - self._clock.monotonic(), 0))
            outcome = self.run(target, Order(replace=theirs, take_over=True), patience=left)
            records += outcome.records
            outcome = replace(outcome, records=records, achieved=self._replaced(outcome, theirs))
            if outcome.achieved and not outcome.unproven:
                return outcome if incident is None or keep_frozen else self._over(outcome, incident)
            if self._clock.monotonic() + pause > leave_at:
                return outcome
            self._clock.sleep(pause)
            pause = min(pause * 2, _ASK_SELDOM)

    def _over(self, outcome: Outcome, incident: str) -> Outcome:
        """The outcome of an emergency that has come to its end, with its own freeze taken off."""
        seen = outcome.seen
        frozen = seen.primary.journal.frozen if seen else None
        if seen is None or frozen is None or frozen.incident != incident:
            return outcome
        run = Run(outcome.target, Order())
        try:
            after = self._lift(seen, frozen, run)
        except Trouble as trouble:  # it stays, and status says so
            return replace(outcome, records=[*outcome.records, *run.records], trouble=outcome.trouble or trouble)
        return replace(outcome, seen=after, records=[*outcome.records, *run.records])

    def _replaced(self, outcome: Outcome, theirs: str | None) -> bool:
        """Whether every store hands out the same, it is not condemned, and not the foreign value of before."""
        if outcome.seen is None:
            return False
        s = self.outside.situation(outcome.seen)
        return self._key_now(outcome) not in (None, theirs) and not s.urgent and not s.lagging

    def destroy(self, target: Target) -> Outcome:
        """Revokes every key that was minted for a secret and shows each one dead; leaves the entry for the caller.

        The outcome's rest is Done when nothing of the secret lives any more.
        """
        # What is condemned is replaced by whoever runs it next, unless it is told not to. It is a help, not a lock.
        ending = facts.ending(self.outside.now(self.observe(target)) + ENDING)
        try:
            self._stores[target.store].record(target.entry, ending)
        except Trouble as trouble:
            if trouble.code is not Code.INVALID:  # no room for it
                raise
        self.condemn(target, contain_after=timedelta(0), everything=True)
        return self.run(target, Order(take_over=True, destroy=True))

    def adopt_orphan(self, target: Target, seen: Observation, token: str, key_id: str, created_at: datetime) -> None:
        """Writes a key that nothing claims into its secret's journal as condemned; runs take it from there."""
        base = seen.primary.current.id if seen.primary.current else None
        scope = self.outside.issuer(seen).capabilities.scope
        attempt = Attempt(token, base, seen.policy.stores, created_at, Why.ORPHAN, scope=scope)
        written = attempt.written() | facts.key_fact(token, key_id)
        written |= facts.condemned(token, self.outside.now(seen), Why.ORPHAN)
        run = Run(target, Order())
        self._records.write(
            run, "condemn", seen, reason="orphan: alive at the issuer, claimed by nothing", token=token, key_id=key_id
        )
        self._stores[target.store].record(target.entry, written)

    # --- commands: what people ask for -----------------------------------------------------------

    def rotate(self, target: Target, *, take_over: bool = False, patience: timedelta = timedelta(minutes=5)) -> Outcome:
        """Rotates now, up to promoted; the old credential drains and later sweeps retire it."""
        try:
            before = self.outside.situation(self.observe(target))
        except Trouble as trouble:
            return Outcome(target, None, trouble, None, [])
        outcome = self.run(target, Order(replace=before.handed_out, take_over=take_over), patience=patience)
        # What was current once is not new, be it by another name.
        old = {None, before.handed_out, *(key for key in before.keys if before.promoted_at(key))}
        return replace(outcome, achieved=self._key_now(outcome) not in old)

    def step(self, target: Target, token: str, stop: Stop, *, patience: timedelta) -> Outcome:
        """One step of a rotation that the store's own service has started. Again, it is the same step.

        Parameters:
            token: the service's, under which the new version is to be; the attempt's, too.
            stop: how far the step goes.
            patience: how long it may wait for the issuer.

        The outcome's `achieved` says whether it got there. The service has to hear of it when it did not.
        """
        outcome = self.run(target, Order(token=token, stop=stop), patience=patience)
        return replace(outcome, achieved=isinstance(outcome.rest, actions.Reached))

    def rollback(self, target: Target, *, patience: timedelta = timedelta(minutes=5)) -> Outcome:
        """Makes the previous credential current again, as a new version, while it still lives.

        A new attempt like any other: staged, verified, promoted. Never goes back to a key that is
        condemned or revoked. The credential that was current drains.
        """
        try:
            seen = self.observe(target)
        except Trouble as trouble:
            return Outcome(target, None, trouble, None, [])
        s = self.outside.situation(seen)
        earlier = [
            key for key in s.retiring
            if s.promoted_at(key) and s.has_value(key) and key not in seen.primary.journal.condemned
        ]  # fmt: skip
        ends = seen.primary.journal.expires
        lasting = [key for key in earlier if key not in ends or s.now + WORTH_RETURNING_TO < ends[key]]
        if not lasting:
            soon = ", or it expires by itself before long" if earlier else ""
            told = f"there is no earlier credential that still lives{soon}"
            hold = actions.Hold(cause=actions.Cause.IMPOSSIBLE, reason=told)
            return Outcome(target, hold, None, seen, [], achieved=False)
        # The one that was current last: it may have been so more than once.
        newest = max(lasting, key=lambda key: (s.superseded_at(key) or s.now, s.promoted_at(key) or s.now))
        try:
            kept = self._values.of(newest, s)
        except Trouble as trouble:
            return Outcome(target, None, trouble, seen, [])
        if kept is None:
            told = "the earlier credential's value is gone, or was stored in a form that is not declared any more"
            hold = actions.Hold(cause=actions.Cause.IMPOSSIBLE, reason=told)
            return Outcome(target, hold, None, seen, [], achieved=False)
        outcome = self.run(target, Order(replace=s.handed_out, back_to=newest), patience=patience)
        doomed = outcome.seen.primary.journal.condemned if outcome.seen else {}
        return replace(outcome, achieved=self._key_now(outcome) == newest and newest not in doomed)

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
        was = self.outside.situation(seen).handed_out
        issued = Issued(key_id or "", credential)
        outcome = self.run(target, Order(replace=was, submitted=True), patience=patience, submitted=issued)
        taken = {record.token for record in outcome.records if record.event == "mint.done"}
        return replace(outcome, achieved=self._key_now(outcome) in taken)

    def _in_the_way(self, credential: Credential, key_id: str | None, seen: Observation) -> str | None:
        """Why a credential can not be submitted; None when it can."""
        s = self.outside.situation(seen)
        if told := unfit(s.issuer, seen.policy.issuer, key_id):
            return told
        # One whose submission was cut off is submitted again.
        had = [key for key in s.keys if not s.cut_off(key)]
        if key_id and any(s.key_id(key) == key_id for key in had):
            return f"{key_id} is the id of a credential that {seen.primary.name} has or had already"
        if key_id and _has_value(key_id, credential):
            return _VALUE_IN_ID
        values = (self._values.of(key, s) for key in had)
        if any(value is not None and value.same_as(credential) for value in values):
            return f"{seen.primary.name} has or had this very credential already"
        return None

    def _key_now(self, outcome: Outcome) -> str | None:
        if outcome.seen is None:
            return None
        return self.outside.situation(outcome.seen).handed_out

    # --- commands: under management, and out of it ------------------------------------------------

    def adopt(self, target: Target, policy: Policy, *, key_id: str | None) -> Observation:
        """Brings an existing entry under management. Its value and versions stay as they are.

        Parameters:
            policy: what is written as the applied policy.
            key_id: the issuer's id of the credential in it. With it the credential retires like one of
                ours after the next rotation; without it Keyturn never revokes it.

        Raises:
            Trouble: there is no such entry or value, it is managed already or its release was cut off (CONFLICT), its
                value is not of the policy's form, or the issuer refuses it (INVALID). Nothing was changed then.
        """
        store = self._stores[target.store]
        entry = store.observe(target.entry)
        if entry.policy:
            raise Trouble(Code.CONFLICT, target.store, f"{target.entry} is managed already")
        if entry.current is None:
            raise Trouble(Code.INVALID, target.store, f"{target.entry} has no value to adopt; let `pulumi up` make it")
        explained = entry.current.token in entry.journal.attempts
        if not explained and entry.journal.attempts and _handed_back(entry):
            told = f"its release was cut off, and its key would be revoked: `keyturn release {policy.name}` finishes it"
            raise Trouble(Code.CONFLICT, target.store, f"{target.entry} is not adopted: {told}")
        seen = Observation(policy, entry, {})
        issuer, credential = self.outside.issuer(seen), self._values.read(seen, entry, entry.current)
        if key_id and _has_value(key_id, credential):
            raise Trouble(Code.INVALID, policy.issuer, f"{target.entry}: {_VALUE_IN_ID}")
        check = issuer.verify(credential)
        if check.verdict is Verdict.INVALID:
            raise Trouble(Code.INVALID, policy.issuer, f"{target.entry}: its credential is refused: {check.reason}")
        if key_id and isinstance(issuer, ListsValues) and (held := issuer.id_of(credential)):
            if key_id not in (held, held.partition("/")[0]):
                told = f"its value is that of {held.partition('/')[0]}, and not of {key_id}"
                raise Trouble(Code.INVALID, policy.issuer, f"{target.entry}: {told}")
            key_id = held
        if key_id and (refusal := self._not_its_id(key_id, entry, policy, issuer)):
            raise Trouble(Code.INVALID, policy.issuer, f"{target.entry}: {refusal}")
        run = Run(target, Order())
        # An adoption whose answer was lost has written its facts already.
        known = [token for token, version in entry.journal.adopted.items() if version == entry.current.id]
        token = known[0] if known else entry.current.token or foreign_token(entry, entry.current)
        since = entry.current.created_at or self.outside.now(seen)
        written = facts.adopted(
            token,
            entry.current.id,
            since,
            Of.GIVEN if key_id else Of.PERSON,
            issuer.capabilities.scope,
            forms.digest(self._values.form(seen)),
        )
        written |= facts.key_fact(token, key_id) if key_id else {}
        if self.outside.prints:
            written = facts.printed(written, {token: self.outside.prints(credential, key_id)})
        self._records.write(run, "adopt", seen, reason=check.reason, token=token, key_id=key_id)
        if not entry.journal.attempts and (stale := [fact for fact in entry.journal.facts if fact not in written]):
            store.forget(target.entry, stale)  # of an adoption that failed: what it named may be anybody's
        store.record(target.entry, written)
        store.set_policy(target.entry, policies.written(policy))
        return self.observe(target)

    @staticmethod
    def _not_its_id(key_id: str, entry: Entry, policy: Policy, issuer: Issuer) -> str | None:
        """Why an id can not be that of an entry's credential; None where it may be, or nobody can tell.

        It is what the next rotation revokes.
        """
        if not issuer.capabilities.registry or issuer.capabilities.model is not Model.MINT:
            return None
        listed = {info.key_id: KeyName.parse(info.name) for info in iter(issuer.keys())}
        # Of a key that is not ours a list may tell the last part of its id alone.
        found = next((i for i in (key_id, key_id.rpartition("/")[2]) if i in listed), None)
        if found is None:
            return f"{issuer.name} lists no key {key_id}"
        held = entry.current
        named = (
            {held.key_id, *(i for i, ours in listed.items() if ours and held.token == ours.token)} if held else set()
        )
        if others := named - {None, key_id, found}:
            return f"it holds the key {' or '.join(sorted(str(other) for other in others))}, and not {key_id}"
        ours = listed[found]
        mine = (policy.installation, policy.environment, policy.name)
        if ours and (ours.installation, ours.environment, ours.secret) != mine:
            return f"{key_id} was minted by Keyturn for {ours.secret} in {ours.environment} of {ours.installation}"
        return None

    def release(self, target: Target) -> None:
        """Hands an entry back: policy and journal are taken off it, value and versions stay.

        One that was cut off is finished by another one.

        Raises:
            Trouble: a credential of it is still on its way in or out (CONFLICT); nothing was changed then.
        """
        there = self._stores[target.store].observe(target.entry)
        if not there.policy and _handed_back(there):
            self._let_go(target, there)
            return
        seen = self.observe(target)
        s = self.outside.situation(seen)
        if s.retiring or s.pending or s.urgent:
            raise Trouble(
                Code.CONFLICT,
                target.store,
                f"{target.entry} can not be released while a rotation is under way or an old credential drains; "
                "see `keyturn status`",
            )
        self._records.write(Run(target, Order()), "release", seen, token=s.current_key)
        for store in reversed(seen.policy.replicas):
            name = self.outside.places.entry_name(store, seen.policy.environment, seen.policy.name)
            if facts_there := self._stores[store].observe(name).journal.facts:
                self._stores[store].forget(name, list(facts_there))
            self._stores[store].set_policy(name, {})
        # The policy goes, then comes a look: a run that wrote an intent meanwhile keeps the entry, or its key were lost.
        primary, known = self._stores[target.store], seen.primary.journal.facts
        primary.set_policy(target.entry, {})
        if primary.observe(target.entry).journal.facts.keys() - known.keys():
            primary.set_policy(target.entry, seen.primary.policy)
            raise Trouble(Code.CONFLICT, target.store, f"{target.entry} is not released: a run has just begun on it")
        self._let_go(target, seen.primary)

    def _let_go(self, target: Target, seen: Entry) -> None:
        """Takes off what is left once the policy is gone: the journal, and the service's rotation."""
        store = self._stores[target.store]
        if seen.service and seen.service.enabled and isinstance(store, RotatesByItself):
            store.set_rotation(target.entry, None)
        if seen.journal.facts:  # last: it is what tells that there was a release
            store.forget(target.entry, list(seen.journal.facts))


def _handed_back(entry: Entry) -> bool:
    """Whether an entry without a policy is one whose release was cut off: its journal knows of one key at most.

    That one was handed out, and is nobody's to revoke any more. A policy that somebody took off in the middle of a
    rotation leaves more behind.
    """
    journal = entry.journal
    minted = [a for a in journal.attempts.values() if a.of is None]
    carried = {a.token: a.key for a in journal.attempts.values()}
    keys = {carried.get(token, token) for token in journal.tokens()}
    ended = journal.condemned or journal.revoked or journal.superseded
    staged = {entry.pending.token} if entry.pending else set()
    handed_out = {a.token for a in minted} | staged <= journal.promoted.keys()
    return bool(journal.facts) and len(keys) <= 1 and handed_out and not ended


_VALUE_IN_ID: Final = "what was given as the key's id has the value in it"


def _has_value(key_id: str, credential: Credential) -> bool:
    """Whether somebody has mixed up the two: an id stands in journals and messages."""
    return any(value.reveal() in key_id for name, value in credential.fields.items() if name not in PUBLIC)
