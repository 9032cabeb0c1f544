"""What one line of a leak report comes to, whatever tool wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rotation.model import SecretValue


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """One place in which a scanner found what looks like a credential.

    At least one of `value` and `redacted` is there. Nothing but `value` may hold a value: what a tool quotes around it is left behind.
    """

    source: str
    """The tool or service that reported it: `gitleaks`, `trufflehog`, `github`, `gitguardian`, `value`."""
    value: SecretValue | None
    redacted: str | None
    """The value with its middle left out, where that is all the report has, as in `sk-proj-...WXYZ`."""
    rule: str = ""
    """What the tool takes it for, in its own word: `openai-api-key`."""
    where: str = ""
    """A file and line, a commit, or an address; for people."""
    found_at: datetime | None = None
    """Aware, UTC; when the tool found it."""
    public: bool | None = None
    """Whether anybody could have read it there; None where the report does not tell."""
