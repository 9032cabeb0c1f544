"""AWS IAM: the access keys of one user, two at most, made inactive first and deleted once they were shown dead.

Facts: IAM user guide and API reference (2026). A user has two keys at most, inactive ones count, and only deletion makes
room. Keys have no names. Changes spread within seconds, sometimes later. See docs/iam.md.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any, Final

from rotation.errors import Code, Trouble
from rotation.model import (
    Capabilities,
    Check,
    Credential,
    Issued,
    KeyInfo,
    KeyUse,
    LastUse,
    Propagation,
    SecretValue,
    Verdict,
)
from rotation.ports import Diagnosis, Grade

FIELDS: Final = ("access_key_id", "secret_access_key")
MOST: Final = 2
"""Keys of a user, inactive ones included."""
CALLS: Final = {
    "mint": ("CreateAccessKey", "ListAccessKeys"),
    "keys": ("ListAccessKeys",),
    "revoke": ("UpdateAccessKey",),
    "clear": ("DeleteAccessKey", "ListAccessKeys"),
    "last_use": ("GetAccessKeyLastUsed",),
}
"""What each operation asks of IAM. To verify takes no right (STS, GetCallerIdentity)."""

_CONNECT: Final = 2
_READ: Final = 10
_LAG: Final = timedelta(minutes=15)
"""By how much a last use may be older than the truth. IAM promises nothing; this is added to every quiet period."""
_SPREADS: Final = timedelta(minutes=1)
"""IAM is eventually consistent, and promises no time (IAM User Guide, "Changes that I make are not always immediately
visible", 2026); in practice it is seconds."""
_UNKNOWN_KEY: Final = "InvalidClientTokenId"
_NOT_ITS_OWN: Final = "SignatureDoesNotMatch"
_CLOCK: Final = ("Signature expired", "Signature not yet current")
"""How the same code's message begins where it is our clock that is wrong."""
_CODES: Final = {
    "LimitExceeded": Code.LIMIT,
    "NoSuchEntity": Code.NOT_FOUND,
    "ValidationError": Code.INVALID,
    "InvalidInput": Code.INVALID,
    "AccessDenied": Code.DENIED,
    "AccessDeniedException": Code.DENIED,
    _UNKNOWN_KEY: Code.DENIED,
    _NOT_ITS_OWN: Code.DENIED,
    "ExpiredToken": Code.DENIED,
    "Throttling": Code.THROTTLED,
    "ThrottlingException": Code.THROTTLED,
    "RequestLimitExceeded": Code.THROTTLED,
    "ConcurrentModification": Code.THROTTLED,
    "EntityTemporarilyUnmodifiable": Code.THROTTLED,
}


@dataclass(frozen=True, slots=True)
class Login:
    """Whose credentials administer the user: a key pair that is asked for, or the SDK's chain; then a role, if any."""

    admin: Callable[[], SecretValue] | None = None
    """Gives `ID:SECRET`, or the same as JSON with the fields of a credential; None for the chain."""
    profile: str | None = None
    role_arn: str | None = None
    external_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Role:
    """A provider of credentials as botocore has them."""

    load: Callable[[], Any]
    METHOD = "assume-role"


class IamIssuer:
    """Makes and ends access keys of one user. Threads may share it.

    Parameters:
        name: the configured name.
        user: of IAM, whose keys nobody else makes.
        login: whose credentials do that.
        region: of the STS endpoint that new keys are shown to; IAM itself is one for all regions.
        endpoint_url: of IAM and STS, in place of their own.
    """

    def __init__(self, name: str, user: str, login: Login, region: str, endpoint_url: str | None = None) -> None:
        self.name: Final = name
        account = (login.role_arn or "::::").split(":")[4]
        self.capabilities: Final = capabilities(user, f"{endpoint_url} {account}")
        self._user = user
        self._login = login
        self._region = region
        self._endpoint_url = endpoint_url
        self._lock = threading.Lock()
        self._logged_in: tuple[str, Any] | None = None

    def mint(self, key_name: str, slot: str | None = None) -> Issued:  # noqa: ARG002 - has no slots
        """A new key of the user. The name goes no further: IAM gives keys none."""
        what = f"making a key of {self._user} for {key_name}"
        try:
            made = self._ask(what, "create_access_key", UserName=self._user)["AccessKey"]
        except Trouble as trouble:
            if trouble.code is Code.LIMIT:
                raise Trouble(Code.LIMIT, self.name, f"{what}: {self._crowd()}") from None
            raise
        fields = {"access_key_id": made["AccessKeyId"], "secret_access_key": made["SecretAccessKey"]}
        return Issued(made["AccessKeyId"], Credential.of(**fields), _utc(made.get("CreateDate")))

    def keys(self) -> Iterator[KeyInfo]:
        """The user's active keys, ours and others'; IAM knows no names."""
        for key in self._all("listing keys"):
            if key["Status"] == "Active":
                yield KeyInfo(key["AccessKeyId"], "", _utc(key.get("CreateDate")))

    def verify(self, credential: Credential) -> Check:
        """Asks STS who this is, signed with the credential alone; that takes no permission."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        fields = {name: value.reveal() for name, value in credential.fields.items()}
        if fields.keys() != {*FIELDS} or not all(fields.values()):
            return Check(Verdict.INVALID, f"has not the fields {' and '.join(FIELDS)}")
        answer: Any = None
        refused: Mapping[str, Any] = {}
        try:
            alone = {f"aws_{name}": value for name, value in fields.items()}
            answer = self._signing("sts", **alone).get_caller_identity()
        except ClientError as error:
            refused = error.response
        except (BotoCoreError, ValueError) as error:
            return Check(Verdict.UNKNOWN, f"no answer of STS: {type(error).__name__}")
        if refused:
            return _judged(refused)
        facts = {"arn": str(answer["Arn"])}
        request = answer["ResponseMetadata"].get("RequestId")
        if not answer["Arn"].endswith(f"/{self._user}"):
            return Check(Verdict.LIMITED, f"accepted, but it is {answer['Arn']}, not {self._user}", request, facts)
        return Check(Verdict.VALID, f"accepted as {answer['Arn']}", request, facts)

    def smoke(self, credential: Credential) -> Check:  # noqa: ARG002 - named as in the port
        return Check(Verdict.UNKNOWN, "there is no smoke test: what a key may do is its user's affair")

    def revoke(self, key_id: str) -> None:
        """Makes the key inactive, which a person could undo; clear() deletes it once it was shown dead."""
        try:
            self._ask(f"revoking {key_id}", "update_access_key", **self._named(key_id), Status="Inactive")
        except Trouble as trouble:
            if trouble.code is not Code.NOT_FOUND:
                raise
            self._exists(trouble)

    def clear(self, key_id: str) -> None:
        """Deletes an inactive key, which makes room for the next."""
        what = f"deleting the inactive key {key_id}"
        status = next((key["Status"] for key in self._all(what) if key["AccessKeyId"] == key_id), None)
        # What the list lacks is asked for all the same: it may not know the key yet.
        if status not in (None, "Inactive"):
            told = "it has been made active again since it was revoked; it is left as it is, and revoked anew"
            raise Trouble(Code.INVALID, self.name, f"{what}: {told}")
        try:
            self._ask(what, "delete_access_key", **self._named(key_id))
        except Trouble as trouble:
            if trouble.code is not Code.NOT_FOUND:
                raise

    def last_use(self, key_id: str) -> LastUse:
        unknown = LastUse(known=False, granularity=_LAG)
        try:
            answer = self._ask(f"asking for the last use of {key_id}", "get_access_key_last_used", AccessKeyId=key_id)
        except Trouble as trouble:
            if trouble.code is not Code.NOT_FOUND:
                raise
            return unknown
        if answer.get("UserName") != self._user:
            return unknown
        return LastUse(known=True, at=_utc(answer["AccessKeyLastUsed"].get("LastUsedDate")), granularity=_LAG)

    @property
    def counting(self) -> None:
        """IAM counts nothing."""

    def usage(self, key_ids: Collection[str], since: datetime, until: datetime) -> Mapping[str, KeyUse]:  # noqa: ARG002 - named as in the port
        """Last uses; one request for each key, of which a user has two at most."""
        return {key_id: KeyUse(self.last_use(key_id)) for key_id in key_ids}

    def examine(self) -> Iterator[Diagnosis]:
        """Whether the user can be seen, and has room for another key."""
        try:
            keys = list(self._all("looking round"))
        except Trouble as trouble:
            remedy = "grant what `keyturn policy aws` prints" if trouble.code is Code.DENIED else "see to it"
            failing = trouble.code in (Code.DENIED, Code.NOT_FOUND)
            grade = Grade.FAILING if failing else Grade.UNCHECKED
            yield Diagnosis("login", grade, str(trouble), remedy if failing else "")
            return
        if [key for key in keys if key["Status"] != "Active"]:
            told = f"{self._user} has inactive keys, which take up room: {_shown(keys)}"
            remedy = "delete those that Keyturn is not about to (`keyturn status`)"
            yield Diagnosis("key limit", Grade.WARNING, told, remedy)

    # --- asking -------------------------------------------------------------------------------------

    def _named(self, key_id: str) -> dict[str, str]:
        return {"UserName": self._user, "AccessKeyId": key_id}

    def _all(self, what: str) -> Iterator[Mapping[str, Any]]:
        marker: dict[str, str] = {}
        while True:
            page = self._ask(what, "list_access_keys", UserName=self._user, **marker)
            yield from page["AccessKeyMetadata"]
            if not page.get("IsTruncated"):
                return
            marker = {"Marker": page["Marker"]}

    def _exists(self, refusal: Trouble) -> None:
        """A key that is not there is gone; a user who is not there may be a slip in the configuration."""
        try:
            next(self._all("looking for the user"), None)
        except Trouble as trouble:
            if trouble.code is Code.NOT_FOUND:
                raise refusal from None
            raise

    def _crowd(self) -> str:
        try:
            shown = _shown(list(self._all("listing keys")))
        except Trouble:
            shown = "they can not be listed"
        return (
            f"{self._user} has as many keys as IAM allows, inactive ones included: {shown}. One that `keyturn status` "
            f"does not show is not Keyturn's: delete it once nobody uses it. Nothing was changed"
        )

    def _ask(self, what: str, operation: str, **parameters: str) -> dict[str, Any]:
        """An answer of IAM. Every call goes out once: the SDK would make a second key of a lost answer."""
        from botocore import exceptions as sdk  # noqa: PLC0415

        writes = not operation.startswith(("get_", "list_"))
        trouble: Trouble
        try:
            answer: dict[str, Any] = getattr(self._client(), operation)(**parameters)
            return answer
        except sdk.ClientError as error:
            trouble = self._refused(what, error.response, writes=writes)
        except (sdk.EndpointConnectionError, sdk.ConnectTimeoutError, sdk.ProxyConnectionError) as error:
            trouble = Trouble(Code.UNAVAILABLE, self.name, f"{what}: no connection ({type(error).__name__})")
        except (sdk.NoCredentialsError, sdk.PartialCredentialsError, sdk.ProfileNotFound) as error:
            told = f"{what}: AWS's SDK finds no credentials ({type(error).__name__}); nothing was changed"
            trouble = Trouble(Code.DENIED, self.name, told)
        except sdk.BotoCoreError as error:
            told = f"{what}: no good answer ({type(error).__name__})"
            trouble = Trouble(Code.UNAVAILABLE, self.name, told, maybe_applied=writes)
        raise trouble  # out of the other one's reach, which may hold the request

    def _refused(self, what: str, response: Mapping[str, Any], *, writes: bool) -> Trouble:
        error, status = response.get("Error", {}), response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = error.get("Code", "")
        code = _CODES.get(said, Code.UNAVAILABLE if status >= 500 or not said else Code.INVALID)
        unsure = code is Code.UNAVAILABLE
        told = f"{what}: {said} (HTTP {status}): {error.get('Message', '')}".rstrip(": ")
        return Trouble(
            code, self.name, told if unsure else f"{told}; nothing was changed", maybe_applied=unsure and writes
        )

    def _client(self) -> Any:
        """IAM, as whoever administers the user now."""
        admin = self._login.admin().reveal() if self._login.admin else ""
        with self._lock:
            if self._logged_in is None or self._logged_in[0] != admin:
                self._logged_in = admin, self._administrator(admin)
            return self._logged_in[1]

    def _administrator(self, admin: str) -> Any:
        login = self._login
        keys: dict[str, Any] = {}
        if login.admin is not None:
            key_id, secret = _pair(admin)
            if not key_id or not secret:
                told = "its admin credential is neither ID:SECRET nor JSON with access_key_id and secret_access_key"
                raise Trouble(Code.DENIED, self.name, told)
            keys = {"aws_access_key_id": key_id, "aws_secret_access_key": secret}
        if login.role_arn is None and login.profile is None and keys:
            return self._signing("iam", **keys)
        import boto3  # noqa: PLC0415 - 0.3 s; importing this module stays cheap

        session = boto3.session.Session(profile_name=login.profile, region_name=self._region, **keys)
        if login.role_arn is not None:
            session = self._with_role(session, login.role_arn)
        return session.client("iam", endpoint_url=self._endpoint_url, config=_once())

    def _signing(self, service: str, **keys: str) -> Any:
        """A client that has nothing but these keys."""
        with _MAKING:  # sessions are not for two threads at a time
            return _session().client(
                service,
                region_name=self._region,
                endpoint_url=self._endpoint_url,
                config=_once(),
                **keys,
            )

    def _with_role(self, base: Any, role_arn: str) -> Any:
        """A session whose credentials are the role's, renewed by the SDK before they end."""
        import boto3  # noqa: PLC0415 - loaded already
        from botocore import credentials as parts  # noqa: PLC0415
        from botocore.session import Session  # noqa: PLC0415

        extra = {"RoleSessionName": "keyturn"}
        extra |= {"ExternalId": self._login.external_id} if self._login.external_id else {}
        sts = partial(base.client, region_name=self._region, endpoint_url=self._endpoint_url, config=_once())
        fetcher = parts.AssumeRoleCredentialFetcher(sts, base.get_credentials(), role_arn, extra_args=extra)
        role = parts.DeferredRefreshableCredentials(fetcher.fetch_credentials, _Role.METHOD)
        core = Session()
        core.register_component("credential_provider", parts.CredentialResolver([_Role(lambda: role)]))  # type: ignore[list-item]
        return boto3.session.Session(botocore_session=core, region_name=self._region)


def capabilities(user: str, where: str) -> Capabilities:
    """What such an issuer can do.

    Parameters:
        user: whose keys.
        where: endpoint and account as far as known, to tell the user from one of the same name elsewhere.
    """
    return Capabilities(
        fields=FIELDS,
        max_keys=MOST,
        names_keys=False,
        tells_last_use=True,
        spreads=_SPREADS,
        scope=hashlib.sha256(f"{where} {user}".encode()).hexdigest()[:8],
        create=Propagation(in_a_row=3, interval=timedelta(seconds=2), timeout=timedelta(minutes=2)),
        revoke=Propagation(in_a_row=3, interval=timedelta(seconds=2), timeout=timedelta(minutes=2)),
    )


_MAKING: Final = threading.Lock()


@cache
def _session() -> Any:
    """For clients that are given their keys; what the SDK reads of its services' descriptions is read once."""
    import boto3  # noqa: PLC0415 - as above

    return boto3.session.Session()


def _once() -> Any:
    from botocore.config import Config  # noqa: PLC0415

    return Config(connect_timeout=_CONNECT, read_timeout=_READ, retries={"total_max_attempts": 1, "mode": "standard"})


def _judged(response: Mapping[str, Any]) -> Check:
    error, about = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, request = str(error.get("Code", "")), about.get("RequestId")
    if code == _UNKNOWN_KEY:
        return Check(Verdict.INVALID, f"{code}: no such key, or not active", request)
    if code == _NOT_ITS_OWN and not str(error.get("Message", "")).startswith(_CLOCK):
        return Check(Verdict.INVALID, f"{code}: the secret is not this key's", request)
    return Check(Verdict.UNKNOWN, f"{code or 'no code'} (HTTP {about.get('HTTPStatusCode', 0)})", request)


def _pair(text: str) -> tuple[str, str]:
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except ValueError:
            return "", ""
        return str(found.get(FIELDS[0], "")), str(found.get(FIELDS[1], ""))
    key_id, _, secret = text.strip().partition(":")
    return key_id, secret


def _shown(keys: list[Mapping[str, Any]]) -> str:
    made = ((key, _utc(key.get("CreateDate"))) for key in keys)
    return ", ".join(
        f"{key['AccessKeyId']} ({key['Status']}, made {at:%Y-%m-%d %H:%MZ})" if at else key["AccessKeyId"]
        for key, at in made
    )


def _utc(at: datetime | None) -> datetime | None:
    return at.astimezone(UTC) if at else None
