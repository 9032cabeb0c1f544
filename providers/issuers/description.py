"""What the description of a vendor may say: its form, field by field. `reading` reads one and tells the place of every fault.

A description is a YAML file that tells `providers/issuers/http.py` how a vendor with an HTTP and JSON
API mints, lists, verifies and revokes its keys. It can not run code: it fills templates with declared
variables and looks into answers with JMESPath (https://jmespath.org/specification.html).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from providers.issuers.language import (
    BASE_URL,
    NO_HEADERS,
    Expression,
    Fault,
    Statuses,
    Template,
    TimeFormat,
    auth_templates,
    is_loopback,
    judges,
    read_time,
)
from rotation.errors import Code
from rotation.model import Verdict
from rotation.policy import read_duration, show_duration
from rotation.situation import ATTEMPT_LIFE

# --- kinds of fields -----------------------------------------------------------------------------

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_HEADER: Final = re.compile(r"[A-Za-z0-9-]+")


def _tree(given: Any) -> Any:
    """A JSON value whose texts are templates."""
    match given:
        case dict():
            return {str(key): _tree(value) for key, value in given.items()}
        case list():
            return [_tree(value) for value in given]
        case str():
            return Template.parse(given)
        case None | bool() | int() | float():
            return given
    raise ValueError("must be JSON: objects, lists, texts, numbers, true, false, null")


def _templates_in(tree: Any) -> Iterator[Template]:
    match tree:
        case Template():
            yield tree
        case dict():
            for value in tree.values():
                yield from _templates_in(value)
        case list():
            for value in tree:
                yield from _templates_in(value)


def _duration(given: Any) -> timedelta:
    if not isinstance(given, str):
        raise ValueError("must be a duration, as in 30s or 1h30m")  # noqa: TRY004 - pydantic
    return read_duration(given)


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[Any], Any]:
    def check(given: Any) -> Any:
        if not isinstance(given, str) or not pattern.fullmatch(given):
            raise ValueError(f"{given!r} is not {what}")
        return given

    return check


def base_url_fault(url: str) -> str | None:
    """Why an API can not be served there, or None. Plain HTTP is for this machine only."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if not host or parts.query or parts.fragment or "@" in parts.netloc or not url.isascii() or re.search(r"\s", url):
        return "must be https://host[:port][/path], with no user, query or fragment"
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return None
    return "must begin with https://; plain http is allowed for 127.0.0.1, ::1 and localhost only"


def _base_url(given: Any) -> str:
    fault = base_url_fault(given) if isinstance(given, str) else "must be text"
    if fault:
        raise ValueError(fault)
    return str(given).rstrip("/")


Text = Annotated[Template, BeforeValidator(Template.parse)]
Json = Annotated[Any, BeforeValidator(_tree)]
Query = Annotated[Expression, BeforeValidator(Expression.parse)]
Status = Annotated[Statuses, BeforeValidator(Statuses.parse)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
Name = Annotated[str, BeforeValidator(_matching(_NAME, "a name; write letters, digits and _, beginning with a letter"))]
Header = Annotated[str, BeforeValidator(_matching(_HEADER, "the name of a header"))]
SlotName = Annotated[str, BeforeValidator(_matching(_HEADER, "the name of a slot; write letters, digits and -"))]


# --- the schema ----------------------------------------------------------------------------------


class Part(BaseModel):
    """A mapping with a fixed set of fields."""

    model_config = ConfigDict(frozen=True, strict=True, arbitrary_types_allowed=True, populate_by_name=False)

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, given: Any) -> Any:
        allowed = sorted(field.alias or name for name, field in cls.model_fields.items())
        for name in given if isinstance(given, dict) else ():
            if name not in allowed:
                context = {"field": str(name), "allowed": ", ".join(allowed)}
                raise PydanticCustomError("unknown_field", "is not a field here; allowed: {allowed}", context)
        return given


Several = Field(strict=False, min_length=1)
"""A YAML list; strictness would ask for a tuple."""


class Variable(Part):
    """A value that the configuration of an issuer gives."""

    about: str
    """What it is, for the person who writes the configuration."""
    type: Literal["string", "integer", "list", "url"] = "string"
    """A list is of texts, and stands alone in JSON; a url is a further host, which requests name as theirs."""
    required: bool = True
    default: str | int | list[str] | None = None

    @property
    def always(self) -> bool:
        """Whether there is a value in every configuration."""
        return self.required or self.default is not None

    def fault(self, given: object) -> str | None:
        if self.type == "integer":
            return None if isinstance(given, int) and not isinstance(given, bool) else "must be a whole number"
        if self.type == "list":
            texts = isinstance(given, list | tuple) and all(isinstance(one, str) and one for one in given)
            return None if texts and given else "must be a list of texts, with at least one"
        if self.type == "url":
            return base_url_fault(given) if isinstance(given, str) else "must be text"
        return None if isinstance(given, str) and given else "must be text that is not empty; quote what is a number"


class Basic(Part):
    username: Text
    password: Text


class ClientCredentials(Part):
    """OAuth 2.0, client credentials (RFC 6749, 4.4). The token is kept until shortly before it expires."""

    host: Name | None = None
    """A variable of the type url; the base URL without it."""
    path: Text
    """Of the token endpoint."""
    client_id: Text
    client_secret: Text
    scope: Text | None = None
    send: Literal["body", "basic"] = "body"
    """Where id and secret stand: in the form, or in the header of HTTP Basic."""

    @model_validator(mode="after")
    def _well_formed(self) -> Self:
        if fault := _path_fault(self.path):
            raise ValueError(fault)
        return self


class SharedKey(Part):
    """Azure Storage's own signature, Shared Key Lite for the Blob service, made with an account's key (base64)."""

    account: Text
    key: Text


class Auth(Part):
    """How a request says who sends it: exactly one of these."""

    bearer: Text | None = None
    basic: Basic | None = None
    headers: dict[Header, Text] | None = None
    oauth2_client_credentials: ClientCredentials | None = None
    azure_shared_key: SharedKey | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        ways = (name for name in type(self).model_fields if getattr(self, name) is not None)
        if len(list(ways)) != 1:
            raise ValueError(f"needs exactly one of {', '.join(type(self).model_fields)}")
        return self

    def templates(self) -> Iterator[tuple[str, Template]]:
        return auth_templates(self)


def _path_fault(path: Template) -> str | None:
    if path.text.startswith("/") and not re.search(r"[?#\s%]|//", path.text):
        return None
    return "its path must begin with / and hold no ?, #, %, // or space; parameters stand under query"


class Request(Part):
    """One HTTP request. A query parameter, header or field is left out when a variable in it is not given."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    host: Name | None = None
    """A variable of the type url, which this request goes to in place of the base URL."""
    path: Text
    """Below the base URL; begins with `/`. Values are escaped and stay within their segment."""
    query: dict[str, Text] = {}
    headers: dict[Header, Text] = {}
    body: Json = Field(default=None, alias="json")
    form: dict[str, Text] | None = None
    """The body, as application/x-www-form-urlencoded."""

    @model_validator(mode="after")
    def _well_formed(self) -> Self:
        if fault := _path_fault(self.path):
            raise ValueError(fault)
        if self.form is not None and self.body is not None:
            raise ValueError("has both json and form; a request has one body")
        return self

    def templates(self) -> Iterator[tuple[str, Template]]:
        """All but the path's."""
        for part, templates in (("query", self.query), ("headers", self.headers), ("form", self.form or {})):
            for name, template in templates.items():
                yield f"{part}.{name}", template
        for template in _templates_in(self.body):
            yield "json", template


class Time(Part):
    """A point in time in an answer."""

    path: Query
    format: TimeFormat

    def read(self, body: Any) -> datetime | None:
        """None when there is none, or nothing that can be read."""
        return read_time(self.path.find(body), self.format)


KeyId = Annotated[dict[Name, Query], Field(min_length=1)]
"""The parts of a key id and where an answer has them. What revoking needs, the parent of a key for instance, is a
part. The id is the parts with `/` between, each escaped, in the order of the `revoke` that has the same parts."""


class _Judging(Part):
    """Which answers something is said of: those with the status, and what else is asked for."""

    status: Status
    when: Query | None = None
    """Of the answer's JSON."""
    header: dict[Header, str] = {}
    """Headers of the answer, and what each says."""

    def matches(self, status: int, body: Any, headers: Mapping[str, str] = NO_HEADERS) -> bool:
        return judges(self, status, body, headers)


class Refusal(_Judging):
    """What an answer that is no success means."""

    code: Annotated[Code, Field(strict=False)]
    reason: str


Refusals = Annotated[tuple[Refusal, ...], Field(strict=False)]
"""First hit wins; anything else is judged by its status."""


LONGEST_POLL: Final = timedelta(seconds=45)
"""A call of the engine is over within a minute."""
MOST_SPANS: Final = 1500
"""Of time, in one look at how keys are used: a day in minutes, or two months in hours."""
Fields = Annotated[dict[Name, Query], Field(min_length=1)]
"""The fields of a credential, and where an answer has them."""


class Poll(Part):
    """How to ask after an operation that goes on when the first answer is there. Its last answer counts as the first's."""

    operation: Query
    """Of the first answer: what the operation is called; `{operation}` in the request."""
    request: Request
    ok: Status = Statuses(("2xx",))
    done: Query
    """True in the last answer."""
    failed: Query | None = None
    """True in a last answer that says that nothing came of it."""
    interval: Duration
    timeout: Duration

    @model_validator(mode="after")
    def _in_time(self) -> Self:
        if not timedelta(0) < self.interval <= self.timeout <= LONGEST_POLL:
            raise ValueError(
                f"interval must be more than 0s, timeout no less and at most {show_duration(LONGEST_POLL)}"
            )
        return self


class Expiry(Part):
    """That a key is to stop working by itself: `{expires_at}` in the request of its mint."""

    after: Name
    """An optional variable of the type integer: in how many seconds."""
    format: TimeFormat


class Mint(Part):
    """One way of making a key. Where there are slots, the request names one as `{slot}`, and `slots` says the rest."""

    when: Name | None = None
    """The variable that must be given for this way. The first way that fits is taken."""
    request: Request
    ok: Status = Statuses(("2xx",))
    key_id: KeyId | None = None
    fields: Fields | None = None
    from_admin: dict[Name, Text] = {}
    """Fields that are not minted and that consumers need beside: parts of the administrative credential."""
    created_at: Time | None = None
    expires_at: Time | None = None
    """When the key stops working by itself; an answer without that time says that it does not, or nothing."""
    expiry: Expiry | None = None
    poll: Poll | None = None
    errors: Refusals = ()


class Slot(Part):
    """One of a fixed number of keys, and where the answers of mint and list have it."""

    fields: Fields
    created_at: Time | None = None


class Prefetch(Part):
    """What is read before each mint and copied into it, the rights of another key for instance."""

    when: Name | None = None
    """The variable that must be given for this; else its values are absent."""
    request: Request
    ok: Status = Statuses(("2xx",))
    values: Fields
    """By the name of the placeholder: any JSON, which stands alone in the JSON of the mint. Nothing is minted where
    one is missing."""


class Item(Part):
    """How to read one listed key."""

    name: Query
    key_id: KeyId
    created_at: Time | None = None
    redacted: Query | None = None
    """The value with its middle left out, as in `sk-proj-...WXYZ`; tells which key a leak report means."""


class Cursor(Part):
    """The next page begins after a value that this page tells."""

    parameter: str
    next: Query
    more: Query | None = None
    """Where the page says whether there is another; without it a page without `next` is the last."""


class Offset(Part):
    """The next page begins after so many items; an empty page is the last."""

    parameter: str
    start: int = 0


class Page(Part):
    """Pages have numbers; an empty one is the last."""

    parameter: str
    start: int = 1


class NextUrl(Part):
    """Each page says where the next is: an address on the same host, or its path and query. None ends the list."""

    next: Query


class Pagination(Part):
    """Exactly one of these."""

    cursor: Cursor | None = None
    offset: Offset | None = None
    page: Page | None = None
    next_url: NextUrl | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        ways = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(ways) != 1:
            allowed = ", ".join(type(self).model_fields)
            raise ValueError(f"needs exactly one of {allowed}; leave pagination out where there is none")
        return self

    @property
    def parameter(self) -> str | None:
        way = self.cursor or self.offset or self.page
        return way.parameter if way else None


class Listing(Part):
    """How to list live keys. Where there are slots, `slots` says how to read the answer."""

    request: Request
    ok: Status = Statuses(("2xx",))
    items: Query | None = None
    each: Annotated[tuple[Item, ...], Field(strict=False)] = ()
    """Ways of reading an item: the first that finds a name of the form that Keyturn gives to keys, else the first."""
    live: Query | None = None
    """Of an item: true for a key that works; the others are left out. All are live without it."""
    pagination: Pagination | None = None
    returns_secrets: bool = False
    """The answer holds values of keys: whoever may list may read them. Keyturn keeps none of them."""


class Rule(_Judging):
    """What an answer to a credential says of it."""

    verdict: Annotated[Verdict, Field(strict=False)]
    reason: str


class Verify(Part):
    """A cheap request with the credential alone."""

    request: Request
    """Fields of the credential may stand in its body."""
    auth: Auth | None = None
    """From the fields of the credential, and variables. None where the body has them."""
    rules: Annotated[tuple[Rule, ...], Several]
    """First hit wins; anything else is unknown."""


class Smoke(Part):
    """One minimal real request with the credential, authenticated as in `verify`."""

    request: Request
    rules: Annotated[tuple[Rule, ...], Several]
    """Asked before those rules of `verify` that do not say valid."""
    record: dict[Name, Query] = {}
    """What to keep of the answer for the audit trail."""
    record_headers: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Which headers to keep; `*` stands for anything."""


class Step(Part):
    """One request of a revocation."""

    request: Request
    ok: Status = Statuses(("2xx",))
    gone: Status | None = None
    """Statuses that say that there is nothing left to do."""
    gone_when: Query | None = None
    """What an answer with such a status must say, too."""
    next_on: Status | None = None
    """Refusals after which the next step does it all the same."""
    poll: Poll | None = None
    errors: Refusals = ()


class Revoke(Part):
    """How to revoke, disable or enable keys whose id has these parts."""

    key_id: Annotated[tuple[Name, ...], Several]
    steps: Annotated[tuple[Step, ...], Several]
    """All are done, in order; doing them again must be harmless."""


class ListedUse(Part):
    """How an item of the list says when its key was last used."""

    at: Time
    never: Query | None = None


class LastUsed(Part):
    """How to ask when a key was last used."""

    request: Request | None = None
    """Without it the key's item in the list is looked at."""
    ok: Status = Statuses(("2xx",))
    gone: Status | None = None
    at: Time
    never: Query | None = None
    """True when an answer without a time says that the key was never used; otherwise that is unknown."""
    granularity: Duration
    """The answer may lag by this much."""
    listed: ListedUse | None = None
    """Where an item of the list has the same, so that one listing tells of all keys. With no `request` it is as above."""


class Usage(Part):
    """How to ask, of all keys at once, how many requests were made with each; `{since}` and `{until}` in the request."""

    of: str
    """What is counted, in words: `model requests`."""
    request: Request
    ok: Status = Statuses(("2xx",))
    time: TimeFormat
    """The form of `{since}` and `{until}`."""
    buckets: Query
    """The list of spans; with no `rows`, of rows that each say which span they are of."""
    start: Time
    """Of a span, or row."""
    rows: Query | None = None
    """Of a span: its rows."""
    key_id: KeyId
    """Of a row: as many parts of a key id as tell which key it is. A row without them is of no key."""
    count: Query
    """Of a row. Several rows of one key and span are added up."""
    pagination: Pagination | None = None
    width: Duration
    """Of a span, as the request asks for it; the vendor's spans begin at whole widths in UTC."""
    window: Duration
    """How far back counts are asked for."""
    lag: Duration
    """So late a request may be counted."""
    refused: bool = False
    """Requests that were refused are counted, too."""

    @model_validator(mode="after")
    def _in_spans(self) -> Self:
        if not timedelta(0) < self.width <= self.window <= self.width * MOST_SPANS:
            raise ValueError(f"width must be more than 0s, window no less and at most {MOST_SPANS} times as much")
        return self


class Administrator(Part):
    """How the vendor tells of administrative credentials, the one in use among them."""

    request: Request
    ok: Status = Statuses(("2xx",))
    items: Query
    redacted: Query
    """Of an item: the value with its middle left out, as in `sk-admin-...WXYZ`; tells which is the one in use."""
    name: Query | None = None
    created_at: Time | None = None
    expires_at: Time | None = None


class Spread(Part):
    """How long a change takes to be seen by those who use keys."""

    in_a_row: Annotated[int, Field(ge=1)]
    interval: Duration
    timeout: Duration


LONGEST_CREATE: Final = ATTEMPT_LIFE - timedelta(minutes=1)
"""A key that takes longer to work than an attempt may live is promoted by none of them in some stores."""


class Abilities(Part):
    """What can not be seen from the rest of the description."""

    max_keys: Annotated[int, Field(ge=1)] | None = None
    create: Spread
    revoke: Spread

    @model_validator(mode="after")
    def _in_time(self) -> Self:
        if self.create.timeout > LONGEST_CREATE:
            most = show_duration(LONGEST_CREATE)
            raise PydanticCustomError(
                "too_slow", "create.timeout is longer than an attempt may live: at most {most}", {"most": most}
            )
        return self


class Description(Part):
    """A vendor."""

    title: str
    sources: Annotated[tuple[str, ...], Several]
    """Where the facts come from, with versions or dates."""
    unverified: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """What in here nobody has looked up or tried, in words for whoever relies on it."""
    base_url: Annotated[str, BeforeValidator(_base_url)]
    variables: dict[Name, Variable] = {}
    headers: dict[Header, Text] = {}
    """Sent with every request."""
    model: Literal["mint", "slots", "manual"] = "mint"
    """See rotation.model.Model."""
    slots: dict[SlotName, Slot] = {}
    """By the vendor's name of the slot."""
    credential: Annotated[tuple[Name, ...], Several] = ("value",)
    """The fields of what a person creates, where the model is manual; else the mint says which they are."""
    auth: Auth | None = None
    """Of administrative requests; `{admin}` is the administrative credential, `{admin.part}` a part of one that is a
    JSON object. None where there are no such requests."""
    errors: Refusals = ()
    """What refusals of any administrative request mean, where they have no word of their own."""
    admin: Administrator | None = None
    error_code: Query | None = None
    """Where an error says which it is, in one word. Nothing else of an answer ever stands in a message."""
    request_id: Header = "x-request-id"
    """The header in which the vendor names a request."""
    prefetch: Annotated[tuple[Prefetch, ...], Field(strict=False)] = ()
    mint: Annotated[tuple[Mint, ...], Field(strict=False)] = ()
    listing: Listing | None = Field(default=None, alias="list")
    verify: Verify
    revoke: Annotated[tuple[Revoke, ...], Field(strict=False)] = ()
    disable: Annotated[tuple[Revoke, ...], Field(strict=False)] = ()
    """Makes a key be refused, until enabled again."""
    enable: Annotated[tuple[Revoke, ...], Field(strict=False)] = ()
    last_use: LastUsed | None = None
    usage: Usage | None = None
    smoke: Smoke | None = None
    capabilities: Abilities

    def faults_in(self, variables: Mapping[str, object]) -> list[Fault]:
        """What is wrong with the variables that a configuration gives for this description."""
        allowed = sorted({*self.variables, BASE_URL})
        faults = [
            Fault(name, f"is not a variable of {self.title}; allowed: {', '.join(allowed)}")
            for name in variables
            if name not in allowed
        ]
        for name, variable in self.variables.items():
            if name in variables:
                if text := variable.fault(variables[name]):
                    faults.append(Fault(name, text))
            elif variable.required:
                faults.append(Fault(name, f"is needed: {variable.about}"))
        if BASE_URL in variables:
            given = variables[BASE_URL]
            if text := base_url_fault(given) if isinstance(given, str) else "must be text":
                faults.append(Fault(BASE_URL, text))
        if not faults and self.mint and not any(way.when is None or way.when in variables for way in self.mint):
            ways = ", ".join(way.when for way in self.mint if way.when)
            faults.append(Fault("", f"needs one of {ways}"))
        return faults
