"""What the Lambda function does with an event; `aws_lambda` is the door to it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from rotation import logs
from rotation.assembly import Assembly, assemble
from rotation.audit.around import Requests
from rotation.audit.opening import open_trail
from rotation.audit.trail import ChainedAuditor, Surroundings
from rotation.batches import is_batch
from rotation.declared import Config
from rotation.engine import Outcome, Target
from rotation.errors import Trouble
from rotation.functions import emf
from rotation.model import Policy, SecretValue
from rotation.notify import runs
from rotation.observe import board, instruments
from rotation.ports import Auditor, Clock, RotatesByItself
from rotation.situation import Stop
from rotation.telemetry import Call, Run, Several, Sweep, Telemetry, sweeping

if TYPE_CHECKING:
    from rotation.crew import Worker

PACKED: Final = "keyturn.json"
"""The configuration, at the root of the package."""
_FUNCTION: Final = "AWS_LAMBDA_FUNCTION_NAME"
QUEUE: Final = "KEYTURN_FLEET_QUEUE"
"""The variable with the address of the SQS queue of a fleet: where it is set, a schedule dispatches and does not sweep."""
RESERVE: Final = timedelta(seconds=20)
"""Kept back of an invocation's time: no effect begins in it, so that what is under way can end and be told."""
LEAST: Final = timedelta(seconds=60)
"""With less time than this no rotation is begun: a function that is cut off between a mint and the store loses the key."""

_log: Final = logging.getLogger("keyturn.lambda")


class Context(Protocol):
    """What Lambda tells of an invocation."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int: ...


class Failed(Exception):  # noqa: N818 - the name under which the console lists what went wrong
    """What an invocation was to do did not come about. Holds no value."""


class Step(StrEnum):
    """The steps of a rotation as the function templates spell them; the user guide has underscores."""

    CREATE = "createsecret"
    SET = "setsecret"
    TEST = "testsecret"
    FINISH = "finishsecret"


_STOPS: Final = {Step.CREATE: Stop.STAGED, Step.TEST: Stop.VERIFIED, Step.FINISH: Stop.PROMOTED}


_FINE: Final = ("operation",)
"""Labels that are no dimensions: CloudWatch charges for each combination, and the log at DEBUG tells every call."""


class Watch:
    """Gathers what an invocation did: for CloudWatch's metrics, and latencies for the log."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measures: list[instruments.Measure] = []
        self._calls: dict[str, list[Call]] = {}

    @contextmanager
    def watch(self, what: Call | Run | Sweep) -> Iterator[None]:
        yield
        found = [
            (metric, {name: text for name, text in labels.items() if name not in _FINE}, value)
            for metric, labels, value in instruments.measures(what)
        ]
        with self._lock:
            self._measures += found
            if isinstance(what, Call):
                self._calls.setdefault(what.service, []).append(what)
        if isinstance(what, Call):
            fields = {
                "service": what.service,
                "operation": what.operation,
                "outcome": what.outcome,
                "ms": _ms(what.seconds),
                "request_id": what.request_id,
            }
            _log.debug("%s %s: %s", what.service, what.operation, what.outcome, extra={"fields": fields})

    def add(self, found: list[instruments.Measure]) -> None:
        with self._lock:
            self._measures += found

    def take(self) -> tuple[list[instruments.Measure], dict[str, dict[str, int]]]:
        """What was gathered since the last time: measures, and calls with their milliseconds by service."""
        with self._lock:
            measures, calls = self._measures, self._calls
            self._measures, self._calls = [], {}
        return measures, {
            service: {
                "calls": len(made),
                "failed": sum(call.outcome != "ok" for call in made),
                "ms": _ms(sum(call.seconds for call in made)),
                "slowest_ms": _ms(max(call.seconds for call in made)),
            }
            for service, made in sorted(calls.items())
        }


class Host:
    """One execution environment of the function: one invocation at a time, which may use several threads.

    Parameters:
        config: of the stack.
        env: where credentials are looked up.
        auditor: the audit trail.
        clock: the system's when not given.
        say: takes a line of metrics.
        watches: are told of every call, too.
    """

    def __init__(
        self,
        config: Config,
        env: Mapping[str, str],
        auditor: Auditor,
        clock: Clock | None = None,
        say: Callable[[str], None] = print,
        watches: Sequence[Telemetry] = (),
    ) -> None:
        self._watch = Watch()
        self._ends_at = float("inf")
        self._say = say
        self._cold = True
        self._assembly: Final[Assembly] = assemble(
            config, env, auditor, clock, telemetry=Several(self._watch, *watches), stopping=self._stopping
        )
        self._clock: Final = self._assembly.clock
        self._queue = env.get(QUEUE)
        self._worker: Worker | None = None
        self._trail = auditor if isinstance(auditor, ChainedAuditor) else None
        if self._trail is not None:
            self._trail.watched_by(self._watch, self._clock)

    def answer(self, event: Mapping[str, Any], context: Context) -> Any:
        """Does what an event asks for, and tells what it did. See `aws_lambda.handler`."""
        began = self._clock.monotonic()
        left = context.get_remaining_time_in_millis() / 1000
        self._ends_at = began + left - RESERVE.total_seconds()
        _request.id = context.aws_request_id
        told: dict[str, object] = {"cold": self._cold}
        self._cold = False
        try:
            return self._do(event, timedelta(seconds=left), told)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is masked before Lambda writes it down
            told["failed"] = type(error).__name__
            self._fail(error)
        finally:
            runs.flush(self._assembly)  # this environment is frozen as soon as the answer is there
            if self._trail is not None:
                self._trail.anchor()
            measures, calls = self._watch.take()
            for line in emf.lines(measures, self._clock.now()):
                self._say(line)
            fields = told | {"ms": _ms(self._clock.monotonic() - began), "of_ms": round(left * 1000), "calls": calls}
            _log.info("invocation of %s ended", told.get("what", "nothing"), extra={"fields": fields})

    def _do(self, event: Mapping[str, Any], left: timedelta, told: dict[str, object]) -> Any:
        if "Step" in event and "SecretId" in event:
            told["what"] = f"step {event['Step']}"
            return self._step(event, left, told)
        if any(record.get("eventSource") == "aws:sqs" for record in event.get("Records", ())):
            told["what"] = "batch"
            return {"batchItemFailures": [{"itemIdentifier": id_} for id_ in self._batch(event["Records"])]}
        scheduled = event.get("source") in ("aws.events", "aws.scheduler")
        if event.get("keyturn") == "dispatch" or (scheduled and self._queue):
            told["what"] = "dispatch"
            return self._dispatch()
        if event.get("source") in ("aws.events", "aws.scheduler") or event.get("keyturn") == "sweep":
            told["what"] = "sweep"
            return self._sweep()
        raise Failed(
            "an event of no known kind; known are a step of Secrets Manager, a scheduled event of EventBridge, "
            'messages of SQS, {"keyturn": "sweep"} and {"keyturn": "dispatch"}'
        )

    # --- a step of a rotation ----------------------------------------------------------------------

    def _step(self, event: Mapping[str, Any], left: timedelta, told: dict[str, object]) -> None:
        try:
            step = Step(str(event["Step"]).replace("_", "").lower())
        except ValueError:
            raise Failed(f"there is no step {event['Step']!r}") from None
        target, token = self._target(str(event["SecretId"])), str(event["ClientRequestToken"])
        told |= {"secret": target.entry, "token": token}
        if step is Step.SET:
            return  # nothing was asked of any service, so there is nothing to guard either
        if step is Step.CREATE and left < LEAST:
            raise Failed(f"{target.entry}: {left.seconds} s are left, {LEAST.seconds} are needed; raise the timeout")
        store = self._assembly.stores[target.store]
        right = event.get("RotationToken")
        allowed = (
            store.rotating(target.entry, token, SecretValue(str(right)))
            if right and isinstance(store, RotatesByItself)
            else nullcontext()
        )

        def work() -> Outcome:
            return self._assembly.engine.step(target, token, _STOPS[step], patience=left - RESERVE)

        policy = self._declared(target)
        with allowed:
            outcome = runs.running(self._assembly, "rotate", policy, work) if policy else work()
        self._look(outcome)
        told["did"] = [record.event for record in outcome.records]
        if not outcome.achieved:
            raise Failed(f"{target.entry}: {event['Step']} is not done: {_why(outcome)}")
        assert outcome.rest is not None, "what was reached is a rest"
        told["reached"] = outcome.rest.reason

    def _target(self, arn: str) -> Target:
        """The store and entry of a secret's ARN: `arn:…:secretsmanager:REGION:ACCOUNT:secret:NAME-6RANDOM`."""
        parts = arn.split(":", 6)
        if len(parts) != 7 or parts[2] != "secretsmanager":
            raise Failed(f"{arn!r} is no ARN of a secret")
        entry, config = parts[6].rpartition("-")[0], self._assembly.config
        near = [
            name
            for name, store in config.stores.items()
            if store.kind == "aws-secrets-manager" and store.region == parts[3] and entry.startswith(store.prefix)
        ]
        declared = [name for name in near if self._declared(Target(name, entry))]
        if not near:
            raise Failed(f"{entry}: no store of this function's configuration is in {parts[3]} with such a name")
        return Target((declared or near)[0], entry)

    def _declared(self, target: Target) -> Policy | None:
        policies = self._assembly.config.policies
        return next((policy for policy in policies if self._assembly.target(policy) == target), None)

    # --- the sweep, and single secrets -------------------------------------------------------------

    def _sweep(self) -> dict[str, int]:
        from rotation import sweep  # noqa: PLC0415 - a step does without

        assembly, results = self._assembly, dict[str, int]()
        with sweeping(assembly.telemetry, self._clock, assembly.config.environment) as watched:
            begun = sweep.begin(assembly, "this function's configuration")
            watched.secrets = begun.total
            sweep.tell_begun(begun)
            for policy, outcome in begun.run_all():
                sweep.tell(assembly, policy, outcome)
                self._look(outcome)
                end = sweep.ended(outcome).value
                results[end] = results.get(end, 0) + 1
            watched.result = "failed" if begun.troubles or results.keys() - {sweep.Ended.DONE.value} else "done"
        counts = {
            "secrets": begun.total,
            "orphans": len(begun.adopted),
            "unseen": len(begun.troubles),
            **results,
        }
        if watched.result == "failed":
            # Nobody reads what an asynchronous invocation returns; its failure can raise an alarm.
            raise Failed(f"the sweep of {assembly.config.environment} left something: {counts}; the log says what")
        return counts

    def _dispatch(self) -> dict[str, int]:
        """The sweep of a fleet: what has something to do goes to the queue, for other invocations of this function."""
        from rotation import crew  # noqa: PLC0415 - a fleet's alone
        from rotation.functions.sqs import Sender  # noqa: PLC0415

        if not self._queue:
            raise Failed(f"{QUEUE} is not set: the address of the queue that a dispatch sends to")
        with Sender(self._queue) as sender:
            sent = crew.dispatch(self._assembly, sender.send, "this function's configuration")
        if sent.unseen:
            raise Failed(
                f"the dispatch of {self._assembly.config.environment} left something: {sent}; the log says what"
            )
        return asdict(sent)

    def _batch(self, records: list[Mapping[str, Any]]) -> list[str]:
        """Runs the secrets that messages name, each once; gives the ids of messages that are to come again."""
        named: dict[str, list[str]] = {}
        again: list[str] = []
        for record in records:
            if is_batch(body := record.get("body", "")):
                again += [record["messageId"]] if self._work(body) else []
                continue
            named.setdefault(_named(record.get("body", "")), []).append(record["messageId"])
        return again + [id_ for name, ids in named.items() if not self._run(name) for id_ in ids]

    def _work(self, body: str) -> bool:
        """Whether a message of a dispatch is to come again."""
        from rotation.crew import Worker  # noqa: PLC0415 - a fleet's alone

        self._worker = self._worker or Worker(self._assembly, self._stopping, self._look)
        return bool(self._worker.run(body).again) or self._stopping()

    def _run(self, name: str) -> bool:
        from rotation import sweep  # noqa: PLC0415 - a step does without

        assembly = self._assembly
        policy = next((p for p in assembly.config.policies if name in (p.name, assembly.target(p).entry)), None)
        if policy is None:
            _log.error("a message names the secret %r, which is not declared", name)
            return False
        if self._stopping():
            _log.warning("%s: no time is left for it; its message comes again", name)
            return False
        try:
            sweep.opened(assembly, [policy])
            outcome = runs.running(assembly, "sweep", policy, lambda: assembly.engine.run(assembly.target(policy)))
            sweep.tell(assembly, policy, outcome)
            self._look(outcome)
        except Exception:  # noqa: BLE001 - the others of the batch are not held up
            _log.exception("%s: its message comes again", name)
            return False
        return sweep.ended(outcome) is sweep.Ended.DONE and not self._stopping()

    # --- small parts -------------------------------------------------------------------------------

    def _stopping(self) -> bool:
        return self._clock.monotonic() >= self._ends_at

    def _look(self, outcome: Outcome) -> None:
        """The gauges of a secret, from the last look of its run."""
        if outcome.seen is None:
            return
        issuer = self._assembly.issuers[outcome.seen.policy.issuer]
        seen = board.look(outcome.seen, outcome.rest, issuer.capabilities, self._clock.now())
        self._watch.add(list(board.readings([seen], self._clock.now())))

    def _fail(self, error: Exception) -> NoReturn:
        """Lambda writes what is raised to its own log, with the chain behind it, and Secrets Manager to CloudTrail."""
        if not isinstance(error, Failed | Trouble):
            _log.error("a fault", exc_info=error)
        told = str(error) if isinstance(error, Failed | Trouble) else f"{type(error).__name__}: {error}"
        raise Failed(logs.masked(told)) from None


def _named(body: str) -> str:
    """The secret in a message: its name as text, or JSON `{"secret": NAME}`."""
    try:
        said = json.loads(body)
    except ValueError:
        return body.strip()
    return str(said.get("secret", "")) if isinstance(said, dict) else str(said)


def _why(outcome: Outcome) -> str:
    parts = [str(outcome.trouble) if outcome.trouble else "", outcome.rest.reason if outcome.rest else ""]
    return "; ".join(part for part in parts if part) or "no reason is known"


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


class _Request(logging.Filter):
    """Puts the id of the invocation into every line, those of other threads and libraries included."""

    id = ""

    def filter(self, record: logging.LogRecord) -> bool:
        record.fields = {"aws_request_id": self.id, **getattr(record, "fields", {})}
        return True


_request: Final = _Request()


def open_host(env: Mapping[str, str], root: Path) -> Host:
    """The host of a function: its configuration, its log and its audit trail. Opens no connection.

    Parameters:
        env: KEYTURN_CONFIG, another place of the configuration; KEYTURN_LOG_LEVEL, INFO as a rule, DEBUG tells every
            call; whatever the configuration refers to.
        root: the package's folder.

    Raises:
        Failed: there is no configuration, or it can not be used.
    """
    logs.adopt(env.get("KEYTURN_LOG_LEVEL", "INFO").upper())
    for handler in logging.getLogger().handlers:
        handler.addFilter(_request)
    config, requests = _config(Path(env.get("KEYTURN_CONFIG") or root / PACKED)), Requests()
    # As whom a function runs is known by its name; asking STS would make every cold start longer.
    who = {"function": env[_FUNCTION]} if _FUNCTION in env else {}
    trail = open_trail(config, env, folder=root, host="console", surroundings=Surroundings(lambda: who, requests.take))
    return Host(config, env, trail, watches=(requests,))


def _config(path: Path) -> Config:
    if path.suffix in (".yaml", ".yml"):
        try:
            from rotation.config import load  # noqa: PLC0415 - for who brings pydantic and YAML along
        except ImportError:
            told = (
                "is YAML, which this package can not read; give it the keyturn.json of `python -m hosting.packages.aws`"
            )
            raise Failed(f"the configuration {path} {told}") from None
        return load(path)
    from rotation.packed import unpack  # noqa: PLC0415

    try:
        return unpack(path.read_text(encoding="utf-8"), path.parent)
    except (OSError, ValueError) as error:
        raise Failed(f"the configuration {path} can not be used: {error}") from None
