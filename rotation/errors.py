"""The closed set of ways in which a store or an issuer can fail; callers act on a code, never on a message."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """Why a call did not do what was asked."""

    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    """The expected version was not the current one any more, or the name is taken."""
    DENIED = "denied"
    INVALID = "invalid"
    """The service understood and refused: a name, a size, a field."""
    LIMIT = "limit"
    """The issuer holds as many keys as it allows."""
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    """No answer, or a fault of the service. Whether the call took effect is open unless `applied` says no."""

    @property
    def permanent(self) -> bool:
        """Whether asking again the same way is pointless until a person has changed something."""
        return self in (Code.DENIED, Code.INVALID, Code.NOT_FOUND)


class Trouble(Exception):  # noqa: N818 - reads as what it is where it is caught
    """A call that failed, in words for the person who must act. Never holds a value.

    Parameters:
        code: what callers act on.
        service: the store's or issuer's configured name, which starts the message.
        message: what failed, on what.
        maybe_applied: True when the effect may have taken place although no good answer came.
        retry_after: seconds that the service asked to wait, when it did.
    """

    def __init__(
        self,
        code: Code,
        service: str,
        message: str,
        *,
        maybe_applied: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{service}: {message}")
        self.code = code
        self.service = service
        self.maybe_applied = maybe_applied
        self.retry_after = retry_after
