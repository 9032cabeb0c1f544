"""Takes up what was taken in, one after the other, in a thread of its own: again where it failed, until it is given up."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from rotation.declared import ConfigError
from rotation.errors import Code, Trouble
from rotation.policy import show_duration
from rotation.ports import Clock, Severity
from rotation.webhook.alerts import Alerts
from rotation.webhook.delivery import Alert
from rotation.webhook.memory import Deliveries, State
from rotation.webhook.opening import Opening, Unclear

_log = logging.getLogger(__name__)

AGAIN: Final = tuple(timedelta(seconds=seconds) for seconds in (10, 60, 300, 900, 3600, 3600, 3600))
"""After each failure. Then it is given up, and somebody is told."""
_TICK: Final = 0.2


class Worker:
    """One thread over what waits.

    Parameters:
        deliveries: what was taken.
        alerts: gets values.
        opening: makes incidents.
        flush: has told what owners are still to be told; called after each.
        stopping: set: nothing more is begun.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        alerts: Alerts,
        opening: Opening,
        clock: Clock,
        stopping: threading.Event,
        flush: Callable[[], object] = lambda: None,
    ) -> None:
        self._deliveries = deliveries
        self._alerts = alerts
        self._opening = opening
        self._clock = clock
        self._stopping = stopping
        self._flush = flush
        self._changed = threading.Condition()
        self._serial = itertools.count()
        self._waiting: list[tuple[float, int, int, Alert]] = []
        """When, in which order, after how many failures, what."""
        for alert in deliveries.left():
            _log.warning("%s was taken in before this process began; it is taken up now", alert)
            self._push(0.0, 0, alert)
        self._thread = threading.Thread(target=self._work, name="keyturn-alerts", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it still works."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begins with what is left from before."""
        self._thread.start()

    def join(self) -> None:
        """Waits until what is in hand is done; `stopping` is set by then."""
        with self._changed:
            self._changed.notify_all()
        self._thread.join()

    def submit(self, alert: Alert) -> None:
        """Has it taken up soon."""
        self._push(0.0, 0, alert)

    def _push(self, at: float, failures: int, alert: Alert) -> None:
        with self._changed:
            heapq.heappush(self._waiting, (at, next(self._serial), failures, alert))
            self._changed.notify_all()

    def _next(self) -> tuple[int, Alert] | None:
        with self._changed:
            while not self._stopping.is_set():
                if self._waiting and self._waiting[0][0] <= self._clock.monotonic():
                    _, _, failures, alert = heapq.heappop(self._waiting)
                    return failures, alert
                self._changed.wait(_TICK)
        return None

    def _work(self) -> None:
        while (found := self._next()) is not None:
            failures, alert = found
            try:
                self._take_up(failures, alert)
                self._flush()
            except Exception as error:  # noqa: BLE001 - one alert is no reason to leave the others
                # Neither its text nor where it came from: an alert's value may stand in either.
                _log.error("%s: broke off: %s", alert, type(error).__name__)
                self._failed(failures, alert, f"broke off: {type(error).__name__}")

    def _take_up(self, failures: int, alert: Alert) -> None:
        try:
            findings = self._alerts.findings(alert)
            outcome = self._opening.open(alert, findings)
        except (Trouble, ConfigError) as trouble:
            if self._stopping.is_set():
                return
            final = isinstance(trouble, Trouble) and trouble.code in (Code.NOT_FOUND, Code.INVALID)
            alive = isinstance(trouble, Unclear) and trouble.alive
            self._failed(failures, alert, str(trouble), final=final, alive=alive)
            return
        if self._stopping.is_set() and "alive" in outcome:
            return  # cut off: the next process goes on with it
        _log.warning("%s: %s", alert, outcome)
        self._end(alert, State.DONE, outcome)

    def _failed(self, failures: int, alert: Alert, why: str, *, final: bool = False, alive: bool = False) -> None:
        """Has it tried again, where that may help.

        Parameters:
            final: it does not: GitHub has no such alert, or nothing can be made of it.
            alive: the value is accepted by an issuer, so whose it is matters now.
        """
        if final or failures >= len(AGAIN):
            self._opening.tell(
                alert,
                "could not be followed up",
                f"{why}. Nothing was changed, and it is not tried again by itself. Look at the alert at GitHub; then `keyturn "
                "emergency --leak ask` with its value, or have GitHub send the delivery again once this is put right.",
                Severity.CRITICAL,
            )
            self._end(alert, State.GIVEN_UP, why)
            return
        pause = AGAIN[failures]
        _log.warning("%s: %s; it is tried again in %s", alert, why, show_duration(pause))
        if failures == 0:
            severity = Severity.CRITICAL if alive else Severity.WARNING
            told = f"{why}. Nothing was changed. It is tried again by itself for some hours."
            self._opening.tell(alert, "is not followed up yet", told, severity)
        self._push(self._clock.monotonic() + pause.total_seconds(), failures + 1, alert)

    def _end(self, alert: Alert, state: State, outcome: str) -> None:
        try:
            self._deliveries.end(alert, state, outcome)
        except Trouble as trouble:
            _log.error("%s: %s; after a restart it is taken up once more", alert, trouble)
