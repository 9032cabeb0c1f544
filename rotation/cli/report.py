"""The command `keyturn report`: what there is, how old, whose, and what became of it, for people who answer for it."""

from __future__ import annotations

import json as jsons
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from rotation.audit.files import FilePlace, StreamPlace
from rotation.audit.opening import open_trail
from rotation.audit.trail import Place
from rotation.cli import show
from rotation.cli.audit import Trail
from rotation.cli.context import File, Json, Names, Stack, UsageFault, open_context
from rotation.cli.drill import drills_folder
from rotation.cli.emergency import incidents_folder
from rotation.cli.ending import ALIVE, DONE, FAILED
from rotation.declared import Config
from rotation.errors import Code, Trouble
from rotation.files import write_private
from rotation.incident import evidence as evidences
from rotation.incident import record as records

_STDOUT = "-"


class Reporting(TyperCommand):
    """Lets `--csv` stand for `--csv -` where no file follows."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spelled: list[str] = []
        for word, after in pairwise([*args, "--"]):
            spelled.append(word)
            if word == "--csv" and after.startswith("-") and after != _STDOUT:
                spelled.append(_STDOUT)
        return super().parse_args(ctx, spelled)


def report(
    names: Names = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one self-contained page.", show_default=False)
    ] = None,
    csv: Annotated[
        str | None,
        typer.Option(
            "--csv",
            metavar="[FILE]",
            help="Write a table for spreadsheets; to standard output without a file.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    stack: Stack = None,
    config: File = None,
    file: Trail = None,
) -> None:
    """Report on all secrets: inventory, age and due dates, compliance, what happened, owners, and an account of each secret.

    Lists each store once and reads the audit trail; asks for no value, and changes nothing. The page needs no network and may
    be forwarded: it holds names, ids and times. Exit code 1 when something could not be looked at, which the report says, 3
    when a credential that should be dead is not shown to be.

    Example: keyturn report --stack prod --html report.html
    """  # fmt: skip
    from rotation.report import page, plain, report as made_of  # noqa: I001, PLC0415 - for this command alone
    from rotation.report.gather import gather  # noqa: PLC0415 - for this command alone

    if html is None and csv is None and not json:
        raise UsageFault("say what to write: --html FILE for people, --csv [FILE] for spreadsheets, --json for scripts")
    if json and csv == _STDOUT:
        raise UsageFault("--json and --csv both want standard output; give --csv a file")
    context = open_context(stack, config)
    for path in file or ():
        if not path.is_file():
            raise UsageFault(f"--file: there is no file {path}")
    facts = gather(
        context.assembly,
        [FilePlace(path) for path in file] if file else _places(context.config),
        records.Files(incidents_folder()).all(),
        evidences.Files(drills_folder()).all(),
        stack=context.path.name,
        only=names or (),
    )
    made = made_of(facts)
    if unknown := sorted({*(names or ())} - {account.name for account in made.accounts}):
        raise UsageFault(f"no store, no stack file and no record knows a secret {', '.join(unknown)}")
    if html is not None:
        _write(html, page.html(made))
    if csv == _STDOUT:
        sys.stdout.write(plain.as_csv(made))
    elif csv is not None:
        _write(Path(csv), plain.as_csv(made))
    if json:
        sys.stdout.write(jsons.dumps(plain.as_json(made), indent=2) + "\n")
    for told in made.troubles:
        show.complain(f"{told}. The report says so, and has all the rest." if not told.endswith(".") else told)
    raise typer.Exit(ALIVE if made.alive else FAILED if facts.silent or made.troubles else DONE)


def _places(config: Config) -> list[Place]:
    """The first place of the stack's trail that can be read back: each has every record."""
    trail = open_trail(config, os.environ, folder=Path.cwd())
    return [place for place in trail.places if not isinstance(place, StreamPlace)][:1]


def _write(path: Path, text: str) -> None:
    try:
        write_private(path, text)
    except OSError as error:
        raise Trouble(Code.UNAVAILABLE, "report", f"{path}: {error.strerror}") from None
    show.complain(f"Written: {path}", "")
