"""The value that an alert is about, from GitHub's REST API. It lives in this process's memory, and nowhere else.

Source: docs.github.com, "REST API endpoints for secret scanning", Get a secret scanning alert; API version 2022-11-28. A
fine-grained token needs the repository permission "Secret scanning alerts" (read), a classic one the scope `repo` or
`security_events`, and whoever has it must administer the repository.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from rotation.errors import Code, Trouble
from rotation.leaks import reports
from rotation.model import SecretValue
from rotation.ports import Clock
from rotation.resilience import Service
from rotation.webhook.delivery import Alert

if TYPE_CHECKING:
    import requests

    from rotation.leaks.finding import Finding

NAME: Final = "github"
_SECONDS: Final = (5.0, 20.0)
"""For the connection, and between two parts of an answer."""
_WHOLE: Final = 30.0
"""Seconds for an answer."""
_LONGEST: Final = 4 * 1024 * 1024
_CHUNK: Final = 65_536
_CODES: Final = {
    401: (Code.DENIED, "refuses the token"),
    403: (Code.DENIED, "does not let the token read secret-scanning alerts"),
    404: (Code.NOT_FOUND, "has no such alert, or does not let the token see it"),
    429: (Code.THROTTLED, "gets too many requests"),
}


class Alerts:
    """A client of GitHub's API that reads alerts, one at a time.

    Parameters:
        api: `https://api.github.com`, or that of a server of one's own.
        token: gives the token, afresh each time.
        service: patience with it.
    """

    def __init__(self, api: str, token: Callable[[], SecretValue], service: Service, clock: Clock) -> None:
        self._api = api
        self._token = token
        self._service = service
        self._clock = clock
        self._session: requests.Session | None = None

    def findings(self, alert: Alert) -> tuple[Finding, ...]:
        """What the alert has found, with its value; nothing where it is not open any more.

        The address is made here, of what is declared and of a name and a number: whatever a delivery says, the token
        goes nowhere else.

        Raises:
            Trouble: it can not be read. ConfigError: the token is not there.
        """
        raw = self._service.call("alert", lambda: self._asked(alert), repeatable=True)
        try:
            report = reports.read(io.BytesIO(raw), name=str(alert))
        except reports.ReportFault as fault:
            raise Trouble(Code.INVALID, NAME, f"{alert}: {fault}") from None
        if report.skipped:
            raise Trouble(Code.INVALID, NAME, f"{alert}: nothing can be made of it: {report.skipped[0]}")
        return tuple(one for one in report.findings if not one.status.startswith("resolved"))

    def _asked(self, alert: Alert) -> bytes:
        import requests  # noqa: PLC0415 - for this command alone
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        url = f"{self._api}/repos/{quote(alert.repository, safe='/')}/secret-scanning/alerts/{alert.number}"
        headers = {
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
            "Authorization": f"Bearer {self._token().reveal()}",
        }
        began = self._clock.monotonic()
        try:
            with self._client().get(
                url, headers=headers, timeout=_SECONDS, allow_redirects=False, stream=True
            ) as answer:
                raw = bytearray()
                for chunk in answer.iter_content(_CHUNK):
                    raw += chunk
                    if len(raw) > _LONGEST or self._clock.monotonic() - began > _WHOLE:
                        raise Trouble(Code.INVALID, NAME, f"{alert}: the answer does not end")
                status, after = answer.status_code, answer.headers.get("Retry-After", "")
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            # Its text may have the request in it, and with that the token.
            raise Trouble(Code.UNAVAILABLE, NAME, f"{alert}: {type(error).__name__}") from None
        if status == requests.codes.ok:
            return bytes(raw)
        usual = Code.UNAVAILABLE if status >= requests.codes.server_error else Code.INVALID
        code, told = _CODES.get(status, (usual, f"answers {status}"))
        wait = float(after) if after.isdecimal() and len(after) < 5 else None
        if wait is not None and status == requests.codes.forbidden:
            code = Code.THROTTLED  # its secondary limit
        raise Trouble(code, NAME, f"{alert}: {told}", retry_after=wait if code is Code.THROTTLED else None)

    def _client(self) -> requests.Session:
        import requests  # noqa: PLC0415

        if self._session is None:
            self._session = requests.Session()
            self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            self._session.headers["User-Agent"] = "keyturn"
            # Not a proxy, nor a .netrc, for another process of this machine.
            self._session.trust_env = urlsplit(self._api).hostname not in ("127.0.0.1", "localhost", "::1")
        return self._session
