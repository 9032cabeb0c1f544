"""How values get to a child process: in variables of its environment, or in files in memory whose paths are there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from rotation.cli.context import UsageFault
from rotation.consumer import Value

_IN_MEMORY: Final = ("tmpfs", "ramfs")
_MOUNTS: Final = Path("/proc/self/mounts")


class Files:
    """A folder in memory that only this user can look into, with a file for each value; removed in the end.

    Parameters:
        env: says which folder this user has for such things ($XDG_RUNTIME_DIR).

    Raises:
        UsageFault: there is no place in memory, and files on disk would outlive the secrets.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        places = [env.get("XDG_RUNTIME_DIR"), f"/run/user/{os.getuid()}", "/dev/shm"]  # noqa: S108 - checked to be in memory
        for place in (Path(place) for place in places if place):
            if place.is_dir() and os.access(place, os.W_OK) and _filesystem(place) in _IN_MEMORY:
                self.folder = Path(tempfile.mkdtemp(prefix="keyturn-exec-", dir=place))  # 0700
                return
        raise UsageFault("--file: there is no file system in memory for it ($XDG_RUNTIME_DIR, /dev/shm); use --secret")

    def write(self, name: str, value: Value) -> Path:
        """Puts a value into its file in one step: whoever reads finds the old one or the new one."""
        path = self.folder / name
        fresh = path.with_name(f".{name}")
        with suppress(FileNotFoundError):
            fresh.unlink()  # of a write that was cut off
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(value.reveal())
        fresh.replace(path)
        return path

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _filesystem(place: Path) -> str:
    """The type of file system that a folder is on; empty where the system does not tell."""
    found, longest = "", -1
    try:
        mounts = _MOUNTS.read_text().splitlines()
    except OSError:
        return ""
    whole = place.resolve()
    for line in mounts:
        _, at, kind, *_ = line.split(" ")
        point = Path(at.encode().decode("unicode_escape"))
        if whole.is_relative_to(point) and len(point.parts) >= longest:  # of two on one point, the later one is on top
            found, longest = kind, len(point.parts)
    return found
