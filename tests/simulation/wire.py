"""Every outgoing call passes here: what may become of it, and who goes on meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from threading import RLock
from typing import Any, Final, Generic, Protocol, TypeVar

from greenlet import greenlet

from rotation.engine import CALL_LIMIT
from rotation.errors import Code, Trouble

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
STALE_FOR: Final = timedelta(seconds=10)
"""How far behind a stale read may be."""

_one_at_a_time: Final = RLock()
"""Held by every change, for tests that use threads."""

S = TypeVar("S")
T = TypeVar("T")


class Crash(BaseException):
    """The process dies here. Not an Exception: nothing may catch it."""


class Kind(StrEnum):
    """What kind of call: that decides what can become of it."""

    READ = "read"
    WRITE = "write"
    """May be carried out long after its client gave up."""
    BOUNDED = "bounded"
    """A write that is carried out within CALL_LIMIT of its operation's begin, or never."""
    RECORD = "record"
    """A line of the audit trail."""


class What(StrEnum):
    """What can become of a call."""

    DIE = "die"
    """The process dies before the call goes out."""
    DIE_AFTER = "die-after"
    """The process dies after the call was carried out."""
    DIE_LATE = "die-late"
    """The process dies, and the call is carried out later."""
    FAIL = "fail"
    """The call is refused, certainly without effect."""
    UNSURE = "unsure"
    """No answer; it was not carried out."""
    LOST = "lost"
    """No answer; it was carried out."""
    LATE = "late"
    """No answer; it is carried out later."""
    LAND = "land"
    """What is late is carried out now, before this call."""
    TWICE = "twice"
    """Carried out twice: somebody on the way repeated it."""
    STALE = "stale"
    """A read that does not see the latest write."""
    STALER = "staler"
    """A read that does not see any write of the last seconds."""
    PAUSE = "pause"
    """On its way for long: time passes, others act, then it is carried out."""
    LINGER = "linger"
    """The same, but others act first, and time passes then."""
    AFTER = "after"
    """Carried out; before its answer arrives, others act."""


class Fate(StrEnum):
    """How a write ends that was under way for longer than its client waits."""

    LATE = ""
    """Carried out all the same; where it is bounded, at the last moment. Its client has given up."""
    ANSWERED = "answered"
    """Its client was stopped as well, and so gets the answer. Not where it is bounded."""
    DROPPED = "dropped"


_DISORDERLY: Final = frozenset(
    {What.STALE, What.STALER, What.PAUSE, What.LINGER, What.AFTER, What.LATE, What.DIE_LATE, What.LAND}
)

_JUMP: Final = re.compile(r"(\d+)([smh])")
_UNITS: Final = {"h": 3600, "m": 60, "s": 1}
_DEED: Final = re.compile(r"(?P<what>[a-z-]+)(?:>(?P<to>[a-z]+))?(?:\+(?P<jump>\d+[smh]))?(?:~(?P<fate>[a-z]+))?")


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing that goes differently from a world in which every call is answered at once."""

    what: What
    to: str = ""
    """Who goes on; empty for whoever comes next."""
    jump: str = ""
    """How much time passes, as in 70s, 16m, 26h."""
    fate: Fate = Fate.LATE

    def __str__(self) -> str:
        to, jump = self.to and f">{self.to}", self.jump and f"+{self.jump}"
        return f"{self.what}{to}{jump}{self.fate and f'~{self.fate}'}"

    @classmethod
    def read(cls, text: str) -> Deed:
        found = _DEED.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no deed")
        return cls(What(found["what"]), found["to"] or "", found["jump"] or "", Fate(found["fate"] or ""))

    @property
    def span(self) -> timedelta:
        found = _JUMP.fullmatch(self.jump)
        return timedelta(seconds=int(found[1]) * _UNITS[found[2]]) if found else timedelta(0)


Plan = tuple[tuple[int, Deed], ...]
"""What goes differently, by number of step, ascending."""


def show_plan(plan: Plan) -> str:
    return " ".join(f"{step}:{deed}" for step, deed in plan) or "-"


def read_plan(text: str) -> Plan:
    pairs = (word.split(":", 1) for word in text.split() if word != "-")
    return tuple((int(step), Deed.read(deed)) for step, deed in pairs)


@dataclass(eq=False, slots=True)
class Box(Generic[S]):
    """A service's state, immutable, and what it was before."""

    name: str
    state: S
    at: datetime = START
    before: tuple[datetime, S, Any] | None = None

    def put(self, state: S, at: datetime) -> None:
        self.before = (self.at, self.state, self.before)
        self.state, self.at = state, at

    def one_back(self, since: datetime) -> S:
        """The state without the latest write, provided that this was since then."""
        return self.before[1] if self.before and self.at > since else self.state

    def back_to(self, at: datetime) -> S:
        """The state as it was at that time, or the oldest that there is."""
        if self.at <= at or not self.before:
            return self.state
        link = self.before
        while link[0] > at and link[2]:
            link = link[2]
        return link[1]

    def copy(self) -> Box[S]:
        return Box(self.name, self.state, self.at, self.before)


@dataclass(frozen=True, slots=True)
class Step:
    """One call about to go out. A call that was paused is another step when it goes on."""

    kind: Kind
    actor: str
    phase: int
    """0 while the actors act; then the number of the sweep."""
    service: str
    call: str
    others: tuple[str, ...]
    """Who else could act."""
    latecomers: bool
    """Whether a write is on its way that nobody waits for."""


class Chooser(Protocol):
    """Decides what becomes of a call."""

    def __call__(self, number: int, step: Step) -> Deed | None: ...

    def over(self, number: int) -> bool:
        """Whether nothing goes differently any more, from this step on."""


class Watch(Protocol):
    """Is told when anything may have changed."""

    def check(self) -> None: ...


@dataclass(eq=False, slots=True)
class _Flight:
    """A write that nobody waits for, or whose sender is stopped."""

    land: Callable[[], object]
    until: datetime | None
    """A bounded one lands by then."""
    landed: bool = False
    waited_for: bool = False


@dataclass(eq=False, slots=True)
class Actor:
    """Somebody who acts: a greenlet that gives way inside its calls."""

    name: str
    body: Callable[[], object]
    inner: greenlet | None = None
    wake: datetime | None = None
    held: bool = False
    """Stopped in the middle of a call; goes on when all others are done, or when it is told to."""
    ended: str = ""
    """How it ended; empty while it acts."""


@dataclass(eq=False)
class Wire:
    """The outside of one execution: time, calls, and the turns of those who act."""

    choose: Chooser
    now: datetime = START
    watch: Watch | None = None
    log: list[Step] = field(default_factory=list)
    taken: list[tuple[int, Deed]] = field(default_factory=list)
    """What was decided: the plan that replays this execution."""
    story: list[str] | None = None
    """What happened, for people; None when nobody reads it."""
    phase: int = 0
    actor: str = "sweep"
    orderly: bool = True
    """Whether everybody has seen things as they were when they acted."""
    alone: bool = True
    """Whether nobody has acted beside somebody else."""
    _flights: list[_Flight] = field(default_factory=list)
    _actors: list[Actor] = field(default_factory=list)
    _turn: Actor | None = None
    _hub: greenlet | None = None
    _wanted: str = ""
    _failure: BaseException | None = None

    # --- time ------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        return (self.now - START).total_seconds()

    def move(self, by: timedelta) -> None:
        """Time passes, and bounded writes on their way land at their last moment."""
        to = self.now + by
        for flight in sorted((f for f in self._flights if f.until and not f.landed), key=lambda f: f.until or to):
            if flight.until and flight.until <= to:
                self.now = max(self.now, flight.until)
                self._land(flight)
        self.now = to
        self._check()

    def sleep(self, seconds: float) -> None:
        span = timedelta(seconds=seconds)
        if self._turn is None or self._hub is None:
            self.move(span)
            return
        self._turn.wake = self.now + span
        self._hub.switch()

    # --- calls -----------------------------------------------------------------------------------

    def read(self, box: Box[S], call: str, look: Callable[[S], T]) -> T:
        """A call that changes nothing."""
        begun = self.now
        while deed := self._step(Kind.READ, box.name, call):
            match deed.what:
                case What.STALE:
                    return look(box.one_back(self.now - STALE_FOR))
                case What.STALER:
                    return look(box.back_to(self.now - STALE_FOR))
                case What.AFTER:
                    answer = look(box.state)
                    self._give_way(deed)
                    return answer
                case What.PAUSE | What.LINGER:
                    self._give_way(deed)
                    if self.now - begun > CALL_LIMIT:
                        raise self._no_answer(box.name, "timeout", unsure=False)
                case What.LAND:
                    self.land_all()
                case What.DIE | What.DIE_AFTER:
                    raise Crash
                case _:
                    raise self._no_answer(box.name, deed.what, unsure=False)
        return look(box.state)

    def write(self, box: Box[S], call: str, change: Callable[[S], tuple[S, T]], *, begun: datetime | None = None) -> T:
        """A call that changes something.

        Parameters:
            change: from the state to the next one and the answer; raises Trouble for a refusal.
            begun: set where the write is bounded: when its operation began.
        """
        kind = Kind.WRITE if begun is None else Kind.BOUNDED
        until = None if begun is None else begun + CALL_LIMIT
        sent = self.now

        def carry_out() -> T:
            with _one_at_a_time:
                state, answer = change(box.state)
                box.put(state, self.now)
            self._check()
            return answer

        while deed := self._step(kind, box.name, call):
            match deed.what:
                case What.PAUSE | What.LINGER:
                    flight = _Flight(carry_out, until, waited_for=True)
                    if until and deed.fate is not Fate.DROPPED:
                        self._flights.append(flight)
                    self._give_way(deed)
                    if flight in self._flights:
                        self._flights.remove(flight)
                    if self.now - sent > CALL_LIMIT or flight.landed:
                        if not until and deed.fate is Fate.LATE:
                            self._land(flight)
                        if deed.fate is not Fate.ANSWERED or until:
                            raise self._no_answer(box.name, "timeout", unsure=True)
                case What.LAND:
                    self.land_all()
                case What.AFTER:
                    answer = carry_out()
                    self._give_way(deed)
                    return answer
                case What.TWICE:
                    carry_out()
                    return carry_out()
                case What.DIE:
                    raise Crash
                case What.DIE_AFTER:
                    self._quietly(carry_out)
                    raise Crash
                case What.FAIL:
                    raise self._no_answer(box.name, deed.what, unsure=False)
                case What.LOST:
                    self._quietly(carry_out)
                    raise self._no_answer(box.name, deed.what, unsure=True)
                case What.LATE | What.DIE_LATE:
                    self._flights.append(_Flight(carry_out, until))
                    if deed.what is What.DIE_LATE:
                        raise Crash
                    raise self._no_answer(box.name, deed.what, unsure=True)
                case _:
                    raise self._no_answer(box.name, deed.what, unsure=True)
        return carry_out()

    def record(self, line: str) -> None:
        """A line of the audit trail is about to be written."""
        while deed := self._step(Kind.RECORD, "audit", line):
            match deed.what:
                case What.LAND:
                    self.land_all()
                case What.DIE | What.DIE_AFTER:
                    raise Crash
                case What.FAIL:
                    raise self._no_answer("audit", "the disk is full", unsure=False)
                case _:
                    self._give_way(deed)

    def land_all(self) -> None:
        """What is late is late no more."""
        for flight in [f for f in self._flights if not f.waited_for]:
            self._land(flight)
            self._flights.remove(flight)

    @property
    def latecomers(self) -> bool:
        return any(not f.waited_for and not f.landed for f in self._flights)

    def _step(self, kind: Kind, service: str, call: str) -> Deed | None:
        others = tuple(a.name for a in self._actors if a is not self._turn and not a.ended) if self._hub else ()
        late = bool(self._flights) and self.latecomers
        step = Step(kind, self.actor, self.phase, service, call, others, late)
        number = len(self.log)
        self.log.append(step)
        deed = self.choose(number, step)
        if deed:
            self.taken.append((number, deed))
            self.orderly = self.orderly and deed.what not in _DISORDERLY
        if self.story is not None:
            self.tell(f"{call} at {service}" + (f"   <<< {deed}" if deed else ""), number)
        return deed

    def tell(self, text: str, number: int | None = None) -> None:
        """A line of the story."""
        if self.story is not None:
            shown = "" if number is None else str(number)
            self.story.append(f"{shown:>5} {_since(self.now):>12}  {self.actor:<9} {text}")

    def _no_answer(self, service: str, why: str, *, unsure: bool) -> Trouble:
        return Trouble(Code.UNAVAILABLE, service, f"no answer ({why})", maybe_applied=unsure)

    def _land(self, flight: _Flight) -> None:
        if not flight.landed:
            flight.landed = True
            self.tell("(a write that was on its way is carried out)")
            self._quietly(flight.land)

    @staticmethod
    def _quietly(act: Callable[[], object]) -> None:
        """Nobody gets the answer, whatever it is."""
        try:
            act()
        except Trouble:
            return

    def _check(self) -> None:
        if self.watch:
            self.watch.check()

    # --- turns -----------------------------------------------------------------------------------

    def act(self, actors: Iterable[Actor]) -> None:
        """Lets all of them act until each is done, in this order unless deeds say otherwise.

        Raises:
            BaseException: what one of them ended with, except for a crash.
        """
        self._actors = list(actors)
        self.alone = len(self._actors) == 1
        if self.alone:
            self.actor = self._actors[0].name
            self._body(self._actors[0])
        else:
            self._take_turns()
        self.actor, self._actors, self._turn, self._hub = "sweep", [], None, None
        if self._failure:
            raise self._failure

    def _body(self, actor: Actor) -> None:
        try:
            actor.body()
            actor.ended = "done"
        except Crash:
            actor.ended = "crashed"
            self.tell("dies")
        except Trouble as trouble:
            actor.ended = "gave up"
            self.tell(f"gives up: {trouble}")
        except Exception as error:  # noqa: BLE001 - a broken engine is a finding like any other
            actor.ended = "failed"
            self._failure = error

    def _take_turns(self) -> None:
        self._hub = greenlet.getcurrent()
        for actor in self._actors:
            actor.inner = greenlet(self._body)
        turn: Actor | None = self._actors[0]
        try:
            while turn and not self._failure:
                self._turn, self.actor = turn, turn.name
                turn.held, turn.wake = False, None
                assert turn.inner is not None, "it was made above"
                turn.inner.switch(*(() if turn.inner else (turn,)))
                turn = self._next(turn)
        finally:
            for actor in self._actors:
                if actor.inner:
                    actor.inner.throw()

    def _next(self, last: Actor) -> Actor | None:
        wanted, self._wanted = self._wanted, ""
        live = [a for a in self._actors if not a.ended]
        if not live:
            return None
        if chosen := next((a for a in live if a.name == wanted), None):
            if chosen.wake and chosen.wake > self.now:
                self.move(chosen.wake - self.now)
            return chosen
        after = self._actors.index(last)
        live.sort(key=lambda a: (self._actors.index(a) - after) % len(self._actors))
        awake = [a for a in live if not a.held and (a.wake is None or a.wake <= self.now)]
        if awake:
            return awake[0]
        asleep = [a for a in live if not a.held and a.wake is not None]
        if asleep:
            first = min(asleep, key=lambda a: a.wake or self.now)
            if first.wake:
                self.move(first.wake - self.now)
            return first
        return live[0]

    def _give_way(self, deed: Deed) -> None:
        """Stops the current actor; comes back when it is its turn again."""
        first = deed.what is not What.LINGER
        if first:
            self.move(deed.span)
        me, hub = self._turn, self._hub
        if me and hub and any(a is not me and not a.ended for a in self._actors):
            others = [a for a in self._actors if a is not me and not a.ended]
            self._wanted = deed.to or min(others, key=lambda a: self._actors.index(a) < self._actors.index(me)).name
            me.held = True
            hub.switch()
            self.tell("goes on")
        if not first:
            self.move(deed.span)


def _since(at: datetime) -> str:
    span = at - START
    minutes, seconds = divmod(span.seconds, 60)
    return f"{span.days}d {minutes // 60:02}:{minutes % 60:02}:{seconds:02}"


class Planned:
    """Decides by a plan."""

    def __init__(self, plan: Plan = ()) -> None:
        self._deeds = dict(plan)
        self._last = max(self._deeds, default=-1)

    def __call__(self, number: int, step: Step) -> Deed | None:
        return self._deeds.get(number)

    def over(self, number: int) -> bool:
        return number > self._last
