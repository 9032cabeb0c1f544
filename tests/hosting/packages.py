"""The environment of the hosting programs: the official provider packages, kept apart from Keyturn's own.

In one environment with them, Keyturn's own program would be told to download every cloud's plugin: Pulumi takes each
installed distribution named `pulumi-*` for one that the program needs.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = tuple(ROOT / "hosting" / name for name in ("aws", "azure", "kubernetes"))
KEYTURN = "-e ../.."
"""The line of a program's requirements by which it imports Keyturn. Here the sources are on the path instead."""
STUBS = "types-PyYAML==6.0.12.20261113"
"""For `python -m tests.hosting`."""


class NotToBeHad(Exception):  # noqa: N818 - says of the packages what they are
    """The packages can not be installed here."""


def python() -> Path:
    """The Python of an environment with what all programs require; made when there is none, kept for the next time.

    Raises:
        NotToBeHad: no package index answers, or has them.
    """
    lines = [line for program in PROGRAMS for line in (program / "requirements.txt").read_text().splitlines()]
    wanted = "\n".join(sorted({line for line in lines if line != KEYTURN} | {STUBS})) + "\n"
    whole = wanted + (ROOT / "pyproject.toml").read_text() + sys.version
    folder = ROOT / ".keyturn" / "hosting" / hashlib.sha256(whole.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes ask at once
        if not (folder / "ready").exists():
            (folder / "requirements.txt").write_text(wanted)
            _run("venv", "--quiet", "--clear", "--python", sys.executable, str(folder / "venv"))
            needed = ["-r", str(folder / "requirements.txt"), "-r", str(ROOT / "pyproject.toml")]
            _run("pip", "install", "--quiet", "--python", str(folder / "venv"), *needed)
            (folder / "ready").touch()
    return folder / "venv" / "bin" / "python"


def _run(*arguments: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    try:
        done = subprocess.run([uv, *arguments], capture_output=True, text=True, check=False, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotToBeHad(f"uv: {error}") from None
    if done.returncode:
        raise NotToBeHad((done.stderr.strip() or "uv failed").splitlines()[-1])
