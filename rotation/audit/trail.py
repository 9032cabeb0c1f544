"""An auditor: one chain of this process, kept at every configured place before write() returns, and anchored.

Threads that write at once share a put: one of them takes what has gathered while the last put was under way. A put to a
file takes a millisecond, one to S3 tens of them; so a fleet costs about as many puts as its longest member has records,
and yet nobody goes on before their own record is kept.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from rotation.audit.chain import Chain, Head, canonical, new_writer, shown
from rotation.errors import Code, Trouble
from rotation.ports import Clock, Record
from rotation.telemetry import NONE, Call, Run, Sweep, Telemetry, calling

_log = logging.getLogger(__name__)

SERVICE: Final = "audit trail"
ANCHOR_EVERY: Final = 100
"""Records of one process between two anchors."""
BATCH: Final = 200
"""Records in one put at most."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A line as a place has it."""

    where: str
    """For people: a file and its line number, an object and its line number."""
    text: str
    """With its newline, where it has one."""
    fault: str = ""
    """What the place itself tells of a change to it."""


class Place(Protocol):
    """Where lines are kept. Anchors are lines too, at a place of their own."""

    @property
    def name(self) -> str:
        """For messages: a path, a bucket, a log group."""

    def keep(self, writer: str, seq: int, lines: Sequence[str], at: datetime) -> None:
        """Keeps lines that follow each other, all or none as far as that can be had, before it returns.

        Parameters:
            seq: of the first line.
            at: of the last one.

        Raises:
            Trouble: they are not kept, or that is not known.
        """

    def last(self) -> Head | None:
        """The last whole line of whatever writer, where a glance tells it."""

    def read(self) -> Iterator[Kept]:
        """Every line, in order for each writer. Raises Trouble where the place can not be read."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A record whose writer waits."""

    line: Mapping[str, object]
    at: datetime
    over: bool = False
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """What a trail asks round about for its lines."""

    who: Callable[[], Mapping[str, str]] = field(default=dict)
    """Who we are to services, as far as it is known; never raises."""
    requests: Callable[[], Sequence[str]] = field(default=tuple)
    """Ids of the requests that this thread has sent since it asked last."""


class ChainedAuditor:
    """Keeps records, each at every place, in one chain. Threads may share it; after a fork the child has its own chain.

    Parameters:
        places: where records go; at least one.
        anchors: where heads of the chain go, each ANCHOR_EVERY records and whenever anchor() is called.
        installation, environment: whose trail it is.
        telemetry, clock: are told of a write that failed.
    """

    def __init__(
        self,
        places: Sequence[Place],
        anchors: Sequence[Place] = (),
        *,
        installation: str = "",
        environment: str = "",
        surroundings: Surroundings | None = None,
        telemetry: Telemetry = NONE,
        clock: Clock | None = None,
    ) -> None:
        self.places: Final = tuple(places)
        self.anchors: Final = tuple(anchors)
        self._of: Final = (installation, environment)
        self._surroundings = surroundings or Surroundings()
        self._telemetry = telemetry
        self._clock = clock
        self._gathering = threading.Lock()
        self._queue: list[_Waiting] = []
        self._turn = threading.Lock()
        self._anchoring = threading.Lock()
        self._chain: Chain | None = None
        self._pid = os.getpid()
        self._due = ANCHOR_EVERY
        self._anchored: Head | None = None
        self._loose: list[Head] = []
        """Heads of chains of this process that broke off before they were anchored."""

    def watched_by(self, telemetry: Telemetry, clock: Clock) -> None:
        """Names who is told of a write that failed, where that was not known before."""
        self._telemetry, self._clock = telemetry, clock

    def write(self, record: Record) -> None:
        """Raises Trouble(UNAVAILABLE) when the record is not kept, or that is not known; the caller must then do nothing."""
        line = shown(record, self._surroundings.who(), self._surroundings.requests())
        waiting = _Waiting(line, record.at)
        with self._gathering:
            self._queue.append(waiting)
        with self._turn:
            while not waiting.over:
                with self._gathering:
                    batch, self._queue = self._queue[:BATCH], self._queue[BATCH:]
                self._keep(batch)
        if waiting.trouble is not None:
            raise Trouble(waiting.trouble.code, SERVICE, _text(waiting.trouble)) from None
        self._due -= 1
        if self._due <= 0:
            self.anchor()

    def anchor(self) -> bool:
        """Has the head of the chain kept where anchors are. Never raises: what can not be anchored is logged and counted.

        Returns:
            False when a place did not take it. The next anchor covers what this one would have.
        """
        with self._anchoring:
            self._due = ANCHOR_EVERY
            with self._turn:
                head = self._chain.head if self._chain else None
                heads = [*self._loose, *([head] if head and head != self._anchored else [])]
            if not heads or not self.anchors:
                return True
            if good := put_anchor(self.anchors, heads, self._of, self._now(heads[-1]), self._failed):
                with self._turn:
                    self._anchored = head
                    self._loose = [loose for loose in self._loose if loose not in heads]
            return good

    def _keep(self, batch: Sequence[_Waiting]) -> None:
        if self._pid != os.getpid():
            self._pid, self._chain, self._loose = os.getpid(), None, []
        trouble: Trouble | None = Trouble(Code.UNAVAILABLE, SERVICE, "the writing of a record broke off")
        try:
            if self._chain is None:
                self._chain = Chain(*self._of, after=self.places[0].last())
            chain = self._chain
            lines, head = chain.draft([waiting.line for waiting in batch])
            for place in self.places:
                place.keep(chain.writer, head.seq - len(lines) + 1, lines, batch[-1].at)
            chain.head, trouble = head, None
        except Trouble as failed:
            trouble = failed
            self._begin_anew()
            self._failed("write", failed)
        finally:
            for waiting in batch:
                waiting.over, waiting.trouble = True, trouble

    def _begin_anew(self) -> None:
        """Where it is not known what a place has kept, a chain that went on could look tampered with."""
        if self._chain is None:
            return
        if self._chain.head is not None and self._chain.head != self._anchored:
            self._loose = [*self._loose, self._chain.head]
        self._chain = Chain(*self._of, after=self._chain.witnessed)

    def _failed(self, operation: str, trouble: Trouble) -> None:
        if self._clock is not None:
            with suppress(Trouble), calling(self._telemetry, self._clock, SERVICE, operation, hears=False):
                raise trouble

    def _now(self, head: Head) -> datetime:
        return self._clock.now() if self._clock else datetime.fromisoformat(head.at)


def put_anchor(
    places: Sequence[Place],
    heads: Sequence[Head],
    of: tuple[str, str],
    at: datetime,
    failed: Callable[[str, Trouble], None] = lambda *_: None,
) -> bool:
    """Keeps one anchor that names these heads at each place; False when one did not take it, which is logged."""
    line = canonical(
        {
            "anchor": 1,
            "at": at.astimezone(UTC).isoformat(),
            "environment": of[1],
            "heads": [asdict(head) for head in heads],
            "installation": of[0],
        }
    )
    good = True
    for place in places:
        try:
            place.keep(new_writer(), 0, [line], at)
        except Trouble as trouble:
            _log.warning("the audit trail is not anchored: %s", trouble)
            failed("anchor", trouble)
            good = False
    return good


def _text(trouble: Trouble) -> str:
    return str(trouble).removeprefix(f"{SERVICE}: ")


def unkept(place: str, why: str) -> Trouble:
    """What a place raises."""
    return Trouble(Code.UNAVAILABLE, SERVICE, f"{place}: {why}")


class Anchoring:
    """A watcher that has a trail anchored at the end of each sweep."""

    def __init__(self, anchor: Callable[[], object]) -> None:
        self._anchor = anchor

    @contextmanager
    def watch(self, what: Call | Run | Sweep) -> Iterator[None]:
        """See rotation.telemetry.Telemetry."""
        yield
        if isinstance(what, Sweep):
            self._anchor()
