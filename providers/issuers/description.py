"""What the description of a vendor may say, and a strict reading of it that names the place of every fault.

A description is a YAML file that tells `providers/issuers/http.py` how a vendor with an HTTP and JSON
API mints, lists, verifies and revokes its keys. It can not run code: it fills templates with declared
variables and looks into answers with JMESPath (https://jmespath.org/specification.html).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import cache
from importlib import resources
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from providers.issuers.language import (
    ADMIN,
    BASE_URL,
    KEY_NAME,
    DescriptionFault,
    Expression,
    Fault,
    Statuses,
    Template,
    TimeFormat,
    auth_templates,
    is_loopback,
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
    type: Literal["string", "integer"] = "string"
    required: bool = True
    default: str | int | None = None

    @property
    def always(self) -> bool:
        """Whether there is a value in every configuration."""
        return self.required or self.default is not None

    def fault(self, given: object) -> str | None:
        if self.type == "integer":
            return None if isinstance(given, int) and not isinstance(given, bool) else "must be a whole number"
        return None if isinstance(given, str) and given else "must be text that is not empty; quote what is a number"


class Basic(Part):
    username: Text
    password: Text


class Auth(Part):
    """How a request says who sends it: exactly one of the three."""

    bearer: Text | None = None
    basic: Basic | None = None
    headers: dict[Header, Text] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(way is not None for way in (self.bearer, self.basic, self.headers)) != 1:
            raise ValueError("needs exactly one of bearer, basic, headers")
        return self

    def templates(self) -> Iterator[tuple[str, Template]]:
        return auth_templates(self)


class Request(Part):
    """One HTTP request. A query parameter, header or JSON field is left out when a variable in it is not given."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    path: Text
    """Below the base URL; begins with `/`. Values are escaped and stay within their segment."""
    query: dict[str, Text] = {}
    headers: dict[Header, Text] = {}
    body: Json = Field(default=None, alias="json")

    @model_validator(mode="after")
    def _well_formed(self) -> Self:
        if not self.path.text.startswith("/") or re.search(r"[?#\s%]|//", self.path.text):
            raise ValueError(
                "its path must begin with / and hold no ?, #, %, // or space; parameters stand under query"
            )
        return self

    def templates(self) -> Iterator[tuple[str, Template]]:
        """All but the path's."""
        for part, templates in (("query", self.query), ("headers", self.headers)):
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


class Refusal(Part):
    """What an answer that is no success means."""

    status: Status
    when: Query | None = None
    code: Annotated[Code, Field(strict=False)]
    reason: str

    def matches(self, status: int, body: Any) -> bool:
        return status in self.status and (self.when is None or self.when.holds(body))


Refusals = Annotated[tuple[Refusal, ...], Field(strict=False)]
"""First hit wins; anything else is judged by its status."""


class Mint(Part):
    """One way of making a key."""

    when: Name | None = None
    """The variable that must be given for this way. The first way that fits is taken."""
    request: Request
    ok: Status = Statuses(("2xx",))
    key_id: KeyId
    fields: Annotated[dict[Name, Query], Field(min_length=1)]
    """The fields of the credential."""
    created_at: Time | None = None
    expires_at: Time | None = None
    """When the key stops working by itself; an answer without that time says that it does not, or nothing."""
    errors: Refusals = ()


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


class Pagination(Part):
    """Exactly one of the three."""

    cursor: Cursor | None = None
    offset: Offset | None = None
    page: Page | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(way is not None for way in (self.cursor, self.offset, self.page)) != 1:
            raise ValueError("needs exactly one of cursor, offset, page; leave pagination out where there is none")
        return self

    @property
    def parameter(self) -> str:
        way = self.cursor or self.offset or self.page
        assert way is not None, "checked above"
        return way.parameter


class Listing(Part):
    """How to list live keys."""

    request: Request
    ok: Status = Statuses(("2xx",))
    items: Query
    each: Annotated[tuple[Item, ...], Several]
    """Ways of reading an item: the first that finds a name of the form that Keyturn gives to keys, else the first."""
    pagination: Pagination | None = None


class Rule(Part):
    """What an answer to a credential says of it."""

    status: Status
    when: Query | None = None
    verdict: Annotated[Verdict, Field(strict=False)]
    reason: str

    def matches(self, status: int, body: Any) -> bool:
        return status in self.status and (self.when is None or self.when.holds(body))


class Verify(Part):
    """A cheap request with the credential alone."""

    request: Request
    auth: Auth
    """From the fields of the credential, and variables."""
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
    next_on: Status | None = None
    """Refusals after which the next step does it all the same."""
    errors: Refusals = ()


class Revoke(Part):
    """How to revoke keys whose id has these parts."""

    key_id: Annotated[tuple[Name, ...], Several]
    steps: Annotated[tuple[Step, ...], Several]
    """All are done, in order; doing them again must be harmless."""


class LastUsed(Part):
    """How to ask when a key was last used."""

    request: Request
    ok: Status = Statuses(("2xx",))
    gone: Status | None = None
    at: Time
    never: Query | None = None
    """True when an answer without a time says that the key was never used; otherwise that is unknown."""
    granularity: Duration
    """The answer may lag by this much."""


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
    base_url: Annotated[str, BeforeValidator(_base_url)]
    variables: dict[Name, Variable] = {}
    headers: dict[Header, Text] = {}
    """Sent with every request."""
    auth: Auth
    """Of administrative requests; `{admin}` is the administrative credential."""
    admin: Administrator | None = None
    error_code: Query | None = None
    """Where an error says which it is, in one word. Nothing else of an answer ever stands in a message."""
    request_id: Header = "x-request-id"
    """The header in which the vendor names a request."""
    mint: Annotated[tuple[Mint, ...], Several]
    listing: Listing = Field(alias="list")
    verify: Verify
    revoke: Annotated[tuple[Revoke, ...], Several]
    last_use: LastUsed | None = None
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
        if not faults and not any(way.when is None or way.when in variables for way in self.mint):
            ways = ", ".join(way.when for way in self.mint if way.when)
            faults.append(Fault("", f"needs one of {ways}"))
        return faults


# --- reading -------------------------------------------------------------------------------------


def read(text: str, source: str) -> Description:
    """A description from YAML.

    Parameters:
        text: the YAML.
        source: the file's name, for messages.

    Raises:
        DescriptionFault: with every fault that was found; faults of form hide those of sense.
    """
    try:
        given = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise DescriptionFault(source, [_yaml_fault(error)]) from None
    try:
        description = Description.model_validate(given)
    except ValidationError as error:
        faults = [_fault(details) for details in error.errors()]
        raise DescriptionFault(source, faults) from None
    if faults := list(_nonsense(description)):
        raise DescriptionFault(source, faults)
    return description


@cache
def shipped(kind: str) -> Description:
    """One of the descriptions that come with Keyturn.

    Raises:
        KeyError: there is none for this kind.
    """
    file = resources.files("providers.issuers") / "descriptions" / f"{kind}.yaml"
    if kind not in shipped_kinds():
        raise KeyError(kind)
    return read(file.read_text(), f"{kind}.yaml")


def shipped_kinds() -> tuple[str, ...]:
    """The kinds of issuer that come with Keyturn as a description, sorted."""
    files = (resources.files("providers.issuers") / "descriptions").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping; YAML's loaders keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml_fault(error: yaml.YAMLError) -> Fault:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return Fault(place, getattr(error, "problem", None) or "is not YAML")


def _fault(details: Any) -> Fault:
    location, context = list(details["loc"]), details.get("ctx", {})
    if details["type"] == "unknown_field":
        location.append(context["field"])
    raised = context.get("error")
    words = {"missing": "is needed", "model_type": "must be a mapping", "dict_type": "must be a mapping"}
    text = str(raised) if isinstance(raised, ValueError) else words.get(details["type"], details["msg"])
    return Fault(_path(location), text[0].lower() + text[1:] if text.startswith("Input") else text)


def _path(location: list[str | int]) -> str:
    path = ""
    for step in location:
        if step == "[key]":
            continue
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    return path


# --- sense: what one field may say given the others ----------------------------------------------


def _nonsense(d: Description) -> Iterator[Fault]:
    yield from _bad_names(d)
    yield from _bad_placeholders(d)
    yield from _bad_key_ids(d)
    yield from _bad_rules(d)
    for index, revoke in enumerate(d.revoke):
        if revoke.steps[-1].next_on:
            yield Fault(f"revoke[{index}].steps[{len(revoke.steps) - 1}].next_on", "there is no next step")
    pagination = d.listing.pagination
    if pagination and pagination.parameter in d.listing.request.query:
        yield Fault("list.request.query", f"{pagination.parameter} is set by pagination")


def _bad_names(d: Description) -> Iterator[Fault]:
    parts = {part for revoke in d.revoke for part in revoke.key_id}
    fields = {field for way in d.mint for field in way.fields}
    for name, variable in d.variables.items():
        if name in {BASE_URL, ADMIN, KEY_NAME} | parts | fields:
            yield Fault(
                f"variables.{name}", "the name is taken: by Keyturn, a part of the key id or a credential field"
            )
        if variable.default is not None and (text := variable.fault(variable.default)):
            yield Fault(f"variables.{name}.default", text)
        if variable.default is not None and variable.required:
            yield Fault(f"variables.{name}.default", "is never used: the variable is required; say required: false")
    for index, way in enumerate(d.mint):
        if way.when is not None and (way.when not in d.variables or d.variables[way.when].always):
            optional = ", ".join(name for name, variable in d.variables.items() if not variable.always) or "none"
            yield Fault(f"mint[{index}].when", f"{way.when} is not an optional variable; there are: {optional}")
        if way.when is None and index < len(d.mint) - 1:
            yield Fault(f"mint[{index}]", "has no when, so that the ways after it are never taken")
    if len({frozenset(way.fields) for way in d.mint}) > 1:
        yield Fault("mint", "every way must give the same fields")


def _bad_placeholders(d: Description) -> Iterator[Fault]:
    always = {name for name, variable in d.variables.items() if variable.always}
    used: set[str] = set()

    def check(path: str, template: Template, sure: set[str], maybe: set[str] | None = None) -> Iterator[Fault]:
        used.update(template.names)
        for name in template.names:
            if name in sure | (maybe or set()):
                continue
            allowed = ", ".join(sorted(sure | (maybe or set()))) or "none"
            if maybe is None and name in d.variables:
                yield Fault(path, f"{{{name}}} may be absent here; sure to be given: {allowed}")
            else:
                yield Fault(path, f"{{{name}}} can not be inserted here; allowed: {allowed}")

    def check_request(path: str, request: Request, sure: set[str]) -> Iterator[Fault]:
        yield from check(f"{path}.path", request.path, sure)
        for place, template in request.templates():
            yield from check(f"{path}.{place}", template, sure, set(d.variables))

    def check_auth(path: str, auth: Auth, secrets: set[str]) -> Iterator[Fault]:
        for place, template in auth.templates():
            yield from check(f"{path}.{place}", template, always | secrets)

    for name, template in d.headers.items():
        yield from check(f"headers.{name}", template, always, set(d.variables))
    yield from check_auth("auth", d.auth, {ADMIN})
    for index, way in enumerate(d.mint):
        given = {name for name in d.variables if name == way.when}
        yield from check_request(f"mint[{index}].request", way.request, always | given | {KEY_NAME})
        if KEY_NAME not in {name for _, template in way.request.templates() for name in template.names}:
            yield Fault(
                f"mint[{index}].request", f"never says {{{KEY_NAME}}}, so that a lost key could not be found again"
            )
        used.add(way.when or KEY_NAME)
    if d.admin:
        yield from check_request("admin.request", d.admin.request, always)
    yield from check_request("list.request", d.listing.request, always)
    yield from check_request("verify.request", d.verify.request, always)
    yield from check_auth("verify.auth", d.verify.auth, {field for way in d.mint for field in way.fields})
    for index, revoke in enumerate(d.revoke):
        for number, step in enumerate(revoke.steps):
            path = f"revoke[{index}].steps[{number}].request"
            yield from check_request(path, step.request, always | set(revoke.key_id))
    if d.last_use:
        common = set.intersection(*(set(revoke.key_id) for revoke in d.revoke))
        yield from check_request("last_use.request", d.last_use.request, always | common)
    if d.smoke:
        yield from check_request("smoke.request", d.smoke.request, always)
    for name in d.variables:
        if name not in used:
            yield Fault(f"variables.{name}", "is declared and never used")


def _bad_key_ids(d: Description) -> Iterator[Fault]:
    forms = [revoke.key_id for revoke in d.revoke]
    for index, form in enumerate(forms):
        if len(set(form)) < len(form):
            yield Fault(f"revoke[{index}].key_id", "names a part twice")
        if len(form) in [len(other) for other in forms[:index]]:
            yield Fault(f"revoke[{index}].key_id", "has as many parts as another: the two could not be told apart")
    made = [(f"mint[{index}]", way.key_id) for index, way in enumerate(d.mint)]
    made += [(f"list.each[{index}]", item.key_id) for index, item in enumerate(d.listing.each)]
    known = " and ".join("/".join(form) for form in forms)
    for path, parts in made:
        if parts.keys() not in [set(form) for form in forms]:
            yield Fault(f"{path}.key_id", f"no revoke is for {'/'.join(parts)}; there are: {known}")


def _bad_rules(d: Description) -> Iterator[Fault]:
    verdicts = {rule.verdict for rule in d.verify.rules}
    for verdict in (Verdict.VALID, Verdict.INVALID):
        if verdict not in verdicts:
            yield Fault("verify.rules", f"none says {verdict.value}")
    rules = [(f"verify.rules[{index}]", rule) for index, rule in enumerate(d.verify.rules)]
    rules += [(f"smoke.rules[{index}]", rule) for index, rule in enumerate(d.smoke.rules if d.smoke else ())]
    for path, rule in rules:
        if rule.verdict is Verdict.VALID and not all(
            status == "2xx" or status in range(200, 300) for status in rule.status.members
        ):
            yield Fault(f"{path}.status", "valid must rest on a success, 2xx")
        silent = {"2xx", "5xx", 407, 408, 429}
        if (
            rule.verdict is Verdict.INVALID
            and any(
                status in silent or status in range(200, 300) or status in range(500, 600)
                for status in rule.status.members
            )
            and rule.when is None
        ):
            yield Fault(f"{path}.status", "does not say by itself that the key is refused; add when")
