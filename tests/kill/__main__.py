"""`python -m tests.kill`: every scenario, killed at every request, before and after; prints a table and the faults.

Exits with 1 when an invariant did not hold anywhere.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.kill.execution import SCENARIOS, Result, Scenario, executions, points
from tests.kill.wire import Moment, Strike

PAGE: Final = Path(__file__).parents[2] / "docs" / "kill.md"
RESULTS: Final = "## Results\n\n"
_AT_A_TIME = 8
"""Executions that share servers: starting them takes a second."""


def main() -> int:
    """The whole of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="scenarios whose name has this in it")
    parser.add_argument("--share", type=int, metavar="N", help="only so many requests of each scenario, drawn by lot")
    parser.add_argument("--seed", type=int, default=0, help="for the lot")
    parser.add_argument("--workers", type=int, default=2, help="executions at a time")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args()
    chosen = [scenario for scenario in SCENARIOS if options.only in scenario.name]
    console, begun = Console(), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool,
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
    ):
        calm = progress.add_task("undisturbed", total=len(chosen))
        results: list[Result] = []
        batches: list[tuple[Scenario, list[Strike | None]]] = []
        for future in as_completed([pool.submit(executions, scenario, [None]) for scenario in chosen]):
            (undisturbed,) = future.result()
            results.append(undisturbed)
            progress.advance(calm)
            told = f"{undisturbed}; {len(undisturbed.calls)} requests"
            console.print(told, style="red" if undisturbed.faults else "", soft_wrap=True)
            lot = random.Random(f"{options.seed} {undisturbed.scenario.name}")
            strikes = draw(points(undisturbed.calls), options.share, lot)
            cuts = range(0, len(strikes), _AT_A_TIME)
            batches += [(undisturbed.scenario, [*strikes[cut : cut + _AT_A_TIME]]) for cut in cuts]
        total = sum(len(strikes) for _, strikes in batches)
        killed = progress.add_task("killed", total=total)
        for number, future in enumerate(as_completed([pool.submit(executions, *batch) for batch in batches])):
            if not console.is_terminal and number % _AT_A_TIME == 0:
                console.print(f"{len(results) - len(chosen)} of {total} killed")
            for result in future.result():
                results.append(result)
                progress.advance(killed)
                if result.faults or result.unstruck:
                    console.print(str(result), style="red", soft_wrap=True)
    print(table(results))
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(text[: text.index(RESULTS) + len(RESULTS)] + table(results) + "\n", encoding="utf-8")
    print(f"\n{len(results)} executions in {(time.monotonic() - begun) / 60:.0f} min.")
    return 1 if any(result.faults or result.unstruck for result in results) else 0


def draw(found: Sequence[int], share: int | None, lot: random.Random) -> list[Strike]:
    """Both moments of each point; of a share of the points when one is wanted."""
    if share is not None and share < len(found):
        found = sorted(lot.sample(found, share))
    return [Strike(point, moment) for point in found for moment in Moment]


def table(results: Iterable[Result]) -> str:
    """One row per scenario, in Markdown."""
    heads = ("scenario", "requests", "killed", "most sweeps", "outages", "orphans", "stuck", "unproven", "leaks")
    rows = [heads, ("---", *["---:"] * (len(heads) - 1))]
    of = {scenario: [r for r in results if r.scenario == scenario] for scenario in SCENARIOS}
    counted = [(scenario.name, of[scenario]) for scenario in SCENARIOS if of[scenario]]
    for name, group in [*counted, ("all", [*results])]:
        requests = sum(len(r.calls) for r in group if r.strike is None)
        killed = sum(r.strike is not None and not r.unstruck for r in group)
        kinds = (sum(bool(getattr(r, kind)) for r in group) for kind in heads[4:])
        sweeps = max((r.sweeps for r in group), default=0)
        rows.append((name, str(requests), str(killed), str(sweeps), *(str(kind) for kind in kinds)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
