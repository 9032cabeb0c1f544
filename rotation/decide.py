"""The heart: from what was seen to the one next effect. Pure, and with `rules/` the only place with an opinion.

    observation ──► decide ──► Action: the engine carries it out, looks again, asks again
    (stores, issuer)      └──► Rest:   nothing to do now; until when, and why

Rules are generators over a Situation, in order. The first Action any of them yields is the answer;
Rests are collected, and the most pressing one is the answer when no rule has an Action. The plan,
the dry run, resuming after a crash, and an emergency are all this function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from rotation.actions import Cause, Decision, Done, Hold, Reached, Rest, most_pressing, signature
from rotation.model import Capabilities
from rotation.rules.arriving import pending
from rotation.rules.beginning import begin, replace_condemned, tidy
from rotation.rules.explaining import explain, note
from rotation.rules.mirroring import mirror
from rotation.rules.retiring import retire
from rotation.rules.revoking import contain
from rotation.rules.serving import served
from rotation.situation import Evidence, Observation, Order, Situation

Rule = Callable[[Situation], Iterator[Decision]]

DESTROY: Final[tuple[Rule, ...]] = (contain, retire)
"""While an entry is being deleted."""
STEP: Final[tuple[Rule, ...]] = (note, explain, mirror, served)
"""In one step of a rotation that the store's own service has started."""
RULES: Final[tuple[Rule, ...]] = (contain, note, explain, pending, mirror, replace_condemned, retire, begin, tidy)
"""Otherwise; first hit wins."""


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
