"""What a delivery of GitHub's says: whether it is signed, and which alert it is about. Pure.

Sources, 2026-11: docs.github.com, "Validating webhook deliveries" (HMAC-SHA256 of the body as it came, in hexadecimal,
after `sha256=`), "Best practices for using webhooks" (an answer within 10 seconds; the delivery's id stays the same when
it is sent again; nothing that failed is sent again by itself) and "Webhook events and payloads", secret_scanning_alert;
github/rest-api-description, schema secret-scanning-alert-webhook: it has no field for the value.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import Final

from rotation.model import SecretValue

SIGNATURE: Final = "X-Hub-Signature-256"
EVENT: Final = "X-GitHub-Event"
ID: Final = "X-GitHub-Delivery"

ALERT: Final = "secret_scanning_alert"
PING: Final = "ping"
ACTS: Final = ("created", "reopened", "publicly_leaked")
"""Actions of an alert that say that something is to be done. Of the others somebody has seen to it, or will be told by
one of these."""

_REPOSITORY: Final = re.compile(r"[A-Za-z0-9._-]{1,100}/(?!\.\.?$)[A-Za-z0-9._-]{1,100}")
_ID: Final = re.compile(r"[A-Za-z0-9-]{8,64}")
_MOST: Final = 2**53


class Malformed(Exception):  # noqa: N818 - reads as what it is where it is caught
    """Not what GitHub sends. The text says what is wrong, and has nothing of the body."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert that something is to be done about."""

    repository: str
    """`owner/name`."""
    number: int
    action: str
    """One of ACTS."""
    digest: str
    """Of the body that was signed: what is sent again, by whomever, has the same."""

    def __str__(self) -> str:
        return f"alert {self.number} of {self.repository}"


def signed(secret: SecretValue, body: bytes, signature: str | None) -> bool:
    """Whether a body carries the signature that this secret gives it; compared in constant time."""
    expected = hmac.new(secret.reveal().encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(f"sha256={expected}".encode(), (signature or "").encode(errors="replace"))


def sound_id(text: str | None) -> bool:
    """Whether this can be a delivery's id: it is written down and logged."""
    return text is not None and _ID.fullmatch(text) is not None


def read(event: str | None, body: bytes) -> Alert | str:
    """What a signed body is about: an alert, or in words why nothing is to be done.

    Raises:
        Malformed: it is not what GitHub sends with such an event.
    """
    if event == PING:
        return "pong"
    if event != ALERT:
        return "not an event that is acted on"
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("the body is not JSON") from None  # the error quotes it
    if not isinstance(found, dict):
        raise Malformed("the body is not a JSON object")
    action = found.get("action")
    if not isinstance(action, str):
        raise Malformed("the body has no action")
    if action not in ACTS:
        return "not an action that is acted on"
    alert, repository = found.get("alert"), found.get("repository")
    number = alert.get("number") if isinstance(alert, dict) else None
    name = repository.get("full_name") if isinstance(repository, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < _MOST:
        raise Malformed("the alert has no number")
    if not isinstance(name, str) or not _REPOSITORY.fullmatch(name):
        raise Malformed("the repository has no name")
    return Alert(name, number, action, hashlib.sha256(body).hexdigest())
