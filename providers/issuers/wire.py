"""One request to a vendor and its answer: sent once, followed nowhere, within limits of time and size.

What came back is judged by status and by the few places that a description names; nothing else of an answer is
kept, logged or put into a message.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from providers.issuers.language import Expression, is_loopback, read_time
from rotation.model import values_alive
from rotation.ports import Clock
from rotation.skew import Skew
from rotation.telemetry import heard

if TYPE_CHECKING:
    import requests

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0
"""Of silence."""
CALL_SECONDS: Final = 50.0
"""For an answer in all; within the minute that the engine grants to one call."""
LATEST_SECONDS: Final = 40.0
"""What rests on a look goes out at most this long after it, whatever logging in and waiting took."""
MAX_ANSWER_BYTES: Final = 1 << 20
_CHUNK: Final = 1 << 16
_WORD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,80}")
PLAIN: Final = re.compile(r"[\x20-\x7e]{1,200}")
TELLING: Final = 6
"""From this length on, a secret or a piece of one is not repeated."""
_RATE: Final = re.compile(r"(?:[a-z]+-){0,2}rate-?limit-(?:([a-z-]+)-)?(limit|remaining|reset)(?:-([a-z-]+))?")
_ITEM: Final = re.compile(r'"?([A-Za-z-]{1,40})"?((?:;[a-z]+=[^;,]*)+)')
"""Of the structured fields RateLimit and RateLimit-Policy (IETF draft-ietf-httpapi-ratelimit-headers)."""
_PARTS: Final = {"r": "remaining", "t": "reset", "q": "limit"}
_SPAN: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")
_EPOCH: Final = 1_000_000_000
"""Seconds: a larger number is a point in time."""
LONGEST_REST: Final = 3600.0
"""Seconds; a vendor that asks for more is asked again after this."""


Moment = tuple[float, datetime]
"""By the monotonic clock and by the wall's."""


def rate(header: str) -> tuple[str, str] | None:
    """What a header says of a rate limit, `limit`, `remaining` or `reset`, and of which; None for any other header.

    Parameters:
        header: its name in lower case: `x-ratelimit-remaining-requests`, `anthropic-ratelimit-requests-reset`.
    """
    found = _RATE.fullmatch(header)
    return (found[2], found[1] or found[3] or "") if found else None


def _spread(headers: Mapping[str, str]) -> dict[str, str]:
    """What the structured fields say, as headers of their own."""
    found = {}
    for name in ("ratelimit", "ratelimit-policy"):
        for limit, parts in _ITEM.findall(headers.get(name, "")[:500]):
            given = dict(part.split("=", 1) for part in parts.strip(";").split(";"))
            for key in _PARTS.keys() & given.keys():
                found[f"ratelimit-{_PARTS[key]}-{limit.lower()}"] = given[key]
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a vendor answered. The body may hold a fresh credential: it never leaves the issuer."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: Any = field(repr=False)
    """Parsed JSON; None when it is empty or something else."""
    error: str | None
    """The vendor's own word for an error, where there is one that is fit for a message."""
    request_id: str | None
    milliseconds: int

    def __str__(self) -> str:
        words = [f"HTTP {self.status}"]
        if self.error:
            words.append(self.error)
        if self.request_id:
            words.append(f"request {self.request_id}")
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer that could be read."""

    reason: str
    sent: bool
    """The request may have reached the vendor."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A request with everything filled in. Holds credentials: it never leaves the issuer."""

    method: str
    url: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    body: Any = field(repr=False)
    form: Mapping[str, str] | None = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    """What must not come back in a message."""


class Wire:
    """Connections to a vendor, and what its answers say beside their bodies.

    Parameters:
        request_id: the header in which the vendor names a request.
        error_code: where an error says which it is.
        clock: for time limits, latencies and HTTP dates.
    """

    def __init__(self, request_id: str, error_code: Expression | None, clock: Clock) -> None:
        self._request_id = request_id.lower()
        self._error_code = error_code
        self._clock = clock
        self._sessions: dict[tuple[str, bool], requests.Session] = {}
        self._lock = threading.Lock()
        self.skew: Final = Skew(clock)
        self.rates: Final[dict[str, str]] = {}
        """Rate-limit headers by name in lower case, as last heard."""

    def send(
        self,
        call: Call,
        kind: Literal["admin", "verify"],
        until: float | None = None,
        begun: Moment | None = None,
    ) -> Answer | Silence:
        """Sends a request, once, and reads its answer within the limits.

        Parameters:
            kind: administrative requests and shown credentials share no connection.
            until: on the monotonic clock, when the answer must be there at the latest.
            begun: of a change, when its operation began: it goes out soon after that, or not at all.
        """
        import requests  # noqa: PLC0415 - only who asks a vendor pays for it
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        started = self._clock.monotonic()
        # A machine that slept may not have counted that; its wall clock has.
        if begun and max(started - begun[0], (self._clock.now() - begun[1]).total_seconds()) > LATEST_SECONDS:
            return Silence("getting ready took too long; it was not sent", sent=False)
        end = min(started + CALL_SECONDS, until or float("inf"))
        if end <= started:
            return Silence("its time is over", sent=False)
        silent = min(READ_SECONDS, end - started)
        try:
            with self._session(kind, call.url).request(
                call.method,
                call.url,
                params=call.query,
                json=call.body,
                data=call.form,
                auth=_Headers(call.headers),
                timeout=(min(CONNECT_SECONDS, silent), silent),
                allow_redirects=False,
                stream=True,
            ) as response:
                raw = bytearray()
                for chunk in response.iter_content(_CHUNK):
                    raw += chunk
                    if len(raw) > MAX_ANSWER_BYTES:
                        return Silence(f"the answer has more than {MAX_ANSWER_BYTES} bytes", sent=True)
                    if self._clock.monotonic() > end:
                        return Silence(f"the answer took more than {end - started:.0f} s", sent=True)
                named = {header.lower(): text for header, text in response.headers.items()}
                self.skew.heard(named.get("date"))
                named = {**_spread(named), **named}
                self.rates.update({header: text for header, text in named.items() if rate(header)})
                body = _parsed(bytes(raw))
                error = text_of(self._error_code.find(body)) if self._error_code else None
                request_id = named.get(self._request_id)
                request_id = request_id if request_id and fit(_WORD, request_id, call.secrets) else None
                heard(request_id, checked=True)
                return Answer(
                    status=response.status_code,
                    headers=named,
                    body=body,
                    error=error if error and fit(_WORD, error, call.secrets) else None,
                    request_id=request_id,
                    milliseconds=round((self._clock.monotonic() - started) * 1000),
                )
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            # Kept out of what is raised later: it carries the request, and with it a credential.
            return _silence(error)

    def rest(self, answer: Answer) -> float | None:
        """Seconds that the vendor asks to wait after an answer; None when it does not.

        Retry-After (RFC 9110, 10.2.3: seconds or a date) first; else of each limit of which nothing remains, the
        time to its reset: seconds, a point in time since 1970 or in ISO 8601, or as in `6m0s`.
        """
        if (told := answer.headers.get("retry-after-ms", "")).isdecimal() and len(told) < 12:
            return int(told) / 1000
        text = answer.headers.get("retry-after", "")
        if text.isdecimal() and len(text) < 10:
            return float(text)
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            pass
        else:
            return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - self._clock.now()).total_seconds())
        waits = []
        for header, said in answer.headers.items():
            if (limit := rate(header)) and limit[0] == "remaining" and said.strip() == "0":
                reset = answer.headers.get(header.replace("remaining", "reset"), "")
                waits.append(self._until(reset))
        known = [wait for wait in waits if wait is not None]
        return min(max(known), LONGEST_REST) if known else None

    def _until(self, reset: str) -> float | None:
        """Seconds until a limit is reset."""
        if "T" in reset and (at := read_time(reset[:40], "iso8601")):
            return max(0.0, (at - self._clock.now()).total_seconds())
        try:
            number = float(reset) if len(reset) < 20 else float("nan")
        except ValueError:
            found = _SPAN.fullmatch(reset) if reset and len(reset) < 20 else None
            if found is None:
                return None
            hours, minutes, seconds, millis = (float(part or 0) for part in found.groups())
            return hours * 3600 + minutes * 60 + seconds + millis / 1000
        if not 0 <= number < float("inf"):
            return None
        return max(0.0, number - self._clock.now().timestamp()) if number > _EPOCH else number

    def close(self) -> None:
        with self._lock:
            for session in self._sessions.values():
                session.close()
            self._sessions.clear()

    def _session(self, kind: str, url: str) -> requests.Session:
        """One for administrative requests and one for shown credentials, so that the two share nothing."""
        import requests  # noqa: PLC0415

        local = is_loopback(urlsplit(url).hostname or "")
        with self._lock:
            if (kind, local) not in self._sessions:
                session = requests.Session()
                session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
                session.headers["User-Agent"] = "keyturn"
                # A proxy has no business between two processes of one machine.
                session.trust_env = not local
                self._sessions[kind, local] = session
            return self._sessions[kind, local]


class _Headers:
    """Sets headers last of all. An auth object of one's own also keeps requests from reading ~/.netrc."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._headers)
        return request


def _silence(error: BaseException) -> Silence:
    """Why there is no answer, by the kinds of error in the chain; their texts may quote what was sent."""
    import requests  # noqa: PLC0415
    from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError  # noqa: PLC0415

    chain: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        link = waiting.pop()
        if isinstance(link, BaseException) and link not in chain:
            chain.append(link)
            waiting += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]

    def among(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if among(NameResolutionError):
        return Silence("the vendor's host name is not known", sent=False)
    if among(ssl.SSLCertVerificationError):
        return Silence("the vendor's TLS certificate can not be verified", sent=False)
    if among(requests.ConnectTimeout, ConnectTimeoutError):
        return Silence(f"no connection within {CONNECT_SECONDS:.0f} s", sent=False)
    if among(NewConnectionError):
        return Silence("no connection", sent=False)
    if among(requests.Timeout, TimeoutError):
        return Silence(f"no answer within {READ_SECONDS:.0f} s", sent=True)
    return Silence(f"the connection failed ({type(error).__name__})", sent=True)


def text_of(found: Any) -> str | None:
    """A text or whole number as text; None for anything else, and for an empty text."""
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return found if isinstance(found, str) and found else None


def fit(pattern: re.Pattern[str], text: str, secrets: tuple[str, ...]) -> bool:
    """Whether a text from outside may stand in a message or record: it is plain and repeats nothing secret."""
    return pattern.fullmatch(text) is not None and not any(
        (len(secret) >= TELLING and secret in text) or (len(text) >= TELLING and text in secret)
        for secret in (*secrets, *values_alive())
    )


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        return None
