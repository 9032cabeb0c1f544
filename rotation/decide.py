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

from rotation.actions import Cause, Decision, Done, Forget, Hold, Note, Reached, Rest, most_pressing, signature
from rotation.errors import Code, Trouble
from rotation.model import Capabilities
from rotation.rules.arriving import pending
from rotation.rules.beginning import begin, replace_condemned, tidy
from rotation.rules.explaining import explain, note, recovered
from rotation.rules.mirroring import mirror
from rotation.rules.retiring import retire
from rotation.rules.revoking import contain
from rotation.rules.serving import served
from rotation.situation import Evidence, Observation, Order, Situation

Rule = Callable[[Situation], Iterator[Decision]]

DESTROY: Final[tuple[Rule, ...]] = (contain, retire)
"""While an entry is being deleted."""
STEP: Final[tuple[Rule, ...]] = (note, recovered, explain, mirror, served)
"""In one step of a rotation that the store's own service has started."""
RULES: Final[tuple[Rule, ...]] = (
    contain,
    note,
    recovered,
    explain,
    pending,
    mirror,
    replace_condemned,
    retire,
    begin,
    tidy,
)
"""Otherwise; first hit wins."""
NOTED_FIRST: Final[frozenset[Rule]] = frozenset({pending, mirror, replace_condemned, begin, served})
"""What hands the current key out elsewhere, or puts another one in its place: never before its promotion is noted. A
journal that says less than was handed out would have its key die too early."""


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
    unnoted = False
    for rule in DESTROY if order.destroy else STEP if order.token else RULES:
        for decision in rule(situation) if not (unnoted and rule in NOTED_FIRST) else ():
            if isinstance(decision, Reached):
                return decision
            if isinstance(decision, Rest):
                rests.append(decision)
            elif (trouble := evidence.failed.get(signature(decision))) is None:
                return decision
            else:
                rests.append(Hold(cause=Cause.FAILED, reason=str(trouble)))  # what does not depend on it goes on
                unnoted = unnoted or (rule is note and _holds_up(decision, trouble, situation))
    why = situation.due.reason if situation.due else ""
    return most_pressing(rests) or Done(reason="nothing is due", due_at=situation.due_at, due_why=why)


def _holds_up(noting: Decision, trouble: Trouble, s: Situation) -> bool:
    """Whether what comes after a note waits for it, now that it could not be written."""
    if trouble.code is Code.INVALID:
        return False  # there is no room for it, and what goes on makes some
    # What is to die at once has no grace that an old fact could cost it.
    return isinstance(noting, Note) or (isinstance(noting, Forget) and not s.urgent)
