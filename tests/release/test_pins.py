"""What is pinned is what was asked for, each file of it by its digest."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import pins

PROJECT = tomllib.loads((pins.ROOT / "pyproject.toml").read_text())["project"]
DECLARED = [*PROJECT["dependencies"], *(line for lines in PROJECT["optional-dependencies"].values() for line in lines)]
HINT = "`make lock` writes what pyproject.toml and requirements-dev.in ask for"


def pinned(path: Path) -> dict[str, set[str]]:
    """Versions by package; several where they depend on the platform."""
    found: dict[str, set[str]] = {}
    for pin in pins.read(path):
        found.setdefault(pin.name, set()).add(pin.version)
    return found


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (pins.RUNTIME, [Requirement(line) for line in DECLARED]),
        (pins.DEVELOPMENT, [*map(Requirement, DECLARED), *pins.wanted(pins.ROOT / "requirements-dev.in")]),
    ],
    ids=["runtime", "development"],
)
def test_pins_and_bounds_agree(path: Path, asked: list[Requirement]) -> None:
    """Whatever is asked for is pinned, at a version within its bounds."""
    versions = pinned(path)
    for requirement in asked:
        name = canonicalize_name(requirement.name)
        if name == "keyturn":  # an extra that stands for others
            continue
        assert name in versions, f"{path.name} lacks {name}; {HINT}"
        for version in versions[name]:
            assert requirement.specifier.contains(version), f"{name} {version} is not {requirement.specifier}; {HINT}"


def test_development_runs_what_is_handed_out() -> None:
    """The same versions at run time and in the tests."""
    runtime, development = pinned(pins.RUNTIME), pinned(pins.DEVELOPMENT)
    assert {name: versions for name, versions in development.items() if name in runtime} == runtime


@pytest.mark.parametrize("path", [pins.RUNTIME, pins.DEVELOPMENT], ids=["runtime", "development"])
def test_every_pin_has_its_digests(path: Path) -> None:
    """Without one, `--require-hashes` refuses the whole file."""
    found = list(pins.read(path))
    assert found
    for pin in found:
        assert pin.hashes, pin.name
        assert all(digest.startswith("sha256:") and len(digest) == 71 for digest in pin.hashes), pin.name


def test_what_is_no_pin_is_refused(tmp_path: Path) -> None:
    """A range, an address or a file of somebody's own would be installed unchecked."""
    for line in ("rich>=15", "rich", "-r other.txt", "rich @ https://example.com/rich.whl", "--index-url https://x"):
        (tmp_path / "requirements.txt").write_text(f"# a remark\n{line}\n")
        with pytest.raises(ValueError, match="is not a package at one version"):
            list(pins.read(tmp_path / "requirements.txt"))
