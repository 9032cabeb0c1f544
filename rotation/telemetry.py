"""What happens, told to whoever watches: calls to services, runs of secrets, sweeps. The standard library only.

A watcher learns what a thing was, how it ended and how long it took, and never a value. What a watcher does wrong is
logged and changes nothing.

A host gives its watcher to the assembly, and every outgoing call is told; it wraps what it does itself::

    assembly = assemble(config, env, auditor, telemetry=watcher)
    outcome = running(assembly.telemetry, assembly.clock, "sweep", policy, lambda: engine.run(target, order))

A watcher is one method, a context manager round the thing, which is filled in by the time it is left::

    class Printing:
        @contextmanager
        def watch(self, what: Call | Run | Sweep) -> Iterator[None]:
            yield  # it happens here, and never raises into the watcher
            match what:
                case Call():
                    print(what.service, what.operation, what.outcome, what.seconds, what.request_id)
                case Run():
                    print(what.policy.name, what.result, what.effects(), what.durations())
                case Sweep():
                    print(what.result, what.seconds)

Several watchers are one: ``Several(a, b)``. A provider that reads the service's own id of a request off an answer says
``heard(request_id)``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, Protocol

from rotation.actions import Done, Hold
from rotation.errors import Trouble
from rotation.model import Policy
from rotation.ports import Clock, Record

if TYPE_CHECKING:
    from rotation.engine import Outcome

_log = logging.getLogger(__name__)

FAULT: Final = "fault"
"""Outcome of what ended with an exception that is none of ours."""
LEFT_ALONE: Final = "left-alone"
"""Outcome of a call that was not sent, because the service counts as broken."""
UNKNOWN: Final = "unknown"
"""Outcome of a verification where the issuer did not tell whether the credential works."""


@dataclass(slots=True)
class Call:
    """One request to a service, as the ports have it; each repetition is one of its own."""

    service: str
    """The configured name of the store or issuer."""
    operation: str
    """The port's method: `observe`, `stage`, `mint`, …"""
    outcome: str = "ok"
    """`ok`; a `Code` where it failed; UNKNOWN; LEFT_ALONE; FAULT."""
    seconds: float = 0.0
    request_id: str | None = None
    """The service's own id of the request, of the last one where a call takes several."""


Kind = Literal["sweep", "rotate", "rollback", "submit", "emergency", "destroy"]
Duration = Literal["rotation", "retirement", "emergency", "proof"]

EFFECTS: Final[Mapping[str, str]] = {
    "mint.done": "minted",
    "promote.done": "promoted",
    "condemn": "condemned",
    "revoke.done": "revoked",
    "proven": "proven",
    "discard": "discarded",
}
"""What counts as an effect, by the event in the audit trail."""


@dataclass(slots=True, eq=False)
class Run:
    """One secret, taken as far as it went."""

    kind: Kind
    policy: Policy
    """As the host knows it: the applied one in a sweep."""
    result: str = "done"
    """`done`, `waiting`, `held`, `failed`; `fault`."""
    code: str | None = None
    """Of the failure."""
    records: Sequence[Record] = ()
    """What was done and found."""
    started: Mapping[str, datetime] = field(default_factory=dict)
    """By token: when the attempts that the journal still knows were begun."""
    seconds: float = 0.0

    def effects(self) -> list[str]:
        """What was done, in order, in the words of EFFECTS."""
        return [EFFECTS[r.event] for r in self.records if r.event in EFFECTS and not _proven_before(r)]

    def failures(self) -> list[tuple[str, str]]:
        """(action, code) of every action that failed, whether or not the run went on."""
        suffix = ".failed"
        return [
            (record.event.removesuffix(suffix), (record.detail or {}).get("code", FAULT))
            for record in self.records
            if record.event.endswith(suffix)
        ]

    def durations(self) -> list[tuple[Duration, float]]:
        """What was completed in this run, and how many seconds it took from its beginning, which may lie in an earlier one.

        rotation: from the intent to the last store's promotion. retirement: from the moment a key was current nowhere
        to its proof; not of one that an emergency killed. emergency: from the condemnation to the proof. proof: from the revocation to the proof.
        """
        found: list[tuple[Duration, float]] = []
        began = dict(self.started)
        revoked: dict[str, datetime] = {}
        promoted: dict[str, datetime] = {}
        for record in self.records:
            token = record.token or ""
            match record.event:
                case "intend":
                    began[token] = record.at
                case "promote.done":
                    promoted[token] = record.at
                case "revoke.done":
                    revoked[token] = record.at
                case "proven" if not _proven_before(record):
                    since = _since(record.detail or {})
                    if token in revoked:
                        since["proof"] = revoked[token]
                    found += [(name, _seconds(at, record.at)) for name, at in since.items()]
        found += [("rotation", _seconds(began[token], at)) for token, at in promoted.items() if token in began]
        return found


def _proven_before(record: Record) -> bool:
    """A key that was contained is proven while stores still hand it out, and closed when they do no more."""
    return record.event == "proven" and "proven" in (record.detail or {})


def _since(detail: Mapping[str, str]) -> dict[Duration, datetime]:
    """When the stages of a key's end were reached, as the record of its proof tells."""
    names: dict[str, Duration] = {"superseded": "retirement", "emergency": "emergency", "revoked": "proof"}
    found = {name: datetime.fromisoformat(detail[key]) for key, name in names.items() if key in detail}
    if "emergency" in found:
        found.pop("retirement", None)
    return found


def _seconds(begin: datetime, end: datetime) -> float:
    """Not below zero: the journal has whole seconds, and clocks of two runners differ."""
    return max((end - begin).total_seconds(), 0.0)


@dataclass(slots=True)
class Sweep:
    """One round over every secret."""

    environment: str
    result: str = "done"
    """`done`; `failed` where a store could not be listed or a secret failed; `fault`."""
    secrets: int = 0
    seconds: float = 0.0


class Telemetry(Protocol):
    """Watches. Called from several threads at once."""

    def watch(self, what: Call | Run | Sweep) -> AbstractContextManager[None]:
        """A context that the thing happens in, in one thread. Sees no exception of it: `what` says how it ended."""


class Several:
    """Watchers as one; none of them when there are none. A fault of one is no matter of the others."""

    def __init__(self, *watchers: Telemetry) -> None:
        self._watchers = watchers

    @contextmanager
    def watch(self, what: Call | Run | Sweep) -> Iterator[None]:
        with ExitStack() as stack:
            for watcher in self._watchers:
                stack.enter_context(_harmless(watcher, what))
            yield


NONE: Final = Several()
"""Nobody watches."""


@contextmanager
def _harmless(watcher: Telemetry, what: Call | Run | Sweep) -> Iterator[None]:
    context: AbstractContextManager[None] | None = None
    try:
        context = watcher.watch(what)
        context.__enter__()
    except Exception as error:  # noqa: BLE001 - whatever a watcher does wrong
        context = None
        _tell(watcher, error)
    try:
        yield
    finally:
        if context is not None:
            try:
                context.__exit__(None, None, None)
            except Exception as error:  # noqa: BLE001 - as above
                _tell(watcher, error)


def _tell(watcher: Telemetry, error: Exception) -> None:
    _log.warning("%s can not watch: %s", type(watcher).__name__, type(error).__name__)


_now: ContextVar[Call | None] = ContextVar("call", default=None)


_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def heard(request_id: str | None, *, checked: bool = False) -> None:
    """The service's own id of the request that is being answered.

    Parameters:
        request_id: anything but a UUID is dropped, because a gateway may answer with a token in its place.
        checked: the caller has held it against its secrets, and any form will do.
    """
    if request_id and (checked or _UUID.fullmatch(request_id)) and (call := _now.get()) is not None:
        call.request_id = request_id


@contextmanager
def calling(telemetry: Telemetry, clock: Clock, service: str, operation: str, *, hears: bool = True) -> Iterator[Call]:
    """One call to a service, told to the watcher. Whoever calls may correct the outcome.

    Parameters:
        hears: takes what heard() says. False in a generator, whose reader does other things between two items.
    """
    call, began = Call(service, operation), clock.monotonic()
    token = _now.set(call) if hears else None
    with _harmless(telemetry, call):
        try:
            yield call
        except Trouble as trouble:
            call.outcome = trouble.code.value
            raise
        except GeneratorExit:  # its reader has had enough
            raise
        except BaseException:
            call.outcome = FAULT
            raise
        finally:
            call.seconds = clock.monotonic() - began
            if token is not None:
                _now.reset(token)


def left_alone(telemetry: Telemetry, service: str, operation: str) -> None:
    """A call that was not sent, told to the watcher."""
    with _harmless(telemetry, Call(service, operation, LEFT_ALONE)):
        pass


def running(telemetry: Telemetry, clock: Clock, kind: Kind, policy: Policy, work: Callable[[], Outcome]) -> Outcome:
    """A run of one secret, told to the watcher.

    Parameters:
        kind: what the run is for.
        policy: of the secret; name, environment, owner, issuer and store stand in what is told.
        work: does it, in this thread.
    """
    run, began = Run(kind, policy), clock.monotonic()
    with _harmless(telemetry, run):
        try:
            outcome = work()
            _end(run, outcome)
        except Trouble as trouble:
            run.result, run.code = "failed", trouble.code.value
            raise
        except BaseException:
            run.result = FAULT
            raise
        finally:
            run.seconds = clock.monotonic() - began
        return outcome


def _end(run: Run, outcome: Outcome) -> None:
    run.records = outcome.records
    if outcome.seen:
        run.started = {token: attempt.at for token, attempt in outcome.seen.primary.journal.attempts.items()}
    match outcome.rest:
        case _ if outcome.trouble is not None:
            run.result, run.code = "failed", outcome.trouble.code.value
        case Hold():
            run.result = "held"
        case Done():
            run.result = "done"
        case _:
            run.result = "waiting"


@contextmanager
def sweeping(telemetry: Telemetry, clock: Clock, environment: str) -> Iterator[Sweep]:
    """A sweep, told to the watcher. Whoever sweeps says how it ended."""
    sweep, began = Sweep(environment), clock.monotonic()
    with _harmless(telemetry, sweep):
        try:
            yield sweep
        except BaseException:
            sweep.result = FAULT
            raise
        finally:
            sweep.seconds = clock.monotonic() - began
