"""The wheel and the sdist, built once from a copy of the sources, and environments that hold nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"
_NOT_SOURCES = (
    *(".venv", ".git", ".keyturn", ".hypothesis", ".*_cache", "__pycache__", "*.pyc"),
    *("build", "dist", "site", "*.egg-info", "Pulumi.sandbox.yaml"),
)


def uv(*arguments: str, cwd: Path = ROOT) -> str:
    """Runs uv, from its cache if that has everything, else with the package index. Returns what it printed."""

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([UV, *arguments, *more], cwd=cwd, capture_output=True, text=True, check=False)

    done = run("--offline")
    if done.returncode != 0:
        done = run()
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Built:
    """What a release consists of."""

    sources: Path
    wheel: Path
    sdist: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Built as `uv build` does: the sdist from the sources, the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("release")
    sources = folder / "sources"
    shutil.copytree(ROOT, sources, ignore=shutil.ignore_patterns(*_NOT_SOURCES))
    uv("build", "--quiet", "--out-dir", str(folder / "dist"), cwd=sources)
    shutil.rmtree(sources / "keyturn.egg-info", ignore_errors=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    return Built(sources, wheel, sdist)


@dataclass(frozen=True)
class Ran:
    """One command that has ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Environment:
    """A virtual environment with Keyturn, one extra at most, and nothing that is of this checkout."""

    python: Path
    home: Path

    def keyturn(self, *arguments: str, **env: str) -> Ran:
        """Runs the console script with these variables and hardly any others."""
        given = {"PATH": os.environ["PATH"], "HOME": str(self.home), "NO_COLOR": "1", "COLUMNS": "200", **env}
        command = [str(self.python.parent / "keyturn"), *arguments]
        done = subprocess.run(command, cwd=self.home, env=given, capture_output=True, text=True, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Environment]]:
    """Gives an environment by its extra; of an empty name, the base alone, which is installed from the sdist."""
    made: dict[str, Environment] = {}

    def environment(extra: str) -> Environment:
        if extra not in made:
            folder = tmp_path_factory.mktemp(extra or "base")
            python = folder / "venv" / "bin" / "python"
            uv("venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
            wanted = f"keyturn[{extra}] @ {built.wheel.as_uri()}" if extra else f"keyturn @ {built.sdist.as_uri()}"
            uv(
                *("pip", "install", "--quiet", "--python", str(python)),
                *("--constraint", str(ROOT / "requirements.txt"), wanted),
            )
            made[extra] = Environment(python, folder)
        return made[extra]

    yield environment
    for one in made.values():
        shutil.rmtree(one.home)
