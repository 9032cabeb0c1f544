"""Reads what detect-secrets writes: the JSON of `detect-secrets scan`, which is what a baseline file holds, too.

Source: github.com/Yelp/detect-secrets 1.5: detect_secrets/core/potential_secret.py (json(): type, filename, hashed_secret,
line_number) and core/baseline.py. It never writes values, only their SHA-1. But it scans files that lie here: of a line
that is known to hold the value, the value is what has that digest.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from rotation.leaks.reports import fields
from rotation.leaks.reports.gathering import SHORTEST, Hit, Skip

_LONGEST_LINE: Final = 100_000
"""Characters. Of longer ones, as in what a bundler writes, the beginning is looked at."""
_LONGEST_FILE: Final = 16 * 1024**2
_EDGES: Final = re.compile(r"[\s\"'`=:,;@/(){}\[\]<>|&?#\\]")
"""What a value may begin after and end before. They may stand in values, too, so all pairs of them are tried."""
_FURTHEST: Final = 24
"""Edges from where a value begins to where it ends, at most."""
_DIGEST: Final = re.compile(r"[0-9a-f]{40}")


def read(item: Mapping[str, object]) -> Iterator[Hit | Skip] | None:
    """The hits of one scan; None for an object that is none."""
    if "results" not in item or not item.keys() & {"plugins_used", "filters_used", "generated_at"}:
        return None
    return _hits(fields.mapping(item, "results"))


def _hits(results: Mapping[str, object]) -> Iterator[Hit | Skip]:
    for path, found in results.items():
        seen: set[tuple[str, int]] = set()  # several of its plugins may tell of one value
        for number, each in enumerate(found if isinstance(found, list) else [found], 1):
            told = fields.mapping(each)
            digest, line = fields.text(told, "hashed_secret"), fields.number(told, "line_number")
            if not _DIGEST.fullmatch(digest):
                yield Skip("without the digest of a secret", f"result {number} of a file")
                continue
            if (digest, line) in seen:
                continue
            seen.add((digest, line))
            yield Hit(
                source="detect-secrets",
                hashed=f"sha1:{digest}",
                rule=fields.text(told, "type"),
                place=fields.place(path, line),
                works=True if told.get("is_verified") is True else None,
                lies=(path, line),
            )


def value_in(root: Path, path: str, line: int, hashed: str) -> str:
    """The text that has this digest, from the line of a file where it was found; empty where it is not there (any more).

    Parameters:
        root: the folder that was scanned. Files outside of it are not looked at: a report may name any.
        path: as the report has it.
        line: counted from 1.
        hashed: as in Hit.hashed, by SHA-1.
    """
    algorithm, _, digest = hashed.partition(":")
    if algorithm != "sha1" or line < 1:
        return ""
    text = _line(root, path, line)
    return next((part for part in _parts(text) if _sha1(part) == digest), "")


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def _line(root: Path, path: str, line: int) -> str:
    try:
        file = (root / path).resolve()
        if not (file.is_relative_to(root.resolve()) and file.is_file() and file.stat().st_size <= _LONGEST_FILE):
            return ""
        with file.open(encoding="utf-8", errors="replace") as lines:
            return next(itertools.islice(lines, line - 1, line), "")[:_LONGEST_LINE].rstrip("\n")
    except (OSError, ValueError):  # no such file, or a name that can be none
        return ""


def _parts(text: str) -> Iterator[str]:
    """Whatever of a line may be a value: from the edge of a word to a later one, the shortest first."""
    starts = [0, *(edge.end() for edge in _EDGES.finditer(text))]
    ends = [*(edge.start() for edge in _EDGES.finditer(text)), len(text)]
    for apart in range(_FURTHEST):
        for at, end in zip(starts, ends[apart:], strict=False):
            if end - at >= SHORTEST:
                yield text[at:end]
