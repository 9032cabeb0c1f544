"""Checks the types of the hosting programs, strictly: `python -m tests.hosting`. A minute or two; the providers are large."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.hosting.packages import PROGRAMS, ROOT, python


def main() -> int:
    """Exit code: 0 when nothing was found."""
    interpreter, worst = python(), 0
    for program in PROGRAMS:
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent"]
        command += ["--explicit-package-bases", f"--python-executable={interpreter}", "--python-version=3.11"]
        command += [
            f"--cache-dir={interpreter.parents[2] / 'mypy'}",
            *sorted(path.name for path in program.glob("*.py")),
        ]
        print(f"{program.name}: ", end="", flush=True)
        done = subprocess.run(command, cwd=program, env={**os.environ, "MYPYPATH": str(ROOT)}, check=False)
        worst = max(worst, done.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
