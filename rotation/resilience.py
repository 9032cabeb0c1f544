"""Patience with services: what may be asked again is, with jitter and within a budget; a broken service is left alone.

Wraps the ports, so that no provider and no rule has a retry of its own. What must go out once goes
out once: a mint always, a write unless the service said that it did nothing. Permanent refusals are
never asked again. Own code rather than a library: the clock is injected, the codes are ours, and a
function pays for every import at its cold start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeVar

from rotation.errors import Code, Trouble
from rotation.model import (
    Capabilities,
    Check,
    Counting,
    Credential,
    Entry,
    Issued,
    KeyInfo,
    KeyUse,
    LastUse,
    SecretValue,
    Verdict,
    Version,
)
from rotation.pacing import Pace
from rotation.ports import (
    Clock,
    Glance,
    Glances,
    Issuer,
    Listed,
    ListsValues,
    ReadsMany,
    RevokesInSteps,
    RotatesByItself,
    SecretStore,
    StoreFeatures,
    TellsCaller,
    TellsTime,
    TellsUsage,
)
from rotation.telemetry import NONE, UNKNOWN, Call, Telemetry, calling, left_alone

T = TypeVar("T")

AT_ONCE: Final = 32
"""Calls to one service that are under way side by side in one process, however many secrets wait for it. More would be
throttled, and every client keeps so many connections open at most."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How patient to be. Seconds."""

    first: float = 0.2
    longest: float = 10.0
    """Of one wait, unless the service names a time of its own."""
    budget: float = 30.0
    """For one call with all of its repetitions."""
    trips_after: int = 5
    """Failures in a row after which a service counts as broken."""
    rests_for: float = 30.0
    """For so long a broken service is not asked; then one call tries it."""
    at_once: int = AT_ONCE
    """Further calls wait for their turn."""


class Service:
    """What is known of one service's health, shared by all threads.

    Parameters:
        name: starts the messages.
        chance: uniform in [0, 1); the source of jitter.
        telemetry: is told of every call, each repetition included.
        pace: what the service's quotas allow; without it nothing waits for them.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        chance: Callable[[], float],
        limits: Limits | None = None,
        telemetry: Telemetry = NONE,
        pace: Pace | None = None,
    ) -> None:
        self._name = name
        self._clock = clock
        self._chance = chance
        self._limits = limits or Limits()
        self._telemetry = telemetry
        self._pace = pace or Pace((), clock)
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(self._limits.at_once)
        self._failures = 0
        self._cause = ""
        self._shut_until = 0.0

    @contextmanager
    def once(self, operation: str) -> Iterator[Call]:
        """A call that goes out once, whatever the answer, even while the service counts as broken."""
        self._pace.take(operation)
        try:
            with self._turns, calling(self._telemetry, self._clock, self._name, operation) as call:
                yield call
        except Trouble as trouble:
            if trouble.code is Code.THROTTLED:
                self._pace.refused(operation)
            raise
        self._pace.answered(operation)

    def reading(self, operation: str) -> AbstractContextManager[Call]:
        """As once(), for a listing: its reader does other things between two items, so it takes nobody's turn."""
        return calling(self._telemetry, self._clock, self._name, operation, hears=False)

    def call(self, operation: str, work: Callable[[], T], *, repeatable: bool) -> T:
        """Does the work, again where that is safe and may help.

        Parameters:
            operation: the port's method.
            repeatable: the work has no effect, or having it twice is having it once. Otherwise it is
                repeated only after THROTTLED, which says that nothing was done.

        Raises:
            Trouble: the last one, or UNAVAILABLE without asking while the service counts as broken, with
                what broke it.
        """
        limits, wait = self._limits, self._limits.first
        unsure = False
        end = self._clock.monotonic() + limits.budget
        while True:
            self._enter(operation, unsure=unsure)
            try:
                with self.once(operation):
                    result = work()
            except Trouble as trouble:
                unsure = unsure or trouble.maybe_applied
                self._note(trouble)
                wait = self._next(wait, trouble)
                again = trouble.code is Code.THROTTLED or (repeatable and trouble.code is Code.UNAVAILABLE)
                if not again or self._clock.monotonic() + wait > end:
                    raise
                self._clock.sleep(wait)
            else:
                with self._lock:
                    self._failures = 0
                return result

    def _next(self, wait: float, trouble: Trouble) -> float:
        """Decorrelated jitter: uniform between the first wait and three times the last. The service's own word wins."""
        if trouble.retry_after is not None:
            return trouble.retry_after + self._limits.first * self._chance()
        low, high = self._limits.first, max(wait * 3, self._limits.first)
        return min(low + (high - low) * self._chance(), self._limits.longest)

    def _enter(self, operation: str, *, unsure: bool) -> None:
        with self._lock:
            now = self._clock.monotonic()
            if self._failures < self._limits.trips_after or now >= self._shut_until:
                if self._failures >= self._limits.trips_after:
                    self._shut_until = now + self._limits.rests_for  # this call tries; the others go on waiting
                return
            left, cause = self._shut_until - now, self._cause
        left_alone(self._telemetry, self._name, operation)
        told = f"failed {self._limits.trips_after} times in a row and is left alone for {left:.0f} s; at last: {cause}"
        raise Trouble(Code.UNAVAILABLE, self._name, told, maybe_applied=unsure)

    def _note(self, trouble: Trouble) -> None:
        with self._lock:
            if trouble.code is not Code.UNAVAILABLE:
                self._failures = 0  # it answered
                return
            self._failures += 1
            self._cause = str(trouble).removeprefix(f"{self._name}: ")
            if self._failures >= self._limits.trips_after:
                self._shut_until = self._clock.monotonic() + self._limits.rests_for


class PatientStore:
    """A store behind a Service."""

    def __init__(self, store: SecretStore, service: Service) -> None:
        self._store: Final = store
        self._call: Final = service.call
        self._reading: Final = service.reading

    @property
    def bare(self) -> SecretStore:
        """The store itself, for who wants to see a fault at first sight."""
        return self._store

    @property
    def skew(self) -> timedelta | None:
        """None where the store does not compare clocks, too."""
        return self._store.skew if isinstance(self._store, TellsTime) else None

    def caller(self) -> str | None:
        """None where the store does not know, too. Asked once and without patience: it is worth no wait."""
        return self._store.caller() if isinstance(self._store, TellsCaller) else None

    @property
    def name(self) -> str:
        return self._store.name

    @property
    def features(self) -> StoreFeatures:
        return self._store.features

    def observe(self, entry: str) -> Entry:
        return self._call("observe", lambda: self._store.observe(entry), repeatable=True)

    def read(self, entry: str, version: Version) -> Credential:
        return self._call("read", lambda: self._store.read(entry, version), repeatable=True)

    def current(self, entry: str) -> Credential:
        return self._call("current", lambda: self._store.current(entry), repeatable=True)

    def applied(self, entry: str) -> Mapping[str, str]:
        return self._call("applied", lambda: self._store.applied(entry), repeatable=True)

    def read_many(self, entries: Sequence[str]) -> Mapping[str, Version]:
        """Nothing where the store reads one by one; the caller then does."""
        store = self._store
        if not isinstance(store, ReadsMany):
            return {}
        return self._call("read_many", lambda: store.read_many(entries), repeatable=True)

    def start_rotation(self, entry: str, token: str) -> None:
        self._call("start_rotation", lambda: self._rotator(entry).start_rotation(entry, token), repeatable=True)

    def set_rotation(self, entry: str, every: timedelta | None) -> None:
        self._call("set_rotation", lambda: self._rotator(entry).set_rotation(entry, every), repeatable=True)

    def rotating(self, entry: str, token: str, right: SecretValue) -> AbstractContextManager[None]:
        return self._rotator(entry).rotating(entry, token, right)

    def _rotator(self, entry: str) -> RotatesByItself:
        if isinstance(self._store, RotatesByItself):
            return self._store
        raise Trouble(Code.INVALID, self.name, f"{entry}: there is no service here that rotates it by itself")

    def find(self, entry: str, token: str) -> Version | None:
        return self._call("find", lambda: self._store.find(entry, token), repeatable=True)

    def stage(self, entry: str, token: str, credential: Credential, *, key_id: str | None) -> None:
        self._call("stage", lambda: self._store.stage(entry, token, credential, key_id=key_id), repeatable=False)

    def promote(self, entry: str, pending: Version, expected: str | None) -> None:
        self._call("promote", lambda: self._store.promote(entry, pending, expected), repeatable=False)

    def discard(self, entry: str, pending: Version) -> None:
        self._call("discard", lambda: self._store.discard(entry, pending), repeatable=False)

    def record(self, entry: str, facts: Mapping[str, str]) -> None:
        self._call("record", lambda: self._store.record(entry, facts), repeatable=True)

    def forget(self, entry: str, facts: Iterable[str]) -> None:
        keys = list(facts)
        self._call("forget", lambda: self._store.forget(entry, keys), repeatable=True)

    def listing(self) -> Iterator[Listed]:
        # A page that fails midway ends the listing: beginning again would yield entries twice.
        with self._reading("listing"):
            yield from self._store.listing()

    def glances(self) -> Iterator[Glance]:
        """No more than listing() where the store's tells no more."""
        with self._reading("listing"):
            if isinstance(self._store, Glances):
                yield from self._store.glances()
            else:
                yield from (Glance(listed.name, listed.policy) for listed in self._store.listing())

    def create(self, entry: str, policy: Mapping[str, str]) -> None:
        self._call("create", lambda: self._store.create(entry, policy), repeatable=False)

    def set_policy(self, entry: str, policy: Mapping[str, str]) -> None:
        self._call("set_policy", lambda: self._store.set_policy(entry, policy), repeatable=True)

    def delete(self, entry: str) -> None:
        self._call("delete", lambda: self._store.delete(entry), repeatable=True)

    def restore(self, entry: str) -> bool:
        return self._call("restore", lambda: self._store.restore(entry), repeatable=False)


class PatientIssuer:
    """An issuer behind a Service. A mint goes out once, whatever the answer."""

    def __init__(self, issuer: Issuer, service: Service) -> None:
        self._issuer: Final = issuer
        self._call: Final = service.call
        self._once: Final = service.once

    @property
    def bare(self) -> Issuer:
        """The issuer itself, for who wants to see a fault at first sight."""
        return self._issuer

    @property
    def skew(self) -> timedelta | None:
        """None where the issuer does not compare clocks, too."""
        return self._issuer.skew if isinstance(self._issuer, TellsTime) else None

    @property
    def name(self) -> str:
        return self._issuer.name

    @property
    def capabilities(self) -> Capabilities:
        return self._issuer.capabilities

    def mint(self, key_name: str, slot: str | None = None) -> Issued:
        with self._once("mint"):
            return self._issuer.mint(key_name, slot)

    def keys(self) -> Iterator[KeyInfo]:
        return iter(self._call("keys", lambda: list(self._issuer.keys()), repeatable=True))

    def verify(self, credential: Credential) -> Check:
        return self._asked("verify", credential)

    def smoke(self, credential: Credential) -> Check:
        return self._asked("smoke", credential)

    def _asked(self, operation: Literal["verify", "smoke"], credential: Credential) -> Check:
        with self._once(operation) as call:
            check = self._issuer.verify(credential) if operation == "verify" else self._issuer.smoke(credential)
            call.outcome = UNKNOWN if check.verdict is Verdict.UNKNOWN else call.outcome
            call.request_id = check.request_id or call.request_id
            return check

    def revoke(self, key_id: str) -> None:
        self._call("revoke", lambda: self._issuer.revoke(key_id), repeatable=True)

    def clear(self, key_id: str) -> None:
        """See RevokesInSteps; nothing where the issuer's revocation is one step."""
        issuer = self._issuer
        if isinstance(issuer, RevokesInSteps):
            self._call("clear", lambda: issuer.clear(key_id), repeatable=True)

    def id_of(self, credential: Credential) -> str | None:
        """See ListsValues; None where the issuer lists none."""
        issuer = self._issuer
        if not isinstance(issuer, ListsValues):
            return None
        return self._call("keys", lambda: issuer.id_of(credential), repeatable=True)

    def last_use(self, key_id: str) -> LastUse:
        return self._call("last_use", lambda: self._issuer.last_use(key_id), repeatable=True)

    @property
    def tells_usage(self) -> bool:
        """Whether usage() can tell anything."""
        return isinstance(self._issuer, TellsUsage)

    @property
    def counting(self) -> Counting | None:
        """None where the issuer does not tell of many keys at once, too."""
        return self._issuer.counting if isinstance(self._issuer, TellsUsage) else None

    def usage(self, key_ids: Collection[str], since: datetime, until: datetime) -> Mapping[str, KeyUse]:
        """Nothing where the issuer does not tell of many keys at once."""
        issuer = self._issuer
        if not isinstance(issuer, TellsUsage):
            return {}
        return self._call("usage", lambda: issuer.usage(key_ids, since, until), repeatable=True)
