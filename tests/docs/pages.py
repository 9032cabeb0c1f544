"""Pages of the documentation as parts: fenced blocks, and the remarks `<!-- … -->` that say how a test takes them.

What a block is, its first word says: `console` (commands with what they print, run on a sandbox), `yaml` and `json` (checked),
`python` (run), `text` (a picture, or what something prints; has no commands). Any other kind, and one of these that can not be
taken so, has a remark `<!-- not run: REASON -->` before it, or `<!-- run by: TEST -->` where another test follows the page.
`<!-- run: EVENT -->` says what happened in the world before a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>[^\s`]*)[^\n`]*$")
_REMARK = re.compile(r"^ *<!-- (?P<word>run|run by|not run|taken as): (?P<text>.+?) -->$")
_FILE = re.compile(r"# (?P<path>[\w.-]+(?:/[\w.-]+)+)")


@dataclass(frozen=True)
class Place:
    """Where something stands."""

    page: Path
    line: int

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Event:
    """Something that happened in the world."""

    place: Place
    text: str


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    place: Place
    kind: str
    lines: tuple[str, ...]

    untried: str | None
    """Why no test runs or checks it."""

    taken_as: str | None
    """What a piece of YAML belongs to, where that does not show."""

    elsewhere: str | None = None
    """The test that runs it, as `FILE::NAME`."""

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)

    @property
    def file(self) -> str | None:
        """The file that it shows, where its first line is a comment with a path."""
        found = _FILE.fullmatch(self.lines[0]) if self.lines else None
        return found["path"] if found else None

    def at(self, number: int) -> Place:
        """The place of one of its lines, counted from 0."""
        return Place(self.place.page, self.place.line + 1 + number)


def all_pages() -> list[Path]:
    """Everything that people read, generated pages included."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def parts(page: Path) -> Iterator[Event | Block]:
    """A page's events and blocks, in its order. Raises AssertionError where a block has no end or a remark no block."""
    kind, indent, began, inside = "", "", 0, list[str]()
    remarks: dict[str, str] = {}
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if began:
            if line.strip() == "```":
                said = [remarks.pop(word, None) for word in ("not run", "taken as", "run by")]
                yield Block(Place(page, began), kind, tuple(inside), *said)
                began, inside = 0, []
            else:
                inside.append(line.removeprefix(indent))
        elif fence := _FENCE.match(line):
            kind, indent, began = fence["kind"], fence["indent"], number
        elif remark := _REMARK.match(line):
            if remark["word"] == "run":
                yield Event(Place(page, number), remark["text"])
            else:
                remarks[remark["word"]] = remark["text"]
        elif line.strip():
            assert not remarks, f"{Place(page, number)}: a remark stands right before its block"
    assert not began, f"{Place(page, began)}: the block has no end"


def blocks(page: Path) -> list[Block]:
    return [part for part in parts(page) if isinstance(part, Block)]


@dataclass(frozen=True)
class Command:
    """One command of a block, and the lines that the page has it print."""

    place: Place
    text: str
    expected: tuple[str, ...]


def commands(block: Block) -> list[Command]:
    """Those of a `console` block: lines that begin with `$`, and those that a `\\` at the end continues.

    Raises:
        AssertionError: something stands before the first command.
    """
    found: list[tuple[int, str, list[str]]] = []
    for number, line in enumerate(block.lines):
        if found and found[-1][1].endswith("\\"):
            at, text, printed = found[-1]
            found[-1] = (at, f"{text[:-1]}{line.lstrip().removeprefix('> ')}", printed)
        elif line.startswith("$ "):
            found.append((number, line[2:], []))
        elif line.strip():
            assert found, f"{block.at(number)}: no command stands before this"
            found[-1][2].append(line)
    return [Command(block.at(number), text, tuple(printed)) for number, text, printed in found]
