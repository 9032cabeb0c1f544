"""What is staged comes to promotion, or goes away: stage in replicas, verify, promote."""

from __future__ import annotations

from collections.abc import Iterator

from rotation import journal as facts
from rotation.actions import (
    Cause,
    Compare,
    Condemn,
    Copy,
    Decision,
    Discard,
    Hold,
    Note,
    Promote,
    Reached,
    Smoke,
    Verify,
    Wait,
)
from rotation.journal import Attempt, Why
from rotation.model import Entry, Model, Verdict, Version
from rotation.rules.mirroring import behind
from rotation.rules.waiting import await_service, backoff
from rotation.situation import ATTEMPT_LIFE, CALL_LIMIT, Absent, Situation, Stop


def pending(s: Situation) -> Iterator[Decision]:
    """Bring what is staged to promotion, or take it away."""
    version = s.pending
    if version is None:
        return
    primary = s.policy.store
    attempt = s.seen.primary.journal.attempts.get(version.token or "")
    if attempt is None:
        yield Discard(store=primary, version=version, reason="staged by nothing that the journal knows")
        return
    if s.void(attempt):
        yield Discard(store=primary, version=version, reason="superseded: current has left the version it started from")
        return
    if attempt.token in s.seen.primary.journal.promoted:
        yield Discard(store=primary, version=version, reason="was current before, and somebody has gone back")
        return
    if s.seen.unfenced and s.expired(attempt):
        off, done = s.seen.primary.journal.backoff, s.promoted_at(s.current_key or "")
        failed = not s.rewrites(attempt) and (done is None or done < attempt.at)
        if failed and (off is None or off.at < attempt.at):
            yield Note(facts=backoff(s, "not-in-time"), reason="not promoted in time: the next try waits")
            return
        # Without compare-and-set its life is what bounds its writes, so nobody may take it up again.
        yield Discard(store=primary, version=version, reason="older than an attempt may live in a store of this kind")
        return
    if (s.going_back and attempt.key != s.order.back_to) or s.order.submitted:
        yield Discard(store=primary, version=version, reason="a person has decided otherwise")
        return
    if attempt.key in s.seen.primary.journal.condemned and not s.rewrites(attempt):
        yield Discard(store=primary, version=version, reason="its key is condemned")
        return
    if not s.readable(version) and not s.rewrites(attempt):
        yield Discard(store=primary, version=version, reason="staged in a form that is not declared any more")
        return
    if s.left_to_service(attempt):
        yield await_service(s, attempt.at + ATTEMPT_LIFE, "the store's service is at work on its rotation")
        return
    if s.order.token and s.order.stop is Stop.STAGED:
        yield Reached(reason="staged")
        return
    if not _alone(s, attempt, version):
        yield from _stage_in_replicas(s, version)
    yield from _verify(s, attempt, version)


def _alone(s: Situation, attempt: Attempt, version: Version) -> bool:
    """Whether a version is for the primary only: what is stored anew in a form that is not declared any more."""
    return s.rewrites(attempt) and not s.readable(version)


def _stage_in_replicas(s: Situation, version: Version) -> Iterator[Decision]:
    """The same value in every store before any of them hands it out."""
    for store, entry in s.seen.replicas.items():
        if isinstance(entry, Absent) or store not in s.policy.replicas:
            continue
        if behind(s, store, entry):
            continue  # first what is current: it has one place for what is staged
        if entry.pending is None or entry.pending.token != version.token:
            yield Copy(store=store, version=version, reason=f"stage the same value in {store}")
        elif (store, version.token) not in s.evidence.matched:
            yield Compare(store=store, version=version, copy=entry.pending, reason=f"read back from {store}")


def _verify(s: Situation, attempt: Attempt, version: Version) -> Iterator[Decision]:
    streak = s.evidence.checks.get(attempt.token)
    if s.rewrites(attempt):
        if streak is None:
            same = "it must be what is current already"
            yield Verify(attempt=attempt, pending=version, against=s.current, reason=same)
        elif streak.verdict.live:
            yield from _promote(s, attempt, version)
        else:
            yield Discard(store=s.policy.store, version=version, reason="differs from what is current")
        return
    if (
        s.issuer.model is Model.SLOTS
        and not s.urgent
        and s.sure < (until := (version.created_at or attempt.at) + CALL_LIMIT)
    ):
        told = "its mint may have gone out twice, and the second one destroys what the first one made"
        yield Wait(until=until, soon=True, reason=told)
        return
    need = s.issuer.create
    verify = Verify(attempt=attempt, pending=version, reason="the new credential must work, shown alone")
    if streak is None:
        yield verify
    elif streak.verdict is Verdict.UNKNOWN:
        yield Hold(cause=Cause.UNVERIFIED, reason=f"the new credential can not be verified: {streak.reason}")
    elif streak.verdict.live and streak.count >= need.in_a_row:
        yield from _promote(s, attempt, version)
    elif s.now < streak.at + (pause := s.pause(need, since=attempt.at, leaked=s.emergency)):
        told = "accepted" if streak.verdict.live else "not accepted yet"
        yield Wait(
            until=streak.at + pause,
            soon=True,
            reason=f"the new credential is {told}, {streak.count} of {need.in_a_row} in a row",
        )
    elif streak.verdict.live or streak.at < attempt.at + need.timeout or streak.count < max(2, need.in_a_row):
        yield verify
    else:
        yield _poisoned(s, attempt, f"never verified: {streak.reason}")


def _poisoned(s: Situation, attempt: Attempt, reason: str) -> Condemn:
    written = facts.condemned(attempt.key, s.now, Why.NEVER_VERIFIED) | backoff(s, "never-verified")
    if key_id := s.key_id(attempt.key):
        written |= facts.key_fact(attempt.key, key_id)
    return Condemn(key=attempt.key, why=Why.NEVER_VERIFIED, facts=written, reason=reason)


def _promote(s: Situation, attempt: Attempt, version: Version) -> Iterator[Decision]:
    if s.policy.smoke_test and s.issuer.smokes and not s.rewrites(attempt) and not s.urgent:
        smoked = s.evidence.smoked.get(attempt.token)
        if smoked is None:
            yield Smoke(attempt=attempt, pending=version, reason="one minimal real request with the new credential")
            return
        if smoked.verdict is Verdict.INVALID:
            yield _poisoned(s, attempt, f"the smoke test failed: {smoked.reason}")
            return
        if not smoked.verdict.live:
            yield Hold(cause=Cause.UNVERIFIED, reason=f"the smoke test of the new credential failed: {smoked.reason}")
            return
    waiting = [r.store for r in s.unreachable] + [
        store
        for store, entry in s.seen.replicas.items()
        if store in s.policy.replicas
        and isinstance(entry, Entry)
        and (
            entry.pending is None
            or entry.pending.token != version.token
            or (store, version.token) not in s.evidence.matched
        )
    ]
    if waiting and not s.urgent and not _alone(s, attempt, version):
        yield Hold(cause=Cause.STORE, reason=f"verified; promotion waits for {', '.join(waiting)}")
        return
    if s.order.token and s.order.stop is Stop.VERIFIED:
        yield Reached(reason="verified, and staged in every store")
        return
    yield Promote(store=s.policy.store, version=version, expected=attempt.base, reason="verified, and nothing moved")
