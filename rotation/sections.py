"""What each part of a stack's configuration may say: its fields, their forms, and the words for what is allowed.

Names are camelCase in the file. A field's description is what a fault calls allowed. A message never
repeats what stands where a reference belongs.
"""

from __future__ import annotations

import difflib
import math
import re
import string
from collections.abc import Mapping
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Final, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from rotation import form as forms
from rotation import names
from rotation.model import Restraint, Window
from rotation.policy import read_duration, read_moment, read_window, show_duration
from rotation.schedule import LONGEST, SHORTEST, SWEEPS
from rotation.strength import CLASSES, LEAST_BITS, WORD_BITS, shortest

# --- kinds of fields -----------------------------------------------------------------------------

SPAN_FORM: Final = "a number and one of w, d, h, m, s, as in 30d or 1h30m"
_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]*")
_URL: Final = re.compile(r"https?://[!-~]+")
_FOLDERS: Final = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*")


def _refusal(message: str, allowed: str = "") -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": message, "allowed": allowed})


def _span(value: object) -> timedelta:
    try:
        return read_duration(value if isinstance(value, str) else "")
    except ValueError:
        raise _refusal("is not a duration", SPAN_FORM) from None


def _secret_name(text: str) -> str:
    if fault := names.name_fault(text):
        raise _refusal(fault)
    return text


def _label(text: str) -> str:
    if fault := names.label_fault(text):
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


CIDRS: Final = "a list of networks, as in 198.51.100.0/24 or 2001:db8::/32"
VPCES: Final = "a list of ids of VPC endpoints, as in vpce-0a1b2c3d4e5f60718"
FORMAT: Final = "raw, {json: {KEY: FIELD, …}} or {text: 'TEMPLATE with each {FIELD}'}"
TAGS: Final = "a mapping of at most 10 tags, NAME: TEXT"
LONGEST_FORM: Final = 512
"""Bytes of one value of Vault's custom metadata; the other stores hold more."""
_MOST_TAGS: Final = 10
_TAG_NAME: Final = re.compile(r"(?!(?i:aws:|keyturn))[A-Za-z0-9_.:/+@-]{1,64}")
_TAG_TEXT: Final = re.compile(r"(?! )[A-Za-z0-9 _.:/=+@-]{1,256}(?<! )")
"""What a tag of Secrets Manager, a tag of Key Vault and custom metadata of Vault hold alike."""


def _format(value: object) -> str:
    """The form of rotation.form that a secret's `format` says."""
    if value == "raw":
        return ""
    kind, said = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else ("", None)
    if kind == "json" and isinstance(said, Mapping) and all(isinstance(part, str) for part in said.values()):
        if any("=" in str(name) for name in said):
            raise _refusal("must have names without =", FORMAT)
        form = "json " + " ".join(f"{name}={field}" for name, field in said.items())
    elif kind == "text" and isinstance(said, str):
        form = f"text {said}"
    else:
        raise _refusal("is not a format", FORMAT)
    if fault := forms.fault(form):
        raise _refusal(fault, FORMAT)
    if (size := len(forms.encoded(form))) > LONGEST_FORM:
        raise _refusal(f"takes {size} characters in the store's metadata", f"at most {LONGEST_FORM}")
    return form


def _tags(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping) or len(value) > _MOST_TAGS:
        raise _refusal("is not a list of tags, or has too many", TAGS)
    for name, text in value.items():
        if not isinstance(name, str) or not _TAG_NAME.fullmatch(name):
            told = "1 to 64 letters, digits and _.:/+@-, not starting with aws: or keyturn"
            raise _refusal("has a tag whose name not every store can hold", told)
        if not isinstance(text, str) or not _TAG_TEXT.fullmatch(text):
            told = "1 to 256 letters, digits, _.:/=+@- and spaces within, as text"
            raise _refusal(f"has a tag {name} whose text not every store can hold", told)
    return tuple(sorted(value.items()))


def _networks(value: object) -> tuple[str, ...]:
    """Networks as the standard library writes them, each once."""
    found: list[str] = []
    for text in value if isinstance(value, list | tuple) else [value]:
        try:
            network = ip_network(text if isinstance(text, str) else "")
        except ValueError:
            raise _refusal("has something that is no network, or one with bits set beyond its length", CIDRS) from None
        if not network.prefixlen:
            raise _refusal(f"has {network}, which lets everybody in", f"{CIDRS}; or leave it out")
        if str(network) in found:
            raise _refusal(f"names {network} twice", CIDRS)
        found.append(str(network))
    return tuple(found)


Networks = Annotated[
    tuple[str, ...],
    BeforeValidator(_networks),
    WithJsonSchema({"type": "array", "items": {"type": "string", "examples": ["198.51.100.0/24"]}}),
]
Endpoint = Annotated[str, StringConstraints(pattern=r"^vpce-[0-9a-f]{8,17}$")]

Format = Annotated[
    str,
    BeforeValidator(_format),
    WithJsonSchema(
        {
            "oneOf": [
                {"const": "raw"},
                {
                    "type": "object",
                    "properties": {"json": {"type": "object", "additionalProperties": {"type": "string"}}},
                    "required": ["json"],
                    "additionalProperties": False,
                },
                {
                    "type": "object",
                    "properties": {"text": {"type": "string"}},
                    "required": ["text"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
Tags = Annotated[
    tuple[tuple[str, str], ...],
    BeforeValidator(_tags),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": _MOST_TAGS,
            "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 256},
        }
    ),
]


def _pace(number: float) -> float:
    if not 0 < number <= 10_000:
        raise _refusal(f"{number:g} is out of range", CALLS)
    return number


CALLS: Final = "a number above 0, at most 10000: calls that one process makes at most"
CallsPerSecond = Annotated[
    float,
    AfterValidator(_pace),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 10_000}),
]


class Section(BaseModel):
    """A mapping of the file."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", alias_generator=to_camel)


# --- stores --------------------------------------------------------------------------------------


_FUNCTION: Final = r"^arn:[a-z-]+:lambda:[a-z0-9-]+:\d{12}:function:[A-Za-z0-9_-]+(:[A-Za-z0-9_$-]+)?$"


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
    kms_key_id: Text | None = Field(None, description="the id, ARN or alias of the KMS key of new entries")
    replica_regions: Annotated[tuple[Text, ...], Field(strict=False)] = Field(
        (), description="a list of other AWS regions that the service replicates entries to"
    )
    exempt_roles: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=r"^arn:[a-z-]+:iam::\d{12}:role/\S+$")], ...],
        Field(strict=False),
    ] = Field(
        (), description="a list of ARNs of the roles that allowedCidrs and allowedVpces do not bind; roleArn if none"
    )
    recovery_window: Span = Field("30d", validate_default=True, description="7d to 30d, in whole days")
    rotation_function: Annotated[str, StringConstraints(pattern=_FUNCTION)] | None = Field(
        None, description="the ARN of the Lambda function that the service calls to rotate"
    )
    rotation: Literal["direct", "native"] = Field(
        "direct", validate_default=True, description="direct: sweeps rotate; or native: the service has it done"
    )
    calls_per_second: CallsPerSecond | None = Field(None, description=CALLS)

    @field_validator("rotation")
    @classmethod
    def _called(cls, rotation: str, info: ValidationInfo) -> str:
        function = info.data.get("rotation_function", "")  # none where it has a fault of its own
        if rotation == "native" and function is None:
            raise _refusal("native needs the function that the service is to call", "together with rotationFunction")
        if rotation == "direct" and function:
            raise _refusal("direct has no use for rotationFunction", "native, or no rotationFunction")
        if function and function.split(":")[3] != info.data.get("region", function.split(":")[3]):
            raise _refusal("native needs a function in the store's own region", "a rotationFunction of the region")
        return rotation

    @field_validator("replica_regions")
    @classmethod
    def _elsewhere(cls, regions: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("region") in regions or len(set(regions)) < len(regions):
            raise _refusal("names a region twice, or the store's own", "each other region once")
        return regions

    @field_validator("recovery_window")
    @classmethod
    def _recoverable(cls, span: timedelta) -> timedelta:
        # What the service's DeleteSecret takes.
        if span % timedelta(days=1) or not timedelta(days=7) <= span <= timedelta(days=30):
            raise _refusal(f"{show_duration(span)} is out of range", "7d to 30d, in whole days")
        return span

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
    calls_per_second: CallsPerSecond | None = Field(None, description=CALLS)


class EnvReference(Section):
    """A value that stands in an environment variable."""

    env: Variable = Field(description="the name of an environment variable")


class EntryReference(Section):
    """A value that stands in a store, in an entry that Keyturn does not manage."""

    store: Text = Field(description="the name of a store")
    name: Text = Field(description="the entry's own name in that store")


class FileReference(Section):
    """A value that stands in a file, which is read each time it is needed."""

    file: Text = Field(description="the path of a file, relative to this file")


_NOTHING: Final = "nothing"
"""The tag of what may be left out."""


def _told_apart(
    allowed: str, message: str = "must be a reference, never the credential itself", **keys: set[str]
) -> Discriminator:
    """References, or other sections, of several kinds: by tag, the keys of which any one shows the kind."""

    def tag(value: object) -> str | None:
        if value is None:
            return _NOTHING
        given = set(value) if isinstance(value, Mapping) else set()
        return next((tag for tag, known in keys.items() if known & given), None)

    return Discriminator(
        tag,
        custom_error_type="refused",
        custom_error_message=message,
        custom_error_context={"allowed": allowed},
    )


EnvOnly = Annotated[EnvReference, _reference("{env: NAME}")]

WORKLOAD_FORM: Final = "{env: NAME} or {file: PATH}"
WorkloadReference = Annotated[
    Annotated[EnvReference, Tag("env")] | Annotated[FileReference, Tag("file")],
    _told_apart(WORKLOAD_FORM, env={"env"}, file={"file"}),
]


_AUTH_MOUNT: Final = "the path that the method is mounted at, without auth/"


class TokenAuth(Section):
    """A token from VAULT_TOKEN or, where that is not set, the file that `vault login` writes."""

    method: Literal["token"]


class AppRoleAuth(Section):
    """A login of the AppRole method."""

    method: Literal["approle"]
    mount: Folders = Field("approle", description=_AUTH_MOUNT)
    role_id: EnvOnly = Field(description="{env: NAME}")
    secret_id: EnvOnly = Field(description="{env: NAME}")


class KubernetesAuth(Section):
    """A login with the token of the pod's own service account."""

    method: Literal["kubernetes"]
    role: Text = Field(description="the name of a role of the method")
    mount: Folders = Field("kubernetes", description=_AUTH_MOUNT)
    token_file: Text = Field(
        "/var/run/secrets/kubernetes.io/serviceaccount/token",
        description="the path of a file with a service account's token, relative to this file",
    )


class JwtAuth(Section):
    """A login with a workload's token (JWT, OIDC) of a CI system or cloud."""

    method: Literal["jwt"]
    role: Text = Field(description="the name of a role of the method")
    mount: Folders = Field("jwt", description=_AUTH_MOUNT)
    token: WorkloadReference = Field(description=WORKLOAD_FORM)


class AwsAuth(Section):
    """A login with AWS credentials of the SDK's own chain (Vault's `aws` method, type iam)."""

    method: Literal["aws"]
    role: Text = Field(description="the name of a role of the method")
    mount: Folders = Field("aws", description=_AUTH_MOUNT)
    header_value: Annotated[str, StringConstraints(pattern=r"^[!-~]+$")] | None = Field(
        None, description="what the method's iam_server_id_header_value asks for, without spaces"
    )
    region: Annotated[str, StringConstraints(pattern=r"^[a-z]{2,}(-[a-z]+)+-[0-9]+$")] | None = Field(
        None, description="the region of the method's sts_endpoint, as in eu-west-1; none for the global one"
    )


AUTH_FORMS: Final = (
    "{method: token}, {method: approle, roleId: {env: NAME}, secretId: {env: NAME}}, "
    "{method: kubernetes, role: ROLE}, {method: jwt, role: ROLE, token: {env: NAME}} or {method: aws, role: ROLE}"
)


class VaultConfig(Section):
    """A KV version 2 mount of HashiCorp Vault or OpenBao."""

    kind: Literal["hashicorp-vault"]
    address: Url = Field(description="https://HOST:PORT")
    mount: Folders = Field("secret", description="the path of a KV version 2 mount")
    namespace: Folders | None = Field(None, description="the path of a namespace")
    prefix: Folders | None = Field(None, description="a path within the mount, put before every entry's name")
    ca_bundle: Text | None = Field(None, description="the path of a file of certificates, relative to this file")
    auth: TokenAuth | AppRoleAuth | KubernetesAuth | JwtAuth | AwsAuth = Field(
        default={"method": "token"}, discriminator="method", description=AUTH_FORMS, validate_default=True
    )
    calls_per_second: CallsPerSecond | None = Field(None, description=CALLS)


StoreConfig = SecretsManagerConfig | KeyVaultConfig | VaultConfig


LONGEST_NAME: Final[Mapping[type[Section], int]] = {SecretsManagerConfig: 512, KeyVaultConfig: 127}
"""Characters of an entry's name, those of Keyturn's own sibling entries included (facts of both services)."""
SIBLING: Final = "-pending"


# --- issuers -------------------------------------------------------------------------------------


ADMIN_FORM: Final = "{env: NAME} or {store: STORE, name: ENTRY}"
AdminReference = Annotated[
    Annotated[EnvReference, Tag("env")] | Annotated[EntryReference, Tag("store")],
    _told_apart(ADMIN_FORM, env={"env"}, store={"store", "name"}),
]
OptionalAdmin = Annotated[
    Annotated[EnvReference, Tag("env")] | Annotated[EntryReference, Tag("store")] | Annotated[None, Tag(_NOTHING)],
    _told_apart(ADMIN_FORM, env={"env"}, store={"store", "name"}),
]
"""Where there may be none, or it comes from somewhere else."""


WATCH: Final = "true or false: sweeps ask how its keys are used, and warn"


class OpenAIConfig(Section):
    """A project of an OpenAI organization."""

    kind: Literal["openai"]
    project: Text = Field(description="the id of a project, as in proj_abc")
    service_account: Text | None = Field(None, description="the id of the service account that owns the keys")
    base_url: Url | None = Field(None, description="an address in place of OpenAI's own")
    smoke_model: Text | None = Field(None, description="the model that a smoke test asks for one short answer")
    expires_in: Span | None = Field(None, description=f"how long a key lives at most: {SPAN_FORM}")
    admin: AdminReference = Field(description=ADMIN_FORM)
    watch_usage: bool = Field(default=False, description=WATCH)
    calls_per_second: CallsPerSecond | None = Field(None, description=CALLS)


def _variables(value: object) -> object:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise _refusal("must be a mapping", "the variables of the description by name")
    return dict(value)


Variables = Annotated[dict[str, Any], BeforeValidator(_variables)]


class DescribedConfig(Section):
    """An account at a vendor that comes with Keyturn as a description."""

    kind: Literal[
        "anthropic",
        "azure-openai",
        "azure-storage",
        "cloudflare",
        "datadog-api-keys",
        "datadog-application-keys",
        "entra",
        "github-fine-grained",
        "groq",
        "mistral",
        "openai-admin",
        "openrouter",
        "sendgrid",
        "twilio",
    ]
    variables: Variables = Field({}, description="the variables of the description by name")
    base_url: Url | None = Field(None, description="an address in place of the vendor's own")
    admin: OptionalAdmin = Field(None, description=ADMIN_FORM)
    watch_usage: bool = Field(default=False, description=WATCH)
    calls_per_second: CallsPerSecond | None = Field(None, description=CALLS)


class HttpConfig(Section):
    """An account at a vendor that a file describes."""

    kind: Literal["http"]
    description: Text = Field(description="the path of a description, relative to this file")
    variables: Variables = Field({}, description="the variables of the description by name")
    base_url: Url | None = Field(None, description="an address in place of the vendor's own")
    admin: OptionalAdmin = Field(None, description=ADMIN_FORM)
    watch_usage: bool = Field(default=False, description=WATCH)
    calls_per_second: CallsPerSecond | None = Field(None, description=CALLS)


class GeneratedConfig(Section):
    """Random passwords and tokens that no service registers."""

    kind: Literal["generated"]
    alphabet: str = Field(
        string.ascii_letters + string.digits, description="printable characters without spaces, each once"
    )
    require: Annotated[tuple[Literal["lower", "upper", "digit", "symbol"], ...], Field(strict=False)] = Field(
        default=(), description="a list of lower, upper, digit and symbol"
    )
    length: int = Field(32, description="characters of a value, at most 4096", validate_default=True)

    @field_validator("require")
    @classmethod
    def _can_be_met(cls, require: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len({*require}) < len(require):
            raise _refusal("names a class twice", "lower, upper, digit and symbol, each once")
        alphabet = info.data.get("alphabet", "")
        if alphabet and (missing := [name for name in require if not any(map(CLASSES[name], alphabet))]):
            raise _refusal(f"the alphabet has no {missing[0]}", "classes of which the alphabet has a character")
        return require

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
        alphabet, require = info.data.get("alphabet", ""), info.data.get("require", ())
        least = shortest(alphabet, require) if alphabet else 1
        if not least <= length <= 4096:
            raise _refusal(f"{length} is out of range", f"{least} to 4096, at least 80 bits with this alphabet")
        return length


class PassphraseConfig(Section):
    """Words that can be read out and typed, for what a person has to enter."""

    kind: Literal["passphrase"]
    separator: str = Field("-", description="at most 3 characters, none of them a letter or a digit")
    words: int = Field(6, description="5 to 64, 19 bits each", validate_default=True)

    @field_validator("separator")
    @classmethod
    def _apart(cls, text: str) -> str:
        if not text or len(text) > 3 or not text.isprintable() or any(c.isalnum() for c in text):
            raise _refusal("is no separator", "1 to 3 characters, none of them a letter or a digit")
        return text

    @field_validator("words")
    @classmethod
    def _enough(cls, words: int) -> int:
        least = math.ceil(LEAST_BITS / WORD_BITS)
        if not least <= words <= 64:
            raise _refusal(f"{words} is out of range", f"{least} to 64, at least {LEAST_BITS} bits")
        return words


class KeyPairConfig(Section):
    """Key pairs for signatures."""

    kind: Literal["key-pair"]
    algorithm: Literal["ed25519", "rsa-3072", "rsa-4096"] = Field(
        "ed25519", description="ed25519, rsa-3072 or rsa-4096"
    )


class IamConfig(Section):
    """The access keys of one IAM user of AWS, which nobody else makes keys for."""

    kind: Literal["aws-iam"]
    user: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_+=,.@-]{1,64}$")] = Field(
        description="the name of an IAM user, without its path"
    )
    path: Annotated[str, StringConstraints(pattern=r"^/([!-.0-~]+/)*$")] = Field(
        "/", description="the user's path, with a / at both ends"
    )
    region: Text = Field("us-east-1", description="the AWS region whose STS new keys are shown to, as in eu-west-1")
    profile: Text | None = Field(None, description="the name of a profile of the AWS configuration")
    role_arn: Annotated[str, StringConstraints(pattern=r"^arn:[a-z-]+:iam::\d{12}:role/[!-~]+$")] | None = Field(
        None, description="arn:aws:iam::ACCOUNT:role/NAME"
    )
    external_id: Text | None = Field(None, description="the id that the role's trust policy asks for")
    endpoint_url: Url | None = Field(None, description="an address in place of IAM's and STS's own")
    admin: OptionalAdmin = Field(None, description=f"{ADMIN_FORM}; left out: the AWS SDK's own chain")
    watch_usage: bool = Field(default=False, description=WATCH)
    calls_per_second: CallsPerSecond | None = Field(None, description=CALLS)


DatabaseRole = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
ROLE_FORM: Final = "the name of a role: lower case letters, digits and _, at most 63"


class PostgreSQLConfig(Section):
    """Login roles of a PostgreSQL server: two or more alternate, a single one is replaced."""

    kind: Literal["postgresql"]
    host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]+$")] = Field(
        description="the name or the address of one host, as consumers reach it"
    )
    port: Annotated[int, Field(ge=1, le=65535)] = Field(5432, description="1 to 65535")
    database: Text = Field(description="the name of a database")
    users: Annotated[tuple[DatabaseRole, ...], Field(strict=False, min_length=1)] = Field(
        description="a list of login roles, each once; two that alternate, or one that is replaced"
    )
    owner: DatabaseRole | None = Field(None, description=ROLE_FORM)
    admin_user: DatabaseRole = Field(description=ROLE_FORM)
    admin: AdminReference = Field(description=ADMIN_FORM)
    ca_bundle: Text | None = Field(None, description="the path of a file of certificates, relative to this file")
    tls: Literal["verify-full", "verify-ca"] = Field(
        "verify-full", description="verify-full; or verify-ca, which takes a certificate for another name"
    )
    calls_per_second: CallsPerSecond | None = Field(None, description=CALLS)

    @field_validator("admin_user")
    @classmethod
    def _roles_apart(cls, admin_user: str, info: ValidationInfo) -> str:
        users, owner = info.data.get("users"), info.data.get("owner")
        if users is not None and len({*users, owner, admin_user}) < len(users) + 2:
            raise _refusal("users, owner and adminUser name a role twice", "different roles")
        if users is not None and len(users) > 1 and "owner" in info.data and owner is None:
            raise _refusal("several users need an owner, through which they share what they make", "owner: ROLE")
        return admin_user

    @field_validator("tls")
    @classmethod
    def _has_authorities(cls, tls: str, info: ValidationInfo) -> str:
        # With the system's authorities libpq takes nothing less, as anybody may have a certificate of theirs.
        if tls != "verify-full" and "ca_bundle" in info.data and info.data["ca_bundle"] is None:
            raise _refusal(f"{tls} trusts any name", "verify-full, unless caBundle says whose certificates count")
        return tls


IssuerConfig = (
    OpenAIConfig
    | IamConfig
    | PostgreSQLConfig
    | DescribedConfig
    | HttpConfig
    | GeneratedConfig
    | PassphraseConfig
    | KeyPairConfig
)


def calls_per_second(about: StoreConfig | IssuerConfig) -> float | None:
    """What the file lets one process take of a service at most; None: it says nothing, or there is no service."""
    said: float | None = getattr(about, "calls_per_second", None)
    return said


FIELDS: Final[Mapping[type[Section], tuple[str, ...]]] = {
    OpenAIConfig: ("value",),
    IamConfig: ("access_key_id", "secret_access_key"),
    PostgreSQLConfig: ("username", "password", "host", "port", "database"),
    GeneratedConfig: ("value",),
    PassphraseConfig: ("value",),
    KeyPairConfig: ("private", "public", "kid"),
}
"""The fields of what an issuer mints, where its kind alone tells."""


# --- the audit trail -----------------------------------------------------------------------------

_KEEPS: Final = "records, or anchors for the heads of its chains alone"
_LONGEST_LOCK: Final = 36_500
"""Days; what S3 takes at most."""


class AuditFile(Section):
    """A file, which is appended to."""

    file: Text = Field(description="the path of a file, relative to this file")
    keeps: Literal["records", "anchors"] = Field("records", description=_KEEPS)


class AuditLock(Section):
    """For how long nobody can delete an object (S3 Object Lock); in governance mode, but who is allowed to bypass it."""

    mode: Literal["governance", "compliance"] = Field(description="governance or compliance")
    days: Annotated[int, Field(ge=1, le=_LONGEST_LOCK)] = Field(description=f"1 to {_LONGEST_LOCK}")


class AuditBucket(Section):
    """A bucket of S3. Credentials come from the SDK's own chain."""

    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] = Field(
        description="the name of a bucket"
    )
    prefix: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9!_.*'()-]+/)*$")] = Field(
        "", description="folders, each with a / behind it"
    )
    region: Text | None = Field(None, description="an AWS region, as in eu-west-1")
    endpoint_url: Url | None = Field(None, description="an address in place of the region's own")
    lock: AuditLock | None = Field(None, description="{mode: governance or compliance, days: NUMBER}")


class AuditBucketPlace(Section):
    """Objects of S3."""

    s3: AuditBucket = Field(description="{bucket: NAME, prefix: FOLDERS/, region: REGION, lock: {mode: MODE, days: N}}")
    keeps: Literal["records", "anchors"] = Field("records", description=_KEEPS)


class AuditGroup(Section):
    """A log group of CloudWatch Logs. Credentials come from the SDK's own chain."""

    group: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_/.#-]{1,512}$")] = Field(
        description="the name of a log group"
    )
    region: Text | None = Field(None, description="an AWS region, as in eu-west-1")
    endpoint_url: Url | None = Field(None, description="an address in place of the region's own")


class AuditGroupPlace(Section):
    """Events of CloudWatch Logs."""

    cloudwatch: AuditGroup = Field(description="{group: NAME, region: REGION}")
    keeps: Literal["records", "anchors"] = Field("records", description=_KEEPS)


class AuditStream(Section):
    """What is printed, where a platform keeps that."""

    stream: Literal["stdout"] = Field(description="stdout")
    keeps: Literal["records", "anchors"] = Field("records", description=_KEEPS)


AuditPlace = AuditFile | AuditBucketPlace | AuditGroupPlace | AuditStream
AUDIT_FORM: Final = "{file: PATH}, {s3: {bucket: NAME, …}}, {cloudwatch: {group: NAME, …}} or {stream: stdout}"
TaggedAuditPlace = Annotated[
    Annotated[AuditFile, Tag("auditFile")]
    | Annotated[AuditBucketPlace, Tag("auditBucket")]
    | Annotated[AuditGroupPlace, Tag("auditGroup")]
    | Annotated[AuditStream, Tag("auditStream")],
    _told_apart(
        AUDIT_FORM,
        "is no place for an audit trail",
        auditFile={"file"},
        auditBucket={"s3"},
        auditGroup={"cloudwatch"},
        auditStream={"stream"},
    ),
]


# --- channels, owners and secrets -----------------------------------------------------------------


VALUE_FORM: Final = "{env: NAME}, {store: STORE, name: ENTRY} or {file: PATH}"
ValueReference = Annotated[
    Annotated[EnvReference, Tag("env")]
    | Annotated[EntryReference, Tag("store")]
    | Annotated[FileReference, Tag("file")],
    _told_apart(VALUE_FORM, env={"env"}, store={"store", "name"}, file={"file"}),
]
_TOPIC: Final = r"^arn:[a-z-]+:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$"
_REPEAT: Final = "24h"


class SnsSection(Section):
    """A topic of Amazon SNS. Credentials come from the SDK's own chain."""

    arn: Annotated[str, StringConstraints(pattern=_TOPIC)] = Field(
        description="the ARN of a topic, as in arn:aws:sns:eu-west-1:123456789012:keyturn"
    )
    endpoint_url: Url | None = Field(None, description="an address in place of the region's own")
    profile: Text | None = Field(None, description="a profile of the AWS configuration files")


class AppriseChannel(Section):
    """A place that Apprise knows how to tell. Its URL holds a password or token, and so stands elsewhere."""

    apprise: ValueReference = Field(description=VALUE_FORM)
    repeat_after: Span = Field(_REPEAT, validate_default=True, description=SPAN_FORM)


class SnsChannel(Section):
    """A topic, and with it whoever has subscribed."""

    sns: SnsSection = Field(description="{arn: ARN}")
    repeat_after: Span = Field(_REPEAT, validate_default=True, description=SPAN_FORM)


Channel = AppriseChannel | SnsChannel
CHANNEL_FORM: Final = "{apprise: REFERENCE} or {sns: {arn: ARN}}"
TaggedChannel = Annotated[
    Annotated[AppriseChannel, Tag("apprise")] | Annotated[SnsChannel, Tag("sns")],
    _told_apart(CHANNEL_FORM, "is not a channel", apprise={"apprise"}, sns={"sns"}),
]

NOTIFY_FORM: Final = "a list of names of channels, or of {channel: NAME, from: SEVERITY, on: [EVENT, …]}"


class RouteSection(Section):
    """Through which channel an owner is told what."""

    channel: Text = Field(description="the name of a channel")
    least: Literal["info", "warning", "critical"] | None = Field(
        None, alias="from", description="info, warning or critical"
    )
    on: (
        Annotated[tuple[Literal["before", "done", "failed", "hold", "incident", "usage"], ...], Field(strict=False)]
        | None
    ) = Field(None, description="a list of before, done, failed, hold, incident and usage")


def _route(value: object) -> object:
    return {"channel": value} if isinstance(value, str) else value


Route = Annotated[RouteSection, BeforeValidator(_route, json_schema_input_type=Text | RouteSection)]


class Owner(Section):
    """Who is told what happens to a secret."""

    notify: Annotated[tuple[Route, ...], Field(strict=False)] = Field((), description=NOTIFY_FORM)
    notify_before: Span = Field("3d", validate_default=True, description=SPAN_FORM)


class NoticeSection(Section):
    """How a kind of notice is worded."""

    subject: Text | None = Field(None, description="one line, with $NAME where something is put in")
    text: Text | None = Field(None, description="text, with $NAME where something is put in")


class IntakeSection(Section):
    """GitHub's secret-scanning alerts, as `keyturn serve` takes them in."""

    secret: ValueReference = Field(description=VALUE_FORM)
    token: ValueReference = Field(description=VALUE_FORM)
    api: Url = Field("https://api.github.com", description="https://HOST[:PORT][/PATH]")
    act: bool = Field(default=False, description="true or false")
    owner: Text | None = Field(None, description="the name of an owner")


class WebhookSection(Section):
    """Somebody's own endpoint, which is told that a secret has a new value."""

    url: Url = Field(description="https://HOST[:PORT][/PATH]")
    secret: ValueReference = Field(description=VALUE_FORM)


class HiddenWebhookSection(Section):
    """As above, where the address is itself a secret."""

    url_from: ValueReference = Field(description=VALUE_FORM)
    secret: ValueReference = Field(description=VALUE_FORM)


KUBERNETES_FORM: Final = "{namespace: NAME, kind: Deployment, StatefulSet or DaemonSet, name: NAME}"
_DNS: Final = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"


class KubernetesSection(Section):
    """A workload whose pods are replaced, by the rules of its own roll-out."""

    namespace: Annotated[str, StringConstraints(pattern=_DNS)] = Field(description="the name of a namespace")
    kind: Literal["Deployment", "StatefulSet", "DaemonSet"] = Field(description="Deployment, StatefulSet or DaemonSet")
    name: Annotated[str, StringConstraints(pattern=_DNS)] = Field(description="the name of the workload")


class RestartSection(Section):
    """What is restarted."""

    kubernetes: KubernetesSection = Field(description=KUBERNETES_FORM)


WEBHOOK_FORM: Final = "{url: URL or urlFrom: REFERENCE, secret: REFERENCE}"


class CallsWebhook(Section):
    """A reader that is told to read again."""

    webhook: Annotated[
        Annotated[WebhookSection, Tag("url")] | Annotated[HiddenWebhookSection, Tag("urlFrom")],
        _told_apart(WEBHOOK_FORM, "is not a webhook", url={"url"}, urlFrom={"urlFrom"}),
    ] = Field(description=WEBHOOK_FORM)


class Restarts(Section):
    """A reader that reads when it starts."""

    restart: RestartSection = Field(description=f"{{kubernetes: {KUBERNETES_FORM}}}")


OnRotate = CallsWebhook | Restarts
ON_ROTATE_FORM: Final = "{webhook: {url: URL, secret: REFERENCE}} or {restart: {kubernetes: {…}}}"
TaggedOnRotate = Annotated[
    Annotated[CallsWebhook, Tag("webhook")] | Annotated[Restarts, Tag("restart")] | Annotated[None, Tag(_NOTHING)],
    _told_apart(ON_ROTATE_FORM, "is nothing that can be done", webhook={"webhook"}, restart={"restart"}),
]


class ConsumerSection(Section):
    """A declared reader."""

    name: Label = Field(description="a name")
    refresh_within: Span = Field("15m", validate_default=True, description=SPAN_FORM)
    on_rotate: TaggedOnRotate = Field(None, description=ON_ROTATE_FORM)


class DrainSection(Section):
    """How an old credential goes."""

    quiet_for: Span = Field("1h", validate_default=True, description=SPAN_FORM)
    at_most: Span = Field("14d", validate_default=True, description=SPAN_FORM)
    then: Literal["hold", "revoke"] = Field("hold", description="hold or revoke")


# --- schedules -----------------------------------------------------------------------------------

WINDOW_FORM: Final = (
    "days and local times, or a list of such: Sun 02:00-05:00, Mon-Fri 22:00-04:00, Tue Thu 20:00-24:00"
)
ZONE_FORM: Final = "a time zone by its IANA name, as in Europe/Berlin"
MOMENT_FORM: Final = "a date or a local time, as in 2026-12-18 or 2026-12-18T18:00"
CRON_FORM: Final = "five fields (minute hour day month weekday), as in 0 3 * * SUN"
OVERRIDES_FORM: Final = "a list of window and blackout, or of none: what gives way before the secret becomes overdue"
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_CRON: Final = re.compile(r"[A-Za-z0-9*,/#-]+(?: [A-Za-z0-9*,/#-]+){4}")
_REASON: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 .:+@-]{0,38}[A-Za-z0-9])?")
_GO_DATE: Final = "T00:00:00Z"
"""What Pulumi makes of a date without quotes, when it hands a program its values."""


def _zone(text: str) -> str:
    from zoneinfo import available_timezones  # noqa: PLC0415 - only where a zone is named

    known = available_timezones() if _ZONE.fullmatch(text) else set()
    if text not in known:
        near = difflib.get_close_matches(text, known, 1)
        raise _refusal("is no time zone" + (f" (did you mean {near[0]}?)" if near else ""), ZONE_FORM)
    return text


def _cron(text: str) -> str:
    plain = " ".join(text.split())
    if not _CRON.fullmatch(plain):
        raise _refusal("is not a cron expression", CRON_FORM)
    return plain


def _windows(value: object) -> tuple[Window, ...]:
    texts = value if isinstance(value, list) else [value]
    windows = []
    for text in texts:
        try:
            window = read_window(text if isinstance(text, str) else "")
        except ValueError as error:
            raise _refusal(str(error), WINDOW_FORM) from None
        if timedelta(minutes=window.closes - window.opens) < SWEEPS:
            raise _refusal(f"is open for less than {show_duration(SWEEPS)}: two sweeps may miss it", WINDOW_FORM)
        windows.append(window)
    return tuple(windows)


def _moment(value: object, *, end: bool) -> datetime:
    text = value.removesuffix(_GO_DATE) if isinstance(value, str) else ""
    try:
        return read_moment(text, end=end)
    except (ValueError, OverflowError):
        raise _refusal("is not a date", MOMENT_FORM) from None


def _overrides(value: object) -> tuple[Restraint, ...]:
    if not isinstance(value, list) or any(word not in tuple(Restraint) for word in value):
        raise _refusal("is not such a list", OVERRIDES_FORM)
    return tuple(restraint for restraint in Restraint if restraint in value)


def _in_range(span: timedelta) -> timedelta:
    if not SHORTEST <= span <= LONGEST:
        shown = f"{show_duration(SHORTEST)} to {show_duration(LONGEST)}"
        raise _refusal(f"{show_duration(span)} is out of range", shown)
    return span


Interval = Annotated[Span, AfterValidator(_in_range)]
Zone = Annotated[str, AfterValidator(_zone), WithJsonSchema({"type": "string", "pattern": f"^{_ZONE.pattern}$"})]
Cron = Annotated[str, AfterValidator(_cron), WithJsonSchema({"type": "string", "examples": ["0 3 * * SUN"]})]
_WINDOW_SCHEMA: Final = {"type": "string", "examples": ["Sun 02:00-05:00", "Mon-Fri 22:00-04:00"]}
Windows = Annotated[
    tuple[Window, ...],
    BeforeValidator(_windows),
    WithJsonSchema({"anyOf": [_WINDOW_SCHEMA, {"type": "array", "items": _WINDOW_SCHEMA}]}),
]
_MOMENT_SCHEMA: Final = WithJsonSchema({"type": "string", "examples": ["2026-12-18", "2026-12-18T18:00"]})
From = Annotated[datetime, BeforeValidator(lambda value: _moment(value, end=False)), _MOMENT_SCHEMA]
To = Annotated[datetime, BeforeValidator(lambda value: _moment(value, end=True)), _MOMENT_SCHEMA]
Reason = Annotated[str, StringConstraints(pattern=f"^{_REASON.pattern}$")]
Overrides = Annotated[
    tuple[Restraint, ...],
    BeforeValidator(_overrides),
    WithJsonSchema({"type": "array", "items": {"enum": [str(restraint) for restraint in Restraint]}}),
]


class BlackoutSection(Section):
    """A time in which nothing rotates by schedule."""

    start: From = Field(alias="from", description=MOMENT_FORM)
    to: To = Field(description=f"{MOMENT_FORM}; a date is all of its day")
    reason: Reason = Field(description="1 to 40 letters, digits, spaces and .:+@-")

    @field_validator("to")
    @classmethod
    def _lasts(cls, to: datetime, info: ValidationInfo) -> datetime:
        if "start" in info.data and to <= info.data["start"]:
            raise _refusal("is before from", "a later date or time")
        return to


class ScheduleSection(Section):
    """When a secret rotates."""

    every: Interval | None = Field(None, description=SPAN_FORM)
    cron: Cron | None = Field(None, description=CRON_FORM)
    time_zone: Zone = Field("UTC", description=ZONE_FORM)
    window: Windows = Field((), description=WINDOW_FORM)
    blackouts: Annotated[tuple[BlackoutSection, ...], Field(strict=False)] = Field(
        (), description="a list of {from: DATE, to: DATE, reason: TEXT}"
    )
    jitter: Span = Field("0s", validate_default=True, description=SPAN_FORM)
    earliest: Span = Field("0s", validate_default=True, description=SPAN_FORM)
    latest: Interval | None = Field(None, description=SPAN_FORM)
    overrides: Overrides = Field((Restraint.WINDOW,), description=OVERRIDES_FORM)


SCHEDULE_FORM: Final = "{every: DURATION or cron: CRON, timeZone: ZONE, window: WINDOW, blackouts: […], …}"


class DefaultsSection(Section):
    """What holds for every secret that does not say otherwise."""

    schedule: ScheduleSection | None = Field(None, description=SCHEDULE_FORM)


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
    rotate_every: Interval | None = Field(None, description=SPAN_FORM)
    schedule: ScheduleSection | None = Field(None, description=SCHEDULE_FORM)
    grace: Span = Field("24h", validate_default=True, description=SPAN_FORM)
    drain: DrainSection = Field(
        default={}, validate_default=True, description="{quietFor: DURATION, atMost: DURATION, then: hold or revoke}"
    )
    contain_after: Span = Field("5m", validate_default=True, description=SPAN_FORM)
    paired_with: Text | None = Field(None, description="the name of another secret")
    smoke_test: bool = Field(default=False, description="true or false")
    allowed_cidrs: Networks = Field((), description=CIDRS)
    allowed_vpces: Annotated[tuple[Endpoint, ...], Field(strict=False)] = Field((), description=VPCES)
    form: Format = Field("", alias="format", description=FORMAT)
    tags: Tags = Field((), description=TAGS)
    adopt: bool = Field(default=False, description="true or false")
    adopt_key_id: Text | None = Field(None, description="the issuer's id of the credential that is adopted")
    force_revoke: bool = Field(default=False, description="true or false")


TAGGED: Final[Mapping[str, type[Section]]] = {
    "aws-secrets-manager": SecretsManagerConfig,
    "azure-key-vault": KeyVaultConfig,
    "hashicorp-vault": VaultConfig,
    "openai": OpenAIConfig,
    "aws-iam": IamConfig,
    "postgresql": PostgreSQLConfig,
    **dict.fromkeys(get_args(DescribedConfig.model_fields["kind"].annotation), DescribedConfig),
    "http": HttpConfig,
    "generated": GeneratedConfig,
    "passphrase": PassphraseConfig,
    "key-pair": KeyPairConfig,
    "token": TokenAuth,
    "approle": AppRoleAuth,
    "kubernetes": KubernetesAuth,
    "jwt": JwtAuth,
    "aws": AwsAuth,
    "env": EnvReference,
    "file": FileReference,
    "store": EntryReference,
    "apprise": AppriseChannel,
    "sns": SnsChannel,
    "url": WebhookSection,
    "urlFrom": HiddenWebhookSection,
    "webhook": CallsWebhook,
    "restart": Restarts,
    "auditFile": AuditFile,
    "auditBucket": AuditBucketPlace,
    "auditGroup": AuditGroupPlace,
    "auditStream": AuditStream,
}
"""Members of unions by the tag under which pydantic reports them."""
