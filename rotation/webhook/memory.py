"""Which deliveries were taken, so that none is taken twice, and what of them is left to do after a restart.

A file of names, numbers, times and digests: no value is in it, as none is in a delivery. It is replaced as a whole and on
disk before a delivery is answered.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from rotation.errors import Code, Trouble
from rotation.files import write_private
from rotation.webhook.delivery import Alert

ROOM: Final = 4096
"""Deliveries that are remembered. Of those that are done the oldest go first."""
WAITING: Final = 1024
"""Deliveries that may wait for their turn. With as many nothing more is taken: an answer of 503 shows at GitHub."""


class State(StrEnum):
    """How far a delivery is."""

    WAITING = "waiting"
    """Taken, and not done yet."""
    DONE = "done"
    GIVEN_UP = "given up"
    """It can be sent again: then it is taken anew."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One delivery that was taken."""

    id: str
    """GitHub's, of the delivery."""
    alert: Alert
    at: datetime
    state: State = State.WAITING
    outcome: str = ""
    """What became of it, in words."""


class Deliveries:
    """The memory. Threads may share it.

    Parameters:
        path: its file; made when absent, mode 0600.
        now: the time.

    Raises:
        Trouble: the file is there and can not be read (INVALID): what was taken before is not known then.
    """

    def __init__(self, path: Path, now: Callable[[], datetime], room: int = ROOM, waiting: int = WAITING) -> None:
        self.path: Final = path
        self._now = now
        self._room = room
        self._waiting = waiting
        self._lock = threading.Lock()
        self._taken: dict[str, Taken] = {one.alert.digest: one for one in self._load()}
        self._ids = {one.id: digest for digest, one in self._taken.items()}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the file for this process.

        Raises:
            Trouble: another process has it (CONFLICT), or it can not be had.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            held = os.open(self.path.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Trouble(Code.UNAVAILABLE, "webhook", f"{self.path}: {error.strerror}") from None
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Trouble(Code.CONFLICT, "webhook", f"{self.path}: another process takes deliveries in") from None
            yield
        finally:
            os.close(held)

    def take(self, delivery: str, alert: Alert) -> bool:
        """Notes a delivery, on disk. False when it was taken before, under this id or with this body.

        Raises:
            Trouble: it can not be written down (UNAVAILABLE), or as many wait as may (LIMIT); it is not taken then.
        """
        with self._lock:
            known = self._taken.get(alert.digest) or self._taken.get(self._ids.get(delivery, ""))
            if known is not None and known.state is not State.GIVEN_UP:
                return False
            if sum(one.state is State.WAITING for one in self._taken.values()) >= self._waiting:
                raise Trouble(Code.LIMIT, "webhook", f"{self._waiting} deliveries wait already")
            after = {digest: one for digest, one in self._taken.items() if one is not known}
            self._keep(after | {alert.digest: Taken(delivery, alert, self._now())})
            return True

    def end(self, alert: Alert, state: State, outcome: str) -> None:
        """Notes what became of it. Raises Trouble(UNAVAILABLE): after a restart it would be done once more."""
        with self._lock:
            if (one := self._taken.get(alert.digest)) is not None:
                self._keep(self._taken | {alert.digest: replace(one, state=state, outcome=outcome)})

    def left(self) -> list[Alert]:
        """What was taken and is not done, oldest first."""
        with self._lock:
            return [one.alert for one in self._taken.values() if one.state is State.WAITING]

    def _keep(self, taken: dict[str, Taken]) -> None:
        spare = len(taken) - self._room
        for digest in [digest for digest, one in taken.items() if one.state is not State.WAITING][: max(spare, 0)]:
            del taken[digest]
        self._save(taken)
        self._taken, self._ids = taken, {one.id: digest for digest, one in taken.items()}

    # --- the file --------------------------------------------------------------------------------

    def _load(self) -> list[Taken]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise Trouble(Code.INVALID, "webhook", f"{self.path} can not be read: {type(error).__name__}") from None
        try:
            return [_read(one) for one in json.loads(text)["deliveries"]]
        except (ValueError, KeyError, TypeError):
            told = f"{self.path} is not a list of deliveries; move it away, and those of before count as new"
            raise Trouble(Code.INVALID, "webhook", told) from None

    def _save(self, taken: dict[str, Taken]) -> None:
        text = json.dumps({"deliveries": [_written(one) for one in taken.values()]}) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(self.path, text, durable=True)
        except OSError as error:
            raise Trouble(Code.UNAVAILABLE, "webhook", f"{self.path}: {error.strerror}") from None


def _written(one: Taken) -> dict[str, Any]:
    return {**asdict(one), "at": one.at.isoformat()}


def _read(one: dict[str, Any]) -> Taken:
    alert = Alert(**one["alert"])
    return Taken(one["id"], alert, datetime.fromisoformat(one["at"]), State(one["state"]), one["outcome"])
