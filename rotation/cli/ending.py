"""How commands end: exit codes, and what Ctrl-C does while threads are at work."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rotation.cli import show

DONE, FAILED, USAGE, ALIVE = 0, 1, 2, 3
"""Exit codes. ALIVE: a credential that should be dead is alive, or not shown dead."""
INTERRUPTED: Final = 130
"""As shells have it; Typer ends a command so when Ctrl-C is pressed."""

ON_INTERRUPT: Final = "Interrupted. What was begun is in the journal: run it again, or let the next sweep go on."


@contextmanager
def left_at_once(told: str = ON_INTERRUPT) -> Iterator[None]:
    """Lets Ctrl-C end the process there and then, not when every thread has done its work or waited its time.

    To the secrets that is a crash, which the journal is made for.

    Parameters:
        told: what the person reads then.
    """

    def leave(*_: object) -> None:
        show.err.show_cursor()
        show.complain(told)
        os._exit(INTERRUPTED)

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
