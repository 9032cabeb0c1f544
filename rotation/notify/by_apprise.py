"""Channels of Apprise: Slack, Teams, PagerDuty, e-mail, webhooks and the rest.

What there is: https://appriseit.com/services/. Apprise's own log has addresses and answers in it, so none of it goes to ours; of what it says about a failure only the
HTTP status is taken.
"""

from __future__ import annotations

import logging
import re
import threading
from typing import Final

from rotation import extras
from rotation.errors import Code, Trouble
from rotation.model import SecretValue
from rotation.notify.courier import judged
from rotation.notify.telling import Message
from rotation.ports import Severity

_KINDS: Final = {Severity.INFO: "info", Severity.WARNING: "warning", Severity.CRITICAL: "failure"}
_STATUS: Final = re.compile(r"\berror[=:] ?([1-5][0-9]{2})\b", re.IGNORECASE)
_LIBRARIES: Final = ("oauthlib", "requests_oauthlib", "urllib3")
"""Those of Apprise's libraries that tell, at lower levels, a token or an address with one in it."""


def send(service: str, address: SecretValue, message: Message, limit: float) -> None:
    """Brings a message to whatever an Apprise URL names.

    Parameters:
        service: starts what is told of failures.
        limit: seconds for a connection, and for an answer, at most; the URL may ask for less (`cto`, `rto`).

    Raises:
        Trouble: it was not taken, as far as that can be told.
    """
    if (lacking := extras.lacking(("apprise",))) is not None:
        raise Trouble(Code.INVALID, service, lacking)
    import apprise  # noqa: PLC0415 - 0.2 s, and only for who has such a channel

    heard = _listening()
    # Redirects would take the message, and the token with it, to whatever place an answer names.
    asset = apprise.AppriseAsset(http_redirects=False)
    place = apprise.Apprise.instantiate(address.reveal().strip(), asset=asset, suppress_exceptions=True)
    if place is None:
        raise Trouble(Code.INVALID, service, "what its reference gives is no URL that Apprise knows")
    place.socket_connect_timeout = min(place.socket_connect_timeout, limit)
    place.socket_read_timeout = min(place.socket_read_timeout, limit)
    heard.begin()
    taken = place.notify(body=message.text, title=message.subject, notify_type=_KINDS[message.severity])
    if not taken:
        if (status := heard.status()) is not None:
            raise Trouble(judged(status), service, f"it answered {status}")
        raise Trouble(Code.UNAVAILABLE, service, "it was not reached, or did not take the message")


class _Listener(logging.Filter):
    """Takes the HTTP status out of what Apprise says in this thread, and lets nothing out to any handler."""

    def __init__(self) -> None:
        super().__init__()
        self._heard = threading.local()

    def begin(self) -> None:
        self._heard.status = None

    def status(self) -> int | None:
        status: int | None = getattr(self._heard, "status", None)
        return status

    def filter(self, record: logging.LogRecord) -> bool:
        if found := _STATUS.search(record.getMessage()):
            self._heard.status = int(found[1])
        return False


_listener: Final = _Listener()


def _listening() -> _Listener:
    own = logging.getLogger("apprise")
    if _listener not in own.filters:
        own.addFilter(_listener)
    own.setLevel(logging.WARNING)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    return _listener
