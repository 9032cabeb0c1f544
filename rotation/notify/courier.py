"""Does errands in a thread of its own, so that whoever gives one never waits: a bounded queue, a limit of time, retries."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from rotation.errors import Code, Trouble

_log = logging.getLogger(__name__)

T = TypeVar("T")

ROOM: Final = 2048
"""Errands that may wait. A place that takes longer than they come loses the newest."""
BATCH: Final = 50
"""Errands that are handed over at once, at most: what waited while another was under way."""
LIMIT: Final = 10.0
"""Seconds that one call may take."""
PAUSES: Final = (1.0, 4.0)
"""Seconds before each repetition."""


class Courier(Generic[T]):
    """Hands errands over in order. Its thread lives while there are any, and keeps no process from ending.

    Parameters:
        name: of the thread.
        deliver: is handed one or several errands at a time. What it raises is a fault of ours, logged and forgotten.
        batch: how many at a time, at most.
        room: how many may wait.
    """

    def __init__(
        self, name: str, deliver: Callable[[Sequence[T]], None], *, batch: int = BATCH, room: int = ROOM
    ) -> None:
        self._name = name
        self._deliver = deliver
        self._batch = batch
        self._room = room
        self._waiting: deque[T] = deque()
        self._under_way: tuple[T, ...] = ()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def take(self, errand: T) -> bool:
        """Returns at once; False when there is no room."""
        with self._changed:
            if len(self._waiting) >= self._room:
                return False
            self._waiting.append(errand)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
        return True

    def wait(self, seconds: float) -> tuple[T, ...]:
        """Until all errands are done, or for so long; gives those that are not."""
        with self._changed:
            self._changed.wait_for(lambda: self._thread is None, timeout=seconds)
            return (*self._under_way, *self._waiting)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    self._changed.notify_all()
                    return
                count = min(self._batch, len(self._waiting))
                self._under_way = tuple(self._waiting.popleft() for _ in range(count))
            try:
                self._deliver(self._under_way)
            except Exception:  # noqa: BLE001 - the next errand may be sound
                _log.exception("%s: a fault; what was under way is lost", self._name)
            with self._changed:
                self._under_way = ()


class Limited:
    """Calls one place, each call within a limit, and again where that may help.

    A call that does not come back is left to itself, in a thread of its own; while it hangs no other is begun, so that
    there is one such thread for a place at most.

    Parameters:
        limit: seconds for one call.
        pauses: seconds before each repetition.
    """

    def __init__(self, limit: float = LIMIT, pauses: Sequence[float] = PAUSES) -> None:
        self._limit = limit
        self._pauses = tuple(pauses)
        self._hanging: threading.Thread | None = None
        self._pause = threading.Event()

    def call(self, service: str, send: Callable[[], None]) -> None:
        """Raises the Trouble of the last call. Whatever else is raised is told by its name alone: its text may hold a URL."""
        for pause in (*self._pauses, None):
            try:
                self._once(service, send)
                return
            except Trouble as trouble:
                if trouble.code.permanent or pause is None:
                    raise
                self._pause.wait(max(pause, min(trouble.retry_after or 0.0, self._limit)))

    def _once(self, service: str, send: Callable[[], None]) -> None:
        if self._hanging is not None:
            self._hanging.join(self._limit)
            if self._hanging.is_alive():
                raise Trouble(Code.UNAVAILABLE, service, "an earlier call has no answer yet")
        raised: list[Exception] = []

        def work() -> None:
            try:
                send()
            except Exception as error:  # noqa: BLE001 - raised again where it is waited for
                raised.append(error)

        self._hanging = thread = threading.Thread(target=work, name=f"{service}, one call", daemon=True)
        thread.start()
        thread.join(self._limit)
        if thread.is_alive():
            raise Trouble(Code.UNAVAILABLE, service, f"no answer within {self._limit:g} s")
        self._hanging = None
        for error in raised:
            if isinstance(error, Trouble):
                raise error
            raise Trouble(Code.UNAVAILABLE, service, type(error).__name__) from None


def judged(status: int) -> Code:
    """What the status of an HTTP answer means for whether it is worth trying again."""
    if status == 429:
        return Code.THROTTLED
    if status in (401, 403):
        return Code.DENIED
    if status in (404, 410):
        return Code.NOT_FOUND
    return Code.INVALID if 300 <= status < 500 and status not in (408, 425) else Code.UNAVAILABLE
