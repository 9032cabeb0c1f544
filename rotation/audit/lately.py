"""Which keys the audit trail says were shown dead of late: their secrets' journals have forgotten them by then.

Looks into files alone, the first that a trail is kept in: whatever else a trail is kept in costs a request for each object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rotation.audit.files import FilePlace
from rotation.audit.verify import entries


@dataclass(frozen=True, slots=True)
class ShownDead:
    """One proof."""

    entry: str
    """Of the secret, in its primary store."""
    key_id: str
    at: datetime


def shown_dead(auditor: Any, since: datetime) -> Iterator[ShownDead]:
    """The proofs of this time, oldest first.

    Parameters:
        auditor: a trail, or what a command wraps it in. One that keeps no file has nothing to tell.

    Raises:
        Trouble: the file can not be read.
    """
    places = getattr(getattr(auditor, "auditor", auditor), "places", ())
    file = next((place for place in places if isinstance(place, FilePlace)), None)
    for entry in entries(file.read()) if file else ():
        line = entry.line
        if line["event"] != "proven" or not isinstance(key_id := line.get("key_id"), str):
            continue
        try:
            at = datetime.fromisoformat(line["at"])
        except ValueError:
            continue
        if at.tzinfo is not None and at >= since:
            yield ShownDead(str(line.get("secret", "")), key_id, at)
