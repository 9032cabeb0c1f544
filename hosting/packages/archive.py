"""Writes a zip whose bytes depend on its contents alone: same files, same archive, on whatever day and machine."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can hold."""
_UNIX: Final = 3
_FILE: Final = 0o100644 << 16
"""A regular file that everybody may read, as platforms that run packages under another user need it."""


class Unpackable(ValueError):  # noqa: N818 - says of the stack what it is
    """The stack can not be packed as it is; the text says why."""


def write(path: Path, entries: Mapping[str, bytes]) -> None:
    """Writes the archive in the order of the entries' names, in place of what was there.

    Parameters:
        path: the archive; its folder is made when absent.
        entries: contents by name, with `/` between folders.

    Raises:
        ValueError: a name is not a plain relative path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in entries:
        if name != str(PurePosixPath(name)) or name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{name!r} is not a plain relative path")
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(entries):
            about = zipfile.ZipInfo(name, _EPOCH)
            about.create_system, about.external_attr = _UNIX, _FILE
            about.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(about, entries[name], compresslevel=9)


def modules(root: Path, *folders: str) -> dict[str, bytes]:
    """Every source and description file below these folders, by its path from the root; nothing that was compiled."""
    found = (path for folder in folders for path in sorted((root / folder).rglob("*")))
    wanted = (path for path in found if path.suffix in (".py", ".yaml") and path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in wanted if "__pycache__" not in path.parts}
