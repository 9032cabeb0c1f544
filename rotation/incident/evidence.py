"""The evidence of a drill: what was done, by whom, how long each part took, how it compares. Names, ids and times only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from rotation import documents
from rotation.errors import Code, Trouble
from rotation.files import write_private
from rotation.incident import page
from rotation.incident.bystander import Seen
from rotation.incident.page import Section, Table
from rotation.logs import masked_parts

SCHEMA: Final = "keyturn.drill/1"
"""Changes when a field gets another meaning or goes; new fields may come at any time."""
RELATIVE: Final = 0.25
ABSOLUTE: Final = 1.0
"""A time that differs from the one before by less than this share, or by fewer seconds, is taken for the same."""
_ID: Final = re.compile(r"\d{4}-\d{2}-\d{2}-\d{4}-[0-9a-f]{4}")


class State(StrEnum):
    """How a drill ended."""

    RUNNING = "running"
    """Or it was killed: the next drill finds out, and cleans up."""
    PASSED = "passed"
    FAILED = "failed"
    ALIVE = "alive"
    """A key that was leaked, or made for the drill, is alive or not shown dead."""
    INTERRUPTED = "interrupted"


@dataclass(slots=True)
class Times:
    """Seconds from the moment the report was handed in; None: not so, or not at all."""

    match: float | None = None
    """Until it was known whose every value is."""
    contain: float | None = None
    """Until the last leaked key was revoked."""
    replace: float | None = None
    """Until the last store handed out another credential."""
    prove: float | None = None
    """Until the last leaked key was shown dead."""
    thaw: float | None = None
    """Until scheduled work went on everywhere."""
    total: float | None = None
    """Until all of that was done, and every consumer let in again."""
    new_value: float | None = None
    """Until the last consumer was let in with another credential."""
    outage: float | None = None
    """The longest that a consumer was refused in a row: a span, not a moment."""


NAMES: Final[Mapping[str, str]] = {
    "match": "whose it is",
    "contain": "contained",
    "replace": "replaced",
    "prove": "shown dead",
    "thaw": "thawed",
    "total": "all of it",
    "new_value": "consumers have the new one",
    "outage": "longest outage of a consumer",
}
"""Of times, for people, in their order."""


@dataclass(slots=True)
class Subject:
    """One secret of a drill."""

    name: str
    stores: list[str]
    issuer: str
    owner: str
    canary: bool
    enforced: bool
    """Its issuer refuses what is revoked."""
    leaked_key_id: str | None = None
    key_id: str | None = None
    """Of the credential that replaced it."""
    times: Times = field(default_factory=Times)
    consumers: list[Seen] = field(default_factory=list)
    made_seconds: float | None = None
    """A canary: how long entry and first credential took."""
    verdict: str | None = None
    """What the issuer said of the leaked credential at the end."""
    cleaned: bool | None = None
    """A canary: its keys are shown dead, and its entry is deleted. None for a secret that was there before."""
    faults: list[str] = field(default_factory=list)
    alive: bool = False
    """Something of it lives that should not, or is not shown dead."""


@dataclass(slots=True)
class Told:
    """What one owner was told."""

    owner: str
    kinds: list[str]
    channels: list[str]
    """That take notices of these kinds; empty: nobody would hear of a leak."""


@dataclass(slots=True)
class Difference:
    """One time, held against the drill before."""

    name: str
    before: float
    now: float
    verdict: str
    """`better`, `same`, `worse`."""


@dataclass(slots=True)
class Evidence:
    """All of a drill."""

    id: str
    """Of its incident, too."""
    installation: str
    environment: str
    stack: str
    ran_by: str
    began_at: datetime
    versions: dict[str, str]
    subjects: list[Subject]
    state: State = State.RUNNING
    ended_at: datetime | None = None
    times: Times = field(default_factory=Times)
    owners: list[Told] = field(default_factory=list)
    silent: bool = False
    """Owners were not told: it was only looked who would be."""
    faults: list[str] = field(default_factory=list)
    """What failed, beside what each subject has."""
    notes: list[str] = field(default_factory=list)
    left_overs: list[str] = field(default_factory=list)
    """Canaries of earlier drills that were removed first."""
    trail: dict[str, str] = field(default_factory=dict)
    """The last line of the audit trail: place, writer, number and hash. Empty where no chain is kept."""
    compared_with: str | None = None
    differences: list[Difference] = field(default_factory=list)
    schema_version: str = SCHEMA

    @property
    def all_faults(self) -> list[str]:
        return [*self.faults, *(f"{one.name}: {fault}" for one in self.subjects for fault in one.faults)]

    def judge(self) -> None:
        """How it ended, by what is known of its parts."""
        if any(one.alive for one in self.subjects):
            self.state = State.ALIVE
        else:
            self.state = State.FAILED if self.all_faults else State.PASSED

    def compare(self, before: Evidence) -> None:
        """Holds every time against another drill's."""
        self.compared_with = before.id
        self.differences = []
        for name in NAMES:
            was, now = getattr(before.times, name), getattr(self.times, name)
            if was is None or now is None:
                continue
            gap = now - was
            same = abs(gap) <= max(ABSOLUTE, RELATIVE * was)
            self.differences.append(Difference(name, was, now, "same" if same else "worse" if gap > 0 else "better"))


# --- in files ------------------------------------------------------------------------------------


@cache
def _codec() -> TypeAdapter[Evidence]:
    return TypeAdapter(Evidence)


def as_json(evidence: Evidence) -> dict[str, Any]:
    """What a script reads."""
    plain: dict[str, Any] = _codec().dump_python(evidence, mode="json")
    shown = masked_parts({"schema": plain.pop("schema_version"), **plain})
    assert isinstance(shown, dict)
    return shown


def from_json(text: str) -> Evidence:
    """What as_json() has made.

    Raises:
        ValueError: it is of another version, or something else wrote it.
    """
    return documents.read(text, _codec(), SCHEMA, "the evidence of a drill")


class Files:
    """Evidence in a folder: for each drill one file of JSON and one of Markdown, mode 0600, replaced as a whole.

    Parameters:
        folder: made when absent, mode 0700.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder

    def path(self, identity: str) -> Path:
        return self.folder / f"{identity}.json"

    def save(self, evidence: Evidence) -> None:
        """Raises Trouble(UNAVAILABLE) when the disk does not take it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(self.path(evidence.id), json.dumps(as_json(evidence), indent=1) + "\n", durable=True)
            write_private(self.path(evidence.id).with_suffix(".md"), markdown(evidence), durable=True)
        except OSError as error:
            told = f"{self.path(evidence.id)}: {error.strerror}"
            raise Trouble(Code.UNAVAILABLE, "evidence of the drill", told) from None

    def all(self) -> Iterator[Evidence]:
        """Every one that can be read, newest first."""
        found = (path.stem for path in self.folder.glob("*.json")) if self.folder.is_dir() else iter(())
        for name in sorted((name for name in found if _ID.fullmatch(name)), reverse=True):
            try:
                yield from_json(self.path(name).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue

    def last_like(self, evidence: Evidence) -> Evidence | None:
        """The newest earlier one of the same stack and secrets that has passed: others say nothing about its times."""

        def like(other: Evidence) -> bool:
            of = (other.installation, other.environment, {one.name for one in other.subjects})
            mine = (evidence.installation, evidence.environment, {one.name for one in evidence.subjects})
            return of == mine and other.state is State.PASSED and other.began_at < evidence.began_at

        return next((other for other in self.all() if other.id != evidence.id and like(other)), None)


# --- for people ----------------------------------------------------------------------------------


def markdown(evidence: Evidence) -> str:
    """One document, as Markdown."""
    return page.document(sections(evidence))


def sections(evidence: Evidence) -> Iterator[Section]:
    """The whole document; the first section is its head."""
    yield _head(evidence)
    before = {one.name: one for one in evidence.differences}
    rows = [
        (
            words,
            shown(getattr(evidence.times, name)),
            shown(before[name].before) if name in before else "-",
            before[name].verdict if name in before else "-",
        )
        for name, words in NAMES.items()
    ]
    compared = (
        f"The drill before is {evidence.compared_with}." if evidence.compared_with else "There is none before it."
    )
    same = f"The same: within {RELATIVE:.0%} or {ABSOLUTE:g} s. Counted from the moment the report was handed in."
    yield Section("Times", (f"{compared} {same}",), Table(("", "Now", "Before", "Which is"), tuple(rows)))
    yield Section("Secrets", (), Table(_SECRETS, tuple(_row(one) for one in evidence.subjects)))
    used = tuple(_used(seen) for one in evidence.subjects for seen in one.consumers)
    yield Section("Consumers", (), Table(_CONSUMERS, used))
    if evidence.owners:
        how = (
            "Nobody was told; this is who would have been."
            if evidence.silent
            else "Each notice says that it is a drill."
        )
        told = tuple(
            (one.owner, ", ".join(one.kinds) or "-", ", ".join(one.channels) or "nobody: no channel takes these")
            for one in evidence.owners
        )
        yield Section("Owners", (how,), Table(("Owner", "Told", "Through"), told))
    if faults := evidence.all_faults:
        yield Section("What failed", tuple(faults))
    trail = ", ".join(f"{name} {text}" for name, text in evidence.trail.items()) or "no chain is kept here"
    versions = ", ".join(f"{name} {text}" for name, text in evidence.versions.items())
    yield Section("Evidence", (f"Audit trail: {trail}.", f"Versions: {versions}.", *evidence.notes))


_SECRETS: Final = (
    "Secret", "Stores", "Issuer", "Leaked key", "Replaced by", "Contained", "Replaced", "Shown dead", "Left"
)  # fmt: skip
_CONSUMERS: Final = ("Secret", "Read from", "Uses", "Refused", "No answer", "Longest outage", "New one after")


def _head(evidence: Evidence) -> Section:
    where = f"{evidence.installation}, environment {evidence.environment} ({evidence.stack})"
    until = f" until {at(evidence.ended_at)}" if evidence.ended_at else ", and it has not ended"
    left = f" Removed first, from earlier drills: {', '.join(evidence.left_overs)}." if evidence.left_overs else ""
    done = (
        "Secrets were made or chosen, their values put into a scanner's report on purpose, and the report dealt with as an "
        "emergency, while an application used each of them."
    )
    return Section(
        f"Drill {evidence.id}: {evidence.state.value}",
        (f"{where}. {at(evidence.began_at)}{until}, by {evidence.ran_by}.{left}", done),
    )


def _row(one: Subject) -> tuple[str, ...]:
    left = {None: "as any secret", True: "removed", False: "NOT removed"}[one.cleaned]
    dead = shown(one.times.prove) if one.enforced else "nobody refuses it"
    contained = shown(one.times.contain) if one.enforced else "nobody refuses it"
    keys = (one.leaked_key_id or "-", one.key_id or "-")
    times = (contained, shown(one.times.replace), dead)
    return (one.name, " + ".join(one.stores), one.issuer, *keys, *times, left)


def _used(seen: Seen) -> tuple[str, ...]:
    outage = shown(seen.longest_outage_seconds)
    new = shown(seen.new_value_seconds) if seen.new_value_seconds is not None else "never"
    counts = (str(seen.uses), str(seen.refused), str(seen.unanswered))
    return (seen.secret, seen.store, *counts, outage, new)


def shown(seconds: float | None) -> str:
    """A time for people."""
    return "-" if seconds is None else f"{seconds:.1f} s"


def at(moment: datetime) -> str:
    """A moment for people."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def summed_up(subjects: list[Subject]) -> Times:
    """The latest of each time, None where one of them has none that should have: a drill is over when all of it is."""
    found = Times()
    for part in fields(Times):
        these = [one for one in subjects if one.enforced or part.name not in ("contain", "prove")]
        known = [getattr(one.times, part.name) for one in these]
        if known and all(seconds is not None for seconds in known):
            setattr(found, part.name, max(known))
    return found
