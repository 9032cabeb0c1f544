"""A stand-in of any vendor that has a description and samples: what both say, as a server on this machine.

It answers with the sample answers, into which it writes its own keys at the very places where the description looks
for them; it lets in who authenticates as described, and refuses the others. So it shows that a description is sound
in itself, and that the issuer does with it what it should. It can not show that the description fits the vendor:
what the files say wrongly of the vendor, this stand-in does wrongly, too. Stand-ins written after the vendor's own
specification (sandbox/openai) can.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import quote, unquote, urlencode

import jmespath
from jmespath.visitor import TreeInterpreter

from providers.issuers.language import (
    BASE_URL,
    OPERATION,
    SINCE,
    UNTIL,
    Expression,
    Template,
    admin_parts,
    forms,
    read_time,
)
from providers.issuers.samples import Sample, Samples
from sandbox.clock import real_time
from sandbox.loopback import Answer, Asked, Loopback

if TYPE_CHECKING:
    from providers.issuers.description import Auth, ClientCredentials, Description, Pagination, Poll, Request, Time

PAGE: Final = 3
"""Items of one page of a list."""
Operation = Literal[
    "token",
    "prefetch",
    "mint",
    "keys",
    "verify",
    "smoke",
    "revoke",
    "disable",
    "enable",
    "last_use",
    "usage",
    "admin",
    "poll",
]
_BASE: Final = "/api"
_KEPT: Final = 6
"""Characters with which a made-up value begins as its sample does."""


# --- writing at the places where a description looks ---------------------------------------------------


@dataclass(slots=True)
class _Place:
    """A member of an object or list, which may not be there yet."""

    holder: Any
    key: Any
    """Of an object a name, of a list a position."""

    @property
    def value(self) -> Any:
        if isinstance(self.holder, dict):
            return self.holder.get(self.key)
        found = self.holder
        return found[self.key] if isinstance(found, list) and -len(found) <= self.key < len(found) else None


def write(path: Expression, document: Any, value: Any) -> Any:
    """The document, with a value where the path finds one.

    Raises:
        ValueError: the path computes what it finds, so that there is no one place to write to.
    """
    box = [document]
    places = _places(jmespath.compile(path.text).parsed, [_Place(box, 0)])
    if not places:
        raise ValueError(f"{path.text}: there is no such place in the sample")
    for place in places:
        if not isinstance(place.holder, dict | list):
            raise ValueError(f"{path.text}: there is no such place in the sample")  # noqa: TRY004 - the path's fault
        place.holder[place.key] = value
    return box[0]


def _places(node: Mapping[str, Any], at: list[_Place]) -> list[_Place]:
    match node["type"]:
        case "identity" | "current":
            return at
        case "field":
            return [_Place(place.value, node["value"]) for place in at]
        case "index":
            return [_Place(place.value, node["value"]) for place in at]
        case "pipe" if node["children"][0]["type"] in ("filter_projection", "projection"):
            selected, chosen = _places(node["children"][0], at), node["children"][1]["children"]
            if [child["type"] for child in chosen] != ["identity", "index"]:
                raise ValueError("only one of what was selected can be written to, as in [0]")
            return selected[chosen[1]["value"] :][:1]
        case "subexpression" | "index_expression" | "pipe":
            for child in node["children"]:
                at = _places(child, at)
            return at
        case "filter_projection":
            left, right, condition = node["children"]
            found = [_Place(p.value, i) for p in _places(left, at) for i, _ in enumerate(p.value or ())]
            found = [place for place in found if TreeInterpreter().visit(condition, place.value)]
            return _places(right, found)
        case "projection":
            left, right = node["children"]
            return _places(right, [_Place(p.value, i) for p in _places(left, at) for i, _ in enumerate(p.value or ())])
        case "or_expression":
            for child in node["children"]:
                found = _places(child, at)
                if all(isinstance(place.holder, dict | list) for place in found):
                    return found
    raise ValueError(f"a path with {node['type']} can not be written to")


def like(sample: Any, serial: int) -> Any:
    """Something made up that has the form of a sample: the same length, beginning and kinds of characters."""
    if not isinstance(sample, str):
        return int(sample) + serial if isinstance(sample, int) else sample
    draw = secrets.SystemRandom()
    kept = min(_KEPT, len(sample) // 3)

    def other(character: str) -> str:
        for kind in ("0123456789", "abcdef", "ABCDEF", "ghijklmnopqrstuvwxyz", "GHIJKLMNOPQRSTUVWXYZ"):
            if character in kind:
                return draw.choice(kind)
        return character

    return sample[:kept] + "".join(other(character) for character in sample[kept:])


# --- requests ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Route:
    """One request of the description."""

    operation: Operation
    index: int
    step: int
    request: Request | ClientCredentials
    prefix: str


@dataclass(slots=True, eq=False)
class Key:
    """One key, or what a slot holds."""

    parts: dict[str, str | int]
    """Of its id."""
    values: dict[str, str]
    name: str
    made_at: datetime
    works_from: datetime
    way: int = 0
    slot: str | None = None
    refused_from: datetime | None = None
    revoked: bool = False
    disabled: bool = False
    uses: list[datetime] = field(default_factory=list)
    """When it was let in, in order."""
    steps: set[int] = field(default_factory=set)
    """Of its revocation, which were done."""

    @property
    def used_at(self) -> datetime | None:
        return self.uses[-1] if self.uses else None


@dataclass(slots=True)
class _Operation:
    """Something that goes on when its first answer is there."""

    answers: list[Sample]
    """What is still to be answered to who asks after it; the last one stays."""


class Vendor:
    """The stand-in on a free port, for as long as the `with` block lasts.

    Parameters:
        about: the vendor's description.
        samples: its sample answers; checked by providers.issuers.samples.faults_in().
        now: replaces the real time.
        create_delay, revoke_delay: how long a change takes to be seen by those who use keys.
        administer: its own keys are administrative credentials, too.
    """

    def __init__(
        self,
        about: Description,
        samples: Samples,
        *,
        now: Callable[[], datetime] = real_time,
        create_delay: timedelta = timedelta(0),
        revoke_delay: timedelta = timedelta(0),
        administer: bool = False,
    ) -> None:
        self._administer = administer
        self.about, self.samples, self._now = about, samples, now
        self.create_delay, self.revoke_delay = create_delay, revoke_delay
        self.admin: str = samples.admin if isinstance(samples.admin, str) else json.dumps(samples.admin or {})
        """The administrative credential that it accepts."""
        self.keys: list[Key] = []
        self.minted = 0
        """Requests for a new key that have arrived."""
        self.faults: dict[str, list[Fault]] = {}
        """By operation: what happens to its next requests."""
        self._tokens: set[str] = set()
        self._operations: dict[str, _Operation] = {}
        self._lock = threading.RLock()
        hosts = [name for name, variable in about.variables.items() if variable.type == "url"]
        self._prefixes: dict[str | None, str] = {None: _BASE, **{name: f"/{name}" for name in hosts}}
        given = {name: variable.default for name, variable in about.variables.items() if variable.default is not None}
        self._values: dict[str, Any] = {**given, **samples.variables}
        self._routes = list(self._described())
        for number, name in enumerate(about.slots):
            sample = samples.listing.body if samples.listing else None
            fields = about.slots[name].fields
            values = {f: like(path.find(sample), number) for f, path in fields.items()}
            self.keys.append(Key({}, values, name, now(), now(), slot=name))

    def __enter__(self) -> Self:
        self._server = Loopback(self._answered).__enter__()
        self.url = self._server.url
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def _answered(self, asked: Asked) -> Answer | None:
        answer = self._serve(asked)
        if answer is None:
            return None
        headers = {"Date": format_datetime(self._now(), usegmt=True), "Content-Type": "application/json"}
        body = b"" if answer.body is None else json.dumps(answer.body).encode()
        return Answer(answer.status, body, {**headers, **answer.headers})

    @property
    def variables(self) -> dict[str, Any]:
        """What an issuer is configured with, to come here in place of the vendor."""
        hosts = {name: self.url + prefix for name, prefix in self._prefixes.items() if name}
        return {**self.samples.variables, **hosts, BASE_URL: self.url + _BASE}

    # --- the vendor's other side: what a test or a person does there -----------------------------------

    def create(self, name: str) -> Key:
        """A key that a person makes in a console."""
        with self._lock:
            parts: dict[str, str | int] = {
                part: like(f"key-{part}-0000000000", len(self.keys)) for part in (forms(self.about) or (("key",),))[0]
            }
            listing = self.about.listing
            if listing and listing.each and self.samples.listing and listing.items:
                item = listing.items.find(self.samples.listing.body)[0]
                parts = {part: like(path.find(item), len(self.keys)) for part, path in listing.each[0].key_id.items()}
            values = {f: like("value-aaaaaaaa0000000000aaaaaaaa", 0) for f in self.about.credential}
            return self._add(Key(parts, values, name, self._now(), self._now() + self.create_delay))

    def accepts(self, values: Mapping[str, str], *, use: bool = True) -> bool:
        """Whether a consumer that shows these fields gets in; a use, where it does."""
        with self._lock:
            key = next((key for key in self.keys if key.values == dict(values)), None)
            accepted = key is not None and self._works(key)
            if accepted and use and key:
                key.uses.append(self._now())
            return accepted

    def live(self) -> list[Key]:
        return [key for key in self.keys if not key.revoked]

    def kill(self, key: Key) -> None:
        """What a person does in a console, or a revocation."""
        key.revoked = True
        key.refused_from = self._now() + self.revoke_delay

    # --- what it does ---------------------------------------------------------------------------------

    def _described(self) -> Iterator[_Route]:
        about = self.about

        def route(operation: Operation, request: Request | ClientCredentials, index: int = 0, step: int = 0) -> _Route:
            return _Route(operation, index, step, request, self._prefixes[request.host])

        if about.auth and about.auth.oauth2_client_credentials:
            yield route("token", about.auth.oauth2_client_credentials)
        for index, way in enumerate(about.mint):
            if way.when is None or way.when in self._values:
                yield route("mint", way.request, index)
        for index, prefetch in enumerate(about.prefetch):
            if prefetch.when is None or prefetch.when in self._values:
                yield route("prefetch", prefetch.request, index)
        changes = {"revoke": about.revoke, "disable": about.disable, "enable": about.enable}
        operations: tuple[Operation, ...] = ("revoke", "disable", "enable")
        for operation in operations:
            for index, change in enumerate(changes[operation]):
                for number, step in enumerate(change.steps):
                    yield route(operation, step.request, index, number)
        if about.listing:
            yield route("keys", about.listing.request)
        yield route("verify", about.verify.request)
        if about.smoke:
            yield route("smoke", about.smoke.request)
        if about.last_use and about.last_use.request:
            yield route("last_use", about.last_use.request)
        if about.usage:
            yield route("usage", about.usage.request)
        if about.admin:
            yield route("admin", about.admin.request)
        for poll in self._polls().values():  # last: an operation's name may look like any path
            yield route("poll", poll.request)

    def _polls(self) -> dict[str, Poll]:
        """By their places."""
        found = {f"mint[{index}]": way.poll for index, way in enumerate(self.about.mint)}
        changes = {"revoke": self.about.revoke, "disable": self.about.disable, "enable": self.about.enable}
        for what, all_of_it in changes.items():
            for index, change in enumerate(all_of_it):
                found |= {f"{what}[{index}].steps[{n}]": step.poll for n, step in enumerate(change.steps)}
        return {place: poll for place, poll in found.items() if poll}

    def _serve(self, asked: Asked) -> Sample | None:
        """The answer; None for a connection that breaks."""
        with self._lock:
            for route in self._routes:
                found = self._matches(route, asked)
                if found is not None:
                    break
            else:
                return Sample(status=404, body={"error": "no request that is described"})
            if route.operation == "mint":
                self.minted += 1
            due = self.faults.get(route.operation)
            fault = due.pop(0) if due else None
            if fault is None:
                return self._answer(route, found, asked)
            if fault.after:
                self._answer(route, found, asked)
            if fault.answer == "unclear":
                unclear = self.samples.verify.unclear if route.operation in ("verify", "smoke") else None
                return unclear or Sample(status=403, body={"error": "not from this address"})
            return fault.answer if isinstance(fault.answer, Sample) else None

    def _matches(self, route: _Route, asked: Asked) -> dict[str, str] | None:
        """The values in place of what is not configured; None when it is another request."""
        request: Any = route.request
        method = getattr(request, "method", "POST")
        if asked.method != method or not asked.path.startswith(route.prefix + "/"):
            return None
        known = {name: str(value) for name, value in self._values.items() if isinstance(value, str | int)}
        pieces = re.split(r"\{([\w.]+)\}", request.path.text)
        pattern = "".join(
            re.escape(piece)
            if i % 2 == 0
            else re.escape(quote(known[piece], safe=""))
            if piece in known
            else f"(?P<{piece}>{'.+' if piece == OPERATION else '[^/]+'})"
            for i, piece in enumerate(pieces)
        )
        path = re.fullmatch(pattern, asked.path.removeprefix(route.prefix))
        if path is None:
            return None
        found = {name: unquote(text) for name, text in path.groupdict().items()}
        if hasattr(request, "client_id"):
            # A secret that is shown may go to the same place, in the name of another client.
            client = request.client_id.fill(self._values)
            return found if asked.form.get("client_id", client) == client else None
        sides = [
            (request.query, asked.query),
            (request.form, asked.form) if request.form else (request.body, asked.json),
        ]
        for described, actual in sides:
            if described is not None and not self._fits(described, actual, found):
                return None
        return found

    def _fits(self, described: Any, actual: Any, found: dict[str, str]) -> bool:
        """Whether the fixed parts of a body or query are as described; gathers what stands for placeholders."""
        match described:
            case Template():
                if actual is None:
                    return described.absent(self._values) or bool({*described.names} - self._values.keys())
                pieces = re.split(r"\{([\w.]+)\}", described.text)
                pattern = "".join(
                    re.escape(p) if i % 2 == 0 else f"(?P<{p.replace('.', '__')}>.*)" for i, p in enumerate(pieces)
                )
                whole = re.fullmatch(pattern, actual if isinstance(actual, str) else json.dumps(actual), re.DOTALL)
                if whole is not None:
                    found |= {name: text for name, text in whole.groupdict().items() if name not in self._values}
                return whole is not None
            case Mapping():
                return isinstance(actual, Mapping) and all(
                    self._fits(d, actual.get(n), found) for n, d in described.items()
                )
            case list():
                return isinstance(actual, list)
        return bool(described == actual)

    def _answer(self, route: _Route, found: dict[str, str], asked: Asked) -> Sample:
        if route.operation == "token":
            return self._token(asked)
        if route.operation in ("verify", "smoke"):
            return self._shown(route.operation, asked)
        if not self._administers(asked):
            return Sample(status=401, body={"error": "unauthorized"})
        match route.operation:
            case "mint":
                return self._mint(route.index, found)
            case "prefetch":
                return self.samples.prefetch[route.index]
            case "keys":
                return self._list(asked)
            case "last_use":
                return self._last_use(found)
            case "usage":
                return self._usage(found, asked)
            case "poll":
                return self._polled(found)
            case "admin":
                return self._admins()
        return self._change(route, found)

    # --- who asks -------------------------------------------------------------------------------------

    def _administers(self, asked: Asked) -> bool:
        auth = self.about.auth
        if auth is None:
            return False
        if auth.oauth2_client_credentials:
            return asked.headers.get("authorization", "").removeprefix("Bearer ") in self._tokens
        if self._administer and any(
            self._works(key) and self._presents(auth, asked, {**self._values, "admin": value})
            for key in self.keys
            for value in key.values.values()
        ):
            return True
        return self._presents(auth, asked, {**self._values, **self._authority()})

    def _authority(self) -> dict[str, str]:
        """What is inserted for the administrative credential."""
        names = admin_parts(self.about)
        return {f"admin.{name}": json.loads(self.admin)[name] for name in names} if names else {"admin": self.admin}

    def _token(self, asked: Asked) -> Sample:
        auth = self.about.auth
        way = auth.oauth2_client_credentials if auth else None
        assert way is not None, "or there were no such route"
        values = {**self._values, "admin": self.admin}
        form, wanted = asked.form, (way.client_id.fill(values), way.client_secret.fill(values))
        given = (form.get("client_id"), form.get("client_secret"))
        if way.send == "basic":
            text = base64.b64decode(asked.headers.get("authorization", "").removeprefix("Basic ")).decode()
            given = tuple(unquote(part) for part in text.split(":", 1))  # type: ignore[assignment]
        if form.get("grant_type") != "client_credentials" or given != wanted:
            return Sample(status=401, body={"error": "invalid_client"})
        token = f"token-{secrets.token_hex(16)}"
        self._tokens.add(token)
        return Sample(body={"access_token": token, "token_type": "Bearer", "expires_in": 3600})

    def _presents(self, auth: Auth, asked: Asked, values: Mapping[str, Any]) -> bool:
        """Whether a request authenticates by these values in the described way."""
        if auth.bearer:
            return asked.headers.get("authorization") == f"Bearer {auth.bearer.fill(values)}"
        if auth.basic:
            pair = f"{auth.basic.username.fill(values)}:{auth.basic.password.fill(values)}"
            return asked.headers.get("authorization") == f"Basic {base64.b64encode(pair.encode()).decode()}"
        if auth.azure_shared_key:
            account, key = auth.azure_shared_key.account.fill(values), auth.azure_shared_key.key.fill(values)
            stamped = "".join(f"{n}:{t}\n" for n, t in sorted(asked.headers.items()) if n.startswith("x-ms-"))
            comp = f"?comp={asked.query['comp']}" if "comp" in asked.query else ""
            text = f"{asked.method}\n\n\n\n{stamped}/{account}{asked.path}{comp}"
            signed = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
            return asked.headers.get("authorization") == f"SharedKeyLite {account}:{signed}"
        return all(asked.headers.get(n.lower()) == t.fill(values) for n, t in (auth.headers or {}).items())

    def _shown(self, operation: str, asked: Asked) -> Sample:
        request = self.about.verify.request
        auth = self.about.verify.auth
        for key in self.keys:
            values = {**self._values, **key.values}
            body: Any = {n: t.fill(values) for n, t in (request.form or {}).items() if not t.absent(values)}
            shown = self._presents(auth, asked, values) if auth else body == asked.form
            if shown and self._works(key):
                key.uses.append(self._now())
                smoke = self.samples.smoke if operation == "smoke" else None
                return smoke or self.samples.verify.accepted
        return self.samples.verify.refused

    def _works(self, key: Key) -> bool:
        now = self._now()
        refused = key.disabled or (key.refused_from is not None and now >= key.refused_from)
        return now >= key.works_from and not refused

    # --- keys -----------------------------------------------------------------------------------------

    def _add(self, key: Key) -> Key:
        self.keys.append(key)
        return key

    def _mint(self, index: int, found: Mapping[str, str]) -> Sample:
        way, now = self.about.mint[index], self._now()
        sample = self.samples.mint[index]
        most = self.about.capabilities.max_keys
        if self.about.slots:
            return self._regenerate(found["slot"], sample)
        if most is not None and len(self.live()) >= most:
            return self.samples.limit or Sample(status=400, body={"error": "limit"})
        place = f"mint[{index}]"
        last = self.samples.polled[place] if way.poll else sample
        body, serial = copy.deepcopy(last.body), len(self.keys) + 1
        parts = {part: like(path.find(body), serial) for part, path in (way.key_id or {}).items()}
        values = {name: str(like(path.find(body), serial)) for name, path in (way.fields or {}).items()}
        taken = {name: template.fill(self._authority()) for name, template in way.from_admin.items()}
        key = self._add(Key(parts, {**values, **taken}, found["key_name"], now, now + self.create_delay, index))
        for part, path in (way.key_id or {}).items():
            body = write(path, body, key.parts[part])
        for name, path in (way.fields or {}).items():
            # A credential may carry its own id, which is one and the same place.
            twin = next((part for part, other in (way.key_id or {}).items() if other.text == path.text), None)
            if twin is not None:
                key.values[name] = str(key.parts[twin])
            body = write(path, body, key.values[name])
        body = self._stamped(way.created_at, body, now)
        made = Sample(status=last.status, body=body, headers=last.headers)
        return self._begun(way.poll, made, sample) if way.poll else made

    def _begun(self, poll: Poll, last: Sample, first: Sample) -> Sample:
        """The first answer of an operation: it is not done when somebody asks after it for the first time."""
        name = like(poll.operation.find(first.body), len(self._operations) + 1)
        begun = Sample(status=first.status, body=write(poll.operation, copy.deepcopy(first.body), name))
        with suppress(ValueError):  # the last answer need not name it
            last = last.model_copy(update={"body": write(poll.operation, copy.deepcopy(last.body), name)})
        waiting = [] if poll.done.holds(begun.body) else [begun.model_copy(update={"status": 200})]
        self._operations[str(name)] = _Operation([*waiting, last])
        return begun

    def _polled(self, found: Mapping[str, str]) -> Sample:
        operation = self._operations.get(found.get(OPERATION, ""))
        if operation is None:
            return Sample(status=404, body={"error": "no such operation"})
        return operation.answers.pop(0) if len(operation.answers) > 1 else operation.answers[0]

    def _regenerate(self, name: str, sample: Sample) -> Sample:
        if name not in self.about.slots:
            return Sample(status=400, body={"error": "no such slot"})
        now, listed = self._now(), self.samples.listing
        for key in self.keys:
            if key.slot == name and not key.revoked:
                self.kill(key)
        fields = self.about.slots[name].fields
        values = {f: str(like(path.find(listed.body if listed else None), 0)) for f, path in fields.items()}
        self._add(Key({}, values, name, now, now + self.create_delay, slot=name))
        return Sample(status=sample.status, body=self._slots(copy.deepcopy(sample.body)))

    def _slots(self, body: Any) -> Any:
        for key in self.live():
            slot = self.about.slots[key.slot or ""]
            for name, path in slot.fields.items():
                body = write(path, body, key.values[name])
            body = self._stamped(slot.created_at, body, key.made_at)
        return body

    def _list(self, asked: Asked) -> Sample:
        listing, sample = self.about.listing, self.samples.listing
        assert listing is not None, "or there were no such route"
        assert sample is not None, "checked with the samples"
        body = copy.deepcopy(sample.body)
        if self.about.slots:
            return Sample(status=sample.status, body=self._slots(body))
        assert listing.items is not None, "checked with the description"
        items = [self._item(key, listing.items.find(body)) for key in self.live()]
        return Sample(status=sample.status, body=self._paged(listing.pagination, listing.items, body, items, asked))

    def _paged(self, way: Pagination | None, path: Expression, body: Any, items: list[Any], asked: Asked) -> Any:
        """A body with the page of the items that was asked for."""
        first = 0
        if way and way.offset:
            first = int(asked.query.get(way.offset.parameter, way.offset.start)) - way.offset.start
        elif way and way.page:
            first = (int(asked.query.get(way.page.parameter, way.page.start)) - way.page.start) * PAGE
        elif way:
            told = asked.query.get(way.cursor.parameter if way.cursor else "page_token", "0")
            first = int(re.sub(r"\D", "", told) or 0)
        last = first + PAGE if way else len(items)
        body, more = write(path, body, items[first:last]), last < len(items)
        if way and way.cursor:
            body = write(way.cursor.next, body, f"after-{last}" if more else None)
            body = write(way.cursor.more, body, more) if way.cursor.more else body
        elif way and way.next_url:
            query = urlencode({**asked.query, "page_token": f"after-{last}"})
            body = write(way.next_url.next, body, f"{self.url}{asked.path}?{query}" if more else None)
        return body

    def _usage(self, found: Mapping[str, str], asked: Asked) -> Sample:
        """Uses of each key in spans of time; a span, or where they stand alone a row, without any is left out of rows."""
        about, sample = self.about.usage, self.samples.usage
        assert about is not None, "or there were no such route"
        assert sample is not None, "checked with the samples"
        times = [found.get(name) for name in (SINCE, UNTIL)]
        since, until = (read_time(int(t) if t and about.time != "iso8601" else t, about.time) for t in times)
        if since is None:
            return Sample(status=400, body={"error": "since when?"})
        shown, spans = about.buckets.find(sample.body), []
        while since < (until or self._now()):
            end = since + about.width
            counts = [(key, sum(since <= at < end for at in key.uses)) for key in self.keys]
            row = (about.rows.find(shown[0]) if about.rows else shown)[0]
            rows = [self._row(row, key, count) for key, count in counts if count]
            if about.rows:
                spans.append(self._stamped(about.start, write(about.rows, copy.deepcopy(shown[0]), rows), since))
            else:
                spans += [self._stamped(about.start, row, since) for row in rows]
            since = end
        body = copy.deepcopy(sample.body)
        return Sample(status=sample.status, body=self._paged(about.pagination, about.buckets, body, spans, asked))

    def _row(self, sample: Any, key: Key, count: int) -> Any:
        about = self.about.usage
        assert about is not None, "or there were no such route"
        row = write(about.count, copy.deepcopy(sample), count)
        for part, path in about.key_id.items():
            row = write(path, row, key.parts.get(part))
        return row

    def _item(self, key: Key, items: list[Any]) -> Any:
        """The key as the list shows it: the sample's item that has the same parts of a key id."""
        listing = self.about.listing
        assert listing is not None, "or there were no such route"
        ways = [way for way in listing.each if way.key_id.keys() == key.parts.keys()] or list(listing.each)
        way = ways[0]
        item = copy.deepcopy(
            next(i for i in items if all(p.find(i) is not None for p in way.key_id.values()) and way.name.find(i))
        )
        item = write(way.name, item, key.name)
        for part, path in way.key_id.items():
            item = write(path, item, key.parts[part])
        if way.redacted:
            value = next(iter(key.values.values()))
            item = write(way.redacted, item, f"{value[:6]}...{value[-4:]}")
        if self.about.last_use and self.about.last_use.request is None:
            item = self._stamped(self.about.last_use.at, item, key.used_at)
        elif self.about.last_use and self.about.last_use.listed:
            item = self._stamped(self.about.last_use.listed.at, item, key.used_at)
        return self._stamped(way.created_at, item, key.made_at)

    def _last_use(self, found: Mapping[str, str]) -> Sample:
        asked, sample, key = self.about.last_use, self.samples.last_use, self._named(found)
        if key is None or key.revoked or asked is None or sample is None:
            return Sample(status=self._status(asked.gone if asked else None, 404), body={"error": "not found"})
        body = self._stamped(asked.at, copy.deepcopy(sample.body), key.used_at)
        return Sample(status=sample.status, body=body)

    def _admins(self) -> Sample:
        about, sample = self.about.admin, self.samples.admin_keys
        assert about is not None, "or there were no such route"
        assert sample is not None, "checked with the samples"
        body = copy.deepcopy(sample.body)
        write(about.redacted, about.items.find(body)[0], f"{self.admin[:8]}...{self.admin[-4:]}")
        return Sample(status=sample.status, body=body)

    def _change(self, route: _Route, found: Mapping[str, str]) -> Sample:
        changes = {"revoke": self.about.revoke, "disable": self.about.disable, "enable": self.about.enable}
        step = changes[route.operation][route.index].steps[route.step]
        key = self._named(found)
        gone = key is None or (key.revoked and (route.operation != "revoke" or route.step in key.steps))
        if gone or key is None:
            if self.samples.gone and step.gone and self.samples.gone.status in step.gone:
                return self.samples.gone
            return Sample(status=self._status(step.gone, 404), body={"error": "not found"})
        if route.operation == "revoke":
            key.steps.add(route.step)
            if not key.revoked:
                self.kill(key)
        else:
            key.disabled = route.operation == "disable"
        status = self._status(step.ok, 200)
        done = Sample(status=status, body=None if status == 204 else {})
        if step.poll:
            place = f"{route.operation}[{route.index}].steps[{route.step}]"
            last = self.samples.polled[place]
            begun = copy.deepcopy(last.body)
            with suppress(ValueError):  # what says that it is done may be computed; then it is done at once
                begun = write(step.poll.done, begun, None)
            return self._begun(step.poll, last, last.model_copy(update={"status": status, "body": begun}))
        return done

    def _named(self, found: Mapping[str, str]) -> Key | None:
        """The key of which the request has parts of the id."""
        parts = {part: text for part, text in found.items() if any(part in form for form in forms(self.about))}
        fitting = (
            k for k in self.keys if parts and all(str(k.parts.get(part)) == text for part, text in parts.items())
        )
        return next(fitting, None)

    def _stamped(self, time: Time | None, body: Any, at: datetime | None) -> Any:
        if time is None:
            return body
        if at is None:
            return write(time.path, body, None)
        seconds = at.timestamp()
        sample = time.path.find(body)
        if time.format == "iso8601" and isinstance(sample, str) and len(sample) == len("2026-11-22"):
            return write(time.path, body, f"{at:%Y-%m-%d}")
        told = {"unix": int(seconds), "unix-ms": int(seconds * 1000), "iso8601": at.isoformat()}[time.format]
        return write(time.path, body, told)

    @staticmethod
    def _status(statuses: Any, otherwise: int) -> int:
        """One of the statuses that a description names."""
        if statuses is None or otherwise in statuses:
            return otherwise
        return next((member for member in statuses.members if isinstance(member, int)), otherwise)


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request."""

    answer: Sample | Literal["unclear"] | None = None
    """In place of the truth: as to an address that is not let in, or this; None for a connection that breaks."""
    after: bool = False
    """What was asked for is done all the same."""
