"""The command `keyturn metrics`: one scrape, from looking."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from rotation import fleet
from rotation.cli import show
from rotation.cli.context import Context, File, Json, Stack, open_context
from rotation.engine import Target
from rotation.errors import Code, Trouble
from rotation.model import Policy
from rotation.notify import uses
from rotation.observe.board import GAUGES, Board, Look, look
from rotation.status import Phase


class Format(StrEnum):
    """How a scrape is written."""

    OPENMETRICS = "openmetrics"
    PROMETHEUS = "prometheus"
    JSON = "json"


def metrics(
    stack: Stack = None,
    config: File = None,
    form: Annotated[
        Format, typer.Option("--format", help="prometheus: as for node_exporter's textfile collector.")
    ] = Format.OPENMETRICS,
    json: Json = False,
) -> None:
    """Print where every secret stands as metrics: age, due date, phase, unproven and draining keys. Changes nothing.

    For hosts that sweep by cron: write it to a file that a collector reads. `keyturn run` serves the same at /metrics,
    with counters and durations of what it did. docs/observability.md has the table of all metrics.

    What can not be reached is said on standard error; what is known of the rest is printed all the same, and the exit
    code is 1.

    Example: keyturn metrics --stack prod --format prometheus > /var/lib/node_exporter/keyturn.prom
    """
    from rotation.observe.prometheus import text  # noqa: PLC0415 - for this command alone

    context = open_context(stack, config)
    board, troubles = _look_round(context)
    now = context.assembly.clock.now()
    readings = board.read(now)
    if json or form is Format.JSON:
        families = [
            {
                "name": gauge.name,
                "type": gauge.kind,
                "help": gauge.help,
                "samples": [{"labels": dict(labels), "value": value} for i, labels, value in readings if i is gauge],
            }
            for gauge in GAUGES
        ]
        show.as_json({"at": now.isoformat(), "metrics": [family for family in families if family["samples"]]})
    else:
        sys.stdout.write(text(readings, "prometheus" if form is Format.PROMETHEUS else "openmetrics"))
    for trouble in troubles:
        show.complain(f"{trouble}. Its metrics are missing; the next look asks again.")
    raise typer.Exit(1 if troubles else 0)


def _look_round(context: Context) -> tuple[Board, list[Trouble]]:
    """One look at every secret, declared or not, and what stood in the way."""
    assembly = context.assembly
    found, troubles = context.managed()
    policies = dict(found)
    silent = {trouble.service for trouble in troubles if trouble.code is not Code.INVALID}
    context.open(policies.values())
    board, now = Board(), assembly.clock.now()
    names = {policy.name for policy in policies.values()}
    for policy in assembly.config.policies:
        if policy.name not in names:
            phase = Phase.UNREACHABLE if policy.store in silent else Phase.NOT_APPLIED
            board.put(assembly.target(policy), Look(policy, phase))

    def look_at(item: tuple[Target, Policy]) -> tuple[Look | None, Trouble | None]:
        try:
            decision, seen = assembly.engine.plan(item[0])
        except Trouble as trouble:
            return None, trouble
        return look(seen, decision, assembly.issuers[seen.policy.issuer].capabilities, now), None

    for (target, policy), (seen, trouble) in fleet.each(policies.items(), look_at):
        if seen is not None:
            board.put(target, seen)
        else:
            board.lose(target, policy)
        if trouble is not None:
            troubles.append(trouble)
    used, unheard = uses.watch(assembly, tell=False)
    for target, keys in uses.suspects(used):
        board.suspect(target, keys)
    troubles += unheard
    there = {*policies, *(assembly.target(policy) for policy in assembly.config.policies)}
    board.end(there, {store: store not in silent for store in assembly.stores}, now)
    return board, troubles
