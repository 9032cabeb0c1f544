"""The sandbox's clock: real time plus an offset that the demo moves forward, shared by every stand-in through a file."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rotation.files import write_private


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


def main() -> None:
    """`python -m sandbox.clock 29d`: lets so much time pass for the sandbox around the working directory."""
    reader = argparse.ArgumentParser(prog="python -m sandbox.clock", description=main.__doc__)
    reader.add_argument("span", metavar="SPAN", help="a number and one of d, h, m, as in 29d", type=_span)
    span: timedelta = reader.parse_args().span
    from sandbox.home import find_home  # noqa: PLC0415 - the servers that read the clock need no home

    clock = SandboxClock(find_home(Path.cwd()).clock)
    clock.move(span)
    print(f"It is now {clock.now():%Y-%m-%d %H:%M}Z in the sandbox.")


def _span(text: str) -> timedelta:
    units = {"d": "days", "h": "hours", "m": "minutes"}
    if not text[:-1].isdecimal() or text[-1] not in units:
        raise argparse.ArgumentTypeError("a number and one of d, h, m is expected, as in 29d")
    return timedelta(**{units[text[-1]]: int(text[:-1])})


if __name__ == "__main__":
    main()
