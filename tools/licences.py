"""Under which licences is what is installed at run time? `make licences` fails where one is not on the list.

The list, and what was reviewed beyond it, is tools/licences.toml. Licences are read from the packages' own metadata: an
SPDX expression where there is one (PEP 639), else the older field, else the classifiers, all of which have to be allowed.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tools import pins

LIST = Path(__file__).with_name("licences.toml")
_LONGEST = 60
"""Characters. What is longer in the older field is the licence's text, not its name."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is allowed."""

    allowed: frozenset[str]
    words: Mapping[str, str]
    reviewed: Mapping[str, str]
    """By package: the licence that was looked at."""


def rules(path: Path = LIST) -> Rules:
    """The list.

    Raises:
        ValueError: what was reviewed lacks its reason or date.
    """
    found = tomllib.loads(path.read_text(encoding="utf-8"))
    for entry in found.get("reviewed", ()):
        if not (entry.get("reason") and entry.get("reviewed")):
            raise ValueError(f"{path.name}: {entry['package']} needs a reason and the date when it was reviewed")
    reviewed = {entry["package"]: entry["licence"] for entry in found.get("reviewed", ())}
    return Rules(frozenset(found["allowed"]), found.get("words", {}), reviewed)


def told(about: metadata.PackageMetadata, words: Mapping[str, str]) -> str:
    """The licence of a package, in SPDX's words as far as possible; empty where it tells none."""
    if "License-Expression" in about:
        return about["License-Expression"]
    named = about["License"].strip() if "License" in about else ""
    named = words.get(named, named) if len(named) <= _LONGEST else ""
    classifiers = [each.rpartition(" :: ")[2] for each in about.get_all("Classifier") or () if "License ::" in each]
    if named and (named in words.values() or not classifiers):
        return named
    return " AND ".join(dict.fromkeys(words.get(each, each) for each in classifiers)) or named


def allows(expression: str, allowed: Iterable[str]) -> bool:
    """Whether an SPDX expression can be kept to with these licences alone: of `OR` either will do.

    Raises:
        ValueError: it is no expression.
    """
    known = {each.lower() for each in allowed}
    tokens = re.findall(r"[()]|[^\s()]+", expression)

    def any_of() -> bool:
        fine = all_of()
        while tokens[:1] and tokens[0].upper() == "OR":
            tokens.pop(0)
            fine = all_of() or fine
        return fine

    def all_of() -> bool:
        fine = one()
        while tokens[:1] and tokens[0].upper() == "AND":
            tokens.pop(0)
            fine = one() and fine
        return fine

    def one() -> bool:
        if not tokens or tokens[0].upper() in ("OR", "AND", ")"):
            raise ValueError(f"{expression!r} is no licence expression")
        first = tokens.pop(0)
        if first != "(":
            return first.lower() in known
        fine = any_of()
        if not tokens or tokens.pop(0) != ")":
            raise ValueError(f"{expression!r} is no licence expression")
        return fine

    fine = any_of()
    if tokens:  # `Apache-2.0 WITH …`, or words that are no expression: somebody has to look
        return False
    return fine


def faults(
    packages: Iterable[pins.Pin], by: Rules, about: Callable[[str], metadata.PackageMetadata] = metadata.metadata
) -> list[str]:
    """A sentence for each package that may not be used, or that nothing is known of."""
    found = []
    for pin in packages:
        try:
            licence = told(about(pin.name), by.words)
        except metadata.PackageNotFoundError:
            found.append(f"{pin.name}: is not installed; run `make setup`")
            continue
        if by.reviewed.get(pin.name) == licence:
            continue
        try:
            fine = allows(licence, by.allowed)
        except ValueError:
            fine = False
        if not fine:
            found.append(
                f"{pin.name} {pin.version}: {licence or 'tells no licence'}; tools/licences.toml has what may be used"
            )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Looks at every package of requirements.txt that this platform needs."""
    parser = argparse.ArgumentParser(prog="python -m tools.licences", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requirements", type=Path, default=pins.RUNTIME, metavar="FILE")
    packages = list(pins.read(parser.parse_args(arguments).requirements))
    here = [pin for pin in packages if pin.here]
    found = faults(here, rules())
    for fault in found:
        print(f"✗ {fault}")
    elsewhere = ", ".join(pin.name for pin in packages if not pin.here)
    if elsewhere:
        print(f"not checked, needed on other platforms: {elsewhere}")
    print(f"licences: {len(found) or 'none'} refused of {len(here)} packages")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
