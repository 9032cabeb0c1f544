"""The audit trail on disk, and on a stream that a platform keeps."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, TextIO

from rotation.audit.chain import Head
from rotation.audit.trail import ChainedAuditor, Kept, unkept

_TAIL: Final = 65_536
"""Bytes of a file's end in which its last line is looked for."""


class FilePlace:
    """One line after the other in a file that is appended to and never rewritten; kept when it is on disk.

    Several processes may share a file: lines go out in one write with O_APPEND.

    Parameters:
        path: created with mode 0600 when absent, its folder too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._close: Callable[[], object] | None = None

    @property
    def name(self) -> str:
        return str(self._path)

    def keep(self, writer: str, seq: int, lines: Sequence[str], at: datetime) -> None:  # noqa: ARG002 - as the port
        """See Place."""
        data = "".join(lines).encode()
        try:
            with self._lock:
                descriptor = self._open()
                if self._is_torn(descriptor):
                    data = b"\n" + data  # so that what somebody could not finish takes no line of ours with it
                written = os.write(descriptor, data)
                os.fsync(descriptor)
        except OSError as error:
            raise unkept(self.name, error.strerror or str(error)) from None
        if written != len(data):
            raise unkept(self.name, "the disk took only part of a record")

    def last(self) -> Head | None:
        """See Place."""
        try:
            if not self._path.is_file():  # a device may have no end
                return None
            with self._path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
                whole = file.read(_TAIL).decode("utf-8", "replace").rpartition("\n")[0]
        except OSError:
            return None
        return Head.of(whole.rpartition("\n")[2] + "\n")

    def read(self) -> Iterator[Kept]:
        """See Place. A file that is not there has no lines."""
        try:
            with self._path.open(encoding="utf-8", errors="replace", newline="\n") as file:
                for number, line in enumerate(file, 1):
                    yield Kept(f"{self._path}:{number}", line)
        except FileNotFoundError:
            return
        except OSError as error:
            raise unkept(self.name, f"can not be read: {error.strerror}") from None

    def _open(self) -> int:
        if self._descriptor is not None and self._close is not None and not os.fstat(self._descriptor).st_nlink:
            self._close()  # somebody has deleted it: nobody would ever read what is written there
            self._descriptor = None
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            try:
                self._descriptor = os.open(self._path, flags | os.O_RDWR, 0o600)
            except PermissionError:
                self._descriptor = os.open(self._path, flags | os.O_WRONLY, 0o600)
            self._close = weakref.finalize(self, _closed, self._descriptor)
        return self._descriptor

    def _is_torn(self, descriptor: int) -> bool:
        """Whether its last line was left unfinished, by a full disk or a crash."""
        size = os.fstat(descriptor).st_size
        try:
            return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        except OSError:  # open for writing alone: a reader finds the pieces all the same
            return False


def _closed(descriptor: int) -> None:
    """Closes it, unless somebody in this process has done so by mistake."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


class StreamPlace:
    """Each record as one line of a stream, for a host whose disk does not outlive it and whose platform keeps what is
    printed.

    Parameters:
        stream: standard output, as a rule.
    """

    name: Final = "standard output"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def keep(self, writer: str, seq: int, lines: Sequence[str], at: datetime) -> None:  # noqa: ARG002 - as the port
        """See Place. Nobody takes the line: that is Trouble."""
        try:
            with self._lock:
                self._stream.write("".join(lines))
                self._stream.flush()
        except (OSError, ValueError) as error:  # a closed stream is a ValueError
            raise unkept(self.name, str(error)) from None

    def last(self) -> Head | None:
        """See Place. What was printed can not be read back."""
        return None

    def read(self) -> Iterator[Kept]:
        """See Place."""
        raise unkept(self.name, "is kept by the platform; save its lines to a file and give that with --file")


class FileAuditor(ChainedAuditor):
    """A trail in one file.

    Parameters:
        path: see FilePlace.
    """

    def __init__(self, path: Path, installation: str = "", environment: str = "") -> None:
        super().__init__([FilePlace(path)], installation=installation, environment=environment)


class StreamAuditor(ChainedAuditor):
    """A trail on one stream.

    Parameters:
        stream: see StreamPlace.
    """

    def __init__(self, stream: TextIO, installation: str = "", environment: str = "") -> None:
        super().__init__([StreamPlace(stream)], installation=installation, environment=environment)
