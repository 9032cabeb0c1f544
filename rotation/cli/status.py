"""The command `keyturn status`: one row per secret."""

from __future__ import annotations

from typing import Annotated

import typer

from rotation import status as statuses
from rotation.cli import show
from rotation.cli import usage as usages
from rotation.cli.context import File, Json, Names, Stack, open_context
from rotation.cli.ending import ALIVE, DONE, FAILED
from rotation.cli.progress import watched
from rotation.model import Policy


def status(
    names: Names = None,
    stack: Stack = None,
    config: File = None,
    usage: Annotated[
        bool, typer.Option("--usage", help="Ask issuers, too, how each key is used, and warn of what looks wrong.")
    ] = False,
    json: Json = False,
) -> None:
    """Show one row per secret: where it stands, when it rotates, what comes next.

    With --usage, issuers that tell are asked for the last use of every key and for its requests: once each, however
    many keys. A key that is used although it is retired, and one that is used far more than before, is told of.
    docs/usage.md has the rules.

    Example: keyturn status --stack prod support-copilot-chat
    """
    context = open_context(stack, config)
    policies, assembly = context.declared(names), context.assembly

    def look(policy: Policy) -> statuses.Row:
        return statuses.row(assembly.engine, assembly.target(policy), policy, assembly.clock.now(), assembly.issuers)

    rows = watched("looking", policies, look)
    asked = usages.ask(context, policies, rows) if usage else None
    if json:
        shown = [row.as_json() for row in rows]
        show.as_json(asked.into(shown) if asked else shown)
    else:
        show.status(rows, assembly.clock.now())
        if asked:
            asked.show(assembly.clock.now())
    for row in rows:
        if row.applied:
            show.unapplied(row.name, context.unapplied(row.applied), context.path.name)
    if any(row.alive for row in rows) or (asked and asked.alive):
        raise typer.Exit(ALIVE)
    raise typer.Exit(FAILED if any(row.phase is statuses.Phase.UNREACHABLE for row in rows) else DONE)
