"""How long things are left alone: after a failure, in an incident, while the service is at work or a write may not show."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from rotation import journal as facts
from rotation.actions import Cause, Hold, Wait
from rotation.situation import Situation

BACKOFF_FIRST: Final = timedelta(minutes=5)
BACKOFF_MOST: Final = timedelta(hours=6)
BACKOFF_URGENT: Final = timedelta(minutes=30)
"""At most, while a dead credential is handed out."""


SHOWN_WITHIN: Final = timedelta(seconds=30)
"""For so long a value that was staged may not show in a look: stores are eventually consistent."""
A_MOMENT: Final = timedelta(seconds=2)


def backoff(s: Situation, error: str) -> dict[str, str]:
    """The fact that a rotation failed once more: 5 min, doubling, at most 6 h."""
    before = s.seen.primary.journal.backoff
    failures = before.failures + 1 if before else 1
    delay = min(BACKOFF_FIRST * 2 ** min(failures - 1, 10), BACKOFF_MOST)
    return facts.Backoff(failures, s.now, s.now + delay, error).written()


def await_service(s: Situation, until: datetime, reason: str) -> Wait:
    """A person who asked stays and looks; a sweep goes on."""
    stays = s.evidence.started and s.order.replace is not None
    return Wait(until=s.now + A_MOMENT if stays else until, soon=stays, look=stays, reason=reason)


def until_thawed(s: Situation, late: datetime | None) -> Wait | Hold:
    """What an incident's freeze holds up.

    Parameters:
        late: from when on people are told; None: at once.
    """
    assert s.frozen is not None, "only a freeze is waited for"
    told = s.frozen.told(s.policy.name)
    if late is not None and s.now < late:
        return Wait(until=late, reason=told)
    return Hold(cause=Cause.FROZEN, reason=told if late is None else f"overdue, and {told}")
