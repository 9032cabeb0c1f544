"""Carries out each action, with care: the record before the effect, the deadline before a write, doubt after a lost answer."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar, Final

from rotation import actions
from rotation import form as forms
from rotation import journal as facts
from rotation.errors import Code, Trouble
from rotation.journal import Attempt, Of, Why
from rotation.looking import named_as_adopted
from rotation.model import Check, Credential, Entry, Model, Verdict, Version
from rotation.names import KeyName, token_in
from rotation.outside import Outside
from rotation.ports import Issuer, RevokesInSteps, RotatesByItself
from rotation.rules.waiting import SHOWN_WITHIN, backoff
from rotation.run import Records, Run, stages_of
from rotation.situation import ATTEMPT_LIFE, CALL_LIMIT, Absent, Observation, Situation, Streak, foreign_token
from rotation.values import Values

_DOUBTS: Final = 3
"""How many uncertain answers one run follows up by looking again before it leaves it to the next run."""


class Effects:
    """One handler for each action. Has no opinion: what is done, and when, was decided."""

    def __init__(self, outside: Outside, values: Values, records: Records) -> None:
        self._outside = outside
        self._stores = outside.stores
        self._clock = outside.clock
        self._values = values
        self._records = records

    def carry_out(self, action: actions.Action, seen: Observation, run: Run) -> Observation | None:
        """Does it. Returns the look as it is now, or None when another look is needed."""
        try:
            return self.perform(action, seen, run)
        except Trouble as trouble:
            name = type(action).__name__.lower()
            self._records.write(run, f"{name}.failed", seen, reason=str(trouble), detail={"code": trouble.code.value})
            run.doubts += 1
            if run.doubts > _DOUBTS:
                raise
            if not trouble.maybe_applied and trouble.code is not Code.CONFLICT:
                # It will not do now. What does not depend on it still may.
                run.evidence.failed[actions.signature(action)] = trouble
                run.trouble = run.trouble or trouble
            return None  # look at what is really there

    def perform(self, action: actions.Action, seen: Observation, run: Run) -> Observation | None:
        """The same, without a thought for what fails: raises Trouble."""
        return self.handlers[type(action)](self, action, seen, run)

    def _note(self, action: actions.Note, seen: Observation, run: Run) -> Observation:
        for fact in action.facts:
            kind, _, token = fact.partition(".")
            if kind == "proven":
                stages = stages_of(seen.primary.journal, token)
                self._records.write(run, "proven", seen, reason=action.reason, token=token, detail=stages)
                self._clear(token, seen, run)
        return self._record(seen, run, action.facts)

    def _condemn(self, action: actions.Condemn, seen: Observation, run: Run) -> None:
        self._records.write(run, "condemn", seen, reason=action.reason, token=action.key)
        self._record(seen, run, action.facts)

    def _ask_last_use(self, action: actions.AskLastUse, seen: Observation, run: Run) -> Observation:
        use = self._outside.issuer(seen).last_use(action.key_id)
        run.evidence.last_use[action.key] = use
        told = {"known": str(use.known).lower(), "at": use.at.isoformat() if use.at else "never"}
        self._records.write(run, "last-use", seen, token=action.key, key_id=action.key_id, detail=told)
        return seen

    def _intend(self, action: actions.Intend, seen: Observation, run: Run) -> Observation | None:
        current = seen.primary.current
        made = seen.primary.journal.attempts.get((current and current.token) or "")
        # Its life begins no later for us than others count it: what comes between may take its time.
        begun, began = self._clock.monotonic(), self._clock.now()
        # What is stored anew stays in the form that it has.
        kept = made.form if made and action.why is Why.REWRITE else None
        if (
            action.why is Why.REWRITE
            and made is None
            and current
            and self._values.parsed(seen, seen.primary, current) is None
        ):
            kept = "other"  # whatever a person stored: no digest of a declared form
        attempt = Attempt(
            run.order.token or self._outside.tokens(),
            action.base,
            seen.policy.stores,
            self._outside.now(seen) + self._situation(seen, run).behind,  # others must not take it for older than it is
            action.why,
            action.of,
            kept if kept is not None else forms.digest(self._values.form(seen)),
            action.slot,
            self._outside.issuer(seen).capabilities.scope,
        )
        life = (ATTEMPT_LIFE - CALL_LIMIT).total_seconds()
        run.deadlines[attempt.token] = begun + life
        run.ends[attempt.token] = began + timedelta(seconds=life)
        if self._outside.prints:
            self._outside.prints(Credential({}), None)  # its key is read now, not while a value is in memory alone
        self._records.write(run, "intend", seen, reason=action.reason, token=attempt.token)
        drained = f"superseded.{action.of}"
        if action.why is Why.ROLLBACK and drained in seen.primary.journal.facts:
            # It drains from now on, or from when it is superseded again, be its promotion ever noted or not.
            self._stores[run.target.store].forget(run.target.entry, [drained])
            seen = replace(seen, primary=replace(seen.primary, journal=seen.primary.journal.minus([drained])))
        after = self._record(seen, run, attempt.written())
        run.evidence.unspent.add(attempt.token)
        destroys = self._outside.issuer(seen).capabilities.model in (Model.SLOTS, Model.REPLACE)
        # Where creating destroys: write, then look. Of two runs at least one sees the other, and gives way.
        return None if destroys and action.of is None else after

    def _start(self, action: actions.Start, seen: Observation, run: Run) -> None:
        store, entry = self._stores[run.target.store], run.target.entry
        if not isinstance(store, RotatesByItself):
            raise Trouble(
                Code.INVALID, store.name, f"{entry}: its applied policy is native, and {store.name} has no such"
            )
        if run.order.replace and seen.primary.journal.backoff:
            store.forget(entry, ["backoff"])  # who asks has seen to what failed, or wants to see it fail
        token = self._outside.tokens()
        self._records.write(run, "start", seen, reason=action.reason, token=token)
        run.evidence.started = True
        try:
            store.start_rotation(entry, token)
        except Trouble as trouble:
            run.evidence.started = trouble.maybe_applied
            raise

    def _mint(self, action: actions.Mint, seen: Observation, run: Run) -> None:
        attempt, policy, issuer = action.attempt, seen.policy, self._outside.issuer(seen)
        run.evidence.unspent.discard(attempt.token)
        name = KeyName(policy.installation, policy.environment, policy.name, attempt.token)
        self._in_time(attempt.token, run)
        self._records.write(run, "mint", seen, reason=action.reason, token=attempt.token)
        self._in_time(attempt.token, run)  # an audit trail may take its time, too
        try:
            issued = run.submitted or issuer.mint(str(name), attempt.slot)
        except Trouble as trouble:
            if not trouble.maybe_applied:
                run.evidence.gave_way = True  # what refuses one mint refuses the next one too
                self._give_up(attempt, trouble, seen, run)
            raise
        brought = run.submitted is not None
        if brought:
            run.submitted, run.order = None, replace(run.order, submitted=False, replace=None)
        run.minted_at = self._clock.monotonic()
        run.values[attempt.token] = issued.credential
        key_id = issued.key_id or None
        if key_id is not None:
            run.evidence.issued[attempt.token] = key_id
        if not brought:
            run.minted[attempt.token] = attempt
        if issued.expires_at:
            run.evidence.expires[attempt.token] = issued.expires_at
        unheard = self._told("mint.done", attempt, key_id, seen, run)
        # What no list of this issuer will tell again, another run may need. And a list that has two of one name, as the
        # mint arrived twice, does not tell which of them a version holds that names no id.
        able, keeps = issuer.capabilities, self._stores[run.target.store].features.keeps_key_id
        told_again = able.model is Model.MINT and able.names_keys and (keeps or not able.registry) and not brought
        written = {} if told_again or key_id is None else facts.key_fact(attempt.token, key_id)
        written |= facts.expires(attempt.token, issued.expires_at) if issued.expires_at else {}
        if written and run.order.token:
            self._settle_twins(attempt, issued.key_id, seen, run)
        try:
            seen = self._record(seen, run, written) if written else seen
        except Trouble as trouble:
            if trouble.code is Code.NOT_FOUND and not trouble.maybe_applied and not brought:
                self._take_back(attempt, issued.key_id, seen, run)
            raise
        if written and run.order.token:
            self._settle_twins(attempt, issued.key_id, seen, run)
        self._stage(attempt, issued.credential, key_id, seen, run, unheard=unheard)

    def _settle_twins(self, attempt: Attempt, key_id: str, seen: Observation, run: Run) -> None:
        """A service may deliver one step twice, side by side: both mint under one token, and one id can stand under it.

        Before and after ours is written: where another one stands, ours goes by a token of its own, condemned.
        """
        there = self._stores[run.target.store].observe(run.target.entry).journal.key_ids.get(attempt.token)
        if there in (None, key_id):
            return
        token = uuid.uuid5(uuid.NAMESPACE_OID, key_id).hex
        twin = replace(attempt, token=token, why=Why.ORPHAN)
        written = facts.key_fact(token, key_id) | facts.condemned(token, self._outside.now(seen), Why.LOST)
        self._record(seen, run, twin.written() | written)
        told = f"{run.target.entry}: another step of the same rotation has made a key, too"
        raise Trouble(Code.CONFLICT, run.target.store, told)

    def _told(
        self, event: str, attempt: Attempt, key_id: str | None, seen: Observation, run: Run, store: str | None = None
    ) -> Trouble | None:
        """Writes a record of what has to go on without, too: a value that is in memory alone must be stored."""
        try:
            self._records.write(run, event, seen, token=attempt.token, key_id=key_id, store=store)
        except Trouble as trouble:
            return trouble
        return None

    def bereaved(self, run: Run) -> None:
        """The entry is gone at a look: what this run has minted for it is taken back, unless it may be current.

        Not every store refuses to keep what comes for a deleted entry. So first each key is condemned where that can
        still be written: no other run promotes it then. If the entry is there again by then, its next run goes on.
        """
        seen, store = run.known, self._stores[run.target.store]
        assert seen is not None, "nothing is minted before a look"
        for token, attempt in list(run.minted.items()):
            key_id = run.evidence.issued[token]
            written = attempt.written() | facts.key_fact(token, key_id)
            condemned = written | facts.condemned(token, self._outside.now(seen), Why.LOST)
            if not _is_gone(lambda: store.record(run.target.entry, condemned)):  # noqa: B023 - called at once
                self._clock.sleep(SHOWN_WITHIN.total_seconds())  # the look that it rests on may have been behind
            if _is_gone(lambda: store.observe(run.target.entry)):
                self._take_back(attempt, key_id, seen, run)
                del run.minted[token]

    def _take_back(self, attempt: Attempt, key_id: str, seen: Observation, run: Run) -> None:
        """The entry was deleted while its key was minted: nobody has its value, and nothing could name it any more."""
        issuer = self._outside.issuer(seen)
        able = issuer.capabilities
        if able.model not in (Model.MINT, Model.SLOTS) or not able.registry or not able.revokes:
            return
        self._records.write(run, "revoke", seen, reason="its entry is gone", token=attempt.token, key_id=key_id)
        for turn in range(2 if able.spreads else 1):
            if turn:  # not all of the issuer may have known it
                self._clock.sleep(able.spreads.total_seconds())
            self._revoke_for_good(issuer, key_id)
        if able.names_keys and able.model is Model.MINT:  # its mint may have arrived twice
            whose = {"installation": seen.policy.installation, "environment": seen.policy.environment}
            for info in iter(issuer.keys()):
                if token_in(info.name, **whose, secret=seen.policy.name) == attempt.token and info.key_id != key_id:
                    self._revoke_for_good(issuer, info.key_id)

    @staticmethod
    def _revoke_for_good(issuer: Issuer, key_id: str) -> None:
        issuer.revoke(key_id)
        if isinstance(issuer, RevokesInSteps):
            issuer.clear(key_id)

    def _give_up(self, attempt: Attempt, trouble: Trouble, seen: Observation, run: Run) -> None:
        """The issuer refused for certain: nothing was minted, so the intent goes, and the next try waits."""
        s = self._situation(seen, run)
        store = self._stores[run.target.store]
        if run.order.token and attempt.token in store.observe(run.target.entry).journal.key_ids:
            return  # the same step, delivered twice, has minted: what stands under the token is its
        store.record(run.target.entry, backoff(s, trouble.code.value))
        # Somebody may have condemned it meanwhile, not knowing that it never came to be.
        kinds = ("attempt", "condemned", "contain", "key")
        store.forget(run.target.entry, [f"{kind}.{attempt.token}" for kind in kinds])

    def _stage(
        self,
        attempt: Attempt,
        credential: Credential,
        key_id: str | None,
        seen: Observation,
        run: Run,
        *,
        rendered: bool = False,
        unheard: Trouble | None = None,
    ) -> None:
        """Stores a value.

        Parameters:
            rendered: it is in the form that it is to be stored in.
            unheard: what kept the audit trail from being told of its mint; raised once it is stored.
        """
        fresh = attempt.of is None
        unheard = unheard or self._told("stage", attempt, key_id, seen, run, store=run.target.store)
        if unheard and not fresh:
            raise unheard
        self._in_time(attempt.token, run)
        try:
            stored = credential if rendered else self._values.rendered(seen, credential)
            self._stores[run.target.store].stage(run.target.entry, attempt.token, stored, key_id=key_id)
        except Trouble as trouble:
            written = facts.key_fact(attempt.key, key_id) if key_id else {}
            if not trouble.maybe_applied and fresh:
                written |= self._lost(attempt, trouble, seen, run)
            if written:
                try:
                    self._record(seen, run, written)
                except Trouble as refused:
                    gone = {trouble.code, refused.code} == {Code.NOT_FOUND} and not trouble.maybe_applied
                    if gone and attempt.token in run.minted and key_id and not refused.maybe_applied:
                        self._take_back(attempt, key_id, seen, run)
                    raise
            raise
        if unheard:
            raise unheard

    def _lost(self, attempt: Attempt, trouble: Trouble, seen: Observation, run: Run) -> dict[str, str]:
        """What is noted when a value can not be stored. Of what a person brought nothing is lost: they submit it again."""
        s = self._situation(seen, run)
        if s.issuer.model is Model.MANUAL:
            return {}
        return facts.condemned(attempt.key, self._outside.now(seen), Why.LOST) | backoff(s, trouble.code.value)

    def _restage(self, action: actions.Restage, seen: Observation, run: Run) -> None:
        attempt = action.attempt
        run.evidence.unspent.discard(attempt.token)
        s = self._situation(seen, run)
        if s.rewrites(attempt) and seen.primary.current is not None:
            same = self._values.stored(seen.primary, seen.primary.current)
            self._stage(attempt, same, s.key_id(attempt.key), seen, run, rendered=True)
            return
        credential = self._values.of(attempt.key, s)
        if credential is None:
            raise Trouble(Code.NOT_FOUND, run.target.store, f"{run.target.entry}: the stored value is gone")
        run.values[attempt.key] = credential
        self._stage(attempt, credential, s.key_id(attempt.key), seen, run)

    def _copy(self, action: actions.Copy, seen: Observation, run: Run) -> None:
        token = action.version.token or ""
        s, credential = self._situation(seen, run), self._values.read(seen, seen.primary, action.version)
        stored = self._values.rendered(seen, credential)
        self._records.write(run, "stage", seen, reason=action.reason, token=token, store=action.store)
        self._in_time(token, run)
        entry = self._replica(seen, action.store)
        key_id = s.key_id(s.key_of(action.version) or "")
        self._stores[action.store].stage(entry.name, token, stored, key_id=key_id)

    def _compare(self, action: actions.Compare, seen: Observation, run: Run) -> Observation | None:
        token = action.version.token or ""
        entry = self._replica(seen, action.store)
        # Stores may hold one credential in several shapes: what is in them is compared.
        ours, theirs = (
            self._values.read(seen, seen.primary, action.version),
            self._values.read(seen, entry, action.copy),
        )
        if ours.same_as(theirs):
            run.evidence.matched.add((action.store, token))
            return seen
        if (action.store, token) in run.mismatched:
            told = f"{entry.name}: gives back something else than it was given"
            raise Trouble(Code.INVALID, action.store, told)
        run.mismatched.add((action.store, token))
        self._records.write(run, "mismatch", seen, reason="a staged copy differs", token=token, store=action.store)
        self._stores[action.store].discard(entry.name, action.copy)
        return None

    def _verify(self, action: actions.Verify, seen: Observation, run: Run) -> Observation:
        token = action.attempt.token
        if action.against is not None:
            anew, current = (
                self._values.stored(seen.primary, action.pending),
                self._values.stored(seen.primary, action.against),
            )
            same = anew.same_as(current)
            check = Check(Verdict.VALID, "the same value") if same else Check(Verdict.INVALID, "another value")
        else:
            credential = run.staged.get(token) or self._values.read(seen, seen.primary, action.pending)
            run.staged[token] = run.values[action.attempt.key] = (
                credential  # a version's value never changes: once read back, it is shown again
            )
            check = self._outside.issuer(seen).verify(credential)
        run.evidence.checks[token] = self._streak(run.evidence.checks.get(token), check, seen)
        self._records.check(run, "verify", seen, check, token)
        return seen

    def _identify(self, action: actions.Identify, seen: Observation, run: Run) -> Observation:
        """A person, or a write that came late, may have put the value of one of our keys there.

        Then it is that key which is current, and where it is dead it has to go again. It counts as compared only
        once every value could be read, or it would be taken for a stranger's.
        """
        s = self._situation(seen, run)
        mine = self._values.key_in(action.version, s)
        after = seen if mine is None else self._identified(mine, action.version, s, seen, run)
        if mine is None and self._values.parsed(seen, seen.primary, action.version) is None:
            run.evidence.unparsed.add(action.version.id)
        run.evidence.identified.add(action.version.id)  # not before: where the note is lost, it is no stranger's
        return after

    def _identified(self, mine: str, version: Version, s: Situation, seen: Observation, run: Run) -> Observation:
        """Notes that a version of the primary carries one of our keys."""
        journal = seen.primary.journal
        given = mine not in journal.foreign and s.key_id(mine) is not None  # without its id nobody could retire it
        of = Of.OURS if mine in journal.attempts else Of.GIVEN if given else Of.PERSON
        self._records.write(
            run, "identify", seen, reason="put there by something else", token=mine, key_id=s.key_id(mine)
        )
        form = forms.digest(self._values.form(seen))
        written = facts.adopted(mine, version.id, self._outside.now(seen), of, s.issuer.scope, form)
        if (key_id := s.key_id(mine)) and mine not in journal.key_ids:
            written |= facts.key_fact(mine, key_id)
        after = self._record(seen, run, written)
        return replace(after, primary=named_as_adopted(after.primary))

    def _tell_apart(self, action: actions.TellApart, seen: Observation, run: Run) -> Observation | None:
        s = self._situation(seen, run)
        values = list(self._values.every(action.key, s))
        unseen = not values and s.promoted_at(action.key) is None and bool(s.attempts_of(action.key))
        unseen = unseen and all(a.why is not Why.ORPHAN for a in s.attempts_of(action.key))  # its value may be anywhere
        if unseen and not self._values.was_stored(action.key, s):
            run.evidence.apart.add(action.key)  # minted, and lost before any store had it: nobody was handed it
            return seen
        for entry in (seen.primary, *seen.replicas.values()):
            version = None if isinstance(entry, Absent) else entry.current
            if isinstance(entry, Absent) or version is None or s.key_id(s.key_of(version) or "") is not None:
                continue
            held = self._values.parsed(seen, entry, version)
            if held is None or not values or any(ours.same_as(held, trimmed=True) for ours in values):
                run.evidence.alike.add(action.key)
                if held is not None and values and entry is seen.primary:
                    return self._identified(action.key, version, s, seen, run)
                return seen
        run.evidence.apart.add(action.key)
        return seen

    def _adopt(self, action: actions.Adopt, seen: Observation, run: Run) -> Observation:
        version = action.version
        token = foreign_token(seen.primary, version)
        since = version.created_at or self._outside.now(seen)
        self._records.write(run, "adopt", seen, reason=action.reason, token=token)
        in_form = self._values.parsed(seen, seen.primary, version) is not None
        form = forms.digest(self._values.form(seen)) if in_form else ""
        written = facts.adopted(token, version.id, since, Of.PERSON, form=form)
        if action.dead:
            written |= facts.condemned(token, self._outside.now(seen), Why.NEVER_VERIFIED)
        after = self._record(seen, run, written)
        return replace(after, primary=named_as_adopted(after.primary))

    def _verify_current(self, action: actions.VerifyCurrent, seen: Observation, run: Run) -> Observation:
        try:
            credential = self._values.read(seen, seen.primary, action.version)
            run.values[foreign_token(seen.primary, action.version)] = credential
            check = self._outside.issuer(seen).verify(credential)
        except Trouble as trouble:
            if trouble.code is not Code.INVALID:
                raise
            check = Check(Verdict.UNKNOWN, str(trouble))
        known = run.evidence.current
        known[action.version.id] = self._streak(known.get(action.version.id), check, seen)
        self._records.check(run, "verify-current", seen, check, action.version.token)
        return seen

    def _look_again(self, _: actions.Look, _seen: Observation, _run: Run) -> None:
        return None

    def _smoke(self, action: actions.Smoke, seen: Observation, run: Run) -> Observation:
        check = self._outside.issuer(seen).smoke(self._values.read(seen, seen.primary, action.pending))
        run.evidence.smoked[action.attempt.token] = check
        self._records.check(run, "smoke", seen, check, action.attempt.token)
        return seen

    def _promote(self, action: actions.Promote, seen: Observation, run: Run) -> None:
        token = action.version.token or ""
        entry = seen.primary if action.store == run.target.store else self._replica(seen, action.store)
        if action.store != run.target.store and action.store in seen.unfenced and self._outdated(run):
            return  # the primary may have moved on, and nothing would fence this write
        self._records.write(run, "promote", seen, reason=action.reason, token=token, store=action.store)
        self._in_time(token, run)
        try:
            self._stores[action.store].promote(entry.name, action.version, action.expected)
        except Trouble as trouble:
            if trouble.maybe_applied:
                run.minted.pop(token, None)
            raise
        run.minted.pop(token, None)
        window = None
        if self._outside.issuer(seen).capabilities.model is Model.REPLACE and run.minted_at is not None:
            window = {"window_seconds": f"{self._clock.monotonic() - run.minted_at:.3f}"}
        self._records.write(run, "promote.done", seen, token=token, store=action.store, detail=window)

    def _discard(self, action: actions.Discard, seen: Observation, run: Run) -> None:
        entry = seen.primary if action.store == run.target.store else self._replica(seen, action.store)
        self._records.write(run, "discard", seen, reason=action.reason, token=action.version.token, store=action.store)
        self._stores[action.store].discard(entry.name, action.version)

    def _list(self, _: actions.ListKeys, seen: Observation, run: Run) -> Observation:
        policy, at, s = seen.policy, self._outside.now(seen), self._situation(seen, run)
        names = {"installation": policy.installation, "environment": policy.environment, "secret": policy.name}
        infos = list(self._outside.issuer(seen).keys())
        ours = [(token, info) for info in infos if (token := token_in(info.name, **names))]
        run.evidence.listed = {t: info for t, info in ours if s.recorded_id(t) in (None, info.key_id)}
        run.evidence.listed_ids = frozenset(info.key_id for info in infos)
        run.evidence.unnamed = {info.key_id: info.created_at for info in infos if not info.name}
        run.evidence.listed_at = at
        return seen

    def _revoke(self, action: actions.Revoke, seen: Observation, run: Run) -> Observation | None:
        if self._outside.issuer(seen).capabilities.regenerates and self._outdated(run):
            return None  # another run may have revoked it, and its slot hold what is handed out
        self._records.write(
            run,
            "contain" if action.contained else "revoke",
            seen,
            reason=action.reason,
            token=action.key,
            key_id=action.key_id,
        )
        self._outside.issuer(seen).revoke(action.key_id)
        run.evidence.listed = None
        run.evidence.refusals.pop(action.key, None)
        self._records.write(run, "revoke.done", seen, token=action.key, key_id=action.key_id)
        # By this very id, whenever it is carried out: a list may have another key of the same name.
        written = facts.revoked(action.key, self._outside.now(seen)) | facts.key_fact(action.key, action.key_id)
        return self._record(seen, run, written)

    def _prove(self, action: actions.Prove, seen: Observation, run: Run) -> Observation:
        credential = run.old.get(action.key) or self._values.of(action.key, self._situation(seen, run), surely=True)
        if credential is None:
            run.evidence.unreadable.add(action.key)
            return seen
        run.old[action.key] = credential
        check = self._outside.issuer(seen).verify(credential)
        run.evidence.refusals[action.key] = self._streak(run.evidence.refusals.get(action.key), check, seen)
        self._records.check(run, "prove", seen, check, action.key)
        return seen

    def _forget(self, action: actions.Forget, seen: Observation, run: Run) -> Observation:
        if action.key:
            s = self._situation(seen, run)
            event = "proven" if action.proof in ("refused", "absent") else "closed"
            self._records.write(
                run, event, seen, reason=action.reason, token=action.key, key_id=s.key_id(action.key),
                detail={"how": action.proof, **stages_of(seen.primary.journal, action.key)},
            )  # fmt: skip
            if action.proof != "void":
                self._clear(action.key, seen, run)
        self._stores[run.target.store].forget(run.target.entry, action.facts)
        given_up = run.evidence.unspent & {fact.partition(".")[2] for fact in action.facts}
        run.evidence.unspent -= given_up
        run.evidence.gave_way |= bool(given_up)
        return replace(seen, primary=replace(seen.primary, journal=seen.primary.journal.minus(action.facts)))

    def _clear(self, key: str, seen: Observation, run: Run) -> None:
        """What its revocation has left behind at the issuer goes before its id is forgotten."""
        issuer, key_id = self._outside.issuer(seen), self._situation(seen, run).key_id(key)
        if key in seen.primary.journal.revoked and key_id is not None and isinstance(issuer, RevokesInSteps):
            issuer.clear(key_id)

    def _record(self, seen: Observation, run: Run, written: Mapping[str, str]) -> Observation:
        written = self._values.printed(written, self._situation(seen, run), run.values)
        self._stores[run.target.store].record(run.target.entry, written)
        if run.known is not None:  # what is promoted by now has no deadline any more
            run.known = _noted(run.known, written)
        return _noted(seen, written)

    @staticmethod
    def _replica(seen: Observation, store: str) -> Entry:
        entry = seen.replicas[store]
        assert isinstance(entry, Entry), "decide acts only on replicas that were seen"
        return entry

    def _in_time(self, token: str, run: Run) -> None:
        """No write of an attempt after its life: others may count on it."""
        deadline = run.deadlines.get(token)
        if deadline is None and run.known and run.known.unfenced:
            attempt = run.known.primary.journal.attempts.get(token)
            if attempt and token not in run.known.primary.journal.promoted:
                left = attempt.at + ATTEMPT_LIFE - CALL_LIMIT - self._outside.now(run.known)
                deadline = run.deadlines[token] = self._clock.monotonic() + left.total_seconds()
                run.ends[token] = self._clock.now() + left
        # A machine that slept may not have counted that; its wall clock has.
        wall = run.ends.get(token)
        late = wall is not None and self._clock.now() >= wall
        if late or (deadline is not None and self._clock.monotonic() >= deadline):
            raise Trouble(Code.UNAVAILABLE, run.target.store, f"{run.target.entry}: this attempt ran out of time")

    def _outdated(self, run: Run) -> bool:
        """Whether the last look is older than a call may take."""
        if run.looked is None:
            return True
        began, at = run.looked
        # A machine that slept may not have counted that; its wall clock has.
        return (
            max(self._clock.monotonic() - began, (self._clock.now() - at).total_seconds()) > CALL_LIMIT.total_seconds()
        )

    def _streak(self, before: Streak | None, check: Check, seen: Observation) -> Streak:
        now = self._outside.now(seen)
        return before.then(check.verdict, now, check.reason) if before else Streak(check.verdict, 1, now, check.reason)

    def _situation(self, seen: Observation, run: Run) -> Situation:
        return self._outside.situation(seen, run.evidence, run.order)

    handlers: ClassVar[
        Mapping[type[actions.Action], Callable[[Effects, Any, Observation, Run], Observation | None]]
    ] = {
        actions.Start: _start,
        actions.Intend: _intend,
        actions.Mint: _mint,
        actions.Restage: _restage,
        actions.Copy: _copy,
        actions.Compare: _compare,
        actions.Verify: _verify,
        actions.Smoke: _smoke,
        actions.Identify: _identify,
        actions.TellApart: _tell_apart,
        actions.Adopt: _adopt,
        actions.VerifyCurrent: _verify_current,
        actions.Look: _look_again,
        actions.Promote: _promote,
        actions.Discard: _discard,
        actions.Note: _note,
        actions.Condemn: _condemn,
        actions.ListKeys: _list,
        actions.AskLastUse: _ask_last_use,
        actions.Revoke: _revoke,
        actions.Prove: _prove,
        actions.Forget: _forget,
    }
    """How each action is carried out: the look as it is afterwards, or None when another look is needed."""


def _noted(seen: Observation, written: Mapping[str, str]) -> Observation:
    return replace(seen, primary=replace(seen.primary, journal=seen.primary.journal.plus(written)))


def _is_gone(call: Callable[[], object]) -> bool:
    """Whether a store says that the entry is gone. Raises whatever else goes wrong."""
    try:
        call()
    except Trouble as trouble:
        if trouble.code is not Code.NOT_FOUND or trouble.maybe_applied:
            raise
        return True
    return False
