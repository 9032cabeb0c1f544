"""What a line tells beside its record: who we are to the stores, and which requests went before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from rotation.ports import SecretStore, TellsCaller
from rotation.telemetry import Call, Run, Sweep

PATIENCE: Final = 2.0
"""Seconds for which a record waits for stores to say who we are. One that takes longer is named in later lines."""
_MOST: Final = 20
"""Requests that a line names; the last ones."""


class Callers:
    """Who we are, by store: asked of each store that is used anyway, once in this process. Failing changes nothing.

    Parameters:
        known: what needs no asking.
    """

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        self._known = dict(known or {})
        self._lock = threading.Lock()
        self._asked: set[str] = set()
        self._used: Callable[[], Mapping[str, SecretStore]] = dict

    def ask(self, used: Callable[[], Mapping[str, SecretStore]]) -> None:
        """Names the stores to ask from now on: those that are in use when a record is written."""
        self._used = used

    def __call__(self) -> Mapping[str, str]:
        """By store, the name under which its service knows us, as far as that is known by now."""
        used = self._used()
        with self._lock:
            new = {name: store for name, store in used.items() if name not in self._asked}
            self._asked.update(new)
        asking = [threading.Thread(target=self._look, args=item, daemon=True) for item in new.items()]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(PATIENCE / len(asking))
        with self._lock:
            return dict(self._known)

    def _look(self, name: str, store: SecretStore) -> None:
        try:
            found = store.caller() if isinstance(store, TellsCaller) else None
        except Exception:  # noqa: BLE001 - who we are is worth knowing, and no reason to do nothing
            return
        if found:
            with self._lock:
                self._known[name] = found


class Requests:
    """A watcher that notes the services' own ids of requests, each for the thread that sent it."""

    def __init__(self) -> None:
        self._own = threading.local()

    @contextmanager
    def watch(self, what: Call | Run | Sweep) -> Iterator[None]:
        """See rotation.telemetry.Telemetry."""
        yield
        if isinstance(what, Call) and what.request_id:
            noted: list[str] = getattr(self._own, "noted", [])
            self._own.noted = [*noted, f"{what.service} {what.operation} {what.request_id}"][-_MOST:]

    def take(self) -> list[str]:
        """`STORE OPERATION ID` of the requests of this thread since it asked last."""
        noted: list[str] = getattr(self._own, "noted", [])
        self._own.noted = []
        return noted
