"""The command `keyturn runbook`: the page of one secret, for whoever is woken up about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from rotation import runbook as pages
from rotation.cli import completion, show
from rotation.cli.context import Context, File, Json, Stack, UsageFault, open_context
from rotation.cli.ending import DONE, FAILED

_STYLES: Final = {"title": "bold", "warning": "bold yellow", "command": "cyan", "text": ""}


def runbook(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A declared secret.", autocompletion=completion.secrets)],
    stack: Stack = None,
    config: File = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a wiki.")] = False,
    json: Json = False,
) -> None:
    """Show what a secret is, who uses it, what breaks if it is revoked now, and the exact commands. Changes nothing.

    It works when a store or the issuer does not answer, too, and says what it could not see.

    Exit codes: 0 everything was seen; 1 something was not; 2 usage or configuration.

    Example: keyturn runbook support-copilot-chat --stack prod
    """
    if markdown and json:
        raise UsageFault("--markdown and --json are two forms of one page; give one")
    context = open_context(stack, config)
    (policy,) = context.declared([name])
    page = pages.page(context.assembly, policy, context.path.name, _option(context, config), context.unapplied)
    if json:
        show.as_json(pages.as_json(page))
    elif markdown:
        show.say(pages.markdown(page).rstrip())
    else:
        for kind, text in pages.lines(page):
            if kind == "title":
                show.say("")
            show.say(f"{_INDENT[kind]}{text}", _STYLES[kind])
    raise typer.Exit(FAILED if page.unseen else DONE)


_INDENT: Final = {"title": "", "warning": "! ", "command": "    $ ", "text": "    "}


def _option(context: Context, file: Path | None) -> tuple[str, ...]:
    """What selects this stack, in the words that a person can type anywhere in this folder."""
    if file is not None:
        return ("--config", str(file))
    return ("--stack", context.path.name.removeprefix("Pulumi.").removesuffix(".yaml"))
