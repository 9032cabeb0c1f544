"""The command `keyturn status`: one row per secret, once or for as long as a person watches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from rotation import status as statuses
from rotation.cli import rows as drawing
from rotation.cli import show
from rotation.cli import usage as usages
from rotation.cli.chosen import Choice, Environments, Issuers, Overdue, Owners, Phases, Sorted, Stores, choice
from rotation.cli.context import Context, File, Json, Names, Stack, UsageFault, open_context
from rotation.cli.ending import ALIVE, DONE, FAILED
from rotation.cli.progress import watched
from rotation.cli.watch import Picture, Watch, interval, watch_each
from rotation.fleet import each
from rotation.model import Policy
from rotation.status import Row


def status(
    names: Names = None,
    stack: Stack = None,
    config: File = None,
    owner: Owners = None,
    issuer: Issuers = None,
    store: Stores = None,
    environment: Environments = None,
    phase: Phases = None,
    overdue: Overdue = False,
    sort: Sorted = None,
    exact: Annotated[bool, typer.Option("--exact", help="Times as they are, in UTC, not how long ago.")] = False,
    usage: Annotated[
        bool, typer.Option("--usage", help="Ask issuers, too, how each key is used, and warn of what looks wrong.")
    ] = False,
    watch: Watch = None,
    json: Json = False,
) -> None:
    """Show one row per secret: where it stands, when it rotates, what comes next.

    Of one option given twice either will do; several options narrow each other, and the exit code tells of the
    secrets that are shown: 3 when a credential lives that should be dead, 1 when a secret can not be looked at.

    With --watch the rows stay on the screen and are looked at again every 5 seconds, or as often as is said; Ctrl-C
    ends it, with the exit code of the last look.

    With --usage, issuers that tell are asked for the last use of every key and for its requests: once each, however
    many keys. A key that is used although it is retired, and one that is used far more than before, is told of.
    docs/usage.md has the rules.

    Example: keyturn status --stack prod --owner support-platform --sort due
    """
    if watch is not None and (json or usage):
        raise UsageFault(f"--watch draws rows again and again; it does not go with {'--json' if json else '--usage'}")
    every = None if watch is None else interval(watch)
    context = open_context(stack, config)
    asked_for = choice(
        context,
        owners=owner,
        issuers=issuer,
        stores=store,
        environments=environment,
        phases=phase,
        overdue=overdue,
        sort=sort,
    )
    policies, clock = [policy for policy in context.declared(names) if asked_for.wants(policy)], context.assembly.clock
    if every is not None:

        def picture() -> Picture:
            found = dict(each(policies, lambda policy: _look(context, policy)))
            rows = asked_for.of((found[policy] for policy in policies), lambda row: row, clock.now())
            lines = drawing.drawn(rows, clock.now(), exact=exact)
            return Picture(lines, drawing.remarks(rows), drawing.summary(rows, clock.now()), _code(rows))

        watch_each(every, clock, f"{context.path.name} {asked_for.words()}".strip(), picture)
    looked = zip(policies, watched("looking", policies, lambda policy: _look(context, policy)), strict=True)
    pairs = asked_for.of(looked, lambda pair: pair[1], clock.now())
    rows = [row for _, row in pairs]
    used = usages.ask(context, [policy for policy, _ in pairs], rows) if usage else None
    if json:
        shown = [row.as_json() for row in rows]
        show.as_json(used.into(shown) if used else shown)
    else:
        _tell(context, rows, asked_for, exact=exact)
        if used:
            used.show(clock.now())
    _hint(context, rows)
    raise typer.Exit(ALIVE if used and used.alive else _code(rows))


def _look(context: Context, policy: Policy) -> Row:
    assembly = context.assembly
    return statuses.row(assembly.engine, assembly.target(policy), policy, assembly.clock.now(), assembly.issuers)


def _code(rows: Sequence[Row]) -> int:
    if any(row.alive for row in rows):
        return ALIVE
    return FAILED if any(row.phase is statuses.Phase.UNREACHABLE for row in rows) else DONE


def _tell(context: Context, rows: Sequence[Row], asked_for: Choice, *, exact: bool) -> None:
    """For people: the rows, what is wrong with some, and at a terminal how many there are of each kind."""
    if not rows:
        show.complain(f"{context.path.name} has no such secret: {asked_for.words() or 'it declares none'}.", "yellow")
        return
    now = context.assembly.clock.now()
    show.lines(drawing.drawn(rows, now, exact=exact))
    for text, style in drawing.remarks(rows):
        show.say(text, style)
    if show.on_terminal(show.out):
        show.say("")
        show.say(drawing.summary(rows, now))


def _hint(context: Context, rows: Sequence[Row]) -> None:
    """What the person can do, on standard error: about policies that are not applied, about what could not be looked at."""
    differing: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        if row.applied and (fields := context.unapplied(row.applied)):
            differing.setdefault(fields, []).append(row.name)
    for fields, names in differing.items():
        show.unapplied(drawing.several(names), fields, context.path.name)
    if any(row.phase is statuses.Phase.UNREACHABLE for row in rows):
        show.complain(
            "What can not be reached is left as it is, and asked again by the next sweep; "
            "`keyturn doctor` tells which login, right or address it is.",
            "yellow",
        )
