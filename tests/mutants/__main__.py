"""Hunts every deliberate fault in a process of its own and says what caught it. Fails when one survives.

python -m tests.mutants                    all
python -m tests.mutants grace rollback     those whose name has one of these in it
python -m tests.mutants --write            the same, and their rows go into docs/mutants.md
python -m tests.mutants --edits            only whether every fault still fits the code
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

from tests.mutants.catalogue import MUTANTS
from tests.mutants.hunting import MOST, Found, control, hunt, stale

PAGE: Final = Path(__file__).parents[2] / "docs" / "mutants.md"
RESULTS: Final = "## Results\n\n"


def main() -> int:
    reader = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.split("\n", 1)[0])
    reader.add_argument("names", metavar="WORDS", nargs="*", help="only faults whose name has one of these in it")
    reader.add_argument("--edits", action="store_true", help="only whether every fault still fits the code")
    reader.add_argument("--write", action="store_true", help=f"put their rows into docs/{PAGE.name}")
    reader.add_argument("--most", type=int, default=MOST, help="executions after which a fault counts as not caught")
    reader.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, 2))
    asked = reader.parse_args()
    chosen = [name for name in MUTANTS if not asked.names or any(words in name for words in asked.names)]
    if not chosen:
        reader.error("no fault is named so")
    # A process forked for each: it begins with the code as it is, and ends with its fault.
    fork = multiprocessing.get_context("fork")
    with fork.Pool(asked.processes, maxtasksperchild=1) as pool, fork.Pool(1, maxtasksperchild=1) as sane:
        if asked.edits:
            problems = dict(zip(chosen, pool.map(stale, chosen, chunksize=1), strict=True))
            print("\n".join(f"{name}: {problem}" for name, problem in problems.items() if problem) or "all fit")
            return 1 if any(problems.values()) else 0
        begun = time.monotonic()
        print(f"{len(chosen)} faults on {asked.processes} processes", flush=True)
        every: list[Found] = []
        for found in pool.imap(partial(hunt, most=asked.most), chosen):
            problem = sane.apply(control, (found,)) if found.caught else ""
            judged = Found(found.name, why=f"not the fault: without it {problem}") if problem else found
            print(line(judged, max(map(len, chosen))), flush=True)
            every.append(judged)
    survivors = [found for found in every if not found.caught]
    minutes = (time.monotonic() - begun) / 60
    print(f"\n{len(every)} faults, {len(survivors)} not caught, in {minutes:.1f} minutes")
    if asked.write and not survivors:
        write(PAGE, every)
    return 1 if survivors else 0


def line(found: Found, width: int) -> str:
    """One line of the table as it grows."""
    told = f"{found.harm:<19}  {found.by}" if found.caught else f"NOT CAUGHT: {found.why}"
    return f"{found.name.ljust(width)}  {found.executions:>7,}  {told}"


def write(page: Path, found: Iterable[Found]) -> None:
    """Puts rows into the table of a page of the documentation, after its heading `Results`. Other rows stay."""
    head, _, table = page.read_text(encoding="utf-8").partition(RESULTS)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines()}
    rows |= {f.name: f"| {f.name} | {f.harm} | {f.executions:,} | `{f.by}` |" for f in found}
    lines = [
        "| fault | caught as | after | by |",
        "|---|---|---:|---|",
        *(rows[name] for name in MUTANTS if name in rows),
    ]
    page.write_text(head + RESULTS + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
