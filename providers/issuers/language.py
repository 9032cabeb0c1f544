"""The small languages inside a description: templates, expressions and sets of statuses; and what all of it is called.

Needs JMESPath and no more, so that a function which gets its descriptions ready-made (`providers.issuers.packed`)
does not load what reads and checks them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal
from urllib.parse import quote

import jmespath
from jmespath.exceptions import JMESPathError

BASE_URL: Final = "baseUrl"
"""A variable of every description: another place where the vendor's API is served."""
ADMIN: Final = "admin"
"""The placeholder of the administrative credential; stands in `auth` and nowhere else."""
KEY_NAME: Final = "key_name"
"""The placeholder of the name under which a key is minted; carries the rotation token."""
SLOT: Final = "slot"
"""The placeholder of the slot in which a key is made, where there are slots."""
EXPIRES_AT: Final = "expires_at"
"""The placeholder of the time at which a key is to stop working by itself; absent where it is not to."""
SINCE: Final = "since"
"""The placeholder of the time from which on requests are counted."""
UNTIL: Final = "until"
"""The placeholder of the time up to which requests are counted."""
OPERATION: Final = "operation"
"""The placeholder of the operation that a poll asks after; may have several segments of a path."""

Values = Mapping[str, Any]
"""What placeholders stand for: texts and whole numbers; alone in JSON, anything that JSON has. An optional variable
that is not given is absent."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, and where."""

    path: str
    """As in `mint[0].request.path`; empty for the whole."""
    text: str
    """What is wrong and what is allowed."""

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


class DescriptionFault(ValueError):  # noqa: N818 - reads as what it is where it is caught
    """A description, or the variables given for it, can not be used. One line for each fault.

    Parameters:
        source: the file's or the issuer's name, which starts every line.
        faults: all that were found.
    """

    def __init__(self, source: str, faults: list[Fault]) -> None:
        super().__init__("\n".join(f"{source}: {fault}" for fault in faults))
        self.faults: Final = tuple(faults)


_PLACEHOLDER: Final = re.compile(r"\{((?:admin\.)?[A-Za-z][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """Text with placeholders, as in `/projects/{project}/keys`. It can insert named values and do nothing else."""

    text: str
    names: tuple[str, ...]

    @classmethod
    def parse(cls, given: Any) -> Template:
        """Raises ValueError with what is allowed."""
        text = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
        if not isinstance(text, str):
            raise ValueError("must be text; quote it where it begins with a brace, as in '{project}'")  # noqa: TRY004 - pydantic
        if re.search(r"[{}]", _PLACEHOLDER.sub("", text)):
            raise ValueError("has a brace that belongs to no placeholder; write placeholders as {name}")
        return cls(text, tuple(_PLACEHOLDER.findall(text)))

    def absent(self, values: Values) -> bool:
        """Whether it names a value that is not given."""
        return any(name not in values for name in self.names)

    def fill(self, values: Values) -> str:
        return _PLACEHOLDER.sub(lambda match: str(values[match[1]]), self.text)

    @property
    def alone(self) -> str | None:
        """The placeholder that it consists of."""
        found = _PLACEHOLDER.fullmatch(self.text)
        return found[1] if found else None

    def fill_json(self, values: Values) -> Any:
        """A placeholder that stands alone keeps the type of its value."""
        return values[self.alone] if self.alone else self.fill(values)

    def fill_path(self, values: Values) -> str:
        """Each value escaped, so that it stays within its segment; an operation's within the path.

        Raises:
            ValueError: a segment would be empty, `.` or `..` and so lead to another resource.
        """

        def escaped(match: re.Match[str]) -> str:
            return quote(str(values[match[1]]), safe="/" if match[1] == OPERATION else "")

        path = _PLACEHOLDER.sub(escaped, self.text)
        if path != "/" and any(segment in ("", ".", "..") for segment in path.split("/")[1:]):
            raise ValueError("a value is empty, '.' or '..', which would lead to another path")
        return path


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """A JMESPath expression over the JSON of an answer."""

    text: str
    search: Callable[[Any], Any]

    @classmethod
    def parse(cls, given: Any) -> Expression:
        """Raises ValueError when it is not JMESPath."""
        if not isinstance(given, str):
            raise ValueError("must be a JMESPath expression, which is text")  # noqa: TRY004 - pydantic
        try:
            compiled = jmespath.compile(given)
        except JMESPathError as error:
            raise ValueError(f"is not a JMESPath expression: {str(error).splitlines()[0]}") from None
        return cls(given, compiled.search)

    def find(self, body: Any) -> Any:
        """What it selects; None when there is nothing, or something of a type that it can not work on."""
        try:
            return self.search(body)
        except JMESPathError:
            return None

    def holds(self, body: Any) -> bool:
        """Whether what it selects is true as JMESPath sees it: anything but null, false and what is empty."""
        found = self.find(body)
        return not (found is None or found is False or found in ("", [], {}))


@dataclass(frozen=True, slots=True)
class Statuses:
    """A set of HTTP statuses: `200`, `[200, 201]`, `4xx`."""

    members: tuple[int | str, ...]

    @classmethod
    def parse(cls, given: Any) -> Statuses:
        """Raises ValueError with what is allowed."""
        members = tuple(given) if isinstance(given, list) else (given,)
        for member in members:
            number = isinstance(member, int) and not isinstance(member, bool) and 200 <= member <= 599
            if not number and member not in ("2xx", "3xx", "4xx", "5xx"):
                raise ValueError(f"{member!r} is no status; write 200 to 599, one of 2xx, 3xx, 4xx, 5xx, or a list")
        if not members:
            raise ValueError("needs at least one status")
        return cls(members)

    def __contains__(self, status: int) -> bool:
        return status in self.members or f"{status // 100}xx" in self.members


NO_HEADERS: Final[Mapping[str, str]] = {}


def judges(rule: Any, status: int, body: Any, headers: Mapping[str, str]) -> bool:
    """Whether a rule of a description is about an answer.

    Parameters:
        headers: of the answer, by name in lower case.
    """
    said = all(headers.get(name.lower()) == text for name, text in rule.header.items())
    return status in rule.status and said and (rule.when is None or rule.when.holds(body))


TimeFormat = Literal["unix", "unix-ms", "iso8601"]
"""Seconds or milliseconds since 1970, or text; without an offset it is UTC."""


def read_time(found: Any, form: TimeFormat) -> datetime | None:
    """A point in time as an answer has it. None when it is none that can be read."""
    try:
        if form == "iso8601":
            at = datetime.fromisoformat(found) if isinstance(found, str) else None
            return at.replace(tzinfo=at.tzinfo or UTC) if at else None
        if isinstance(found, bool) or not isinstance(found, int | float):
            return None
        return datetime.fromtimestamp(found / 1000 if form == "unix-ms" else found, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def write_time(at: datetime, form: TimeFormat) -> str | int:
    """A point in time as a request has it; whole seconds."""
    if form == "iso8601":
        return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return int(at.timestamp()) * (1000 if form == "unix-ms" else 1)


def auth_templates(auth: Any) -> Iterator[tuple[str, Template]]:
    """Every template of a description's `auth` that may insert a credential, and its place."""
    if auth.bearer:
        yield "bearer", auth.bearer
    if auth.basic:
        yield "basic.username", auth.basic.username
        yield "basic.password", auth.basic.password
    for name, template in (auth.headers or {}).items():
        yield f"headers.{name}", template
    if asked := auth.oauth2_client_credentials:
        yield "oauth2_client_credentials.client_id", asked.client_id
        yield "oauth2_client_credentials.client_secret", asked.client_secret
        if asked.scope:
            yield "oauth2_client_credentials.scope", asked.scope
    if signed := auth.azure_shared_key:
        yield "azure_shared_key.account", signed.account
        yield "azure_shared_key.key", signed.key


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or re.fullmatch(r"127\.\d+\.\d+\.\d+", host) is not None


# --- questions about a whole description, checked or packed ------------------------------------------


def forms(d: Any) -> tuple[tuple[str, ...], ...]:
    """The parts that key ids may have, in their order."""
    if d.revoke:
        return tuple(revoke.key_id for revoke in d.revoke)
    return tuple(dict.fromkeys(tuple(sorted(item.key_id)) for item in (d.listing.each if d.listing else ())))


def credential_fields(d: Any) -> tuple[str, ...]:
    """The fields of a credential, in an order that does not depend on that of the file."""
    if d.slots:
        return tuple(sorted(next(iter(d.slots.values())).fields))
    return tuple(sorted([*(d.mint[0].fields or ()), *d.mint[0].from_admin])) if d.mint else d.credential


def admin_parts(d: Any) -> tuple[str, ...]:
    """The parts of an administrative credential that is a JSON object; empty where it is one text."""
    names = [name for _, template in (d.auth.templates() if d.auth else ()) for name in template.names]
    names += [name for way in d.mint for template in way.from_admin.values() for name in template.names]
    return tuple(dict.fromkeys(name.partition(".")[2] for name in names if "." in name))
