"""What is current: since when, whose is it, does it work?"""

from __future__ import annotations

from collections.abc import Iterator

from rotation import journal as facts
from rotation.actions import Adopt, Cause, Decision, Forget, Hold, Identify, ListKeys, Note, VerifyCurrent, Wait
from rotation.journal import Why
from rotation.model import Verdict
from rotation.situation import Situation


def note(s: Situation) -> Iterator[Decision]:
    """Write down since when the current key is current, and since when the others are not."""
    journal = s.seen.primary.journal
    noted: dict[str, str] = {}
    minted = any(attempt.of is None for attempt in s.attempts_of(s.current_key or ""))
    if minted and s.issuer.registry and s.evidence.listed is None and s.key_id(s.current_key or "") is None:
        yield ListKeys(reason="the current key's id was not recorded")
    if s.current and (token := s.current.token) and (token in journal.attempts) and (key := s.current_key):
        if token not in journal.promoted:
            noted |= facts.promoted(token, s.now)
        if key not in journal.key_ids and (key_id := s.key_id(key)):
            noted |= facts.key_fact(key, key_id)
        if key not in journal.expires and (ends := s.evidence.expires.get(key)):
            noted |= facts.expires(key, ends)
    if again := [key for key in journal.superseded if any(role.endswith(":current") for role in s.roles.get(key, ()))]:
        which = tuple(f"superseded.{key}" for key in again)
        yield Forget(key="", proof="void", facts=which, reason="a store hands it out again")
    if s.current_id in s.evidence.unparsed and (maybe := [key for key in journal.superseded if key in s.retiring]):
        which = tuple(f"superseded.{key}" for key in maybe if key not in journal.condemned)
        if which:
            yield Forget(key="", proof="void", facts=which, reason="what is handed out may be it, in another form")
    # What is in another form could not be compared: it may be one of our keys, which drains from when that is replaced.
    compared = s.current_id in s.evidence.identified and s.current_id not in s.evidence.unparsed
    if not s.lagging and (s.explained or compared):
        for key in s.keys:
            if key == s.current_key or s.returns(key):
                continue
            if (since := s.promoted_at(key)) and not s.superseded_at(key):
                # Never before it was current, by a clock that was ahead then: that would not count, for ever.
                noted |= facts.superseded(key, max(s.now + s.behind, since, journal.adopted_at.get(key, since)))
    if noted:
        yield Note(facts=noted, reason="note what was promoted")


def recovered(s: Situation) -> Iterator[Decision]:
    """A rotation that succeeded ends the wait after those that failed."""
    journal = s.seen.primary.journal
    if journal.backoff and s.current and s.current.token:
        at, made = journal.promoted.get(s.current.token), journal.attempts.get(s.current.token)
        if at and at >= journal.backoff.at and made and made.why is not Why.REWRITE:
            yield Forget(key="", proof="void", facts=("backoff",), reason="a later rotation succeeded")


def explain(s: Situation) -> Iterator[Decision]:
    """A current value that no attempt made: somebody's own, or a delayed write. Dead ones are replaced at once."""
    if s.explained or s.current is None:
        return
    journal = s.seen.primary.journal
    if s.current_key not in (*journal.attempts, *journal.promoted) and s.current.id not in s.evidence.identified:
        yield Identify(version=s.current, reason="nothing tells where current comes from; is it one of our keys?")
        return
    if s.issuer.registry:
        yield from try_current(s, "current is not what any rotation made; does it work?")
        streak = s.evidence.current.get(s.current.id)
        if s.found_dead and s.current.token is None:
            yield Adopt(version=s.current, dead=True, reason="put there by hand, and refused: it is to be replaced")
        if streak is None or not streak.verdict.live:
            return
    if s.current.token is None:
        yield Adopt(version=s.current, reason="put there by hand; managed like any other from now on")
    elif s.current.token not in journal.promoted:
        written = facts.promoted(s.current.token, s.now)
        yield Note(facts=written, reason="current came back by a delayed write, and works")


def try_current(s: Situation, reason: str) -> Iterator[Decision]:
    """Ask until it is clear whether the current value works; see Situation.current_works."""
    assert s.current is not None, "there is a current value to try"
    streak = s.evidence.current.get(s.current.id)
    look = VerifyCurrent(version=s.current, reason=reason)
    if streak is None:
        yield look
    elif streak.verdict is Verdict.UNKNOWN:
        yield Hold(cause=Cause.UNVERIFIED, reason=f"the current credential can not be verified: {streak.reason}")
    elif streak.verdict is Verdict.INVALID and not s.found_dead:
        if s.now < streak.at + s.issuer.revoke.interval:
            yield Wait(until=streak.at + s.issuer.revoke.interval, soon=True, reason="current is refused")
        else:
            yield look
