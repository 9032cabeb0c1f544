"""The applications: one for each store, reading what it hands out and using it, all the time."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

import requests

PAUSE: Final = 0.1
"""Seconds between two rounds that nobody asked for."""
_SECONDS: Final = 20.0
_TRIES: Final = 5
_GENERATED: Final = re.compile(r"[A-Za-z0-9]{32}")


@dataclass(frozen=True)
class Refusal:
    """A store handed out what was not accepted, before and after it was tried."""

    store: str
    value: str
    answer: str


def at_openai(base_url: str) -> Callable[[str], str]:
    """Uses a value as an API key. The answer is empty when it was accepted."""

    def use(value: str) -> str:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(f"{base_url}/models", headers={"Authorization": f"Bearer {value}"}, timeout=_SECONDS)
        return "" if answer.ok else f"{answer.status_code} {answer.json()['error'].get('code')}"

    return use


def by_form(value: str) -> str:
    """For a generated value, which nobody but its consumers knows."""
    return "" if _GENERATED.fullmatch(value) else "not a generated value"


class Consumers:
    """Runs from entering the context until leaving it.

    Parameters:
        readers: by store; gives what the store hands out now.
        use: what a value is good for: empty, or why it was refused.
    """

    def __init__(self, readers: Mapping[str, Callable[[], str]], use: Callable[[str], str]) -> None:
        self._readers, self._use = readers, use
        self.refused: list[Refusal] = []
        self.rounds = 0
        self._asked = 0
        self._done = dict.fromkeys(readers, 0)
        self._ended = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._consume, args=(store,), daemon=True) for store in readers]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def look(self) -> None:
        """Returns when each has read and used its value from beginning to end since the call.

        Raises:
            TimeoutError: a consumer got stuck.
        """
        with self._changed:
            self._asked += 1
            wanted = self._asked
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: min(self._done.values()) >= wanted, _SECONDS):
                raise TimeoutError("a consumer is stuck")

    def _consume(self, store: str) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._asked > self._done[store], PAUSE)
                if self._ended:
                    return
                begun = self._asked
            refusal = self._round(store)
            with self._changed:
                self.rounds += 1
                if refusal:
                    self.refused.append(refusal)
                self._done[store] = begun
                self._changed.notify_all()

    def _round(self, store: str) -> Refusal | None:
        """One use of what the store hands out; tried anew when that changed meanwhile, as a consumer would."""
        value = why = ""
        try:
            value = self._readers[store]()
            for _ in range(_TRIES):
                why = self._use(value)
                if not why:
                    return None
                before, value = value, self._readers[store]()
                if value == before:
                    break
        except Exception as error:  # noqa: BLE001 - to its users a request failed, whichever SDK says so
            why = type(error).__name__
        return Refusal(store, value, why)
