"""The commands `keyturn issuer`: which vendors there are, what each can do, and whether a description holds."""

from __future__ import annotations

import json as jsons
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rotation.cli import show
from rotation.cli.admin import ask_for
from rotation.cli.context import CLOCK, File, Json, Stack, UsageFault, open_context
from rotation.cli.ending import ALIVE, DONE, FAILED, USAGE
from rotation.clock import SystemClock
from rotation.declared import ConfigError
from rotation.declared import Fault as ConfigFault
from rotation.model import Credential, Model, SecretValue, Verdict
from rotation.ports import Clock, Issuer, Record
from rotation.trial import Step, Trial

if TYPE_CHECKING:
    from providers.issuers.description import Description
    from providers.issuers.samples import Samples

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Vendors: list them, look at one, check and try a description."
)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the vendors that come with Keyturn as a description, and what each can do.

    Other vendors are a file of your own: docs/issuers.md. AWS IAM, PostgreSQL and generated values are code.

    Example: keyturn issuer list
    """
    from providers.issuers.abilities import HEADINGS, row  # noqa: PLC0415 - pydantic and YAML, for this command
    from providers.issuers.reading import shipped, shipped_kinds  # noqa: PLC0415

    rows = [row(kind, shipped(kind)) for kind in shipped_kinds()]
    if json:
        show.as_json([dict(zip(HEADINGS, cells, strict=True)) for cells in rows])
    else:
        show.table([heading.upper() for heading in HEADINGS], rows)


@app.command("show")
def show_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A vendor of `keyturn issuer list`, or a file.")],
    json: Json = False,
) -> None:
    """Show a vendor: what it can do, how it is configured, where the facts come from, and what is not certain.

    Example: keyturn issuer show sendgrid
    """
    from providers.issuers.abilities import HEADINGS, row  # noqa: PLC0415

    about = _described(name)
    facts = dict(zip(HEADINGS, row(name, about), strict=True))
    variables = {
        given: {
            "about": variable.about,
            "type": variable.type,
            "required": variable.required,
            "default": variable.default,
        }
        for given, variable in about.variables.items()
    }
    if json:
        told = {"title": about.title, "sources": about.sources, "unverified": about.unverified}
        show.as_json({**told, "base_url": about.base_url, "can": facts, "variables": variables})
        return
    show.say(about.title, "bold")
    show.say(f"  {about.base_url}\n")
    show.table(("CAN", ""), [[heading, text] for heading, text in facts.items()])
    if variables:
        show.say("")
        rows = [[given, _needed(about, given), about.variables[given].about] for given in variables]
        show.table(("VARIABLE", "GIVEN", "WHAT IT IS"), rows)
    for heading, lines in (("Sources", about.sources), ("Not certain", about.unverified)):
        if lines:
            show.say(f"\n{heading}:")
            for line in lines:
                show.say(f"  {line}")


def _needed(about: Description, name: str) -> str:
    variable = about.variables[name]
    if variable.required:
        return "always"
    return "may be" if variable.default is None else f"or {variable.default}"


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A description; its samples stand beside it.")],
    json: Json = False,
) -> None:
    """Check a description without asking anybody: its form, its sense, and whether it reads its sample answers.

    The samples of vendor.yaml are looked for in vendor.samples.yaml. Each fault is named by its place. Exit code 2
    when there are faults.

    Example: keyturn issuer check issuers/vendor.yaml
    """
    from providers.issuers.language import DescriptionFault  # noqa: PLC0415
    from providers.issuers.samples import beside, faults_in  # noqa: PLC0415

    told: list[str] = []
    samples = None
    try:
        about = _described(str(file))
        samples = _samples(file) if beside(file).is_file() else None
        told = [f"{beside(file).name}: {fault}" for fault in faults_in(about, samples)] if samples else []
    except DescriptionFault as fault:
        told = str(fault).splitlines()
    if json:
        show.as_json({"faults": told, "samples": samples is not None})
    elif told:
        for line in told:
            show.complain(line)
    else:
        tried = f"and reads {beside(file).name}" if samples else f"there is no {beside(file).name} to read"
        show.say(f"{file.name} is sound, {tried}.", "green" if samples else "yellow")
    raise typer.Exit(USAGE if told else DONE)


Var = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME=VALUE", help="A variable of a FILE; a list as JSON.", show_default=False),
]


@app.command("try")
def try_(
    target: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A description, or an issuer of the stack.")],
    stack: Stack = None,
    config: File = None,
    var: Var = None,
    admin_fd: Annotated[
        int | None,
        typer.Option("--admin-fd", metavar="N", min=0, help="Read the admin credential from here, one line."),
    ] = None,
    value_fd: Annotated[
        int | None,
        typer.Option("--value-fd", metavar="N", min=0, help="Read a key that a person made from here, a line a field."),
    ] = None,
    slot: Annotated[
        str | None,
        typer.Option("--slot", metavar="SLOT", help="Which slot is made anew, twice. WHAT IT HOLDS IS DESTROYED."),
    ] = None,
    stand_in: Annotated[
        bool,
        typer.Option("--stand-in", help="Ask a stand-in on this machine, made of a FILE and its samples."),
    ] = False,
    json: Json = False,
) -> None:
    """Try an issuer with a key of its own: mint, verify, list, revoke, prove. Cleans up whatever happens.

    NAME is an issuer of the stack, with the admin credential that the stack names; FILE is a description, with
    --var for its variables and the admin credential asked for or read from --admin-fd. A key is made at the real
    vendor and revoked again, also after Ctrl-C. A vendor with slots needs --slot; at one where a person makes the
    keys, a key that is brought is verified and left alone.

    Exit code 3: a key that this made may be alive; its name is printed. 1: something failed, and nothing is left.

    Example: keyturn issuer try issuers/vendor.yaml --var project=p1 --admin-fd 3 3< <(pass show vendor/admin)
    """
    clock: Clock = CLOCK.get() or SystemClock()
    with ExitStack() as closing:
        if _is_file(target):
            issuer = closing.enter_context(_from_file(Path(target), var, admin_fd, clock, stand_in=stand_in))
        elif stand_in or var or admin_fd is not None:
            raise UsageFault("--stand-in, --var and --admin-fd are for a FILE; the stack says the rest of an issuer")
        else:
            issuer, clock = _of_stack(target, stack, config)
        steps, alive, interrupted = _tried(issuer, clock, slot, value_fd, quiet=json)
    if json:
        show.as_json({"steps": [step.as_json() for step in steps], "alive": alive})
    if alive:
        show.complain(f"Still alive, for all that is known: {alive}. Revoke it at the vendor.", "bold red")
        raise typer.Exit(ALIVE)
    if interrupted:
        show.complain("Interrupted. Nothing that this has made is left.", "yellow")
    failed = interrupted or not all(step.good for step in steps)
    if not json and not failed:
        show.say("All steps were as they should be. Nothing is left.", "green")
    elif not interrupted and failed:
        show.complain("A step failed. Nothing that this has made is left.", "yellow")
    raise typer.Exit(FAILED if failed else DONE)


def _tried(
    issuer: Issuer, clock: Clock, slot: str | None, value_fd: int | None, *, quiet: bool
) -> tuple[list[Step], str | None, bool]:
    """The steps, what may be alive, and whether somebody pressed Ctrl-C."""
    can, steps = issuer.capabilities, list[Step]()

    def follow(told: Iterator[Step]) -> None:
        for step in told:
            steps.append(step)
            if not quiet:
                mark, style = ("✓", "green") if step.good else ("✗", "bold red")
                show.say(f"{mark} {step.seconds:7.2f} s  {step.name}: {step.text}", style if not step.good else "")

    if can.model is Model.MANUAL:
        follow(_brought(issuer, clock, value_fd))
        return steps, None, False
    if not can.registry or can.model is Model.REPLACE:
        raise UsageFault(f"{issuer.name}: there is nothing to try that would leave all as it was")
    if (slot is None) != (not can.slots) or (slot and slot not in can.slots):
        raise UsageFault(
            f"--slot: {'slots are' if can.slots else 'there are no slots'} {', '.join(can.slots)}".rstrip()
        )
    trial = Trial(issuer, clock, secrets.token_hex(16), slot)
    interrupted = False
    try:
        follow(trial.run())
    except KeyboardInterrupt:
        interrupted = True
        show.complain("Interrupted: cleaning up first.", "yellow")
    try:
        follow(trial.clean())
    except KeyboardInterrupt:
        interrupted = True
    return steps, trial.alive, interrupted


def _brought(issuer: Issuer, clock: Clock, value_fd: int | None) -> Iterator[Step]:
    """What can be tried where a person makes the keys: the list, and a key that is brought."""
    began = clock.monotonic()
    count = len(list(issuer.keys()))
    yield Step("list", good=True, text=f"{count} keys are listed", seconds=clock.monotonic() - began)
    fields = issuer.capabilities.fields
    texts = ask_for([f"{field} of a key" for field in fields], "--value-fd", value_fd)
    credential = Credential({field: SecretValue(text) for field, text in zip(fields, texts, strict=True)})
    began = clock.monotonic()
    checked = issuer.verify(credential)
    told = f"{checked.verdict}: {checked.reason}"
    yield Step("verify", good=checked.verdict.live, text=told, seconds=clock.monotonic() - began)
    wrong = Credential({field: SecretValue(f"{text[:-4]}0000") for field, text in zip(fields, texts, strict=True)})
    began = clock.monotonic()
    checked = issuer.verify(wrong)
    told = f"{checked.verdict}: {checked.reason}"
    good = checked.verdict is Verdict.INVALID
    yield Step("verify another", good=good, text=told, seconds=clock.monotonic() - began)


# --- what is tried -------------------------------------------------------------------------------------


def _is_file(target: str) -> bool:
    return target.endswith((".yaml", ".yml")) or "/" in target


def _described(name: str) -> Description:
    """A description by name or path. Raises UsageFault or DescriptionFault."""
    from providers.issuers.reading import read, shipped, shipped_kinds  # noqa: PLC0415

    if not _is_file(name):
        if name not in shipped_kinds():
            raise UsageFault(f"there is no vendor {name}; there are: {', '.join(shipped_kinds())}, or a FILE")
        return shipped(name)
    return read(_text(Path(name)), Path(name).name)


def _samples(file: Path) -> Samples:
    from providers.issuers.samples import beside, read_samples  # noqa: PLC0415

    return read_samples(_text(beside(file)), beside(file).name)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageFault(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageFault(f"{file}: is not UTF-8 text") from None


@contextmanager
def _from_file(
    file: Path, given: Sequence[str] | None, admin_fd: int | None, clock: Clock, *, stand_in: bool
) -> Iterator[Issuer]:
    """An issuer by a description that no stack names yet."""
    from providers.issuers.http import HttpIssuer  # noqa: PLC0415
    from providers.issuers.language import DescriptionFault  # noqa: PLC0415
    from sandbox.vendor import Vendor  # noqa: PLC0415

    with ExitStack() as closing:
        try:
            about = _described(str(file))
            variables: Mapping[str, Any] = _variables(about, given)
            if stand_in:
                vendor = closing.enter_context(Vendor(about, _samples(file), now=clock.now))
                variables, admin = {**vendor.variables, **variables}, SecretValue(vendor.admin)
            elif about.auth is not None:
                (text,) = ask_for([f"admin credential of {about.title}"], "--admin-fd", admin_fd)
                admin = SecretValue(text)
            else:
                admin = SecretValue("")
            issuer = closing.enter_context(HttpIssuer(file.stem, about, variables, lambda: admin, clock))
        except DescriptionFault as fault:
            raise ConfigError(
                ConfigFault(line.partition(": ")[0], line.partition(": ")[2]) for line in str(fault).splitlines()
            ) from None
        yield issuer


def _variables(about: Description, given: Sequence[str] | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in given or ():
        name, equals, text = pair.partition("=")
        if not equals:
            raise UsageFault(f"--var {pair}: must be NAME=VALUE")
        kind = about.variables[name].type if name in about.variables else "string"
        try:
            found[name] = jsons.loads(text) if kind in ("integer", "list") else text
        except ValueError:
            raise UsageFault(
                f"--var {name}: must be {'a whole number' if kind == 'integer' else 'a JSON list'}"
            ) from None
    return found


def _of_stack(name: str, stack: str | None, config: Path | None) -> tuple[Issuer, Clock]:
    """An issuer of a stack, without patience; that it is tried is in the audit trail first."""
    context = open_context(stack, config)
    if name not in context.config.issuers:
        raise UsageFault(
            f"{context.path.name} declares no issuer {name}; declared are: {', '.join(context.config.issuers)}"
        )
    issuer, clock = context.assembly.issuers[name], context.assembly.clock
    context.trail.write(Record(clock.now(), "issuer.tried", name, "a key of its own is minted, and revoked again"))
    return getattr(issuer, "bare", issuer), clock
