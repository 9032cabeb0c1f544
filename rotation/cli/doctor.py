"""The command `keyturn doctor`: whether rotation could work, before anything is minted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import typer

from rotation import doctor as doctors
from rotation import fleet
from rotation.cli import show
from rotation.cli.context import File, Json, Names, Stack, open_context
from rotation.doctor import Kind, Line
from rotation.ports import Grade

_MARKS = {
    Grade.GOOD: ("✓", "green"),
    Grade.WARNING: ("!", "yellow"),
    Grade.FAILING: ("✗", "bold red"),
    Grade.UNCHECKED: ("\N{EN DASH}", ""),
}
_ORDER = (Kind.STORE, Kind.ISSUER, Kind.SECRET)


def doctor(names: Names = None, stack: Stack = None, config: File = None, json: Json = False) -> None:
    """Look whether rotation could work: logins, permissions, limits, clocks, credentials. Changes nothing.

    One line for each thing looked at: ✓ in order, ! to be seen to, ✗ failing with who must do what, – not
    checked and why. Exit code 1 when something fails; warnings alone are 0. docs/doctor.md explains each line.

    Run it where rotations will run: permissions, allowlists and clocks are those of this machine and login.

    Example: keyturn doctor --stack prod
    """  # noqa: RUF002 - the mark as it is printed
    context = open_context(stack, config)
    looking = doctors.Doctor(context.assembly, context.declared(names), context.path.name, everything=not names)
    lines: dict[tuple[Kind, str], list[Line]] = {}
    with show.progress() as bar:
        task = bar.add_task("looking", total=len(looking.stores) + len(looking.policies) + len(looking.issuers))
        for store, found in fleet.each(looking.stores, looking.store):
            lines[Kind.STORE, store] = found
            bar.advance(task)
        for policy, found in fleet.each(looking.policies, looking.secret):
            lines[Kind.SECRET, policy.name] = found
            bar.advance(task)
        for issuer, found in fleet.each(looking.issuers, looking.issuer):
            lines[Kind.ISSUER, issuer] = found
            bar.advance(task)
    names_of = {Kind.STORE: looking.stores, Kind.ISSUER: looking.issuers}
    names_of[Kind.SECRET] = [policy.name for policy in looking.policies]
    in_order = [line for kind in _ORDER for name in names_of[kind] for line in lines[kind, name]]
    if json:
        show.as_json([line.as_json() for line in in_order])
    else:
        _show(in_order)
    raise typer.Exit(1 if doctors.fails(in_order) else 0)


def _show(lines: Sequence[Line]) -> None:
    for (kind, name), group in groupby(lines, lambda line: (line.kind, line.name)):
        show.say(f"{kind.value} {name}", "bold")
        for line in group:
            mark, style = _MARKS[line.found.grade]
            because = "not checked, because " if line.found.grade is Grade.UNCHECKED else ""
            show.say(f"  {mark} {line.found.check}: {because}{line.found.text}", style)
            if line.found.remedy:
                show.say(f"      → {line.found.remedy}")
    count = Counter(line.found.grade for line in lines)
    show.say(", ".join(f"{count[grade]} {grade.value}" for grade in Grade) + ".")
