"""Notices that another value is current: by versions where the vault tells them without the value, and once for a burst."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta

from rotation.consumer.sources import Source
from rotation.consumer.value import Unavailable, Value

_log = logging.getLogger(__name__)

Pause = Callable[[timedelta], bool]
"""Waits; returns whether to give up."""


class Watch:
    """What was handed on of some entries, and what their vaults have now. For one thread.

    Parameters:
        sources: the entries.
        settle: how long they have to stay as they are before a change counts: several that are rotated together, or one
            that is replaced twice, are one change.
    """

    def __init__(self, sources: Sequence[Source], settle: timedelta) -> None:
        self._sources = tuple(sources)
        self._settle = settle
        self._known: tuple[object, ...] = ()
        self._handed: tuple[Value, ...] = ()
        self._away = ""

    def first(self) -> tuple[Value, ...]:
        """The values to begin with. Raises Unavailable."""
        # Versions first: a change in between is then seen once more, and never missed.
        self._known = self._versions()
        self._handed = self._values()
        return self._handed

    def changed(self, pause: Pause) -> tuple[Value, ...] | None:
        """All values when any has another text than was handed on; None while nothing changes, or a vault is away."""
        try:
            now = self._versions()
            if self._same(now, self._known):
                self._back()
                return None
            while True:
                if pause(self._settle):
                    return None
                before, now = now, self._versions()
                if self._same(now, before):
                    break
            values = self._values()
        except Unavailable as error:
            if not self._away:
                _log.warning("%s; what was handed on stays", error)
            self._away = error.where
            return None
        self._known = now
        self._back()
        if all(value.same_text(handed) for value, handed in zip(values, self._handed, strict=True)):
            return None
        self._handed = values
        return values

    def _back(self) -> None:
        if self._away:
            _log.warning("%s can be read again", self._away)
            self._away = ""

    def _versions(self) -> tuple[object, ...]:
        """What tells versions apart: text of the vault's or, where this login may not have that, the values themselves."""
        return tuple(found if (found := source.version()) is not None else source.read() for source in self._sources)

    def _values(self) -> tuple[Value, ...]:
        return tuple(source.read() for source in self._sources)

    @staticmethod
    def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
        return len(one) == len(other) and all(
            a.same_as(b) if isinstance(a, Value) and isinstance(b, Value) else type(a) is type(b) and a == b
            for a, b in zip(one, other, strict=True)
        )
