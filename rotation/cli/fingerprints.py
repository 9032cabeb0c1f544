"""`keyturn fingerprints`: the key by which a leaked value is known again."""

from __future__ import annotations

import typer

from rotation.cli import show
from rotation.cli.context import File, Json, Stack, UsageFault, open_context
from rotation.config import EntryReference
from rotation.leaks.fingerprint import make_key

FAILED = 1

app = typer.Typer(
    no_args_is_help=True,
    help="The key by which a leaked value is known again: journals keep keyed fingerprints, never values.",
)


@app.callback()
def fingerprints() -> None:
    """Makes `init` a command of its own, whatever comes beside it."""


@app.command()
def init(stack: Stack = None, config: File = None, json: Json = False) -> None:
    """Make the key of fingerprints, where the stack file says it is, unless it is there. Never replaces one.

    The stack file names an entry that Keyturn does not manage, and that no application may read:
    `keyturn:fingerprints: {store: vault, name: keyturn/fingerprints}`. What is minted from then on has a fingerprint in
    its journal; of older credentials `emergency --leak` reads the values. Keep the key: with another one, fingerprints
    that stand in journals say nothing any more, and values are read again. Where `env` or `file` names it, this only
    looks whether it is there.

    Exit codes: 0 it is there; 1 the store failed, and doing it again is safe; 2 the stack file names none.

    Example: keyturn fingerprints init --stack prod
    """
    context = open_context(stack, config)
    reference, assembly = context.config.fingerprints, context.assembly
    if reference is None:
        told = f"{context.path.name} has no keyturn:fingerprints; allowed: {{store: STORE, name: ENTRY}}, as in"
        raise UsageFault(f"{told} {{store: {next(iter(context.config.stores), 'STORE')}, name: keyturn/fingerprints}}")
    made, where = False, "where keyturn:fingerprints says"
    if isinstance(reference, EntryReference):
        where = f"in {reference.store}, {reference.name}"
        made = make_key(assembly.stores[reference.store], reference.name)
    if assembly.fingerprints.ready() is None:
        show.complain(f"The key of fingerprints can not be used: {assembly.fingerprints.fault}. Nothing was replaced.")
        raise typer.Exit(FAILED)
    if json:
        show.as_json({"made": made, "where": where})
        return
    show.say(f"✓ a new key of fingerprints is {where}" if made else f"· the key of fingerprints is there, {where}")
