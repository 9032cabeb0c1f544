"""Runs every measurement and prints its table; exit code 1 when a target was missed."""

from __future__ import annotations

import sys

from benchmarks import aws_lambda, fleet, incident

if __name__ == "__main__":
    sys.exit(0 if all([aws_lambda.main(), incident.main(), fleet.main()]) else 1)
