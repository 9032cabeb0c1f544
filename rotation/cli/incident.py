"""The commands `keyturn incident`: the records of what happened, for whoever was not there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rotation.cli import show
from rotation.cli.context import Json, UsageFault
from rotation.cli.emergency import incidents_folder
from rotation.cli.ending import ALIVE, DONE, FAILED
from rotation.errors import Code, Trouble
from rotation.incident import page
from rotation.incident.record import Files, Incident, as_json

app = typer.Typer(
    no_args_is_help=True, help="Show the records of emergencies: what leaked, what became of each key, and when."
)


@app.command("list")
def list_incidents(json: Json = False) -> None:
    """List the incidents that were run from this folder, newest first.

    Example: keyturn incident list
    """
    files = Files(incidents_folder())
    found = list(files.all())
    if json:
        show.as_json([_row(incident) for incident in found])
        return
    if not found:
        show.say(f"No incident was run from here: there is none in {files.folder}.")
        return
    rows = [
        (
            incident.id,
            incident.environment,
            str(len(incident.secrets)),
            page.state(incident),
            _seconds(incident),
            incident.selected,
        )
        for incident in found
    ]
    show.table(("INCIDENT", "ENVIRONMENT", "SECRETS", "STATE", "SHOWN DEAD", "ABOUT"), rows)


@app.command("show")
def show_incident(
    identity: Annotated[str, typer.Argument(metavar="ID", help="As `keyturn incident list` has it.")],
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write one self-contained page.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", metavar="FILE", help="Write Markdown.")] = None,
    json: Json = False,
) -> None:
    """Show the record of an incident: keys, times, request ids, consumers, what is left. Exit code 3 while it has something alive.

    It tells what was known when the incident was last run; `keyturn status` tells what is so now.

    Example: keyturn incident show 2026-11-22-1432-ab12 --html incident.html
    """
    try:
        incident = Files(incidents_folder()).load(identity)
    except ValueError as error:
        raise UsageFault(str(error)) from None
    for path, text in ((html, page.html), (markdown, page.markdown)):
        if path is not None:
            _write(path, text(incident))
    if json:
        show.as_json(as_json(incident))
    elif html is None and markdown is None:
        show.say(page.markdown(incident).rstrip())
    raise typer.Exit(ALIVE if incident.alive else DONE if incident.over else FAILED)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Trouble(Code.UNAVAILABLE, "incident record", f"{path}: {error.strerror}") from None
    show.complain(f"Written: {path}", "")


def _row(incident: Incident) -> dict[str, object]:
    return {
        "id": incident.id,
        "environment": incident.environment,
        "began_at": incident.began_at.isoformat(),
        "ended_at": incident.ended_at.isoformat() if incident.ended_at else None,
        "selected": incident.selected,
        "secrets": [secret.name for secret in incident.secrets],
        "alive": incident.alive,
        "over": incident.over,
        **incident.totals(),
    }


def _seconds(incident: Incident) -> str:
    seconds = incident.totals()["proven_seconds"]
    return "-" if seconds is None else f"{seconds:.1f} s"
