"""The `keyturn` command."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from typing import Annotated, NoReturn

import typer

from rotation import checkup, extras, logs
from rotation import sweep as sweeps
from rotation.cli import completion, show
from rotation.cli.admin import AdminFd, AdminFrom, given, recorded
from rotation.cli.audit import app as audit_app
from rotation.cli.breakglass import app as breakglass_app
from rotation.cli.config import app as config_app
from rotation.cli.context import CLOCK, ConfigError, Context, File, Json, Names, Stack, UsageFault, end, open_context
from rotation.cli.daemon import run as run_daemon
from rotation.cli.doctor import doctor
from rotation.cli.drill import app as drill_app
from rotation.cli.emergency import emergency
from rotation.cli.ending import DONE, FAILED, INTERRUPTED, ON_INTERRUPT, USAGE
from rotation.cli.exec import execute
from rotation.cli.fingerprints import app as fingerprints_app
from rotation.cli.fleet import fleet as fleets
from rotation.cli.guard import guard
from rotation.cli.help import Root, Sentences, explain
from rotation.cli.incident import app as incident_app
from rotation.cli.issuer import app as issuer_app
from rotation.cli.metrics import metrics
from rotation.cli.notify import notify as notify_app
from rotation.cli.outcomes import each, finish
from rotation.cli.plan import NOT_APPLIED, plan
from rotation.cli.policy import policy as policy_command
from rotation.cli.progress import watched
from rotation.cli.report import Reporting, report
from rotation.cli.runbook import runbook
from rotation.cli.serve import serve
from rotation.cli.status import status
from rotation.cli.thaw import thaw
from rotation.cli.watch import WatchCommand
from rotation.errors import Trouble
from rotation.model import Credential, Policy, SecretValue
from rotation.notify import uses
from rotation.ports import Clock
from rotation.telemetry import sweeping
from sandbox.cli import app as sandbox_app

app = typer.Typer(
    name="keyturn",
    cls=Root,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Provisions secrets and turns their keys for real: mint, verify, promote, revoke, prove.",
    epilog="Exit codes: 0 done; 1 something failed, and what state it was left in is printed; 2 usage or "
    "configuration; 3 a credential that should be dead is alive or unproven.",
)


_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"keyturn {installed_version('keyturn')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Holds the options that every command shares."""
    level = os.environ.get("KEYTURN_LOG_LEVEL", "WARNING").upper()
    if level not in _LEVELS:
        raise UsageFault(f"KEYTURN_LOG_LEVEL: there is no level {level}; allowed: {', '.join(_LEVELS)}")
    logs.start(level)


# --- looking -------------------------------------------------------------------------------------


app.command(cls=WatchCommand)(status)
app.command()(plan)


@app.command()
def verify(names: Names = None, stack: Stack = None, config: File = None, json: Json = False) -> None:
    """Show each credential that stores hand out to its issuer, and hold replicas against their primary.

    Example: keyturn verify --stack prod
    """
    context = open_context(stack, config)
    policies, assembly = context.declared(names), context.assembly

    entries = [
        (store, assembly.places.entry_name(store, policy.environment, policy.name))
        for policy in policies
        for store in policy.stores
    ]
    held = checkup.held_by(assembly.stores, entries)

    def look(policy: Policy) -> list[checkup.Finding]:
        target = assembly.target(policy)
        return checkup.verify(assembly.engine, assembly.issuers, target, policy.name, held)

    found = [f for group in watched("verifying", policies, look) for f in group]
    if json:
        show.as_json([finding.as_json() for finding in found])
    else:
        show.findings(found)
    raise typer.Exit(DONE if all(finding.good for finding in found) else FAILED)


# --- acting --------------------------------------------------------------------------------------


@app.command()
def rotate(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Which secrets.", autocompletion=completion.secrets)
    ],
    stack: Stack = None,
    config: File = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Do not wait for an interrupted run's attempt to expire (15 min).")
    ] = False,
    admin_from: AdminFrom = None,
    admin_fd: AdminFd = None,
    json: Json = False,
) -> None:
    """Rotate now, up to promoted. The old credential drains; sweeps revoke it and show it dead.

    Example: keyturn rotate --stack prod support-copilot-chat
    """
    context = open_context(stack, config, admins=given(admin_from, admin_fd))
    recorded(context, admin_from)
    engine = context.assembly.engine
    finish(
        context,
        context.declared(names),
        "rotating",
        lambda policy: context.run("rotate", policy, lambda target: engine.rotate(target, take_over=take_over)),
        json=json,
    )


@app.command()
def sweep(
    stack: Stack = None,
    config: File = None,
    admin_from: AdminFrom = None,
    admin_fd: AdminFd = None,
    json: Json = False,
) -> None:
    """Do everything that is due, interrupted, drained or orphaned. Made for cron: safe to run at any time, twice.

    Example: keyturn sweep --stack prod
    """
    context = open_context(stack, config, admins=given(admin_from, admin_fd))
    recorded(context, admin_from)
    assembly = context.assembly
    with sweeping(assembly.telemetry, assembly.clock, context.config.environment) as watched:
        begun = sweeps.begin(assembly, context.path.name)
        watched.secrets = begun.total
        for trouble in begun.troubles:
            show.complain(f"{trouble}. Left alone, and orphans with it; all else goes on. The next sweep looks again.")
        tell = show.complain if json else show.say
        if found := len(begun.adopted):
            tell(f"{found} orphaned {'key' if found == 1 else 'keys'} found; condemned, and on the way out.", "yellow")
        if begun.missing:
            tell(f"{', '.join(begun.missing)}: {NOT_APPLIED}", "yellow")
        if more := begun.total - len(begun.secrets):
            tell(f"{more} more secrets have nothing to do.")
        targets = {policy: target for target, policy in begun.secrets}
        code = each(
            context,
            [policy for _, policy in begun.secrets],
            "sweeping",
            lambda policy: begun.run(targets[policy], policy),
            json=json,
            failed=bool(begun.troubles),
        )
        watched.result = "failed" if code else "done"
        used, silent = uses.watch(assembly)
        for trouble in silent:
            show.complain(f"{trouble}. How keys are used is not known; the next sweep asks again.")
        for one in used:
            for warned in one.warned:
                show.complain(f"! {one.policy.name}: {warned.text}.", "yellow")
    raise typer.Exit(code)


app.command()(emergency)
app.command()(guard)


@app.command()
def rollback(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Which secrets.", autocompletion=completion.secrets)
    ],
    stack: Stack = None,
    config: File = None,
    json: Json = False,
) -> None:
    """Make the previous credential current again while it still lives; the present one drains.

    Never goes back to a credential that is condemned or revoked.

    Example: keyturn rollback --stack prod support-copilot-chat
    """
    context = open_context(stack, config)
    engine = context.assembly.engine
    finish(
        context,
        context.declared(names),
        "rolling back",
        lambda policy: context.run("rollback", policy, engine.rollback),
        json=json,
    )


@app.command()
def submit(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A secret whose credentials people make.", autocompletion=completion.secrets
        ),
    ],
    stack: Stack = None,
    config: File = None,
    key_id: Annotated[
        str | None,
        typer.Option("--key-id", help="The issuer's id of the credential, by which it is revoked later."),
    ] = None,
    descriptor: Annotated[
        int | None,
        typer.Option("--fd", metavar="N", min=0, help="Read the value from this file descriptor, one field a line."),
    ] = None,
    json: Json = False,
) -> None:
    """Bring the credential that a person created at a manual issuer: it is verified, then promoted.

    The value is asked for without echo, or read from a file descriptor; never from the command line.

    Example: keyturn submit --stack prod support-copilot-claude --key-id apikey_01 --fd 3 3< <(pass show claude)
    """
    from rotation.engine import unfit  # noqa: PLC0415 - the help needs no engine

    context = open_context(stack, config)
    assembly = context.assembly
    policies = context.declared([name])
    able = assembly.issuers[policies[0].issuer].capabilities
    if told := unfit(able, policies[0].issuer, key_id):
        raise UsageFault(told)
    fields = able.fields
    credential = Credential({field: SecretValue(text) for field, text in _values(fields, descriptor).items()})
    finish(
        context,
        policies,
        "submitting",
        lambda policy: context.run("submit", policy, lambda target: assembly.engine.submit(target, credential, key_id)),
        json=json,
    )


def _values(fields: Sequence[str], descriptor: int | None) -> dict[str, str]:
    """One value per field, from a person or a pipe. Raises UsageFault when one is missing."""
    if descriptor is not None:
        try:
            with os.fdopen(descriptor, encoding="utf-8") as pipe:
                lines = pipe.read().splitlines()
        except OSError as error:
            raise UsageFault(f"--fd {descriptor}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UsageFault(f"--fd {descriptor}: what it gives is not UTF-8 text") from None  # the error quotes it
        if len(lines) != len(fields) or not all(lines):
            raise UsageFault(f"--fd {descriptor}: expected {len(fields)} lines, one each for {', '.join(fields)}")
        return dict(zip(fields, lines, strict=True))
    if not sys.stdin.isatty():
        raise UsageFault("nobody is there to type the value; give --fd")
    return {field: typer.prompt(field, hide_input=True, err=True) for field in fields}


@app.command()
def adopt(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A declared secret whose entry exists already.", autocompletion=completion.secrets
        ),
    ],
    stack: Stack = None,
    config: File = None,
    key_id: Annotated[
        str | None,
        typer.Option("--key-id", help="The issuer's id of its credential. Without it, it is never revoked by Keyturn."),
    ] = None,
    json: Json = False,
) -> None:
    """Bring an existing entry under management. Its value stays as it is; the next rotation replaces it when due.

    Example: keyturn adopt --stack prod --key-id key_8Yb2 support-copilot-chat
    """
    context = open_context(stack, config)
    (policy,) = context.declared([name])
    with _said_what_is_left(context):
        seen = context.assembly.engine.adopt(context.assembly.target(policy), policy, key_id=key_id)
    current = seen.primary.current
    since = current.created_at if current else None
    if json:
        show.as_json({"name": name, "adopted": True, "key_id": key_id, "since": since.isoformat() if since else None})
        return
    show.say(f"✓ {name}: managed from now on; its credential is from {show.when(since, context.assembly.clock.now())}")
    if key_id is None:
        show.say(
            "    Keyturn will not revoke it, as its key id is not known: do that by hand after the rotation.", "yellow"
        )


@app.command()
def release(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A managed secret.", autocompletion=completion.secrets)],
    stack: Stack = None,
    config: File = None,
    json: Json = False,
) -> None:
    """Hand an entry back: policy and journal are taken off it, its value stays. Nothing is revoked.

    Example: keyturn release --stack prod support-copilot-chat
    """
    context = open_context(stack, config)
    (policy,) = context.declared([name])
    with _said_what_is_left(context):
        context.assembly.engine.release(context.assembly.target(policy))
    if json:
        show.as_json({"name": name, "released": True})
        return
    show.say(f"✓ {name}: released; take it out of {context.path.name}, or the next `pulumi up` manages it again")


@contextmanager
def _said_what_is_left(context: Context) -> Iterator[None]:
    """Turns a failed call into a sentence that says whether anything was changed before."""
    try:
        yield
    except Trouble as trouble:
        part = "Part of it may be done, and no value was touched; repeat it once that is put right"
        show.complain(f"{trouble}. {part if context.trail.begun else 'Nothing was changed'}.")
        raise typer.Exit(FAILED) from None


# In the order in which help lists them, after what stands above.
app.command()(thaw)
app.command()(runbook)
app.command()(doctor)
app.command("policy")(policy_command)
app.command()(metrics)
app.command(cls=Reporting)(report)
app.command("run")(run_daemon)
app.add_typer(fleets, name="fleet")
app.command("exec", context_settings={"allow_interspersed_args": False})(execute)
app.command()(serve)
app.add_typer(notify_app, name="notify")
app.add_typer(incident_app, name="incident")
app.add_typer(issuer_app, name="issuer")
app.add_typer(drill_app, name="drill")
app.add_typer(breakglass_app, name="break-glass")
app.add_typer(audit_app, name="audit")
app.add_typer(fingerprints_app, name="fingerprints")
app.add_typer(config_app, name="config")
app.add_typer(sandbox_app, name="sandbox")
app.command()(completion.completion)
app.command("help")(explain)
for group in app.registered_groups:
    if group.typer_instance and not isinstance(group.typer_instance.info.cls, type):  # else it has chosen for itself
        group.cls = Sentences


# --- reporting -----------------------------------------------------------------------------------


def _explain(fault: typer.TyperException) -> None:
    """Prints what was wrong on the command line, and the usage where Typer's own kinds of this have it."""
    if (shown := getattr(fault, "show", None)) is not None:
        shown()
        name, given_to = getattr(fault, "option_name", None), getattr(fault, "ctx", None)
        if name and given_to is not None and given_to.parent is None:
            show.complain("Options stand after the command, as in `keyturn status --stack prod`.")
    else:
        show.complain(fault.format_message())


def run(arguments: Sequence[str] | None = None, *, clock: Clock | None = None) -> NoReturn:
    """Entry point of the console script: turns what can go wrong into a sentence and an exit code.

    Parameters:
        arguments: what follows `keyturn`; that of the process when not given.
        clock: for the commands that look at secrets or act on them; the environment's own when not given.
    """
    CLOCK.set(clock)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a mark that a terminal can not show is no reason to fail
    try:
        code = app(arguments, prog_name="keyturn", standalone_mode=False)
    except ConfigError as faults:
        show.complain(str(faults))
        show.complain("Nothing was changed. Put that right, then run this again.", "")
        code = USAGE
    except UsageFault as fault:
        show.complain(str(fault))
        code = USAGE
    except Trouble as trouble:
        show.complain(f"{trouble}. Nothing was changed.")
        code = FAILED
    except ModuleNotFoundError as missing:
        if (told := extras.explained(missing)) is None:
            raise
        show.complain(f"{told}. Then run this again.")
        code = USAGE
    except typer.TyperException as fault:
        _explain(fault)
        code = fault.exit_code
    except typer.Abort:
        code = INTERRUPTED
    finally:
        end()
    if code == INTERRUPTED:
        show.complain(ON_INTERRUPT)
    show.finish()
    sys.exit(code or DONE)
