"""The store over KV version 2 of HashiCorp Vault or OpenBao.

Layout, for an entry `<environment>/<name>` under a mount and an optional prefix:

    <prefix>/<environment>/<name>            its newest version is current: what consumers read
    <prefix>/<environment>/<name>-pending    its newest version is pending, or an empty marker: nothing is

A payload has the credential's fields at top level, so that a consumer reads `value`, and one more,
`keyturn`, which says whose it is: ``token=<rotation token> key=<key id> sum=<checksum>``. A console offers
the old payload for editing; the checksum tells a version whose value was changed there from ours.
Journal and policy are custom_metadata, keys `journal.<fact>` and `policy.<key>`, written by HTTP PATCH
only: it merges on the server, so that two writers never erase each other.

The least policy that every operation works under, with `P` for `<mount>/<kind>/<prefix>`:

    P of data      create, read, update
    P of metadata  create, read, patch, list
    P of delete    update
    P of undelete  update
    auth/token/lookup-self  read; tells an expired token from a missing permission

A promotion writes with check-and-set on the version number and looks at nothing else. One that was
under way when its entry was deleted therefore brings the entry back; whoever deletes looks again.

Seen on OpenBao 2.7.2, whose KV engine has Vault's API: a soft-deleted version answers 404 with its metadata,
an unknown path 404 without; `cas` 0 means that there is no version yet; a key of custom_metadata has at most 128
bytes, a value 1 to 512; metadata posted to a new path without any setting makes nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, unquote

from rotation.errors import Code, Trouble
from rotation.journal import Journal
from rotation.model import Credential, Entry, SecretValue, Version
from rotation.ports import Clock, Listed, StoreFeatures

if TYPE_CHECKING:
    import requests

Json = Mapping[str, Any]

_OURS: Final = "keyturn"
_JOURNAL: Final = "journal."
_POLICY: Final = "policy."
_DELETED: Final = "keyturn.deleted"
"""Marks a deleted entry that has no version which could be deleted."""
_PENDING: Final = "pending-"
"""Starts the ids of versions on the pending path; those on the main path are bare numbers."""


class Login(Protocol):
    """How to get a token. Used at first need, and again when the token has expired."""

    @property
    def how(self) -> str:
        """Names it in messages; no value."""

    def log_in(self, client: Any) -> Json:
        """The `auth` block of a login's answer: `client_token`, and `lease_duration` in seconds, 0 for no end.

        Parameters:
            client: a `hvac.Client` without a token; what it raises may be let through.
        """


@dataclass(frozen=True, slots=True, eq=False)
class TokenLogin:
    """A token that somebody else has got and renews."""

    token: SecretValue

    @property
    def how(self) -> str:
        return "a configured token"

    def log_in(self, client: Any) -> Json:  # noqa: ARG002 - there is nothing to ask
        return {"client_token": self.token.reveal(), "lease_duration": 0}


@dataclass(frozen=True, slots=True, eq=False)
class AppRoleLogin:
    """The AppRole method."""

    role_id: str
    secret_id: SecretValue
    mount: str = "approle"

    @property
    def how(self) -> str:
        return f"AppRole at auth/{self.mount}"

    def log_in(self, client: Any) -> Json:
        answer: Json = client.auth.approle.login(
            role_id=self.role_id, secret_id=self.secret_id.reveal(), use_token=False, mount_point=self.mount
        )
        auth: Json = answer["auth"]
        return auth


class VaultStore:
    """A client of one mount of a server. Threads may share it.

    Parameters:
        name: the store's configured name.
        address: `https://host:port`.
        mount: where the KV version 2 engine is mounted.
        prefix: path below the mount that all entries live under; None for the mount itself.
        namespace: of Vault Enterprise, or of OpenBao.
        ca_bundle: PEM file with the authorities to trust; None for the usual ones.
        auth: how to log in.
        clock: for the time of looking, and for the token's life.
        timeout: seconds that one answer may take; connecting has 2 s more.
    """

    features: Final = StoreFeatures(
        compare_and_set=True,
        keeps_key_id=True,
        # Half of the smallest storage entry that Vault documents (512 KiB, on Consul; "Limits and maximums"):
        # escapes, encryption and the other fields make an entry larger than its value.
        max_value_bytes=262_144,
        recovers_deleted=True,
    )

    def __init__(
        self,
        name: str,
        *,
        address: str,
        mount: str,
        prefix: str | None = None,
        namespace: str | None = None,
        ca_bundle: str | None = None,
        auth: Login,
        clock: Clock,
        timeout: float = 8.0,
    ) -> None:
        self.name: Final = name
        self._prefix = f"{prefix.strip('/')}/" if prefix else ""
        self._clock = clock
        self._server = _Server(name, address, mount.strip("/"), namespace, ca_bundle, auth, clock, timeout)

    def observe(self, entry: str) -> Entry:
        at = self._clock.now()
        # Pending before current: a version on its way from one to the other is seen in at least one.
        pending = self._look(entry, _pending(entry))
        main = self._look(entry, entry)
        custom = self._require(entry, main)
        try:
            journal = Journal(_under(_JOURNAL, custom))
        except ValueError as error:
            raise self._trouble(Code.INVALID, entry, f"{error}; correct or remove it in the custom metadata") from None
        return Entry(
            store=self.name,
            name=entry,
            read_at=at,
            current=main.version,
            pending=pending.version,
            journal=journal,
            policy=_under(_POLICY, custom),
        )

    def read(self, entry: str, version: Version) -> Credential:
        if version.credential is not None:
            return version.credential
        path = _pending(entry) if version.id.startswith(_PENDING) else entry
        number = version.id.removeprefix(_PENDING)
        found = self._look(entry, path, int(number)).version if number.isdecimal() else None
        if found is None or found.credential is None:
            raise self._trouble(Code.NOT_FOUND, entry, f"version {version.id} can not be read any more")
        return found.credential

    def find(self, entry: str, token: str) -> Version | None:
        paths = (entry, _pending(entry))
        newest = [self._look(entry, path) for path in paths]
        self._require(entry, newest[0])
        for seen in newest:
            if seen.version and seen.version.token == token:
                return seen.version
        older = [
            (_time(details["created_time"]), path, int(number))
            for path, seen in zip(paths, newest, strict=True)
            if seen.number > 1 and (metadata := self._metadata(entry, path))
            for number, details in metadata["versions"].items()
            if int(number) != seen.number and not details["destroyed"]
        ]
        for _, path, number in sorted(older, reverse=True):
            version = self._look(entry, path, number).version
            if version and version.token == token:
                return version
        return None

    def stage(self, entry: str, token: str, credential: Credential, *, key_id: str | None) -> None:
        begun = self._clock.monotonic()
        payload = self._payload(entry, token, credential, key_id)
        path = _pending(entry)
        try:
            self._put(entry, path, payload, cas=None, begun=begun)
        except _CasRequired:
            self._put(entry, path, payload, cas=self._look(entry, path).number, begun=begun)

    def promote(self, entry: str, pending: Version, expected: str | None) -> None:
        begun = self._clock.monotonic()
        if expected is not None and not expected.isdecimal():
            raise self._trouble(Code.CONFLICT, entry, f"version {expected} is not current")
        payload = self._payload(entry, pending.token, self.read(entry, pending), pending.key_id)
        self._put(entry, entry, payload, cas=int(expected or 0), begun=begun)

    def discard(self, entry: str, pending: Version) -> None:
        number = pending.id.removeprefix(_PENDING)
        if pending.id == number:
            return  # not an id of the pending path
        try:
            self._put(entry, _pending(entry), {}, cas=int(number), begun=self._clock.monotonic())
        except Trouble as trouble:
            if trouble.code is not Code.CONFLICT:
                raise

    def record(self, entry: str, facts: Mapping[str, str]) -> None:
        self._patch(entry, {_JOURNAL + key: text for key, text in facts.items()})

    def forget(self, entry: str, facts: Iterable[str]) -> None:
        self._patch(entry, {_JOURNAL + key: None for key in facts})

    def listing(self) -> Iterator[Listed]:
        """As the port says. Neither server has pages; each entry's metadata costs one call."""
        for environment in self._names(""):
            if not environment.endswith("/"):
                continue
            for name in self._names(environment):
                if name.endswith(("/", _pending(""))):
                    continue
                entry = environment + name
                metadata = self._metadata(entry, entry)
                if metadata is None or self._is_listed_as_deleted(metadata):
                    continue
                if policy := _under(_POLICY, _custom(metadata)):
                    yield Listed(entry, policy)

    def create(self, entry: str, policy: Mapping[str, str]) -> None:
        """As the port says. One that failed half-way is completed by the next."""
        found = self._metadata(entry, entry)
        if found is None:
            # This setting is the default. Without any, the server answers 204 and creates nothing.
            self._server.ask(self._call(entry, "POST", "metadata", entry, body={"max_versions": 0}))
        elif found["current_version"] or any(key.startswith((_JOURNAL, _POLICY, _DELETED)) for key in _custom(found)):
            raise self._trouble(Code.CONFLICT, entry, "the entry exists already, perhaps deleted")
        # Merged, not written with the POST: of two creators at once, none erases what the other's run has recorded.
        self._patch(entry, {_POLICY + key: text for key, text in policy.items()}, half_done=found is None)

    def set_policy(self, entry: str, policy: Mapping[str, str]) -> None:
        found = self._metadata(entry, entry)
        if found is None:
            raise self._trouble(Code.NOT_FOUND, entry, "no such entry")
        changes: dict[str, str | None] = {_POLICY + key: None for key in _under(_POLICY, _custom(found))}
        self._patch(entry, changes | {_POLICY + key: text for key, text in policy.items()})

    def delete(self, entry: str) -> None:
        """As the port says: the newest versions are soft-deleted. `vault kv metadata delete` is for ever."""
        main = self._look(entry, entry)
        if main.version:
            self._switch(entry, "delete", entry, main.number)
        elif not main.number:
            if self._metadata(entry, entry) is None:
                return
            self._patch(entry, {_DELETED: "true"})
        pending = self._look(entry, _pending(entry), half_done=True)
        if pending.version:
            self._switch(entry, "delete", _pending(entry), pending.number, half_done=True)

    def restore(self, entry: str) -> bool:
        main = self._look(entry, entry)
        empty = None if main.number else self._metadata(entry, entry)
        if not main.deleted and not (empty and _DELETED in _custom(empty)):
            return False
        # The main path last: the entry comes back complete.
        pending = self._look(entry, _pending(entry))
        if pending.deleted:
            self._switch(entry, "undelete", _pending(entry), pending.number)
        if main.deleted:
            self._switch(entry, "undelete", entry, main.number, half_done=pending.deleted)
        else:
            self._patch(entry, {_DELETED: None}, half_done=pending.deleted)
        return True

    # --- the parts that operations are made of -----------------------------------------------------

    def _look(self, entry: str, path: str, number: int | None = None, *, half_done: bool = False) -> _Seen:
        """One version of a path, the newest by default, with the custom metadata that comes with it."""
        query = {} if number is None else {"version": str(number)}
        answer = self._server.ask(self._call(entry, "GET", "data", path, query=query, half_done=half_done))
        if answer is None:
            return _Seen()
        payload, about = answer["data"]["data"], answer["data"]["metadata"]
        pending = path == _pending(entry)
        version = None
        if payload or (payload is not None and not pending):
            token, key_id, credential = _opened(payload)
            version = Version(
                id=f"{_PENDING if pending else ''}{about['version']}",
                token=token,
                key_id=key_id,
                created_at=_time(about["created_time"]),
                credential=credential,
            )
        deleted = payload is None and not about["destroyed"]
        return _Seen(about["version"], version, deleted, about.get("custom_metadata") or {})

    def _require(self, entry: str, main: _Seen) -> Json:
        """The custom metadata of an entry that is there and not deleted. Takes a call when it has no version yet."""
        if main.version:
            return main.custom
        metadata = None if main.number else self._metadata(entry, entry)
        if metadata is None or _DELETED in _custom(metadata):
            known = metadata is not None or main.number
            raise self._trouble(Code.NOT_FOUND, entry, "the entry is deleted" if known else "no such entry")
        return _custom(metadata)

    def _metadata(self, entry: str, path: str) -> Json | None:
        answer = self._server.ask(self._call(entry, "GET", "metadata", path))
        return None if answer is None else answer["data"]

    def _names(self, directory: str) -> list[str]:
        call = self._call(f"{directory or 'listing'}", "GET", "metadata", directory, query={"list": "true"})
        answer = self._server.ask(call)
        return [] if answer is None else answer["data"]["keys"]

    def _put(self, entry: str, path: str, payload: Json, *, cas: int | None, begun: float) -> None:
        body = {"data": payload, "options": {} if cas is None else {"cas": cas}}
        self._server.ask(self._call(entry, "POST", "data", path, body=body, begun=begun))

    def _patch(self, entry: str, custom: Mapping[str, str | None], *, half_done: bool = False) -> None:
        """Merges into the custom metadata on the server; None removes a key."""
        if not custom:
            return
        body = {"custom_metadata": custom}
        answer = self._server.ask(self._call(entry, "PATCH", "metadata", entry, body=body, half_done=half_done))
        if answer is None:
            raise self._trouble(Code.NOT_FOUND, entry, "no such entry")

    def _switch(self, entry: str, kind: str, path: str, number: int, *, half_done: bool = False) -> None:
        body = {"versions": [number]}
        self._server.ask(self._call(entry, "POST", kind, path, body=body, half_done=half_done))

    def _call(self, entry: str, method: str, kind: str, path: str, **more: Any) -> _Call:
        return _Call(entry, method, f"{kind}/{self._prefix}{path}", **more)

    def _payload(self, entry: str, token: str | None, credential: Credential, key_id: str | None) -> Json:
        """What is written. Refuses what the server would refuse, or keep differently."""
        fields = {name: value.reveal() for name, value in credential.fields.items()}
        if not fields or _OURS in fields:
            raise self._trouble(Code.INVALID, entry, f"a credential has fields, and none that is called {_OURS!r}")
        # Lone surrogates have no UTF-8; the server would quietly store another character.
        if any(_SURROGATE.search(text) for pair in fields.items() for text in pair):
            raise self._trouble(Code.INVALID, entry, "the value is not valid Unicode text")
        size = sum(len(text.encode()) for pair in fields.items() for text in pair)
        if size > (limit := self.features.max_value_bytes):
            raise self._trouble(Code.INVALID, entry, f"the value has {size} bytes, at most {limit} are allowed")
        return fields if token is None else fields | {_OURS: _label(token, key_id, fields)}

    def _is_listed_as_deleted(self, metadata: Json) -> bool:
        if not metadata["current_version"]:
            return _DELETED in _custom(metadata)
        newest = metadata["versions"][str(metadata["current_version"])]
        # A time to come is when the version will expire, on a mount or entry with delete_version_after.
        ended = newest["deletion_time"]
        return bool(newest["destroyed"] or (ended and _time(ended) <= self._clock.now()))

    def _trouble(self, code: Code, entry: str, message: str) -> Trouble:
        return Trouble(code, self.name, f"{entry}: {message}")


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What one look at the data of a path brought."""

    number: int = 0
    """0: the path has no version, or does not exist."""
    version: Version | None = None
    """None: it is deleted or destroyed, or nothing is pending."""
    deleted: bool = False
    """It can be undeleted."""
    custom: Json = field(default_factory=dict)


def _pending(entry: str) -> str:
    return f"{entry}-pending"


def _custom(metadata: Json) -> Json:
    return metadata.get("custom_metadata") or {}


def _under(prefix: str, custom: Json) -> dict[str, str]:
    return {key.removeprefix(prefix): text for key, text in custom.items() if key.startswith(prefix)}


def _time(text: str) -> datetime:
    """RFC 3339 in UTC with up to nine decimals, of which six are kept."""
    return datetime.fromisoformat(text)


_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def _label(token: str, key_id: str | None, fields: Mapping[str, str]) -> str:
    words = {"token": token, "key": quote(key_id, safe="") if key_id else "", "sum": _checksum(token, fields)}
    return " ".join(f"{name}={text}" for name, text in words.items() if text)


def _checksum(token: str, fields: Mapping[str, str]) -> str:
    """Binds token and value together. It stands beside the value, so it tells nobody anything new."""
    return hashlib.sha256(json.dumps([token, sorted(fields.items())]).encode()).hexdigest()[:16]


def _opened(payload: Json) -> tuple[str | None, str | None, Credential]:
    """Token, key id and credential. A payload that was not written by us as it is has neither of the former."""
    fields = {name: text if isinstance(text, str) else json.dumps(text) for name, text in payload.items()}
    label = fields.pop(_OURS, "")
    words = dict(word.split("=", 1) for word in label.split() if "=" in word)
    token = words.get("token")
    credential = Credential({name: SecretValue(text) for name, text in fields.items()})
    if not token or words.get("sum") != _checksum(token, fields):
        return None, None, credential
    key = words.get("key")
    return token, unquote(key) if key else None, credential


# --- talking to the server -------------------------------------------------------------------------

_CONNECT_SECONDS: Final = 2.0
_LATEST_SECONDS: Final = 40.0
"""A write goes out at most this long after its operation began, whatever logging in took."""
_USED_LIFE: Final = 0.9
"""Part of a token's life after which it is not used any more."""
_POOL: Final = 32
"""Connections kept for as many threads; more are opened when needed, and closed again."""


class _CasRequired(Trouble):
    """The mount or the path wants every write to name the version that it follows."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One request."""

    entry: str
    method: str
    path: str
    """Below the mount, kind first."""
    body: Json | None = field(default=None, repr=False)
    query: Mapping[str, str] = field(default_factory=dict)
    begun: float | None = None
    """When its operation began, on the monotonic clock; None when it begins with this call."""
    half_done: bool = False
    """Earlier calls of the operation have had their effect."""

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    @property
    def carries_value(self) -> bool:
        return self.writes and self.path.startswith("data/")

    @property
    def capability(self) -> str:
        if self.method == "PATCH":
            return "'patch'"
        if self.method == "GET":
            return "'list'" if "list" in self.query else "'read'"
        return "'create' and 'update'" if self.path.startswith("data/") else "'create' or 'update'"


class _Server:
    """Sends requests, logs in when that is needed, and says what an answer means. Threads may share it."""

    def __init__(
        self,
        name: str,
        address: str,
        mount: str,
        namespace: str | None,
        ca_bundle: str | None,
        auth: Login,
        clock: Clock,
        timeout: float,
    ) -> None:
        self._name = name
        self._address = address
        self._mount = mount
        self._namespace = namespace
        self._ca_bundle = ca_bundle
        self._auth = auth
        self._clock = clock
        self._timeout = timeout
        self._lock = threading.Lock()
        self._client: Any = None
        self._adapter: Any = None
        self._expires = 0.0

    def ask(self, call: _Call) -> Json | None:
        """The answer's body, {} when it has none. None for 404, unless that comes with a body of its own.

        Raises:
            Trouble: anything else but success.
        """
        begun = self._clock.monotonic() if call.begun is None else call.begun
        token = self._token(call, unlike=None)
        response = self._send(call, begun)
        valid = True
        if response.status_code == 403:
            valid = self._request(call, "GET", "auth/token/lookup-self").status_code == 200
            if not valid and self._token(call, unlike=token) != token:
                # A request that was refused was not carried out. This is the one case that is sent again.
                response, valid = self._send(call, begun), True
        body = self._body(call, response)
        if response.ok or (response.status_code == 404 and "data" in body):
            return body
        if response.status_code == 404 and not body.get("errors"):
            return None
        if response.status_code == 403 and not valid:
            unless = f"unless its policy lacks both lookup-self and {call.capability} on {self._mount}/{call.path}"
            message = f"permission denied: the token of {self._auth.how} has expired or was revoked, {unless}"
            raise self._trouble(Code.DENIED, call, message)
        raise self._refused(call, response, body)

    def _send(self, call: _Call, begun: float) -> requests.Response:
        if call.writes and self._clock.monotonic() > begun + _LATEST_SECONDS:
            raise self._trouble(Code.UNAVAILABLE, call, "getting ready took too long; the write was not sent")
        headers = {"Content-Type": "application/merge-patch+json"} if call.method == "PATCH" else {}
        return self._request(call, call.method, f"{self._mount}/{call.path}", call.body, call.query, headers)

    def _request(
        self,
        call: _Call,
        method: str,
        path: str,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> requests.Response:
        try:
            response: requests.Response = self._adapter.request(
                method, f"/v1/{quote(path)}", headers=headers, json=body, params=query, raise_exception=False
            )
            if response.request.method == method:
                return response
            # Any redirection but 307 and 308 turns a write into a read, whose success would say nothing.
            message = f"{self._address} redirects to {response.url}; configure the address that is redirected to"
            trouble = self._trouble(Code.INVALID, call, message)
        except (OSError, ValueError) as error:  # everything that requests raises is one or the other
            trouble = self._unanswered(call, error, writes=method != "GET")
        # Not inside the handler: what requests raises holds the request, and that its body and token.
        raise trouble

    def _body(self, call: _Call, response: requests.Response) -> Json:
        if not response.content:
            return {}
        try:
            body = response.json()
        except ValueError:
            body = None
        if isinstance(body, dict):
            return body
        if response.status_code >= 500:
            return {}  # a gateway's own page
        unsure = call.writes and response.ok
        what = f"HTTP {response.status_code} without JSON from {self._address}; is that a Vault?"
        raise self._trouble(Code.UNAVAILABLE, call, what, maybe_applied=unsure)

    def _refused(self, call: _Call, response: requests.Response, body: Json) -> Trouble:
        """What a refusal means. The server's own words are passed on only where no value went out."""
        status, where = response.status_code, f"{self._mount}/{call.path}"
        words = " ".join(" ".join(str(text) for text in body.get("errors") or ()).split())
        told = "" if call.carries_value or not words else f": {words[:300]}"
        match status:
            case 400 if "did not match the current version" in words:
                cas = (call.body or {}).get("options", {}).get("cas")
                return self._trouble(Code.CONFLICT, call, f"{where} is not at version {cas} any more; left as it is")
            case 400 if "check-and-set parameter required" in words:
                return _CasRequired(Code.INVALID, self._name, f"{call.entry}: {where} wants check-and-set")
            case 403:
                lacks = f"the policy of {self._auth.how} lacks {call.capability} on {where}"
                return self._trouble(Code.DENIED, call, f"permission denied: {lacks}")
            case 404 | 405:
                return self._trouble(Code.INVALID, call, f"there is no KV version 2 engine at {self._mount}/{told}")
            case 429:
                after = response.headers.get("Retry-After", "")
                wait = float(after) if after.isdecimal() else None
                return self._trouble(Code.THROTTLED, call, f"too many requests{told}", retry_after=wait)
            case _ if status >= 500:
                why = "is sealed" if "sealed" in words else f"answers HTTP {status}{told}"
                message = f"the server at {self._address} {why}"
                return self._trouble(Code.UNAVAILABLE, call, message, maybe_applied=call.writes)
        return self._trouble(Code.INVALID, call, f"HTTP {status} for {call.method} {where}{told}")

    def _unanswered(self, call: _Call, error: Exception, *, writes: bool) -> Trouble:
        """What it means that a request got no answer; above all, whether it can have had an effect."""
        import requests  # noqa: PLC0415 - loaded with the client; importing this module stays cheap
        from urllib3.exceptions import ConnectTimeoutError, NewConnectionError  # noqa: PLC0415

        inner = error.args[0] if error.args else None
        reason = getattr(inner, "reason", inner)
        if isinstance(error, ValueError):
            return self._trouble(Code.INVALID, call, "the address, or the token, is malformed; nothing was sent")
        if isinstance(reason, NewConnectionError | ConnectTimeoutError):
            why, writes = f"the server at {self._address} can not be reached", False
        elif isinstance(error, requests.exceptions.SSLError) and _has(reason, ssl.SSLCertVerificationError):
            why, writes = f"the certificate of {self._address} is not trusted; see ca_bundle", False
        elif isinstance(error, requests.exceptions.Timeout):
            why = f"the server at {self._address} did not answer within {self._timeout:g} s"
        else:
            why = f"the connection to {self._address} broke before an answer came"
        return self._trouble(Code.UNAVAILABLE, call, why, maybe_applied=writes)

    def _token(self, call: _Call, *, unlike: str | None) -> str:
        """A token to use, other than `unlike` if the login can give another."""
        with self._lock:
            if self._adapter is None:
                self._connect(call)
            held = self._adapter.token
            if not held or held == unlike or self._clock.monotonic() >= self._expires:
                self._log_in(call)
            token: str = self._adapter.token
            return token

    def _connect(self, call: _Call) -> None:
        import hvac  # noqa: PLC0415 - 0.2 s; importing this module stays cheap
        import requests  # noqa: PLC0415
        from urllib3.util import Retry  # noqa: PLC0415

        if self._ca_bundle and not Path(self._ca_bundle).exists():
            raise self._trouble(Code.INVALID, call, f"there is no CA bundle at {self._ca_bundle}")
        # Only reads are repeated, and at once: writes are never, and longer waits are for the caller to decide.
        again = Retry(
            total=2,
            connect=0,
            backoff_factor=0.1,
            status_forcelist=(500, 502, 503, 504),
            allowed_methods=("GET",),
            raise_on_status=False,
            respect_retry_after_header=False,
        )
        session = requests.Session()
        session.mount(self._address, requests.adapters.HTTPAdapter(max_retries=again, pool_maxsize=_POOL))
        session.verify = self._ca_bundle or True
        self._client = hvac.Client(
            url=self._address,
            token="",
            verify=session.verify,
            session=session,
            namespace=self._namespace,
            timeout=(_CONNECT_SECONDS, self._timeout),
        )
        # The same connections, with answers left for us to judge: hvac's exceptions drop status and headers.
        self._adapter = hvac.adapters.RawAdapter.from_adapter(self._client.adapter)

    def _log_in(self, call: _Call) -> None:
        from hvac import exceptions  # noqa: PLC0415 - loaded with the client

        begun = self._clock.monotonic()
        refusals = (exceptions.InvalidRequest, exceptions.Unauthorized, exceptions.Forbidden, exceptions.InvalidPath)
        try:
            auth = self._auth.log_in(self._client)
            self._adapter.token = auth["client_token"]
            life = float(auth["lease_duration"])
            self._expires = begun + life * _USED_LIFE if life else math.inf
            return
        except refusals:
            trouble = self._trouble(
                Code.DENIED, call, f"login by {self._auth.how} was refused; the entry was not asked"
            )
        except exceptions.RateLimitExceeded:
            trouble = self._trouble(Code.THROTTLED, call, f"login by {self._auth.how}: too many requests")
        except (exceptions.VaultError, KeyError, TypeError):
            message = f"login by {self._auth.how} got no usable answer from {self._address}"
            trouble = self._trouble(Code.UNAVAILABLE, call, message)
        except (OSError, ValueError) as error:
            trouble = self._unanswered(call, error, writes=False)
        raise trouble

    def _trouble(
        self,
        code: Code,
        call: _Call,
        message: str,
        *,
        maybe_applied: bool = False,
        retry_after: float | None = None,
    ) -> Trouble:
        return Trouble(
            code,
            self._name,
            f"{call.entry}: {message}",
            maybe_applied=maybe_applied or call.half_done,
            retry_after=retry_after,
        )


def _has(reason: object, kind: type[Exception]) -> bool:
    return isinstance(reason, BaseException) and any(isinstance(part, kind) for part in (reason, *reason.args))
