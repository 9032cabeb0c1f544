"""A stand-in for the Pulumi CLI where none is to be had: applies the same program in process.

    python -m sandbox.pulumi_inprocess preview|up|refresh|destroy --stack NAME [--yes] [--skip-preview] [--json]

Runs the project's `__main__.py` against the mock monitor of Pulumi's own Python SDK (3.272.0). For each
dynamic resource that registers, its pickled provider is loaded and called in the CLI's order: configure,
check, diff, then create or update; deletions come last, read at a refresh. The state is a flat JSON
file, `.keyturn/pulumi-inprocess/<stack>.json`, saved after every step.

What it does not do is in BANNER. Two differences to know: a failing provider is shown by its message
alone, where the CLI shows the traceback; and a resource's inputs must not come from another's outputs.
Exit codes: 0 done, 1 a resource failed or was refused, 2 the program or the command line was.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import fcntl
import json
import runpy
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import dill  # type: ignore[import-untyped]  # publishes no types
import pulumi
import yaml
from pulumi.dynamic import Config, ConfigureRequest, ResourceProvider
from pulumi.runtime import Settings, mocks, rpc, run_in_stack
from pulumi.runtime.proto import engine_pb2, resource_pb2
from pulumi.runtime.settings import reset_options

from rotation.files import write_private

BANNER: Final = (
    "This is not the Pulumi CLI: it is a stand-in that applies the same program in process, through the mock monitor of "
    "Pulumi's Python SDK, and keeps a state file of its own.\nIt has no parallelism, policy packs, secrets provider, "
    "import, targets, aliases, history or remote backends."
)
STACK: Final = "pulumi:pulumi:Stack"
PROVIDER: Final = "__provider"
_SIGNS: Final = {"create": "+", "update": "~", "replace": "+-", "delete": "-"}
_DONE: Final = {"create": "created", "update": "updated", "replace": "replaced", "delete": "deleted"}

Props = dict[str, Any]


class Stopped(Exception):  # noqa: N818 - nothing more is done, and the text says why
    """The command ends here. `code` is its exit code."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


@dataclass
class Record:
    """A resource in the state."""

    urn: str
    type: str
    name: str
    id: str = ""
    protect: bool = False
    replaced: bool = False
    """Its replacement is there; what is left is to delete it."""
    inputs: Props = field(default_factory=dict)
    outputs: Props = field(default_factory=dict)
    parent: str = ""

    @property
    def provided(self) -> bool:
        """Whether a provider made it. Stacks and components only hold others together."""
        return PROVIDER in self.inputs or PROVIDER in self.outputs


class State:
    """The resources of one stack, oldest first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        stored = json.loads(path.read_text()) if path.exists() else {"resources": []}
        self.records = [Record(**record) for record in stored["resources"]]

    def find(self, urn: str) -> Record | None:
        return next((record for record in self.records if record.urn == urn and not record.replaced), None)

    def save(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._path, json.dumps({"resources": [asdict(r) for r in self.records]}, indent=1) + "\n")


class Screen:
    """What a person sees, or with `--json` one object at the end."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.errors: list[str] = []
        self.steps: list[Props] = []
        self.counts: Counter[str] = Counter()

    def say(self, line: str = "") -> None:
        if not self._as_json:
            print(line, flush=True)

    def begin(self, title: str) -> None:
        self.steps, self.counts = [], Counter()
        self.say(f"\n{title}:")

    def error(self, text: str) -> None:
        self.errors.append(text)
        self.say(f"    error: {text}")

    def step(self, operation: str, record: Record, word: str, changes: dict[str, tuple[Any, Any]]) -> None:
        """One line for a resource, and one for each property that changes."""
        self.counts[operation] += 1
        self.steps.append({"op": operation, "urn": record.urn, "name": record.name, "changes": changes})
        if operation != "same":
            self.say(f" {_SIGNS[operation]:2} {record.type:44} {record.name:28} {word}")
        for name, (old, new) in changes.items():
            self.say(f"        {name}: {_shown(old)} → {_shown(new)}")

    def total(self, *, planned: bool) -> None:
        self.say("Resources:")
        for operation, sign in _SIGNS.items():
            if count := self.counts[operation]:
                self.say(f"    {sign} {count} {f'to {operation}' if planned else _DONE[operation]}")
        if same := self.counts["same"]:
            self.say(f"    {same} unchanged")

    def finish(self, outputs: Props) -> int:
        if self._as_json:
            told = {"standIn": BANNER, "steps": self.steps, "changes": self.counts, "errors": self.errors}
            print(json.dumps({**told, "outputs": outputs}, indent=1))
        return 1 if self.errors else 0


class Monitor(mocks.MockMonitor):
    """Receives what the program registers, and plans or does what the CLI's engine would.

    Parameters:
        dry: only plan.
    """

    def __init__(self, deployment: Deployment, *, dry: bool) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # its one use is the method that stands below
        self._deployment = deployment
        self._dry = dry
        self._lock = threading.Lock()
        self.seen: set[str] = set()

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the SDK's name
        urn = self.make_urn(request.parent, request.type, request.name)
        inputs = rpc.deserialize_properties(request.object, keep_unknowns=True)
        new = Record(urn, request.type, request.name, protect=request.protect, inputs=inputs, parent=request.parent)
        with self._lock:
            self.seen.add(urn)
            record = self._deployment.register(new, dry=self._dry)
        loop = asyncio.new_event_loop()
        outputs = loop.run_until_complete(rpc.serialize_properties(_plain(record.outputs), {}))
        loop.close()
        return resource_pb2.RegisterResourceResponse(urn=urn, id=record.id, object=outputs)

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802
        if not self._dry and (group := self._deployment.state.find(request.urn)):
            group.outputs = rpc.deserialize_properties(request.outputs)
        return super().RegisterResourceOutputs(request)  # type: ignore[no-untyped-call]


class Deployment:
    """One command on one stack.

    Parameters:
        root: the project's folder.
        stack: the stack's name.
        screen: where to tell what happens.
    """

    def __init__(self, root: Path, stack: str, screen: Screen) -> None:
        self._root = root
        self._stack = stack
        self._screen = screen
        self._project = str(yaml.safe_load((root / "Pulumi.yaml").read_text())["name"])
        self._config, self._encrypted = _config(root / f"Pulumi.{stack}.yaml")
        self._providers: dict[str, ResourceProvider] = {}
        self.state = State(_folder(root) / f"{stack}.json")

    @property
    def outputs(self) -> Props:
        return next((record.outputs for record in self.state.records if record.type == STACK), {})

    def run(self, *, dry: bool) -> None:
        """Runs the program once: plans everything, or does it, deletions last.

        Raises:
            Stopped: the program failed, or said what is wrong and left.
        """
        self._screen.begin(f"{'Previewing update' if dry else 'Updating'} ({self._stack})")
        monitor = Monitor(self, dry=dry)
        reset_options()
        pulumi.runtime.set_all_config(self._config, self._encrypted)
        pulumi.runtime.configure(
            Settings(self._project, self._stack, monitor=monitor, engine=_Engine(self._screen), dry_run=dry)
        )
        try:
            asyncio.run(run_in_stack(lambda: runpy.run_path(str(self._root), run_name="__main__")))  # type: ignore[arg-type, return-value]
        except SystemExit as left:
            raise Stopped(f"the program ended with exit code {left.code}", 2) from None
        except Exception:  # noqa: BLE001 - whatever a program raises is shown, as the CLI does
            raise Stopped(traceback.format_exc(), 2) from None
        gone = [r for r in reversed(self.state.records) if r.replaced or r.urn not in monitor.seen]
        self.delete(gone, dry=dry)

    def register(self, new: Record, *, dry: bool) -> Record:
        """What a registration leads to: the resource as it is, or in a plan as far as known."""
        old = self.state.find(new.urn)
        if not new.provided:
            return self._settle("same" if old else "create", old, new, dry=dry)
        try:
            return self._decide(old, new, dry=dry)
        except Exception as error:  # noqa: BLE001 - the other resources go on
            self._screen.error(f"{new.name}: {error}")
            return new

    def _decide(self, old: Record | None, new: Record, *, dry: bool) -> Record:
        provider = self._provider(new.inputs)
        checked = provider.check(old.inputs if old else {}, new.inputs)
        if checked.failures:
            raise Stopped("; ".join(f"{failure.property}: {failure.reason}" for failure in checked.failures))
        new.inputs = {**checked.inputs, PROVIDER: new.inputs[PROVIDER]}
        if old is None:
            return self._settle("create", old, new, dry=dry)
        found = provider.diff(old.id, old.outputs, new.inputs)
        if found.replaces:
            return self._settle("replace", old, new, dry=dry)
        return self._settle("update" if found.changes else "same", old, new, dry=dry)

    def _settle(self, operation: str, old: Record | None, new: Record, *, dry: bool) -> Record:
        """Does the operation, or in a plan only shows it, and puts the outcome into the state."""
        changes = _changes(old.inputs, new.inputs) if old and operation != "same" else {}
        if dry:
            self._screen.step(operation, new, operation, changes)
            return old if old and operation != "replace" else new
        begun = time.monotonic()
        provider = self._provider(new.inputs) if new.provided else None
        if old and operation in ("same", "update"):
            new.id, new.outputs = old.id, old.outputs
            if provider and operation == "update":
                new.outputs = provider.update(old.id, old.outputs, new.inputs).outs or {}
            self.state.records[self.state.records.index(old)] = new
        else:
            if provider:
                created = provider.create(new.inputs)
                new.id, new.outputs = created.id, created.outs or {}
            if old:
                old.replaced = True
            self.state.records.append(new)
        if provider:
            new.outputs[PROVIDER] = new.inputs[PROVIDER]
        self.state.save()
        word = f"{_DONE.get(operation, operation)} ({time.monotonic() - begun:.0f}s)"
        self._screen.step(operation, new, word, changes)
        return new

    def delete(self, gone: list[Record], *, dry: bool) -> None:
        """Deletes resources, those that need others first."""
        for record in gone:
            if record.protect:
                self._screen.error(f"{record.name}: is protected and is not deleted; apply it without `protect` first")
            elif dry or self._deleted(record):
                self._screen.step("delete", record, "delete" if dry else "deleted", {})

    def _deleted(self, record: Record) -> bool:
        alone = len(self.state.records) == 1
        if (record.type == STACK and not alone) or any(record.urn == other.parent for other in self.state.records):
            return False
        try:
            if record.provided:
                self._provider(record.outputs).delete(record.id, record.outputs)
        except Exception as error:  # noqa: BLE001 - the other resources go on
            self._screen.error(f"{record.name}: {error}")
            return False
        self.state.records.remove(record)
        self.state.save()
        return True

    def refresh(self, *, dry: bool) -> None:
        """Reads every resource, and puts what was found into the state."""
        self._screen.begin(f"{'Previewing refresh' if dry else 'Refreshing'} ({self._stack})")
        for record in list(self.state.records):
            if not record.provided:
                self._screen.step("same", record, "", {})
                continue
            try:
                found = self._provider(record.outputs).read(record.id, record.outputs)
            except Exception as error:  # noqa: BLE001 - the other resources go on
                self._screen.error(f"{record.name}: {error}")
                continue
            outputs = found.outs or {}
            changes = _changes(record.outputs, outputs) if found.id else {}
            operation = "delete" if not found.id else "update" if changes else "same"
            self._screen.step(operation, record, {"delete": "gone", "update": "drifted"}.get(operation, ""), changes)
            if dry:
                continue
            if not found.id:
                self.state.records.remove(record)
            else:
                own = {PROVIDER: record.inputs[PROVIDER]}
                record.outputs = outputs | own
                record.inputs = record.inputs if found.inputs is None else _plain(found.inputs) | own
            self.state.save()

    def destroy(self, *, dry: bool) -> None:
        """Deletes everything that is not protected."""
        self._screen.begin(f"{'Previewing destroy' if dry else 'Destroying'} ({self._stack})")
        self.delete(list(reversed(self.state.records)), dry=dry)

    def _provider(self, props: Props) -> ResourceProvider:
        pickled = props[PROVIDER]
        if pickled not in self._providers:
            provider: ResourceProvider = dill.loads(base64.b64decode(pickled))  # noqa: S301 - our own state, as the SDK does
            provider.configure(ConfigureRequest(Config(self._config, self._project)))
            self._providers[pickled] = provider
        return self._providers[pickled]


class _Engine:
    """Takes the program's `pulumi.log`."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def Log(self, request: Any) -> None:  # noqa: N802 - the SDK's name
        if request.severity == engine_pb2.ERROR:
            self._screen.error(request.message)
        elif request.severity != engine_pb2.DEBUG:
            self._screen.say(f"    {request.message}")


def _config(path: Path) -> tuple[dict[str, str], list[str]]:
    """A stack's configuration as the CLI hands it over, structured values as JSON text; and which keys are encrypted."""
    if not path.is_file():
        raise Stopped(f"there is no {path}", 2)
    encrypted: list[str] = []

    def opened(value: Any, key: str) -> Any:
        if isinstance(value, dict) and list(value) == ["secure"]:
            encrypted.append(key)
            return "[encrypted]"
        return {name: opened(below, key) for name, below in value.items()} if isinstance(value, dict) else value

    values = (yaml.safe_load(path.read_text()) or {}).get("config") or {}
    plain = {key: opened(value, key) for key, value in values.items()}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in plain.items()}, encrypted


def _plain(props: Props) -> Props:
    return {name: value for name, value in props.items() if value is not None}


def _changes(old: Props, new: Props) -> dict[str, tuple[Any, Any]]:
    names = [name for name in {**old, **new} if name != PROVIDER]
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _folder(root: Path) -> Path:
    return root / ".keyturn" / "pulumi-inprocess"


@contextmanager
def _claim(root: Path, stack: str) -> Iterator[None]:
    """One command at a time on a stack."""
    _folder(root).mkdir(mode=0o700, parents=True, exist_ok=True)
    with (_folder(root) / f"{stack}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Stopped(f"another command is at work on the stack {stack}") from None
        yield


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Stopped("--yes must be given where nobody can be asked", 2)
    if input(f"\n{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise Stopped("nothing was changed")


def _carry_out(arguments: argparse.Namespace, root: Path, screen: Screen) -> int:
    deployment = Deployment(root, arguments.stack, screen)
    work: Callable[..., None] = getattr(deployment, {"preview": "run", "up": "run"}.get(arguments.do, arguments.do))
    if arguments.do == "preview" or not arguments.skip_preview:
        work(dry=True)
        screen.total(planned=True)
    if screen.errors:
        screen.say("Nothing was changed.")
    elif arguments.do != "preview":
        _confirm(f"Do this {arguments.do}?", yes=arguments.yes)
        begun = time.monotonic()
        work(dry=False)
        if arguments.do == "up" and deployment.outputs:
            screen.say("Outputs:")
            for name, value in sorted(deployment.outputs.items()):
                screen.say(f"    {name}: {json.dumps(value, sort_keys=True)}")
        deployment.state.save()
        screen.total(planned=False)
        screen.say(f"Duration: {time.monotonic() - begun:.0f}s")
    return screen.finish(deployment.outputs)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox.pulumi_inprocess", description=BANNER)
    parser.add_argument("do", choices=("preview", "up", "refresh", "destroy"))
    parser.add_argument("--stack", required=True, help="the NAME of Pulumi.NAME.yaml")
    parser.add_argument("--yes", action="store_true", help="do it without asking")
    parser.add_argument("--skip-preview", action="store_true", help="do it without showing it beforehand")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    arguments = parser.parse_args(argv)
    root, screen = Path.cwd(), Screen(as_json=arguments.json)
    if not (root / "Pulumi.yaml").is_file():
        parser.error("there is no Pulumi.yaml here: run this in the project's folder")
    sys.path.insert(0, str(root))
    screen.say(BANNER)
    try:
        with _claim(root, arguments.stack):
            return _carry_out(arguments, root, screen)
    except Stopped as stopped:
        screen.error(str(stopped))
        screen.finish({})
        return stopped.code


if __name__ == "__main__":
    sys.exit(main())
