"""A sweep in two parts, for fleets that one machine does not get round to: who finds what is due, and who does it.

    dispatch(assembly, send)      one sweep's look round; each batch of secrets with something to do goes to `send`
    Worker(assembly).run(batch)   the ordinary run of each; says whether the batch is to come again

Hosts bring the queue: SQS, Azure's queue, Celery's broker. None of them has to deliver once, in order, or soon.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from rotation import batches, orphans, sweep
from rotation import policy as policies
from rotation.assembly import Assembly
from rotation.batches import Batch
from rotation.engine import Outcome, Target
from rotation.errors import Code, Trouble
from rotation.model import Policy
from rotation.notify import runs
from rotation.situation import Order
from rotation.sweep import Ended
from rotation.telemetry import sweeping

_log = logging.getLogger(__name__)

LISTED_FOR: Final = timedelta(minutes=5)
"""A worker asks an issuer for its list no oftener. Runs know how old it is."""


@dataclass(frozen=True, slots=True)
class Dispatched:
    """What a dispatch came to."""

    total: int
    """Secrets that there are."""
    due: int
    """Of these, how many were sent to be run."""
    messages: int
    orphans: int
    unseen: int
    """What could not be looked at; told in the log."""


def dispatch(
    assembly: Assembly,
    send: Callable[[Batch], None],
    file: str = "the stack file",
    size: int = batches.SIZE,
) -> Dispatched:
    """Looks round once, takes up orphans, and sends out everything that may have something to do.

    Parameters:
        send: puts one message into the queue; raises what it can not.
        file: what messages call the configuration.
        size: secrets of a message at most.

    Raises:
        ConfigError: see sweep.begin().
    """
    config = assembly.config
    with sweeping(assembly.telemetry, assembly.clock, config.environment) as watched:
        begun = sweep.begin(assembly, file, lambda _: None)
        watched.secrets = begun.total
        sweep.tell_begun(begun)
        sent = 0
        for batch in batches.partition(config.installation, config.environment, begun.due.places(), size):
            send(batch)
            sent += 1
        watched.result = "failed" if begun.troubles else "done"
    runs.flush(assembly)
    _log.info("%d of %d secrets sent out in %d messages", len(begun.due), begun.total, sent)
    return Dispatched(begun.total, len(begun.due), sent, len(begun.adopted), len(begun.troubles))


@dataclass(frozen=True, slots=True)
class Worked:
    """What became of a batch."""

    ends: tuple[Ended, ...]
    """Of the secrets that are ours, in the order of their names."""
    again: tuple[str, ...]
    """Those that failed for a reason that passes, or were not begun: the batch is to come again for them."""


class Worker:
    """Runs batches. Threads may share it.

    Parameters:
        assembly: of this process.
        stopping: once true no further secret is begun.
        saw: is told of every run.
    """

    def __init__(
        self,
        assembly: Assembly,
        stopping: Callable[[], bool] = lambda: False,
        saw: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        self._assembly = assembly
        self._stopping = stopping
        self._saw = saw
        self._lock = threading.Lock()
        self._lists: dict[str, Order] = {}

    def run(self, text: str) -> Worked:
        """Takes every secret that a message names as far as it goes now. What can not be understood is told, and done with.

        Never raises Trouble; one secret holds up no other.
        """
        try:
            batch = batches.parse(text)
        except batches.Mangled as mangled:
            _log.error("message dropped: it %s", mangled)
            return Worked((), ())
        config = self._assembly.config
        if (batch.installation, batch.environment) != (config.installation, config.environment):
            _log.error("message dropped: it is of %s %s", batch.installation, batch.environment)
            return Worked((), ())
        if batch.store not in self._assembly.stores:
            _log.error("message dropped: there is no store %s here", batch.store)
            return Worked((), ())
        ends: list[Ended] = []
        again: list[str] = []
        for name in batch.names:
            if self._stopping():
                again.append(name)
                continue
            try:
                ends.append(self._run(batch, name))
            except Trouble as trouble:
                if trouble.code.permanent:
                    _log.error("%s: %s; the next dispatch looks again", name, trouble)
                else:
                    _log.warning("%s: %s; its message comes again", name, trouble)
                    again.append(name)
            except Exception:  # noqa: BLE001 - the others of the batch are not held up
                _log.exception("%s: its run broke off; its message comes again", name)
                again.append(name)
        runs.flush(self._assembly)
        return Worked(tuple(ends), tuple(again))

    def _run(self, batch: Batch, name: str) -> Ended:
        """Raises Trouble with whatever kept the run from doing what is due."""
        assembly = self._assembly
        target = Target(batch.store, assembly.places.entry_name(batch.store, batch.environment, name))
        policy = self._policy(batch, name, target)
        sweep.opened(assembly, [policy])
        order = self._order(policy.issuer) if batch.list else Order()
        outcome = runs.running(assembly, "sweep", policy, lambda: assembly.engine.run(target, order))
        sweep.tell(assembly, policy, outcome)
        self._saw(outcome)
        if outcome.trouble:
            raise outcome.trouble
        return sweep.ended(outcome)

    def _policy(self, batch: Batch, name: str, target: Target) -> Policy:
        """What is applied, which counts: and only where it is ours."""
        try:
            policy = policies.read(self._assembly.stores[target.store].applied(target.entry))
        except ValueError as error:
            raise Trouble(Code.INVALID, target.store, f"{target.entry}: {error}; apply the stack again") from None
        ours = (batch.installation, batch.environment, name, target.store)
        if (policy.installation, policy.environment, policy.name, policy.store) != ours:
            raise Trouble(Code.INVALID, target.store, f"{target.entry} is not of this installation and environment")
        if policy.issuer not in self._assembly.issuers:
            told = f"{target.entry} is applied with the issuer {policy.issuer}, which is not configured here"
            raise Trouble(Code.INVALID, target.store, told)
        return policy

    def _order(self, issuer: str) -> Order:
        with self._lock:
            known, now = self._lists.get(issuer), self._assembly.clock.now()
            if known is None or known.listed_at is None or known.listed_at + LISTED_FOR <= now:
                listed = orphans.listings(self._assembly.issuers, [issuer], self._assembly.clock)
                known = self._lists[issuer] = Order(listed=listed.ids(issuer), listed_at=listed.at)
            return known
