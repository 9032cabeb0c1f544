"""The client: holds the current value, reads it anew in time and after a refusal, once for all who wait."""

from __future__ import annotations

import logging
import secrets
import threading
from asyncio import wrap_future
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from rotation.clock import SystemClock
from rotation.consumer import forking
from rotation.consumer.refusal import unauthorized
from rotation.consumer.sources import Connect, source
from rotation.consumer.value import Unavailable, Value

T = TypeVar("T")

_log = logging.getLogger(__name__)

_EARLIEST, _LATEST = 0.7, 0.9
"""Of the time to live; where in between, chance decides, so that many processes do not ask at the same moment."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
"""Seconds between two reads when the first brought nothing better; doubled each time."""
_REFUSED: Final = 8
"""Refused values that are remembered, against a vault that still hands an older one out."""

Read = Callable[[], "Value | str | Mapping[str, Any]"]


@dataclass(frozen=True, slots=True)
class Status:
    """How a secret stands. Holds no value."""

    version: str | None
    """The vault's id of what is held; None: nothing is."""
    age: timedelta | None
    """Since the vault last said that it is current."""
    refused: bool
    """Its issuer does not accept it, and the vault has no other."""
    failures: int
    """Reads in a row that failed."""
    why: str
    """What the last of these failed of."""


class _Flight:
    """One read that is under way. Who needs it waits for `done`, which never fails."""

    def __init__(self, number: int) -> None:
        self.number: Final = number
        self.done: Final[Future[None]] = Future()
        self.done.set_running_or_notify_cancel()  # a coroutine that gives up may not cancel it for the others


class Secret:
    """The current value of one entry. Threads and event loops may share it; it is best made once for a process.

    A value is fresh for `ttl`. Somewhat before that is over whoever uses it starts a read in the background, and goes on
    with what there is; after it the next use waits for the read. Reads are one at a time, however many wait.

    While the vault does not give an answer, what was read last goes on being used for `keep`, and that is logged once and told
    by status(): it most likely works, and a vault that is away shall not take its applications along.

    Parameters:
        read: gives the current value: a `Value`, a text, or fields. It has to end by itself; what it raises counts as a
            vault that is away, and only its type is told.
        name: for messages.
        ttl: after which a value is read anew. It bounds how long an application goes on with an old value that nobody
            refuses, so it belongs well below the grace period of the rotation.
        keep: how long after `ttl` a value is used while the vault is away.
        refused: whether an exception or a result of an application's call says that the credential is not accepted.
        monotonic: seconds, for tests.
        chance: a number from 0 to 1, for tests.
        spawn: runs something beside the caller; a thread by default.
    """

    def __init__(
        self,
        read: Read,
        *,
        name: str = "secret",
        ttl: timedelta = timedelta(minutes=5),
        keep: timedelta = timedelta(hours=1),
        refused: Callable[[object], bool] = unauthorized,
        monotonic: Callable[[], float] | None = None,
        chance: Callable[[], float] | None = None,
        spawn: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        if ttl <= timedelta(0) or keep < timedelta(0):
            raise ValueError("ttl must be longer than nothing, and keep not negative")
        self.name: Final = name
        self._ask = read
        self._ttl, self._keep = ttl.total_seconds(), keep.total_seconds()
        self._refuses = refused
        self._monotonic = monotonic or SystemClock().monotonic
        self._chance = chance or secrets.SystemRandom().random
        self._spawn = spawn or _thread
        self._listeners: list[Callable[[Value], object]] = []
        self._held: Value | None = None
        self._held_by = 0
        """The flight that brought it, or found it to be current still."""
        self._seen_at = 0.0
        """When the vault last said that what is held is current."""
        self._soon = self._due = 0.0
        """From when on a read is started beside those who use it, and from when on they wait for it."""
        self._failures = 0
        self._why = ""
        self._next_try = 0.0
        self._refused: deque[Value] = deque(maxlen=_REFUSED)
        self._refused_before = 0
        """Flights that had begun when what is held was refused; they prove nothing about it."""
        self._looked = 0
        """Reads since then that found no other. Each makes the pause before the next longer."""
        self._flights = 0
        self._said: deque[str] = deque()
        self.forked()
        forking.watch(self)

    @classmethod
    def open(
        cls,
        uri: str,
        *,
        connect: Connect | None = None,
        ttl: timedelta = timedelta(minutes=5),
        keep: timedelta = timedelta(hours=1),
        refused: Callable[[object], bool] = unauthorized,
    ) -> Self:
        """The value of an entry of a vault: `aws://REGION/ENTRY`, `azure://VAULT/ENTRY` or `vault://MOUNT/ENTRY`.

        With `#FIELD` it is one field of a credential that has several. Nothing is read yet. See
        `rotation.consumer.sources` for rights and logins.

        Parameters:
            connect: makes the SDK's client (boto3's `secretsmanager`, azure's SecretClient, hvac's Client), where the
                environment can not tell how. It is called again in a forked child, and when a token of Vault has ended.

        Raises:
            ValueError: it is none of these forms.
        """
        entry = source(uri, connect)
        return cls(entry.read, name=entry.where, ttl=ttl, keep=keep, refused=refused)

    def forked(self) -> None:
        """In a child the read that was under way is nobody's any more."""
        self._lock = threading.Lock()
        self._flight: _Flight | None = None

    # --- using it ----------------------------------------------------------------------------------

    def value(self) -> Value:
        """The current value.

        Raises:
            Unavailable: nothing was ever read, or what was is too old, and the vault gives nothing.
        """
        while True:
            flight, mine, value = self._plan()
            if value is not None:
                self._beside(flight, mine)
                return value
            assert flight is not None
            self._wait(flight, mine)

    async def avalue(self) -> Value:
        """The same without holding up the event loop."""
        while True:
            flight, mine, value = self._plan()
            self._beside(flight, mine)
            if value is not None:
                return value
            assert flight is not None
            await wrap_future(flight.done)

    def call(self, work: Callable[[Value], T]) -> T:
        """What work(value) gives. When that is a refusal and there is another value, it is done once more with that.

        Where that other one had been read before the refusal and is refused as well, as after an emergency that follows a
        rotation, it is done with one that is read then.

        Raises:
            Unavailable: see value().
            Exception: whatever the work raises.
        """
        before: int | None = None
        while True:
            value = self.value()
            final = self._is_read_since(before, value)
            try:
                result = work(value)
            except Exception as error:
                if not self._refuses(error) or self._gives_up(value, final=final):
                    raise
                before = self._flights if before is None else before
                if not self.rejected(value):
                    raise
            else:
                if not self._refuses(result) or self._gives_up(value, final=final):
                    return result
                before = self._flights if before is None else before
                if not self.rejected(value):
                    return result

    async def acall(self, work: Callable[[Value], Awaitable[T]]) -> T:
        """call() for a coroutine function."""
        before: int | None = None
        while True:
            value = await self.avalue()
            final = self._is_read_since(before, value)
            try:
                result = await work(value)
            except Exception as error:
                if not self._refuses(error) or self._gives_up(value, final=final):
                    raise
                before = self._flights if before is None else before
                if not await self.arejected(value):
                    raise
            else:
                if not self._refuses(result) or self._gives_up(value, final=final):
                    return result
                before = self._flights if before is None else before
                if not await self.arejected(value):
                    return result

    def using(self) -> _Use:
        """`with secret.using() as value:`, and `async with`. A refusal that leaves the block counts as rejected(value).

        The block is not repeated; the next one has the new value.
        """
        return _Use(self, self._left)

    def rejected(self, value: Value) -> bool:
        """Says that this value was refused. Returns whether there is another one, which value() gives from now on.

        The vault is asked at once, by one of however many say so; then again after a second, two, four, up to half a
        minute, while it has no other: in between the answer is no.
        """
        flight, mine = self._object(value)
        while flight is not None:
            self._wait(flight, mine)
            flight, mine = self._again(value, flight)
        return self._another(value)

    async def arejected(self, value: Value) -> bool:
        """The same without holding up the event loop."""
        flight, mine = self._object(value)
        while flight is not None:
            self._beside(flight, mine)
            await wrap_future(flight.done)
            flight, mine = self._again(value, flight)
        return self._another(value)

    def on_change(self, listener: Callable[[Value], object]) -> None:
        """Calls the listener with every value but the first, once it is held; in the thread that has read it.

        What it raises is logged, and changes nothing. Values are only read when they are used: nobody listens beside.
        """
        self._listeners.append(listener)

    def status(self) -> Status:
        """How it stands, for a health page."""
        with self._lock:
            held = self._held
            return Status(
                version=held.version if held else None,
                age=timedelta(seconds=self._monotonic() - self._seen_at) if held else None,
                refused=held is not None and self._is_refused(held),
                failures=self._failures,
                why=self._why,
            )

    def __repr__(self) -> str:
        return f"<Secret {self.name}>"

    # --- what to do: under the lock, never waiting ---------------------------------------------------

    def _plan(self) -> tuple[_Flight | None, bool, Value | None]:
        """The read that is due, whether the caller is to do it, and what may be used without waiting for it.

        Raises:
            Unavailable: there is nothing to use, and it is too early to ask again.
        """
        with self._lock:
            now = self._monotonic()
            usable = self._held if now <= self._seen_at + self._ttl + self._keep else None
            resting = self._failures > 0 and now < self._next_try
            if usable is None and resting and self._flight is None:
                raise Unavailable(self.name, self._why)
            if usable is not None and (resting or now < self._soon):
                return None, False, usable
            waits = usable is None or (now >= self._due and not self._failures)
            return *self._join(), None if waits else usable

    def _object(self, value: Value) -> tuple[_Flight | None, bool]:
        """Notes a refusal; the read that is to find another value, and whether the caller is to do it."""
        with self._lock:
            held, now = self._held, self._monotonic()
            if held is None or not held.same_as(value):
                self._note(value)
                return None, False
            if not self._is_refused(held):
                self._note(held)
                self._refused_before, self._looked = self._flights, 0
                self._say(f"version {held.version or 'unknown'} was refused; reading anew")
            elif self._flight is None and now < self._next_try:
                return None, False
            flight = self._join()
        self._tell()
        return flight

    def _again(self, value: Value, flown: _Flight) -> tuple[_Flight | None, bool]:
        """Another read where that one had begun before the refusal, and may have missed what made it."""
        with self._lock:
            if flown.number > self._refused_before or self._held is None or not self._held.same_as(value):
                return None, False
            return self._join()

    def _join(self) -> tuple[_Flight, bool]:
        if self._flight is not None:
            return self._flight, False
        self._flights += 1
        self._flight = _Flight(self._flights)
        return self._flight, True

    def _another(self, value: Value) -> bool:
        with self._lock:
            return self._held is not None and not self._held.same_text(value)

    def _note(self, value: Value) -> None:
        if not self._is_refused(value):
            self._refused.append(value)

    def _is_refused(self, value: Value) -> bool:
        return any(value.same_as(known) for known in self._refused)

    # --- reading: one at a time, outside the lock ------------------------------------------------------

    def _wait(self, flight: _Flight, mine: bool) -> None:
        if mine:
            self._fly(flight)
        else:
            flight.done.result()

    def _beside(self, flight: _Flight | None, mine: bool) -> None:
        if flight is None or not mine:
            return
        try:
            self._spawn(partial(self._fly, flight))
        except RuntimeError:  # no more threads
            self._fly(flight)

    def _fly(self, flight: _Flight) -> None:
        changed: Value | None = None
        try:
            found, why = self._read()
            with self._lock:
                if found is None:
                    self._failed(why)
                else:
                    changed = self._landed(found, flight.number)
        finally:
            with self._lock:
                if self._flight is flight:
                    self._flight = None
            flight.done.set_result(None)
        self._tell()
        if changed is None:
            return
        for listener in self._listeners:
            try:
                listener(changed)
            except Exception as error:  # noqa: BLE001 - a listener's fault is no reason to have no value
                _log.warning("%s: a listener failed: %s", self.name, type(error).__name__)

    def _read(self) -> tuple[Value | None, str]:
        """The value, or why there is none. Never what was raised: it may hold what was sent and answered."""
        try:
            found = self._ask()
        except Unavailable as error:
            return None, error.why
        except Exception as error:  # noqa: BLE001 - see the parameter `read`
            return None, type(error).__name__
        if isinstance(found, Value):
            return found, ""
        return Value(found) if isinstance(found, str) else Value.of(found), ""

    def _failed(self, why: str) -> None:
        now = self._monotonic()
        self._failures += 1
        self._why = why
        self._next_try = now + self._pause(self._failures)
        if self._failures == 1:
            bound = timedelta(seconds=max(0, round(self._seen_at + self._ttl + self._keep - now)))
            then = f"what was read last is used for {bound} at most" if self._held else "there is no value yet"
            self._say(f"can not be read: {why}; {then}")

    def _landed(self, found: Value, number: int) -> Value | None:
        """Takes in what was read; returns it where it replaces something."""
        now, held = self._monotonic(), self._held
        if self._failures:
            self._say(f"can be read again; failed before: {self._failures}")
        self._failures, self._why = 0, ""
        if held is not None and not held.same_as(found) and self._is_refused(found) and not self._is_refused(held):
            # A replica of the vault that lags behind: what is held is newer, and was not refused.
            self._soon = now + _SHORTEST_PAUSE
            return None
        self._held, self._held_by, self._seen_at = found, number, now
        if not self._is_refused(found):
            early = _EARLIEST + (_LATEST - _EARLIEST) * self._chance()
            self._soon, self._due = now + self._ttl * early, now + self._ttl
        elif number > self._refused_before:
            self._looked += 1
            self._soon = self._due = self._next_try = now + self._pause(self._looked)
        else:
            self._soon = self._due = self._next_try = now  # it may have been read before its successor was there
        return found if held is not None and not held.same_as(found) else None

    def _say(self, what: str) -> None:
        """Under the lock; see _tell()."""
        self._said.append(what)

    def _tell(self) -> None:
        """Logs what there is to say. Never under the lock: whoever takes logs in may need this secret for it."""
        while self._said:
            with suppress(IndexError):  # another thread was quicker
                _log.warning("%s: %s", self.name, self._said.popleft())

    def _pause(self, times: int) -> float:
        """Of equal jitter: at least half of what it may be at most."""
        longest = min(_SHORTEST_PAUSE * 2.0 ** min(times - 1, 10), _LONGEST_PAUSE)
        return longest * (1 + self._chance()) / 2

    def _is_read_since(self, before: int | None, value: Value) -> bool:
        """Whether the read that brought a value began when `before` others had begun."""
        with self._lock:
            held = self._held
            return before is not None and held is not None and held.same_as(value) and self._held_by > before

    def _gives_up(self, value: Value, *, final: bool) -> bool:
        """Whether a refusal is the application's. Its next use reads anew."""
        if final:
            self._expire(value)
        return final

    def _left(self, value: Value, error: BaseException | None) -> None:
        """What ended the use of a value."""
        if isinstance(error, Exception) and self._refuses(error):
            self._expire(value)

    def _expire(self, value: Value) -> None:
        """A refusal that nobody waits for: the next use reads anew."""
        with self._lock:
            if self._held is not None and self._held.same_as(value) and not self._is_refused(value):
                self._note(value)
                self._refused_before, self._looked = self._flights, 0
                self._soon = self._due = self._monotonic()


class _Use:
    """One block that uses a value."""

    def __init__(self, secret: Secret, left: Callable[[Value, BaseException | None], None]) -> None:
        self._secret = secret
        self._told = left
        self._value: Value | None = None

    def __enter__(self) -> Value:
        self._value = self._secret.value()
        return self._value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left(error)

    async def __aenter__(self) -> Value:
        self._value = await self._secret.avalue()
        return self._value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left(error)

    def _left(self, error: BaseException | None) -> None:
        if self._value is not None:
            self._told(self._value, error)


def _thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="secret", daemon=True).start()
