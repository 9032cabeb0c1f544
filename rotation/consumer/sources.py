"""Where values come from: one entry of Secrets Manager, Key Vault, or Vault and OpenBao, by a URI.

    aws://REGION/ENTRY[#FIELD]          GetSecretValue; DescribeSecret for the version alone
    azure://VAULT/ENTRY[#FIELD]         Get Secret; Get Secret Versions for the version alone. NAME or HOST[:PORT]
    vault://MOUNT/ENTRY[#FIELD]         read on data/ENTRY; on subkeys/ENTRY for the version alone. KV version 2

A login needs no right but the first. Who logs in is the SDK's own business: AWS_* and its files, AZURE_* and managed identity;
for Vault VAULT_ADDR, VAULT_CACERT, VAULT_NAMESPACE, and VAULT_TOKEN or VAULT_ROLE_ID with VAULT_SECRET_ID (AppRole).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote, unquote, urlsplit

from rotation.consumer import forking
from rotation.consumer.value import Unavailable, Value

T = TypeVar("T")

_CONNECT_SECONDS: Final = 2.0
_READ_SECONDS: Final = 5.0
"""A caller may be waiting. What takes longer counts as a vault that is away, and the last good value is used."""

Connect = Callable[[], Any]
"""Makes a client of the vault's SDK that is logged in."""


class Source(Protocol):
    """One entry of one vault. Threads may share it."""

    @property
    def where(self) -> str:
        """Names it in messages; no value."""

    def read(self) -> Value:
        """The current version. Raises Unavailable."""

    def version(self) -> str | None:
        """Changes when another version becomes current; told by metadata, no value is read. None: not for this login.

        Not comparable with `Value.version`. Raises Unavailable.
        """


class NotAUriError(ValueError):
    """What was given does not say where an entry is."""


def source(uri: str, connect: Connect | None = None) -> Source:
    """The entry at a URI; opens no connection.

    Parameters:
        connect: makes the SDK's client, for logins and addresses that the environment can not tell.

    Raises:
        NotAUriError: it is none of the three forms.
    """
    parts = urlsplit(uri)
    kinds: Mapping[str, type[_Entry]] = {"aws": SecretsManagerEntry, "azure": KeyVaultEntry, "vault": VaultEntry}
    entry, place = unquote(parts.path.removeprefix("/")), unquote(parts.netloc)
    if parts.scheme not in kinds or not place or not entry or parts.query:
        allowed = "aws://REGION/ENTRY, azure://VAULT/ENTRY or vault://MOUNT/ENTRY, each with #FIELD if wanted"
        raise NotAUriError(f"{uri!r} does not say where an entry is; allowed: {allowed}")
    return kinds[parts.scheme](place, entry, unquote(parts.fragment) or None, connect)


class _Entry:
    """What the three have in common: a client that is made when first needed, in each process its own."""

    scheme = ""

    def __init__(self, place: str, entry: str, field: str | None = None, connect: Connect | None = None) -> None:
        self.where: Final = f"{self.scheme}://{place}/{entry}"
        self._place = place
        self._entry = entry
        self._field = field
        self._connect = connect or self._usual
        self.forked()
        forking.watch(self)

    def forked(self) -> None:
        """Leaves the client to the parent: both would talk on one connection."""
        self._lock = threading.Lock()
        self._client: Any = None

    def read(self) -> Value:
        value = self._asked(self._read)
        if self._field is not None and self._field not in value.fields:
            held = ", ".join(value.fields) or "none, it is one text"
            raise Unavailable(self.where, f"has no field {self._field}; its fields: {held}")
        return value

    def version(self) -> str | None:
        return self._asked(self._version)

    def _open(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _asked(self, ask: Callable[[Any], T]) -> T:
        try:
            return ask(self._open())
        except Exception as error:  # noqa: BLE001 - SDKs raise what they like; to a consumer all of it means: no value
            why = str(error.why) if isinstance(error, Unavailable) else self._why(error)
        # Not from inside the handler: what SDKs raise holds requests and answers.
        raise Unavailable(self.where, why)

    def _usual(self) -> Any:
        raise NotImplementedError

    def _read(self, client: Any) -> Value:
        raise NotImplementedError

    def _version(self, client: Any) -> str | None:
        raise NotImplementedError

    def _why(self, error: Exception) -> str:
        """In words of ours: an SDK's own may quote what it was sent."""
        return type(error).__name__


class SecretsManagerEntry(_Entry):
    """What has the label AWSCURRENT."""

    scheme = "aws"

    def _usual(self) -> Any:
        import boto3  # noqa: PLC0415 - an application has the SDK of its own vault, not of all
        from botocore.config import Config  # noqa: PLC0415

        once_more = {"total_max_attempts": 2, "mode": "standard"}
        config = Config(connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, retries=once_more)  # type: ignore[arg-type]
        # A session of its own: the SDK's default one is not made for threads.
        return boto3.session.Session().client("secretsmanager", region_name=self._place, config=config)

    def _read(self, client: Any) -> Value:
        answer = client.get_secret_value(SecretId=self._entry)
        if answer.get("SecretString") is None:
            raise Unavailable(self.where, "is binary; consumers read texts")
        return Value(answer["SecretString"], answer["VersionId"], self._field)

    def _version(self, client: Any) -> str | None:
        try:
            stages = client.describe_secret(SecretId=self._entry).get("VersionIdsToStages") or {}
        except client.exceptions.ClientError as error:
            if error.response["Error"].get("Code") == "AccessDeniedException":
                return None
            raise
        return next((version for version, labels in stages.items() if "AWSCURRENT" in labels), "")

    def _why(self, error: Exception) -> str:
        answer = getattr(error, "response", None)
        code = answer["Error"].get("Code", "") if isinstance(answer, dict) and "Error" in answer else ""
        return f"Secrets Manager answers {code}" if code else f"no answer ({type(error).__name__})"


class KeyVaultEntry(_Entry):
    """The newest version of a secret."""

    scheme = "azure"

    def _usual(self) -> Any:
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - as above
        from azure.keyvault.secrets import SecretClient  # noqa: PLC0415

        host = self._place if "." in self._place else f"{self._place}.vault.azure.net"
        bounds: dict[str, Any] = {"connection_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS}
        return SecretClient(f"https://{host}", DefaultAzureCredential(), retry_total=1, **bounds)

    def _read(self, client: Any) -> Value:
        found = client.get_secret(self._entry)
        return Value(found.value or "", found.properties.version or "", self._field)

    def _version(self, client: Any) -> str | None:
        from azure.core.exceptions import HttpResponseError  # noqa: PLC0415 - loaded with the client

        try:
            # In no order of time, and of one second only: which of them is newest is not told, that there is another is.
            versions = sorted(str(about.version) for about in client.list_properties_of_secret_versions(self._entry))
        except HttpResponseError as error:
            if error.status_code == 403:
                return None
            raise
        return " ".join(versions)

    def _why(self, error: Exception) -> str:
        status = getattr(error, "status_code", None)
        return f"Key Vault answers HTTP {status}" if status else f"no answer ({type(error).__name__})"


class VaultEntry(_Entry):
    """The newest version of a path in a KV version 2 mount of Vault or OpenBao."""

    scheme = "vault"

    def _usual(self) -> Any:
        import hvac  # noqa: PLC0415 - as above

        settings: dict[str, Any] = {"url": os.environ.get("VAULT_ADDR"), "timeout": _READ_SECONDS}
        if bundle := os.environ.get("VAULT_CACERT"):
            settings["verify"] = bundle
        if namespace := os.environ.get("VAULT_NAMESPACE"):
            settings["namespace"] = namespace
        client = hvac.Client(**settings)
        role, secret = os.environ.get("VAULT_ROLE_ID"), os.environ.get("VAULT_SECRET_ID")
        if role and not os.environ.get("VAULT_TOKEN"):
            client.auth.approle.login(role, secret, mount_point=os.environ.get("VAULT_APPROLE_MOUNT", "approle"))
        return client

    def _read(self, client: Any) -> Value:
        found = self._get(client, "data")
        held, about = found["data"]["data"], found["data"]["metadata"]
        return Value.of(held, str(about["version"]), self._field)

    def _version(self, client: Any) -> str | None:
        from hvac.exceptions import Forbidden  # noqa: PLC0415 - loaded with the client

        try:
            return str(self._get(client, "subkeys")["data"]["metadata"]["version"])
        except Forbidden:
            return None

    def _get(self, client: Any, kind: str) -> Any:
        """What a path answers. A token that has ended is replaced by logging in again, once."""
        from hvac.exceptions import Forbidden, InvalidPath  # noqa: PLC0415 - loaded with the client

        url = f"/v1/{quote(self._place)}/{kind}/{quote(self._entry)}"
        try:
            found = client.adapter.get(url)
        except InvalidPath:
            raise Unavailable(self.where, "there is no such entry, or it is deleted") from None
        except Forbidden:
            if kind != "data":
                raise
            with self._lock:
                self._client = None
            found = self._open().adapter.get(url)
        return found

    def _why(self, error: Exception) -> str:
        told = {"Forbidden": "permission denied", "VaultDown": "the server is sealed or starting"}
        name = type(error).__name__
        answered = type(error).__module__.startswith("hvac")
        return told.get(name, f"the server answers {name}" if answered else f"no answer ({name})")
