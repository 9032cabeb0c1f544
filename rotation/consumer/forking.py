"""What a fork leaves behind: locks that a thread of the parent holds, and connections that are the parent's."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol


class Forks(Protocol):
    def forked(self) -> None:
        """Called in the child, before anything else runs there."""


_all: Final[weakref.WeakSet[Forks]] = weakref.WeakSet()


def watch(owner: Forks) -> None:
    """From now on its forked() is called in every child, for as long as it lives."""
    _all.add(owner)


def _forked() -> None:
    for owner in list(_all):
        owner.forked()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forked)
