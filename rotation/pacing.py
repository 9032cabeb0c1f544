"""How fast a service is called: token buckets at its declared quota, slower while it refuses, by each place that has one.

    Pace.take(operation)    waits until the call may go out
    Pace.refused()          429, ThrottlingException: half as fast from now on
    Pace.answered()         a little faster again, up to the quota

Additive increase, multiplicative decrease, as TCP does it: several processes that share a quota and know nothing of each
other come to share it evenly. Own code rather than a library: those that keep buckets know no refusals, those that know
refusals keep no declared quota, and none has an injected clock and threads.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rotation.ports import Clock

HALVED: Final = 0.5
AGAIN_AFTER: Final = 1.0
"""Seconds after a cut in which further refusals count as its own: their calls were under way already."""
RECOVERS_IN: Final = 30.0
"""Seconds of answers that bring a rate back from half to whole."""
LEAST: Final = 0.01
"""Of the quota, however often the service refuses."""
EVERY: Final = "*"
"""Stands for every operation that is not named."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What a service allows one place of it: an account in a region, a vault."""

    name: str
    per_second: float
    burst: float
    """Calls that may go out at once after a rest."""
    costs: Mapping[str, float] = field(default_factory=lambda: {EVERY: 1.0})
    """By operation of our ports: how many of the service's calls it makes, about; 0 or absent takes nothing."""

    def cost(self, operation: str) -> float:
        return self.costs.get(operation, self.costs.get(EVERY, 0.0))


class Bucket:
    """One quota, shared by all threads that draw from it."""

    def __init__(self, quota: Quota, clock: Clock) -> None:
        self.quota: Final = quota
        self._clock = clock
        self._lock = threading.Lock()
        self._rate = quota.per_second
        self._level = quota.burst
        self._at = clock.monotonic()
        self._cut_at = float("-inf")
        self._grown_at = self._at

    @property
    def rate(self) -> float:
        """Calls a second that are allowed now."""
        with self._lock:
            return self._rate

    def reserve(self, cost: float) -> float:
        """Takes so much, on credit where there is not enough; gives the seconds until it is earned."""
        with self._lock:
            self._earn()
            self._level -= cost
            return max(-self._level / self._rate, 0.0)

    def refused(self) -> None:
        """The service said that it was too much."""
        with self._lock:
            now = self._earn()
            if now < self._cut_at + AGAIN_AFTER:
                return
            self._cut_at = self._grown_at = now
            self._rate = max(self._rate * HALVED, self.quota.per_second * LEAST)
            self._level = min(self._level, 0.0)

    def answered(self) -> None:
        """The service did what it was asked."""
        with self._lock:
            now = self._earn()
            # By time, not by calls, so that many threads recover no faster than one; of a pause no more than a second.
            passed, self._grown_at = min(now - self._grown_at, 1.0), now
            gained = self.quota.per_second * HALVED * passed / RECOVERS_IN
            self._rate = min(self._rate + gained, self.quota.per_second)

    def _earn(self) -> float:
        now = self._clock.monotonic()
        self._level = min(self._level + (now - self._at) * self._rate, self.quota.burst)
        self._at = now
        return now


class Pace:
    """All quotas that one service's calls draw from.

    Parameters:
        buckets: none means that nothing is known, and nothing waits.
    """

    def __init__(self, buckets: Sequence[Bucket], clock: Clock) -> None:
        self._buckets: Final = tuple(buckets)
        self._clock = clock

    def take(self, operation: str) -> None:
        """Waits until a call may go out."""
        costs = [(bucket, cost) for bucket in self._buckets if (cost := bucket.quota.cost(operation))]
        if (wait := max((bucket.reserve(cost) for bucket, cost in costs), default=0.0)) > 0:
            self._clock.sleep(wait)

    def refused(self, operation: str) -> None:
        """See Bucket."""
        for bucket in self._drawn(operation):
            bucket.refused()

    def answered(self, operation: str) -> None:
        """See Bucket."""
        for bucket in self._drawn(operation):
            bucket.answered()

    def _drawn(self, operation: str) -> list[Bucket]:
        return [bucket for bucket in self._buckets if bucket.quota.cost(operation)]


class Paces:
    """The paces of a process: configured services that lead to one place share its buckets. Threads may share it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[tuple[Hashable, str], Bucket] = {}

    def of(self, place: Hashable, quotas: Sequence[Quota]) -> Pace:
        """The pace of a place.

        Parameters:
            place: equal for whatever the service counts together.
        """
        with self._lock:
            keys = [(place, quota.name) for quota in quotas]
            for key, quota in zip(keys, quotas, strict=True):
                self._buckets.setdefault(key, Bucket(quota, self._clock))
            return Pace([self._buckets[key] for key in keys], self._clock)
