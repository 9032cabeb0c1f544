"""The command `keyturn guard`: a scanner looks over files, and what it finds that is ours and alive is refused.

Made for a hook before each commit (.pre-commit-hooks.yaml) and for continuous integration. It needs no more than to read
metadata in the stores and the key of fingerprints: no value is read, no issuer asked.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from rotation.cli import show
from rotation.cli.context import File, Json, Stack, UsageFault, open_context
from rotation.cli.ending import DONE, FAILED
from rotation.cli.leak import as_json, findings_from, headline, told
from rotation.leaks import reports
from rotation.leaks.finding import Finding
from rotation.leaks.match import Match, Standing, match


class Scanner(StrEnum):
    """What looks over the files. Each runs without asking any service whether what it found works."""

    DETECT_SECRETS = "detect-secrets"
    GITLEAKS = "gitleaks"
    TRUFFLEHOG = "trufflehog"


_UNMARKED: Final = "detect_secrets.filters.allowlist.is_line_allowlisted"
"""Left off: a remark that a line holds no secret does not make it so."""
_COMMANDS: Final = {
    Scanner.DETECT_SECRETS: ("detect-secrets", "scan", "--no-verify", "--disable-filter", _UNMARKED),
    Scanner.GITLEAKS: (
        *("gitleaks", "git", "--staged", "--no-banner", "--log-level", "error", "--ignore-gitleaks-allow"),
        *("--exit-code", "0", "--report-format", "json", "--report-path", "-"),
    ),
    Scanner.TRUFFLEHOG: ("trufflehog", "filesystem", "--json", "--no-update", "--no-verification"),
}
"""As of detect-secrets 1.5, gitleaks 8.24 and trufflehog 3: the report comes by standard output, and lies in no file."""
_TAKES_FILES: Final = (Scanner.DETECT_SECRETS, Scanner.TRUFFLEHOG)
_HANDED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE")
"""Variables that a scanner gets. Logins of stores are none of its business."""
_ALTOGETHER: Final = 300
"""Seconds that a scan may take."""


def guard(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Files to look over, as a hook names them; all that git tracks when none."),
    ] = None,
    stack: Stack = None,
    config: File = None,
    scanner: Annotated[
        Scanner, typer.Option("--scanner", help="Which scanner to run. gitleaks looks at what is staged.")
    ] = Scanner.DETECT_SECRETS,
    report: Annotated[
        str | None,
        typer.Option("--report", metavar="FILE", help="A report that a scanner has written, - for standard input."),
    ] = None,
    thorough: Annotated[
        bool,
        typer.Option("--thorough", help="Look as `emergency --check` does: read values, ask issuers. Not for hooks."),
    ] = False,
    unsure: Annotated[
        bool, typer.Option("--pass-unsure", help="Let pass what could not be told, as when a store does not answer.")
    ] = False,
    json: Json = False,
) -> None:
    """Refuse a commit that holds a managed key: exit code 1, and whose it is. Made for hooks and CI.

    A scanner looks over the files; what it finds is known again by the fingerprints in the journals (`keyturn fingerprints
    init`). No value is read from a store, and none is shown, kept or handed on. Where the scanner finds nothing, no store is asked
    at all. What is nothing of the stack passes: it is for the scanner's own hook to judge.

    Exit codes: 0 nothing of ours; 1 refused, or it could not be told; 2 no scanner, no fingerprints, or a faulty configuration.

    Example: keyturn guard --stack prod app/settings.py
    """
    found = _scanned(scanner, files or []) if report is None else None
    if found == []:
        _nothing(json=json)
    context = open_context(stack, config)
    findings = findings_from(context, report or "", None) if found is None else found
    if not findings:
        _nothing(json=json)
    prints = context.assembly.fingerprints
    if not thorough and prints.ready() is None:
        raise UsageFault(
            f"without fingerprints no key can be known again: {prints.fault}. Put that right; where they have no key yet, "
            "`keyturn fingerprints init` makes it. --thorough compares values instead"
        )
    managed, unseen = context.managed()
    matches = match(context.assembly, findings, managed, unseen, journals_only=not thorough)
    refused = [one for one in matches if one.alive and one.standing is not Standing.STRANGER]
    untold = [one for one in matches if one.standing is Standing.UNKNOWN and one not in refused]
    if json:
        show.as_json(as_json(matches))
    else:
        _show(refused, untold, len(matches), passes=unsure)
    raise typer.Exit(FAILED if refused or (untold and not unsure) else DONE)


def _nothing(*, json: bool) -> None:
    if json:
        show.as_json([])
    else:
        show.say("· the scanner found nothing")
    raise typer.Exit(DONE)


def _scanned(scanner: Scanner, files: Sequence[Path]) -> list[Finding]:
    """What a scanner finds in these files; its report is in memory only.

    Raises:
        UsageFault: it is not installed, does not come to its end, or writes what is no report.
    """
    name, *options = _COMMANDS[scanner]
    beside = Path(sys.executable).with_name(name)
    program = str(beside) if beside.is_file() else shutil.which(name)
    if program is None:
        raise UsageFault(f"the scanner {name} is not installed; --scanner names another one, --report takes a report")
    given = [os.fspath(file) for file in files]
    if scanner is Scanner.TRUFFLEHOG and not given:
        given = ["."]
    paths = ["--", *given] if given and scanner is Scanner.DETECT_SECRETS else given
    command = [program, *options, *(paths if scanner in _TAKES_FILES else ())]
    env = {variable: os.environ[variable] for variable in _HANDED_ON if variable in os.environ}
    try:
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=_ALTOGETHER, check=False
        )
    except subprocess.TimeoutExpired:
        raise UsageFault(f"{name} has not come to its end within {_ALTOGETHER} s; give it fewer files") from None
    except OSError as error:
        raise UsageFault(f"{name} can not be run: {error.strerror}") from None
    if done.returncode != 0:
        # What it says is not repeated: a scanner may quote what it found.
        raise UsageFault(f"{name} ended with exit code {done.returncode}; run it by hand to see why")
    try:
        return told(reports.read(io.BytesIO(done.stdout), name=f"what {name} wrote", scanned=Path.cwd()))
    except reports.EmptyReport:
        return []
    except reports.ReportFault as fault:
        raise UsageFault(str(fault)) from None


def _show(refused: Sequence[Match], untold: Sequence[Match], total: int, *, passes: bool) -> None:
    for one in refused:
        owner = f"owner {one.policy.owner}; " if one.policy else ""
        show.say(f"✗ {headline(one)}", "bold red")
        show.say(f"    {owner}{one.how}")
        show.say("    take it out of the file, and let the program read it from its store")
        show.say(f"    seen by anybody else, in a push or a paste? then it has leaked: {one.next_step}")
    for one in untold:
        show.say(f"? {headline(one)}", "yellow")
        show.say(f"    {one.how}")
    if refused or (untold and not passes):
        why = "it holds what is ours and alive" if refused else "whether it holds what is ours could not be told"
        show.complain(f"Refused: {why}. Nothing was changed.")
    else:
        noun = "finding" if total == 1 else "findings"
        show.say(f"✓ {total} {noun} of the scanner, none a live credential of this stack")
