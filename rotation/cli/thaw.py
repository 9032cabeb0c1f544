"""The command `keyturn thaw`: scheduled work on secrets goes on after an incident."""

from __future__ import annotations

from typing import Annotated

import typer

from rotation import fleet
from rotation.cli import completion, show
from rotation.cli.context import File, Json, Stack, UsageFault, open_context
from rotation.cli.ending import DONE, FAILED, left_at_once
from rotation.errors import Code, Trouble
from rotation.journal import Frozen
from rotation.model import Policy


def thaw(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Which secrets.", autocompletion=completion.secrets, show_default=False),
    ] = None,
    stack: Stack = None,
    config: File = None,
    incident: Annotated[
        str | None,
        typer.Option("--incident", metavar="ID", help="Only what this incident has frozen; without NAME, all of that."),
    ] = None,
    json: Json = False,
) -> None:
    """Take the freeze of an incident off secrets: what is due rotates again, and old credentials retire.

    An emergency freezes scheduled work on the secrets it is about, so that nothing moves under the hands of who works on
    it, and thaws them by itself once every leaked credential is replaced and shown dead. Otherwise the freeze stays
    until this command. Nothing is rotated here: the next sweep does what has become due meanwhile.

    Example: keyturn thaw --stack prod support-copilot-chat
    """
    if not names and not incident:
        raise UsageFault("which secrets? give names, or --incident for all that it has frozen")
    context = open_context(stack, config)
    policies, assembly = context.declared(names), context.assembly
    context.open(policies)

    def work(policy: Policy) -> Frozen | Trouble | None:
        try:
            return assembly.engine.thaw(assembly.target(policy), incident)
        except Trouble as trouble:
            # Of all secrets of a stack, some may not be applied yet: nothing froze those.
            return None if trouble.code is Code.NOT_FOUND and not names else trouble

    with left_at_once():
        found = dict(fleet.each(policies, work))
    told = [
        (policy.name, found[policy]) for policy in policies if names or found[policy] is not None
    ]  # in the order in which they were named
    if json:
        show.as_json([_as_json(name, result) for name, result in told])
    else:
        for name, result in told:
            _tell(name, result, incident)
        if not told:
            show.say(f"Nothing is frozen by incident {incident}.")
    raise typer.Exit(FAILED if any(isinstance(result, Trouble) for _, result in told) else DONE)


def _as_json(name: str, result: Frozen | Trouble | None) -> dict[str, object]:
    ice = result if isinstance(result, Frozen) else None
    return {
        "name": name,
        "thawed": ice is not None,
        "incident": ice.incident if ice else None,
        "since": ice.at.isoformat() if ice else None,
        "error": str(result) if isinstance(result, Trouble) else None,
    }


def _tell(name: str, result: Frozen | Trouble | None, incident: str | None) -> None:
    match result:
        case Frozen():
            since = f"{result.at:%Y-%m-%d %H:%M}Z"
            show.say(f"✓ {name}: thawed; incident {result.incident} had frozen it since {since}", "green")
        case Trouble(code=Code.NOT_FOUND):
            show.complain(f"✗ {name}: {result}. It is not applied, so nothing is frozen; `pulumi up` makes it.")
        case Trouble():
            show.complain(f"✗ {name}: {result}. If it was frozen it still is; run this again once that is put right.")
        case None:
            show.say(f"· {name}: not frozen" + (f" by incident {incident}" if incident else ""))
