"""What was told already, to whom: so that nothing is told twice, by whichever process.

    notices.json   told:     (channel, kind, secret) ──► the last notice that was told, and when
                   troubles: (channel, secret) ──► what is to be resolved
                   read:     (secret, consumer) ──► the version that the consumer was last made to read

A claim comes before the telling, under a lock on a file beside; what could not be told gives its claim back, and a claim
of a process that died lapses. So a notice may come twice after a crash, and none is lost to one.

Without a file, or where it can not be written, the memory is that of the process: a function knows what it told
since it was started, and no more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from rotation.files import write_private
from rotation.ports import Notice

_log = logging.getLogger(__name__)

LAPSE: Final = timedelta(minutes=5)
"""After this long a claim that came to nothing counts no more: longer than all repetitions of a call take."""
KEPT: Final = timedelta(days=400)
"""A schedule may be a year long: what is told once per date is remembered for longer."""
MOST: Final = 20_000
"""Entries of each kind; the oldest go first."""
ONCE: Final = ("rotation.before", "rotation.done", "rotation.resolved")
"""Kinds that are never told again while nothing has changed."""
PER_KEY: Final = ("usage.retired", "usage.jump")
"""Kinds that are told of one key, and of another one beside."""
TROUBLES: Final = ("rotation.failed", "rotation.hold")
RESOLVED: Final = "rotation.resolved"

_TABLES: Final = ("told", "troubles", "read")
_SEPARATOR: Final = " "
"""No name has one."""


@dataclass(slots=True)
class _State:
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    troubles: dict[str, dict[str, Any]] = field(default_factory=dict)
    read: dict[str, dict[str, Any]] = field(default_factory=dict)


class Memory:
    """Threads and processes may share it.

    Parameters:
        path: of the file; its folder is made. None for a memory of this process alone.
        now: the time.
    """

    def __init__(self, path: Path | None, now: Callable[[], datetime]) -> None:
        self._path = path
        self._now = now
        self._lock = threading.RLock()
        self._state = _State()
        self._stamp: tuple[int, ...] = ()

    # --- notices -----------------------------------------------------------------------------------

    def news(self, channel: str, notice: Notice, repeat_after: timedelta) -> bool:
        """Whether a channel is to be told, by a look without the lock: claim() decides."""
        with self._lock:
            self._reload()
            return self._is_news(self._state, channel, notice, repeat_after)

    def claim(self, channel: str, notices: Iterable[Notice], repeat_after: timedelta) -> list[Notice]:
        """Those that the caller is to tell a channel; nobody else is then, until told() or dropped()."""
        with self._changing() as state:
            claimed = []
            for notice in notices:
                if self._is_news(state, channel, notice, repeat_after):
                    key = _key(channel, notice.kind, notice)
                    state.told[key] = {"same": _same(notice), "at": self._at(), "sure": False}
                    claimed.append(notice)
            return claimed

    def told(self, channel: str, notices: Iterable[Notice]) -> None:
        """A channel has taken notices that were claimed."""
        with self._changing() as state:
            for notice in notices:
                key, trouble = _key(channel, notice.kind, notice), _place(channel, notice)
                if state.told.get(key, {}).get("same") == _same(notice):
                    state.told[key] |= {"at": self._at(), "sure": True}
                if notice.kind in TROUBLES:
                    state.troubles[trouble] = {"kind": notice.kind, "at": self._at()}
                elif notice.kind == RESOLVED:
                    # The same trouble is news when it comes again.
                    state.troubles.pop(trouble, None)
                    for kind in TROUBLES:
                        state.told.pop(_key(channel, kind, notice), None)

    def dropped(self, channel: str, notices: Iterable[Notice]) -> None:
        """Notices that were claimed could not be told: whoever comes next tells them."""
        with self._changing() as state:
            for notice in notices:
                key = _key(channel, notice.kind, notice)
                if state.told.get(key, {}).get("same") == _same(notice):
                    del state.told[key]

    def _is_news(self, state: _State, channel: str, notice: Notice, repeat_after: timedelta) -> bool:
        if notice.kind == RESOLVED and _place(channel, notice) not in state.troubles:
            return False
        known = state.told.get(_key(channel, notice.kind, notice))
        if known is None or known.get("same") != _same(notice):
            return True
        age = self._now() - datetime.fromisoformat(known["at"])
        if not known.get("sure"):
            return age >= LAPSE
        # What was resolved is open again by then; anything else that is told once stays told.
        return notice.kind == RESOLVED or (notice.kind not in ONCE and age >= repeat_after)

    # --- consumers ---------------------------------------------------------------------------------

    def must_read(self, environment: str, secret: str, consumer: str, version: str, *, fresh: bool) -> bool:
        """Whether the caller is to make a consumer read a version; nobody else is then, until read() or unread().

        Parameters:
            fresh: it was promoted just now. A version that is met for the first time otherwise was there before
                Keyturn looked after this consumer, and is taken to have been read.
        """
        key = _SEPARATOR.join((environment, secret, consumer))

        def is_due(known: Mapping[str, Any] | None) -> bool:
            if known is None:
                return fresh
            if known.get("version") != version:
                return True
            return not known.get("sure") and self._now() - datetime.fromisoformat(known["at"]) >= LAPSE

        with self._lock:
            self._reload()
            known = self._state.read.get(key)
        if known is not None and not is_due(known):
            return False
        with self._changing() as state:
            due = is_due(known := state.read.get(key))
            if due or known is None:
                state.read[key] = {"version": version, "at": self._at(), "sure": not due}
            return due

    def read(self, environment: str, secret: str, consumer: str, version: str, *, done: bool) -> None:
        """How it went with what must_read() has claimed; what failed is due again at once."""
        key = _SEPARATOR.join((environment, secret, consumer))
        with self._changing() as state:
            if state.read.get(key, {}).get("version") == version:
                at = self._at() if done else (self._now() - LAPSE).isoformat()
                state.read[key] = {"version": version, "at": at, "sure": done}

    # --- the file ----------------------------------------------------------------------------------

    def _at(self) -> str:
        return self._now().isoformat()

    @contextmanager
    def _changing(self) -> Iterator[_State]:
        with self._lock, self._alone():
            self._reload()
            yield self._state
            self._save()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps other processes out, where there is a file to share."""
        if self._path is None:
            yield
            return
        descriptor = -1
        try:
            import fcntl  # noqa: PLC0415 - not on every platform; there each process goes by what it last read

            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except ImportError:
            pass
        except OSError as error:
            self._alone_from_now_on(error)
        try:
            yield
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _reload(self) -> None:
        """Reads the file where another process has changed it. One that can not be read counts as empty."""
        if self._path is None:
            return
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if stamp == self._stamp:
                return
            whole = json.loads(self._path.read_text(encoding="utf-8"))
            self._state = _State(**{name: _sound(whole.get(name)) for name in _TABLES})
            self._stamp = stamp
        except FileNotFoundError:
            self._state, self._stamp = _State(), ()
        except (OSError, ValueError, AttributeError) as error:
            _log.warning(
                "%s can not be read (%s): what was told before is told again", self._path, type(error).__name__
            )
            self._state, self._stamp = _State(), ()

    def _save(self) -> None:
        for name in _TABLES:
            _bound(getattr(self._state, name), self._now())
        if self._path is None:
            return
        text = json.dumps({name: getattr(self._state, name) for name in _TABLES}, indent=1, sort_keys=True)
        try:
            write_private(self._path, text + "\n")
            found = self._path.stat()
            self._stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        except OSError as error:
            self._alone_from_now_on(error)

    def _alone_from_now_on(self, error: OSError) -> None:
        _log.warning("%s can not be kept (%s): only this process knows what it told", self._path, error.strerror)
        self._path = None


def _same(notice: Notice) -> str:
    return hashlib.sha256(notice.same_as.encode()).hexdigest()[:32]


def _key(channel: str, kind: str, notice: Notice) -> str:
    about = (notice.facts["key_id"],) if kind in PER_KEY else ()
    return _SEPARATOR.join((channel, kind, notice.environment, notice.secret, *about))


def _place(channel: str, notice: Notice) -> str:
    return _SEPARATOR.join((channel, notice.environment, notice.secret))


def _sound(table: object) -> dict[str, dict[str, Any]]:
    """Entries as they were written; what somebody else has put in is left out."""
    found = table.items() if isinstance(table, dict) else ()
    return {str(key): entry for key, entry in found if isinstance(entry, dict) and _dated(entry)}


def _dated(entry: Mapping[str, Any]) -> bool:
    try:
        return datetime.fromisoformat(entry["at"]).tzinfo is not None and entry.get("sure", True) in (True, False)
    except (KeyError, TypeError, ValueError):
        return False


def _bound(table: dict[str, dict[str, Any]], now: datetime) -> None:
    """Forgets what is old, and the oldest of what is too much."""
    oldest = (now - KEPT).isoformat()
    for key in [key for key, entry in table.items() if entry["at"] < oldest]:
        del table[key]
    for key in sorted(table, key=lambda key: str(table[key]["at"]))[: max(len(table) - MOST, 0)]:
        del table[key]
