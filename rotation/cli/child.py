"""One child process, as an init of one would keep it: signals are passed on, it is restarted, reaped, and its end is ours."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Final

from rotation.ports import Clock

NOT_EXECUTABLE, NOT_FOUND, KILLED = 126, 127, 128
"""Exit codes as shells have them (POSIX, Shell Command Language, 2.8.2); a signal's number is added to the last."""

WOKEN: Final = signal.SIGALRM
"""Wakes the loop from another thread. Not passed on: nobody sends it to a supervisor."""
_ENDING: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
_PASSED: Final = {*_ENDING, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
HEARD: Final = {*_PASSED, signal.SIGCHLD, WOKEN}


class CanNotStart(Exception):  # noqa: N818 - says what is the case
    """The command is not there, or is none.

    Parameters:
        code: 126 or 127.
    """

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class Child:
    """A command and its process. For the main thread; `HEARD` has to be blocked in all threads, see `blocked`.

    Parameters:
        command: program and arguments.
        environment: made anew for each start; it holds values, so it is not kept.
        grace: between SIGTERM and SIGKILL when it is restarted.
        mask: signals that were blocked before, as the child is to have it.
        woken: called in the loop when WOKEN came.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Callable[[], Mapping[str, str]],
        grace: timedelta,
        mask: Collection[int],
        woken: Callable[[Child], None],
        clock: Clock,
    ) -> None:
        self._command = list(command)
        self._environment = environment
        self._grace = grace.total_seconds()
        self._mask = mask
        self._woken = woken
        self._clock = clock
        self._pid = 0
        self._kill_at: float | None = None
        """Set while it is to end so that it can be started again."""
        self._ending = False
        """Somebody wants it to end: it is not started again."""

    def start(self) -> None:
        """Raises CanNotStart."""
        try:
            self._pid = os.posix_spawnp(
                self._command[0],
                self._command,
                dict(self._environment()),
                setsigmask=self._mask,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores
            )
        except OSError as error:
            code, why = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE, error.strerror
        except ValueError:  # what a variable can not hold; which one it is not told
            code, why = NOT_EXECUTABLE, "a value has a null character, and can be in no environment; use --file"
        else:
            return
        # Not from inside the handler: a traceback would have the environment in its frames.
        raise CanNotStart(code, f"{self._command[0]}: {why}")

    def restart(self) -> None:
        """Asks it to end, and starts it again when it has; what takes longer than the grace is killed."""
        if self._kill_at is None and not self._ending:
            self._kill_at = self._clock.monotonic() + self._grace
            os.kill(self._pid, signal.SIGTERM)

    def tell(self, number: signal.Signals) -> None:
        """Sends it a signal; not while it is about to be started again."""
        if self._kill_at is None:
            os.kill(self._pid, number)

    def run(self) -> int:
        """Until it ends by itself, or because somebody wanted it to. Gives its exit code. Raises CanNotStart."""
        while True:
            heard = self._next()
            if heard is None:
                self._kill_at = float("inf")
                os.kill(self._pid, signal.SIGKILL)
            elif heard.si_signo == signal.SIGCHLD:
                code = self._reap()
                if code is not None and (self._kill_at is None or self._ending):
                    return code
                if code is not None:
                    self._kill_at = None
                    self.start()
            elif heard.si_signo == WOKEN:
                self._woken(self)
            else:
                self._ending = self._ending or heard.si_signo in _ENDING
                # A terminal's own (a positive code, SI_KERNEL) go to the whole foreground group, and so to the child, too.
                if heard.si_code <= 0:
                    os.kill(self._pid, heard.si_signo)

    def _next(self) -> signal.struct_siginfo | None:
        """The next signal; None when the time is up."""
        if self._kill_at is None or self._kill_at == float("inf"):
            return signal.sigwaitinfo(HEARD)
        return signal.sigtimedwait(HEARD, max(0.0, self._kill_at - self._clock.monotonic()))

    def _reap(self) -> int | None:
        """The child's exit code, if it has ended. Orphans that came to us, as they do to a container's first process, go too."""
        ended: int | None = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if not pid:
                return ended
            if pid == self._pid:
                code = os.waitstatus_to_exitcode(status)
                ended = code if code >= 0 else KILLED - code
