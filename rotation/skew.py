"""How far our clock is ahead of a service's, by the Date header that comes with its answers anyway."""

from __future__ import annotations

from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime

from rotation.ports import Clock


class Skew:
    """What the answers of one service have told. Threads may share it.

    A Date has whole seconds (RFC 9110, 6.6.1) and is as old as the answer took: good to tell minutes by.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.last: timedelta | None = None
        """Ours minus theirs at the last answer with a Date that could be read; None before."""

    def heard(self, date: str | None) -> None:
        """Takes the Date header of an answer that has just come; one that is missing or no date changes nothing."""
        try:
            theirs = parsedate_to_datetime(date or "")
        except (TypeError, ValueError):
            return
        self.last = self._clock.now() - theirs.replace(tzinfo=theirs.tzinfo or UTC)
