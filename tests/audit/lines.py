"""What the tests of the audit trail share: records, and a place in memory that can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rotation.audit.chain import Head
from rotation.audit.trail import ChainedAuditor, Kept, unkept
from rotation.ports import Record

AT = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
ACME = ("acme", "prod")


def record(number: int, event: str = "mint") -> Record:
    return Record(AT + timedelta(seconds=number), event, "prod/support-copilot-chat", f"because {number}", f"t{number}")


@dataclass
class Lines:
    """Lines in memory. `fails` is asked before each put."""

    lines: list[str] = field(default_factory=list)
    puts: list[int] = field(default_factory=list)
    fails: Callable[[], bool] = lambda: False
    torn: bool = False
    """One that fails keeps part of its first line."""
    name: str = "memory"

    def keep(self, writer: str, seq: int, lines: Sequence[str], at: datetime) -> None:
        if self.fails():
            if self.torn:
                self.lines.append(lines[0][:40])
            raise unkept(self.name, "no space left on device")
        if self.lines and not self.lines[-1].endswith("\n"):
            self.lines[-1] += "\n"
        self.lines += lines
        self.puts.append(len(lines))

    def last(self) -> Head | None:
        return Head.of(self.lines[-1]) if self.lines else None

    def read(self) -> Iterator[Kept]:
        return kept(self.lines)


def kept(lines: Sequence[str]) -> Iterator[Kept]:
    """As a file with these lines would be read."""
    whole = "".join(lines)
    parts = [part + "\n" for part in whole.split("\n")[:-1]]
    if rest := whole.rpartition("\n")[2]:
        parts.append(rest)
    return (Kept(f"trail:{number}", text) for number, text in enumerate(parts, 1))


def auditor(place: Lines, anchors: Lines | None = None) -> ChainedAuditor:
    return ChainedAuditor([place], [anchors] if anchors is not None else [], installation=ACME[0], environment=ACME[1])


def interleaved(turns: Sequence[int], *, witness: bool = True) -> tuple[list[str], list[str]]:
    """Lines of several writers at one place, in the order of their turns; and an anchor of each writer's head."""
    place, anchors = Lines(), Lines()
    if not witness:
        place.last = lambda: None  # type: ignore[method-assign]
    writers = [auditor(place, anchors) for _ in range(max(turns) + 1)]
    for number, turn in enumerate(turns):
        writers[turn].write(record(number))
    for writer in writers:
        assert writer.anchor()
    return place.lines, anchors.lines
