"""A new attempt is begun where one is due, asked for or needed; void ones are dropped."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from rotation.actions import Cause, Decision, Discard, Forget, Hold, Intend, Mint, Restage, Start, Wait
from rotation.journal import Why
from rotation.model import Entry, Model, Version
from rotation.rules.waiting import BACKOFF_URGENT, await_service, until_thawed
from rotation.situation import ATTEMPT_LIFE, EMERGENCY_CLAIM, Absent, Situation

WITHIN_DAYS: Final = timedelta(days=1)
WITHIN_HOURS: Final = timedelta(hours=1)
"""How late a store's own service may rotate: within the day that is due, or the hour where the interval is in hours
(Secrets Manager, RotationRulesType, Duration)."""
FULL: Final = timedelta(hours=1)
"""When to look again whether an old credential is gone."""


def replace_condemned(s: Situation) -> Iterator[Decision]:
    """A condemned or dead current credential is replaced before anything older is cleaned up."""
    if s.urgent or s.current is None:
        yield from begin(s)


def begin(s: Situation) -> Iterator[Decision]:
    """Start the attempt that is due, asked for, or needed because the current credential is to die."""
    if s.pending is not None:
        return
    if (value := begun(s)) is not None:
        yield value
        return
    why = _why(s)
    if why is None:
        return
    ending = s.seen.primary.journal.ending
    if ending and s.now < ending and (s.emergency or s.current is None):  # a deletion condemns all that there is
        yield Wait(until=ending, reason="its entry is being deleted")
        return
    if s.evidence.gave_way:
        yield Wait(until=s.now + EMERGENCY_CLAIM, reason="the next run asks for a new credential again")
        return
    reasons = {
        Why.FIRST: "the entry has no credential yet",
        Why.REPLACE: "the current credential is condemned or dead",
        Why.ROLLBACK: "back to the previous credential",
        Why.ASKED: "asked for",
        Why.DUE: f"due since {s.due_at:%Y-%m-%d %H:%M}Z"
        if s.due_at and s.due_at <= s.now
        else "its service asks for it",
    }
    if why is Why.DUE and s.frozen and not s.expiring:
        yield until_thawed(s, None if s.order.token or s.due is None else s.due.overdue)
        return
    journal = s.seen.primary.journal
    off = journal.backoff
    # A back-off may have been earned while the current credential still worked.
    until = (min(off.until, off.at + BACKOFF_URGENT) if s.urgent else off.until) if off else s.now
    back = s.fallback if why is Why.REPLACE else None
    if off and until > s.now and not s.emergency and back is None and why not in (Why.ASKED, Why.ROLLBACK):
        yield Wait(until=until, reason=f"backing off after {off.failures} failed in a row ({off.error})")
    elif why is Why.DUE and s.order.token is None and not s.due_now:
        yield _closed(s)
    elif why in (Why.DUE, Why.ASKED) and s.seen.pair_free_at and s.seen.pair_free_at > s.now:
        waits = f"its pair {s.policy.paired_with} has its own window first"
        yield _told_once_late(s, Wait(until=s.seen.pair_free_at, reason=waits))
    elif s.evidence.started:
        yield await_service(s, s.now + ATTEMPT_LIFE, "the store's service was told to rotate")
    elif s.at_work:
        yield Wait(until=s.at_work.at + ATTEMPT_LIFE, reason="another run's attempt may still be at work")
    elif why is Why.ROLLBACK:
        back = s.order.back_to or ""
        if not s.has_value(back) or back in journal.condemned or back in journal.revoked:
            yield Hold(cause=Cause.IMPOSSIBLE, reason="there is no earlier credential that still lives")
        else:
            yield Intend(why=why, base=s.current_id, of=back, reason=reasons[why])
    elif s.issuer.model is Model.MANUAL and not s.order.submitted:
        made = f"{reasons[why]}: create one at {s.policy.issuer}, then `keyturn submit {s.policy.name}`"
        yield Hold(cause=Cause.PERSON, reason=f"waits for a person, as {made}")
    elif s.slot_unknown and not s.urgent:
        told = (
            f"nobody knows which slot of {s.policy.issuer} holds what is handed out: adopt it with the slot as its id"
        )
        yield Hold(cause=Cause.PERSON, reason=f"{told}, or `keyturn emergency {s.policy.name}` to replace it at once")
    elif back is not None:
        told = "what is handed out is dead, and the issuer is full: back to the last one that worked"
        yield Intend(why=Why.ROLLBACK, base=s.current_id, of=back, reason=told)
    elif s.no_room:
        if not s.retiring:
            yield Hold(cause=Cause.LIMIT, reason="the issuer holds as many keys of this secret as it allows")
        else:
            full = "the issuer is full" if s.full else "the journal is" if s.cramped else "there are enough of them"
            waits = f"old credentials have to go before another is made: {full}"
            if s.urgent and not s.emergency:
                waits = f"what is handed out is dead or condemned, and {waits}; `keyturn emergency {s.policy.name}` does not wait"
            yield _told_once_late(s, Wait(until=s.now + FULL, reason=waits))
    elif s.policy.native and s.order.token is None and why in (Why.DUE, Why.ASKED) and not s.frozen:
        yield from _have_service_rotate(s, why, reasons[why])
    else:
        yield Intend(why=why, base=s.current_id, slot=s.free_slot, reason=reasons[why])


def _told_once_late(s: Situation, wait: Wait) -> Wait | Hold:
    """A wait, or what people are told where it has made the credential older than allowed."""
    if s.due is None or s.now < s.due.overdue:
        return wait
    return Hold(cause=Cause.SCHEDULE, reason=f"overdue: {wait.reason}")


def _closed(s: Situation) -> Wait | Hold:
    """Due, and outside the times in which its schedule lets it begin. Nobody becomes overdue in silence."""
    assert s.opening is not None, "only what is due waits"
    told = f"waits for {s.opening.reason}"
    if s.now < s.opening.overdue:
        return Wait(until=s.opening.at, reason=told)
    return Hold(cause=Cause.SCHEDULE, reason=f"overdue, and {told}; `keyturn rotate {s.policy.name}` does not wait")


def _have_service_rotate(s: Situation, why: Why, reason: str) -> Iterator[Decision]:
    """One scheduler for each secret: of a native one the service starts the rotations, also those that it missed."""
    journal, service = s.seen.primary.journal, s.seen.primary.service
    tried = [a for a in journal.attempts.values() if a.why is Why.DUE and not s.void(a)]
    if why is Why.DUE and s.due_at and not tried and not journal.backoff:
        days = s.policy.rotate_every % timedelta(days=1) == timedelta(0)
        missed = s.due_at + (WITHIN_DAYS if days else WITHIN_HOURS)
        if s.now < missed:
            yield Wait(until=missed, reason="the store's service rotates it by itself")
            return
    if service and service.begun:
        # While it counts as begun, the service refuses to begin another.
        stuck = Version(id=service.begun, token=service.begun)
        yield Discard(store=s.policy.store, version=stuck, reason="the service's rotation came to no value")
        return
    yield Start(reason=reason)


def _why(s: Situation) -> Why | None:
    if s.current is None:
        return Why.FIRST
    if s.order.token:
        return Why.REPLACE if s.urgent else Why.DUE
    if s.order.back_to and s.asked:
        return Why.ROLLBACK
    if s.urgent:
        return Why.REPLACE
    if s.asked:
        return Why.ASKED
    return Why.DUE if s.is_due else None


def begun(s: Situation) -> Mint | Restage | Forget | None:
    """The attempt whose intent this run has just written: now the value."""
    for token in sorted(s.evidence.unspent):
        attempt = s.seen.primary.journal.attempts.get(token)
        if attempt is None or s.void(attempt):
            continue
        if s.destroys and attempt.of is None and s.rivals(attempt):
            facts_of = (f"attempt.{token}",)
            return Forget(
                key="", proof="void", facts=facts_of, reason="another run is about to create, and it destroys"
            )
        if attempt.key in s.seen.primary.journal.condemned and not s.rewrites(attempt):
            continue
        if attempt.of is None:
            return Mint(attempt=attempt, reason="create the key under its rotation token")
        return Restage(attempt=attempt, reason="stage the stored value under the new attempt")
    return None


def tidy(s: Situation) -> Iterator[Decision]:
    """Attempts that carried the current key, are void and in no role, are of no more use."""
    journal = s.seen.primary.journal
    held = {
        v.token for e in (s.seen.primary, *s.seen.replicas.values()) if isinstance(e, Entry)
        for v in (e.current, e.pending) if v
    }  # fmt: skip
    gone = [
        a.token
        for a in journal.attempts.values()
        if a.of
        and a.token not in held
        and a.token not in s.evidence.unspent
        # One that carries what is current anyway may be forgotten once nobody works on it any more, unless that dies.
        and (s.expired(a) if (a.key == s.current_key and not s.urgent) or s.seen.unfenced else s.void(a))
    ]
    gone += [
        token
        for token, at in journal.promoted.items()
        # A late write may leave this behind after everything else of its token was dropped.
        if token not in journal.attempts and token not in journal.adopted and token not in journal.key_ids
        and token not in held and at + ATTEMPT_LIFE <= s.now
    ]  # fmt: skip
    if stuck := _stuck(s):
        yield Discard(store=s.policy.store, version=stuck, reason="the service's rotation came to no value")
    stale = tuple(key for key in journal.facts if key.partition(".")[2] in gone)
    if stale and not any(isinstance(r, Absent) and not r.missing for r in s.seen.replicas.values()):
        yield Forget(key="", proof="void", facts=stale, reason="void attempts")


def _stuck(s: Situation) -> Version | None:
    """What the service waits for, where nobody brings it: a rotation that counts as begun keeps others from beginning."""
    service = s.seen.primary.service
    if service is None or service.begun is None or service.begun in s.seen.primary.journal.attempts:
        return None
    idle = service.idle_since is not None and service.idle_since + WITHIN_HOURS <= s.now
    return Version(id=service.begun, token=service.begun) if idle or not s.policy.native else None
