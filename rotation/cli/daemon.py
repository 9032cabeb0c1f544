"""The command `keyturn run`: the sweep as a long-running process, with signals, probes and metrics."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from http import HTTPStatus
from typing import Annotated

import typer

from rotation.cli.context import File, Stack, UsageFault, open_context
from rotation.cli.service import address, duration, notify, signals
from rotation.daemon import Daemon
from rotation.observe.board import Board
from rotation.observe.environment import watcher
from rotation.observe.instruments import Measure
from rotation.observe.serving import Answer, plain, serving
from rotation.ports import Clock
from rotation.telemetry import Several

_log = logging.getLogger(__name__)

_THEN = "the next sweep goes on from the journal"
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

    interval, bound = duration("--every", every), duration("--stop-within", stop_within)
    host, port = address(listen, "127.0.0.1:9464")
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
        with signals(stopping, bound, _THEN), serving(host, port, pages) as taken:
            _log.info("listening on http://%s:%d; sweeping every %s", host, taken, every)
            notify("READY=1")
            _beside(daemon, context.assembly.clock)
    except OSError as error:
        raise UsageFault(f"--listen {listen}: {error.strerror or error}") from None
    _log.info("stopped; %s", _THEN)


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
            notify("WATCHDOG=1")
