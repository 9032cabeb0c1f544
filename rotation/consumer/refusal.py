"""What counts as a refusal of a credential, where the application does not say."""

from __future__ import annotations

from typing import Final

_STATUS: Final = ("status_code", "status", "code")
"""Where HTTP libraries and vendors' SDKs have the status: requests, httpx, openai; aiohttp; urllib."""
_SQLSTATES: Final = {"28P01", "28000"}
"""A wrong password; a role that may not log in (PostgreSQL, Appendix A, class 28)."""


def unauthorized(outcome: object) -> bool:
    """Whether an answer or an exception says that the credential is not accepted: HTTP 401, or PostgreSQL's class 28.

    403 is not one: it mostly means that a good credential may not do this, and trying it again helps nobody. A vendor that
    answers 403 to a dead key needs a predicate of your own.
    """
    for about in (outcome, getattr(outcome, "response", None)):
        if any(getattr(about, name, None) == 401 for name in _STATUS):
            return True
    return getattr(outcome, "sqlstate", None) in _SQLSTATES
