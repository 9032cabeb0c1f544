"""The command `keyturn audit`: what stands in the trail, whether it is whole, and its chains' heads kept elsewhere."""

from __future__ import annotations

import csv
import io
import json as jsons
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from rotation.audit.files import FilePlace, StreamPlace
from rotation.audit.opening import open_trail
from rotation.audit.trail import Kept, Place, put_anchor
from rotation.audit.verify import Entry, Report, entries, verify
from rotation.cli import show
from rotation.cli.context import CLOCK, File, Json, Stack, UsageFault
from rotation.cli.ending import DONE, FAILED
from rotation.config import Config, find_stack_file, load
from rotation.logs import masked_parts
from rotation.policy import read_duration

app = typer.Typer(
    name="audit",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at the audit trail, show that it is whole, and anchor it. docs/audit.md has its form and its limits.",
)

Trail = Annotated[
    list[Path] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="Read the trail from this file, in place of where the stack keeps it. May be repeated.",
        show_default=False,
    ),
]
Anchors = Annotated[
    list[Path] | None,
    typer.Option(
        "--anchor",
        "-a",
        metavar="FILE",
        help="Anchors in a file, beside those that the stack keeps. May be repeated.",
        show_default=False,
    ),
]

COLUMNS: Final = (
    *("at", "secret", "event", "outcome", "reason", "token", "key_id", "store", "incident", "late"),
    *("who", "requests", "detail", "writer", "seq", "prev", "where"),
)
"""Of an export as CSV."""
_COMMANDING: Final = tuple("=+-@\t\r")
"""What a spreadsheet takes for a formula at the beginning of a cell."""


@app.command("show")
def show_records(
    secret: Annotated[str | None, typer.Option("--secret", metavar="NAME", help="Of this secret alone.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="From then on: 2h, 7d, or as in 2026-11-22T06:00.")
    ] = None,
    incident: Annotated[str | None, typer.Option("--incident", metavar="ID", help="Of this incident alone.")] = None,
    stack: Stack = None,
    config: File = None,
    file: Trail = None,
    json: Json = False,
) -> None:
    """Print the records of the trail: when, which secret, what, how far it came, and why.

    Does not judge whether the trail is whole: `keyturn audit verify` does.

    Example: keyturn audit show --stack prod --secret support-copilot-chat --since 7d
    """
    declared = load(find_stack_file(stack, config, Path.cwd()))
    least = _moment(since) if since else None
    found = [
        entry
        for entry in entries(_records(declared, file))
        if (secret is None or _is_of(entry, secret))
        and (incident is None or entry.line.get("incident") == incident)
        and (least is None or _at(entry) >= least)
    ]
    if json:
        show.as_json([{**entry.line, "where": entry.where} for entry in found])
        return
    for entry in found:
        line = entry.line
        about = [line.get("key_id"), f"in {line['store']}" if line.get("store") else None, line.get("reason")]
        told = "; ".join(str(part) for part in about if part)
        mark = " (written late)" if line.get("late") else ""
        outcome = "" if str(line.get("outcome", "")) in str(line["event"]) else f" {line['outcome']}"
        show.say(f"{line['at']}  {line.get('secret', '-')}  {line['event']}{outcome}{mark}" + (told and f": {told}"))
    show.say(f"{len(found)} records.")


@app.command("verify")
def verify_trail(
    anchor: Anchors = None, stack: Stack = None, config: File = None, file: Trail = None, json: Json = False
) -> None:
    """Find any record that was removed, altered or reordered before the last anchor, and say what can not be seen.

    Every chain is held against itself, and against the heads that anchors name. Exit code 1 when anything is wrong, with
    file and line. A writer that was cut off in the middle of a line is told, and is not wrong.

    Example: keyturn audit verify --stack prod --anchor /mnt/elsewhere/anchors.jsonl
    """
    declared = load(find_stack_file(stack, config, Path.cwd()))
    of = (declared.installation, declared.environment)
    places = [*_places(declared, file)]
    reports = {place.name: verify(place.read(), _anchors(declared, anchor), of) for place in places}
    if file:
        reports = {
            ", ".join(map(str, file)): verify(
                chain.from_iterable(place.read() for place in places), _anchors(declared, anchor), of
            )
        }
    if json:
        show.as_json({"good": all(report.good for report in reports.values()), "places": _told(reports)})
    else:
        for name, report in reports.items():
            _show(name, report)
    raise typer.Exit(DONE if all(report.good for report in reports.values()) else FAILED)


@app.command("export")
def export(
    to: Annotated[Path, typer.Argument(metavar="FILE", help="A file that is not there yet; - for standard output.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="A table for spreadsheets.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document: the default, but for FILE.csv.")] = False,
    stack: Stack = None,
    config: File = None,
    file: Trail = None,
) -> None:
    """Write all records to a file for whoever analyses them elsewhere. Verify the trail itself, not the export.

    Example: keyturn audit export --stack prod --csv trail.csv
    """
    if as_csv and json:
        raise UsageFault("--csv and --json: give one of the two")
    declared = load(find_stack_file(stack, config, Path.cwd()))
    rows = [{**entry.line, "where": entry.where} for entry in entries(_records(declared, file))]
    tabular = as_csv or (not json and to.suffix == ".csv")
    text = _csv(rows) if tabular else jsons.dumps(masked_parts(rows), indent=2) + "\n"
    if str(to) == "-":
        sys.stdout.write(text)
        return
    try:
        with os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise UsageFault(f"{to}: {error.strerror}") from None
    show.say(f"✓ {len(rows)} records in {to}")


@app.command("anchor")
def anchor_trail(
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Append the anchor to this file too.", show_default=False),
    ] = None,
    stack: Stack = None,
    config: File = None,
    file: Trail = None,
    json: Json = False,
) -> None:
    """Keep the heads of all chains that no anchor covers yet where the stack keeps anchors.

    Each command and sweep does so for its own chain when it ends; this is for those that were cut off, and for a place
    that only a person has, as a disk that is taken away. A trail that is not whole is not anchored.

    Example: keyturn audit anchor --stack prod --to /mnt/elsewhere/anchors.jsonl
    """
    declared = load(find_stack_file(stack, config, Path.cwd()))
    of = (declared.installation, declared.environment)
    kept: list[Place] = [*_trail(declared).anchors]
    more = [to] if to else []
    if not kept and to is None:
        told = "keyturn:audit of the stack file has no place with `keeps: anchors`; add one, or give --to"
        raise UsageFault(f"there is nowhere to keep anchors: {told}")
    report = verify(_records(declared, file), _anchors(declared, [path for path in more if path.exists()]), of)
    if not report.good:
        _show(kept[0].name if kept else str(to), report)
        show.complain("Not anchored: an anchor would make what is left look whole.")
        raise typer.Exit(FAILED)
    heads = report.heads if to else report.open
    places = [*kept, *map(FilePlace, more)]
    good = not heads or put_anchor(places, heads, of, _now())
    names = [place.name for place in places]
    if json:
        show.as_json({"good": good, "heads": len(heads), "places": names})
    elif good:
        show.say(
            f"✓ {len(heads)} heads anchored in {', '.join(names)}" if heads else "✓ every chain is anchored already"
        )
    raise typer.Exit(DONE if good else FAILED)


# --- where from ----------------------------------------------------------------------------------


def _trail(config: Config) -> Any:
    return open_trail(config, os.environ, folder=Path.cwd())


def _places(config: Config, files: Sequence[Path] | None) -> list[Place]:
    """Where to read records."""
    for path in files or ():
        if not path.is_file():
            raise UsageFault(f"--file: there is no file {path}")
    if files:
        return [FilePlace(path) for path in files]
    places: list[Place] = [place for place in _trail(config).places if not isinstance(place, StreamPlace)]
    if not places:
        raise UsageFault("the trail goes to standard output, which a platform keeps; save its lines and give --file")
    return places


def _records(config: Config, files: Sequence[Path] | None) -> Iterator[Kept]:
    """The lines of all files that were given, or of the first place of the stack."""
    places = _places(config, files)
    for place in places if files else places[:1]:
        yield from place.read()


def _anchors(config: Config, files: Sequence[Path] | None) -> Iterator[Kept]:
    for path in files or ():
        if not path.is_file():
            raise UsageFault(f"--anchor: there is no file {path}")
    kept = [place for place in _trail(config).anchors if not isinstance(place, StreamPlace)]
    for place in [*kept, *map(FilePlace, files or ())]:
        yield from place.read()


def _now() -> datetime:
    from rotation.clock import SystemClock  # noqa: PLC0415

    return (CLOCK.get() or SystemClock()).now()


def _moment(text: str) -> datetime:
    try:
        return _now() - read_duration(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageFault(
            f"--since: {text} is neither a duration, as in 2h, nor a time, as in 2026-11-22T06:00"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _is_of(entry: Entry, secret: str) -> bool:
    """Whether a record is of a secret, given by its name or by that of its entry in a store."""
    name = str(entry.line.get("secret", ""))
    return name == secret or name.endswith((f"/{secret}", f"--{secret}"))


def _at(entry: Entry) -> datetime:
    try:
        at = datetime.fromisoformat(entry.line["at"])
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)  # better shown than left out
    return at if at.tzinfo else at.replace(tzinfo=UTC)


# --- what is shown -------------------------------------------------------------------------------


def _told(reports: dict[str, Report]) -> dict[str, Any]:
    return {
        name: {
            "good": report.good,
            "records": report.records,
            "chains": report.chains,
            "anchors": report.anchors,
            "faults": report.faults,
            "torn": report.torn,
            "unchained": report.unchained,
            "repeated": report.repeated,
            "not_seen": report.blind,
        }
        for name, report in reports.items()
    }


def _show(name: str, report: Report) -> None:
    mark, style = ("✓", "green") if report.good else ("✗", "bold red")
    verdict = "whole" if report.good else f"not whole: {len(report.faults)} found"
    counted = f"{report.records} records in {report.chains} chains, {report.anchors} anchors"
    show.say(f"{mark} {name}: {verdict} ({counted})", style)
    for fault in report.faults:
        show.say(f"    {fault}", "red")
    for where in report.torn:
        show.say(
            f"    {where}: a writer was cut off here by a crash or a full disk; this record was not kept", "yellow"
        )
    for where in report.unchained:
        show.say(f"    {where}: belongs to no chain", "yellow")
    for where in report.repeated:
        show.say(f"    {where}: stands there twice", "yellow")
    show.say("  What this can not see:")
    for told in report.blind:
        show.say(f"    {told}")


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        shown = masked_parts(row)
        assert isinstance(shown, dict)
        writer.writerow([_cell(shown.get(column)) for column in COLUMNS])
    return out.getvalue()


def _cell(value: object) -> str:
    text = "" if value is None else value if isinstance(value, str) else jsons.dumps(value, sort_keys=True)
    return f"'{text}" if text.startswith(_COMMANDING) else text
