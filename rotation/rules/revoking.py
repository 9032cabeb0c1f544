"""A condemned key is revoked: by the one path that looks again, or contained in an emergency."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from rotation import journal as facts
from rotation.actions import (
    Cause,
    Condemn,
    Decision,
    Forget,
    Hold,
    Intend,
    ListKeys,
    Look,
    Note,
    Prove,
    Revoke,
    TellApart,
    VerifyCurrent,
    Wait,
)
from rotation.journal import Attempt, Why
from rotation.model import Model, Verdict
from rotation.rules.beginning import begun
from rotation.rules.explaining import try_current
from rotation.situation import ATTEMPT_LIFE, Situation, Streak


def contain(s: Situation) -> Iterator[Decision]:
    """In an emergency whose time is up, revoke the leaked key although stores still hand it out."""
    journal = s.seen.primary.journal
    for key, at in journal.contain.items():
        if at > s.now or key in journal.revoked or key not in journal.condemned:
            continue
        if key not in s.roles and not s.order.destroy and not s.lagging and not _alive_attempts(s, key):
            continue  # retired like any other
        if elsewhere(s, key) is not None:
            continue
        if not s.issuer.revokes and s.order.destroy:
            yield from _revoked_by_hand(s, key)
            continue
        if not s.issuer.revokes:
            told = (
                "the issuer revokes nothing by itself: revoke it there by hand" if key not in s.roles else "replace it"
            )
            yield Hold(cause=Cause.PERSON, reason=f"the leaked key is alive; {told}", unproven=True)
            continue
        if not s.issuer.registry:
            continue
        if (key_id := s.key_id(key)) is None:
            yield from find_or(s, key, condemn=False)
            continue
        if _same_as_current(s, key):
            continue  # another name of what is handed out, and that one is not condemned
        where = ", ".join(sorted(s.roles.get(key, ["no store"])))
        told = "the entry is being deleted" if s.order.destroy else f"contained while still handed out by {where}"
        yield Revoke(key=key, key_id=key_id, contained=True, reason=told)


def revoke(s: Situation, key: str) -> Iterator[Decision]:
    """The one path that revokes: condemned, looked again, in no role, and nothing can promote it any more."""
    for unclear in may_be_current(s, key):
        yield unclear
        return
    if _same_as_current(s, key):
        about = s.seen.primary.journal.about(key)
        yield Forget(key=key, proof="void", facts=about, reason="another name of the current key")
        return
    why = s.seen.primary.journal.condemned[key].why
    # Nothing is known of how those came about: a vault that was restored from a backup looks the same. And where no
    # list tells of what is current, nobody has looked at it since it was promoted.
    drained = why is Why.RETIRED and key not in s.seen.primary.journal.contain
    unlisted = drained and s.issuer.model is not Model.MINT and s.issuer.revokes
    if (why in (Why.ORPHAN, Why.LOST) or unlisted) and _in_doubt(s):
        yield from try_current(s, "before the last key besides it goes: does the current one work?")
        return
    if unlisted and s.found_dead and s.slots_of(s.current_key or ""):
        told = "the current credential is refused: the one before lives until it is replaced"
        yield Hold(cause=Cause.UNVERIFIED, reason=told)
        return
    if _alive_attempts(s, key):
        yield from _make_void(s, key)
        return
    orphan = s.seen.primary.journal.condemned[key].why is Why.ORPHAN
    # Of our own, replicas get only what the primary has promoted.
    # One that all stores were seen to have left, or that drained, no mirror that is under way brings back.
    left = s.stranded and (orphan or s.superseded_at(key) is not None)
    if s.astray and not left and (s.promoted_at(key) or orphan):
        yield Hold(
            cause=Cause.STORE, reason=f"a condemned key lives until {', '.join(s.astray)} agrees with {s.policy.store}"
        )
        return
    if (until := s.last_write(key)) and s.seen.primary.read_at + min(s.seen.ahead, timedelta(0)) < until:
        if s.sure < until:
            yield Wait(until=until, reason="a delayed write may still bring the condemned key back")
        else:
            yield Look(reason="every delayed write has landed by now")
        return
    if not s.issuer.registry:
        yield Forget(key=key, proof="unenforced", facts=s.seen.primary.journal.about(key), reason="no issuer to ask")
        return
    if (key_id := s.key_id(key)) is None:
        yield from find_or(s, key, condemn=False)
        return
    if not s.issuer.revokes:
        yield from _revoked_by_hand(s, key)
        return
    # Only its time to be contained lets an unclear one come here.
    yield Revoke(key=key, key_id=key_id, contained=_unclear(s, key), reason=why.value)


def find_or(s: Situation, key: str, *, condemn: bool) -> Iterator[Decision]:
    """Find out a key's id; a key that was never minted is forgotten once no mint can come any more."""
    attempts = s.attempts_of(key)
    journal = s.seen.primary.journal
    unlisted = not attempts or s.issuer.model is Model.MANUAL
    if unlisted and s.key_id(key) is None and (key in journal.adopted or s.promoted_at(key)):
        if key not in journal.adopted and s.evidence.listed is None:
            yield ListKeys(reason="nothing of its mint is recorded; does the issuer know it?")
            return
        yield from _revoked_by_hand(s, key)  # not ours by name, so no list tells
        return
    why = Why.SUPERSEDED if all(s.void(a) for a in attempts) else Why.LOST
    if (key_id := s.key_id(key)) is not None:
        if condemn:
            written = facts.condemned(key, s.now, why) | facts.key_fact(key, key_id)
            yield Condemn(key=key, why=why, facts=written, reason="minted, and not to be used")
        return
    held = journal.condemned.get(key)
    since = [a.at for a in attempts] + ([held.at] if held else [])
    # And not all of the issuer may know it at once.
    latest = max(since, default=s.now - ATTEMPT_LIFE) + ATTEMPT_LIFE + s.issuer.spreads
    if s.evidence.listed is None or (s.evidence.listed_at and s.evidence.listed_at < latest <= s.now):
        yield ListKeys(reason="a mint was intended, and its outcome is not recorded")
    elif s.now < latest:
        yield Wait(until=latest, reason="a mint was intended; it is not in the issuer's list yet")
    elif (strange := s.strangers(key)) and s.now < latest + s.policy.drain.at_most:
        told = f"a mint was not answered, and may have made {', '.join(strange)}, which nobody has the value of"
        by_hand = f"unless it is somebody else's, delete it at {s.policy.issuer} by hand"
        yield Hold(cause=Cause.PERSON, reason=f"{told}: {by_hand}", unproven=True)
    elif strange:
        known = journal.about(key)
        yield Forget(key=key, proof="unheld", facts=known, reason="long told to be looked at by hand")
    elif s.issuer.regenerates and held is not None:
        # Its slot rests as after any other revocation.
        written = facts.revoked(key, s.now)
        yield Note(facts=written, reason="not in the issuer's list; who has seen its id may be regenerating its slot")
    else:
        known = journal.about(key)
        yield Forget(key=key, proof="never-minted", facts=known, reason="not in the issuer's list")


def may_be_current(s: Situation, key: str) -> Iterator[TellApart | Hold]:
    """A person's value is current, and for all that is known it is this key's."""
    contain_at = s.seen.primary.journal.contain.get(key)
    if not _unclear(s, key) or (contain_at is not None and contain_at <= s.now):
        return
    if s.slot_unknown:
        told = f"nobody knows which slot of {s.policy.issuer} holds what is handed out, and it may be this key's"
        yield Hold(cause=Cause.STORE, reason=f"{told}; `keyturn emergency {s.policy.name}` replaces it")
    elif key in s.evidence.alike:
        told = "a store hands out a value by hand that may be this key's; the next rotation tells"
        yield Hold(cause=Cause.STORE, reason=told)
    else:
        yield TellApart(key=key, reason="is it the value that was put there by hand?")


def _unclear(s: Situation, key: str) -> bool:
    """Whether a key may be what is handed out under another name, and was not shown apart from it."""
    if s.slot_unknown:
        return True
    # Even a key that was only ever staged: a person may have taken its value from there.
    return (
        s.current_unnamed
        and s.issuer.registry
        and key not in s.evidence.apart
        and key not in s.seen.primary.journal.foreign
    )


def elsewhere(s: Situation, key: str) -> Hold | Forget | None:
    """A key that was minted where the issuer's name does not lead any more: nothing can be asked or revoked there."""
    attempts = [a for a in s.attempts_of(key) if a.of is None and (s.promoted_at(key) or s.expired(a))]
    journal = s.seen.primary.journal
    scopes = {*(a.scope for a in attempts), journal.scopes.get(key, "")} - {"", s.issuer.scope}
    if not scopes or (key in s.roles and not s.emergency) or s.key_id(key) in (s.order.listed or ()):
        return None  # or the list shows that it is here all the same
    since = journal.condemned[key].at if key in journal.condemned else s.superseded_at(key)
    if since is None and s.promoted_at(key) is None:
        since = max((a.at for a in attempts), default=None)
    if since and since + s.policy.drain.at_most <= s.now and key not in s.roles and not s.lagging:
        return Forget(key=key, proof="unheld", facts=journal.about(key), reason="long told to be revoked by hand")
    which, unproven = s.key_id(key) or f"with {key} in its name", key in journal.contain or key in journal.revoked
    told = f"the key {which} lives where {s.policy.issuer} led to before: set that back, or revoke it there by hand"
    return Hold(cause=Cause.PERSON, reason=told, unproven=unproven)


def _in_doubt(s: Situation) -> bool:
    """Whether there is a current credential that should work, and was not seen to in this run."""
    asks = s.current is not None and s.issuer.registry and s.readable(s.current)
    return asks and not s.urgent and not s.current_works


def _alive_attempts(s: Situation, key: str) -> list[Attempt]:
    """Attempts by which a paused run might still make the key current."""
    alive = [a for a in s.attempts_of(key) if not s.void(a)]
    held = s.seen.primary.journal.condemned.get(key)
    known = held is None or s.sure >= held.at + ATTEMPT_LIFE  # to whoever had taken one up before that was written
    if s.current is None and s.crowded and known:
        # Nothing is handed out, there is no value to store anew, and no room for the attempt that would void
        # these. What is left is a first promotion that stalls for longer than M: it would hand out a dead key.
        return [a for a in alive if not s.expired(a)]
    return alive


def _same_as_current(s: Situation, key: str) -> bool:
    """Two names of one key at the issuer."""
    mine = s.key_id(key)
    return key != s.current_key and mine is not None and s.current_key is not None and mine == s.key_id(s.current_key)


def _revoked_by_hand(s: Situation, key: str) -> Iterator[Decision]:
    """Nothing can be asked of the issuer. What it says of the key tells whether somebody has done it."""
    streak = s.evidence.refusals.get(key)
    which_one = "the credential" if key == s.current_key else "the old credential"
    if s.issuer.model is Model.REPLACE and key != s.current_key and s.replaced:
        yield Note(facts=facts.revoked(key, s.now), reason="creating its successor has destroyed it")
    elif (
        key in s.evidence.unreadable
        and (held := s.seen.primary.journal.condemned.get(key)) is not None
        and (held.at + s.policy.drain.at_most <= s.now)
    ):
        known = s.seen.primary.journal.about(key)
        yield Forget(key=key, proof="unheld", facts=known, reason="long told to be revoked by hand; nobody holds it")
    elif key in s.evidence.unreadable:
        yield Hold(
            cause=Cause.PERSON,
            reason=f"revoke {which_one} by hand; nobody holds it to show it dead",
            unproven=True,
        )
    elif streak is None:
        yield Prove(key=key, reason="has it been revoked by hand?")
    elif streak.verdict is Verdict.INVALID and (asks := _not_everybody(s, key, streak)) is not None:
        yield asks
    elif streak.verdict is Verdict.INVALID:
        yield Note(facts=facts.revoked(key, s.now), reason="revoked by hand")
    else:
        which = s.key_id(key) or f"that was put there on {s.promoted_at(key) or s.now:%Y-%m-%d}"
        told = f"revoke {which_one} {which} by hand at {s.policy.issuer}"
        yield Hold(cause=Cause.PERSON, reason=told, unproven=True)


def _not_everybody(s: Situation, key: str, refused: Streak) -> Prove | VerifyCurrent | Wait | Hold | None:
    """Whether an issuer that refuses a key which nobody here has revoked refuses that one alone."""
    if refused.count < s.issuer.revoke.in_a_row:
        if s.now < refused.at + s.issuer.revoke.interval:
            return Wait(until=refused.at + s.issuer.revoke.interval, soon=True, reason="the old credential is refused")
        return Prove(key=key, reason="refused; again?")
    if s.order.destroy or s.current is None or not s.readable(s.current):
        return None  # nothing is there that should work
    tried = s.evidence.current.get(s.current.id)
    if tried is None or tried.at < refused.at:
        return VerifyCurrent(version=s.current, reason="the old credential is refused; does the current one work?")
    if not tried.verdict.live:
        told = "the issuer refuses the current credential, too: nobody can tell whether the old one was revoked by hand"
        return Hold(cause=Cause.UNVERIFIED, reason=told, unproven=True)
    return None


def _make_void(s: Situation, key: str) -> Iterator[Decision]:
    """A key that a paused run might still promote dies only after current has left that run's base."""
    if s.pending is not None or s.current is None:
        return  # the promotion that is under way or due makes the old attempt void
    due = s.due_now and (not s.frozen or s.expiring) and key not in s.seen.primary.journal.contain
    if (due or s.urgent) and not s.crowded:
        return  # the rotation that is due does it
    if s.at_work:
        yield Wait(until=s.at_work.at + ATTEMPT_LIFE, reason="another run's attempt may still be at work")
        return
    if (value := begun(s)) is not None:
        yield value
        return
    if s.current_key is None:
        yield Hold(
            cause=Cause.STORE, reason="the entry was changed outside Keyturn; the next rotation frees the old key"
        )
        return
    if s.seen.unfenced and s.unreachable and not s.urgent:
        # Its promotion would wait, and where nothing is fenced no attempt may wait for long.
        away = ", ".join(replica.store for replica in s.unreachable)
        yield Hold(cause=Cause.STORE, reason=f"an old key goes once {away} can be reached")
        return
    yield Intend(
        why=Why.REWRITE,
        base=s.current_id,
        of=s.current_key,
        reason="store the current credential anew, so that no paused run can promote a condemned key",
    )
