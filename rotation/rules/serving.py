"""A step of a rotation that the store's own service has started: that one attempt, and no other rule."""

from __future__ import annotations

from collections.abc import Iterator

from rotation.actions import Cause, Decision, Discard, Hold, Note, Reached, Wait
from rotation.model import Version
from rotation.rules.arriving import pending
from rotation.rules.beginning import begin
from rotation.rules.waiting import A_MOMENT, SHOWN_WITHIN, backoff
from rotation.situation import Situation, Stop


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
