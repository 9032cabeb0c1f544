"""Runs executions on all cores and prints what came of them; replays one as a story.

python -m tests.simulation                        the whole, with its table
python -m tests.simulation --write                the same, and the table goes into docs/simulation.md
python -m tests.simulation --share 0.01           a seeded hundredth of it
python -m tests.simulation --only 'due twice'     scenarios whose name has this in it
python -m tests.simulation --replay 'due twice / vault / free / 12:pause>two+16m 40:die-after'
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tests.simulation.explore import Job, Tally, jobs, replayed, work
from tests.simulation.world import Harm

Row = tuple[str, ...]
PAGE: Final = Path(__file__).parents[2] / "docs" / "simulation.md"
RESULTS: Final = "## Results\n\n"

COLUMNS = (Harm.OUTAGE, Harm.ORPHAN, Harm.STUCK, Harm.WRONGFUL, Harm.FALSE_PROOF)


def main() -> int:
    reader = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.split("\n", 1)[0])
    reader.add_argument("--replay", metavar="EXECUTION", help="tell one execution as a story")
    reader.add_argument(
        "--only", metavar="WORDS", default="", help="scenarios and settings that have this in their name"
    )
    reader.add_argument("--share", type=float, default=1.0, help="a part of all executions, as a number up to 1")
    reader.add_argument("--seed", type=int, default=1, help="of the random part, and of the share")
    reader.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    reader.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = reader.parse_args()
    if asked.replay:
        execution = replayed(asked.replay)
        print("\n".join(execution.story))
        print(f"\n{execution.broken or 'All invariants hold.'}")
        return 1 if execution.broken else 0
    todo = list(jobs(share=asked.share, seed=asked.seed, only=asked.only))
    return run(todo, asked.processes, PAGE if asked.write else None)


def run(todo: list[Job], processes: int, page: Path | None = None) -> int:
    """All jobs, with progress, and the table, which goes into a page, too."""
    begun = time.monotonic()
    tallies: dict[tuple[str, str], Tally] = {}
    print(f"{len(todo)} jobs on {processes} processes", flush=True)
    with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=20) as pool:
        told = begun
        for done, (job, tally) in enumerate(pool.imap_unordered(work, todo), 1):
            tallies.setdefault((job.scenario, job.kind), Tally()).merge(tally)
            for example in tally.examples.values():  # an hour may pass before the table
                print(f"  broken: --replay '{example}'", flush=True)
            if time.monotonic() - told > 10 or done == len(todo):
                told = time.monotonic()
                count = sum(t.executions for t in tallies.values())
                harm = sum(sum(t.harms.values()) for t in tallies.values())
                rate = count / (told - begun)
                print(f"  {done}/{len(todo)} jobs, {count:,} executions, {harm} broken, {rate:,.0f}/s", flush=True)
    print(table(tallies))
    whole = Tally()
    for tally in tallies.values():
        whole.merge(tally)
    minutes = (time.monotonic() - begun) / 60
    print(
        f"\n{whole.executions:,} executions in {minutes:.1f} minutes. {whole.known:,} of them came to a world, between two "
        "sweeps,\nwhich an earlier execution of the same scenario had led to a good end; they were not led there again."
    )
    if page:
        write(page, tallies)
    for text, example in sorted(whole.examples.items())[:40]:
        print(f"\n{text}\n    python -m tests.simulation --replay '{example}'")
    return 1 if whole.harms else 0


def write(page: Path, tallies: Mapping[tuple[str, str], Tally]) -> None:
    """Puts what came of a run into a page of the documentation, one row per scenario, after the heading `Results`."""
    by_scenario: dict[str, Tally] = {}
    for (scenario, _), tally in tallies.items():
        by_scenario.setdefault(scenario, Tally()).merge(tally)
    whole = Tally()
    for tally in by_scenario.values():
        whole.merge(tally)
    heads = ("scenario", "executions", "outages", "orphans", "stuck", "wrongful", "false proofs")
    rows = [f"| {' | '.join(heads)} |", f"|---{'|---:' * (len(heads) - 1)}|"]
    for scenario, tally in [*sorted(by_scenario.items()), ("**all**", whole)]:
        cells = (f"{tally.executions:,}", *(str(tally.harms[harm]) for harm in COLUMNS))
        rows.append(f"| {scenario} | {' | '.join(cells)} |")
    text = page.read_text(encoding="utf-8")
    page.write_text(text[: text.index(RESULTS) + len(RESULTS)] + "\n".join(rows) + "\n", encoding="utf-8")


def table(tallies: dict[tuple[str, str], Tally]) -> str:
    heads: Row = ("scenario", "exploration", "executions", "outages", "orphans", "stuck", "wrongful", "false proofs")
    rows: list[Row] = []
    total: Counter[str] = Counter()
    executions = 0
    for (scenario, kind), tally in tallies.items():
        rows.append((scenario, kind, f"{tally.executions:,}", *(str(tally.harms[harm]) for harm in COLUMNS)))
        total += tally.harms
        executions += tally.executions
    rows = [heads, *sorted(rows)]
    rows.append(("all", "", f"{executions:,}", *(str(total[harm]) for harm in COLUMNS)))
    return "\n".join(_aligned(rows))


def _aligned(rows: list[Row]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        left = [row[column].ljust(widths[column]) for column in (0, 1)]
        right = [row[column].rjust(widths[column]) for column in range(2, len(row))]
        yield "  ".join([*left, *right]).rstrip()


if __name__ == "__main__":
    sys.exit(main())
