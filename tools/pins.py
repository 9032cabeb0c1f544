"""Reads requirements.txt as `make lock` writes it: each package at one version, with the digests of its files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).parents[1]
RUNTIME = ROOT / "requirements.txt"
DEVELOPMENT = ROOT / "requirements-dev.txt"
_PIN = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w, -]+\])?==(?P<version>[^\s;]+)\s*(?:;\s*(?P<marker>.*))?")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package."""

    name: NormalizedName
    version: str
    marker: Marker | None
    """Where it is needed; everywhere without one."""
    hashes: tuple[str, ...]
    """`sha256:…`, one for each file that may be installed."""

    @property
    def here(self) -> bool:
        """Whether it is needed on this platform and version of Python."""
        return self.marker is None or self.marker.evaluate()


def read(path: Path) -> Iterator[Pin]:
    """Every package of a file, in its order.

    Raises:
        ValueError: a line is no pin. What is installed would not be what was checked then.
    """
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        told = line.partition("#")[0].strip()
        if not told:
            continue
        wanted, *hashes = (part.strip() for part in told.split("--hash="))
        found = _PIN.fullmatch(wanted)
        if found is None:
            raise ValueError(f"{path.name}: {wanted!r} is not a package at one version; `make lock` writes this file")
        marker = Marker(found["marker"]) if found["marker"] else None
        yield Pin(canonicalize_name(found["name"]), found["version"], marker, tuple(hashes))


def wanted(path: Path) -> Iterator[Requirement]:
    """What an input of `make lock` asks for."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if told := line.partition("#")[0].strip():
            yield Requirement(told)
