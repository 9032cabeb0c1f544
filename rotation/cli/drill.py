"""The command `keyturn drill`: a leak on purpose, dealt with as a real one, measured, and compared with the last one."""

from __future__ import annotations

import fcntl
import getpass
import platform
import secrets
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from rotation.audit.trail import ChainedAuditor
from rotation.cli import completion, show
from rotation.cli.admin import AdminFd, AdminFrom, given, recorded
from rotation.cli.context import Context, File, Json, Stack, UsageFault, open_context
from rotation.cli.emergency import incidents_folder
from rotation.cli.ending import ALIVE, DONE, FAILED, left_at_once
from rotation.cli.help import Sentences
from rotation.errors import Trouble
from rotation.incident import drill as drills
from rotation.incident import evidence as evidences
from rotation.incident import record as records
from rotation.incident.evidence import NAMES, Evidence, Files, State, shown
from rotation.incident.run import Tapped
from rotation.model import Model, Policy
from rotation.policy import show_duration

_ON_INTERRUPT: Final = (
    "Interrupted. The canaries that were made are still there, with a key each; the next drill removes them."
)


class _OneOrMany(Sentences):
    """Lets `keyturn drill NAME…` stand for `keyturn drill run NAME…`: no secret can be called like a subcommand."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        if first not in self.commands and first not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_OneOrMany, help="Leak a canary on purpose, and see how long it takes until it is replaced and shown dead."
)


@app.command("run")
def run_drill(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Secrets that are there, in place of canaries.",
            autocompletion=completion.secrets,
            show_default=False,
        ),
    ] = None,
    stack: Stack = None,
    config: File = None,
    production_too: Annotated[
        bool, typer.Option("--production-too", help="Also where the environment is prod; refused otherwise.")
    ] = False,
    silent: Annotated[
        bool, typer.Option("--silent", help="Tell no owner; only see through which channels they would hear of it.")
    ] = False,
    slow: Annotated[
        bool,
        typer.Option(
            "--slow", help="Canaries in Azure Key Vault, too: that takes a quarter of an hour before and one after."
        ),
    ] = False,
    compare: Annotated[
        Path | None, typer.Option("--compare", metavar="FILE", help="The evidence to compare with, as JSON.")
    ] = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Remove canaries of a drill that was run elsewhere, and was killed.")
    ] = False,
    admin_from: AdminFrom = None,
    admin_fd: AdminFd = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Leak a credential on purpose, deal with it as `keyturn emergency --leak` does, and measure every part of it.

    Without names a canary is made for each pair of store and issuer that the stack uses, and removed when it is over:
    no secret of anybody's is touched. With names it is these secrets, which are replaced for good: their consumers go
    through it, too. While it lasts, an application reads each of them from its stores, uses it at its issuer, and
    counts what it is refused. Owners are told, by notices that say they are of a drill. Evidence is written to
    .keyturn/drills, as JSON and as Markdown, and compared with the last drill of the same secrets that passed.

    What a drill that was killed has left is removed first.

    Exit codes: 0 passed; 1 failed, and what; 2 usage or configuration; 3 a key that leaked, or was made for the drill, is
    alive or not shown dead.

    Example: keyturn drill --stack staging
    """
    context = open_context(stack, config, admins=given(admin_from, admin_fd))
    environment = context.config.environment
    if drills.production(environment) and not production_too:
        raise UsageFault(f"{environment} is production; a drill there has to be asked for: --production-too")
    before = _read(compare) if compare else None
    named = context.declared(names) if names else []
    context.open(named or context.config.policies)
    _refuse_manual(context, named)
    with _alone():
        _run(context, named, before, admin_from, silent=silent, slow=slow, take_over=take_over, yes=yes, json=json)


@app.command("list")
def list_drills(json: Json = False) -> None:
    """List the drills that were run from this folder, newest first.

    Example: keyturn drill list
    """
    files = Files(drills_folder())
    found = list(files.all())
    if json:
        show.as_json([evidences.as_json(one) for one in found])
        return
    if not found:
        show.say(f"No drill was run from here: there is none in {files.folder}.")
        return
    rows = [
        (
            one.id,
            one.environment,
            one.state.value,
            str(len(one.subjects)),
            *(shown(getattr(one.times, name)) for name in ("replace", "prove", "total", "outage")),
            one.ran_by,
        )
        for one in found
    ]
    headings = ("DRILL", "ENVIRONMENT", "STATE", "SECRETS", "REPLACED", "SHOWN DEAD", "ALL OF IT", "OUTAGE", "BY")
    show.table(headings, rows)


def drills_folder() -> Path:
    """Where evidence is kept: beside the audit trail of this folder."""
    return Path.cwd() / ".keyturn" / "drills"


# --- what is asked for -----------------------------------------------------------------------------


def _read(path: Path) -> Evidence:
    try:
        return evidences.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageFault(f"--compare: {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageFault(f"--compare: {path} {error}") from None


def _refuse_manual(context: Context, named: Sequence[Policy]) -> None:
    issuers = context.assembly.issuers
    if by_hand := [policy.name for policy in named if issuers[policy.issuer].capabilities.model is Model.MANUAL]:
        raise UsageFault(f"a person creates the credentials of {', '.join(by_hand)}: a drill can not replace them")


@contextmanager
def _alone() -> Iterator[None]:
    """One drill at a time in a folder: two would take each other's canaries for left-overs."""
    folder = drills_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise UsageFault(f"{folder}: {error.strerror}; a drill keeps its evidence there") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageFault("another drill is at work in this folder") from None
        yield


def _confirm(context: Context, named: Sequence[Policy]) -> None:
    """Canaries hurt nobody; secrets that are there, and production, are confirmed."""
    if not named and not drills.production(context.config.environment):
        return
    for policy in named:
        show.complain(
            f"{policy.name} ({policy.environment}, owner {policy.owner}) is replaced and revoked for good", ""
        )
        for one in policy.consumers:
            within = show_duration(one.refresh_within)
            show.complain(f"    {one.name} fails with what it has cached until it refreshes, within {within}", "yellow")
    if not sys.stdin.isatty():
        raise UsageFault("nobody is there to confirm; give --yes")
    if not typer.confirm("Go ahead?", err=True):
        show.complain("Nothing was changed.")
        raise typer.Exit(FAILED)


# --- doing it --------------------------------------------------------------------------------------


def _run(
    context: Context,
    named: Sequence[Policy],
    before: Evidence | None,
    admin_from: list[str] | None,
    *,
    silent: bool,
    slow: bool,
    take_over: bool,
    yes: bool,
    json: bool,
) -> None:
    assembly, files = context.assembly, Files(drills_folder())
    now = assembly.clock.now()
    identity = records.identity(now, secrets.token_hex(2))
    chosen, notes = (list(named), []) if named else drills.canaries(assembly, identity, slow=slow)
    if not chosen:
        raise UsageFault(f"there is nothing to make a canary of; name a secret. {'; '.join(notes)}")
    if not yes:
        _confirm(context, named)
    recorded(context, admin_from)
    say = (lambda _: None) if json else show.say
    with left_at_once(_ON_INTERRUPT):
        gone, left, more = _cleared(context, files, take_over=take_over)
        if gone:
            say(f"Removed, from earlier drills: {', '.join(gone)}.")
        evidence = Evidence(
            id=identity,
            installation=context.config.installation,
            environment=context.config.environment,
            stack=context.path.name,
            ran_by=_person(),
            began_at=now,
            versions={"keyturn": version("keyturn"), "python": platform.python_version()},
            subjects=[drills.subject_of(policy, assembly.issuers[policy.issuer]) for policy in chosen],
            silent=silent,
            notes=[*notes, *more],
            left_overs=gone,
        )
        evidence.faults += [f"{name} of an earlier drill could not be removed: {why}" for name, why in left.items()]
        chained = context.trail.auditor

        def listen(incident: str, heard: Any) -> None:
            context.trail.incident = incident
            context.trail.auditor = Tapped(chained, heard)

        drill = drills.Drill(
            assembly,
            evidence,
            chosen,
            keep=lambda: files.save(evidence),
            incidents=records.Files(incidents_folder()),
            listen=listen,
            say=say,
        )
        drill.run()
        if left:
            evidence.state = State.ALIVE
    if isinstance(chained, ChainedAuditor):
        chained.anchor()
        evidence.trail = _head(chained)
    if (last := before or files.last_like(evidence)) is not None:
        evidence.compare(last)
    files.save(evidence)
    if json:
        show.as_json(evidences.as_json(evidence))
    else:
        _tell(evidence, files)
    raise typer.Exit({State.PASSED: DONE, State.ALIVE: ALIVE}.get(evidence.state, FAILED))


def _cleared(context: Context, files: Files, *, take_over: bool) -> tuple[list[str], dict[str, str], list[str]]:
    """Removes what killed drills have left, and notes in their evidence that they were."""
    earlier = list(files.all())
    try:
        found = drills.removed_left_overs(
            context.assembly, [one.id for one in earlier], context.assembly.clock.now(), take_over=take_over
        )
    except drills.Busy as busy:
        raise UsageFault(str(busy)) from None
    for one in earlier:
        if one.state is State.RUNNING:
            one.state = State.INTERRUPTED
            files.save(one)
            if names := ", ".join(subject.name for subject in one.subjects if not subject.canary):
                show.complain(
                    f"The drill {one.id} of {names} was interrupted: `keyturn emergency --resume {one.id}` goes on with that.",
                    "yellow",
                )
    return found


def _head(chained: ChainedAuditor) -> dict[str, str]:
    """The last line of the trail, by the first place that tells it at a glance."""
    for place in chained.places:
        try:
            head = place.last()
        except Trouble:
            continue
        if head is not None:
            return {"place": place.name, "writer": head.writer, "line": str(head.seq), "sha256": head.hash}
    return {}


def _person() -> str:
    """Who runs this, as this machine knows them."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # an account without a name, as in some containers
        return f"somebody@{socket.gethostname()}"


# --- telling ---------------------------------------------------------------------------------------


def _tell(evidence: Evidence, files: Files) -> None:
    before = {one.name: one for one in evidence.differences}
    rows = [
        (
            words,
            shown(getattr(evidence.times, name)),
            f"{shown(before[name].before)}, {before[name].verdict}" if name in before else "-",
        )
        for name, words in NAMES.items()
    ]
    if any(one.times.match is not None for one in evidence.subjects):
        show.table(("FROM THE REPORT UNTIL", "NOW", evidence.compared_with or "BEFORE"), rows)
    for one in evidence.subjects:
        for seen in one.consumers:
            show.say(
                f"    {seen.secret}, read from {seen.store}: used {seen.uses} times, refused {seen.refused}, "
                f"longest outage {shown(seen.longest_outage_seconds)}"
            )
    for told in evidence.owners:
        through = ", ".join(told.channels)
        how = "would be told" if evidence.silent else "was told, as of a drill,"
        if through:
            show.say(f"    {told.owner} {how} through {through}")
        else:
            show.say(f"    {told.owner} has no channel: of a real leak it would not be told", "yellow")
    for note in evidence.notes:
        show.say(f"    {note}")
    for fault in evidence.all_faults:
        show.complain(f"✗ {fault}")
    _close(evidence)
    show.say(f"Evidence: {files.path(evidence.id)}, and .md beside it")


def _close(evidence: Evidence) -> None:
    """What came of it, what is left, and what to do."""
    left = [one for one in evidence.subjects if one.cleaned is False]
    match evidence.state:
        case State.PASSED:
            clean = ": nothing of it is left" if all(one.canary for one in evidence.subjects) else ""
            show.say(f"Drill {evidence.id} passed{clean}.", "green")
        case State.ALIVE:
            show.complain(f"Drill {evidence.id} failed: a key is alive, or not shown dead.")
        case _:
            show.complain(f"Drill {evidence.id} failed. No key that leaked is alive.")
    if left:
        names = ", ".join(one.name for one in left)
        show.complain(f"    Still there: {names}. Nobody uses them; the next `keyturn drill` removes them.")
    if any(one.alive and not one.canary for one in evidence.subjects):
        show.complain(f"    `keyturn emergency --resume {evidence.id}` goes on; so does the next sweep.")
