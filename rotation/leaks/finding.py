"""What one line of a leak report comes to, whatever tool wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rotation.model import SecretValue


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """What a scanner found of one credential, in one place or in many.

    Where none of `value`, `key_id`, `redacted` and `hashed` is there, the report withholds it, and nothing but `where` and `lookup` tells
    what it is of. Nothing but `value` and `parts` may hold a value: what a tool quotes around it is left behind.
    """

    source: str
    """The tool or service that reported it: `gitleaks`, `trufflehog`, `github`, `gitguardian`, `value`."""
    value: SecretValue | None
    """The whole of what was found: `id:secret`, a connection string or a JSON object too, where the tool has it so."""
    redacted: str | None
    """The value with its middle or its end left out, where that is all the report has: `sk-proj-...WXYZ`, never more
    than 16 characters before the dots and 4 after them, or 8 before the dots alone."""
    rule: str = ""
    """What the tool takes it for, in its own word: `openai-api-key`."""
    where: str = ""
    """A file and line, a commit, or an address; for people. Of several the first few, and how many more there are."""
    found_at: datetime | None = None
    """Aware, UTC; when the tool found it first."""
    public: bool | None = None
    """Whether anybody could have read it there; None where the report does not tell."""
    parts: tuple[SecretValue, ...] = ()
    """The fields that make up `value`, where it has several: the secret of `id:secret`, the password of an address."""
    key_id: str = ""
    """The issuer's id of the credential, never secret, where the tool gives one: `AKIA...` of Amazon Web Services."""
    hashed: str = ""
    """Algorithm and hex digest, where that is all the report has: `hmsl:05975a...` (rotation.leaks.reports.hmsl)."""
    hits: int = 1
    """In how many places it was found."""
    since: datetime | None = None
    """Aware, UTC; since when it is there, as the date of the commit: the earliest of them."""
    works: bool | None = None
    """Whether the tool has seen it accepted (True) or refused (False); None where it did not ask or does not know."""
    status: str = ""
    """What became of it in the tool, in its own words: `open`, `resolved: revoked`."""
    lookup: str = ""
    """Where the report withholds the value: the address at the service's API that has it, for who may read it.
    As the report has it; see that it is the service's before anything is sent there."""

    @property
    def candidates(self) -> tuple[SecretValue, ...]:
        """Whatever may be the value of a credential's field, each once: the whole and its parts."""
        return self.parts if self.value is None else (self.value, *self.parts)

    @property
    def withheld(self) -> bool:
        """Whether the report tells that there is something, and nothing by which to know it."""
        return not (self.candidates or self.key_id or self.redacted or self.hashed)
