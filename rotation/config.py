"""The configuration of one stack: read, checked as a whole, and turned into policies.

The file holds no secret values, only references to them; a message here never repeats what stands
where a reference belongs.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import string
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

from rotation import names
from rotation.model import Consumer, Drain, Ending, Policy
from rotation.policy import read_duration, show_duration, written
from rotation.situation import ATTEMPT_LIFE

NAMESPACE: Final = "keyturn:"


# --- what is wrong -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, in words for the person who edits the file. Never holds a value."""

    path: str
    """The field, as in `keyturn:secrets[1].grace`."""
    message: str
    allowed: str = ""
    place: str = ""
    """File and line, where they are known."""

    def __str__(self) -> str:
        allowed = f"; allowed: {self.allowed}" if self.allowed else ""
        place = f" [{self.place}]" if self.place else ""
        return f"{self.path}: {self.message}{allowed}{place}"


class ConfigError(Exception):
    """All that is wrong with a configuration, one line each. Commands end with exit code 2."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: Final = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


def _refusal(message: str, allowed: str = "") -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": message, "allowed": allowed})


def _nearest(wrong: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(wrong, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _listed(known: Iterable[str]) -> str:
    return ", ".join(known) or "nothing, as there is none"


# --- kinds of fields -----------------------------------------------------------------------------

_SPAN_FORM: Final = "a number and one of w, d, h, m, s, as in 30d or 1h30m"
_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]*")
_URL: Final = re.compile(r"https?://[!-~]+")
_FOLDERS: Final = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*")


def _span(value: object) -> timedelta:
    try:
        return read_duration(value if isinstance(value, str) else "")
    except ValueError:
        raise _refusal("is not a duration", _SPAN_FORM) from None


def _secret_name(text: str) -> str:
    if fault := names.name_fault(text):
        raise _refusal(fault)
    return text


def _label(text: str) -> str:
    if fault := names.environment_fault(text):
        raise _refusal(fault)
    return text


def _variable(text: str) -> str:
    # Capitals only: a key that is pasted here by mistake is refused, and so never looked up or shown.
    if not _VARIABLE.fullmatch(text):
        raise _refusal("must be the name of an environment variable, never the value itself", "as in OPENAI_ADMIN_KEY")
    return text


def _url(text: str) -> str:
    try:
        parts = urlsplit(text if _URL.fullmatch(text) else "")
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise _refusal("is not an address", "https://HOST[:PORT][/PATH]") from None
    if not host or parts.query or parts.fragment or "@" in parts.netloc:
        raise _refusal("is not an address, or has a user, query or fragment", "https://HOST[:PORT][/PATH]")
    if parts.scheme == "http" and not _is_loopback(host):
        raise _refusal("would send credentials unencrypted", "https, and http for 127.0.0.1, ::1 and localhost")
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _https(text: str) -> str:
    if not text.startswith("https://"):
        raise _refusal("must be https, as the service's clients send no token over http", "https://HOST[:PORT]")
    return text


def _folders(text: str) -> str:
    if not _FOLDERS.fullmatch(text) or ".." in text.split("/"):
        raise _refusal("is not a path", "names of letters, digits, _, . and -, with / between them")
    return text


def _reference(allowed: str) -> BeforeValidator:
    def check(value: object) -> object:
        if not isinstance(value, Mapping):
            raise _refusal("must be a reference, never the credential itself", allowed)
        return value

    return BeforeValidator(check)


Text = Annotated[str, StringConstraints(min_length=1)]
Url = Annotated[str, AfterValidator(_url), WithJsonSchema({"type": "string", "pattern": "^https?://"})]
HttpsUrl = Annotated[
    str, AfterValidator(_https), AfterValidator(_url), WithJsonSchema({"type": "string", "pattern": "^https://"})
]
Folders = Annotated[
    str, AfterValidator(_folders), WithJsonSchema({"type": "string", "pattern": f"^{_FOLDERS.pattern}$"})
]
Label = Annotated[str, AfterValidator(_label)]
SecretName = Annotated[str, AfterValidator(_secret_name)]
Variable = Annotated[
    str, AfterValidator(_variable), WithJsonSchema({"type": "string", "pattern": f"^{_VARIABLE.pattern}$"})
]
Span = Annotated[
    timedelta,
    BeforeValidator(_span),
    WithJsonSchema({"type": "string", "pattern": "^([0-9]+[wdhms])+$", "examples": ["30d", "1h30m"]}),
]


class Section(BaseModel):
    """A mapping of the file. Names are camelCase there; a field's description is what faults call allowed."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", alias_generator=to_camel)


# --- stores --------------------------------------------------------------------------------------


class SecretsManagerConfig(Section):
    """AWS Secrets Manager in one region. Credentials come from the SDK's own chain."""

    kind: Literal["aws-secrets-manager"]
    region: Text = Field(description="an AWS region, as in eu-west-1")
    endpoint_url: Url | None = Field(None, description="an address in place of the region's own")
    profile: Text | None = Field(None, description="a profile of the AWS configuration files")
    role_arn: Annotated[str, StringConstraints(pattern=r"^arn:[a-z-]+:iam::\d{12}:role/\S+$")] | None = Field(
        None, description="the ARN of a role to assume"
    )
    external_id: Text | None = Field(None, description="the external id that roleArn asks for")
    prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9/_+=.@-]*$")] = Field(
        "", description="letters, digits and /_+=.@-, put before every entry's name"
    )

    @field_validator("external_id")
    @classmethod
    def _has_role(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text and "role_arn" in info.data and not info.data["role_arn"]:
            raise _refusal("has no effect without roleArn", "together with roleArn")
        return text


class KeyVaultConfig(Section):
    """One Azure Key Vault. Credentials come from DefaultAzureCredential."""

    kind: Literal["azure-key-vault"]
    vault_url: HttpsUrl = Field(description="https://NAME.vault.azure.net")
    tenant_id: Text | None = Field(None, description="the id of an Entra tenant")
    client_id: Text | None = Field(None, description="the id of an application or managed identity")
    authority_host: HttpsUrl | None = Field(None, description="https://HOST of the token service")
    ca_bundle: Text | None = Field(None, description="the path of a file of certificates, relative to this file")
    verify_challenge_resource: bool = Field(
        default=True, description="true, or false for a vault whose host is not under the cloud's own domain"
    )


class EnvReference(Section):
    """A value that stands in an environment variable."""

    env: Variable = Field(description="the name of an environment variable")


class EntryReference(Section):
    """A value that stands in a store, in an entry that Keyturn does not manage."""

    store: Text = Field(description="the name of a store")
    name: Text = Field(description="the entry's own name in that store")


EnvOnly = Annotated[EnvReference, _reference("{env: NAME}")]


class TokenAuth(Section):
    """A token from VAULT_TOKEN or, where that is not set, the file that `vault login` writes."""

    method: Literal["token"]


class AppRoleAuth(Section):
    """A login of the AppRole method."""

    method: Literal["approle"]
    role_id: EnvOnly = Field(description="{env: NAME}")
    secret_id: EnvOnly = Field(description="{env: NAME}")


class VaultConfig(Section):
    """A KV version 2 mount of HashiCorp Vault or OpenBao."""

    kind: Literal["hashicorp-vault"]
    address: Url = Field(description="https://HOST:PORT")
    mount: Folders = Field("secret", description="the path of a KV version 2 mount")
    namespace: Folders | None = Field(None, description="the path of a namespace")
    prefix: Folders | None = Field(None, description="a path within the mount, put before every entry's name")
    ca_bundle: Text | None = Field(None, description="the path of a file of certificates, relative to this file")
    auth: TokenAuth | AppRoleAuth = Field(
        default={"method": "token"},
        discriminator="method",
        description="{method: token} or {method: approle, roleId: {env: NAME}, secretId: {env: NAME}}",
        validate_default=True,
    )


StoreConfig = SecretsManagerConfig | KeyVaultConfig | VaultConfig


def entry_name(store: StoreConfig, environment: str, name: str) -> str:
    """What the entry of a secret is called in a store. Vault's prefix is no part of it: the store adds that."""
    match store:
        case SecretsManagerConfig():
            return store.prefix + names.slashed(environment, name)
        case KeyVaultConfig():
            return names.dashed(environment, name)
        case VaultConfig():
            return names.slashed(environment, name)


_LONGEST_NAME: Final[Mapping[type[Section], int]] = {SecretsManagerConfig: 512, KeyVaultConfig: 127}
"""Characters of an entry's name, those of Keyturn's own sibling entries included (facts of both services)."""
_SIBLING: Final = "-pending"


# --- issuers -------------------------------------------------------------------------------------


def _form(value: object) -> str | None:
    keys = value if isinstance(value, Mapping) else {}
    return "env" if "env" in keys else "store" if {"store", "name"} & set(keys) else None


_ADMIN_FORM: Final = "{env: NAME} or {store: STORE, name: ENTRY}"
AdminReference = Annotated[
    Annotated[EnvReference, Tag("env")] | Annotated[EntryReference, Tag("store")],
    Discriminator(
        _form,
        custom_error_type="refused",
        custom_error_message="must be a reference, never the credential itself",
        custom_error_context={"allowed": _ADMIN_FORM},
    ),
]


class OpenAIConfig(Section):
    """A project of an OpenAI organization."""

    kind: Literal["openai"]
    project: Text = Field(description="the id of a project, as in proj_abc")
    service_account: Text | None = Field(None, description="the id of the service account that owns the keys")
    base_url: Url | None = Field(None, description="an address in place of OpenAI's own")
    smoke_model: Text | None = Field(None, description="the model that a smoke test asks for one short answer")
    admin: AdminReference = Field(description=_ADMIN_FORM)


class GeneratedConfig(Section):
    """Random passwords and tokens that no service registers."""

    kind: Literal["generated"]
    alphabet: str = Field(
        string.ascii_letters + string.digits, description="printable characters without spaces, each once"
    )
    length: int = Field(32, description="characters of a value, at most 4096", validate_default=True)

    @field_validator("alphabet")
    @classmethod
    def _even(cls, text: str) -> str:
        if len(set(text)) < max(len(text), 2) or not text.isprintable() or " " in text:
            raise _refusal("is not an alphabet", "two or more printable characters without spaces, each once")
        return text

    @field_validator("length")
    @classmethod
    def _hard_to_guess(cls, length: int, info: ValidationInfo) -> int:
        # The least that the issuer itself accepts, said before anything is applied.
        least = math.ceil(80 / math.log2(len(info.data["alphabet"]))) if "alphabet" in info.data else 1
        if not least <= length <= 4096:
            raise _refusal(f"{length} is out of range", f"{least} to 4096, at least 80 bits with this alphabet")
        return length


IssuerConfig = OpenAIConfig | GeneratedConfig


# --- owners and secrets --------------------------------------------------------------------------


class Owner(Section):
    """Who is told what happens to a secret."""

    notify: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), max_length=0, description="an empty list: this version has no channels"
    )


class ConsumerSection(Section):
    """A declared reader."""

    name: Label = Field(description="a name")
    refresh_within: Span = Field("15m", validate_default=True, description=_SPAN_FORM)


class DrainSection(Section):
    """How an old credential goes."""

    quiet_for: Span = Field("1h", validate_default=True, description=_SPAN_FORM)
    at_most: Span = Field("14d", validate_default=True, description=_SPAN_FORM)
    then: Literal["hold", "revoke"] = Field("hold", description="hold or revoke")


_SHORTEST: Final = timedelta(hours=4)
_LONGEST: Final = timedelta(days=1000)


class SecretSection(Section):
    """One entry of `keyturn:secrets`."""

    name: SecretName = Field(description="<service>-<purpose>, as in support-copilot-chat")
    store: Text = Field(description="the name of a store")
    replicas: Annotated[tuple[Text, ...], Field(strict=False)] = Field((), description="a list of names of stores")
    issuer: Text = Field(description="the name of an issuer")
    owner: Text = Field(description="the name of an owner")
    consumers: Annotated[tuple[ConsumerSection, ...], Field(strict=False)] = Field(
        (), description="a list of {name: NAME, refreshWithin: DURATION}"
    )
    rotate_every: Span = Field(description=_SPAN_FORM)
    grace: Span = Field("24h", validate_default=True, description=_SPAN_FORM)
    drain: DrainSection = Field(
        default={}, validate_default=True, description="{quietFor: DURATION, atMost: DURATION, then: hold or revoke}"
    )
    contain_after: Span = Field("5m", validate_default=True, description=_SPAN_FORM)
    paired_with: Text | None = Field(None, description="the name of another secret")
    smoke_test: bool = Field(default=False, description="true or false")

    @field_validator("rotate_every")
    @classmethod
    def _in_range(cls, span: timedelta) -> timedelta:
        # What Secrets Manager's own schedules allow; the same everywhere, so that a secret can move.
        if not _SHORTEST <= span <= _LONGEST:
            shown = f"{show_duration(_SHORTEST)} to {show_duration(_LONGEST)}"
            raise _refusal(f"{show_duration(span)} is out of range", shown)
        return span


# --- the result ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Config:
    """What is declared for one stack, checked."""

    installation: str
    environment: str
    stores: Mapping[str, StoreConfig]
    issuers: Mapping[str, IssuerConfig]
    owners: Mapping[str, Owner]
    policies: tuple[Policy, ...]
    root: Path = field(default_factory=Path)
    """Where relative paths start: the folder of the file."""


def _policy(secret: SecretSection, installation: str, environment: str) -> Policy:
    drain = secret.drain
    return Policy(
        installation=installation,
        environment=environment,
        name=secret.name,
        store=secret.store,
        issuer=secret.issuer,
        owner=secret.owner,
        rotate_every=secret.rotate_every,
        grace=secret.grace,
        replicas=secret.replicas,
        drain=Drain(drain.quiet_for, drain.at_most, Ending(drain.then)),
        contain_after=secret.contain_after,
        consumers=tuple(Consumer(consumer.name, consumer.refresh_within) for consumer in secret.consumers),
        paired_with=secret.paired_with,
        smoke_test=secret.smoke_test,
    )


# --- rules between fields ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Read:
    """A secret as far as it could be read: fields in `faulty` hold placeholders, no rule looks at them."""

    path: str
    section: SecretSection
    faulty: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Declared:
    environment: str
    stores: Mapping[str, StoreConfig | None]
    """None: declared, but with faults of its own."""
    issuers: Collection[str]
    owners: Collection[str]
    secrets: tuple[_Read, ...]


_Found = Iterator[tuple[str, str, str]]
"""Path within the secret, message, what is allowed."""


def _store_known(secret: SecretSection, declared: _Declared) -> _Found:
    if secret.store not in declared.stores:
        near = _nearest(secret.store, declared.stores)
        yield "store", f"there is no such store{near}", _listed(declared.stores)


def _replicas_known(secret: SecretSection, declared: _Declared) -> _Found:
    for i, replica in enumerate(secret.replicas):
        if replica not in declared.stores:
            near = _nearest(replica, declared.stores)
            yield f"replicas[{i}]", f"there is no such store{near}", _listed(declared.stores)
        elif replica in secret.replicas[:i]:
            yield f"replicas[{i}]", f"{replica} is named twice", "each store once"


def _replicas_elsewhere(secret: SecretSection, declared: _Declared) -> _Found:
    others = _listed(store for store in declared.stores if store != secret.store)
    for i, replica in enumerate(secret.replicas):
        if replica == secret.store:
            yield f"replicas[{i}]", f"{replica} is the primary store already", others


def _stores_fit(secret: SecretSection, _: _Declared) -> _Found:
    # The journal keeps the stores of an attempt beside its ids and times in one tag of 256 characters.
    size = len("+".join((secret.store, *secret.replicas)))
    if size > 128:
        yield "replicas", f"the names of its stores take {size} characters", "at most 128"


def _issuer_known(secret: SecretSection, declared: _Declared) -> _Found:
    if secret.issuer not in declared.issuers:
        near = _nearest(secret.issuer, declared.issuers)
        yield "issuer", f"there is no such issuer{near}", _listed(declared.issuers)


def _owner_known(secret: SecretSection, declared: _Declared) -> _Found:
    if secret.owner not in declared.owners:
        near = _nearest(secret.owner, declared.owners)
        yield "owner", f"there is no such owner{near}", _listed(declared.owners)


def _name_once(secret: SecretSection, declared: _Declared) -> _Found:
    first = next(read for read in declared.secrets if read.section.name == secret.name and "name" not in read.faulty)
    if first.section is not secret:
        yield "name", f"{secret.name} is the name of {first.path} already", "each name once"


def _name_fits(secret: SecretSection, declared: _Declared) -> _Found:
    for name in dict.fromkeys((secret.store, *secret.replicas)):
        store = declared.stores.get(name)
        if store and (limit := _LONGEST_NAME.get(type(store))):
            size = len(entry_name(store, declared.environment, secret.name) + _SIBLING)
            if size > limit:
                yield "name", f"takes {size} characters in {name}, prefix and '{_SIBLING}' included", f"at most {limit}"


def _pair_known(secret: SecretSection, declared: _Declared) -> _Found:
    if secret.paired_with is None:
        return
    others = [r.section.name for r in declared.secrets if "name" not in r.faulty and r.section.name != secret.name]
    if secret.paired_with == secret.name:
        yield "pairedWith", "is the secret itself", _listed(others)
    elif secret.paired_with not in others:
        near = _nearest(secret.paired_with, others)
        yield "pairedWith", f"there is no such secret{near}", _listed(others)
    else:
        pair = next(r for r in declared.secrets if r.section.name == secret.paired_with)
        if "pairedWith" not in pair.faulty and pair.section.paired_with != secret.name:
            yield "pairedWith", f"{secret.paired_with} is not paired with {secret.name}", "pairs that name each other"


def _grace_fits(secret: SecretSection, _: _Declared) -> _Found:
    if secret.grace > secret.rotate_every:
        most = show_duration(secret.rotate_every)
        yield "grace", f"{_shown(secret, 'grace')} is longer than rotateEvery ({most})", f"at most {most}"


def _grace_outlasts_attempts(secret: SecretSection, declared: _Declared) -> _Found:
    # Without compare-and-set a late write of an attempt is only safe while the credential that it replaces lives.
    for name in dict.fromkeys((secret.store, *secret.replicas)):
        if isinstance(declared.stores.get(name), KeyVaultConfig) and secret.grace < ATTEMPT_LIFE:
            least = show_duration(ATTEMPT_LIFE)
            shown = _shown(secret, "grace")
            yield "grace", f"{shown} is shorter than an attempt in {name} may live ({least})", f"at least {least}"


def _refresh_fits(secret: SecretSection, _: _Declared) -> _Found:
    most = show_duration(secret.grace)
    for i, consumer in enumerate(secret.consumers):
        if consumer.refresh_within > secret.grace:
            shown = _shown(consumer, "refresh_within")
            yield f"consumers[{i}].refreshWithin", f"{shown} is longer than grace ({most})", f"at most {most}"


def _consumers_once(secret: SecretSection, _: _Declared) -> _Found:
    for i, consumer in enumerate(secret.consumers):
        if consumer.name in {earlier.name for earlier in secret.consumers[:i]}:
            yield f"consumers[{i}].name", f"{consumer.name} is named twice", "each consumer once"


def _consumers_fit(secret: SecretSection, _: _Declared) -> _Found:
    size = len(written(_policy(secret, "", "")).get("consumers", ""))
    if size > 256:
        yield "consumers", f"take {size} characters in the store's metadata", "at most 256"


def _drain_outlasts_grace(secret: SecretSection, _: _Declared) -> _Found:
    if secret.drain.at_most < secret.grace:
        least = show_duration(secret.grace)
        shown = _shown(secret.drain, "at_most")
        yield "drain.atMost", f"{shown} is shorter than grace ({least})", f"at least {least}"


def _quiet_fits(secret: SecretSection, _: _Declared) -> _Found:
    if secret.drain.quiet_for > secret.drain.at_most:
        most = show_duration(secret.drain.at_most)
        shown = _shown(secret.drain, "quiet_for")
        yield "drain.quietFor", f"{shown} is longer than atMost ({most})", f"at most {most}"


def _shown(section: Section, name: str) -> str:
    default = "" if name in section.model_fields_set else ", the default,"
    return show_duration(getattr(section, name)) + default


_RULES: Final[tuple[tuple[frozenset[str], Callable[[SecretSection, _Declared], _Found]], ...]] = (
    (frozenset({"name"}), _name_once),
    (frozenset({"name", "store", "replicas"}), _name_fits),
    (frozenset({"store"}), _store_known),
    (frozenset({"replicas"}), _replicas_known),
    (frozenset({"store", "replicas"}), _replicas_elsewhere),
    (frozenset({"store", "replicas"}), _stores_fit),
    (frozenset({"issuer"}), _issuer_known),
    (frozenset({"owner"}), _owner_known),
    (frozenset({"consumers"}), _consumers_once),
    (frozenset({"consumers"}), _consumers_fit),
    (frozenset({"consumers", "grace"}), _refresh_fits),
    (frozenset({"grace", "rotateEvery"}), _grace_fits),
    (frozenset({"grace", "store", "replicas"}), _grace_outlasts_attempts),
    (frozenset({"drain", "grace"}), _drain_outlasts_grace),
    (frozenset({"drain"}), _quiet_fits),
    (frozenset({"name", "pairedWith"}), _pair_known),
)
"""Each rule, and the fields that must have been readable for it to mean anything."""


# --- from values to a Config ---------------------------------------------------------------------

_T = TypeVar("_T")

_STORE: Final[TypeAdapter[StoreConfig]] = TypeAdapter(Annotated[StoreConfig, Field(discriminator="kind")])
_ISSUER: Final[TypeAdapter[IssuerConfig]] = TypeAdapter(Annotated[IssuerConfig, Field(discriminator="kind")])
_OWNER: Final = TypeAdapter(Owner)
_SECRET: Final = TypeAdapter(SecretSection)

_TAGGED: Final[Mapping[str, type[Section]]] = {
    "aws-secrets-manager": SecretsManagerConfig,
    "azure-key-vault": KeyVaultConfig,
    "hashicorp-vault": VaultConfig,
    "openai": OpenAIConfig,
    "generated": GeneratedConfig,
    "token": TokenAuth,
    "approle": AppRoleAuth,
    "env": EnvReference,
    "store": EntryReference,
}
"""Members of unions by the tag under which pydantic reports them."""

_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "has the wrong form",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "too_long": "must be empty",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "literal_error": "is not known",
    "union_tag_invalid": "is not known",
    "union_tag_not_found": "is missing",
}

_PARTS: Final = ("installation", "environment", "stores", "issuers", "owners", "secrets")

_PLACEHOLDERS: Final = {
    "name": "a-placeholder",
    "store": "placeholder",
    "issuer": "placeholder",
    "owner": "placeholder",
    "rotateEvery": "1000d",
}


def _sections(shape: Any) -> list[type[Section]]:
    """The sections that an annotation is made of."""
    if isinstance(shape, type) and issubclass(shape, Section):
        return [shape]
    return [section for part in get_args(shape) for section in _sections(part)]


def _fault(path: str, shape: Any, error: ErrorDetails) -> Fault:
    """A fault in this file's words, from pydantic's error within `shape`, which stands at `path`."""
    allowed = ""
    for step in error["loc"]:
        if isinstance(step, int):
            path += f"[{step}]"
        elif len(_sections(shape)) > 1:
            shape = _TAGGED[step]
        else:
            path += f".{step}"
            known = {field.alias: field for field in _sections(shape)[0].model_fields.values()}
            if error["type"] == "extra_forbidden" and step not in known:
                return Fault(path, f"unknown key{_nearest(step, map(str, known))}", _listed(map(str, known)))
            shape, allowed = known[step].annotation, known[step].description or ""
    context = error.get("ctx", {})
    if error["type"] == "refused":
        return Fault(path, context.get("message", error["msg"]), context["allowed"] or "")
    if "discriminator" in context:
        path += "." + context["discriminator"].strip("'")
        tags = [tag for tag, section in _TAGGED.items() if section in _sections(shape)]
        return Fault(path, _MESSAGES[error["type"]] + _nearest(context.get("tag", ""), tags), _listed(tags))
    return Fault(path, _MESSAGES.get(error["type"], error["msg"]), allowed)


class _Builder:
    """Reads every part, whatever is wrong with the others, and gathers the faults."""

    def __init__(self, values: Mapping[str, object], root: Path) -> None:
        self.faults: list[Fault] = []
        self._values = values
        self._root = root

    def build(self) -> Config | None:
        """The configuration, or None when there are faults."""
        for key in self._values:
            if key not in _PARTS:
                self._add(key, f"unknown key{_nearest(key, _PARTS)}", _listed(_PARTS))
        installation, environment = self._label("installation"), self._label("environment")
        stores = self._mapping("stores", _STORE, StoreConfig)
        issuers = self._mapping("issuers", _ISSUER, IssuerConfig)
        owners = self._mapping("owners", _OWNER, Owner)
        secrets = tuple(self._secrets())
        self._check_admins(issuers, stores)
        declared = _Declared(environment, stores, issuers, owners, secrets)
        for read in secrets:
            for fields, rule in _RULES:
                if not fields & read.faulty:
                    for path, message, allowed in rule(read.section, declared):
                        self._add(f"{read.path}.{path}", message, allowed)
        if self.faults:
            return None
        return Config(
            installation=installation,
            environment=environment,
            stores={name: store for name, store in stores.items() if store},
            issuers={name: issuer for name, issuer in issuers.items() if issuer},
            owners={name: owner for name, owner in owners.items() if owner},
            policies=tuple(_policy(read.section, installation, environment) for read in secrets),
            root=self._root,
        )

    def _add(self, path: str, message: str, allowed: str = "") -> None:
        self.faults.append(Fault(NAMESPACE + path, message, allowed))

    def _label(self, part: str) -> str:
        text = self._values.get(part)
        if text is None:
            self._add(part, "is missing", "lower case letters, digits and '-', starting with a letter")
        elif not isinstance(text, str):
            self._add(part, "must be text")
        elif fault := names.environment_fault(text):
            self._add(part, fault)
        return text if isinstance(text, str) else ""

    def _structure(self, part: str) -> object:
        """The value of a structured part, which Pulumi hands over as JSON. None: absent."""
        value = self._values.get(part)
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value) if value else None
        except ValueError:
            return value  # text where a structure belongs: the caller says so

    def _mapping(self, part: str, adapter: TypeAdapter[_T], shape: Any) -> dict[str, _T | None]:
        found: dict[str, _T | None] = {}
        given = self._structure(part)
        if given is not None and not isinstance(given, Mapping):
            self._add(part, "must be a mapping", "{NAME: {…}}")
            return found
        for name, value in (given or {}).items():
            path = f"{part}.{name}"
            if fault := names.environment_fault(name):
                self._add(path, fault)
            try:
                found[name] = adapter.validate_python(value)
            except ValidationError as error:
                found[name] = None
                self._translate(path, shape, error)
        return found

    def _secrets(self) -> Iterator[_Read]:
        given = self._structure("secrets")
        if given is not None and not isinstance(given, list):
            self._add("secrets", "must be a list", "[{name: NAME, …}]")
            return
        for i, value in enumerate(given or []):
            path = f"secrets[{i}]"
            try:
                yield _Read(path, _SECRET.validate_python(value), frozenset())
            except ValidationError as error:
                self._translate(path, SecretSection, error)
                if isinstance(value, Mapping):
                    faulty = frozenset(str(detail["loc"][0]) for detail in error.errors())
                    sound = {key: value[key] for key in value if key not in faulty}
                    yield _Read(path, _SECRET.validate_python(_PLACEHOLDERS | sound), faulty)

    def _check_admins(self, issuers: Mapping[str, IssuerConfig | None], stores: Collection[str]) -> None:
        for name, issuer in issuers.items():
            admin = issuer.admin if isinstance(issuer, OpenAIConfig) else None
            if isinstance(admin, EntryReference) and admin.store not in stores:
                near = _nearest(admin.store, stores)
                self._add(f"issuers.{name}.admin.store", f"there is no such store{near}", _listed(stores))

    def _translate(self, path: str, shape: Any, error: ValidationError) -> None:
        self.faults.extend(_fault(NAMESPACE + path, shape, detail) for detail in error.errors())


def _encrypted(value: object, path: str) -> Iterator[str]:
    """Paths of values that Pulumi wrote encrypted."""
    if isinstance(value, Mapping):
        if list(value) == ["secure"] and isinstance(value["secure"], str):
            yield path
        for key, below in value.items():
            yield from _encrypted(below, f"{path}.{key}")
    elif isinstance(value, list):
        for i, below in enumerate(value):
            yield from _encrypted(below, f"{path}[{i}]")


def _within(path: str, outer: str) -> bool:
    return path.startswith(outer) and path[len(outer) :][:1] in ("", ".", "[")


def _built(values: Mapping[str, object], root: Path, encrypted: Collection[str]) -> tuple[Config | None, list[Fault]]:
    builder = _Builder(values, root)
    config = builder.build()
    refused = [*encrypted]
    for key, value in values.items():
        refused.extend(_encrypted(value, NAMESPACE + key))
    faults = [fault for fault in builder.faults if not any(_within(fault.path, path) for path in refused)]
    told = "is an encrypted value; a configuration holds no secrets, not even so"
    faults += [Fault(path, told, f"references to them, {_ADMIN_FORM}") for path in refused]
    return (None if faults else config), faults


def _own(mapping: Mapping[str, object]) -> dict[str, object]:
    """The values of this namespace, by their bare names. Those of other namespaces are not ours to judge."""
    return {
        key.removeprefix(NAMESPACE): value
        for key, value in mapping.items()
        if key.startswith(NAMESPACE) or ":" not in key
    }


def parse(mapping: Mapping[str, object], *, encrypted: Collection[str] = ()) -> Config:
    """The configuration from values as Pulumi hands them to a program.

    Parameters:
        mapping: by key, with or without `keyturn:`; structured values as such or as JSON text. Keys of
            other namespaces are left alone.
        encrypted: full keys that Pulumi has decrypted for the program; they are refused.

    Raises:
        ConfigError: with all faults.
    """
    config, faults = _built(_own(mapping), Path(), [key for key in encrypted if key.startswith(NAMESPACE)])
    if config is None:
        raise ConfigError(faults)
    return config


def load(path: Path) -> Config:
    """The configuration from a `Pulumi.<stack>.yaml`.

    Raises:
        ConfigError: with all faults, in the order of their lines.
    """
    reader = _Reader()
    try:
        values = reader.config(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([Fault(str(path), f"can not be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Fault(str(path), "is not UTF-8 text")]) from None
    except yaml.MarkedYAMLError as error:
        # Only what is wrong and where: the parser's own text quotes the file.
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError([Fault(str(path), f"is not YAML: {error.problem}", place=f"{path}:{line}")]) from None
    except yaml.reader.ReaderError as error:
        raise ConfigError([Fault(str(path), f"is not YAML: {error.reason}")]) from None
    config, faults = _built(values, path.parent, ())
    faults = sorted([*reader.faults, *faults], key=lambda fault: reader.line(fault.path))
    if config is None or faults:
        lines = ((fault, reader.line(fault.path)) for fault in faults)
        raise ConfigError(replace(fault, place=f"{path}:{line}" if line else str(path)) for fault, line in lines)
    return config


def find_stack_file(stack: str | None, file: Path | None, root: Path) -> Path:
    """The file that `--config` names, else the one of the stack, in the folder of `Pulumi.yaml`.

    Raises:
        ConfigError: there is no such file; names the stacks that exist.
    """
    stacks = sorted(found.name[len("Pulumi.") : -len(".yaml")] for found in root.glob("Pulumi.*.yaml"))
    exist = ", ".join(stacks) or f"none, as there is no Pulumi.<stack>.yaml in {root}"
    if file is not None:
        if not file.is_file():
            raise ConfigError([Fault("--config", f"there is no file {file}", f"files of the stacks {exist}")])
        return file
    if stack is None:
        raise ConfigError([Fault("--stack", "no stack is named, neither here nor in KEYTURN_STACK", exist)])
    short = stack.rpartition("/")[2]  # organization/project/stack, as Pulumi shows it
    if short not in stacks:
        raise ConfigError([Fault("--stack", f"there is no stack {short}{_nearest(short, stacks)}", exist)])
    return root / f"Pulumi.{short}.yaml"


# --- YAML, with lines ----------------------------------------------------------------------------

_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_NUMBER: Final = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?")


class _Reader:
    """Reads a stack file into plain values and remembers where each stands.

    Words such as `no` or `on` stay text, as Pulumi reads them.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._lines: dict[str, int] = {}
        self._open: list[yaml.Node] = []

    def config(self, text: str) -> dict[str, object]:
        """The values of this namespace by their bare names. Raises yaml.YAMLError."""
        root = yaml.compose(text, Loader=yaml.BaseLoader)
        whole = self._value(root, "") if root else {}
        config = (whole.get("config") if isinstance(whole, dict) else whole) or {}
        if not isinstance(config, dict):
            self.faults.append(Fault("config", "must be a mapping", "{keyturn:KEY: VALUE, …}"))
            return {}
        return _own(config)

    def line(self, path: str) -> int:
        """Where a path stands, or what of it exists; 0 when nothing does."""
        while path and path not in self._lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self._lines.get(path, 0)

    def _value(self, node: yaml.Node, path: str) -> object:
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if any(node is above for above in self._open):
            self.faults.append(Fault(path, "contains itself"))
            return None
        self._open.append(node)
        try:
            return self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._list(node, path)
        finally:
            self._open.pop()

    def _list(self, node: yaml.Node, path: str) -> list[object]:
        values = []
        for i, below in enumerate(node.value):
            self._lines[f"{path}[{i}]"] = below.start_mark.line + 1
            values.append(self._value(below, f"{path}[{i}]"))
        return values

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, object]:
        merged: dict[str, object] = {}
        for key, below in node.value:
            if _merges(key):
                for part in below.value if isinstance(below, yaml.SequenceNode) else [below]:
                    value = self._value(part, path)
                    merged = (value if isinstance(value, dict) else {}) | merged
        own: dict[str, object] = {}
        for key, below in node.value:
            if _merges(key):
                continue
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            if path == "config" and ":" not in name:
                name = NAMESPACE + name
            inner = name if path in ("", "config") else f"{path}.{name}"
            if name in own:
                first, again = self._lines[inner], key.start_mark.line + 1
                self.faults.append(Fault(inner, f"is given twice, in lines {first} and {again}", "each key once"))
                continue
            self._lines[inner] = key.start_mark.line + 1
            own[name] = self._value(below, inner)
        return merged | own


def _merges(key: yaml.Node) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.value == "<<" and key.style is None


def _scalar(node: yaml.ScalarNode) -> object:
    text: str = node.value
    if node.style is not None:
        return text
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


# --- for editors ---------------------------------------------------------------------------------


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a `Pulumi.<stack>.yaml`, from the same models that check it.

    What needs more than one field (references, durations that must fit each other) only load() can say.
    """
    adapters: list[tuple[str, Literal["validation"], TypeAdapter[Any]]] = [
        ("stores", "validation", _STORE),
        ("issuers", "validation", _ISSUER),
        ("owners", "validation", _OWNER),
        ("secrets", "validation", _SECRET),
    ]
    parts, shared = TypeAdapter.json_schemas(adapters)
    label = {"type": "string", "pattern": "^[a-z][a-z0-9]*(-[a-z0-9]+)*$", "maxLength": 32}
    properties: dict[str, Any] = {NAMESPACE + part: label for part in ("installation", "environment")}
    for part in ("stores", "issuers", "owners"):
        properties[NAMESPACE + part] = {"type": "object", "additionalProperties": parts[part, "validation"]}
    properties[NAMESPACE + "secrets"] = {"type": "array", "items": parts["secrets", "validation"]}
    config = {
        "type": "object",
        "properties": properties,
        "required": [NAMESPACE + "installation", NAMESPACE + "environment"],
        "propertyNames": {"anyOf": [{"enum": list(properties)}, {"not": {"pattern": f"^{NAMESPACE}"}}]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Keyturn's part of Pulumi.<stack>.yaml",
        "type": "object",
        "properties": {"config": config},
        "required": ["config"],
        **shared,
    }
