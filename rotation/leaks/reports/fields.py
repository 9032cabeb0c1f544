"""What a field of a report is, whatever type it turns out to have: nothing, where that is a wrong one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

_DATE: Final = 64
"""Characters of the longest form of a date, with a margin."""
_GAP: Final = re.compile(r"\s+(?=[+-]\d)")


def mapping(item: object, *path: str) -> Mapping[str, object]:
    """The object at the end of this path; an empty one where there is none."""
    for name in path:
        item = item.get(name) if isinstance(item, dict) else None
    return item if isinstance(item, dict) else {}


def objects(item: object) -> Iterator[Mapping[str, object]]:
    """The objects of a list, without what else is in it."""
    if isinstance(item, list):
        yield from (each for each in item if isinstance(each, dict))


def text(item: Mapping[str, object], *names: str) -> str:
    """The first of these fields that is text and has any; else an empty text."""
    for name in names:
        value = item.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def number(item: Mapping[str, object], *names: str) -> int:
    """The first of these fields that is a whole number above zero; else 0."""
    for name in names:
        value = item.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 0


def yes_or_no(item: Mapping[str, object], name: str) -> bool | None:
    """The field, where it is a boolean."""
    value = item.get(name)
    return value if isinstance(value, bool) else None


def moment(item: Mapping[str, object], *names: str) -> datetime | None:
    """The first of these fields that is a date with an offset from UTC, in UTC.

    As ISO 8601 has it, and as Go prints it (`2021-11-05 13:05:11 +0000 UTC`).
    """
    for name in names:
        written = text(item, name)
        if not written or len(written) > _DATE:
            continue
        try:
            told = datetime.fromisoformat(_GAP.sub("", written.removesuffix(" UTC").strip()))
            return told.astimezone(UTC) if told.tzinfo else None
        except (ValueError, OverflowError):
            continue
    return None


def place(path: str, line: int = 0, commit: str = "", *, within: str = "") -> str:
    """`repository: path:line in commit`, of what there is."""
    spot = f"{path}:{line}" if path and line else path
    if commit:
        spot = f"{spot} in {commit[:12]}" if spot else f"commit {commit[:12]}"
    return f"{within}: {spot}" if within and spot else spot or within
