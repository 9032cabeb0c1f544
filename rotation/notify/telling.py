"""Tells owners: by owner and severity, through channels, each in a thread of its own, nothing twice.

    tell(notice) ──► routes of the owner ──► news for the channel? ──► its courier ──► claim ──► words ──► send ──► remember

What waits while a channel is being told goes out together, as one message for each kind, where it is much. A channel that fails, or does
not answer, holds up nobody: what it could not be told is logged, and can be told again by whoever notices it next.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Final

from rotation.errors import Code, Trouble
from rotation.logs import masked
from rotation.notify import templates
from rotation.notify.courier import Courier, Limited
from rotation.notify.memory import RESOLVED, Memory
from rotation.ports import Clock, Notice, Severity
from rotation.telemetry import NONE, Telemetry, calling

_log = logging.getLogger(__name__)

FLUSH: Final = 5.0
"""Seconds that the end of a command, or of a function's invocation, waits for what is still to be told."""
LONGEST: Final = 30_000
"""Characters of a message; of what is beyond only the subjects are told."""
_SINGLY: Final = 5
"""So many of a kind that wait are told one by one; more of them together."""
_REMEMBERED: Final = 100
_USUAL: Final = ("failed", "hold", "incident", "usage")
"""Of the things that an owner may be told, those that are told without being asked for."""
_ORDER: Final = [*Severity]


@dataclass(frozen=True, slots=True)
class Message:
    """What a channel is to bring."""

    subject: str
    text: str
    severity: Severity
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What those who read it may filter by: kind, severity, environment, owner, and secret where it is about one."""


@dataclass(frozen=True, slots=True, eq=False)
class Channel:
    """One place, and how to bring something there."""

    name: str
    send: Callable[[Message], None]
    """Raises Trouble without any address or answer in it; ConfigError where its credential is not there."""
    repeat_after: timedelta = timedelta(hours=24)
    """The same notice is told again then, if it is still so."""


@dataclass(frozen=True, slots=True)
class Route:
    """Through which channel an owner is told what."""

    channel: str
    least: Severity | None = None
    on: tuple[str, ...] | None = None

    def wants(self, notice: Notice) -> bool:
        """Warnings about what usually matters, and all of an incident; the rest where it is asked for."""
        if notice.kind == RESOLVED:
            return True  # the memory knows who was told what it resolves
        event = templates.event(notice.kind)
        usual = self.on is None and event != "incident"
        least = self.least or (Severity.WARNING if usual else Severity.INFO)
        loud = _ORDER.index(notice.severity) >= _ORDER.index(least)
        return loud and event in (self.on if self.on is not None else _USUAL)


class Telling:
    """A Notifier over channels. Threads may share it; nothing here waits for a channel but flush() and test().

    Parameters:
        channels: by name.
        routes: by owner.
        words: a stack's own, by kind.
        memory: what was told already.
        clock: for what watchers are told.
        telemetry: is told of every call to a channel, as the service `channel NAME`.
        limited: makes what limits the calls to one channel.
        room: notices that may wait for one channel.
    """

    def __init__(
        self,
        channels: Mapping[str, Channel],
        routes: Mapping[str, Sequence[Route]],
        words: Mapping[str, templates.Words],
        memory: Memory,
        clock: Clock,
        telemetry: Telemetry = NONE,
        limited: Callable[[], Limited] = Limited,
        room: int = 2048,
    ) -> None:
        self.channels: Final = channels
        self.routes: Final = routes
        self._words = words
        self._memory = memory
        self._clock = clock
        self._telemetry = telemetry
        self._limits = {name: limited() for name in channels}
        self._couriers = {
            name: Courier[Notice](f"keyturn-tells-{name}", partial(self._deliver, channel), room=room)
            for name, channel in channels.items()
        }
        self._untold: dict[tuple[str, str, str, str], str] = {}
        """What is to be said of what could not be told, and was not told later."""
        self._lock = threading.Lock()

    def tell(self, notice: Notice) -> None:
        """Returns at once, and never raises."""
        try:
            for name in self._wanting(notice):
                if not self._memory.news(name, notice, self.channels[name].repeat_after):
                    continue
                if not self._couriers[name].take(notice):
                    self._fail(name, [notice], "too much waits for it already")
        except Exception as error:  # noqa: BLE001 - nothing about telling may stop the work
            _log.error("%s: its owner can not be told: %s", notice.secret, type(error).__name__)

    def _wanting(self, notice: Notice) -> list[str]:
        wanting = (route.channel for route in self.routes.get(notice.owner, ()) if route.wants(notice))
        return list(dict.fromkeys(wanting))

    def flush(self, seconds: float = FLUSH) -> list[str]:
        """Waits until everything is told, or for so long.

        Returns:
            What could not be told since the last time, or is not told yet, a sentence each.
        """
        ends = monotonic() + seconds  # of threads that are waited for, whatever clock the work goes by
        late = []
        for name, courier in self._couriers.items():
            left = courier.wait(max(ends - monotonic(), 0.0))
            late += [_sentence(name, notice, "it takes too long") for notice in left]
        with self._lock:
            found = [*self._untold.values(), *late]
            self._untold.clear()
        return found

    def test(self, name: str, notice: Notice) -> str | None:
        """Tells one channel something now, once, whatever was told before; gives what went wrong."""
        try:
            self._send(self.channels[name], self._message([notice]))
        except Trouble as trouble:
            return _reason(trouble)
        return None

    # --- in the channel's thread -------------------------------------------------------------------

    def _deliver(self, channel: Channel, notices: Sequence[Notice]) -> None:
        claimed = self._memory.claim(channel.name, notices, channel.repeat_after)
        kinds = dict.fromkeys((notice.owner, notice.kind, notice.severity) for notice in claimed)
        for kind in kinds:
            group = [notice for notice in claimed if (notice.owner, notice.kind, notice.severity) == kind]
            for part in [group] if len(group) > _SINGLY else [[notice] for notice in group]:
                self._bring(channel, part)

    def _bring(self, channel: Channel, notices: Sequence[Notice]) -> None:
        """One message, and what came of it."""
        try:
            self._send(channel, self._message(notices))
        except Trouble as trouble:
            self._memory.dropped(channel.name, notices)
            self._fail(channel.name, notices, _reason(trouble))
        else:
            self._memory.told(channel.name, notices)
            with self._lock:
                for notice in notices:
                    self._untold.pop(_about(channel.name, notice), None)

    def _send(self, channel: Channel, message: Message) -> None:
        service = f"channel {channel.name}"

        def send() -> None:
            try:
                with calling(self._telemetry, self._clock, service, "tell", hears=False):
                    channel.send(message)
            except Trouble:
                raise
            except Exception as error:  # noqa: BLE001 - what libraries raise has the address in it
                raise Trouble(Code.UNAVAILABLE, service, type(error).__name__) from None

        self._limits[channel.name].call(service, send)

    def _message(self, notices: Sequence[Notice]) -> Message:
        first = notices[0]
        attributes = {
            "kind": first.kind,
            "severity": first.severity.value,
            "environment": first.environment,
            "owner": first.owner,
        }
        told = [templates.rendered(notice, self._words.get(notice.kind)) for notice in notices]
        if len(told) == 1:
            (subject, text), secret = told[0], {"secret": first.secret} if first.secret else {}
            return Message(subject, _cut(text, LONGEST), first.severity, attributes | secret)
        parts, room = [], LONGEST
        for subject, text in told:
            part = f"{subject}\n{text}"
            parts.append(part if len(part) <= room else subject)
            room = max(room - len(parts[-1]), 0)
        subject = f"{first.environment}: {len(told)} notices of the kind {first.kind}, for {first.owner}"
        return Message(subject, _cut("\n\n---\n\n".join(parts), 2 * LONGEST), first.severity, attributes)

    def _fail(self, name: str, notices: Sequence[Notice], why: str) -> None:
        for notice in notices:
            told = _sentence(name, notice, why)
            _log.warning("%s", told)
            with self._lock:
                if len(self._untold) < _REMEMBERED:
                    self._untold[_about(name, notice)] = told


def _about(channel: str, notice: Notice) -> tuple[str, str, str, str]:
    return channel, notice.kind, notice.environment, notice.secret


def _reason(trouble: Trouble) -> str:
    return masked(str(trouble).removeprefix(f"{trouble.service}: "))


def _sentence(channel: str, notice: Notice, why: str) -> str:
    return masked(f"channel {channel} was not told {notice.subject!r}: {why}")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
