"""What every command starts from: options, configuration, engine, and the targets that names mean."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from rotation import inventory, sweep
from rotation.assembly import Assembly, Opened, assemble, clock_of
from rotation.audit.around import Callers, Requests
from rotation.audit.opening import open_trail
from rotation.audit.trail import Anchoring, Surroundings
from rotation.cli import completion, show
from rotation.config import Config, ConfigError, find_stack_file, load
from rotation.engine import Outcome, Target
from rotation.environ import Environ
from rotation.errors import Trouble
from rotation.model import Policy, SecretValue
from rotation.notify import runs
from rotation.observe.environment import watcher
from rotation.ports import Auditor, Clock, Record
from rotation.telemetry import Kind, Several, Telemetry

Stack = Annotated[
    str | None,
    typer.Option(
        "--stack",
        "-s",
        envvar="KEYTURN_STACK",
        metavar="NAME",
        help="The stack whose Pulumi.NAME.yaml declares the secrets.",
        show_default=False,
        autocompletion=completion.stacks,
    ),
]
File = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="A stack file by path, instead of --stack.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts, on standard output.")]
Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME", help="Secrets by name; all of the stack when none is given.", autocompletion=completion.secrets
    ),
]

CLOCK: ContextVar[Clock | None] = ContextVar("clock", default=None)
"""Given by who runs a command in process; the environment's own clock otherwise."""


ENDING: ContextVar[tuple[Callable[[], object], ...]] = ContextVar("ending", default=())
"""What is still to be done when the command is over; see end()."""


class UsageFault(Exception):  # noqa: N818 - a fault of the person's input, exit code 2
    """Something on the command line or in its reach can not be used; the text says what is allowed."""


_GLANCE: Final = 12
"""Names that are taken in at a glance."""


def absent(what: str, name: str, there: Collection[str]) -> str:
    """A name that is none, what it may be meant for, and while they are few what there is.

    `there is no owner suport (did you mean support?); there are: sales, support`
    """
    are = f"; there {'is' if len(there) == 1 else 'are'}: {', '.join(there) or 'none'}" if len(there) <= _GLANCE else ""
    return f"there is no {what} {name}{_meant(name, there)}{are}"


def _meant(name: str, there: Collection[str]) -> str:
    near = difflib.get_close_matches(name, there, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


@dataclass(slots=True, eq=False)
class Trail:
    """The audit trail, and whether this command has written to it: nothing is changed before that."""

    auditor: Auditor
    begun: bool = False
    incident: str | None = None
    """Stands in every record from now on."""

    def write(self, record: Record) -> None:
        self.auditor.write(record if self.incident is None else replace(record, incident=self.incident))
        self.begun = True

    def go_on_without(self, clock: Clock) -> None:
        """For an emergency that may not wait for its trail: see BestEffortAuditor. What waits is tried again at the end."""
        from rotation.audit.besteffort import BestEffortAuditor  # noqa: PLC0415 - for an emergency alone

        best = BestEffortAuditor(self.auditor, sys.stderr, clock)
        self.auditor = best

        def finish() -> None:
            if left := best.finish():
                told = "are not in the audit trail; they are above, each a line: keep them"
                sys.stderr.write(f"{left} records {told}\n")

        ENDING.set((finish, *ENDING.get()))


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """One command's surroundings."""

    assembly: Assembly
    path: Path
    trail: Trail

    @property
    def config(self) -> Config:
        return self.assembly.config

    def declared(self, names: list[str] | None) -> list[Policy]:
        """The declared secrets of these names, in the order given; all when there are none."""
        by_name = {policy.name: policy for policy in self.config.policies}
        unknown = [name for name in names or [] if name not in by_name]
        if unknown:
            told = ", ".join(f"{name}{_meant(name, by_name)}" for name in unknown)
            few = f"declared are: {', '.join(by_name) or 'none'}"
            known = few if len(by_name) <= _GLANCE else f"`keyturn status` lists the {len(by_name):,} that are declared"
            raise UsageFault(f"{self.path.name} declares no secret {told}; {known}. Nothing was changed")
        return [by_name[name] for name in dict.fromkeys(names)] if names else list(by_name.values())

    def unapplied(self, applied: Policy) -> tuple[str, ...]:
        """The fields, as the file names them, in which it declares a secret differently from what is applied."""
        return sweep.unapplied(self.config, applied)

    def open(self, policies: Iterable[Policy]) -> None:
        """See sweep.opened()."""
        sweep.opened(self.assembly, policies)

    def run(self, kind: Kind, policy: Policy, work: Callable[[Target], Outcome]) -> Outcome:
        """Does something with a declared secret, told to whoever watches."""
        target = self.assembly.target(policy)
        return runs.running(self.assembly, kind, policy, lambda: work(target))

    def managed(self) -> tuple[list[tuple[Target, Policy]], list[Trouble]]:
        """See inventory.managed()."""
        return inventory.managed(self.assembly, self.path.name)


def open_context(
    stack: str | None,
    file: Path | None,
    *,
    telemetry: Telemetry | None = None,
    stopping: Callable[[], bool] | None = None,
    admins: Callable[[Config], Mapping[str, SecretValue]] | None = None,
) -> Context:
    """Reads the configuration and puts the engine together; opens no connection.

    Parameters:
        telemetry: watches; what the environment asks for when not given.
        stopping: see Engine.
        admins: gives the admin credentials that come from a person, once it is known what is declared; see
            rotation.cli.admin.

    Raises:
        ConfigError: the stack file is missing or faulty; the text has one line per fault.
    """
    root = Path.cwd()
    path = find_stack_file(stack, file, root)
    config = load(path)
    clock = CLOCK.get() or clock_of(config, os.environ)
    callers, requests = Callers(), Requests()
    around = Surroundings(callers, requests.take)
    watches = telemetry or watcher(os.environ)
    chained = open_trail(config, os.environ, folder=root, surroundings=around, telemetry=watches, clock=clock)
    recorded = Trail(chained)
    ENDING.set((*ENDING.get(), chained.anchor))
    seen = Several(watches, requests, Anchoring(chained.anchor))
    by_hand = admins(config) if admins else None
    told = root / ".keyturn" / "notices.json"
    assembly = assemble(config, Environ(os.environ), recorded, clock, seen, stopping, by_hand, told)
    ENDING.set((*ENDING.get(), partial(_say_untold, assembly)))
    if isinstance(assembly.stores, Opened):
        callers.ask(assembly.stores.opened)
    return Context(assembly, path, recorded)


def _say_untold(assembly: Assembly) -> None:
    """Waits a little for what owners and consumers are still to be told, and says what they could not be."""
    for sentence in runs.flush(assembly):
        show.complain(f"{sentence}. The work is done all the same; see `keyturn notify test`.", "yellow")


def end() -> None:
    """What every command does when it is over, whatever came of it: anchors what it has recorded."""
    for ending in ENDING.get():
        ending()
    ENDING.set(())


__all__ = ["ConfigError", "Context", "File", "Json", "Names", "Stack", "UsageFault", "absent", "end", "open_context"]
