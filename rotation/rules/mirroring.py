"""Every replica hands out what the primary does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from rotation import journal as facts
from rotation.actions import (
    Cause,
    Compare,
    Copy,
    Decision,
    Discard,
    Forget,
    Hold,
    Note,
    Promote,
    TellApart,
    Wait,
    signature,
)
from rotation.journal import Why
from rotation.model import Entry, Version
from rotation.rules.explaining import try_current
from rotation.situation import Absent, Situation

COPIED: Final = timedelta(seconds=5)
"""How long to wait between two looks at what a store's service copies by itself."""


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
            elif isinstance(entry, Absent) and entry.soon:
                yield Wait(until=s.now + COPIED, soon=True, look=True, reason=f"{store}: {entry.reason}")
            elif isinstance(entry, Absent) and not entry.missing:
                told = "old credentials live until it hands out what the primary does"
                yield Hold(cause=Cause.STORE, reason=f"{store}: {entry.reason}; {told}")
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
        if not behind(s, store, entry):
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
            yield from try_current(s, f"{store} may hand out what works; does what is to replace it?")
        else:
            expected = entry.current.id if entry.current else None
            yield Promote(store=store, version=copy, expected=expected, reason=f"mirror to {store}")


def _doomed_there(s: Situation, entry: Entry) -> bool:
    """Whether a replica hands out a key that is to die, so that what was verified before its promotion can only help."""
    key, journal = s.key_of(entry.current), s.seen.primary.journal
    made = journal.attempts.get((s.current and s.current.token) or "")
    verified = made is not None and made.why is not Why.REWRITE
    return verified and (key in journal.revoked or (key in journal.condemned and key in journal.contain))


def _seen_to_work(s: Situation, current: Version) -> bool:
    """Whether this run has seen that the current value works, after or before it was promoted."""
    checked, made = s.evidence.checks.get(current.token or ""), s.seen.primary.journal.attempts.get(current.token or "")
    asked = made is None or made.why is not Why.REWRITE  # of what is stored anew it is only seen that it is the same
    return bool(s.current_works) or (asked and checked is not None and checked.verdict.live)


def behind(s: Situation, store: str, entry: Entry) -> bool:
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
        yield from try_current(s, "a replica hands out what the journal does not know; does the primary's work?")
        return
    noted = facts.promoted(version.token or "", s.now)
    if version.key_id:
        noted |= facts.key_fact(version.token or "", version.key_id)
    yield Note(facts=noted, reason="handed out by a replica, and not in the journal")
