"""Kills a larger fleet for longer: `python -m tests.fleet --secrets 90 --kills 40`. Exit code 1 when an invariant did not hold."""

from __future__ import annotations

import argparse
import sys

from tests.fleet.execution import execute


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--secrets", type=int, default=90, help="at most 100, which the issuer's stand-in lists on a page"
    )
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    result = execute(given.secrets, given.workers, given.kills, given.seed)
    print(result.told)
    return 1 if any(result.faults.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
