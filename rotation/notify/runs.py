"""What became of a run, told to the owner of its secret, and to the consumers that are to read anew: for every host.

    outcome = runs.running(assembly, "sweep", policy, work)     in place of telemetry.running()
    left = runs.flush(assembly)                                 when a host has done its work

Whatever is told is read from what the run did and last saw; nothing is asked of any service for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Final

from rotation import telemetry
from rotation.actions import Cause, Done, Hold, Wait
from rotation.errors import Code, Trouble
from rotation.model import Capabilities, Policy
from rotation.notify.memory import RESOLVED
from rotation.notify.telling import FLUSH, Telling
from rotation.notify.templates import composed
from rotation.policy import show_duration
from rotation.ports import Notice, Severity, Silent
from rotation.situation import Evidence, Order, Situation
from rotation.status import words

if TYPE_CHECKING:
    from rotation.assembly import Assembly
    from rotation.engine import Outcome

_log = logging.getLogger(__name__)

PATIENCE: Final = timedelta(hours=1)
"""A failure that may pass by itself is told when it has held something up for so long."""
USUAL_BEFORE: Final = timedelta(days=3)
UNPROVEN: Final = "unproven"
OVERDUE: Final = "overdue"
"""Causes of a hold that are told beside those of `rotation.decide.Cause`."""


def running(assembly: Assembly, kind: telemetry.Kind, policy: Policy, work: Callable[[], Outcome]) -> Outcome:
    """A run of one secret, told to watchers, to its owner, and to consumers. Telling never fails, and never waits.

    Of an emergency, consumers alone hear of it here: the incident tells owners what it does.
    """
    outcome = telemetry.running(assembly.telemetry, assembly.clock, kind, policy, work)
    told(assembly, policy, outcome, owners=kind != "emergency")
    return outcome


def told(assembly: Assembly, policy: Policy, outcome: Outcome, *, owners: bool = True) -> None:
    """Tells whoever is to be told of a run that has ended. Never raises.

    Parameters:
        policy: as the host knows it; what was seen to be applied counts.
        owners: whether they are among them.
    """
    try:
        read(assembly, outcome)
        if not owners or isinstance(assembly.notifier, Silent):
            return
        now = assembly.clock.now()
        applied = outcome.seen.policy if outcome.seen else policy
        issuer = assembly.issuers.get(applied.issuer)
        owner = assembly.config.owners.get(applied.owner)
        before = owner.notify_before if owner else USUAL_BEFORE
        for notice in notices(policy, outcome, issuer.capabilities if issuer else None, now, before):
            assembly.notifier.tell(notice)
    except Exception as error:  # noqa: BLE001 - nothing about telling may stop the work
        _log.error("%s: what became of it can not be told: %s", policy.name, type(error).__name__)


def flush(assembly: Assembly, seconds: float = FLUSH) -> list[str]:
    """Waits until everything is told, or for so long; gives what could not be told, a sentence each."""
    ends = monotonic() + seconds  # of threads that are waited for, whatever clock the work goes by
    found = assembly.notifier.flush(seconds) if isinstance(assembly.notifier, Telling) else []
    return found + (assembly.readers.flush(ends, monotonic) if assembly.readers is not None else [])


# --- consumers -------------------------------------------------------------------------------------


def read(assembly: Assembly, outcome: Outcome) -> None:
    """Has consumers read a version that every store hands out, where they are declared to be told. Never waits."""
    readers, seen = assembly.readers, outcome.seen
    issuer = assembly.issuers.get(seen.policy.issuer) if seen else None
    if readers is None or seen is None or issuer is None or not readers.of(seen.policy.name):
        return
    from rotation.notify.consumers import Change  # noqa: PLC0415 - for who declares any

    now = assembly.clock.now()
    s = Situation(seen, Evidence(), issuer.capabilities, Order(), now)
    if s.current is None or s.lagging:
        return
    facts = _facts(s)
    for consumer in readers.of(s.policy.name):
        change = Change(
            environment=s.policy.environment,
            secret=s.policy.name,
            consumer=consumer,
            version=s.current.token or s.current.id,
            stores=s.policy.stores,
            at=now,
            key_id=facts["key_id"],
            previous_key_id=facts.get("previous_key_id", ""),
            grace_until=_iso(_grace_until(s)),
        )
        readers.read(change, fresh=_promoted(outcome))


def _promoted(outcome: Outcome) -> bool:
    return any(record.event == "promote.done" for record in outcome.records)


# --- notices: pure ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wrong:
    """What keeps a secret from being as declared."""

    kind: str
    severity: Severity
    subject: str
    """Without the name of the secret; says nothing that changes from one sweep to the next."""
    happened: str
    advice: str
    facts: Mapping[str, str]


def notices(
    policy: Policy,
    outcome: Outcome,
    issuer: Capabilities | None,
    now: datetime,
    before: timedelta = USUAL_BEFORE,
) -> Iterator[Notice]:
    """What an owner may be told of a run that has ended.

    Parameters:
        policy: as the host knows it; what was seen to be applied counts.
        issuer: None where the stack has none of that name any more.
        before: how long before it is due a rotation is announced; not at all with zero.
    """
    if outcome.seen is None or issuer is None:
        wrong = _unseen(outcome)
        if wrong is not None:
            yield _notice(policy, now, wrong, "not known, as it can not be looked at", {})
        return
    s = Situation(outcome.seen, Evidence(), issuer, Order(), now)
    facts = _facts(s)
    if _promoted(outcome) and s.current is not None and not s.lagging:
        yield _done(s, facts)
    wrong = _wrong(s, outcome)
    if wrong is not None:
        yield _notice(s.policy, now, wrong, _state(s, facts), facts, _next(outcome))
        return
    if _settled(s, outcome):
        yield _plain(
            s,
            RESOLVED,
            "works again",
            f"What was wrong with {s.policy.environment}/{s.policy.name} is so no more.",
            _state(s, facts),
            _next(outcome),
            "do nothing.",
            facts,
        )
    due = s.next
    if due is not None and not s.due_now and due.at - before <= now < due.at:
        yield _before(s, facts, due.at)


def _unseen(outcome: Outcome) -> _Wrong | None:
    """A store that does not answer is for those who run it: it would be told to every owner, once for each secret."""
    trouble = outcome.trouble
    if trouble is None or not trouble.code.permanent or trouble.code is Code.NOT_FOUND:
        return None
    facts = {"service": trouble.service, "code": trouble.code.value, "error": str(trouble)}
    subject = f"can not be looked at: {trouble.service}: {trouble.code.value}"
    return _Wrong("rotation.failed", Severity.WARNING, subject, f"{trouble}.", _ADVICE[trouble.code], facts)


def _wrong(s: Situation, outcome: Outcome) -> _Wrong | None:
    """The worst of what is wrong, if anything is."""
    journal, hold, trouble = s.seen.primary.journal, outcome.rest, outcome.trouble
    late = s.next is not None and s.next.overdue <= s.now
    loud = Severity.CRITICAL if late or s.urgent else Severity.WARNING
    held = hold if isinstance(hold, Hold) else None
    failed = trouble if trouble is not None and not outcome.achieved else None
    marks = [journal.condemned[key].at for key in journal.unproven() if key in journal.condemned]
    lasts = any(at + PATIENCE <= s.now for at in marks)
    if (held and held.unproven) or ((failed or lasts) and journal.unproven()):
        why = held.reason if held else str(failed) if failed else words(outcome.rest) if outcome.rest else "no answer"
        facts = {"cause": UNPROVEN, "reason": why}
        advice = f"revoke it at {s.policy.issuer} by hand; the next sweep shows it dead."
        told = f"A credential that should be dead is alive, or was not shown dead: {why}."
        return _Wrong(
            "rotation.hold", Severity.CRITICAL, "a credential that should be dead is not", told, advice, facts
        )
    if failed and (failed.code.permanent or _held_up(s)):
        facts = {"service": failed.service, "code": failed.code.value, "error": str(failed)}
        subject = _failed(outcome, failed)
        return _Wrong("rotation.failed", loud, subject, f"{failed}.", _ADVICE[failed.code], facts)
    if held:
        facts = {"cause": held.cause.value, "reason": held.reason}
        subject, advice = _HELD[held.cause]
        return _Wrong("rotation.hold", loud, subject, f"{held.reason}.", advice, facts)
    if (backoff := journal.backoff) is not None and _held_up(s):
        facts = {"service": s.policy.issuer, "code": backoff.error, "error": backoff.error}
        told = f"Rotations fail, {backoff.failures} in a row by now: {backoff.error}."
        advice = _ADVICE[Code(backoff.error)] if backoff.error in [*Code] else _NEVER_VERIFIED
        return _Wrong("rotation.failed", loud, f"{_ROTATIONS}: {backoff.error}", told, advice, facts)
    if late and failed is None and s.next is not None:
        facts = {"cause": OVERDUE, "reason": f"overdue since {_shown(s.next.overdue)}"}
        told = f"Its credential is older than is allowed since {_shown(s.next.overdue)}."
        advice = f"run `keyturn rotate {s.policy.name}`, and see what it says."
        return _Wrong("rotation.hold", Severity.CRITICAL, "is overdue", told, advice, facts)
    return None


def _held_up(s: Situation) -> bool:
    """Whether something that is to be done has waited for longer than a passing failure takes."""
    journal = s.seen.primary.journal
    since = [attempt.at for attempt in journal.attempts.values() if attempt.token not in journal.promoted]
    since += [fact.at for fact in journal.condemned.values()]
    since += [s.due.at] if s.due is not None and s.due_now else []
    return bool(since) and s.now - min(since) >= PATIENCE


def _settled(s: Situation, outcome: Outcome) -> bool:
    journal = s.seen.primary.journal
    quiet = outcome.trouble is None and outcome.achieved is not False and isinstance(outcome.rest, Done | Wait)
    return (
        quiet
        and journal.backoff is None
        and not journal.unproven()
        and not s.urgent
        and not s.lagging
        and s.pending is None
    )


def _done(s: Situation, facts: Mapping[str, str]) -> Notice:
    until, key = facts.get("grace_until", ""), facts["key_id"]
    readers = ", ".join(f"{c.name} (within {show_duration(c.refresh_within)})" for c in s.policy.consumers)
    facts = {**facts, "consumers": readers}
    stores = " and ".join(s.policy.stores)
    old = f"The old one, {facts.get('previous_key_id') or 'from before'}, works until {until}" if until else ""
    then = f"{old}, is revoked after that, and shown dead." if old else "nothing, until the next rotation is due."
    advice = f"make sure that they read it in time: {readers}." if readers else "do nothing."
    told = f"{s.policy.environment}/{s.policy.name} has a new credential, {key}, which was seen to work."
    return _plain(
        s, "rotation.done", f"rotated; {key} is handed out", told, f"{stores} hand it out.", then, advice, facts
    )


def _before(s: Situation, facts: Mapping[str, str], at: datetime) -> Notice:
    told = f"{s.policy.environment}/{s.policy.name} is to be rotated from {_shown(at)} on."
    then = (
        f"a new credential is made, seen to work and handed out; the old one works for {show_duration(s.policy.grace)} "
        "after that."
    )
    advice = f"have it done earlier: `keyturn rotate {s.policy.name}`."
    facts = {**facts, "due_at": _shown(at), "grace": show_duration(s.policy.grace)}
    state = _state(s, facts)
    return _plain(s, "rotation.before", f"rotates from {_shown(at)} on", told, state, then, advice, facts)


def _plain(
    s: Situation,
    kind: str,
    subject: str,
    happened: str,
    state: str,
    then: str,
    advice: str,
    facts: Mapping[str, str],
) -> Notice:
    said = _Wrong(kind, Severity.INFO, subject, happened, advice, {})
    return _notice(s.policy, s.now, said, state, facts, then)


def _notice(
    policy: Policy,
    now: datetime,
    said: _Wrong,
    state: str,
    facts: Mapping[str, str],
    then: str = "the next sweep tries again.",
) -> Notice:
    parts = {"happened": said.happened, "state": state, "next": then, "advice": said.advice}
    return Notice(
        kind=said.kind,
        severity=said.severity,
        at=now,
        environment=policy.environment,
        secret=policy.name,
        owner=policy.owner,
        subject=f"{policy.environment}/{policy.name}: {said.subject}",
        text=composed(said.happened, state, then, said.advice),
        facts={**facts, **said.facts, **parts},
    )


def _facts(s: Situation) -> dict[str, str]:
    """Ids and times that templates may use; those that are not known are left out."""
    previous = next((key for key in reversed(s.retiring)), None)
    key = s.key_id(s.current_key) if s.current_key else None
    found = {
        "key_id": key or (s.current.id if s.current else "none"),
        "previous_key_id": s.key_id(previous) if previous else None,
        "version": (s.current.token or s.current.id) if s.current else None,
        "grace_until": _shown(_grace_until(s)),
        "due_at": _shown(s.next.at) if s.next else None,
        "overdue_at": _shown(s.next.overdue) if s.next else None,
    }
    return {name: text for name, text in found.items() if text}


def _grace_until(s: Situation) -> datetime | None:
    """Until when the last credential is kept for its consumers, where it is."""
    journal = s.seen.primary.journal
    previous = next((key for key in reversed(s.retiring) if key not in journal.condemned), None)
    ended = s.superseded_at(previous) if previous else None
    return ended + s.policy.grace if ended else None


def _state(s: Situation, facts: Mapping[str, str]) -> str:
    if s.current is None:
        return "it has no credential yet."
    told = f"{facts['key_id']} is handed out"
    if s.urgent:
        told += ", and is dead or has to die"
    if s.lagging:
        told += f"; {' and '.join(s.lagging)} can not be reached, or hand out another"
    return f"{told}."


def _next(outcome: Outcome) -> str:
    if isinstance(outcome.rest, Hold):
        return "nothing, until that is put right; every sweep looks again."
    return f"{words(outcome.rest)}." if outcome.rest else "the next sweep tries again."


def _failed(outcome: Outcome, trouble: Trouble) -> str:
    """What failed, in the words that a sweep has for it, too, while the next try waits."""
    event = next((record.event for record in outcome.records if record.event.endswith(".failed")), "")
    tried = _TRIED.get(event.removesuffix(".failed"))
    return f"{tried}: {trouble.service}: {trouble.code.value}" if tried else f"{_ROTATIONS}: {trouble.code.value}"


_ROTATIONS: Final = "rotations fail"
_TRIED: Final = {
    "promote": "handing out the new credential failed",
    "revoke": "revoking the old credential failed",
    "prove": "showing the old credential dead failed",
}
_NEVER_VERIFIED: Final = (
    "see whether the issuer's new credentials work at all; `keyturn audit show` has what it answered."
)
_ADVICE: Final[Mapping[Code, str]] = {
    Code.DENIED: "give back the permission, or the login, that it says; `keyturn doctor` finds what is missing.",
    Code.INVALID: "put right what the service refuses; `keyturn doctor` may say more.",
    Code.NOT_FOUND: "apply the stack again with `pulumi up`, or put back what is gone.",
    Code.CONFLICT: "do nothing, unless this goes on: somebody else changes the same entry.",
    Code.LIMIT: "make room at the issuer, or have its limit raised.",
    Code.THROTTLED: "do nothing, unless this goes on: the service wants fewer calls.",
    Code.UNAVAILABLE: "do nothing, unless this goes on: the service does not answer.",
}
_HELD: Final[Mapping[Cause, tuple[str, str]]] = {
    Cause.PERSON: (
        "a person has to act at its issuer",
        "do what the reason says, at the issuer; `keyturn submit` brings a new value.",
    ),
    Cause.UNVERIFIED: (
        "its issuer does not say whether a credential works",
        "see whether the issuer works, and may be reached from here.",
    ),
    Cause.STORE: (
        "a store can not be asked, or was changed by somebody",
        "see to the store that the reason names; `keyturn doctor` may say more.",
    ),
    Cause.IN_USE: (
        "an old credential is still in use",
        "find who uses the old credential, and have them refresh.",
    ),
    Cause.LIMIT: ("its issuer is full", "make room at the issuer, or have its limit raised."),
    Cause.UNPROVEN: (
        "a revoked credential is not refused",
        "revoke it at the issuer by hand; the next sweep shows it dead.",
    ),
    Cause.FAILED: (
        "a call is refused",
        "give back the permission that it says; `keyturn doctor` finds what is missing.",
    ),
    Cause.SCHEDULE: (
        "is overdue, and its schedule does not let it begin",
        "run `keyturn rotate`, which does not wait, or change the schedule.",
    ),
    Cause.FROZEN: (
        "is overdue, and frozen by an incident",
        "run `keyturn thaw` once the incident allows it.",
    ),
    Cause.IMPOSSIBLE: ("what was asked for can not be had", "ask for something else; the reason says why not this."),
}
"""What a hold is called in a subject, and what helps."""


def _shown(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}Z" if at else ""


def _iso(at: datetime | None) -> str:
    return at.isoformat() if at else ""
