"""Reads what scanners and services report as leaked: gitleaks, trufflehog, GitHub secret scanning, GitGuardian,
detect-secrets.

Known by what is in it, never by a file's name. A report is written by whoever could write into what was scanned, so it is
taken for hostile: limits, no recursion over what it nests, no text of it in any message, nothing in the words of a finding
that is a value or steers a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from rotation.leaks.finding import Finding
from rotation.leaks.reports import detect_secrets, gitguardian, github, gitleaks, trufflehog
from rotation.leaks.reports.documents import Broken, entries, taken
from rotation.leaks.reports.gathering import Gathering, Hit, Skip, Skipped, TooMany
from rotation.leaks.reports.gitguardian import hmsl

__all__ = ["KNOWN", "EmptyReport", "Limits", "Report", "ReportFault", "Skipped", "bare", "hmsl", "read"]

_READERS: Final[Mapping[str, Callable[[Mapping[str, object]], Iterator[Hit | Skip] | None]]] = {
    "gitleaks": gitleaks.read,
    "gitleaks (SARIF)": gitleaks.read_sarif,
    "trufflehog": trufflehog.read,
    "github": github.read,
    "gitguardian": gitguardian.read,
    "ggshield": gitguardian.read_scan,
    "detect-secrets": detect_secrets.read,
}
"""By format. Each takes one JSON object, and answers None for one that is not its tool's."""

KNOWN: Final = (
    "gitleaks (JSON, SARIF), trufflehog 3 (JSON lines), GitHub secret-scanning alerts (REST, webhook), "
    "GitGuardian incidents (API, webhook), ggshield (JSON), detect-secrets (JSON)"
)
"""What read() knows, for messages and help texts."""


_CONSOLE_FORM: Final = re.compile(r"(?=.*[^.*•…])[^\s*•…]{0,20}(?:\.{3}|…|\*{3,}|•{3,})[^\s*•…]{0,8}")
"""So little is shown that it can hardly be anything but redacted."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a report is taken in before it is refused."""

    bytes: int = 64 * 1024**2
    findings: int = 100_000
    """Different ones: a value that is reported a thousand times is one."""
    entries: int = 1_000_000
    """In all, with those that can not be read. No scanner writes so many into so few bytes."""
    values: int = 5_000_000
    """Of JSON, about: what stands between commas and brackets. A parser's memory goes by these, 80 bytes and more for each;
    real reports have one in 25 bytes."""
    places: int = 5
    """How many places of one finding are named."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a report came to."""

    format: str
    """Who wrote it: `gitleaks`, `gitleaks (SARIF)`, `trufflehog`, `github`, `gitguardian`, `ggshield`,
    `detect-secrets`; of several, joined by commas. `none` for an empty list, which is how most of them say that they found nothing."""
    findings: tuple[Finding, ...]
    """Each value once, in the order of their first hits."""
    skipped: tuple[Skipped, ...] = ()
    """What of it could not be read, by reason. Somebody should look at it: a leak may be in there."""


class ReportFault(Exception):  # noqa: N818 - a fault of what was handed in, exit code 2
    """Nothing can be made of a report. The message says what is wrong and where; neither it, nor anything that hangs on
    this exception, has any of the report's text.
    """


class EmptyReport(ReportFault):
    """There is nothing in it. So it is when a scanner never ran; but trufflehog writes this, too, when it found nothing."""


@dataclass(frozen=True, slots=True)
class _Fault:
    kind: type[ReportFault]
    message: str


def read(
    stream: BinaryIO, *, name: str = "the report", limits: Limits = Limits(), scanned: Path | None = None
) -> Report:
    """The findings of one report.

    Each value is a SecretValue as soon as its entry is read, which also has the log mask it for as long as it lives. So
    let go of the findings that turn out to be nobody's: every line of the log is searched for each of them. The bytes that
    were read are zeroed before this returns. What Python can not wipe: the text that they were decoded to, the strings of
    the JSON parser, what the stream itself holds or buffers, and copies that the allocator left behind while a buffer grew.
    All of these are let go of, and gone when their memory is used again.

    Parameters:
        stream: bytes, read to their end; UTF-8, or UTF-16 or UTF-32, with a byte order mark or without.
        name: what messages call it.
        scanned: the folder that was scanned, where it lies here. Of a report that has digests in place of values,
            those are looked up in its files.

    Raises:
        ReportFault: it is empty (EmptyReport), beyond the limits, binary, broken JSON (with line and column), of no tool
            that is known, or can not be read at all. Of JSON lines, the broken ones are left out and told in `skipped`,
            as are entries whose value is missing or of a wrong type, and what stands around the JSON.
    """
    outcome = _read(stream, limits, scanned)
    if isinstance(outcome, Report):
        return outcome
    # Raised from here: no frame of this traceback has the text, and it has no context that had it.
    raise outcome.kind(f"{name} {outcome.message}")


def bare(value: str) -> Finding:
    """The finding of a value that somebody typed, pasted or piped in.

    Blanks and line ends around it do not count. A form as consoles show it (`sk-proj-...WXYZ`) is taken for redacted.

    Raises:
        ReportFault: there is none, it has several lines and is not in PEM, or it has fewer than 8 characters, or more
            than 65,536.
    """
    text = value.strip()
    if not text:
        raise ReportFault("the value is empty")
    if len(text.splitlines()) > 1 and not text.startswith("-----BEGIN "):
        raise ReportFault("the value has several lines; hand in one value, or a scanner's report as a file")
    gathering = Gathering(findings=1, places=1)
    redacted = _CONSOLE_FORM.fullmatch(text)
    gathering.add(Hit(source="value", redacted=text) if redacted else Hit(source="value", whole=text), "")
    findings, skipped = gathering.results()
    if skipped:
        raise ReportFault(f"the value is {skipped[0].why}")
    return findings[0]


@dataclass(slots=True)
class _Reading:
    """One report being read."""

    gathering: Gathering
    scanned: Path | None
    formats: dict[str, None] = field(default_factory=dict)

    def take(self, item: Mapping[str, object], where: str) -> None:
        """Hands one object to the tool that knows it.

        Raises:
            TooMany: see Gathering.add().
        """
        for name, reader in _READERS.items():
            found = reader(item)
            if found is None:
                continue
            self.formats[name] = None
            for each in found:
                spot = f"{each.at} ({where})" if each.at else where
                if isinstance(each, Skip):
                    self.gathering.skip(each.why, spot)
                else:
                    if each.lies is not None and self.scanned is not None:
                        each.whole = detect_secrets.value_in(self.scanned, *each.lies, each.hashed)
                    self.gathering.add(each, spot)
            return
        self.gathering.skip("of no tool that is known", where)


def _read(stream: BinaryIO, limits: Limits, scanned: Path | None) -> Report | _Fault:
    text = taken(stream, limits.bytes)
    if isinstance(text, Broken):
        return _Fault(ReportFault, text.message)
    if not text or text.isspace():
        return _Fault(EmptyReport, "is empty; see that the scanner ran")
    if sum(map(text.count, ",[{")) > limits.values:
        return _Fault(ReportFault, f"has more than {limits.values:,} JSON values; split it")
    reading = _Reading(Gathering(limits.findings, limits.places, limits.entries), scanned)
    broken = None
    try:
        for entry in entries(text, limits.entries):
            if isinstance(entry, Broken):
                broken = entry
            elif entry.found is None:
                reading.gathering.skip(entry.why, entry.where)
            else:
                reading.take(entry.found, entry.where)
    except TooMany as limit:
        return _Fault(ReportFault, f"has more than {limit}; split it")
    del text
    if broken and broken.message and (broken.wholly or not reading.formats):
        return _Fault(ReportFault, broken.message)
    findings, skipped = reading.gathering.results()
    if not reading.formats and (broken or skipped):
        return _Fault(ReportFault, f"is of no tool that is known. Known are: {KNOWN}")
    return Report(", ".join(reading.formats) or "none", findings, skipped)
