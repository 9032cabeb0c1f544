"""The declarative issuer: any vendor with an HTTP and JSON API, as its description tells.

Every request goes out once. What came back is judged by status and by the few places of the answer
that the description names; nothing else of an answer is kept, logged or put into a message.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import quote, unquote, urlsplit

from providers.issuers.language import ADMIN, BASE_URL, KEY_NAME, DescriptionFault, Expression, Template, is_loopback
from rotation.errors import Code, Trouble
from rotation.model import (
    Capabilities,
    Check,
    Credential,
    Issued,
    KeyInfo,
    LastUse,
    Propagation,
    SecretValue,
    Verdict,
    values_alive,
)
from rotation.ports import Clock, Diagnosis, Grade
from rotation.skew import Skew
from rotation.telemetry import heard

if TYPE_CHECKING:
    import requests

    from providers.issuers.description import Auth, Description, Item, Mint, Refusal, Request, Rule, Step

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0
"""Of silence."""
CALL_SECONDS: Final = 50.0
"""For an answer in all; within the minute that the engine grants to one call."""
MAX_ANSWER_BYTES: Final = 1 << 20
_CHUNK: Final = 1 << 16
_MAX_PAGES: Final = 10_000
_PASSES: Final = 4

_OURS: Final = re.compile(r"[a-z][a-z0-9-]*\.[a-z][a-z0-9-]*\.[^.]+")
"""The form of rotation.names.KeyName, whatever the installation."""
_WORD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,80}")
_PLAIN: Final = re.compile(r"[\x20-\x7e]{1,200}")
_TELLING: Final = 6
"""From this length on, a secret or a piece of one is not repeated."""
_RATE: Final = re.compile(r"(?:x-)?rate-?limit-(limit|remaining)(-[a-z-]+)?")
"""The two headers of one limit, as most vendors call them; what follows says of what."""
_LOW: Final = 0.1
"""Part of a limit below which what remains is warned of."""
_SOON: Final = timedelta(days=14)
"""An administrative credential should be good for so long."""
_LEFT_OUT: Final = re.compile(r"\.{2,}|\*{2,}|…")
_SENDABLE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """What a vendor answered. The body may hold a fresh credential: it never leaves this module."""

    status: int
    headers: Mapping[str, str]
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
class _Silence:
    """No answer that could be read."""

    reason: str
    sent: bool
    """The request may have reached the vendor."""


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """A request with everything filled in. Holds credentials: it never leaves this module."""

    method: str
    url: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    body: Any
    secrets: tuple[str, ...] = field(repr=False)
    """What must not come back in a message."""


class HttpIssuer:
    """An issuer that a description describes. Close it, or use it as a context manager, to end its connections.

    Parameters:
        name: the configured name, which starts every message.
        description: the vendor.
        variables: values of the description's variables; `baseUrl` may stand among them.
        admin: gives the administrative credential each time it is needed; verify() and smoke() never ask for it.
        clock: for time limits, latencies and HTTP dates.

    Raises:
        DescriptionFault: the variables are not what the description asks for.
    """

    def __init__(
        self,
        name: str,
        description: Description,
        variables: Mapping[str, str | int],
        admin: Callable[[], SecretValue],
        clock: Clock,
    ) -> None:
        if faults := description.faults_in(variables):
            raise DescriptionFault(name, faults)
        self.name: Final = name
        self._about = description
        self._admin = admin
        self._clock = clock
        self._skew: Final = Skew(clock)
        self._rates: Final[dict[str, str]] = {}
        """Rate-limit headers by name in lower case, as last heard."""
        self._base = str(variables.get(BASE_URL, description.base_url)).rstrip("/")
        defaults = {name: v.default for name, v in description.variables.items() if v.default is not None}
        self._values: Final[Mapping[str, str | int]] = {**defaults, **variables}
        self._way: Final = next(w for w in description.mint if w.when is None or w.when in self._values)
        abilities = description.capabilities
        self.capabilities: Final = Capabilities(
            max_keys=abilities.max_keys,
            tells_last_use=description.last_use is not None,
            smokes=description.smoke is not None,
            scope=_scope(self._base, {n: self._values.get(n, "") for n in description.listing.request.path.names}),
            create=Propagation(**dict(abilities.create)),
            revoke=Propagation(**dict(abilities.revoke)),
        )
        self._sessions: dict[str, requests.Session] = {}
        self._lock = threading.Lock()

    def mint(self, key_name: str, slot: str | None = None) -> Issued:  # noqa: ARG002 - has no slots
        way, what = self._way, f"minting the key {key_name}"
        answer = self._ask(what, way.request, {KEY_NAME: key_name}, writes=True)
        if answer.status not in way.ok:
            raise self._refused(what, answer, way.errors, writes=True)
        key_id = self._key_id(way, answer.body)
        values = {name: path.find(answer.body) for name, path in way.fields.items()}
        if key_id is None or not all(isinstance(value, str) and value for value in values.values()):
            told = f"the answer has no key id or no value ({answer}); the key may exist and is to be looked for"
            raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: {told}", maybe_applied=True)
        credential = Credential({name: SecretValue(value) for name, value in values.items()})
        created_at, expires_at = (time.read(answer.body) if time else None for time in (way.created_at, way.expires_at))
        return Issued(key_id, credential, created_at, expires_at)

    def keys(self) -> Iterator[KeyInfo]:
        pagination = self._about.listing.pagination
        if pagination is None or pagination.cursor:
            yield from (info for page in self._pages() for info in page)
            return
        # Where pages are counted, a key deleted meanwhile moves the others up, and one of them falls between two
        # pages. A key missed here would pass for dead, so the list must read the same twice.
        before: dict[str, KeyInfo] = {}
        for number in range(_PASSES):
            found = {info.key_id: info for page in self._pages() for info in page}
            if not found or (number and found.keys() == before.keys()):
                yield from found.values()
                return
            before = found
        raise Trouble(Code.UNAVAILABLE, self.name, f"listing keys: the list changed during each of {_PASSES} readings")

    def verify(self, credential: Credential) -> Check:
        return self._show(credential, self._about.verify.request, self._about.verify.rules)

    def smoke(self, credential: Credential) -> Check:
        smoke = self._about.smoke
        if smoke is None:
            return Check(Verdict.UNKNOWN, "no smoke test is described")
        refusals = tuple(rule for rule in self._about.verify.rules if rule.verdict is not Verdict.VALID)
        return self._show(
            credential, smoke.request, smoke.rules + refusals, record=smoke.record, headers=smoke.record_headers
        )

    def revoke(self, key_id: str) -> None:
        parts, what = _parts(key_id), f"revoking the key {key_id}"
        revoke = next((r for r in self._about.revoke if len(r.key_id) == len(parts)), None)
        if revoke is None:
            raise Trouble(Code.INVALID, self.name, f"{what}: this is no key id of {self._about.title}")
        named = dict(zip(revoke.key_id, parts, strict=True))
        for step in revoke.steps:
            self._revoke_by(step, what, named)

    def last_use(self, key_id: str) -> LastUse:
        asked, parts = self._about.last_use, _parts(key_id)
        form = next((r.key_id for r in self._about.revoke if len(r.key_id) == len(parts)), None)
        if asked is None or form is None:
            return LastUse(known=False)
        what = f"asking when the key {key_id} was last used"
        answer = self._ask(what, asked.request, dict(zip(form, parts, strict=True)))
        unknown = LastUse(known=False, granularity=asked.granularity)
        if asked.gone and answer.status in asked.gone:
            return unknown
        if answer.status not in asked.ok:
            raise self._refused(what, answer)
        if at := asked.at.read(answer.body):
            return LastUse(known=True, at=at, granularity=asked.granularity)
        if asked.at.path.find(answer.body) is None and asked.never and asked.never.holds(answer.body):
            return LastUse(known=True, granularity=asked.granularity)
        return unknown

    # --- looking round: see rotation.ports.ExaminedIssuer, TellsTime ------------------------------

    @property
    def skew(self) -> timedelta | None:
        return self._skew.last

    def examine(self) -> Iterator[Diagnosis]:
        """The age and the end of the administrative credential, and what is left of rate limits."""
        try:
            yield self._administrator()
        except Trouble as trouble:
            yield Diagnosis("admin credential's end", Grade.UNCHECKED, str(trouble))
        yield from self._limits()

    def close(self) -> None:
        with self._lock:
            for session in self._sessions.values():
                session.close()
            self._sessions.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- parts of the above ----------------------------------------------------------------------

    def _pages(self) -> Iterator[list[KeyInfo]]:
        """The list, page by page. Raises rather than end early: a key that is missed would pass for dead."""
        listing, what = self._about.listing, "listing keys"
        pagination = listing.pagination
        query: dict[str, str] = {}
        cursors: set[str] = set()
        count = 0
        for number in range(_MAX_PAGES):
            if pagination and pagination.offset:
                query = {pagination.offset.parameter: str(pagination.offset.start + count)}
            elif pagination and pagination.page:
                query = {pagination.page.parameter: str(pagination.page.start + number)}
            answer = self._ask(what, listing.request, {}, query=query)
            if answer.status not in listing.ok:
                raise self._refused(what, answer)
            items = listing.items.find(answer.body)
            if not isinstance(items, list):
                raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: the answer has no list ({answer})")
            count += len(items)
            yield [self._info(item, answer) for item in items]
            if pagination is None:
                return
            if pagination.cursor is None:
                if not items:
                    return
                continue
            more = pagination.cursor.more.find(answer.body) if pagination.cursor.more else None
            following = _text(pagination.cursor.next.find(answer.body))
            if pagination.cursor.more and not isinstance(more, bool):
                raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: a page does not say if it is the last ({answer})")
            if more is False or (pagination.cursor.more is None and following is None):
                return
            if following is None or following in cursors:
                raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: the list does not go on after a page ({answer})")
            cursors.add(following)
            query = {pagination.cursor.parameter: following}
        raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: the list has more than {_MAX_PAGES} pages")

    def _info(self, item: Any, answer: _Answer) -> KeyInfo:
        ways = self._about.listing.each
        names = [_text(way.name.find(item)) or "" for way in ways]
        way, name = next(((w, n) for w, n in zip(ways, names, strict=True) if _OURS.fullmatch(n)), (ways[0], names[0]))
        key_id = self._key_id(way, item)
        if key_id is None:
            raise Trouble(Code.UNAVAILABLE, self.name, f"listing keys: an item has no key id ({answer})")
        shown = _text(way.redacted.find(item)) if way.redacted else None
        # A text without a gap is no redacted form: whatever it is, it might be a value, and goes no further.
        redacted = shown if shown and _LEFT_OUT.search(shown) and _PLAIN.fullmatch(shown) else None
        return KeyInfo(key_id, name, way.created_at.read(item) if way.created_at else None, redacted)

    def _key_id(self, way: Mint | Item, found: Any) -> str | None:
        """None when a part is missing."""
        form = next(r.key_id for r in self._about.revoke if way.key_id.keys() == set(r.key_id))
        parts = [_text(way.key_id[part].find(found)) for part in form]
        return "/".join(quote(part, safe=":@=+,") for part in parts if part) if all(parts) else None

    def _revoke_by(self, step: Step, what: str, named: Mapping[str, str]) -> None:
        answer = self._ask(what, step.request, named, writes=True)
        for statuses in (step.ok, step.gone, step.next_on):
            if statuses and answer.status in statuses:
                return
        raise self._refused(what, answer, step.errors, writes=True)

    def _show(
        self,
        credential: Credential,
        request: Request,
        rules: tuple[Rule, ...],
        *,
        record: Mapping[str, Expression] | None = None,
        headers: tuple[str, ...] = (),
    ) -> Check:
        """Sends a request with the credential alone and judges the answer."""
        shown = {name: value.reveal() for name, value in credential.fields.items()}
        auth = self._about.verify.auth
        if missing := sorted({n for _, t in auth.templates() for n in t.names} - shown.keys() - self._values.keys()):
            return Check(Verdict.UNKNOWN, f"the credential has no field {' or '.join(missing)}")
        call = self._fill(request, {}, auth, shown)
        answer = _Silence(call, sent=False) if isinstance(call, str) else self._send(call, "verify")
        if isinstance(answer, _Silence):
            return Check(Verdict.UNKNOWN, answer.reason)
        facts = {"status": str(answer.status), "latency_ms": str(answer.milliseconds)}
        kept = {name: _text(path.find(answer.body)) for name, path in (record or {}).items()}
        kept |= {
            n.lower(): v for n, v in answer.headers.items() if any(fnmatchcase(n.lower(), p.lower()) for p in headers)
        }
        secrets = tuple(shown.values())
        facts |= {name: text for name, text in kept.items() if text and _fit(_PLAIN, text, secrets)}
        for rule in rules:
            if rule.matches(answer.status, answer.body):
                return Check(rule.verdict, f"{rule.reason} ({_brief(answer)})", answer.request_id, facts)
        return Check(Verdict.UNKNOWN, f"an answer that does not tell ({_brief(answer)})", answer.request_id, facts)

    def _administrator(self) -> Diagnosis:
        """What the vendor says of the administrative credential that is in use; it is told by its redacted value."""
        check, asked = "admin credential's end", self._about.admin
        if asked is None:
            return Diagnosis(check, Grade.UNCHECKED, f"{self._about.title} do not come with a way to ask for it")
        what = "asking about the administrative credential"
        answer = self._ask(what, asked.request, {})
        if answer.status not in asked.ok:
            raise self._refused(what, answer)
        value, items = self._admin().reveal(), asked.items.find(answer.body)
        found = (
            [item for item in items if _redacts(asked.redacted.find(item), value)] if isinstance(items, list) else []
        )
        if len(found) != 1:
            which = "several look like it" if found else "it is not among those that are listed first"
            return Diagnosis(check, Grade.UNCHECKED, which)
        name = _text(asked.name.find(found[0])) if asked.name else None
        told = f"it is called {name}" if name and _fit(_PLAIN, name, (value,)) else "it has no name"
        now = self._clock.now()
        if asked.created_at and (made := asked.created_at.read(found[0])):
            told += f", made {_days(now - made)} ago"
        ends = asked.expires_at.read(found[0]) if asked.expires_at else None
        if ends is None:
            return Diagnosis(check, Grade.GOOD, f"{told}; no end is told")
        told = f"{told}; ends {ends:%Y-%m-%d %H:%MZ}, in {_days(ends - now)}"
        if ends - now > _SOON:
            return Diagnosis(check, Grade.GOOD, told)
        remedy = "issuer's administrator: make a new one and put it where this one comes from, before it ends"
        return Diagnosis(check, Grade.WARNING, told, remedy)

    def _limits(self) -> Iterator[Diagnosis]:
        """One for each limit of which the vendor's answers have told, by its headers."""
        told: dict[str, dict[str, int]] = {}
        for header, text in dict(self._rates).items():
            if (parts := _RATE.fullmatch(header)) and text.isdecimal():
                told.setdefault((parts[2] or "").strip("-"), {})[parts[1]] = int(text)
        if not told:
            yield Diagnosis("quota", Grade.UNCHECKED, "its answers to questions carry no rate-limit headers")
        for of, numbers in sorted(told.items()):
            left, limit = numbers.get("remaining"), numbers.get("limit")
            if left is None:
                continue
            what = f"{left}{f' of {limit}' if limit is not None else ''} {of or 'requests'} left"
            if left and (limit is None or left > limit * _LOW):
                yield Diagnosis("quota", Grade.GOOD, what)
                continue
            remedy = (
                "issuer's administrator: see who else uses it up, or have it raised; a sweep asks again until it may"
            )
            yield Diagnosis("quota", Grade.WARNING if left else Grade.FAILING, what, remedy)

    # --- requests --------------------------------------------------------------------------------

    def _ask(
        self,
        what: str,
        request: Request,
        values: Mapping[str, str],
        *,
        query: Mapping[str, str] | None = None,
        writes: bool = False,
    ) -> _Answer:
        """An administrative request. Raises Trouble when there is no answer."""
        call = self._fill(request, values, self._about.auth, {ADMIN: self._admin().reveal()}, query)
        if isinstance(call, str):
            raise Trouble(Code.INVALID, self.name, f"{what}: {call}")
        answer = self._send(call, "admin")
        if isinstance(answer, _Silence):
            raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: {answer.reason}", maybe_applied=writes and answer.sent)
        return answer

    def _fill(
        self,
        request: Request,
        values: Mapping[str, str],
        auth: Auth,
        secrets: Mapping[str, str],
        query: Mapping[str, str] | None = None,
    ) -> _Call | str:
        """The request with everything filled in, or why it can not be sent."""
        known = {**self._values, **values}
        try:
            path = request.path.fill_path(known)
        except ValueError as error:
            return f"the path of the request: {error}"
        headers = {**_filled(self._about.headers, known), **_filled(request.headers, known)}
        headers |= _authentication(auth, {**known, **secrets})
        if not all(_SENDABLE.fullmatch(text) for text in headers.values()):
            return "a credential or variable has characters that an HTTP header can not carry, such as a line end"
        return _Call(
            method=request.method,
            url=self._base + path,
            query={**_filled(request.query, known), **(query or {})},
            headers=headers,
            body=_filled_json(request.body, known),
            secrets=tuple(text for text in secrets.values() if text),
        )

    def _send(self, call: _Call, session: Literal["admin", "verify"]) -> _Answer | _Silence:
        """Sends a request, once, and reads its answer within the limits."""
        import requests  # noqa: PLC0415 - only who asks a vendor pays for it
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        started = self._clock.monotonic()
        try:
            with self._session(session).request(
                call.method,
                call.url,
                params=call.query,
                json=call.body,
                auth=_Headers(call.headers),
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
                stream=True,
            ) as response:
                raw = bytearray()
                for chunk in response.iter_content(_CHUNK):
                    raw += chunk
                    if len(raw) > MAX_ANSWER_BYTES:
                        return _Silence(f"the answer has more than {MAX_ANSWER_BYTES} bytes", sent=True)
                    if self._clock.monotonic() - started > CALL_SECONDS:
                        return _Silence(f"the answer took more than {CALL_SECONDS:.0f} s", sent=True)
                named = {header.lower(): text for header, text in response.headers.items()}
                self._skew.heard(named.get("date"))
                self._rates.update({header: text for header, text in named.items() if _RATE.fullmatch(header)})
                body = _parsed(bytes(raw))
                error = _text(self._about.error_code.find(body)) if self._about.error_code else None
                request_id = response.headers.get(self._about.request_id)
                request_id = request_id if request_id and _fit(_WORD, request_id, call.secrets) else None
                heard(request_id, checked=True)
                return _Answer(
                    status=response.status_code,
                    headers=dict(response.headers),
                    body=body,
                    error=error if error and _fit(_WORD, error, call.secrets) else None,
                    request_id=request_id,
                    milliseconds=round((self._clock.monotonic() - started) * 1000),
                )
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            # Kept out of what is raised later: it carries the request, and with it a credential.
            return _silence(error)

    def _session(self, kind: str) -> requests.Session:
        """One for administrative requests and one for shown credentials, so that the two share nothing."""
        import requests  # noqa: PLC0415

        with self._lock:
            if kind not in self._sessions:
                session = requests.Session()
                session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
                session.headers["User-Agent"] = "keyturn"
                # A proxy has no business between two processes of one machine.
                session.trust_env = not is_loopback(urlsplit(self._base).hostname or "")
                self._sessions[kind] = session
            return self._sessions[kind]

    def _refused(
        self, what: str, answer: _Answer, errors: tuple[Refusal, ...] = (), *, writes: bool = False
    ) -> Trouble:
        """What an answer that is no success means, by the description first and by its status otherwise."""
        for refusal in errors:
            if refusal.matches(answer.status, answer.body):
                code, told = refusal.code, refusal.reason
                break
        else:
            code, told = _judged(answer.status)
        return Trouble(
            code,
            self.name,
            f"{what}: {told} ({answer})",
            maybe_applied=writes and code is Code.UNAVAILABLE,
            retry_after=self._retry_after(answer),
        )

    def _retry_after(self, answer: _Answer) -> float | None:
        """Seconds, from a number or an HTTP date (RFC 9110, 10.2.3)."""
        text = next((value for name, value in answer.headers.items() if name.lower() == "retry-after"), "")
        if text.isdecimal() and len(text) < 10:
            return float(text)
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            return None
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - self._clock.now()).total_seconds())


class _Headers:
    """Sets headers last of all. An auth object of one's own also keeps requests from reading ~/.netrc."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._headers)
        return request


def _judged(status: int) -> tuple[Code, str]:
    if status in (401, 403):
        return Code.DENIED, "the administrative credential was refused, or may not do this"
    if status in (404, 410):
        return Code.NOT_FOUND, "there is no such thing; check the configured ids"
    if status == 409:
        return Code.CONFLICT, "the vendor sees a conflict"
    if status == 429:
        return Code.THROTTLED, "too many requests"
    if 300 <= status <= 399:
        return Code.UNAVAILABLE, "redirected, which is not followed; check the base URL"
    if 400 <= status <= 499 and status not in (408, 425):
        return Code.INVALID, "the vendor refused the request"
    return Code.UNAVAILABLE, "the vendor failed"


def _silence(error: BaseException) -> _Silence:
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
        return _Silence("the vendor's host name is not known", sent=False)
    if among(ssl.SSLCertVerificationError):
        return _Silence("the vendor's TLS certificate can not be verified", sent=False)
    if among(requests.ConnectTimeout, ConnectTimeoutError):
        return _Silence(f"no connection within {CONNECT_SECONDS:.0f} s", sent=False)
    if among(NewConnectionError):
        return _Silence("no connection", sent=False)
    if among(requests.Timeout, TimeoutError):
        return _Silence(f"no answer within {READ_SECONDS:.0f} s", sent=True)
    return _Silence(f"the connection failed ({type(error).__name__})", sent=True)


def _authentication(auth: Auth, values: Mapping[str, str | int]) -> dict[str, str]:
    if auth.bearer:
        return {"Authorization": f"Bearer {auth.bearer.fill(values)}"}
    if auth.basic:
        pair = f"{auth.basic.username.fill(values)}:{auth.basic.password.fill(values)}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {name: template.fill(values) for name, template in (auth.headers or {}).items()}


def _filled(templates: Mapping[str, Template], values: Mapping[str, str | int]) -> dict[str, str]:
    return {name: template.fill(values) for name, template in templates.items() if not template.absent(values)}


def _filled_json(tree: Any, values: Mapping[str, str | int]) -> Any:
    def present(node: Any) -> bool:
        return not (isinstance(node, Template) and node.absent(values))

    match tree:
        case Template():
            return tree.fill_json(values)
        case dict():
            return {name: _filled_json(node, values) for name, node in tree.items() if present(node)}
        case list():
            return [_filled_json(node, values) for node in tree if present(node)]
    return tree


def _redacts(shown: Any, value: str) -> bool:
    """Whether this is the value with its middle left out, and says enough of it to tell."""
    parts = _LEFT_OUT.split(shown) if isinstance(shown, str) else []
    if len(parts) != 2 or len("".join(parts)) < _TELLING:
        return False
    return bool(parts[1]) and value.startswith(parts[0]) and value.endswith(parts[1])


def _days(gap: timedelta) -> str:
    return f"{gap.days} d" if gap.days >= 2 else f"{max(gap.total_seconds(), 0) / 3600:.0f} h"


def _parts(key_id: str) -> list[str]:
    return [unquote(part) for part in key_id.split("/")]


def _text(found: Any) -> str | None:
    """A text or whole number as text; None for anything else, and for an empty text."""
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return found if isinstance(found, str) and found else None


def _fit(pattern: re.Pattern[str], text: str, secrets: tuple[str, ...]) -> bool:
    """Whether a text from outside may stand in a message or record: it is plain and repeats nothing secret."""
    return pattern.fullmatch(text) is not None and not any(
        (len(secret) >= _TELLING and secret in text) or (len(text) >= _TELLING and text in secret)
        for secret in (*secrets, *values_alive())
    )


def _brief(answer: _Answer) -> str:
    return f"HTTP {answer.status}, {answer.error}" if answer.error else f"HTTP {answer.status}"


def _scope(base: str, where: Mapping[str, str | int]) -> str:
    """Eight hex digits that differ where the address or what a list is asked of does, a project for one."""
    return hashlib.sha256(repr((base, sorted(where.items()))).encode()).hexdigest()[:8]


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        return None
