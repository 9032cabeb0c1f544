"""Azure Functions: Event Grid's webhook, queue messages and a timer, turned into runs of secrets and sweeps.

    Event Grid ──POST──► answer(): understood, told in the log ──► queue ──► run(): the ordinary run of one secret
    somebody   ─────────────── {"secret": NAME}, or NAME ────────► queue ──┤
    timer      ─── of a fleet: dispatch(), a look round ─────────► queue ──┘
    timer      ─── else ───────────────────────────────────────────────────► sweep(): everything; this is the truth

An event only makes a run prompt: whether anything is due is decided by that run, from what is really there. So events
that come twice, late, in another order or not at all cost nothing but time. The webhook asks no service anything, and so
answers at once; Event Grid waits for 30 seconds.

Nothing here needs the package azure-functions: the bindings stand in `hosting/functions/function_app.py`. Facts from
"Azure Functions Python developer guide (v2)", "Azure Queue storage trigger", "Endpoint validation with Event Grid
event schema" and "CloudEvents webhooks: Abuse protection".
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rotation import crew, inventory, logs, names
from rotation import policy as policies
from rotation import sweep as sweeps
from rotation.batches import is_batch
from rotation.config import Config, ConfigError, find_stack_file, load
from rotation.engine import Target
from rotation.errors import Code, Trouble
from rotation.functions import event_grid
from rotation.functions.event_grid import Handshake, Kind, Mangled, Notice, Other
from rotation.notify import runs
from rotation.sweep import Ended

if TYPE_CHECKING:
    from rotation.assembly import Assembly
    from rotation.model import Policy

QUEUE: Final = "keyturn-runs"
"""Holds which secrets are to be looked at now."""
FLEET: Final = "KEYTURN_FLEET"
"""The setting by which the timer looks round and has the queue's function do the work, on as many instances as there are."""
SCHEDULE: Final = "0 */5 * * * *"
"""When to sweep, in the six fields of NCRONTAB, where KEYTURN_SWEEP_SCHEDULE says nothing: every five minutes."""

_PROMPTING: Final = (Kind.NEAR_EXPIRY, Kind.EXPIRED)
"""The other, a new version, is what a run of ours makes. Somebody else's is seen by the next sweep."""
_ORIGIN: Final = "eventgrid.azure."
_LONGEST_SHOWN: Final = 100

_log = logging.getLogger(__name__)


class Redeliver(Exception):  # noqa: N818 - says what is asked of the queue
    """A run failed for a reason that passes: the message is to come again."""


class SweepFailed(Exception):  # noqa: N818 - a name for dashboards, which show failed invocations by it
    """Something is left that the next sweep takes up; raised so that the platform's alerts on failures hear of it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One secret that is to be looked at now, as it stands in a message of the queue."""

    secret: str
    store: str | None = None
    """The store that an event came from; the secret must be one that is kept there."""

    def __str__(self) -> str:
        return json.dumps({"secret": self.secret} | ({"store": self.store} if self.store else {}))


@dataclass(frozen=True, slots=True)
class Answer:
    """To an HTTP request, and what is to be put into the queue before it is given."""

    status: HTTPStatus
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    prompts: tuple[Prompt, ...] = ()


# --- pure: what was said, and what it asks for -----------------------------------------------------


def preflight(headers: Mapping[str, str]) -> Answer:
    """The OPTIONS request that asks, before a CloudEvents subscription begins, whether we want its events.

    Parameters:
        headers: of the request; names in lower case.
    """
    origin = headers.get("webhook-request-origin", "").strip()
    if not origin.casefold().startswith(_ORIGIN) or not origin.isprintable():
        return Answer(HTTPStatus.BAD_REQUEST, body="WebHook-Request-Origin: only Event Grid may send events here")
    allowed = {"WebHook-Allowed-Origin": origin}
    if "webhook-request-rate" in headers:
        allowed["WebHook-Allowed-Rate"] = "*"
    return Answer(HTTPStatus.OK, allowed)


def named(notice: Notice, config: Config) -> Prompt | str:
    """The secret of ours that an event is about, as far as names tell; or why it is none."""
    stores = [
        name
        for name, about in config.stores.items()
        if about.kind == "azure-key-vault" and event_grid.is_from(notice, about.vault_url)
    ]
    if not stores:
        return "its vault is none of this stack's stores"
    name = notice.entry.removeprefix(names.dashed(config.environment, ""))
    if name == notice.entry:
        return f"not of the environment {config.environment}"
    if fault := names.name_fault(name):
        return f"not the name of a secret, which {fault}"
    return Prompt(name, stores[0])


def prompts(message: bytes | str, config: Config) -> list[Prompt]:
    """What a message of the queue asks for: `NAME`, `"NAME"`, `{"secret": NAME}`, or events as Event Grid queues them.

    Raises:
        Mangled: it asks for nothing that can be understood.
    """
    try:
        text = (message.decode("utf-8-sig") if isinstance(message, bytes) else message).strip()
    except UnicodeDecodeError:
        raise Mangled("is not UTF-8 text") from None
    if not text.startswith(("[", "{", '"')):
        return [_prompt(text, None)]
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise Mangled("is neither a name nor JSON") from None
    if isinstance(given, str):
        return [_prompt(given, None)]
    if isinstance(given, dict) and "secret" in given:
        return [_prompt(given["secret"], given.get("store"))]
    return list(_sorted_out(event_grid.read(text), config)[0])


def _prompt(secret: object, store: object) -> Prompt:
    if not isinstance(secret, str) or not isinstance(store, str | None):
        raise Mangled("names its secret by something that is not text")
    if fault := names.name_fault(secret.strip()):
        raise Mangled(f"names its secret {secret[:_LONGEST_SHOWN]!r}, which {fault}")
    return Prompt(secret.strip(), store)


def _sorted_out(
    events: list[Notice | Handshake | Other | Mangled], config: Config
) -> tuple[tuple[Prompt, ...], list[str], bool]:
    """What events ask for, each secret once; the codes to repeat; and whether any of them was understood.

    Every event leaves one line in the log.
    """
    asked: dict[Prompt, None] = {}
    codes: list[str] = []
    understood = not events
    for event in events:
        understood = understood or not isinstance(event, Mangled)
        match event:
            case Mangled():
                _log.warning("event that can not be understood: it %s", event)
            case Handshake():
                codes.append(event.code)
                _log.info("Event Grid asks for a subscription; answered")
            case Other():
                other = {"event": event.id[:_LONGEST_SHOWN], "kind": event.kind[:_LONGEST_SHOWN]}
                _log.info("event of another kind: left alone", extra={"fields": other})
            case Notice():
                found = named(event, config)
                told = _fields(event)
                if isinstance(found, str):
                    _log.info("event about %s: left alone, %s", event.entry, found, extra={"fields": told})
                elif event.kind not in _PROMPTING:
                    _log.info("event about %s: looked at only", found.secret, extra={"fields": told})
                else:
                    asked[found] = None
                    _log.info("event about %s: a run looks at it now", found.secret, extra={"fields": told})
    return tuple(asked), codes, understood


def _fields(event: Notice) -> dict[str, object]:
    return {
        "event": event.id[:_LONGEST_SHOWN],
        "kind": event.kind.value,
        "entry": event.entry,
        "vault": event.vault or event.host,
        "expires": event.expires.isoformat() if event.expires else None,
    }


# --- the host -------------------------------------------------------------------------------------


class Host:
    """What the functions of one app do. Threads may share it.

    Parameters:
        config: of the app's stack.
        assemble: makes the engine with all that it needs; called once, at the first run or sweep.
    """

    def __init__(self, config: Config, assemble: Callable[[], Assembly]) -> None:
        self.config: Final = config
        self._assemble = assemble
        self._assembly: Assembly | None = None
        self._lock = threading.Lock()

    def answer(self, method: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The webhook. Never raises, asks no service anything, and repeats nothing of what it was sent but a code.

        400 where nothing of the body can be understood, which Event Grid does not send again. Events about
        what is not ours are answered like all others.
        """
        if method.upper() == "OPTIONS":
            return preflight({name.lower(): text for name, text in headers.items()})
        if method.upper() != "POST":
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "POST, OPTIONS"})
        try:
            asked, codes, understood = _sorted_out(event_grid.read(body), self.config)
        except Mangled as mangled:
            _log.warning("request that can not be understood: it %s", mangled)
            return Answer(HTTPStatus.BAD_REQUEST, body=f"what was sent {mangled}")
        if not understood:
            return Answer(HTTPStatus.BAD_REQUEST, body="none of the events can be understood")
        told = {"validationResponse": codes[0]} if codes else {"prompted": [prompt.secret for prompt in asked]}
        return Answer(HTTPStatus.OK, {"Content-Type": "application/json"}, json.dumps(told), asked)

    def run(self, message: bytes | str) -> list[Ended]:
        """Looks at the secrets that a message of the queue names, one after the other, and does what is due.

        Returns:
            How each ended; of those only that are ours.

        Raises:
            Redeliver: one of them failed for a reason that passes. A reason that does not is told in the log, and the
                message is done with: it would fail the same way each time, and every sweep tells it again.
        """
        if (text := _text(message)) is not None and is_batch(text):
            return self._work(text)
        try:
            asked = prompts(message, self.config)
        except Mangled as mangled:
            _log.error("message dropped: it %s", mangled)
            return []
        passing: list[str] = []
        ends = []
        for prompt in asked:
            try:
                ends.append(self._run(prompt))
            except Trouble as trouble:
                told = f"{prompt.secret}: {trouble}"
                if not trouble.code.permanent:
                    passing.append(told)
                    continue
                _log.error("%s; not tried again before the next sweep", told)
            except ConfigError as error:
                _log.error("%s: %s", prompt.secret, error)
        if passing:
            raise Redeliver("; ".join(passing))
        return ends

    def sweep(self) -> None:
        """Does everything that is due, interrupted, drained or orphaned.

        Raises:
            SweepFailed: something of it failed, or a credential that should be dead is not shown so. Told in the log;
                the next sweep goes on.
            ConfigError: a login that a secret needs is not set.
        """
        end = sweeps.sweep(self._ready(), self._file)
        if end is not Ended.DONE:
            raise SweepFailed(f"the sweep of {self.config.environment} ended {end.value}; the log says where")

    def dispatch(self) -> list[str]:
        """Of a fleet, in place of sweep(): messages for the queue, which other instances of the app take from it.

        Raises:
            ConfigError: a login that a secret needs is not set.
        """
        messages: list[str] = []
        crew.dispatch(self._ready(), lambda batch: messages.append(str(batch)), self._file)
        return messages

    def _work(self, text: str) -> list[Ended]:
        worked = crew.Worker(self._ready()).run(text)
        if worked.again:
            raise Redeliver(f"to be run again: {', '.join(worked.again)}")
        return list(worked.ends)

    def _run(self, prompt: Prompt) -> Ended:
        """Raises Trouble with whatever kept the run from doing what is due."""
        assembly = self._ready()
        target, policy = self._find(assembly, prompt)
        sweeps.opened(assembly, [policy])
        outcome = runs.running(assembly, "sweep", policy, lambda: assembly.engine.run(target))
        runs.flush(assembly)
        sweeps.tell(assembly, policy, outcome)
        if outcome.trouble:
            raise outcome.trouble
        return sweeps.ended(outcome)

    def _find(self, assembly: Assembly, prompt: Prompt) -> tuple[Target, Policy]:
        """The one entry of this name by what is applied, which counts, wherever the file says that it is.

        Raises:
            Trouble: NOT_FOUND when there is none; whatever keeps it from being read.
        """
        unseen: list[Trouble] = []
        for target in self._places(assembly, prompt.secret, unseen):
            try:
                policy = policies.read(assembly.stores[target.store].observe(target.entry).policy)
            except Trouble as trouble:
                if trouble.code is not Code.NOT_FOUND:
                    unseen.append(trouble)
                continue
            except ValueError as error:
                unseen.append(Trouble(Code.INVALID, target.store, f"{target.entry}: {error}; apply the stack again"))
                continue
            if self._is(policy, prompt, target):
                return target, policy
        if unseen:
            raise unseen[0]
        where = f" that is kept in {prompt.store}" if prompt.store else ""
        raise Trouble(Code.NOT_FOUND, self._file, f"no secret {prompt.secret}{where} is applied")

    def _places(self, assembly: Assembly, name: str, unseen: list[Trouble]) -> Iterator[Target]:
        """Where the file says that it is; then where listings find it, for one that is applied and declared no more."""
        declared = assembly.places.locate(self.config.environment, name)
        if declared:
            yield declared
        found, troubles = inventory.managed(assembly, self._file)
        yield from (target for target, policy in found if policy.name == name and target != declared)
        unseen.extend(trouble for trouble in troubles if not trouble.code.permanent)

    def _is(self, policy: Policy, prompt: Prompt, target: Target) -> bool:
        ours = (self.config.installation, self.config.environment, prompt.secret, target.store)
        same = (policy.installation, policy.environment, policy.name, policy.store) == ours
        return same and (prompt.store is None or prompt.store in policy.stores)

    def _ready(self) -> Assembly:
        with self._lock:
            if self._assembly is None:
                self._assembly = self._assemble()
            return self._assembly

    @property
    def _file(self) -> str:
        return "the app's stack file"


def _text(message: bytes | str) -> str | None:
    try:
        return message.decode("utf-8-sig") if isinstance(message, bytes) else message
    except UnicodeDecodeError:
        return None


def is_fleet(env: Mapping[str, str]) -> bool:
    """Whether the app's timer dispatches and does not sweep."""
    return env.get(FLEET, "").casefold() in ("1", "true", "yes")


def open_host(root: Path, env: Mapping[str, str]) -> Host:
    """The host of a deployed app: its one stack file, its log, its audit trail. Opens no connection.

    Parameters:
        root: the app's folder, with one `Pulumi.<stack>.yaml`, or several and KEYTURN_STACK.
        env: app settings. KEYTURN_LOG_LEVEL, INFO as a rule; KEYTURN_AUDIT_FILE, a file on a disk that
            outlives the app, in place of the app's console; whatever the stack file refers to.

    Raises:
        ConfigError: there is no such file, or it is faulty.
    """
    logs.adopt(env.get("KEYTURN_LOG_LEVEL", "INFO").upper())
    stacks = sorted(root.glob("Pulumi.*.yaml"))
    stack = env.get("KEYTURN_STACK")
    config = load(stacks[0] if stack is None and len(stacks) == 1 else find_stack_file(stack, None, root))

    def assembled() -> Assembly:
        from rotation.assembly import Opened, assemble  # noqa: PLC0415 - the webhook answers without all of this
        from rotation.audit.around import Callers, Requests  # noqa: PLC0415
        from rotation.audit.opening import open_trail  # noqa: PLC0415
        from rotation.audit.trail import Anchoring, Surroundings  # noqa: PLC0415
        from rotation.clock import SystemClock  # noqa: PLC0415
        from rotation.telemetry import Several  # noqa: PLC0415

        callers, requests = Callers(), Requests()
        around = Surroundings(callers, requests.take)
        trail = open_trail(config, env, folder=root, host="console", surroundings=around, clock=SystemClock())
        made = assemble(config, env, trail, telemetry=Several(requests, Anchoring(trail.anchor)))
        if isinstance(made.stores, Opened):
            callers.ask(made.stores.opened)
        return made

    return Host(config, assembled)
