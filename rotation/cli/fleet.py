"""The commands `keyturn fleet dispatch` and `keyturn fleet worker`: one sweep for a fleet, by many machines."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rotation import batches, by_celery, crew
from rotation.cli import show
from rotation.cli.context import ENDING, File, Json, Stack, UsageFault, open_context
from rotation.cli.service import duration
from rotation.config import find_stack_file
from rotation.environ import Environ

fleet = typer.Typer(no_args_is_help=True, help="Share the work of a sweep among machines, by a queue.")

VisibleAfter = Annotated[
    str,
    typer.Option(
        "--visible-after", metavar="DURATION", help="A message comes again so long after its worker was lost."
    ),
]
_USUAL = "15m"


@fleet.command()
def dispatch(
    stack: Stack = None,
    config: File = None,
    size: Annotated[
        int, typer.Option("--size", min=1, max=batches.MOST, help="How many secrets a message names at most.")
    ] = batches.SIZE,
    visible_after: VisibleAfter = _USUAL,
    json: Json = False,
) -> None:
    """Look round once, and send the names of all secrets with something to do to the fleet's workers.

    The broker is where KEYTURN_BROKER_URL says: redis://…, rediss://…, amqp://… or amqps://… of Redis, Valkey or RabbitMQ. Made
    for cron: what is sent twice is done once, and what gets lost is sent again by the next dispatch.

    Exit codes: 0 all sent; 1 something could not be looked at, which holds up nothing else; 2 usage or configuration.

    Example: keyturn fleet dispatch --stack prod
    """
    app = by_celery.application(_broker(), duration("--visible-after", visible_after))
    context = open_context(stack, config)
    try:
        sent = crew.dispatch(context.assembly, by_celery.sender(app), context.path.name, size)
    except _unreachable() as error:
        told = "What was not sent is sent by the next dispatch"
        show.complain(f"the broker does not take messages: {type(error).__name__}. {told}; is it there?")
        raise typer.Exit(1) from None
    if json:
        show.as_json(asdict(sent))
    else:
        show.say(f"{sent.due} of {sent.total} secrets sent out, in {sent.messages} messages.")
        if sent.orphans:
            show.say(f"{sent.orphans} orphaned keys found; condemned, and on the way out.", "yellow")
        if sent.unseen:
            show.complain(f"{sent.unseen} stores, entries or issuers could not be looked at: the log says which.")
    raise typer.Exit(1 if sent.unseen else 0)


@fleet.command()
def worker(
    stack: Stack = None,
    config: File = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, help="Processes, each of which runs one message at a time.")
    ] = 4,
    name: Annotated[
        str | None, typer.Option("--name", help="What it is called among other workers; by chance when not given.")
    ] = None,
    visible_after: VisibleAfter = _USUAL,
) -> None:
    """Run what is sent to the fleet, for as long as it runs. Made for services and pods; start as many as you like.

    The broker is where KEYTURN_BROKER_URL says, the same as the dispatcher's. SIGTERM lets runs that are under way end. One
    that is killed loses nothing: its message comes again, and whoever gets it goes on from the journal. What happens is
    logged on standard error as JSON lines.

    Exit codes: 0 stopped as asked; 2 usage or configuration.

    Example: keyturn fleet worker --stack prod --concurrency 8
    """
    url, after = _broker(), duration("--visible-after", visible_after)
    find_stack_file(stack, config, Path.cwd())  # what is wrong with that is said now, not in each process
    if "KEYTURN_LOG_LEVEL" not in os.environ:
        logging.getLogger("rotation").setLevel(logging.INFO)
    called = name or f"keyturn-{secrets.token_hex(3)}"

    def open_run() -> Callable[[str], crew.Worked]:
        # In the process that works: connections, and what it remembers, are its own.
        context = open_context(stack, config)
        run = crew.Worker(context.assembly).run

        def told(text: str) -> crew.Worked:
            try:
                return run(text)
            finally:
                for ending in ENDING.get():  # anchors what it has recorded; it may be killed before the next
                    ending()

        return told

    by_celery.serve(by_celery.application(url, after), open_run, concurrency, f"{called}@{socket.gethostname()}")


def _broker() -> str:
    if importlib.util.find_spec("celery") is None:
        raise UsageFault("a fleet needs Celery: pip install 'keyturn[celery]'")
    url = by_celery.address(Environ(os.environ))
    if url is None:
        raise UsageFault(f"{by_celery.BROKER} is not set: the broker's address, as in redis://127.0.0.1:6379/0")
    return url


def _unreachable() -> tuple[type[Exception], ...]:
    from kombu.exceptions import OperationalError  # noqa: PLC0415 - comes with Celery

    return (OperationalError, OSError)
