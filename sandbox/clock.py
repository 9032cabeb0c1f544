"""The sandbox's clock: real time plus an offset that the demo moves forward, shared by every stand-in through a file."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rotation.documents import write_private


def real_time() -> datetime:
    """The machine's time, in UTC and aware."""
    return datetime.now(UTC)


class SandboxClock:
    """Time as the sandbox's processes see it.

    The file holds ``{"offset_seconds": 90.0}``; a missing file means offset 0. It is written by replacement, so a reader
    never sees half of it, and read again only when its identity changes, so that asking for the time stays cheap. One
    process moves the clock at a time; any number read it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None  # (mtime_ns, inode) of the file that _offset was read from
        self._offset = timedelta()

    def now(self) -> datetime:
        """The sandbox's time, in UTC and aware."""
        return real_time() + self._read()

    def move(self, by: timedelta) -> None:
        """Moves the clock forward for everyone who reads the same file.

        Raises:
            ValueError: `by` is negative; a clock that goes back would make records appear from the future.
        """
        if by < timedelta():
            raise ValueError(f"the sandbox's clock only moves forward, not by {by}")
        offset = self._read() + by
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_private(self._path, json.dumps({"offset_seconds": offset.total_seconds()}))

    def _read(self) -> timedelta:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return timedelta()
        seen = (status.st_mtime_ns, status.st_ino)
        if seen != self._seen:
            self._offset = timedelta(seconds=json.loads(self._path.read_text())["offset_seconds"])
            self._seen = seen
        return self._offset
