"""What long-running commands share: addresses and durations, signals, and what they tell systemd."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rotation.cli.context import UsageFault
from rotation.policy import read_duration

_log = logging.getLogger(__name__)

_SHORTEST = timedelta(seconds=1)


def duration(option: str, text: str) -> timedelta:
    """Raises UsageFault for what is none, or less than a second."""
    try:
        found = read_duration(text)
    except ValueError as error:
        raise UsageFault(f"{option}: {error}") from None
    if found < _SHORTEST:
        raise UsageFault(f"{option}: {text} is less than {_SHORTEST.total_seconds():.0f}s")
    return found


def address(listen: str, usual: str) -> tuple[str, int]:
    """Host and port of --listen. Raises UsageFault for what is neither.

    Parameters:
        usual: what messages give for an example.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageFault(f"--listen: {listen!r} is not HOST:PORT, as in {usual}; port 0 takes a free one")
    return host.removeprefix("[").removesuffix("]"), int(port)


@contextmanager
def signals(stopping: threading.Event, bound: timedelta, then: str) -> Iterator[None]:
    """SIGTERM and Ctrl-C set `stopping`, and end the process when that takes too long; a second one ends it at once.

    Parameters:
        then: what happens next by itself, for the log of a process that was cut off.
    """

    def cut_off() -> None:
        _log.warning("cut off after %.0f s; %s", bound.total_seconds(), then)
        logging.shutdown()
        os._exit(0)

    def on_signal(number: int, _: object) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()
        notify("STOPPING=1")
        timer = threading.Timer(bound.total_seconds(), cut_off)
        timer.daemon = True
        timer.start()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def notify(state: str) -> None:
    """Tells systemd, where it asked for it: https://www.freedesktop.org/software/systemd/man/sd_notify.html."""
    where = os.environ.get("NOTIFY_SOCKET")
    if not where:
        return
    path = f"\0{where[1:]}" if where.startswith("@") else where
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), path)
    except OSError as error:
        _log.warning("systemd could not be told %s: %s", state, error.strerror)
