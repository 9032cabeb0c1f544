"""Files of Keyturn's own: written as a whole, for their user only."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_private(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Replaces a file as a whole, mode 0600: a reader sees the old content or the new, never a part.

    Parameters:
        path: in a folder that is there.
        durable: it outlives a loss of power, too, for the price of an fsync.

    Raises:
        OSError: the disk does not take it. The old content stays, and nothing beside it.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
