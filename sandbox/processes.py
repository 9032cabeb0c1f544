"""Starts, recognises and stops processes that outlive the command that started them; always by pid and start time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_POLL_SECONDS = 0.02
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Process:
    """One process, told apart from a later one that was given the same pid."""

    pid: int

    started: str
    """When it started, in the system's own terms; opaque, compared only."""


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Polls until the condition holds; False when it did not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def free_port(wanted: int | None = None) -> int:
    """A loopback TCP port that nobody listens on: `wanted` if it is free, else any.

    Somebody else may take it before it is used; whoever starts a server on it must be ready to try another.
    """
    for port in (wanted, 0):
        if port is None:
            continue
        with socket.socket() as probe:
            # Servers listen with this option too; without it a port just closed would look taken for a minute.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def start(command: Sequence[str], *, environment: Mapping[str, str], directory: Path, log: Path) -> Process:
    """Starts a process in a session of its own, with exactly this environment, appending its output to `log`.

    Files that it makes are its user's alone. It survives the caller, and a Ctrl-C meant for the caller.

    Raises:
        OSError: the command cannot be run.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    finally:
        os.close(descriptor)
    # Disowned: otherwise Popen warns, when it is collected, of a child that is meant to go on running.
    child.returncode = 0
    # A child that has ended already still has a start time until somebody waits for it, and nobody but this module does.
    return Process(child.pid, _start_time(child.pid) or "")


def is_running(process: Process) -> bool:
    """Whether exactly this process still runs; a zombie does not."""
    if not process.started or _start_time(process.pid) != process.started:
        return False
    # Collects it if it is a child of this very process and has ended; elsewhere init does.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return _start_time(process.pid, living=True) == process.started


def stop(process: Process, *, patience: float = 10.0) -> bool:
    """Ends the process and what it started in its session: SIGTERM, then SIGKILL after `patience` seconds.

    Returns:
        False when this process was not running any more; nothing was signalled then, whoever has its pid today.

    Raises:
        TimeoutError: it survived even SIGKILL for `patience` seconds.
    """
    if not is_running(process):
        return False
    for stronger in (signal.SIGTERM, signal.SIGKILL):
        if is_running(process):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, stronger)
        if wait_until(lambda: not is_running(process), patience):
            return True
    raise TimeoutError(f"process {process.pid} does not end")


def _start_time(pid: int, *, living: bool = False) -> str | None:
    """When the process with this pid started; None when there is none, or (`living`) it is a zombie.

    Linux: field 22 of /proc/PID/stat, clock ticks since boot (proc(5)), with the boot's id, for ticks repeat from boot to
    boot. Elsewhere: what ps says, to the second.
    """
    if _BOOT_ID.exists():
        try:
            # The second field, the name, is in parentheses and may hold anything, spaces and parentheses included.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, ticks = fields[0], fields[19]
        return None if living and state in "ZX" else f"{_BOOT_ID.read_text().strip()} {ticks}"
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
    )
    state, _, started = answer.stdout.strip().partition(" ")
    return None if not started or (living and state.startswith("Z")) else started.strip()
