"""Hunts every fault in a process of its own and says what caught it. Fails when one survives.

python -m tests.mutants                 all
python -m tests.mutants --only grace    those whose name has this in it
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tests.mutants.catalogue import MUTANTS, Mutant
from tests.mutants.patching import StaleError
from tests.simulation.explore import FAULTS, RANDOM, SINGLE, SWITCHES, Job, jobs, results
from tests.simulation.wire import show_plan

MOST: int = 3_000
"""Executions after which a fault counts as not caught."""


def main() -> int:
    reader = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.split("\n", 1)[0])
    reader.add_argument("--only", metavar="WORDS", default="")
    reader.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    reader.add_argument("--hunt", metavar="NAME", help=argparse.SUPPRESS)
    asked = reader.parse_args()
    if asked.hunt:
        print(json.dumps(hunt(MUTANTS[asked.hunt])))
        return 0
    chosen = [name for name in MUTANTS if asked.only in name]
    begun = time.monotonic()
    width = max(len(name) for name in chosen)
    survivors = 0
    print(f"{'fault'.ljust(width)}  executions  caught as            by")
    with ThreadPoolExecutor(asked.processes) as pool:
        for name, found in zip(chosen, pool.map(_in_its_own_process, chosen), strict=True):
            survivors += not found["harm"]
            harm = found["harm"] or f"NOT CAUGHT {found['told']}"
            print(f"{name.ljust(width)}  {found['count']:>10,}  {harm:<19}  {found['by']}", flush=True)
    print(f"\n{len(chosen)} faults, {survivors} not caught, in {(time.monotonic() - begun) / 60:.1f} minutes")
    return 1 if survivors else 0


def _in_its_own_process(name: str) -> dict[str, str | int]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants", "--hunt", name], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"harm": "", "count": 0, "by": "", "told": last}
    found: dict[str, str | int] = json.loads(done.stdout)
    return found


def hunt(fault: Mutant) -> dict[str, str | int]:
    """Puts the fault into this process and looks for an execution that shows it."""
    try:
        fault.put()
    except StaleError as stale:
        return {"harm": "", "count": 0, "by": "", "told": str(stale)}
    count = 0
    for job in _in_order(fault):
        for execution in results(job):
            count += 1
            if execution.broken:
                by = f"{job.where} / {show_plan(execution.plan)}"
                return {"harm": execution.broken.harm, "count": count, "by": by, "told": ""}
            if count >= MOST:
                return {"harm": "", "count": count, "by": "", "told": ""}
    return {"harm": "", "count": count, "by": "", "told": ""}


def _in_order(fault: Mutant) -> Iterator[Job]:
    """Where it is looked for first, and there the short ones first; then everywhere."""
    for words in fault.look_in:
        for kind in (SINGLE, SWITCHES, FAULTS, RANDOM):
            for job in jobs(only=words, deep=True):
                if job.kind == kind:
                    yield job
    for job in jobs():
        if job.kind == SINGLE:
            yield replace(job, share=0.2)


if __name__ == "__main__":
    sys.exit(main())
