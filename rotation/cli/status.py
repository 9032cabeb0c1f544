"""The command `keyturn status`: one row per secret."""

from __future__ import annotations

import typer

from rotation import status as statuses
from rotation.cli import show
from rotation.cli.context import File, Json, Names, Stack, open_context
from rotation.cli.ending import ALIVE, DONE, FAILED
from rotation.cli.progress import watched
from rotation.model import Policy


def status(names: Names = None, stack: Stack = None, config: File = None, json: Json = False) -> None:
    """Show one row per secret: where it stands, when it rotates, what comes next.

    Example: keyturn status --stack prod support-copilot-chat
    """
    context = open_context(stack, config)
    policies, assembly = context.declared(names), context.assembly

    def look(policy: Policy) -> statuses.Row:
        return statuses.row(assembly.engine, assembly.target(policy), policy, assembly.clock.now(), assembly.issuers)

    rows = watched("looking", policies, look)
    if json:
        show.as_json([row.as_json() for row in rows])
    else:
        show.status(rows, assembly.clock.now())
    for row in rows:
        if row.applied:
            show.unapplied(row.name, context.unapplied(row.applied), context.path.name)
    if any(row.alive for row in rows):
        raise typer.Exit(ALIVE)
    raise typer.Exit(FAILED if any(row.phase is statuses.Phase.UNREACHABLE for row in rows) else DONE)
