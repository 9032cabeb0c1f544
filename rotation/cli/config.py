"""The command `keyturn config`: what is wrong with a stack file, and the shape of one for editors."""

from __future__ import annotations

import json as codec
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from rotation.cli import show
from rotation.cli.context import Context, File, Json, Stack, open_context
from rotation.cli.ending import DONE, FAILED, USAGE
from rotation.config import ConfigError, find_stack_file, load, schema
from rotation.declared import Fault
from rotation.model import Policy

app = typer.Typer(no_args_is_help=True, help="What is wrong with a stack file, and the shape of one for editors.")


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that a person should see to, though the file can be used. Same fields as a Fault's."""

    path: str
    """The secret in the file, as in `keyturn:secrets[1]`; where it stands elsewhere, as in `vault: prod/name`."""
    message: str
    allowed: str = ""


@app.command()
def check(
    stack: Stack = None,
    config: File = None,
    applied: Annotated[
        bool, typer.Option("--applied", help="Ask the stores, too: warn where what is applied differs from the file.")
    ] = False,
    json: Json = False,
) -> None:
    """Check a stack file as a whole: every fault, with its path, its line and what is allowed. Changes nothing.

    Without --applied no store is asked, and no login is needed: it fits a pre-commit hook. With it, what is applied is
    read from every store of the file. What is applied counts until `pulumi up`; a difference is a warning, not a fault.

    Exit codes: 0 it can be used; 1 a store could not be asked, or an entry not be read; 2 it has faults.

    Example: keyturn config check --stack prod --applied
    """
    try:
        path = find_stack_file(stack, config, Path.cwd())
        declared = load(path)
    except ConfigError as error:
        _tell(None, error.faults, [], [], json=json)
        raise typer.Exit(USAGE) from None
    warnings: list[Warned] = []
    troubles: list[str] = []
    if applied:
        context = open_context(None, path)
        found, unseen = context.managed()
        troubles = [str(trouble) for trouble in unseen]
        known = {policy.name: policy for _, policy in found}
        warnings = [*_declared(context, known, complete=not unseen)]
        names = {policy.name for policy in declared.policies}
        for target, policy in found:
            if policy.name not in names:
                told = "is applied and goes on rotating; this file does not declare it"
                remedy = "`pulumi up` deletes it, `keyturn release` hands it back"
                warnings.append(Warned(f"{target.store}: {target.entry}", told, remedy))
    _tell(path, (), warnings, troubles, json=json, secrets=len(declared.policies))
    raise typer.Exit(FAILED if troubles else DONE)


def _declared(context: Context, known: Mapping[str, Policy], *, complete: bool) -> Iterator[Warned]:
    """Each secret of the file that is not applied, or not as it stands there.

    Parameters:
        complete: whether every store has answered: else one that was not seen may be applied all the same.
    """
    for number, policy in enumerate(context.config.policies):
        path, found = f"keyturn:secrets[{number}]", known.get(policy.name)
        if found is None:
            if complete:
                yield Warned(path, f"{policy.name} is not applied yet", "`pulumi up` makes it")
            continue
        if fields := context.unapplied(found):
            told = f"{policy.name} is applied with another {', '.join(fields)}, which counts"
            yield Warned(path, told, "`pulumi up` applies what the file says")


def _tell(
    path: Path | None,
    faults: tuple[Fault, ...],
    warnings: list[Warned],
    troubles: list[str],
    *,
    json: bool,
    secrets: int = 0,
) -> None:
    if json:
        show.as_json(
            {
                "file": str(path) if path else None,
                "faults": [asdict(fault) for fault in faults],
                "warnings": [asdict(warned) for warned in warnings],
                "unseen": troubles,
            }
        )
        return
    for fault in faults:
        show.complain(f"✗ {fault}")
    for warned in warnings:
        show.complain(f"! {warned.path}: {warned.message}; {warned.allowed}", "yellow")
    for trouble in troubles:
        show.complain(f"✗ {trouble}. Whether anything differs there is not known.")
    if path is None:
        show.complain(f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'}; nothing was asked or changed.")
        return
    seen = f", {len(warnings)} {'warning' if len(warnings) == 1 else 'warnings'}" if warnings else ""
    show.say(f"✓ {path.name}: {secrets} {'secret' if secrets == 1 else 'secrets'}, no faults{seen}", "green")


@app.command("schema")
def schema_() -> None:
    """Print the JSON Schema (2020-12) of a stack file, by which editors complete and mark what one field can show.

    What needs more than one field, as a grace that is longer than the interval, only `keyturn config check` finds.
    Put `# yaml-language-server: $schema=.keyturn/stack.schema.json` into the first line of Pulumi.STACK.yaml.

    Example: keyturn config schema > .keyturn/stack.schema.json
    """
    typer.echo(codec.dumps(schema(), indent=2))
