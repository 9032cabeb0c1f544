"""The store over KV version 2 of HashiCorp Vault or OpenBao.

Layout, for an entry `<environment>/<name>` under a mount and an optional prefix:

    <prefix>/<environment>/<name>            its newest version is current: what consumers read
    <prefix>/<environment>/<name>-pending    its newest version is pending, or an empty marker: nothing is

A payload has the credential's fields at top level, so that a consumer reads `value`, and one more,
`keyturn`, which says whose it is: ``token=<rotation token> key=<key id> sum=<checksum>``. A console offers
the old payload for editing; the checksum tells a version whose value was changed there from ours.
Journal and policy are custom_metadata, keys `journal.<fact>` and `policy.<key>`, written by HTTP PATCH
only: it merges on the server, so that two writers never erase each other.

`PATHS` says what each operation needs. Two more, of no entry, make life easier:

    auth/token/lookup-self  read; tells an expired token from a missing permission
    auth/token/renew-self   update; without it, or past its max TTL, the token is not renewed but replaced

`keyturn doctor` tells more with `update` on sys/capabilities-self, and who else reads an entry with `list` and
`read` on sys/policies/acl. Neither is needed for anything else.

OpenBao alone has `detailed-metadata`, which lists a folder with the metadata of its entries, in pages. With
`list` on P of detailed-metadata the listing takes one call for each 200 paths of an environment. Where that is missing
or not allowed it takes one for each entry, and holds the names of one environment at a time.

A promotion writes with check-and-set on the version number and looks at nothing else, not even whether that version is
deleted. So delete() makes a version more, which a promotion that is under way does not know of; `patch` on data lets it,
and with `data` limited to `{}` nothing else. Only the first promotion of an entry that was deleted while it had no
version brings it back; whoever deletes looks again.

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
from base64 import b64encode
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, unquote

from providers.stores import vault_policies
from rotation.errors import Code, Trouble
from rotation.journal import Journal
from rotation.logs import masked
from rotation.model import Credential, Entry, SecretValue, Version
from rotation.ports import Clock, Diagnosis, Glance, Grade, Listed, StoreFeatures
from rotation.skew import Skew
from rotation.telemetry import heard

if TYPE_CHECKING:
    import requests

Json = Mapping[str, Any]

_OURS: Final = "keyturn"
_MOST_CUSTOM: Final = 64
"""Keys that custom_metadata may have (Vault, API of KV version 2, Create/Update Metadata)."""
_JOURNAL: Final = "journal."
_POLICY: Final = "policy."
_DELETED: Final = "keyturn.deleted"
"""Marks a deleted entry that has no version which could be deleted."""
_NO_VALUES: Final = "subkeys"
"""The kind of path that tells of a version all but its values."""
_NO_ENTRY: Final = ("/", "-pending")
"""Ends what a folder lists beside entries."""
_PAGE: Final = 200
"""Paths asked for at once; some kilobytes each."""
_SOON: Final = 86_400
"""Seconds that a token which only a person can replace should be good for."""
_PENDING: Final = "pending-"
"""Starts the ids of versions on the pending path; those on the main path are bare numbers."""
_SIBLING: Final = "-pending"
"""Ends the pending path."""

FOLDER: Final = "folder"
EACH: Final = "each"
PATHS: Final[Mapping[str, tuple[tuple[str, str, str], ...]]] = {
    "observe": (("data", "", "read"), ("data", _SIBLING, "read"), ("metadata", "", "read")),
    "read": (("data", "", "read"), ("data", _SIBLING, "read")),
    "current": (("data", "", "read"),),
    "applied": (("subkeys", "", "read"), ("metadata", "", "read")),
    "find": (
        ("data", "", "read"),
        ("data", _SIBLING, "read"),
        ("metadata", "", "read"),
        ("metadata", _SIBLING, "read"),
    ),
    "stage": (("data", _SIBLING, "create"), ("data", _SIBLING, "update"), ("data", _SIBLING, "read")),
    "promote": (("data", "", "update"), ("data", _SIBLING, "read")),
    "discard": (("data", _SIBLING, "update"),),
    "record": (("metadata", "", "patch"),),
    "forget": (("metadata", "", "patch"),),
    "listing": (("metadata", FOLDER, "list"), ("metadata", EACH, "read"), ("detailed-metadata", FOLDER, "list")),
    "create": (("metadata", "", "read"), ("metadata", "", "create"), ("metadata", "", "patch")),
    "set_policy": (("metadata", "", "read"), ("metadata", "", "patch")),
    "delete": (
        ("subkeys", "", "read"),
        ("subkeys", _SIBLING, "read"),
        ("metadata", "", "read"),
        ("metadata", "", "patch"),
        ("data", "", "patch"),
        ("delete", "", "update"),
        ("delete", _SIBLING, "update"),
    ),
    "restore": (
        ("subkeys", "", "read"),
        ("subkeys", _SIBLING, "read"),
        ("metadata", "", "read"),
        ("metadata", "", "patch"),
        ("undelete", "", "update"),
        ("undelete", _SIBLING, "update"),
    ),
}
"""What each operation of the port may need: kind of path, what follows the entry's name, capability.

A folder is that of one environment, and each an entry or a pending path in it. The list of `detailed-metadata`, which
OpenBao alone has, takes the place of the read of each. `subkeys` answers like `data`, with null for every value. The first
version of an entry is an update, too: its metadata is there before.
"""


class Login(Protocol):
    """How to get a token. Used at first need, and again when the token can not be renewed or has expired."""

    @property
    def how(self) -> str:
        """Names it in messages; no value."""

    def log_in(self, client: Any) -> Json:
        """The `auth` block of a login's answer: `client_token`, `lease_duration` in seconds, 0 for no end, `renewable`.

        Parameters:
            client: a `hvac.Client` without a token; what it raises may be let through.

        Raises:
            LoginFault: there is nothing to log in with.
        """


class LoginFault(Exception):  # noqa: N818 - reads as what it is where it is caught
    """What a login needs is not there, in words for the person who must act. Never holds a value."""


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
        return _asked(client, self.mount, {"role_id": self.role_id, "secret_id": self.secret_id.reveal()})


@dataclass(frozen=True, slots=True, eq=False)
class KubernetesLogin:
    """The Kubernetes method, with the pod's service account. The kubelet renews the file; it is read at each login."""

    role: str
    token_file: Path
    mount: str = "kubernetes"

    @property
    def how(self) -> str:
        return f"Kubernetes at auth/{self.mount}"

    def log_in(self, client: Any) -> Json:
        return _asked(client, self.mount, {"role": self.role, "jwt": _jwt(self.token_file)})


@dataclass(frozen=True, slots=True, eq=False)
class JwtLogin:
    """The JWT/OIDC method, with a workload's token. One that stands in a file is read at each login."""

    role: str
    token: SecretValue | Path
    mount: str = "jwt"

    @property
    def how(self) -> str:
        return f"JWT at auth/{self.mount}"

    def log_in(self, client: Any) -> Json:
        return _asked(client, self.mount, {"role": self.role, "jwt": _jwt(self.token)})


@dataclass(frozen=True, slots=True)
class AwsLogin:
    """Vault's `aws` method, type iam: it learns who we are from a signed sts:GetCallerIdentity, which it sends itself.

    Credentials come from the SDK's usual chain at each login. The request is signed for the address that Vault is
    set up to send it to: without a region https://sts.amazonaws.com, its default; with one, the region's own, which
    the method's `sts_endpoint` must name. OpenBao has no such method built in.
    Source: Vault's documentation, "AWS auth method" and its API (2026).
    """

    role: str
    mount: str = "aws"
    header_value: str | None = None
    """What the method's `iam_server_id_header_value` asks for: a request signed for one Vault is no use to another."""
    region: str | None = None

    @property
    def how(self) -> str:
        return f"AWS at auth/{self.mount}"

    def log_in(self, client: Any) -> Json:
        url, headers = self._signed()
        parts = {"url": url, "body": _CALLER_IDENTITY, "headers": json.dumps(headers)}
        coded = {f"iam_request_{name}": b64encode(text.encode()).decode() for name, text in parts.items()}
        return _asked(client, self.mount, {"role": self.role, "iam_http_request_method": "POST", **coded})

    def _signed(self) -> tuple[str, dict[str, str]]:
        """Address and headers of the request that Vault will send."""
        import botocore.session  # noqa: PLC0415 - only who logs in this way needs the SDK
        from botocore.auth import SigV4Auth  # noqa: PLC0415
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        session = botocore.session.get_session()
        host = _STS_HOST
        if self.region:
            # Not from a client, whose address the environment may change: it is Vault that sends this.
            endpoint = session.get_component("endpoint_resolver").construct_endpoint("sts", self.region)
            if not endpoint:
                raise LoginFault(f"the SDK knows no STS in the region {self.region}")
            host = endpoint["hostname"]
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8", "Host": host}
        if self.header_value:
            headers["X-Vault-AWS-IAM-Server-ID"] = self.header_value
        request = AWSRequest("POST", f"https://{host}/", headers, _CALLER_IDENTITY)
        try:
            found = session.get_credentials()
            credentials = found.get_frozen_credentials() if found else None
            fault = "no AWS credentials were found"
        except BotoCoreError as error:
            # Its own words may quote what a credential process printed.
            credentials, fault = None, f"no AWS credentials could be had ({type(error).__name__})"
        if credentials is None:
            raise LoginFault(fault)
        SigV4Auth(credentials, "sts", self.region or "us-east-1").add_auth(request)
        return f"https://{host}/", dict(request.headers.items())


_STS_HOST: Final = "sts.amazonaws.com"
_CALLER_IDENTITY: Final = "Action=GetCallerIdentity&Version=2011-06-15"
_JWT: Final = re.compile(r"[\w-]+(\.[\w-]*){2,4}", re.ASCII)
"""Signed or encrypted, in compact form (RFC 7515 and 7516)."""


def _asked(client: Any, mount: str, body: Json) -> Json:
    """The `auth` block that a method answers to its login."""
    answer: Json = client.adapter.login(f"/v1/auth/{quote(mount)}/login", use_token=False, json=body)
    auth: Json = answer["auth"]
    return auth


def _jwt(source: SecretValue | Path) -> str:
    """The token. Whatever else is in its place is not sent."""
    try:
        # Not decoded strictly: an error would quote what is in the file.
        text = source.reveal() if isinstance(source, SecretValue) else source.read_text("ascii", "replace")
        fault = f"there is no JWT in {'the variable' if isinstance(source, SecretValue) else source}"
    except OSError as error:
        text, fault = "", f"{source} can not be read ({error.strerror})"
    if not _JWT.fullmatch(text := text.strip()):
        raise LoginFault(fault)
    return text


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
        environment: the one whose entries listing() gives; None for all. A login may list one folder and no other.
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
        environment: str | None = None,
        timeout: float = 8.0,
    ) -> None:
        self.name: Final = name
        self._environment = environment
        self._prefix = f"{prefix.strip('/')}/" if prefix else ""
        self._clock = clock
        self._mount = mount.strip("/")
        self._how = auth.how
        self._server = _Server(name, address, self._mount, namespace, ca_bundle, auth, clock, timeout)

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
            room=_room(custom),
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

    def current(self, entry: str) -> Credential:
        main = self._look(entry, entry)
        if main.version is None or main.version.credential is None:
            # Which of the two only the metadata tells, which a consumer has no business with.
            told = "the entry is deleted" if main.number else "no such entry, or it has no value"
            raise self._trouble(Code.NOT_FOUND, entry, told)
        return main.version.credential

    def applied(self, entry: str) -> Mapping[str, str]:
        return _under(_POLICY, self._require(entry, self._look(entry, entry, kind=_NO_VALUES)))

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
        """As the port says."""
        for entry, metadata in self._listed():
            custom = _custom(metadata)
            yield Listed(entry, _under(_POLICY, custom), _under(_JOURNAL, custom))

    def glances(self) -> Iterator[Glance]:
        """As listing(), with the whole entry where it is settled; see _settled()."""
        for entry, metadata in self._listed():
            at = self._clock.now()
            yield Glance(entry, _under(_POLICY, _custom(metadata)), self._settled(entry, metadata, at))

    def _settled(self, entry: str, metadata: Json, at: datetime) -> Entry | None:
        """An entry of which the metadata tells all that a look would: its one attempt was seen as current, and still is.

        Which token a version carries stands in its payload. But promote() writes by compare-and-set, so what an attempt
        on version n made current, which its journal notes when it was seen, is version n + 1 and no other. A later
        attempt would stand in the journal before anything of it was staged, so nothing of ours is pending.
        """
        custom = _custom(metadata)
        try:
            journal = Journal(_under(_JOURNAL, custom))
        except ValueError:
            return None  # its own run says what is wrong with it
        number, tokens = metadata["current_version"], tuple(journal.attempts)
        if len(tokens) != 1 or tokens[0] not in journal.promoted or journal.adopted:
            return None
        (attempt,), base = journal.attempts.values(), journal.attempts[tokens[0]].base or "0"
        if not base.isdecimal() or number != int(base) + 1 or attempt.of is not None:
            return None
        made = _time(metadata["versions"][str(number)]["created_time"])
        return Entry(
            store=self.name,
            name=entry,
            read_at=at,
            current=Version(id=str(number), token=attempt.token, created_at=made),
            pending=None,
            journal=journal,
            policy=_under(_POLICY, custom),
            room=_room(custom),
        )

    def _listed(self) -> Iterator[tuple[str, Json]]:
        for environment in self._names("") if self._environment is None else [f"{self._environment}/"]:
            if not environment.endswith("/"):
                continue
            for entry, metadata in self._detailed(environment) or self._one_by_one(environment):
                if metadata is None or self._is_listed_as_deleted(metadata):
                    continue
                if _under(_POLICY, _custom(metadata)):
                    yield entry, metadata

    def create(self, entry: str, policy: Mapping[str, str]) -> None:
        """As the port says. One that failed half-way is completed by the next."""
        found = self._metadata(entry, entry)
        if found is None:
            # This setting is the default. Without any, the server answers 204 and creates nothing.
            self._server.ask(self._call(entry, "POST", "metadata", entry, body={"cas_required": False}))
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
        """As the port says: the newest versions are soft-deleted. `vault kv metadata delete` is for ever.

        A promotion compares the number of the newest version, deleted or not. So the server first makes another one of
        the same value, and a promotion that is under way comes too late to bring the entry back.

        Raises:
            Trouble: CONFLICT when another one came first.
        """
        main = self._look(entry, entry, kind=_NO_VALUES)
        if main.version:
            body = {"data": {}, "options": {"cas": main.number}}
            self._server.ask(self._call(entry, "PATCH", "data", entry, body=body))
            self._switch(entry, "delete", entry, main.number, main.number + 1, half_done=True)
        elif not main.number:
            if self._metadata(entry, entry) is None:
                return
            self._patch(entry, {_DELETED: "true"})
        pending = self._look(entry, _pending(entry), kind=_NO_VALUES, half_done=True)
        if pending.version:
            self._switch(entry, "delete", _pending(entry), pending.number, half_done=True)

    def restore(self, entry: str) -> bool:
        main = self._look(entry, entry, kind=_NO_VALUES)
        empty = None if main.number else self._metadata(entry, entry)
        if not main.deleted and not (empty and _DELETED in _custom(empty)):
            return False
        # The main path last: the entry comes back complete.
        pending = self._look(entry, _pending(entry), kind=_NO_VALUES)
        if pending.deleted:
            self._switch(entry, "undelete", _pending(entry), pending.number)
        if main.deleted:
            both = range(max(main.number - 1, 1), main.number + 1)  # see delete()
            self._switch(entry, "undelete", entry, *both, half_done=pending.deleted)
        else:
            self._patch(entry, {_DELETED: None}, half_done=pending.deleted)
        return True

    # --- looking round: see rotation.ports.ExaminedStore, TellsReaders, TellsTime --------------------

    @property
    def skew(self) -> timedelta | None:
        return self._server.skew.last

    def caller(self) -> str | None:
        """What the login method told of us when it let us in; for a token that was given, auth/token/lookup-self."""
        if known := self._server.identity:
            return known
        answer = self._server.inspect("GET", "auth/token/lookup-self") or {}
        return _identity(answer.get("data") or {})

    def examine(self, work: Mapping[str, Collection[str]]) -> Iterator[Diagnosis]:
        """The token's end, and what it may do on the exact paths that the work touches (sys/capabilities-self)."""
        try:
            yield self._examined_token(self._server.inspect("GET", "auth/token/lookup-self") or {})
        except Trouble as trouble:
            remedy = (
                "vault administrator: grant read on auth/token/lookup-self; it tells an end from a missing permission"
            )
            yield Diagnosis("login", Grade.WARNING, str(trouble), remedy)
        if not work:
            return
        needs = {entry: self._needs(entry, operations) for entry, operations in work.items()}
        try:
            held = self._capabilities([path for need in needs.values() for path in need])
        except Trouble as trouble:
            why = f"{self._how} may not ask what it may do (update on sys/capabilities-self)"
            yield Diagnosis("permissions", Grade.UNCHECKED, why if trouble.code is Code.DENIED else str(trouble))
            return
        lacking = [found for entry, need in needs.items() if (found := self._lacking(held, need, entry))]
        yield from lacking
        if not lacking:
            told = f"{self._how} may do all that a sweep does, entry by entry ({len(work)})"
            yield Diagnosis("permissions", Grade.GOOD, told)

    def readers(self, entries: Sequence[str]) -> dict[str, list[str]]:
        """Policies that grant read, but those of this login and `root`, whoever has them. Reads every policy of the server."""
        about = (self._server.inspect("GET", "auth/token/lookup-self") or {}).get("data", {})
        own = {"root", *(about.get("policies") or ()), *(about.get("identity_policies") or ())}
        listed = self._server.inspect("GET", "sys/policies/acl", query={"list": "true"}) or {}
        found: dict[str, list[str]] = {entry: [] for entry in entries}
        for name in listed.get("data", {}).get("keys", ()):
            if name in own:
                continue
            policy = self._server.inspect("GET", f"sys/policies/acl/{name}") or {}
            rules = vault_policies.rules(policy.get("data", {}).get("policy") or "")
            for entry in entries:
                if vault_policies.grants(rules, self._path("data", entry), "read"):
                    found[entry].append(name)
        return found

    def _needs(self, entry: str, operations: Iterable[str]) -> dict[str, list[str]]:
        """Capabilities by path."""
        needs: dict[str, list[str]] = {}
        for operation in operations:
            for kind, after, capability in PATHS.get(operation, ()):
                wanted = needs.setdefault(self._path(kind, entry + after), [])
                if capability not in wanted:
                    wanted.append(capability)
        return needs

    def _path(self, kind: str, path: str) -> str:
        return f"{self._mount}/{kind}/{self._prefix}{path}"

    def _capabilities(self, paths: Sequence[str]) -> dict[str, frozenset[str]]:
        held: dict[str, frozenset[str]] = {}
        for start in range(0, len(paths), _PAGE):
            some = list(paths[start : start + _PAGE])
            answer = self._server.inspect("POST", "sys/capabilities-self", {"paths": some}) or {}
            told = answer.get("data") or answer
            held |= {path: frozenset(told.get(path) or ()) for path in some}
        return held

    def _lacking(
        self, held: Mapping[str, frozenset[str]], needs: Mapping[str, Sequence[str]], entry: str
    ) -> Diagnosis | None:
        told = [
            f"{' and '.join(missing)} on {path}"
            for path, wanted in needs.items()
            if (missing := [f"'{each}'" for each in wanted if each not in held[path] and "root" not in held[path]])
        ]
        if not told:
            return None
        remedy = f"vault administrator: add that to a policy of {self._how}"
        return Diagnosis("permissions", Grade.FAILING, f"{self._how} lacks {'; '.join(told)}", remedy, entry)

    def _examined_token(self, answer: Json) -> Diagnosis:
        about: Json = answer.get("data") or {}
        ttl = int(about.get("ttl") or 0)
        policies = ", ".join([*(about.get("policies") or ()), *(about.get("identity_policies") or ())]) or "none"
        told = f"{self._how}; policies: {policies}"
        if "root" in (about.get("policies") or ()):
            remedy = "vault administrator: give Keyturn a login that may do what it needs and no more"
            return Diagnosis("login", Grade.WARNING, f"{told}; a root token may do everything", remedy)
        if not ttl:
            return Diagnosis("login", Grade.GOOD, f"{told}; does not end")
        told = f"{told}; good for {timedelta(seconds=ttl)} more"
        if isinstance(self._server.login, TokenLogin) and ttl < _SOON:
            remedy = (
                "whoever runs this: renew the token, or configure a login that gets one (AppRole, Kubernetes, JWT, AWS)"
            )
            return Diagnosis("login", Grade.WARNING, f"{told}, and Keyturn can not get another", remedy)
        return Diagnosis("login", Grade.GOOD, told)

    # --- the parts that operations are made of -----------------------------------------------------

    def _look(
        self, entry: str, path: str, number: int | None = None, *, kind: str = "data", half_done: bool = False
    ) -> _Seen:
        """One version of a path, the newest by default, with the custom metadata that comes with it.

        Parameters:
            kind: `data`, or `subkeys` for all but the values; token, key id and credential are not known then.
        """
        query = {} if number is None else {"version": str(number)}
        answer = self._server.ask(self._call(entry, "GET", kind, path, query=query, half_done=half_done))
        if answer is None:
            return _Seen()
        payload, about = answer["data"][kind], answer["data"]["metadata"]
        pending = path == _pending(entry)
        version = None
        if payload or (payload is not None and not pending):
            token, key_id, credential = _opened(payload) if kind == "data" else (None, None, None)
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

    def _one_by_one(self, environment: str) -> Iterator[tuple[str, Json | None]]:
        """Every entry of an environment and its metadata, as both servers tell."""
        for name in self._names(environment):
            if not name.endswith(_NO_ENTRY):
                yield environment + name, self._metadata(environment + name, environment + name)

    def _detailed(self, environment: str) -> Iterator[tuple[str, Json | None]] | None:
        """The same as OpenBao tells it; None when this server can not, or does not let us."""
        try:
            first = self._page(environment, "")
        except Trouble as trouble:
            if trouble.code is not Code.DENIED:
                raise
            return None
        return None if first is None else self._pages(environment, first)

    def _pages(self, environment: str, page: Json) -> Iterator[tuple[str, Json | None]]:
        following: Json | None = page
        while following:
            names, known = following["keys"], following["key_info"]
            for name in names:
                if not name.endswith(_NO_ENTRY):
                    entry = environment + name
                    yield entry, known.get(name) or self._metadata(entry, entry)
            following = self._page(environment, names[-1]) if len(names) == _PAGE else None

    def _page(self, environment: str, after: str) -> Json | None:
        query = {"list": "true", "limit": str(_PAGE), "after": after}
        answer = self._server.ask(self._call(environment, "GET", "detailed-metadata", environment, query=query))
        # A folder that is gone by now has no body of its own; a path that the engine does not know has one without data.
        return {"keys": [], "key_info": {}} if answer is None else answer["data"]

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

    def _switch(self, entry: str, kind: str, path: str, *numbers: int, half_done: bool = False) -> None:
        body = {"versions": numbers}
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


def _identity(told: Json) -> str | None:
    """A login's names in what Vault tells of it: of the method or token, what the method knows, the entity."""
    known = told.get("metadata") or told.get("meta") or {}
    parts = [str(told.get("display_name") or ""), *(f"{name}={known[name]}" for name in sorted(known))]
    parts += [f"entity={told['entity_id']}"] if told.get("entity_id") else []
    return " ".join(part for part in parts if part) or None


def _pending(entry: str) -> str:
    return f"{entry}{_SIBLING}"


def _custom(metadata: Json) -> Json:
    return metadata.get("custom_metadata") or {}


def _room(custom: Json) -> int:
    """How many facts a journal may have beside the policy and what else is in the metadata."""
    return _MOST_CUSTOM - sum(not key.startswith(_JOURNAL) for key in custom)


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
_FRESH_LIFE: Final = 2 / 3
"""Part of a token's life after which it is renewed or replaced, if that is possible."""
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
        self.skew: Final = Skew(clock)
        self._lock = threading.Lock()
        self._client: Any = None
        self._adapter: Any = None
        self._life = 0.0
        self._renewable = False
        self.identity: str | None = None
        """As whom the login method let us in."""
        self._due = 0.0
        self._expires = 0.0
        self._tokens: list[SecretValue] = []
        """All that were used, so that logs and messages mask them: a gateway may repeat what it was sent."""

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

    @property
    def login(self) -> Login:
        return self._auth

    def inspect(
        self, method: str, path: str, body: Json | None = None, query: Mapping[str, str] | None = None
    ) -> Json | None:
        """What the server tells at a path of its own, outside the mount; None for 404. For questions only.

        Raises:
            Trouble: anything else but success.
        """
        call = _Call(path, "GET", path)  # whatever the method, it changes nothing
        self._token(call, unlike=None)
        response = self._request(call, method, path, body, query)
        if response.status_code == 403:
            raise self._trouble(
                Code.DENIED, call, f"permission denied: the policy of {self._auth.how} does not grant it"
            )
        answer = self._body(call, response)
        if response.ok:
            return answer
        if response.status_code == 404:
            return None
        raise self._refused(call, response, answer)

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
            self.skew.heard(response.headers.get("Date"))
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
            heard(str(body.get("request_id", "")))
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
            now = self._clock.monotonic()
            if not held or held == unlike or now >= self._expires:
                self._log_in(call)
            elif now >= self._due:
                self._freshen(call, now)
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

    def _freshen(self, call: _Call, begun: float) -> None:
        """Renews the token, or gets another. The one at hand is good for a while yet, so that no failure is final."""
        with suppress(Trouble):
            if not (self._renewable and self._renew(call, begun)):
                self._log_in(call)
            return
        self._due = begun + (self._expires - begun) / 2

    def _renew(self, call: _Call, begun: float) -> bool:
        """Whether the token has its whole life again: near its max TTL the server grants less."""
        response = self._request(call, "POST", "auth/token/renew-self", {})
        auth = self._body(call, response).get("auth") if response.ok else None
        if not auth or auth.get("lease_duration", 0) < self._life:
            return False
        self._begin(begun, float(auth["lease_duration"]))
        return True

    def _begin(self, begun: float, life: float) -> None:
        self._life = life
        self._due = begun + life * _FRESH_LIFE if life else math.inf
        self._expires = begun + life * _USED_LIFE if life else math.inf

    def _log_in(self, call: _Call) -> None:
        from hvac import exceptions  # noqa: PLC0415 - loaded with the client

        begun = self._clock.monotonic()
        refusals = (exceptions.InvalidRequest, exceptions.Unauthorized, exceptions.Forbidden, exceptions.InvalidPath)
        try:
            auth = self._auth.log_in(self._client)
            self._adapter.token = auth["client_token"]
            self._tokens.append(SecretValue(self._adapter.token))
            self._renewable = bool(auth.get("renewable"))
            self.identity = _identity({"display_name": self._auth.how, **auth}) if auth.get("metadata") else None
            self._begin(begun, float(auth["lease_duration"]))
            return
        except LoginFault as fault:
            trouble = self._trouble(Code.DENIED, call, f"login by {self._auth.how}: {fault}; the entry was not asked")
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
            masked(f"{call.entry}: {message}"),
            maybe_applied=maybe_applied or call.half_done,
            retry_after=retry_after,
        )


def _has(reason: object, kind: type[Exception]) -> bool:
    return isinstance(reason, BaseException) and any(isinstance(part, kind) for part in (reason, *reason.args))
