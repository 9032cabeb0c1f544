"""The heart: from what was seen to the one next effect. Pure, and the only place with an opinion.

    observation ──► decide ──► Action: the engine carries it out, looks again, asks again
    (stores, issuer)      └──► Rest:   nothing to do now; until when, and why

Rules are generators over a Situation, in order. The first Action any of them yields is the answer;
Rests are collected, and the most pressing one is the answer when no rule has an Action. The plan,
the dry run, resuming after a crash, and an emergency are all this function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from rotation import journal as facts
from rotation.journal import Attempt, Why
from rotation.model import Capabilities, Ending, Entry, Model, Verdict, Version
from rotation.situation import ATTEMPT_LIFE, EMERGENCY_CLAIM, Absent, Evidence, Observation, Order, Situation, Stop

# --- what can be decided -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One effect. `reason` is for people: it stands in the plan and in the audit trail."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Intend(Action):
    """Write down that a new version is about to be made, before anything is done for it."""

    why: Why
    base: str | None
    of: str | None = None
    slot: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mint(Action):
    """Create a key at the issuer and stage it, in one breath: its value lives only in memory."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Restage(Action):
    """Stage the value of a key that a store holds already, under a new attempt."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Action):
    """Stage the primary's version in a replica."""

    store: str
    version: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare(Action):
    """Read a replica's staged copy back and hold it against the primary's value."""

    store: str
    version: Version
    copy: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify(Action):
    """Read the pending value back and show it to the issuer, alone."""

    attempt: Attempt
    pending: Version
    against: Version | None = None
    """Set where the value is current already: it must be the same, and the issuer has nothing to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoke(Action):
    """Send one minimal real request with the new credential."""

    attempt: Attempt
    pending: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Identify(Action):
    """Hold a current value that carries no token against the values of our own keys."""

    version: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class TellApart(Action):
    """Hold the value of a key that is to go against every current value whose key is not known."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt(Action):
    """Give a current value that somebody else put there a token of its own, so that replicas can follow it."""

    version: Version
    dead: bool = False
    """The issuer refuses it: condemned at once, and replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyCurrent(Action):
    """Show a current value that the journal does not explain to the issuer."""

    version: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Look(Action):
    """Look again before anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote(Action):
    """Make a staged version current, provided that `expected` still is."""

    store: str
    version: Version
    expected: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Discard(Action):
    """Take a version out of the role of pending."""

    store: str
    version: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Note(Action):
    """Write observed facts into the journal."""

    facts: dict[str, str] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condemn(Action):
    """Mark a key as one that is to die. Final; revoking needs another look afterwards."""

    key: str
    why: Why
    facts: dict[str, str] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListKeys(Action):
    """Ask the issuer for its list, to find a key whose mint was not answered or recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskLastUse(Action):
    """Ask the issuer when a draining key was last used."""

    key: str
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke(Action):
    """Invalidate a key at the issuer."""

    key: str
    key_id: str
    contained: bool = False
    """True: stores still hand it out; a declared outage in an emergency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prove(Action):
    """Show the revoked credential to the issuer and expect a refusal."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget(Action):
    """Remove what the journal knows of a key that is proven dead, or was never minted."""

    key: str
    proof: str
    """How it is known: `refused`, `absent` from the issuer's list, `unenforced`, `never-minted`, `unheld`, `void`,
    `foreign`: not ours to judge."""
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(Action):
    """Have the store's own service start the rotation, which comes back to us in steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Nothing to do now."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait(Rest):
    """Time will tell. A later sweep goes on; a patient run may stay."""

    until: datetime
    soon: bool = False
    """A change is on its way: seconds, and worth staying for."""
    look: bool = False
    """The change is one in a store: look again after the wait."""


class Cause(StrEnum):
    """What has to change before a hold ends; for whoever counts holds. The reason says it to people."""

    PERSON = "person"
    """A person is to create or revoke a credential by hand."""
    UNVERIFIED = "unverified"
    """The issuer does not say that a credential works."""
    STORE = "store"
    """A store can not be asked, or was changed outside Keyturn."""
    IN_USE = "in-use"
    """An old credential is used on and on, or nobody can tell."""
    LIMIT = "limit"
    """The issuer is full."""
    UNPROVEN = "unproven"
    """A revoked credential is not refused."""
    FAILED = "failed"
    """A call was refused."""
    SCHEDULE = "schedule"
    """A blackout, or a window that stays shut, lasts longer than the age that is allowed."""
    IMPOSSIBLE = "impossible"
    """What was asked for can not be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold(Rest):
    """Only a change outside can help, so people are told."""

    cause: Cause
    unproven: bool = False
    """A credential that should be dead is alive or not shown dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Rest):
    """All is as declared."""

    due_at: datetime | None
    due_why: str = ""
    """Why it is due then, where that is not its age."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached(Rest):
    """A step of the service's rotation is done: as far as it was to go."""


Decision = Action | Rest
Rule = Callable[[Situation], Iterator[Decision]]


def decide(seen: Observation, issuer: Capabilities, evidence: Evidence, order: Order, now: datetime) -> Decision:
    """The next effect for one secret, or why there is none.

    Parameters:
        seen: one look at every store, replicas first.
        issuer: what the secret's issuer can do.
        evidence: what this run has asked so far; empty for a new one.
        order: what was asked for beyond what is due.
        now: aware, UTC.
    """
    situation = Situation(seen, evidence, issuer, order, now)
    rests: list[Rest] = []
    for rule in DESTROY if order.destroy else STEP if order.token else RULES:
        for decision in rule(situation):
            if isinstance(decision, Reached):
                return decision
            if isinstance(decision, Rest):
                rests.append(decision)
            elif (error := evidence.failed.get(signature(decision))) is None:
                return decision
            else:
                rests.append(Hold(cause=Cause.FAILED, reason=error))  # what does not depend on it goes on
    why = situation.due.reason if situation.due else ""
    return most_pressing(rests) or Done(reason="nothing is due", due_at=situation.due_at, due_why=why)


def signature(action: Action) -> str:
    """Tells apart what was tried in one run: the same action on the same key and store."""
    about = (getattr(action, name, None) for name in ("key", "store", "attempt", "version"))
    named = (
        part.token if isinstance(part, Attempt) else part.id if isinstance(part, Version) else part for part in about
    )
    return " ".join([type(action).__name__, *(str(part) for part in named if part)])


def most_pressing(rests: list[Rest]) -> Rest | None:
    """What is worth staying for, then a credential that is not shown dead, then any hold, then the earliest wait."""

    def rank(rest: Rest) -> tuple[int, float]:
        match rest:
            case Wait(soon=True):
                return 0, rest.until.timestamp()
            case Hold():
                return (1 if rest.unproven else 2), 0
            case Wait():
                return 3, rest.until.timestamp()
        return 4, 0

    return min(rests, key=rank, default=None)


BACKOFF_FIRST: Final = timedelta(minutes=5)
BACKOFF_MOST: Final = timedelta(hours=6)
BACKOFF_URGENT: Final = timedelta(minutes=30)
"""At most, while a dead credential is handed out."""


SHOWN_WITHIN: Final = timedelta(seconds=30)
"""For so long a value that was staged may not show in a look: stores are eventually consistent."""
A_MOMENT: Final = timedelta(seconds=2)
WITHIN_DAYS: Final = timedelta(days=1)
WITHIN_HOURS: Final = timedelta(hours=1)
"""How late a store's own service may rotate: within the day that is due, or the hour where the interval is in hours
(Secrets Manager, RotationRulesType, Duration)."""
FULL: Final = timedelta(hours=1)
"""When to look again whether an old credential is gone."""


def backoff(s: Situation, error: str) -> dict[str, str]:
    """The fact that a rotation failed once more: 5 min, doubling, at most 6 h."""
    before = s.seen.primary.journal.backoff
    failures = before.failures + 1 if before else 1
    delay = min(BACKOFF_FIRST * 2 ** min(failures - 1, 10), BACKOFF_MOST)
    return facts.Backoff(failures, s.now, s.now + delay, error).written()


# --- rules, first hit wins -----------------------------------------------------------------------


def contain(s: Situation) -> Iterator[Decision]:
    """In an emergency whose time is up, revoke the leaked key although stores still hand it out."""
    journal = s.seen.primary.journal
    for key, at in journal.contain.items():
        if at > s.now or key in journal.revoked or key not in journal.condemned:
            continue
        if key not in s.roles and not s.order.destroy and not s.lagging and not _alive_attempts(s, key):
            continue  # retired like any other
        if _elsewhere(s, key) is not None:
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
            yield from _find_or(s, key, condemn=False)
            continue
        if _same_as_current(s, key):
            continue  # another name of what is handed out, and that one is not condemned
        where = ", ".join(sorted(s.roles.get(key, ["no store"])))
        told = "the entry is being deleted" if s.order.destroy else f"contained while still handed out by {where}"
        yield Revoke(key=key, key_id=key_id, contained=True, reason=told)


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
        off = s.seen.primary.journal.backoff
        if not s.rewrites(attempt) and (off is None or off.at < attempt.at):
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
        yield _await_service(s, attempt.at + ATTEMPT_LIFE, "the store's service is at work on its rotation")
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
        if _behind(s, store, entry):
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
    need = s.issuer.create
    verify = Verify(attempt=attempt, pending=version, reason="the new credential must work, shown alone")
    if streak is None:
        yield verify
    elif streak.verdict is Verdict.UNKNOWN:
        yield Hold(cause=Cause.UNVERIFIED, reason=f"the new credential can not be verified: {streak.reason}")
    elif streak.verdict.live and streak.count >= need.in_a_row:
        yield from _promote(s, attempt, version)
    elif s.now < streak.at + need.interval:
        told = "accepted" if streak.verdict.live else "not accepted yet"
        yield Wait(
            until=streak.at + need.interval,
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
    if not s.lagging and (s.explained or s.current_id in s.evidence.identified):
        for key in s.keys:
            if key != s.current_key and s.promoted_at(key) and not s.superseded_at(key):
                noted |= facts.superseded(key, s.now)
    if noted:
        yield Note(facts=noted, reason="note what was promoted")
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
        yield from _try_current(s, "current is not what any rotation made; does it work?")
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


def _try_current(s: Situation, reason: str) -> Iterator[Decision]:
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


def mirror(s: Situation) -> Iterator[Decision]:
    """Bring every replica to what the primary hands out."""
    current = s.current
    in_flight = s.pending.token if s.pending else None
    for store, entry in s.seen.replicas.items():
        if store not in s.policy.replicas:  # on its way out: never written, and retirement waits until it is released
            if store in s.lagging and isinstance(entry, Entry):
                told = (
                    f"{store} hands out an old credential, which lives until it is released there; an apply does that"
                )
                yield Hold(cause=Cause.STORE, reason=told)
            continue
        if isinstance(entry, Absent):
            if store in s.policy.replicas:
                missing = "has no such entry" if entry.missing else f"can not be reached: {entry.reason}"
                yield Hold(cause=Cause.STORE, reason=f"{store} {missing}")
            continue
        copy = entry.pending
        if copy and copy.token not in (in_flight, current.token if current else None):
            yield Discard(store=store, version=copy, reason=f"left behind in {store}")
        if current is None or (entry.current and entry.current.token == current.token):
            continue
        if current.token is None:
            yield Hold(
                cause=Cause.STORE, reason=f"{store} differs: the entry in {s.policy.store} was changed outside Keyturn"
            )
            continue
        if not _behind(s, store, entry):
            continue  # what replaces it goes to the replicas
        if entry.current and _unknown(s, entry.current):
            yield from _before_overwriting(s, entry.current)
            continue
        by_hand = entry.current is not None and entry.current.token is None
        if by_hand and (first := next(_restart_drains(s, store), None)) is not None:
            yield first
            continue
        if copy is None or copy.token != current.token:
            yield Copy(store=store, version=current, reason=f"{store} lags behind")
        elif (store, current.token) not in s.evidence.matched:
            yield Compare(store=store, version=current, copy=copy, reason=f"read back from {store}")
        elif entry.current and s.issuer.registry and not _seen_to_work(s, current) and not _doomed_there(s, entry):
            yield from _try_current(s, f"{store} may hand out what works; does what is to replace it?")
        else:
            expected = entry.current.id if entry.current else None
            yield Promote(store=store, version=copy, expected=expected, reason=f"mirror to {store}")


def _doomed_there(s: Situation, entry: Entry) -> bool:
    """Whether a replica hands out a key that is to die, so that what was verified before its promotion can only help."""
    key, journal = s.key_of(entry.current), s.seen.primary.journal
    verified = s.current is not None and s.current.token in journal.attempts
    return verified and (key in journal.revoked or (key in journal.condemned and key in journal.contain))


def _seen_to_work(s: Situation, current: Version) -> bool:
    """Whether this run has seen that the current value works, after or before it was promoted."""
    checked = s.evidence.checks.get(current.token or "")
    return bool(s.current_works) or (checked is not None and checked.verdict.live)


def _behind(s: Situation, store: str, entry: Entry) -> bool:
    """Whether a replica is to be brought to what the primary hands out: that must be known to work."""
    current = s.current
    return (
        store in s.policy.replicas
        and current is not None
        and current.token is not None
        and (entry.current is None or entry.current.token != current.token)
        and s.current_key not in s.seen.primary.journal.revoked
        and s.readable(current)
        and not s.found_dead
        # Where it can not be copied, what replaces it still can.
        and signature(Copy(store=store, version=current, reason="")) not in s.evidence.failed
        and bool(s.explained or s.current_works or not s.issuer.registry)
    )


def _unknown(s: Situation, version: Version) -> bool:
    """Whether a replica's version is ours, and the journal knows nothing of it: it was restored from a backup."""
    journal = s.seen.primary.journal
    known = (*journal.attempts, *journal.promoted, *journal.adopted)
    return version.token is not None and version.token not in known


def _restart_drains(s: Situation, store: str) -> Iterator[TellApart | Forget]:
    """What a person put into a replica may be the value of a key that drains: then it begins to drain afterwards."""
    for key in s.retiring:
        fact = f"superseded.{key}"
        if fact not in s.seen.primary.journal.facts or not s.issuer.registry:
            continue
        if key in s.evidence.alike:
            yield Forget(key="", proof="void", facts=(fact,), reason=f"{store} may hand it out again")
        elif key not in s.evidence.apart:
            yield TellApart(key=key, reason=f"is it the value that was put into {store} by hand?")


def _before_overwriting(s: Situation, version: Version) -> Iterator[Decision]:
    """It may work where the primary's does not. Once that one does, the other drains like what was current."""
    if s.issuer.registry and not s.current_works:
        yield from _try_current(s, "a replica hands out what the journal does not know; does the primary's work?")
        return
    noted = facts.promoted(version.token or "", s.now)
    if version.key_id:
        noted |= facts.key_fact(version.token or "", version.key_id)
    yield Note(facts=noted, reason="handed out by a replica, and not in the journal")


def replace_condemned(s: Situation) -> Iterator[Decision]:
    """A condemned or dead current credential is replaced before anything older is cleaned up."""
    if s.urgent or s.current is None:
        yield from begin(s)


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
    if (elsewhere := _elsewhere(s, key)) is not None:
        yield elsewhere
        return
    if key in journal.revoked:
        yield from _prove(s, key)
        return
    if key in s.roles or s.evidence.unspent & {a.token for a in s.attempts_of(key)}:
        return
    if key in journal.foreign and key not in journal.contain and (since := s.superseded_at(key)):
        if s.cramped or s.sure >= since + s.policy.grace:
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
        yield from _revoke(s, key)
        return
    if s.promoted_at(key) is None:
        yield from _never_promoted(s, key)
        return
    if s.lagging:
        return
    if (since := s.superseded_at(key)) is None:
        return
    if s.issuer.model is Model.REPLACE:
        yield Note(facts=facts.revoked(key, s.now), reason="creating its successor has destroyed it")
        return
    if (rest := _draining(s, key, since)) is not None:
        yield rest
        return
    for unclear in _may_be_current(s, key):
        yield unclear
        return
    why = Why.RETIRED
    yield Condemn(key=key, why=why, facts=facts.condemned(key, s.now, why), reason="superseded, grace over, quiet")


def _never_promoted(s: Situation, key: str) -> Iterator[Decision]:
    """An attempt in no role: superseded, crashed, or with its answer lost."""
    for attempt in s.attempts_of(key):
        if s.now < attempt.at + SHOWN_WITHIN and not s.void(attempt):
            yield Wait(until=s.now + A_MOMENT, soon=True, look=True, reason="made a moment ago; it does not show yet")
            return
        # Its run may be between intent and stage. Void or not, it may still mint until it expires.
        if not s.expired(attempt) and s.key_id(key) is None and not s.order.take_over:
            yield Wait(until=attempt.at + ATTEMPT_LIFE, reason="another run's attempt may still be at work")
            return
    yield from _find_or(s, key, condemn=True)


def _find_or(s: Situation, key: str, *, condemn: bool) -> Iterator[Decision]:
    """Find out a key's id; a key that was never minted is forgotten once no mint can come any more."""
    attempts = s.attempts_of(key)
    journal = s.seen.primary.journal
    if not attempts and s.key_id(key) is None and (key in journal.adopted or s.promoted_at(key)):
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
    latest = max(since, default=s.now - ATTEMPT_LIFE) + ATTEMPT_LIFE
    if s.evidence.listed is None or (s.evidence.listed_at and s.evidence.listed_at < latest <= s.now):
        yield ListKeys(reason="a mint was intended, and its outcome is not recorded")
    elif s.now < latest:
        yield Wait(until=latest, reason="a mint was intended; it is not in the issuer's list yet")
    else:
        known = journal.about(key)
        yield Forget(key=key, proof="never-minted", facts=known, reason="not in the issuer's list")


def _draining(s: Situation, key: str, since: datetime) -> Rest | AskLastUse | ListKeys | None:
    """None once a superseded credential may go; otherwise what it waits for. Never verifies it: that were a use."""
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
        return Hold(
            cause=Cause.IN_USE, reason="the old credential's id is not known, so nobody can tell whether it is in use"
        )
    use = s.evidence.last_use.get(key)
    if use is None:
        return AskLastUse(key=key, key_id=key_id, reason="is the old credential quiet?")
    if use.known and (use.at is None or use.at + use.granularity + drain.quiet_for <= s.sure):
        return None
    end = since + drain.at_most
    if s.sure < end:
        quiet_at = use.at + use.granularity + drain.quiet_for if use.known and use.at else s.sure + drain.quiet_for
        told = "was used recently" if use.known else "has no known last use"
        return Wait(until=min(quiet_at, end), reason=f"the old credential {told}")
    if drain.then is Ending.HOLD:
        return Hold(cause=Cause.IN_USE, reason="the old credential is still in use after the longest drain")
    return None


def _may_be_current(s: Situation, key: str) -> Iterator[TellApart | Hold]:
    """A person's value is current, and for all that is known it is this key's."""
    held = s.seen.primary.journal.condemned.get(key)
    # One of our own that was never current was seen by nobody; an orphan may have been, in a life that is forgotten.
    never_seen = s.promoted_at(key) is None and (held is None or held.why is not Why.ORPHAN)
    if not s.current_unnamed or not s.issuer.registry or never_seen or key in s.seen.primary.journal.contain:
        return
    if key in s.evidence.apart or key in s.seen.primary.journal.foreign:
        return
    if key in s.evidence.alike:
        told = "a store hands out a value by hand that may be this key's; the next rotation tells"
        yield Hold(cause=Cause.STORE, reason=told)
    else:
        yield TellApart(key=key, reason="is it the value that was put there by hand?")


def _elsewhere(s: Situation, key: str) -> Hold | Forget | None:
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


def _revoke(s: Situation, key: str) -> Iterator[Decision]:
    """The one path that revokes: condemned, looked again, in no role, and nothing can promote it any more."""
    for unclear in _may_be_current(s, key):
        yield unclear
        return
    if _same_as_current(s, key):
        about = s.seen.primary.journal.about(key)
        yield Forget(key=key, proof="void", facts=about, reason="another name of the current key")
        return
    if s.seen.primary.journal.condemned[key].why in (Why.ORPHAN, Why.LOST) and _in_doubt(s):
        # Nothing is known of how it came about: a vault that was restored from a backup looks the same.
        yield from _try_current(s, "before the last key besides it goes: does the current one work?")
        return
    if _alive_attempts(s, key):
        yield from _make_void(s, key)
        return
    orphan = s.seen.primary.journal.condemned[key].why is Why.ORPHAN
    if s.lagging and (s.promoted_at(key) or orphan):  # of our own, replicas get only what the primary has promoted
        yield Hold(
            cause=Cause.STORE, reason=f"a condemned key lives until {', '.join(s.lagging)} agrees with {s.policy.store}"
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
        yield from _find_or(s, key, condemn=False)
        return
    if not s.issuer.revokes:
        yield from _revoked_by_hand(s, key)
        return
    yield Revoke(key=key, key_id=key_id, reason=s.seen.primary.journal.condemned[key].why.value)


def _in_doubt(s: Situation) -> bool:
    """Whether there is a current credential that should work, and was not seen to in this run."""
    asks = s.current is not None and s.issuer.registry and s.readable(s.current)
    return asks and not s.urgent and not s.current_works


def _alive_attempts(s: Situation, key: str) -> list[Attempt]:
    """Attempts by which a paused run might still make the key current."""
    alive = [a for a in s.attempts_of(key) if not s.void(a)]
    if s.current is None and s.crowded:
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
    if s.issuer.model is Model.REPLACE:
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
            reason="revoke the old credential by hand; nobody holds it to show it dead",
            unproven=True,
        )
    elif streak is None:
        yield Prove(key=key, reason="has it been revoked by hand?")
    elif streak.verdict is Verdict.INVALID:
        yield Note(facts=facts.revoked(key, s.now), reason="revoked by hand")
    else:
        which = s.key_id(key) or f"that was put there on {s.promoted_at(key) or s.now:%Y-%m-%d}"
        told = f"revoke the old credential {which} by hand at {s.policy.issuer}"
        yield Hold(cause=Cause.PERSON, reason=told, unproven=True)


def _make_void(s: Situation, key: str) -> Iterator[Decision]:
    """A key that a paused run might still promote dies only after current has left that run's base."""
    if s.pending is not None or s.current is None:
        return  # the promotion that is under way or due makes the old attempt void
    due = s.due_now and key not in s.seen.primary.journal.contain
    if (due or s.urgent) and not s.crowded:
        return  # the rotation that is due does it
    if s.at_work:
        yield Wait(until=s.at_work.at + ATTEMPT_LIFE, reason="another run's attempt may still be at work")
        return
    if (unspent := _unspent(s)) is not None:
        yield unspent
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


def _prove(s: Situation, key: str) -> Iterator[Decision]:
    """A revoke on paper is followed by refusals; until then the state is revoked, unproven."""
    need = s.issuer.revoke
    revoked = s.seen.primary.journal.revoked[key]
    if key in s.seen.primary.journal.proven:
        yield from _proven(s, key, "refused", "shown dead before")
        return
    if key in s.evidence.unreadable and s.issuer.model is not Model.MINT:
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
    elif s.now < streak.at + need.interval:
        told = "refused" if streak.verdict is Verdict.INVALID else "still accepted"
        yield Wait(until=streak.at + need.interval, soon=True, reason=f"the old credential is {told}")
    elif streak.verdict is Verdict.INVALID or s.now < revoked + need.timeout:
        yield prove
    else:
        yield from _still_alive(s, key, revoked, "still accepted")


def _proven(s: Situation, key: str, proof: str, reason: str) -> Iterator[Decision]:
    """Dead. The journal keeps a contained key condemned until no store hands it out any more."""
    held = s.seen.primary.journal.condemned.get(key)
    if held and held.why in (Why.ORPHAN, Why.LOST) and s.current and s.issuer.registry and not s.urgent:
        # Nothing told what it was for. Had it been the current one under another name, then that is dead now.
        tried, revoked = s.evidence.current.get(s.current.id), s.seen.primary.journal.revoked.get(key, s.now)
        after = revoked + timedelta(seconds=1)  # the journal has whole seconds
        if s.now < after:
            yield Wait(until=after, soon=True, reason="dead; does the current one still work?")
            return
        if tried is None or tried.at < after:
            yield VerifyCurrent(version=s.current, reason="does the current one still work?")
            return
        if not s.current_works:
            yield from _try_current(s, "does the current one still work?")
            return
    if key not in s.roles and (until := s.last_write(key)) and s.now < until:
        yield Wait(until=until, reason="dead; a delayed write may still bring it back")
    elif key not in s.roles:
        yield Forget(key=key, proof=proof, facts=s.seen.primary.journal.about(key), reason=reason)
    elif key not in s.seen.primary.journal.proven:
        yield Note(facts=facts.proven(key, s.now, proof), reason=reason)


def _still_alive(s: Situation, key: str, revoked: datetime, how: str) -> Iterator[Decision]:
    if s.now < revoked + s.issuer.revoke.timeout:
        yield Wait(until=s.now + s.issuer.revoke.interval, soon=True, reason=f"the revoked key is {how}")
    elif (key_id := s.key_id(key)) is not None:
        yield Revoke(key=key, key_id=key_id, reason=f"revoked before, and {how}")


def begin(s: Situation) -> Iterator[Decision]:
    """Start the attempt that is due, asked for, or needed because the current credential is to die."""
    if s.pending is not None:
        return
    if (unspent := _unspent(s)) is not None:
        yield unspent
        return
    why = _why(s)
    if why is None:
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
    journal = s.seen.primary.journal
    off = journal.backoff
    # A back-off may have been earned while the current credential still worked.
    until = (min(off.until, off.at + BACKOFF_URGENT) if s.urgent else off.until) if off else s.now
    if off and until > s.now and not s.emergency and why not in (Why.ASKED, Why.ROLLBACK):
        yield Wait(until=until, reason=f"backing off after {off.failures} failed in a row ({off.error})")
    elif why is Why.DUE and s.order.token is None and not s.due_now:
        yield _closed(s)
    elif why in (Why.DUE, Why.ASKED) and s.seen.pair_free_at and s.seen.pair_free_at > s.now:
        waits = f"its pair {s.policy.paired_with} has its own window first"
        yield _told_once_late(s, Wait(until=s.seen.pair_free_at, reason=waits))
    elif s.evidence.started:
        yield _await_service(s, s.now + ATTEMPT_LIFE, "the store's service was told to rotate")
    elif s.at_work:
        yield Wait(until=s.at_work.at + ATTEMPT_LIFE, reason="another run's attempt may still be at work")
    elif why is Why.ROLLBACK:
        back = s.order.back_to or ""
        if back not in s.keys or back in journal.condemned or back in journal.revoked:
            yield Hold(cause=Cause.IMPOSSIBLE, reason="there is no earlier credential that still lives")
        else:
            yield Intend(why=why, base=s.current_id, of=back, reason=reasons[why])
    elif s.issuer.model is Model.MANUAL and not s.order.submitted:
        made = f"{reasons[why]}: create one at {s.policy.issuer}, then `keyturn submit {s.policy.name}`"
        yield Hold(cause=Cause.PERSON, reason=f"waits for a person, as {made}")
    elif s.no_room:
        if not s.retiring:
            yield Hold(cause=Cause.LIMIT, reason="the issuer holds as many keys of this secret as it allows")
        else:
            full = "the issuer is full" if s.full else "the journal is" if s.cramped else "there are enough of them"
            waits = f"old credentials have to go before another is made: {full}"
            yield _told_once_late(s, Wait(until=s.now + FULL, reason=waits))
    elif s.policy.native and s.order.token is None and why in (Why.DUE, Why.ASKED):
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


def _await_service(s: Situation, until: datetime, reason: str) -> Wait:
    """A person who asked stays and looks; a sweep goes on."""
    stays = s.evidence.started and s.order.replace is not None
    return Wait(until=s.now + A_MOMENT if stays else until, soon=stays, look=stays, reason=reason)


def served(s: Situation) -> Iterator[Decision]:
    """Take the rotation that the service has started as far as this step goes, and no other one.

    Its token is the attempt's, so it can mint once: where the value did not get into the store, the rotation is given
    up by taking its label off, which lets the service begin another under a new token.
    """
    primary, token = s.seen.primary, s.order.token or ""
    attempt = primary.journal.attempts.get(token)
    refusal = _not_served(s, token)
    if s.current and s.current.id == token:
        yield Reached(reason="current already")
    elif refusal:
        yield Hold(cause=Cause.IMPOSSIBLE, reason=refusal)
    elif attempt is None and s.order.stop is Stop.VERIFIED:
        yield Reached(reason="the service tries its settings; there is nothing of ours to verify")
    elif attempt is None and s.order.stop is Stop.PROMOTED:
        yield Hold(cause=Cause.IMPOSSIBLE, reason=f"version {token} is none that a rotation made")
    elif s.pending is not None:
        yield from pending(s)
    elif attempt is None or token in s.evidence.unspent:
        yield from begin(s)
    elif s.now < attempt.at + SHOWN_WITHIN and token not in primary.journal.condemned:
        yield Wait(until=s.now + A_MOMENT, soon=True, look=True, reason="what was staged may not show yet")
    elif not (failed := primary.journal.backoff) or failed.at < attempt.at:
        yield Note(facts=backoff(s, "lost"), reason="the rotation came to nothing")
    else:
        spent = Version(id=token, token=token)
        yield Discard(store=s.policy.store, version=spent, reason="its one mint came to no value that a store holds")


def _not_served(s: Situation, token: str) -> str | None:
    """Why a rotation of the service's is none to work on."""
    primary = s.seen.primary
    if not s.policy.native:
        return "its applied policy leaves rotation to sweeps; take the service's own off it"
    if primary.service is None or not primary.service.enabled:
        return "the service's rotation of it is not enabled"
    if token not in (primary.service.begun, primary.pending.id if primary.pending else None):
        return f"version {token} is not pending; it was given up, or another took its place"
    return None


def _why(s: Situation) -> Why | None:
    if s.current is None:
        return Why.FIRST
    if s.order.token:
        return Why.REPLACE if s.urgent else Why.DUE
    asked = s.order.replace is not None and s.order.replace == s.handed_out
    if s.order.back_to and asked:
        return Why.ROLLBACK
    if s.urgent:
        return Why.REPLACE
    if asked:
        return Why.ASKED
    return Why.DUE if s.is_due else None


def _unspent(s: Situation) -> Mint | Restage | Forget | None:
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


def _stuck(s: Situation) -> Version | None:
    """What the service waits for, where nobody brings it: a rotation that counts as begun keeps others from beginning."""
    service = s.seen.primary.service
    if service is None or service.begun is None or service.begun in s.seen.primary.journal.attempts:
        return None
    idle = service.idle_since is not None and service.idle_since + WITHIN_HOURS <= s.now
    return Version(id=service.begun, token=service.begun) if idle or not s.policy.native else None


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


DESTROY: Final[tuple[Rule, ...]] = (contain, retire)
STEP: Final[tuple[Rule, ...]] = (note, explain, mirror, served)
RULES: Final[tuple[Rule, ...]] = (contain, note, explain, pending, mirror, replace_condemned, retire, begin, tidy)
