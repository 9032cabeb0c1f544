"""The command `keyturn emergency`: from a name, a leak report or a blast radius to keys that are shown dead."""

from __future__ import annotations

import getpass
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from rotation.cli import completion, show
from rotation.cli.admin import AdminFd, AdminFrom, given, recorded
from rotation.cli.context import Context, File, Json, Stack, UsageFault, open_context
from rotation.cli.ending import ALIVE, DONE, FAILED, left_at_once
from rotation.cli.leak import ASK, findings_from, show_matches
from rotation.cli.leak import as_json as matches_json
from rotation.incident import gather as gathering
from rotation.incident import intake
from rotation.incident import plan as plans
from rotation.incident import record as records
from rotation.incident import selection as selections
from rotation.incident.plan import Plan, Step
from rotation.incident.record import Files, Incident, SecretRecord, State
from rotation.incident.report import Report, report
from rotation.incident.run import Runner, Saver, Tapped
from rotation.incident.selection import Selection
from rotation.leaks.match import Match, exit_code, match
from rotation.model import Policy
from rotation.policy import read_duration, show_duration

Many = list[str] | None
_NO_NAMES: Final = "say which secrets: NAME…, --leak FILE, a blast radius as in --owner NAME, or --all"
_NOT_APPLIED: Final = "Not applied yet; `pulumi up` makes it."
_FEW: Final = 3
"""Secrets that are announced one by one; more are a table."""
_MANY: Final = 20
"""From so many on, only what did not come to its end is told one by one."""


def emergency(
    names: Annotated[
        Many, typer.Argument(metavar="NAME", help="Whose credentials have leaked.", autocompletion=completion.secrets)
    ] = None,
    stack: Stack = None,
    config: File = None,
    leak: Annotated[
        str | None,
        typer.Option(
            "--leak", metavar="FILE", help="A scanner's report; - for standard input; ask for one value, typed unseen."
        ),
    ] = None,
    descriptor: Annotated[
        int | None, typer.Option("--fd", metavar="N", min=0, help="Read one leaked value from this file descriptor.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only tell what the report has of ours; exit code 3 when any of it is alive."),
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every secret of the stack.")] = False,
    owner: Annotated[
        Many,
        typer.Option("--owner", metavar="NAME", help="Of this owner.", autocompletion=completion.keys_of("owners")),
    ] = None,
    environment: Annotated[
        Many,
        typer.Option("--environment", metavar="NAME", help="Of this stack's environment."),
    ] = None,
    store: Annotated[
        Many,
        typer.Option(
            "--store", metavar="NAME", help="Kept in this store.", autocompletion=completion.keys_of("stores")
        ),
    ] = None,
    issuer: Annotated[
        Many,
        typer.Option(
            "--issuer", metavar="NAME", help="Minted by this issuer.", autocompletion=completion.keys_of("issuers")
        ),
    ] = None,
    project: Annotated[Many, typer.Option("--project", metavar="ID", help="Of this project at its issuer.")] = None,
    admin: Annotated[
        Many,
        typer.Option(
            "--admin",
            metavar="ISSUER",
            help="Minted with this issuer's administrative credential, which has leaked.",
        ),
    ] = None,
    service_account: Annotated[
        Many,
        typer.Option("--service-account", metavar="ID", help="Owned by this account at its issuer."),
    ] = None,
    tag: Annotated[Many, typer.Option("--tag", metavar="NAME=TEXT", help="With this tag.")] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="DURATION", help="Current for longer, as in 90d."),
    ] = None,
    reader: Annotated[
        Many,
        typer.Option("--reader", metavar="ROLE", help="That this consumer or role could read."),
    ] = None,
    only_plan: Annotated[bool, typer.Option("--plan", help="Only show what would be done; changes nothing.")] = False,
    contain_first: Annotated[
        bool, typer.Option("--contain-first", help="Revoke at once, then replace. Consumers fail until they refresh.")
    ] = False,
    contain_after: Annotated[
        str | None,
        typer.Option("--contain-after", metavar="DURATION", help="Revoke by then even if not replaced, as in 5m."),
    ] = None,
    admin_replaced: Annotated[
        bool, typer.Option("--admin-replaced", help="The leaked administrative credential is replaced by now.")
    ] = False,
    keep_frozen: Annotated[
        bool, typer.Option("--keep-frozen", help="Leave scheduled work on these secrets off when it is over.")
    ] = False,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="ID", help="Go on with an incident that was interrupted.")
    ] = None,
    no_audit: Annotated[
        bool,
        typer.Option("--no-audit", help="Go on where the audit trail can not be written; it is written afterwards."),
    ] = False,
    admin_from: AdminFrom = None,
    admin_fd: AdminFd = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Replace and revoke now, no grace period; prints the times to contain, to replace, and to proof.

    Every live credential of the secret is condemned, the draining ones too. When this command is
    interrupted, --resume goes on, or a sweep does: what is condemned stays so. Names, a report and the
    options of the blast radius narrow each other; of one option given twice either will do.

    Exit code 3 while anything that leaked is alive, or not shown dead.

    Example: keyturn emergency --stack prod support-copilot-chat
    """
    context = open_context(stack, config, admins=given(admin_from, admin_fd))
    if no_audit:
        context.trail.go_on_without(context.assembly.clock)
    if contain_first and contain_after:
        raise UsageFault("--contain-first is --contain-after 0s; give one of the two")
    delay = _duration("--contain-after", contain_after)
    selection = Selection(
        names=tuple(dict.fromkeys(names or ())),
        everything=everything,
        owners=tuple(owner or ()),
        environments=tuple(environment or ()),
        stores=tuple(store or ()),
        issuers=tuple(issuer or ()),
        projects=tuple(project or ()),
        admins=tuple(admin or ()),
        service_accounts=tuple(service_account or ()),
        tags=tuple(_tag(text) for text in tag or ()),
        older_than=_duration("--older-than", older_than),
        readers=tuple(reader or ()),
    )
    reported = leak is not None or descriptor is not None
    if resume is not None:
        if reported or check or only_plan or contain_first or contain_after or not selection.empty:
            raise UsageFault("--resume goes on with what the incident was about; give it alone")
        recorded(context, admin_from)
        _resume(context, resume, yes=yes, json=json)
    if check and not reported:
        raise UsageFault("--check tells of a report; give --leak FILE or --fd N")
    if selection.empty and not reported:
        raise UsageFault(_NO_NAMES)
    if faults := selections.faults(selection, context.config):
        raise UsageFault("; ".join(faults))
    matches = _matches(context, leak, descriptor) if reported else []
    if check:
        if json:
            show.as_json(matches_json(matches))
        else:
            show_matches(matches)
        raise typer.Exit(exit_code(matches))
    if reported:
        selection = intake.narrowed(selection, matches)
    plan = _plan(context, selection, matches, delay, contain_first=contain_first)
    if not json or only_plan:
        _show_plan(context, plan, matches, json=json)
    if only_plan:
        raise typer.Exit(DONE)
    if not plan.steps:
        if reported:
            raise typer.Exit(exit_code(matches))
        raise UsageFault(f"no secret is chosen by {selection.words()}; nothing was changed")
    if plan.admin and not admin_replaced:
        raise UsageFault(
            f"the administrative credential comes first, or whoever has it goes on minting: {plan.admin}; then run this again "
            "with --admin-replaced. Nothing was changed"
        )
    context.open(_policies(context, plan))
    started = context.assembly.clock.now()
    identity = records.identity(started, secrets.token_hex(2))
    if not yes:
        _confirm(plan, identity)
    recorded(context, admin_from)
    incident = records.begin(
        plan,
        intake.recorded(matches),
        identity=identity,
        installation=context.config.installation,
        environment=context.config.environment,
        stack=context.path.name,
        began_at=context.assembly.clock.now(),
        ran_by=_person(),
        keep_frozen=keep_frozen,
    )
    _carry_out(context, incident, json=json)


# --- what is asked for -----------------------------------------------------------------------------


def _duration(option: str, text: str | None) -> timedelta | None:
    try:
        return None if text is None else read_duration(text)
    except ValueError as error:
        raise UsageFault(f"{option}: {error}") from None


def _tag(text: str) -> tuple[str, str]:
    name, equals, told = text.partition("=")
    if not (name and equals):
        raise UsageFault(f"--tag: {text!r} is not NAME=TEXT")
    return name, told


def _matches(context: Context, leak: str | None, descriptor: int | None) -> list[Match]:
    findings = findings_from(context, leak or ASK, descriptor)
    managed, unseen = context.managed()
    return match(context.assembly, findings, managed, unseen)


def _plan(
    context: Context,
    selection: Selection,
    matches: Sequence[Match],
    delay: timedelta | None,
    *,
    contain_first: bool,
) -> Plan:
    known = context.declared([*selection.names]) if selection.plain else []
    chosen = gathering.gather(context.assembly, selection, context.path.name, known=known)
    return plans.make(
        context.assembly,
        selection,
        chosen,
        leaks=intake.by_secret(matches),
        contain_after=delay,
        contain_first=contain_first,
    )


def _policies(context: Context, plan: Plan) -> list[Policy]:
    """What the plan's secrets are applied or declared with, for their clients to be opened."""
    steps = {step.name for step in plan.steps}
    return [policy for policy in context.config.policies if policy.name in steps]


def _person() -> str:
    """Who runs this, as this machine knows them."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # an account without a name, as in some containers
        return f"somebody@{socket.gethostname()}"


# --- the plan ------------------------------------------------------------------------------------


def _show_plan(context: Context, plan: Plan, matches: Sequence[Match], *, json: bool) -> None:
    if json:
        show.as_json(_plan_json(plan, matches))
        return
    others = [one for one in matches if not (one.alive and one.target is not None)]
    if others:
        show.say("In the report, and not replaced by this:")
        show_matches(others)
    if matches and not plan.steps:
        show.say("Nothing in the report is ours and alive.")
    if len(plan.steps) <= _FEW:
        for step in plan.steps:
            _announce(step, plan)
    else:
        _as_table(context, plan)
    if plan.admin:
        show.say(f"First of all: {plan.admin}.", "bold yellow")
    for note in plan.notes:
        show.complain(f"{note}.", "yellow")
    if len(plan.steps) > 1:
        _costs(plan)


def _announce(step: Step, plan: Plan) -> None:
    """Says what is about to happen to one secret, by the applied policy, which is the one that counts."""
    how = "revoke at once, then replace" if plan.contain_first else "replace, then revoke without grace"
    show.say(f"{step.name} ({step.environment}, owner {step.owner}): {how}")
    for leak in step.leaks:
        public = " (public)" if leak.public else ""
        show.say(
            f"    leaked: its {leak.standing} credential, in {leak.where or leak.source}{public}; {leak.how}", "yellow"
        )
    if step.leaks and len(step.keys) > 1:
        show.say(f"    all of its {len(step.keys)} live credentials go, not just what leaked")
    if not plan.contain_first:
        show.say(f"    contained after {show.span(step.contain_after)} even if it can not be replaced")
    if step.person:
        show.say(f"    a person has to act: {step.person}", "bold yellow")
    for consumer in step.consumers:
        within = show.span(consumer.refresh_within)
        show.say(f"    {consumer.name} fails with what it has cached until it refreshes, within {within}", "yellow")


def _as_table(context: Context, plan: Plan) -> None:
    how = "revoke at once, then replace" if plan.contain_first else "replace, then revoke without grace"
    show.say(f"{len(plan.steps)} secrets of {context.config.environment} ({plan.selected}), in this order: {how}")
    leaks = any(step.leaks for step in plan.steps)
    rows = []
    for number, step in enumerate(plan.steps, 1):
        leaked = ", ".join(dict.fromkeys(leak.standing + (" (public)" if leak.public else "") for leak in step.leaks))
        consumers = ", ".join(f"{c.name} within {show_duration(c.refresh_within)}" for c in step.consumers)
        contained = "at once" if plan.contain_first else f"after {show_duration(step.contain_after)}"
        keys = "?" if step.trouble else str(len(step.keys))
        found = (leaked or "-",) if leaks else ()
        rows.append((str(number), step.name, step.owner, step.issuer, *found, keys, contained, consumers or "-"))
    headings = (
        "#",
        "SECRET",
        "OWNER",
        "ISSUER",
        *(("LEAKED",) if leaks else ()),
        "KEYS",
        "CONTAINED",
        "CONSUMERS REFRESH",
    )
    show.table(headings, rows)
    for step in plan.steps:
        if step.wave == 0:
            show.say(f"{step.name} is the leaked administrative credential: nothing else begins before it is replaced.")
        if step.person:
            show.say(f"{step.name}: a person has to act: {step.person}", "bold yellow")
        if step.trouble:
            show.complain(f"{step.name}: {step.trouble}")


def _costs(plan: Plan) -> None:
    told = ", ".join(f"{service} {load.calls:,}" for service, load in plan.loads.items())
    show.say(f"Owners: {', '.join(plan.owners)}. Calls: {told or 'none'}. Expected: about {show.span(plan.expected)}.")
    for service, quota in plan.quotas.items():
        show.say(f"    {service}: {quota.source}")


def _plan_json(plan: Plan, matches: Sequence[Match]) -> dict[str, object]:
    return {
        "selected": plan.selected,
        "contain_first": plan.contain_first,
        "expected_seconds": round(plan.expected.total_seconds(), 1),
        "owners": list(plan.owners),
        "admin": plan.admin,
        "notes": list(plan.notes),
        "services": {
            name: {"calls": load.calls, "quota": plan.quotas[name].source if name in plan.quotas else None}
            for name, load in plan.loads.items()
        },
        "secrets": [_step_json(step) for step in plan.steps],
        "not_replaced": [
            {"standing": one.standing.value, "where": one.finding.where, "how": one.how, "next_step": one.next_step}
            for one in matches
            if not (one.alive and one.target is not None)
        ],
    }


def _step_json(step: Step) -> dict[str, object]:
    return {
        "name": step.name,
        "owner": step.owner,
        "stores": [step.target.store, *step.replicas],
        "issuer": step.issuer,
        "first": step.wave == 0,
        "keys": [{"key_id": key.key_id, "role": key.role, "ours": key.ours} for key in step.keys],
        "leaks": [{"where": leak.where, "standing": leak.standing, "public": leak.public} for leak in step.leaks],
        "consumers": [
            {"name": c.name, "refresh_within_seconds": c.refresh_within.total_seconds()} for c in step.consumers
        ],
        "contain_after_seconds": step.contain_after.total_seconds(),
        "person": step.person,
        "error": step.trouble,
    }


def _confirm(plan: Plan, identity: str) -> None:
    """One secret is confirmed by yes; more by what nobody types by habit."""
    if not sys.stdin.isatty():
        raise UsageFault("nobody is there to confirm; give --yes. Nothing was changed")
    number = len(plan.steps)
    if number == 1:
        agreed = typer.confirm("Go ahead?", err=True)
    else:
        asked = f"Incident {identity}. To go ahead, type {number}, the number of secrets, or the incident's id"
        agreed = typer.prompt(asked, err=True, default="", show_default=False).strip() in (str(number), identity)
    if not agreed:
        show.complain("Nothing was changed.")
        raise typer.Exit(FAILED)


# --- doing it --------------------------------------------------------------------------------------


def incidents_folder() -> Path:
    """Where records are kept: beside the audit trail of this folder."""
    return Path.cwd() / ".keyturn" / "incidents"


def _resume(context: Context, identity: str, *, yes: bool, json: bool) -> NoReturn:
    try:
        incident = Files(incidents_folder()).load(identity)
    except ValueError as error:
        raise UsageFault(f"--resume: {error}") from None
    here = (context.config.installation, context.config.environment)
    if (incident.installation, incident.environment) != here:
        of = f"{incident.installation}, {incident.environment}, {incident.stack}"
        raise UsageFault(f"--resume: {identity} is of {of}; give that stack")
    left = [secret for secret in incident.secrets if secret.state is not State.OVER]
    if not left:
        raise UsageFault(f"--resume: {identity} is over; `keyturn incident show {identity}` tells of it")
    if not json:
        show.say(
            f"Incident {identity} ({incident.selected}): {len(left)} of {len(incident.secrets)} secrets to go on with"
        )
    if not yes:
        if not sys.stdin.isatty():
            raise UsageFault("nobody is there to confirm; give --yes. Nothing was changed")
        if not typer.confirm("Go ahead?", err=True):
            show.complain("Nothing was changed.")
            raise typer.Exit(FAILED)
    names = {secret.name for secret in left}
    context.open(policy for policy in context.config.policies if policy.name in names)
    incident.resumed_at.append(context.assembly.clock.now())
    if (person := _person()) not in incident.ran_by:
        incident.ran_by.append(person)
    incident.ended_at = None
    _carry_out(context, incident, json=json)


def _carry_out(context: Context, incident: Incident, *, json: bool) -> NoReturn:
    files = Files(incidents_folder())
    told = f"Interrupted. `keyturn emergency --resume {incident.id}` goes on; so does the next sweep with what is condemned."
    with _watching(incident) as progress:

        def write() -> None:
            with runner.lock:
                files.save(incident)

        saver = Saver(write)
        runner = Runner(context.assembly, incident, save=saver.save, keep=saver.keep, progress=progress)
        context.trail.incident = incident.id
        context.trail.auditor = Tapped(context.trail.auditor, runner.heard)
        with saver, left_at_once(told):
            runner.run()
    reports = [report(incident, secret, runner.outcomes.get(secret.name)) for secret in incident.secrets]
    if json:
        show.as_json([one.as_json() for one in reports])
    else:
        _show_reports(incident, reports)
    for outcome in runner.outcomes.values():
        if outcome.seen is not None:
            applied = outcome.seen.policy
            show.unapplied(applied.name, context.unapplied(applied), context.path.name)
    raise typer.Exit(max((_code(one) for one in reports), default=DONE))


def _code(one: Report) -> int:
    if one.alive:
        return ALIVE
    return DONE if one.done else FAILED


@contextmanager
def _watching(incident: Incident) -> Iterator[Callable[[SecretRecord], None]]:
    """Tells how far it is: a bar at a terminal; on a pipe a line whenever another tenth is shown dead."""
    total = len(incident.secrets)
    done = {secret.name for secret in incident.secrets if secret.state is State.OVER}
    lock, tenths = threading.Lock(), {"told": 0}
    with show.progress() as bar:
        task = bar.add_task("replacing and revoking", total=total, completed=len(done))

        def progress(secret: SecretRecord) -> None:
            with lock:
                if secret.state in (State.OVER, State.STUCK):
                    done.add(secret.name)
                bar.update(task, completed=len(done))
                tenth = 10 * len(done) // total
                if total >= _MANY and not show.err.is_terminal and tenth > tenths["told"]:
                    tenths["told"] = tenth
                    show.complain(f"{len(done)} of {total} secrets are through", "")

        yield progress


def _show_reports(incident: Incident, reports: Sequence[Report]) -> None:
    for one in reports:
        if len(reports) < _MANY or not one.done:
            _show_report(one)
    if len(reports) > 1:
        totals = incident.totals()
        times = (("replaced", "replaced_seconds"), ("contained", "contained_seconds"), ("shown dead", "proven_seconds"))
        told = ", ".join(f"{word} {_timed(totals[name])}" for word, name in times)
        alive = sum(one.alive for one in reports)
        state = (
            f"{alive} alive or not shown dead; run `keyturn emergency --resume {incident.id}`"
            if alive
            else "none alive"
        )
        show.say(f"All {len(reports)}: {told}; {state}.", "bold red" if alive else "green")
    show.say(f"Recorded: keyturn incident show {incident.id}")


def _timed(seconds: float | None) -> str:
    return "not yet" if seconds is None else f"{seconds:.1f} s"


def _show_report(one: Report) -> None:
    if not one.reached:
        show.complain(f"{one.name}: {one.trouble or one.rest}")
        alive = "What leaked is alive: run this again once that is put right, or revoke it at its issuer by hand."
        show.say(f"    Nothing was changed. {alive if one.applied else _NOT_APPLIED}")
        return
    told = f"replaced {_timed(one.replaced)}"
    if one.enforced:
        told += f", contained {_timed(one.contained)}, shown dead {_timed(one.proven)}"
    else:
        told += "; no issuer enforces this value, so whoever accepts it has to stop"
    show.say(f"{one.name}: {told}", "green" if one.done else "bold red")
    if one.trouble:
        show.complain(f"    {one.trouble}")
    if one.stale and not one.done:
        show.say(f"    May still hand out what leaked: {', '.join(one.stale)}.", "yellow")
    if not one.ours:
        show.say("    What the entry held was not made by Keyturn and lives on: revoke it at its issuer.", "yellow")
    elif not one.done:
        if one.rest:
            show.say(f"    {one.rest}", "yellow")
        if one.person:
            show.say(f"    {one.person}", "bold yellow")
        show.say("    What is condemned stays so: run this again, or the next sweep goes on by itself.")
