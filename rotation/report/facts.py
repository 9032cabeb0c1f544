"""What a report is made from: metadata, the audit trail, and the records of incidents and drills. Never a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rotation.incident.evidence import Evidence
from rotation.incident.record import Incident
from rotation.model import Policy

Line = Mapping[str, Any]
"""A record of the audit trail as it was read; see docs/audit.md. Nobody has vouched for it."""


@dataclass(frozen=True, slots=True)
class Known:
    """One secret that a store lists."""

    entry: str
    """Its name in the store."""
    policy: Policy
    """The applied one."""
    facts: Mapping[str, str]
    """Of its journal, as far as the listing tells; see rotation.ports.Listed."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that was gathered at one moment."""

    installation: str
    environment: str
    stack: str
    """The stack file's name."""
    at: datetime
    """Aware, UTC."""
    secrets: Sequence[Known] = ()
    declared: Sequence[Policy] = ()
    """As the stack file has them, applied or not."""
    silent: frozenset[str] = frozenset()
    """Stores that did not list all of their entries: what is not among `secrets` may be there all the same."""
    troubles: Sequence[str] = ()
    """What could not be looked at, for people."""
    trail: str = ""
    """Where the records were read; empty where none could be."""
    lines: Iterable[Line] = ()
    """The records; read through once, so that a long trail need not fit into memory."""
    incidents: Sequence[Incident] = ()
    drills: Sequence[Evidence] = ()
    only: frozenset[str] = field(default_factory=frozenset)
    """Names that were asked for; empty for all."""
