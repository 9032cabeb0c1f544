"""A fleet's queue by Celery, over Redis, Valkey or RabbitMQ: the application that dispatchers and workers have in common.

A message is acknowledged after its work, not before, and comes again when its worker is lost: at once where the process that
ran it died under a living parent, else when the broker's visibility timeout is over (Redis, Valkey) or the connection is gone
(RabbitMQ). No result is kept, and nothing but names is ever in a message. Facts from "Tasks", "Configuration and
defaults" and "Using Redis" of Celery's user guide.

Celery is imported here and nowhere else, by who uses it: `pip install 'keyturn[celery]'`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rotation.batches import Batch
from rotation.crew import Worked
from rotation.situation import ATTEMPT_LIFE

if TYPE_CHECKING:
    from celery import Celery

BROKER: Final = "KEYTURN_BROKER_URL"
"""The variable with the broker's address, which has a password in it."""
QUEUE: Final = "keyturn-runs"
TASK: Final = "keyturn.run"
AGAIN_AFTER: Final = timedelta(seconds=5)
"""And twice as long each further time."""
TIMES: Final = 5
"""How often a message comes again whose work failed for a reason that passes; the next dispatch makes another."""
VISIBLE_AFTER: Final = ATTEMPT_LIFE
"""After so long a message whose worker is gone comes again: sooner it would find an attempt that may still be at work."""


def application(url: str, visible_after: timedelta = VISIBLE_AFTER) -> Celery:
    """The application. Connects when something is sent or taken.

    Parameters:
        url: `redis://…`, `rediss://…`, `amqp://…`, `amqps://…`.
        visible_after: for brokers that can not see that a worker is gone. A run that takes longer is begun twice, which
            costs calls and changes nothing.
    """
    from celery import Celery  # noqa: PLC0415 - a fleet's alone

    app = Celery("keyturn", broker=url, set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        broker_transport_options={"visibility_timeout": int(visible_after.total_seconds())},
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
    )
    return app


def sender(app: Celery) -> Callable[[Batch], None]:
    """Puts messages into the queue."""

    def send(batch: Batch) -> None:
        app.send_task(TASK, args=[str(batch)], ignore_result=True, argsrepr=batch.store)

    return send


def serve(app: Celery, open_run: Callable[[], Callable[[str], Worked]], concurrency: int, name: str) -> None:
    """Works until it is told to stop: SIGTERM lets what is under way end.

    Parameters:
        open_run: makes what runs a message, once in each process, at its first message.
        concurrency: processes.
        name: of this worker among others, `NAME@HOST`.
    """
    made: dict[int, Callable[[str], Worked]] = {}

    def run(task: Any, text: str) -> None:
        work = made.get(os.getpid()) or made.setdefault(os.getpid(), open_run())
        if work(text).again:
            later = AGAIN_AFTER * 2**task.request.retries
            task.retry(countdown=later.total_seconds(), max_retries=TIMES, throw=False)

    app.task(run, name=TASK, bind=True, ignore_result=True)
    arguments = ["worker", "--concurrency", str(concurrency), "--hostname", name, "--loglevel", "WARNING"]
    app.worker_main([*arguments, "--without-gossip", "--without-mingle", "--without-heartbeat", "--pool", "prefork"])


def address(env: Mapping[str, str]) -> str | None:
    """Where the broker is, as the environment says."""
    return env.get(BROKER) or None
