"""Sweeps again and again until it is told to stop: `keyturn run` without its process, signals and sockets.

    sweep ──► rest until the next date that a secret waits for, or the interval, whichever is first ──► sweep
          └─► after a failure: soon again, then later and later, at most the interval

Holds no state that matters: what it remembers between sweeps is when to look, and what to show. Several of them beside
each other are safe, as two sweeps are; jitter keeps them from waking up together.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rotation import fleet, idle, sweep
from rotation.assembly import Assembly
from rotation.declared import ConfigError
from rotation.engine import Outcome, Target
from rotation.errors import Code
from rotation.model import Policy
from rotation.notify import uses
from rotation.observe.board import Board, Look, look
from rotation.status import Phase
from rotation.survey import Quiet
from rotation.telemetry import sweeping

_log = logging.getLogger(__name__)

TICK: Final = 1.0
"""Seconds between two glances at the clock while there is nothing to do: it may be set, or the machine may have slept."""
LEAST: Final = 1.0
"""Seconds between two sweeps at least."""
RETRY_FIRST: Final = 10.0
"""Seconds until the next sweep after one that failed; doubles with each."""
SPREAD: Final = 30.0
"""Seconds of jitter at most; a tenth of the interval where that is less."""
PATIENCE: Final = 3
"""Intervals without a sign of life after which the loop counts as stuck."""
WATCH_EVERY: Final = 15 * 60.0
"""Seconds between two looks at how keys are used, at least."""
LEAST_PATIENCE: Final = 15 * 60.0
"""Seconds; a single run may stay for minutes, for a change to propagate at an issuer."""


@dataclass(frozen=True, slots=True)
class Health:
    """What probes are told."""

    alive: bool
    ready: bool
    reason: str
    """Why it is not ready, or that it is."""


class Daemon:
    """Sweeps until `stopping` is set. run() is for one thread, health() for any.

    Parameters:
        assembly: made with the same `stopping.is_set`, so that runs end between two effects.
        board: is kept up to date.
        stopping: once set, nothing new is begun.
        every: the interval.
        chance: uniform in [0, 1); the source of jitter.
        file: what messages call the configuration.
        wait: sleeps for so many seconds, or until `stopping` is set.
    """

    def __init__(
        self,
        assembly: Assembly,
        board: Board,
        stopping: threading.Event,
        every: timedelta,
        chance: Callable[[], float],
        file: str = "the stack file",
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._assembly = assembly
        self._board = board
        self._stopping = stopping
        self._every = every.total_seconds()
        self._chance = chance
        self._file = file
        self._wait = wait or stopping.wait
        self._clock = assembly.clock
        self._beat = self._clock.monotonic()
        self._not_ready: str | None = "the first sweep is not over"
        self._failures = 0
        self._next: datetime | None = None
        """The first date that a secret waits for."""
        self._watched: float | None = None
        """When the use of keys was last asked for, on the monotonic clock."""
        self._told: dict[Target, dict[str, object]] = {}

    def health(self) -> Health:
        """Whether the loop has turned lately, and whether the last sweep reached every store."""
        silent = self._clock.monotonic() - self._beat
        alive = silent <= max(PATIENCE * self._every, LEAST_PATIENCE)
        if self._stopping.is_set():
            return Health(alive, ready=False, reason="stopping")
        return Health(alive, ready=self._not_ready is None, reason=self._not_ready or "ready")

    def run(self) -> None:
        """Sweeps and rests, until stopping. Survives whatever a sweep does."""
        while not self._stopping.is_set():
            self.turn()
            self.rest()

    def turn(self) -> None:
        """One sweep."""
        self._beat = self._clock.monotonic()
        try:
            failed = self._sweep()
            self._watch()
        except ConfigError as error:
            _log.error("%s; the next sweep tries again", error)
            failed, self._not_ready = True, str(error)
        except Exception as error:  # noqa: BLE001 - whatever it was, the next sweep begins afresh
            _log.exception("the sweep broke off; the next one begins afresh")
            failed, self._not_ready = True, f"the last sweep broke off: {type(error).__name__}"
        self._failures = self._failures + 1 if failed else 0
        self._beat = self._clock.monotonic()

    def rest(self) -> None:
        """Sleeps until there is something to do."""
        began, delay, wake_at = self._clock.monotonic(), self.delay(), self._next
        spread = min(SPREAD, self._every / 10) * self._chance()
        _log.debug("next sweep within %.0f s", delay + spread)
        while not self._stopping.is_set():
            self._beat = self._clock.monotonic()
            rested = self._beat - began
            date_is_due = wake_at is not None and self._clock.now() >= wake_at + timedelta(seconds=spread)
            if rested >= delay + spread or (date_is_due and rested >= LEAST):
                return
            self._wait(TICK)

    def delay(self) -> float:
        """Seconds until the next sweep if no date comes first."""
        if not self._failures:
            return self._every
        return min(float(RETRY_FIRST * 2 ** min(self._failures - 1, 16)), self._every)

    def _sweep(self) -> bool:
        """True when it is worth trying again soon."""
        assembly, clock = self._assembly, self._clock
        with sweeping(assembly.telemetry, clock, assembly.config.environment) as watched:
            dates: list[datetime] = []
            there: set[Target] = set()

            def pass_over(quiet: Quiet) -> None:
                self._beat = clock.monotonic()
                there.add(quiet.target)
                if quiet.outcome is not None:
                    self._see(quiet.target, quiet.policy, quiet.outcome)
                if quiet.until is not None and quiet.until > clock.now():
                    dates[:] = [min([quiet.until, *dates])]

            begun = sweep.begin(assembly, self._file, pass_over)
            watched.secrets = begun.total
            sweep.tell_begun(begun)
            bad = bool(begun.troubles)

            def work(pair: tuple[Target, Policy]) -> Outcome | None:
                if self._stopping.is_set():
                    return None
                try:
                    return begun.run(*pair)
                except Exception:  # noqa: BLE001 - as above: one secret is no reason to leave the others
                    _log.exception("%s: its run broke off; the others go on", pair[1].name)
                    return None

            for (target, policy), outcome in fleet.each(begun.due, work, fleet.MANY):
                self._beat = clock.monotonic()
                there.add(target)
                if outcome is None:
                    bad = True
                    continue
                self._see(target, policy, outcome)
                bad |= outcome.trouble is not None and not outcome.trouble.code.permanent
                if (date := idle.ends(outcome)) is not None and date > clock.now():
                    dates.append(date)
            there.update(self._missing(begun))
            away = {t.service: t for t in begun.troubles if t.service in assembly.stores and t.code is not Code.INVALID}
            self._board.end(there, {store: store not in away for store in assembly.stores}, clock.now())
            self._next = min(dates, default=None)
            self._not_ready = "; ".join(str(trouble) for trouble in away.values()) or None
            watched.result = "failed" if bad else "done"
        return bad

    def _watch(self) -> None:
        """How keys are used, where issuers are watched; not at every sweep, as counts move more slowly."""
        now = self._clock.monotonic()
        if self._watched is not None and now - self._watched < WATCH_EVERY:
            return
        self._watched = now
        for target, keys in uses.suspects(uses.watched(self._assembly)):
            self._board.suspect(target, keys)

    def _see(self, target: Target, policy: Policy, outcome: Outcome) -> None:
        seen = outcome.seen
        if seen is None or seen.policy.issuer not in self._assembly.issuers:
            self._board.lose(target, policy)
        else:
            capabilities = self._assembly.issuers[seen.policy.issuer].capabilities
            self._board.put(target, look(seen, outcome.rest, capabilities, self._clock.now()))
        account = sweep.account(policy, outcome)
        if account["did"] or self._told.get(target) != account:  # what is as it was is not worth a line
            sweep.tell(self._assembly, policy, outcome)
        self._told[target] = account

    def _missing(self, begun: sweep.Begun) -> list[Target]:
        targets = []
        for policy in self._assembly.config.policies:
            if policy.name in begun.missing:
                targets.append(target := self._assembly.target(policy))
                self._board.put(target, Look(policy, Phase.NOT_APPLIED))
        return targets
