"""The audit trail as JSON lines: in a file that is appended to and never rewritten, or on a stream that a platform keeps."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from rotation.errors import Code, Trouble
from rotation.logs import masked_parts
from rotation.ports import Record


class FileAuditor:
    """Appends each record as one line and waits until it is on disk.

    Several processes may share a file: a line goes out in one write with O_APPEND.

    Parameters:
        path: created with mode 0600 when absent, its folder too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._descriptor: int | None = None

    def write(self, record: Record) -> None:
        """Raises Trouble(UNAVAILABLE) when the record can not be kept; the caller must then do nothing."""
        line = _line(record).encode()
        try:
            with self._lock:
                if self._descriptor is None:
                    self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                written = os.write(self._descriptor, line)
                os.fsync(self._descriptor)
        except OSError as error:
            raise Trouble(Code.UNAVAILABLE, "audit trail", f"{self._path}: {error.strerror}") from None
        if written != len(line):
            raise Trouble(Code.UNAVAILABLE, "audit trail", f"{self._path}: the disk took only part of a record")


class StreamAuditor:
    """Writes each record as one line of a stream, for a host whose disk does not outlive it and whose platform keeps
    what is printed.

    Parameters:
        stream: standard output, as a rule.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, record: Record) -> None:
        """Raises Trouble(UNAVAILABLE) when nobody takes the line; the caller must then do nothing."""
        try:
            with self._lock:
                self._stream.write(_line(record))
                self._stream.flush()
        except (OSError, ValueError) as error:  # a closed stream is a ValueError
            raise Trouble(Code.UNAVAILABLE, "audit trail", f"standard output: {error}") from None


def _line(record: Record) -> str:
    shown = {name: value for name, value in asdict(record).items() if value not in (None, "", {})}
    shown["at"] = record.at.isoformat()
    # No record should hold a value; but reasons quote services, and what is written here stays.
    return json.dumps(masked_parts(shown), sort_keys=True) + "\n"
