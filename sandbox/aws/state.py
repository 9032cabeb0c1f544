"""The AWS stand-in's memory between runs: one file with everything, written by replacement.

The file is a pickle of this sandbox's and moto's objects. It holds the stand-in's secret values in the clear, which is
why only its owner may read it, and it must come from no one else: loading a pickle runs what is in it. It fits the
version of moto that wrote it and no other.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import moto

from rotation.files import write_private

NAME = "aws.pickle"
FORMAT = 1


class StateError(Exception):
    """The state on disk cannot be used."""


def save(directory: Path, state: dict[str, Any]) -> None:
    """Replaces the state, in a file of mode 0600."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = pickle.dumps({"format": FORMAT, "moto": moto.__version__, **state})
    write_private(directory / NAME, content)


def load(directory: Path) -> dict[str, Any] | None:
    """The state that was saved last, or None where there is none yet.

    Raises:
        StateError: the file is someone else's, open to others, or written by another version.
    """
    path = directory / NAME
    if not path.exists():
        return None
    status = path.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise StateError(f"{path} is not yours alone (mode 0600); the AWS stand-in does not load it")
    try:
        state: dict[str, Any] = pickle.loads(path.read_bytes())  # noqa: S301  # only one's own file, checked above
    except Exception as error:  # noqa: BLE001  # a damaged pickle raises whatever its bytes lead to
        raise StateError(f"{path} cannot be read ({type(error).__name__}); delete it to start empty") from None
    if (state.pop("format"), state.pop("moto")) != (FORMAT, moto.__version__):
        raise StateError(f"{path} was written by another version; delete it to start empty")
    return state
