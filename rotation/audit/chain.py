"""How records become lines that hold each other: one chain for each writer, so that writers need not know each other.

    genesis ──sha256──► line 0 ──sha256──► line 1 ──sha256──► line 2 … its head, which an anchor names
       └ after

`after` is the last line that the writer found at the place, or the head of its own chain that broke off.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rotation.logs import masked_parts
from rotation.ports import Record

FORMAT: Final = 1
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9.-]")
_LONGEST_HOST: Final = 64


@dataclass(frozen=True, slots=True)
class Head:
    """The last line of a chain, as another line or an anchor names it."""

    writer: str
    seq: int
    hash: str
    """SHA-256 of the line, its final newline included; lower-case hexadecimal."""
    at: str = ""
    """When it was written, by its own account."""

    @classmethod
    def of(cls, line: str) -> Head | None:
        """The head that a whole line of a chain is; None for anything else."""
        shown = parsed(line)
        return None if shown is None else cls(shown["writer"], shown["seq"], digest(line), str(shown.get("at", "")))


def canonical(value: object) -> str:
    """JSON in one spelling: sorted keys, no spaces, ASCII. With the newline that ends a line."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n"


def digest(line: str) -> str:
    """What the next line has as `prev`."""
    return hashlib.sha256(line.encode()).hexdigest()


def parsed(line: str) -> dict[str, Any] | None:
    """A line of a chain as what it says; None where it is no such line, or not spelled as canonical() does."""
    try:
        shown = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(shown, dict) or type(shown.get("seq")) is not int:
        return None
    texts = (shown.get("writer"), shown.get("prev"), shown.get("at"))
    return shown if all(isinstance(text, str) for text in texts) and canonical(shown) == line else None


def beginning(genesis: Mapping[str, object], writer: str) -> str:
    """What a writer's first line has as `prev`."""
    return digest(canonical({**genesis, "writer": writer}))


def new_writer() -> str:
    """A random id, and the name of this machine: `9f2c…@web-3`."""
    host = _FOREIGN.sub("-", os.uname().nodename)[:_LONGEST_HOST]
    return f"{secrets.token_hex(8)}@{host or 'unnamed'}"


class Chain:
    """One writer's chain. Not for several threads at once.

    Parameters:
        installation, environment: whose trail it is.
        after: the line that this chain witnesses.
    """

    def __init__(self, installation: str, environment: str, after: Head | None = None) -> None:
        self.writer: Final = new_writer()
        self._genesis: Final[dict[str, object]] = {
            "environment": environment,
            "format": FORMAT,
            "installation": installation,
        }
        if after is not None:
            self._genesis["after"] = asdict(after)
        self._after = after
        self.head: Head | None = None

    @property
    def witnessed(self) -> Head | None:
        """What the next chain of the same process has to witness."""
        return self.head or self._after

    def draft(self, records: Sequence[Mapping[str, object]]) -> tuple[list[str], Head]:
        """The lines that these would be, and the head with them. They are in the chain once `head` is set to it."""
        lines, head = [], self.head
        for record in records:
            link: dict[str, object] = {"writer": self.writer, "seq": 0 if head is None else head.seq + 1}
            if head is None:
                link |= {"genesis": self._genesis, "prev": beginning(self._genesis, self.writer)}
            else:
                link["prev"] = head.hash
            line = canonical({**record, **link})
            head = Head(self.writer, int(str(link["seq"])), digest(line), str(record["at"]))
            lines.append(line)
        assert head is not None, "nothing to write"
        return lines, head


def shown(record: Record, who: Mapping[str, str], requests: Sequence[str]) -> dict[str, object]:
    """What a line says of a record, beside its place in the chain. Every living secret value is masked."""
    said = {name: value for name, value in asdict(record).items() if value not in (None, "", {}, False)}
    said |= {"at": record.at.isoformat(), "outcome": outcome(record)}
    if who:
        said["who"] = dict(who)
    if requests:
        said["requests"] = list(requests)
    # No record should hold a value; but reasons quote services, and what is written here stays.
    masked = masked_parts(said)
    assert isinstance(masked, dict)
    return masked


def outcome(record: Record) -> str:
    """How far the thing had come: `intended` before an effect; `done`, `failed`, or a verdict after it."""
    verb, _, end = record.event.rpartition(".")
    if verb and end in ("done", "failed"):
        return end
    if record.detail and (verdict := record.detail.get("verdict")):
        return verdict
    return "done" if record.event in _FOUND else "intended"


_FOUND: Final = frozenset({"proven", "closed", "last-use", "mismatch"})
"""Records of what was seen or has come about, with no effect of their own to follow."""
