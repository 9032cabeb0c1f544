"""What `emergency --leak` asks for and shows: findings from a report or a person, and what each of them is.

    findings = findings_from(context, "report.json", None)
    matches = match(context.assembly, findings, managed, unseen)      rotation.leaks.match
    show_matches(matches)  or  show.as_json(as_json(matches))
    raise typer.Exit(exit_code(matches))                              with --check

A value is never shown, not even in part: a finding is told by where it was found.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import typer

from rotation.cli import show
from rotation.cli.context import Context, UsageFault
from rotation.leaks import reports
from rotation.leaks.finding import Finding
from rotation.leaks.match import Match, Standing
from rotation.policy import show_duration

STANDARD_INPUT: Final = "-"
ASK: Final = "ask"
"""Of `--leak`: a single value, from a person, or from a file descriptor. A file of this name is `./ask`."""
_MOST_TOLD: Final = 10
_LONGEST_VALUE: Final = 1 << 17
"""Bytes of a bare value."""

_STYLES: Final = {
    Standing.CURRENT: "bold red",
    Standing.PREVIOUS: "bold red",
    Standing.PENDING: "bold red",
    Standing.ORPHAN: "bold red",
    Standing.ADMIN: "bold red",
    Standing.UNMANAGED: "red",
    Standing.UNKNOWN: "yellow",
    Standing.DEAD: "green",
    Standing.STRANGER: "",
}
_MEANINGS: Final = {
    Standing.CURRENT: "the current credential of",
    Standing.PREVIOUS: "an earlier credential of",
    Standing.PENDING: "a credential, minted and never current, of",
    Standing.ORPHAN: "an orphaned key of",
    Standing.ADMIN: "an admin credential of",
    Standing.UNMANAGED: "a key that nobody manages, of",
    Standing.DEAD: "dead",
    Standing.STRANGER: "nothing of this stack",
    Standing.UNKNOWN: "could not be told",
}


def findings_from(context: Context, source: str, descriptor: int | None) -> list[Finding]:
    """What is reported to have leaked.

    Parameters:
        context: of the command; says where nothing is fingerprinted.
        source: a file with a scanner's report; `-` for one on standard input; `ask` for a single value, which is asked
            for without echo. With a descriptor it is not looked at.
        descriptor: a file descriptor that gives a single value.

    What of a report could not be read is told on standard error: somebody should look at it.

    Raises:
        UsageFault: there is no such file, nobody is there to ask, or nothing can be made of the report.
    """
    try:
        found = _read(source, descriptor)
    except reports.ReportFault as fault:
        raise UsageFault(f"--leak: {fault}") from None
    prints = context.assembly.fingerprints
    if found and prints.ready() is None:
        show.complain(f"No fingerprints: {prints.fault}. Values are read from the stores instead.", "yellow")
    return found


def _read(source: str, descriptor: int | None) -> list[Finding]:
    if descriptor is not None:
        try:
            with os.fdopen(descriptor, "rb") as pipe:
                raw = pipe.read(_LONGEST_VALUE + 1)
        except OSError as error:
            raise UsageFault(f"--fd {descriptor}: {error.strerror}") from None
        return [reports.bare(_text(raw, f"--fd {descriptor}"))]
    if source == ASK:
        if not sys.stdin.isatty():
            raise UsageFault("nobody is there to type the value; give a file descriptor, or a report")
        return [reports.bare(typer.prompt("value that leaked", hide_input=True, err=True))]
    if source == STANDARD_INPUT:
        return told(reports.read(sys.stdin.buffer, name="standard input", scanned=Path.cwd()))
    try:
        with Path(source).open("rb") as file:
            return told(reports.read(file, name=source, scanned=Path.cwd()))
    except OSError as error:
        # A value that somebody gave in place of a file is not repeated: it stands in the shell's history already.
        raise UsageFault(f"--leak: there is no report that can be read under this name: {error.strerror}") from None


def _text(raw: bytes, name: str) -> str:
    if len(raw) > _LONGEST_VALUE:
        raise UsageFault(f"{name}: gives more than one value; hand in a report as a file")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise UsageFault(f"{name}: what it gives is not UTF-8 text") from None  # the error quotes it


def told(report: reports.Report) -> list[Finding]:
    """Its findings. What of it could not be read is told on standard error."""
    for skipped in report.skipped[:_MOST_TOLD]:
        show.complain(f"Left out, look at it yourself: {skipped}", "yellow")
    if (more := len(report.skipped) - _MOST_TOLD) > 0:
        show.complain(f"Left out, too: {more} more kinds of entries", "yellow")
    return list(report.findings)


def show_matches(matches: Sequence[Match]) -> None:
    """A paragraph for each finding: what it is, whose, who reads it, whether it lives, and what is to be done.

    What is alive and ours comes first; strangers and the dead are summed up where there are many.
    """
    order = [*_STYLES]
    told: dict[Standing, int] = {}
    for found in sorted(matches, key=lambda one: (not one.alive, order.index(one.standing))):
        told[found.standing] = told.get(found.standing, 0) + 1
        if found.standing in (Standing.STRANGER, Standing.DEAD) and told[found.standing] > _MOST_TOLD:
            continue
        show.say(f"{_mark(found)} {headline(found)}", _STYLES[found.standing])
        for line in _lines(found):
            show.say(f"    {line}")
    for standing in (Standing.STRANGER, Standing.DEAD):
        if (more := told.get(standing, 0) - _MOST_TOLD) > 0:
            show.say(f"· {more} more: {_MEANINGS[standing]}")
    alive = sum(found.alive and found.standing is not Standing.STRANGER for found in matches)
    unsure = told.get(Standing.UNKNOWN, 0)
    total = f"{len(matches)} {'finding' if len(matches) == 1 else 'findings'}: {alive} of ours alive"
    show.say(f"{total}, {unsure} could not be told." if unsure else f"{total}.", "bold red" if alive else "")


def _mark(found: Match) -> str:
    if found.standing is Standing.UNKNOWN:
        return "?"
    return "!" if found.alive and found.standing is not Standing.STRANGER else "·"


def headline(found: Match) -> str:
    whose = found.policy.name if found.policy else found.issuer
    meaning = _MEANINGS[found.standing]
    of = f" {whose}" if whose and meaning.endswith(" of") else f" (of {whose})" if whose else ""
    key = f", key {show.key(found.key_id)}" if found.key_id else ""
    state = "alive" if found.alive else "not shown alive" if found.standing is Standing.UNKNOWN else "dead"
    state = "" if found.standing in (Standing.DEAD, Standing.STRANGER) and not found.alive else f": {state}"
    return f"{found.finding.where or found.finding.source}: {meaning.removesuffix(' of') if not of else meaning}{of}{key}{state}"


def _lines(found: Match) -> Iterable[str]:
    about, policy = found.finding, found.policy
    where = ", ".join(part for part in (about.source, about.rule, "public" if about.public else "") if part)
    yield f"found by {where}; {found.how}"
    if policy is not None:
        yield f"environment {policy.environment}, owner {policy.owner}, in {' + '.join(policy.stores)}"
        readers = ", ".join(
            f"{c.name} (reads again within {show_duration(c.refresh_within)})" for c in policy.consumers
        )
        yield f"read by {readers or 'nobody that is declared'}"
    yield f"next: {found.next_step}"


def as_json(matches: Iterable[Match]) -> list[dict[str, object]]:
    """The same for scripts, in the order of the findings. Never a value; `how` may have the redacted form that an
    issuer shows in its own console.
    """
    return [
        {
            "where": found.finding.where,
            "source": found.finding.source,
            "rule": found.finding.rule,
            "found_at": found.finding.found_at.isoformat() if found.finding.found_at else None,
            "public": found.finding.public,
            "standing": found.standing.value,
            "alive": found.alive,
            "secret": found.policy.name if found.policy else None,
            "environment": found.policy.environment if found.policy else None,
            "owner": found.policy.owner if found.policy else None,
            "stores": list(found.policy.stores) if found.policy else [],
            "consumers": [consumer.name for consumer in found.policy.consumers] if found.policy else [],
            "issuer": found.issuer,
            "key_id": found.key_id,
            "token": found.token,
            "how": found.how,
            "next": found.next_step,
        }
        for found in matches
    ]
