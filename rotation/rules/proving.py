"""A revoked key is shown dead: refused, or absent from the issuer's list."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from rotation import journal as facts
from rotation.actions import Cause, Decision, Forget, Hold, ListKeys, Note, Prove, Revoke, VerifyCurrent, Wait
from rotation.journal import Why
from rotation.model import Model, Verdict
from rotation.rules.explaining import try_current
from rotation.situation import REGENERATED_WITHIN, Situation


def prove(s: Situation, key: str) -> Iterator[Decision]:
    """A revoke on paper is followed by refusals; until then the state is revoked, unproven."""
    need = s.issuer.revoke
    revoked = s.seen.primary.journal.revoked[key]
    if key in s.seen.primary.journal.proven:
        yield from _proven(s, key, "refused", "shown dead before")
        return
    if (spread := s.known_from(key)) and revoked < spread and (key_id := s.key_id(key)):
        if s.now < spread:
            told = "revoked; so young a key is not known to all of the issuer, and is revoked once more"
            yield Wait(until=spread, soon=True, reason=told)
        else:
            yield Revoke(key=key, key_id=key_id, reason="revoked when not all of the issuer knew it")
        return
    if key in s.evidence.unreadable and s.issuer.model is not Model.MINT and key not in s.roles:
        if not s.settled(key):
            yield Wait(until=revoked + REGENERATED_WITHIN, reason="destroyed; its slot is not given out at once")
            return
        known = s.seen.primary.journal.about(key)
        yield Forget(key=key, proof="unheld", facts=known, reason="destroyed, and nobody holds its value")
        return
    if key in s.evidence.unreadable:
        if not s.listable(key) and revoked + s.policy.drain.at_most <= s.now:
            about = s.seen.primary.journal.about(key)
            yield Forget(key=key, proof="unheld", facts=about, reason="revoked long ago; nobody can show it dead")
        elif not s.listable(key):
            told = "nobody holds the old value to show it dead, and no list tells of what we did not name: see to it"
            yield Hold(cause=Cause.PERSON, reason=told, unproven=True)
        elif s.promoted_at(key) and s.now < revoked + need.timeout:
            told = "nobody can show the old value to the issuer; its list may be ahead of those who check keys"
            yield Wait(until=revoked + need.timeout, soon=True, reason=told)
        elif s.evidence.listed is None or s.evidence.listed_at is None or s.evidence.listed_at < revoked:
            yield ListKeys(reason="nobody holds the old value; the issuer's list must not show its key")
        elif s.is_listed(key):
            yield from _still_alive(s, key, revoked, "still in the issuer's list")
        else:
            yield from _proven(s, key, "absent", "absent from the issuer's list")
        return
    streak = s.evidence.refusals.get(key)
    prove = Prove(key=key, reason="the old credential must be refused")
    if streak is None:
        yield prove
    elif streak.verdict is Verdict.INVALID and streak.count >= need.in_a_row:
        yield from _proven(s, key, "refused", f"refused {streak.count} times in a row")
    elif streak.verdict is Verdict.UNKNOWN:
        yield Hold(cause=Cause.UNPROVEN, reason=f"revoked, unproven: {streak.reason}", unproven=True)
    elif s.now < streak.at + (pause := s.pause(need, since=revoked, leaked=key in s.seen.primary.journal.contain)):
        told = "refused" if streak.verdict is Verdict.INVALID else "still accepted"
        yield Wait(until=streak.at + pause, soon=True, reason=f"the old credential is {told}")
    elif streak.verdict is Verdict.INVALID or s.now < revoked + need.timeout:
        yield prove
    else:
        yield from _still_alive(s, key, revoked, "still accepted")


def _proven(s: Situation, key: str, proof: str, reason: str) -> Iterator[Decision]:
    """Dead. The journal keeps a contained key condemned until no store hands it out any more."""
    held, revoked_at = s.seen.primary.journal.condemned.get(key), s.seen.primary.journal.revoked.get(key, s.now)
    if held and held.why in (Why.ORPHAN, Why.LOST) and s.current and s.issuer.registry and not s.urgent:
        # Nothing told what it was for. Had it been the current one under another name, then that is dead now.
        tried = s.evidence.current.get(s.current.id)
        after = revoked_at + timedelta(seconds=1)  # the journal has whole seconds
        if s.now < after:
            yield Wait(until=after, soon=True, reason="dead; does the current one still work?")
            return
        if tried is None or tried.at < after:
            yield VerifyCurrent(version=s.current, reason="does the current one still work?")
            return
        if not s.current_works:
            yield from try_current(s, "does the current one still work?")
            return
    # With a journal that goes, its slot would be given out by whoever comes next.
    ends = key not in s.roles or s.order.destroy
    if key not in s.roles and (until := s.last_write(key)) and s.now < until:
        yield Wait(until=until, reason="dead; a delayed write may still bring it back")
    elif ends and not s.settled(key) and key in s.seen.primary.journal.proven:
        until = revoked_at + REGENERATED_WITHIN
        yield Wait(until=until, soon=s.order.destroy, reason="dead; its slot is not given out at once")
    elif key not in s.roles and s.settled(key):
        yield Forget(key=key, proof=proof, facts=s.seen.primary.journal.about(key), reason=reason)
    elif key not in s.seen.primary.journal.proven:
        yield Note(facts=facts.proven(key, s.now, proof), reason=reason)


def _still_alive(s: Situation, key: str, revoked: datetime, how: str) -> Iterator[Decision]:
    if s.now < revoked + s.issuer.revoke.timeout:
        yield Wait(until=s.now + s.issuer.revoke.interval, soon=True, reason=f"the revoked key is {how}")
    elif s.issuer.model is Model.REPLACE and key not in s.seen.primary.journal.contain:
        yield from _not_destroyed(s, key, revoked)
    elif (key_id := s.key_id(key)) is not None:
        yield Revoke(key=key, key_id=key_id, reason=f"revoked before, and {how}")
    else:
        told = (
            f"the revoked key is {how}, and which one it is at {s.policy.issuer} is not known: revoke it there by hand"
        )
        yield Hold(cause=Cause.PERSON, reason=told, unproven=True)


def _not_destroyed(s: Situation, key: str, revoked: datetime) -> Iterator[Decision]:
    """Where there is one credential: what its successor should have destroyed lives. It may be that one, so it is not revoked."""
    about, named = s.seen.primary.journal.about(key), s.key_id(key)
    if named is not None and s.current_key is not None and named == s.key_id(s.current_key):
        yield Forget(key=key, proof="void", facts=about, reason="another name of the current credential")
    elif not s.current_works:
        yield Forget(key="", proof="void", facts=(f"revoked.{key}",), reason="nothing has destroyed it")
    elif revoked + s.policy.drain.at_most <= s.now:
        yield Forget(key=key, proof="unheld", facts=about, reason="long told to be looked at by hand")
    else:
        told = f"the credential before works at {s.policy.issuer} beside what is handed out"
        by_hand = "unless that is the same, revoke it there by hand"
        yield Hold(cause=Cause.PERSON, reason=f"{told}: {by_hand}", unproven=True)
