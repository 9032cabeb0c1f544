"""Known vulnerabilities of what is installed at run time: `make audit`, by pip-audit.

What was looked at and found not to concern us stands in tools/audit-ignored.toml, with who is right for how long. Anything
else fails. Where no service answers, that is said plainly, and is no failure: nothing is known then, good or bad.

    0  no finding, or not checked: the line says which      1  findings      2  the file of what is ignored is faulty
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from tools import pins

IGNORED = Path(__file__).with_name("audit-ignored.toml")
REVIEWED_FOR = timedelta(days=90)
"""Then somebody looks again: what did not concern us may do so by now."""
_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Ignored:
    """A vulnerability that does not concern us."""

    id: str
    """As pip-audit has it, or one of its aliases: PYSEC-…, GHSA-…, CVE-…."""
    package: str
    reason: str
    reviewed: date


@dataclass(frozen=True, slots=True)
class Judged:
    """What an answer comes to."""

    findings: tuple[str, ...]
    """A sentence each."""
    unchecked: tuple[str, ...]
    """Packages of which the service knows nothing."""
    checked: int
    unused: tuple[str, ...]
    """Ids that are ignored, and that nothing has."""


class Faulty(Exception):  # noqa: N818 - a fault of the file
    """The file of what is ignored can not be used."""


def ignored(path: Path) -> list[Ignored]:
    """What was reviewed.

    Raises:
        Faulty: an entry lacks its id, package, reason or date.
    """
    found = []
    for number, entry in enumerate(tomllib.loads(path.read_text(encoding="utf-8")).get("ignored", ()), 1):
        one = {name: entry.get(name) for name in ("id", "package", "reason", "reviewed")}
        texts = [value for name, value in one.items() if name != "reviewed"]
        if not all(isinstance(text, str) and text.strip() for text in texts) or type(one["reviewed"]) is not date:
            raise Faulty(f"{path.name}: entry {number} needs id, package, reason, and the date when it was reviewed")
        found.append(Ignored(**one))
    return found


def judge(report: Mapping[str, Any], ignores: Iterable[Ignored], today: date) -> Judged:
    """Holds what pip-audit writes as JSON against what is ignored."""
    known, used = list(ignores), set[Ignored]()
    findings, unchecked, checked = [], [], 0
    for about in report["dependencies"]:
        if "skip_reason" in about:
            unchecked.append(about["name"])
            continue
        checked += 1
        for flaw in about["vulns"]:
            names = {flaw["id"], *flaw.get("aliases", ())}
            entry = next((one for one in known if one.package == about["name"] and one.id in names), None)
            if entry is not None:
                used.add(entry)
                if today <= entry.reviewed + REVIEWED_FOR:
                    continue
            late = f"; ignored since {entry.reviewed}, which is to be reviewed again" if entry else ""
            fixed = f"fixed in {', '.join(flaw['fix_versions'])}" if flaw.get("fix_versions") else "no version fixes it"
            findings.append(f"{about['name']} {about['version']}: {', '.join(sorted(names))}; {fixed}{late}")
    unused = tuple(one.id for one in known if one not in used)
    return Judged(tuple(findings), tuple(unchecked), checked, unused)


def asked(requirements: Path, service: Sequence[str]) -> Mapping[str, Any] | str:
    """What pip-audit tells of a file; or why it tells nothing."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--disable-pip", "--no-deps"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "10", *service]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {_SECONDS} s"
    try:
        found: Mapping[str, Any] = json.loads(done.stdout)
    except ValueError:
        # Whatever stopped it, a refused connection for one, is what it says last.
        last = ([line for line in done.stderr.splitlines() if line.strip()] or [""])[-1]
        return f"pip-audit gives no answer ({last.partition('(')[0].strip(' :') or done.returncode})"
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Asks of one package first: where nobody answers, the others need not be asked for."""
    parser = argparse.ArgumentParser(prog="python -m tools.audit", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requirements", type=Path, default=pins.RUNTIME, metavar="FILE")
    parser.add_argument("--ignored", type=Path, default=IGNORED, metavar="FILE")
    parser.add_argument("--osv", metavar="URL", help="an OSV service, in place of the package index")
    given = parser.parse_args(arguments)
    service = ["--vulnerability-service", "osv", "--osv-url", given.osv] if given.osv else []
    try:
        ignores = ignored(given.ignored)
    except (Faulty, tomllib.TOMLDecodeError) as fault:
        print(fault, file=sys.stderr)
        return 2
    first = next(pin for pin in pins.read(given.requirements) if pin.here)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as one:
        one.write(f"{first.name}=={first.version}\n")
        one.flush()
        answer = asked(Path(one.name), service)
    if isinstance(answer, str) or not judge(answer, (), date.min).checked:
        why = answer if isinstance(answer, str) else f"the service knows nothing of {first.name}, nor of others then"
        print(f"vulnerabilities: not checked: {why}")
        return 0
    answer = asked(given.requirements, service)
    if isinstance(answer, str):
        print(f"vulnerabilities: not checked: {answer}")
        return 0
    judged = judge(answer, ignores, datetime.now(UTC).date())
    for finding in judged.findings:
        print(f"✗ {finding}")
    if judged.unchecked:
        print(f"not checked, the service does not know them: {', '.join(judged.unchecked)}")
    if judged.unused:
        print(f"no longer needed in {given.ignored.name}: {', '.join(judged.unused)}")
    found = f"{len(judged.findings)} found" if judged.findings else "none known"
    print(f"vulnerabilities: {found} in {judged.checked} packages")
    return 1 if judged.findings else 0


if __name__ == "__main__":
    sys.exit(main())
