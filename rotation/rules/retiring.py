"""A key that no store needs any more drains, is condemned, and goes on to be revoked and shown dead."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from rotation import journal as facts
from rotation.actions import (
    AskLastUse,
    Cause,
    Condemn,
    Decision,
    Forget,
    Hold,
    ListKeys,
    Note,
    Prove,
    Rest,
    VerifyCurrent,
    Wait,
)
from rotation.journal import Why
from rotation.model import Ending, Model, Verdict
from rotation.rules.proving import prove
from rotation.rules.revoking import elsewhere, find_or, may_be_current, revoke
from rotation.rules.waiting import A_MOMENT, SHOWN_WITHIN, until_thawed
from rotation.situation import ATTEMPT_LIFE, Situation


def retire(s: Situation) -> Iterator[Decision]:
    """Take every key that no store needs any more from draining to proven dead."""
    for key in s.keys:
        yield from _retire(s, key)


def _retire(s: Situation, key: str) -> Iterator[Decision]:
    journal = s.seen.primary.journal
    if usurping := [a for a in s.usurpers if a.key == key]:  # what it did to the current credential comes first
        tried, over = s.evidence.current.get(s.current_id or ""), max(a.at for a in usurping) + ATTEMPT_LIFE
        if not s.current_works or s.now < over:
            return
        if tried is None or tried.at < over:
            assert s.current is not None, "without one nothing is usurped"
            yield VerifyCurrent(version=s.current, reason="a mint that came to nothing could go out until now")
            return
    if s.going_back and key == s.order.back_to:
        return
    if (away := elsewhere(s, key)) is not None:
        yield away
        return
    if key in journal.revoked:
        yield from prove(s, key)
        return
    if key in s.roles or s.evidence.unspent & {a.token for a in s.attempts_of(key)}:
        return
    if key in journal.foreign and key not in journal.contain and (since := s.superseded_at(key)):
        if _frozen(s) and not s.cramped:
            yield until_thawed(s, _drained_by(s, since))
        elif s.cramped or s.sure >= since + s.policy.grace:
            told = "made by a person, who may still need it or has to revoke it"
            yield Forget(key=key, proof="foreign", facts=journal.about(key), reason=told)
        else:
            yield Wait(until=since + s.policy.grace, reason="grace period of a person's credential")
        return
    if (held := journal.condemned.get(key)) is not None:
        # One that another run promoted meanwhile was handed out: unless it leaked, it drains like any other.
        if s.promoted_at(key) and key not in journal.contain and not s.drained(key):
            if (since := s.superseded_at(key)) is None:
                return
            if (rest := _draining(s, key, since)) is not None:
                yield rest
                return
        elif (
            held.why in (Why.SUPERSEDED, Why.ORPHAN)
            and key not in journal.contain
            # It may have been handed out without being noted: for a moment, before a delayed write or a person's;
            # or by a store that the journal knows nothing of.
            and (rest := _draining(s, key, max(s.last_write(key) or held.at, held.at))) is not None
        ):
            yield rest
            return
        yield from revoke(s, key)
        return
    if s.promoted_at(key) is None:
        yield from _never_promoted(s, key)
        return
    if s.lagging and not s.stranded:
        return
    if (since := s.superseded_at(key)) is None:
        return
    if s.issuer.model is Model.REPLACE:
        if s.replaced:
            yield Note(facts=facts.revoked(key, s.now), reason="creating its successor has destroyed it")
        elif s.current is not None and s.evidence.current.get(s.current.id) is None:
            yield VerifyCurrent(version=s.current, reason="there is one credential; is it what a person has put there?")
        return
    if _frozen(s):
        yield until_thawed(s, _drained_by(s, since))
        return
    if (rest := _draining(s, key, since)) is not None:
        yield rest
        return
    for unclear in may_be_current(s, key):
        yield unclear
        return
    # Of the look that it rests on: whoever went back to the key meanwhile is not to lose it for a paused run.
    at, why = min(s.now, s.seen.primary.read_at), Why.RETIRED
    yield Condemn(key=key, why=why, facts=facts.condemned(key, at, why), reason="superseded, grace over, quiet")


def _never_promoted(s: Situation, key: str) -> Iterator[Decision]:
    """An attempt in no role: superseded, crashed, or with its answer lost."""
    if s.cut_off(key):
        at_work = [attempt.at for attempt in s.attempts_of(key) if not s.expired(attempt)]
        if at_work and not s.order.take_over:
            yield Wait(until=max(at_work) + ATTEMPT_LIFE, reason="another run's attempt may still be at work")
            return
        told = f"brought by a person, and not made current: submit it again, or delete it at {s.policy.issuer}"
        yield Forget(key=key, proof="foreign", facts=s.seen.primary.journal.about(key), reason=told)
        return
    noted, key_id = s.seen.primary.journal.about(key), s.key_id(key)
    if s.issuer.registry and key_id and {fact.partition(".")[0] for fact in noted} <= {"key", "expires"}:
        # Noted when its key was done with already, by a write that was on its way. One that lives is lost like any other.
        if s.evidence.listed is None:
            yield ListKeys(reason="nothing but an id is recorded; does the issuer know it?")
            return
        if key_id not in s.evidence.listed_ids:
            yield Forget(key="", proof="void", facts=noted, reason="noted late: the issuer knows it no more")
            return
    for attempt in s.attempts_of(key):
        if s.now < attempt.at + SHOWN_WITHIN and not s.void(attempt):
            yield Wait(until=s.now + A_MOMENT, soon=True, look=True, reason="made a moment ago; it does not show yet")
            return
        # Its run may be between intent and stage. Void or not, it may still mint until it expires.
        if not s.expired(attempt) and s.key_id(key) is None and not s.order.take_over:
            yield Wait(until=attempt.at + ATTEMPT_LIFE, reason="another run's attempt may still be at work")
            return
    yield from find_or(s, key, condemn=True)


def _frozen(s: Situation) -> bool:
    """Whether an incident keeps old credentials that did not leak, unless what can not wait needs their place."""
    return s.frozen is not None and not (s.no_room and (s.urgent or s.asked or s.expiring))


def _drained_by(s: Situation, since: datetime) -> datetime:
    """When an old credential would be gone at the latest, had nothing been in the way."""
    return since + max(s.policy.grace, s.policy.drain.at_most)


def _asked_after(s: Situation, key: str, since: datetime) -> Prove | VerifyCurrent | Wait | None:
    """Whether an old credential that a list lacks is refused: then nobody can be cut off. Where it works, the list is short."""
    if not s.missed(key, since) or key in s.evidence.unreadable:
        return None
    streak = s.evidence.refusals.get(key)
    if streak is not None and streak.verdict is not Verdict.INVALID:
        return None
    if streak is not None and streak.count >= s.issuer.revoke.in_a_row:
        tried = s.evidence.current.get(s.current_id or "")
        if s.current is None or (tried is not None and tried.at >= streak.at):
            return None
        return VerifyCurrent(version=s.current, reason="the old credential is refused; does the current one work?")
    if streak is not None and s.now < streak.at + s.issuer.revoke.interval:
        return Wait(until=streak.at + s.issuer.revoke.interval, soon=True, reason="the old credential is refused")
    return Prove(key=key, reason="the issuer's list lacks the old credential; is it refused?")


def _draining(s: Situation, key: str, since: datetime) -> Rest | AskLastUse | ListKeys | Prove | VerifyCurrent | None:
    """None once a superseded credential may go; otherwise what it waits for. Never verifies one that is listed: that were a use."""
    drain, ends = s.policy.drain, s.seen.primary.journal.expires.get(key)
    if (ends and ends <= s.sure) or s.gone(key, since):
        return None  # nobody can be cut off any more; the proof follows as always
    if s.sure < since + s.policy.grace:
        return Wait(until=since + s.policy.grace, reason="grace period of the old credential")
    if not s.issuer.tells_last_use:
        return None
    if (key_id := s.key_id(key)) is None:
        if s.evidence.listed is None:
            return ListKeys(reason="the old credential's id is not recorded")
        told = "the old credential's id is not known, so nobody can tell whether it is in use"
        if s.issuer.model is Model.MANUAL and drain.then is Ending.REVOKE:
            return Wait(until=since + drain.at_most, reason=told) if s.sure < since + drain.at_most else None
        return Hold(cause=Cause.IN_USE, reason=told)
    use = s.evidence.last_use.get(key)
    if use is None:
        return AskLastUse(key=key, key_id=key_id, reason="is the old credential quiet?")
    # "Never" says nothing of the time that the issuer's counts lag behind, and it was handed out until its drain began.
    last = use.at or (since if use.granularity else None)
    quiet_at = last + use.granularity + drain.quiet_for if last else s.sure + drain.quiet_for
    if use.known and (last is None or quiet_at <= s.sure):
        return None
    if not use.known and (asked := _asked_after(s, key, since)) is not None:
        return asked
    end = since + drain.at_most
    if s.sure < end:
        told = "was used recently" if use.known else "has no known last use"
        return Wait(until=min(quiet_at, end), reason=f"the old credential {told}")
    if drain.then is Ending.HOLD:
        told = "is still in use" if use.known else "has no known last use"
        ended = f"`keyturn emergency {s.policy.name}` ends it, and so does revoking it by hand"
        return Hold(cause=Cause.IN_USE, reason=f"the old credential {told} after the longest drain; {ended}")
    return None
