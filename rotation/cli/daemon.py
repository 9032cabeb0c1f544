"""The command `keyturn run`: the sweep as a long-running process, with signals, probes and metrics."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated

import typer

from rotation.cli.context import File, Stack, UsageFault, open_context
from rotation.daemon import Daemon
from rotation.observe.board import Board
from rotation.observe.environment import watcher
from rotation.observe.instruments import Measure
from rotation.observe.serving import Answer, plain, serving
from rotation.policy import read_duration
from rotation.ports import Clock
from rotation.telemetry import Several

_log = logging.getLogger(__name__)

_SHORTEST = timedelta(seconds=1)
_AWAKE = 0.2
"""Seconds until a signal is heard, at most: one that comes just before a wait begins would else wait for its end."""


def run(
    stack: Stack = None,
    config: File = None,
    every: Annotated[
        str,
        typer.Option("--every", metavar="DURATION", help="Sweep at least so often; earlier where a date comes first."),
    ] = "5m",
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where /healthz, /readyz and /metrics are answered.")
    ] = "127.0.0.1:9464",
    stop_within: Annotated[
        str,
        typer.Option("--stop-within", metavar="DURATION", help="When asked to end, cut off what then takes longer."),
    ] = "25s",
) -> None:
    """Sweep for as long as it runs: on time, again after failures, until told to stop. Made for services and pods.

    Each secret's next date wakes it, and --every where none comes first. A second process beside it does no harm, and
    takes over when this one is gone. On SIGTERM or Ctrl-C it finishes the effects in hand, starts nothing new, and exits
    0 within --stop-within; a second signal ends it at once. Either way the journal tells the next sweep how to go on.

    /healthz is 200 while the loop turns; /readyz once a sweep has reached every store; /metrics is for Prometheus. Nothing
    there is secret, but it names your secrets: listen where monitoring can reach, and nobody else. What happens is
    logged on standard error as JSON lines, a line for each change; KEYTURN_LOG_LEVEL sets how much.

    Exit codes: 0 stopped as asked; 2 usage or configuration.

    Example: keyturn run --stack prod --every 5m --listen 127.0.0.1:9464
    """
    from rotation.observe.prometheus import Prometheus  # noqa: PLC0415 - for this command alone

    interval, bound = _duration("--every", every), _duration("--stop-within", stop_within)
    host, port = _address(listen)
    if "KEYTURN_LOG_LEVEL" not in os.environ:
        logging.getLogger("rotation").setLevel(logging.INFO)
    board, stopping = Board(), threading.Event()

    def read() -> list[Measure]:
        return board.read(context.assembly.clock.now())

    prometheus = Prometheus(read)
    watches = Several(prometheus, watcher(os.environ, read))
    context = open_context(stack, config, telemetry=watches, stopping=stopping.is_set)
    context.open(context.declared(None))
    chance = secrets.SystemRandom().random
    daemon = Daemon(context.assembly, board, stopping, interval, chance, context.path.name)

    def metrics(accept: str) -> Answer:
        return HTTPStatus.OK, *prometheus.scrape(accept)

    def alive(_: str) -> Answer:
        good = daemon.health().alive
        return plain(good, "the loop turns" if good else "the loop has not turned for too long")

    def ready(_: str) -> Answer:
        health = daemon.health()
        return plain(health.ready, health.reason)

    pages = {"/healthz": alive, "/readyz": ready, "/metrics": metrics}
    try:
        with _signals(stopping, bound), serving(host, port, pages) as taken:
            _log.info("listening on http://%s:%d; sweeping every %s", host, taken, every)
            _notify("READY=1")
            _beside(daemon, context.assembly.clock)
    except OSError as error:
        raise UsageFault(f"--listen {listen}: {error.strerror or error}") from None
    _log.info("stopped; the next sweep goes on from the journal")


def _beside(daemon: Daemon, clock: Clock) -> None:
    """Sweeps in a thread of its own. The main one stays awake: only there a signal is heard; and it feeds the watchdog."""
    thread = threading.Thread(target=daemon.run, name="keyturn-sweeps", daemon=True)
    thread.start()
    period = int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000
    fed = clock.monotonic()
    while thread.is_alive():
        thread.join(_AWAKE)
        if period and clock.monotonic() - fed >= period and daemon.health().alive:
            fed = clock.monotonic()
            _notify("WATCHDOG=1")


def _duration(option: str, text: str) -> timedelta:
    try:
        found = read_duration(text)
    except ValueError as error:
        raise UsageFault(f"{option}: {error}") from None
    if found < _SHORTEST:
        raise UsageFault(f"{option}: {text} is less than {_SHORTEST.total_seconds():.0f}s")
    return found


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageFault(f"--listen: {listen!r} is not HOST:PORT, as in 127.0.0.1:9464; port 0 takes a free one")
    return host.removeprefix("[").removesuffix("]"), int(port)


@contextmanager
def _signals(stopping: threading.Event, bound: timedelta) -> Iterator[None]:
    """SIGTERM and Ctrl-C set `stopping`, and end the process when that takes too long; a second one ends it at once."""

    def cut_off() -> None:
        _log.warning("cut off after %.0f s; the next sweep goes on from the journal", bound.total_seconds())
        logging.shutdown()
        os._exit(0)

    def on_signal(number: int, _: object) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()
        _notify("STOPPING=1")
        timer = threading.Timer(bound.total_seconds(), cut_off)
        timer.daemon = True
        timer.start()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _notify(state: str) -> None:
    """Tells systemd, where it asked for it: https://www.freedesktop.org/software/systemd/man/sd_notify.html."""
    where = os.environ.get("NOTIFY_SOCKET")
    if not where:
        return
    address = f"\0{where[1:]}" if where.startswith("@") else where
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), address)
    except OSError as error:
        _log.warning("systemd could not be told %s: %s", state, error.strerror)
