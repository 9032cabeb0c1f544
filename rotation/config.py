"""The configuration of one stack: read, checked as a whole, and turned into policies.

The file holds no secret values, only references to them; a message here never repeats what stands
where a reference belongs.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args

import yaml
from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from rotation import form as forms
from rotation import names, native, timing
from rotation.declared import Config, ConfigError, Fault, Handling, entry_name
from rotation.journal import stores_room
from rotation.model import Consumer, Drain, Ending, Policy, Schedule
from rotation.notify import templates
from rotation.policy import show_duration, written
from rotation.schedule import LONGEST
from rotation.sections import (
    ADMIN_FORM,
    AUDIT_FORM,
    FIELDS,
    LONGEST_FORM,
    LONGEST_NAME,
    SIBLING,
    TAGGED,
    AppRoleAuth,
    AuditPlace,
    AwsAuth,
    CallsWebhook,
    Channel,
    DefaultsSection,
    DescribedConfig,
    EntryReference,
    EnvReference,
    FileReference,
    GeneratedConfig,
    HttpConfig,
    IamConfig,
    IntakeSection,
    IssuerConfig,
    JwtAuth,
    KeyPairConfig,
    KeyVaultConfig,
    KubernetesAuth,
    NoticeSection,
    OpenAIConfig,
    Owner,
    PassphraseConfig,
    PostgreSQLConfig,
    ScheduleSection,
    SecretSection,
    SecretsManagerConfig,
    Section,
    StoreConfig,
    TaggedAuditPlace,
    TaggedChannel,
    TokenAuth,
    ValueReference,
    VaultConfig,
)
from rotation.situation import ATTEMPT_LIFE
from rotation.stackfile import StackFile

__all__ = [
    "AppRoleAuth",
    "AwsAuth",
    "Config",
    "ConfigError",
    "EntryReference",
    "EnvReference",
    "Fault",
    "FileReference",
    "GeneratedConfig",
    "Handling",
    "IamConfig",
    "IssuerConfig",
    "JwtAuth",
    "KeyPairConfig",
    "KeyVaultConfig",
    "KubernetesAuth",
    "OpenAIConfig",
    "Owner",
    "PassphraseConfig",
    "PostgreSQLConfig",
    "SecretsManagerConfig",
    "StoreConfig",
    "TokenAuth",
    "VaultConfig",
    "entry_name",
    "find_stack_file",
    "load",
    "parse",
    "schema",
]

NAMESPACE: Final = "keyturn:"

TAGS_OF_POLICY: Final = 26
"""Of the 50 that Secrets Manager keeps on an entry; the others are left to the journal."""
PACKED_POLICY: Final = 3584
"""Characters: 14 tags of 256, which is what Key Vault keeps on a version beside the journal's order."""


# --- what is wrong -------------------------------------------------------------------------------


def nearest(wrong: str, known: Iterable[str]) -> str:
    """What was probably meant, as the end of a message; empty where nothing is like it."""
    near = difflib.get_close_matches(wrong, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _listed(known: Iterable[str]) -> str:
    first = [*known]
    more = f" and {len(first) - 20} more" if len(first) > 20 else ""
    return ", ".join(first[:20]) + more or "nothing, as there is none"


# --- the result ----------------------------------------------------------------------------------


def _policy(
    secret: SecretSection, installation: str, environment: str, defaults: ScheduleSection | None = None
) -> Policy:
    drain = secret.drain
    bound, schedule = timing.timing(secret, defaults) or (LONGEST, Schedule())
    return Policy(
        installation=installation,
        environment=environment,
        name=secret.name,
        store=secret.store,
        issuer=secret.issuer,
        owner=secret.owner,
        rotate_every=bound,
        grace=secret.grace,
        replicas=secret.replicas,
        drain=Drain(drain.quiet_for, drain.at_most, Ending(drain.then)),
        contain_after=secret.contain_after,
        consumers=tuple(Consumer(consumer.name, consumer.refresh_within) for consumer in secret.consumers),
        paired_with=secret.paired_with,
        smoke_test=secret.smoke_test,
        allowed_cidrs=secret.allowed_cidrs,
        allowed_vpces=secret.allowed_vpces,
        form=secret.form,
        tags=secret.tags,
        schedule=schedule,
    )


def _is_native(policy: Policy, stores: Mapping[str, StoreConfig | None]) -> bool:
    store = stores.get(policy.store)
    return isinstance(store, SecretsManagerConfig) and store.rotation == "native"


def _handling(secret: SecretSection) -> Handling:
    return Handling(secret.adopt, secret.adopt_key_id, secret.force_revoke)


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
    issuers: Mapping[str, IssuerConfig | None]
    owners: Collection[str]
    secrets: Mapping[str, _Read]
    """The first of each name."""
    defaults: ScheduleSection | None = None
    root: Path = field(default_factory=Path)
    """Where relative paths start."""


_Found = Iterator[tuple[str, str, str]]
"""Path within the secret, message, what is allowed."""


def _store_known(secret: SecretSection, declared: _Declared) -> _Found:
    if secret.store not in declared.stores:
        near = nearest(secret.store, declared.stores)
        yield "store", f"there is no such store{near}", _listed(declared.stores)


def _replicas_known(secret: SecretSection, declared: _Declared) -> _Found:
    for i, replica in enumerate(secret.replicas):
        if replica not in declared.stores:
            near = nearest(replica, declared.stores)
            yield f"replicas[{i}]", f"there is no such store{near}", _listed(declared.stores)
        elif replica in secret.replicas[:i]:
            yield f"replicas[{i}]", f"{replica} is named twice", "each store once"


def _replicas_elsewhere(secret: SecretSection, declared: _Declared) -> _Found:
    others = _listed(store for store in declared.stores if store != secret.store)
    for i, replica in enumerate(secret.replicas):
        if replica == secret.store:
            yield f"replicas[{i}]", f"{replica} is the primary store already", others


def _stores_fit(secret: SecretSection, declared: _Declared) -> _Found:
    # The journal keeps the stores of an attempt beside its ids and times in one tag.
    size = len("+".join((secret.store, *secret.replicas)))
    if size <= stores_room(("-" * 63,)):  # beside any slot's name: a role of PostgreSQL has 63 at most
        return
    from providers.registry import capabilities  # noqa: PLC0415 - descriptions are read where they matter

    about = declared.issuers.get(secret.issuer)
    able = capabilities(about, declared.root) if about else None
    room = stores_room(able.slots if able else ())
    if size > room:
        yield "replicas", f"the names of its stores take {size} characters", f"at most {room}"


def _issuer_known(secret: SecretSection, declared: _Declared) -> _Found:
    if secret.issuer not in declared.issuers:
        near = nearest(secret.issuer, declared.issuers)
        yield "issuer", f"there is no such issuer{near}", _listed(declared.issuers)


def _roles_alone(secret: SecretSection, declared: _Declared) -> _Found:
    # Each mint gives a role another password, or a slot another key: two secrets would take theirs from each other. A
    # user of IAM has room for the two keys of one secret, and its keys have no names that tell whose they are.
    about = declared.issuers.get(secret.issuer)
    if not isinstance(about, PostgreSQLConfig | IamConfig | DescribedConfig | HttpConfig):
        return
    its_own = (found.section.name for found in declared.secrets.values() if found.section.issuer == secret.issuer)
    first, second = next(its_own), next(its_own, None)
    if secret.name == first:
        return
    what = "roles" if isinstance(about, PostgreSQLConfig) else "keys" if isinstance(about, IamConfig) else None
    if what is None and secret.name == second:  # a description is read once, however many secrets share it
        from providers.registry import capabilities  # noqa: PLC0415 - descriptions are read where they matter

        able = capabilities(about, declared.root)
        what = "slots" if able and able.slots else None
    if what:
        yield "issuer", f"the {what} of {secret.issuer} are those of {first} already", "an issuer for each secret"


def _owner_known(secret: SecretSection, declared: _Declared) -> _Found:
    if secret.owner not in declared.owners:
        near = nearest(secret.owner, declared.owners)
        yield "owner", f"there is no such owner{near}", _listed(declared.owners)


def _name_once(secret: SecretSection, declared: _Declared) -> _Found:
    first = declared.secrets[secret.name]
    if first.section is not secret:
        yield "name", f"{secret.name} is the name of {first.path} already", "each name once"


def _name_fits(secret: SecretSection, declared: _Declared) -> _Found:
    for name in dict.fromkeys((secret.store, *secret.replicas)):
        store = declared.stores.get(name)
        if store and (limit := LONGEST_NAME.get(type(store))):
            size = len(entry_name(store, declared.environment, secret.name) + SIBLING)
            if size > limit:
                yield "name", f"takes {size} characters in {name}, prefix and '{SIBLING}' included", f"at most {limit}"


def _pair_known(secret: SecretSection, declared: _Declared) -> _Found:
    if secret.paired_with is None:
        return
    others = [name for name in declared.secrets if name != secret.name]
    pair = declared.secrets.get(secret.paired_with)
    if secret.paired_with == secret.name:
        yield "pairedWith", "is the secret itself", _listed(others)
    elif pair is None:
        near = nearest(secret.paired_with, others)
        yield "pairedWith", f"there is no such secret{near}", _listed(others)
    elif "pairedWith" not in pair.faulty and pair.section.paired_with != secret.name:
        yield "pairedWith", f"{secret.paired_with} is not paired with {secret.name}", "pairs that name each other"


def _schedule(secret: SecretSection, declared: _Declared) -> _Found:
    yield from timing.faults(secret, declared.defaults)


def _grace_fits(secret: SecretSection, declared: _Declared) -> _Found:
    known = timing.timing(secret, declared.defaults)
    if known and secret.grace > known[0]:
        most = show_duration(known[0])
        than = "rotateEvery" if secret.rotate_every == known[0] else "the age that its schedule allows"
        yield "grace", f"{_shown(secret, 'grace')} is longer than {than} ({most})", f"at most {most}"


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


def _format_fits(secret: SecretSection, declared: _Declared) -> _Found:
    issuer = declared.issuers.get(secret.issuer)
    if "form" in secret.model_fields_set and issuer and type(issuer) not in FIELDS:
        from providers.registry import capabilities  # noqa: PLC0415 - descriptions are read where they matter

        told = capabilities(issuer, declared.root)
        known = told.fields if told else ()
    else:
        known = FIELDS.get(type(issuer), ()) if issuer else ()
    if "form" not in secret.model_fields_set or not known:
        return
    named = forms.fields(secret.form)
    allowed = f"each of {', '.join(known)}, once"
    if strange := [name for name in named if name not in known]:
        yield "format", f"{secret.issuer} has no field {strange[0]}{nearest(strange[0], known)}", allowed
    elif left := [name for name in known if name not in named]:
        yield "format", f"leaves out the field {left[0]} of {secret.issuer}", allowed


def _metadata_fits(secret: SecretSection, declared: _Declared) -> _Found:
    texts = written(_policy(secret, "i" * 32, declared.environment, declared.defaults))
    own = " ".join(name for name, _ in secret.tags)
    # A long text is split over tags, sometimes before it must be.
    tags = sum(1 if len(text) <= 256 else 3 for text in (*texts.values(), own) if text)
    for name in dict.fromkeys((secret.store, *secret.replicas)):
        store = declared.stores.get(name)
        if isinstance(store, SecretsManagerConfig) and tags > TAGS_OF_POLICY:
            told = f"with the rest of the policy take {tags} tags in {name}"
            yield "tags", told, f"at most {TAGS_OF_POLICY}, to leave room for the journal"
        size = len(json.dumps(texts, separators=(",", ":")))
        if isinstance(store, KeyVaultConfig) and size > PACKED_POLICY:
            yield "tags", f"with the rest of the policy take {size} characters in {name}", f"at most {PACKED_POLICY}"


def _networks_enforced(secret: SecretSection, declared: _Declared) -> _Found:
    """Refused where a store could not keep what it promises: a wall with a hole is none."""
    given = {"allowedCidrs": secret.allowed_cidrs, "allowedVpces": secret.allowed_vpces}
    stores = {name: declared.stores.get(name) for name in dict.fromkeys((secret.store, *secret.replicas))}
    for field_name, networks in given.items():
        if not networks:
            continue
        for name, store in stores.items():
            if isinstance(store, KeyVaultConfig):
                told = f"can not be kept by {name}: a Key Vault's firewall is the whole vault's, no secret has one of its own"
                yield field_name, told, "nothing; set the vault's own network rules"
            elif isinstance(store, VaultConfig) and field_name == "allowedVpces":
                told = f"can not be kept by {name}: Vault knows addresses, not endpoints of AWS"
                yield (
                    field_name,
                    told,
                    "allowedCidrs, which bind the tokens that `keyturn policy vault --for read` prints",
                )
            elif isinstance(store, SecretsManagerConfig) and not (store.role_arn or store.exempt_roles):
                told = f"needs to know who rotates in {name}: that role is exempt, or rotation would lock itself out"
                yield field_name, told, f"together with roleArn or exemptRoles in stores.{name}"
    if secret.allowed_cidrs and not secret.allowed_vpces and not any(map(_is_public, secret.allowed_cidrs)):
        for name, store in stores.items():
            if isinstance(store, SecretsManagerConfig):
                told = f"has private addresses only, and {name} sees public ones: nobody could read it"
                yield "allowedCidrs", told, "public networks, or allowedVpces"


def _is_public(text: str) -> bool:
    network = ip_network(text)
    if isinstance(network, IPv6Network):
        return not network.subnet_of(_PRIVATE_6)
    return not any(network.subnet_of(private) for private in _PRIVATE_4)


_PRIVATE_4: Final = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
_PRIVATE_6: Final = IPv6Network("fc00::/7")
"""What no public address is in (RFC 1918, 6598, 4193)."""


def _networks_fit(secret: SecretSection, _: _Declared) -> _Found:
    for field_name, networks in (("allowedCidrs", secret.allowed_cidrs), ("allowedVpces", secret.allowed_vpces)):
        if (length := len(" ".join(networks))) > LONGEST_FORM:
            yield field_name, f"take {length} characters in the store's metadata", f"at most {LONGEST_FORM}"


def _on_rotate_known(secret: SecretSection, declared: _Declared) -> _Found:
    for i, consumer in enumerate(secret.consumers):
        if not isinstance(consumer.on_rotate, CallsWebhook):
            continue
        for field_name in ("secret", "url_from"):
            reference = getattr(consumer.on_rotate.webhook, field_name, None)
            if isinstance(reference, EntryReference) and reference.store not in declared.stores:
                path = f"consumers[{i}].onRotate.webhook.{'urlFrom' if field_name == 'url_from' else field_name}.store"
                yield (
                    path,
                    f"there is no such store{nearest(reference.store, declared.stores)}",
                    _listed(declared.stores),
                )


def _key_id_of_adopted(secret: SecretSection, _: _Declared) -> _Found:
    if secret.adopt_key_id is not None and not secret.adopt:
        yield "adoptKeyId", "has no effect without adopt", "together with adopt: true"


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


def _native_fits(secret: SecretSection, declared: _Declared) -> _Found:
    policy = _policy(secret, "", declared.environment, declared.defaults)
    if not _is_native(policy, declared.stores):
        return
    from providers.registry import capabilities  # noqa: PLC0415 - descriptions are read where they matter

    issuer = declared.issuers.get(secret.issuer)
    yield from native.faults(policy, capabilities(issuer, declared.root) if issuer else None)


_RULES: Final[tuple[tuple[frozenset[str], Callable[[SecretSection, _Declared], _Found]], ...]] = (
    (frozenset({"name"}), _name_once),
    (frozenset({"name", "store", "replicas"}), _name_fits),
    (frozenset({"store"}), _store_known),
    (frozenset({"replicas"}), _replicas_known),
    (frozenset({"store", "replicas"}), _replicas_elsewhere),
    (frozenset({"store", "replicas", "issuer"}), _stores_fit),
    (frozenset({"issuer"}), _issuer_known),
    (frozenset({"issuer", "name"}), _roles_alone),
    (frozenset({"owner"}), _owner_known),
    (frozenset({"consumers"}), _consumers_once),
    (frozenset({"consumers"}), _consumers_fit),
    (frozenset({"consumers", "store"}), _on_rotate_known),
    (frozenset({"consumers", "grace"}), _refresh_fits),
    (frozenset({"rotateEvery", "schedule", "grace", "drain", "pairedWith"}), _schedule),
    (frozenset({"grace", "rotateEvery", "schedule"}), _grace_fits),
    (frozenset({"grace", "store", "replicas"}), _grace_outlasts_attempts),
    (frozenset({"drain", "grace"}), _drain_outlasts_grace),
    (frozenset({"drain"}), _quiet_fits),
    (frozenset({"name", "pairedWith"}), _pair_known),
    (frozenset({"format", "issuer"}), _format_fits),
    (frozenset({"format", "tags", "name", "store", "replicas", "issuer", "owner", "consumers"}), _metadata_fits),
    (frozenset({"adopt", "adoptKeyId"}), _key_id_of_adopted),
    (frozenset({"store", "issuer", "rotateEvery", "schedule", "pairedWith"}), _native_fits),
    (frozenset({"allowedCidrs", "allowedVpces", "store", "replicas"}), _networks_enforced),
    (frozenset({"allowedCidrs", "allowedVpces"}), _networks_fit),
)
"""Each rule, and the fields that must have been readable for it to mean anything."""


# --- from values to a Config ---------------------------------------------------------------------

_T = TypeVar("_T")

_STORE: Final[TypeAdapter[StoreConfig]] = TypeAdapter(Annotated[StoreConfig, Field(discriminator="kind")])
_ISSUER: Final[TypeAdapter[IssuerConfig]] = TypeAdapter(Annotated[IssuerConfig, Field(discriminator="kind")])
_CHANNEL: Final[TypeAdapter[Channel]] = TypeAdapter(TaggedChannel)
_OWNER: Final = TypeAdapter(Owner)
_NOTICE: Final = TypeAdapter(NoticeSection)
_DEFAULTS: Final = TypeAdapter(DefaultsSection)
_VALUE: Final[TypeAdapter[EnvReference | EntryReference | FileReference]] = TypeAdapter(ValueReference)
_INTAKE: Final = TypeAdapter(IntakeSection)
_SECRET: Final = TypeAdapter(SecretSection)
_AUDIT: Final[TypeAdapter[AuditPlace]] = TypeAdapter(TaggedAuditPlace)

_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "has the wrong form",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "greater_than_equal": "is out of range",
    "less_than_equal": "is out of range",
    "too_long": "must be empty",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "literal_error": "is not known",
    "union_tag_invalid": "is not known",
    "union_tag_not_found": "is missing",
}

_PARTS: Final = (
    "installation",
    "environment",
    "stores",
    "issuers",
    "channels",
    "notices",
    "owners",
    "defaults",
    "audit",
    "fingerprints",
    "webhook",
    "secrets",
)
_POINTERS: Final = {"stores": {"store", "replicas"}, "issuers": {"issuer"}, "owners": {"owner"}}
"""Structured parts, and the fields of a secret that name a member of one."""

_PLACEHOLDERS: Final = {
    "name": "a-placeholder",
    "store": "placeholder",
    "issuer": "placeholder",
    "owner": "placeholder",
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
            shape = TAGGED[step]
        else:
            path += f".{step}"
            known = {field.alias: field for field in _sections(shape)[0].model_fields.values()}
            if error["type"] == "extra_forbidden" and step not in known:
                return Fault(path, f"unknown key{nearest(step, map(str, known))}", _listed(map(str, known)))
            shape, allowed = known[step].annotation, known[step].description or ""
    context = error.get("ctx", {})
    if error["type"] == "refused":
        return Fault(path, context.get("message", error["msg"]), context["allowed"] or "")
    if "discriminator" in context:
        path += "." + context["discriminator"].strip("'")
        tags = [tag for tag, section in TAGGED.items() if section in _sections(shape)]
        return Fault(path, _MESSAGES[error["type"]] + nearest(context.get("tag", ""), tags), _listed(tags))
    return Fault(path, _MESSAGES.get(error["type"], error["msg"]), allowed)


class _Builder:
    """Reads every part, whatever is wrong with the others, and gathers the faults."""

    def __init__(self, values: Mapping[str, object], root: Path) -> None:
        self.faults: list[Fault] = []
        self._values = values
        self._root = root
        self._blind: set[str] = set()
        """Fields of secrets of which nothing can be said, as what they point to could not be read."""

    def build(self) -> Config | None:
        """The configuration, or None when there are faults."""
        for key in self._values:
            if key not in _PARTS:
                self._add(key, f"unknown key{nearest(key, _PARTS)}", _listed(_PARTS))
        installation, environment = self._label("installation"), self._label("environment")
        stores = self._mapping("stores", _STORE, StoreConfig)
        issuers = self._mapping("issuers", _ISSUER, IssuerConfig)
        channels = self._mapping("channels", _CHANNEL, Channel)
        notices = self._notices()
        owners = self._mapping("owners", _OWNER, Owner)
        defaults = self._defaults()
        audit = tuple(self._audit())
        fingerprints = self._fingerprints(stores)
        webhook = self._webhook(stores, owners)
        secrets = tuple(self._secrets())
        self._check_admins(issuers, stores)
        self._check_channels(channels, owners, stores)
        self._check_places(stores)
        by_name: dict[str, _Read] = {}
        for read in secrets:
            if "name" not in read.faulty:
                by_name.setdefault(read.section.name, read)
        declared = _Declared(environment, stores, issuers, owners, by_name, defaults, self._root)
        if any("name" in read.faulty for read in secrets):
            self._blind.add("pairedWith")
        for read in secrets:
            for fields, rule in _RULES:
                if not fields & (read.faulty | self._blind):
                    for path, message, allowed in rule(read.section, declared):
                        self._add(f"{read.path}.{path}", message, allowed)
        if self.faults:
            return None
        policies = (_policy(read.section, installation, environment, defaults) for read in secrets)
        return Config(
            installation=installation,
            environment=environment,
            stores={name: store for name, store in stores.items() if store},
            issuers={name: issuer for name, issuer in issuers.items() if issuer},
            owners={name: owner for name, owner in owners.items() if owner},
            policies=tuple(replace(policy, native=_is_native(policy, stores)) for policy in policies),
            handling={read.section.name: _handling(read.section) for read in secrets},
            channels={name: channel for name, channel in channels.items() if channel},
            notices=notices,
            audit=audit,
            fingerprints=fingerprints,
            webhook=webhook,
            on_rotate={
                read.section.name: {c.name: c.on_rotate for c in read.section.consumers if c.on_rotate}
                for read in secrets
                if any(c.on_rotate for c in read.section.consumers)
            },
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
        elif fault := (names.environment_fault if part == "environment" else names.label_fault)(text):
            self._add(part, fault)
        return text if isinstance(text, str) else ""

    def _mapping(self, part: str, adapter: TypeAdapter[_T], shape: Any) -> dict[str, _T | None]:
        found: dict[str, _T | None] = {}
        given = self._values.get(part)
        if given is not None and not isinstance(given, Mapping):
            self._add(part, "must be a mapping", "{NAME: {…}}")
            self._blind |= _POINTERS.get(part, set())
            return found
        for name, value in (given or {}).items():
            path = f"{part}.{name}"
            if fault := names.label_fault(name):
                self._add(path, fault)
            try:
                found[name] = adapter.validate_python(value)
            except ValidationError as error:
                found[name] = None
                self._translate(path, shape, error)
        return found

    def _notices(self) -> dict[str, NoticeSection]:
        """Own words for notices, by kind. What is put in must be there."""
        given = self._values.get("notices")
        if given is not None and not isinstance(given, Mapping):
            self._add("notices", "must be a mapping", "{KIND: {subject: TEXT, text: TEXT}}")
            return {}
        found: dict[str, NoticeSection] = {}
        for kind, value in (given or {}).items():
            path = f"notices.{kind}"
            if kind not in templates.KINDS:
                self._add(path, f"there is no such kind{nearest(str(kind), templates.KINDS)}", _listed(templates.KINDS))
                continue
            try:
                found[kind] = _NOTICE.validate_python(value)
            except ValidationError as error:
                self._translate(path, NoticeSection, error)
                continue
            for part in ("subject", "text"):
                for message, allowed in templates.faults(kind, part, getattr(found[kind], part) or ""):
                    self._add(f"{path}.{part}", message, allowed)
        return found

    def _check_channels(
        self,
        channels: Mapping[str, Channel | None],
        owners: Mapping[str, Owner | None],
        stores: Collection[str],
    ) -> None:
        blind = self._values.get("channels") is not None and not isinstance(self._values.get("channels"), Mapping)
        for name, owner in owners.items():
            for i, route in enumerate(owner.notify if owner else ()):
                if route.channel not in channels and not blind:
                    near = nearest(route.channel, channels)
                    self._add(
                        f"owners.{name}.notify[{i}].channel", f"there is no such channel{near}", _listed(channels)
                    )
        for name, channel in channels.items():
            self._check_entry(f"channels.{name}.apprise", getattr(channel, "apprise", None), stores)

    def _check_entry(self, path: str, reference: object, stores: Collection[str]) -> None:
        """Whether a value that stands in a store can be looked for there."""
        if isinstance(reference, EntryReference) and reference.store not in stores and "store" not in self._blind:
            near = nearest(reference.store, stores)
            self._add(f"{path}.store", f"there is no such store{near}", _listed(stores))

    def _defaults(self) -> ScheduleSection | None:
        try:
            given = self._values.get("defaults")
            return _DEFAULTS.validate_python({} if given is None else given).schedule
        except ValidationError as error:
            self._translate("defaults", DefaultsSection, error)
            self._blind.add("schedule")
            return None

    def _audit(self) -> Iterator[AuditPlace]:
        given = self._values.get("audit")
        if given is not None and not isinstance(given, list):
            self._add("audit", "must be a list", f"[{AUDIT_FORM}, …]")
            return
        for i, value in enumerate(given or []):
            try:
                yield _AUDIT.validate_python(value)
            except ValidationError as error:
                self._translate(f"audit[{i}]", AuditPlace, error)

    def _fingerprints(self, stores: Collection[str]) -> EnvReference | EntryReference | FileReference | None:
        given = self._values.get("fingerprints")
        if given is None:
            return None
        try:
            found = _VALUE.validate_python(given)
        except ValidationError as error:
            self._translate("fingerprints", ValueReference, error)
            return None
        self._check_entry("fingerprints", found, stores)
        return found

    def _webhook(self, stores: Collection[str], owners: Collection[str]) -> IntakeSection | None:
        given = self._values.get("webhook")
        if given is None:
            return None
        try:
            found = _INTAKE.validate_python(given)
        except ValidationError as error:
            self._translate("webhook", IntakeSection, error)
            return None
        self._check_entry("webhook.secret", found.secret, stores)
        self._check_entry("webhook.token", found.token, stores)
        if found.owner is not None and found.owner not in owners and "owner" not in self._blind:
            self._add("webhook.owner", f"there is no such owner{nearest(found.owner, owners)}", _listed(owners))
        return found

    def _secrets(self) -> Iterator[_Read]:
        given = self._values.get("secrets")
        if given is not None and not isinstance(given, list):
            self._add("secrets", "must be a list", "[{name: NAME, …}]")
            return
        for i, value in enumerate(given or []):
            path = f"secrets[{i}]"
            try:
                yield _Read(path, _SECRET.validate_python(value), frozenset())
            except ValidationError as error:
                self._translate(path, SecretSection, error)
                sound = value if isinstance(value, Mapping) else {}
                faulty = {str(place[0]) for place in (detail["loc"] for detail in error.errors()) if place}
                faulty |= set() if isinstance(value, Mapping) else set(_PLACEHOLDERS)
                sound = {key: sound[key] for key in sound if key not in faulty}
                yield _Read(path, _SECRET.validate_python(_PLACEHOLDERS | sound), frozenset(faulty))

    def _check_admins(self, issuers: Mapping[str, IssuerConfig | None], stores: Collection[str]) -> None:
        for name, issuer in issuers.items():
            self._check_entry(f"issuers.{name}.admin", getattr(issuer, "admin", None), stores)
            if isinstance(issuer, DescribedConfig | HttpConfig):
                from providers.registry import described_faults  # noqa: PLC0415 - descriptions are read where they matter

                for fault in described_faults(issuer, self._root):
                    self._add(f"issuers.{name}{fault.path}", fault.message, fault.allowed)

    def _check_places(self, stores: Mapping[str, StoreConfig | None]) -> None:
        """One place under two names would be its own replica: taking that out would hand the entry itself back."""
        seen: dict[tuple[object, ...], str] = {}
        for name, store in stores.items():
            if store is not None and (first := seen.setdefault(_place(store), name)) != name:
                self._add(f"stores.{name}", f"is the same place as stores.{first}", "one name for each place")

    def _translate(self, path: str, shape: Any, error: ValidationError) -> None:
        self.faults.extend(_fault(NAMESPACE + path, shape, detail) for detail in error.errors())


def _place(store: StoreConfig) -> tuple[object, ...]:
    """What tells the entries of one store from those of another."""
    fields = {"region", "endpoint_url", "profile", "role_arn", "prefix", "vault_url", "address", "namespace", "mount"}
    return (store.kind, *(getattr(store, name, None) for name in sorted(fields)))


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


def _decoded(key: str, value: object) -> object:
    """Structured parts reach a program as JSON; an absent one may be an empty text."""
    if key in ("installation", "environment") or not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value else None
    except ValueError:
        return value  # text where a structure belongs, which is said later


def _built(values: Mapping[str, object], root: Path, encrypted: Collection[str]) -> tuple[Config | None, list[Fault]]:
    values = {key: _decoded(key, value) for key, value in values.items()}
    builder = _Builder(values, root)
    config = builder.build()
    refused = [*encrypted]
    for key, value in values.items():
        refused.extend(_encrypted(value, NAMESPACE + key))
    faults = [fault for fault in builder.faults if not any(_within(fault.path, path) for path in refused)]
    told = "is an encrypted value; a configuration holds no secrets, not even so"
    faults += [Fault(path, told, f"references to them, {ADMIN_FORM}") for path in refused]
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
    try:
        file = StackFile(path.read_text(encoding="utf-8"), NAMESPACE)
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
    config, faults = _built(_own(file.values), path.parent, ())
    faults = sorted([*(Fault(*fault) for fault in file.faults), *faults], key=lambda fault: file.line(fault.path))
    if config is None or faults:
        lines = ((fault, file.line(fault.path)) for fault in faults)
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
        raise ConfigError([Fault("--stack", f"there is no stack {short}{nearest(short, stacks)}", exist)])
    return root / f"Pulumi.{short}.yaml"


# --- for editors ---------------------------------------------------------------------------------


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a `Pulumi.<stack>.yaml`, from the same models that check it.

    What needs more than one field (references, durations that must fit each other) only load() can say.
    """
    adapters: list[tuple[str, Literal["validation"], TypeAdapter[Any]]] = [
        ("stores", "validation", _STORE),
        ("issuers", "validation", _ISSUER),
        ("channels", "validation", _CHANNEL),
        ("notices", "validation", _NOTICE),
        ("owners", "validation", _OWNER),
        ("defaults", "validation", _DEFAULTS),
        ("audit", "validation", _AUDIT),
        ("fingerprints", "validation", _VALUE),
        ("webhook", "validation", _INTAKE),
        ("secrets", "validation", _SECRET),
    ]
    parts, shared = TypeAdapter.json_schemas(adapters)
    label = {"type": "string", "pattern": "^[a-z][a-z0-9]*(-[a-z0-9]+)*$", "maxLength": 32}
    properties: dict[str, Any] = {NAMESPACE + part: label for part in ("installation", "environment")}
    for part in ("stores", "issuers", "channels", "owners"):
        properties[NAMESPACE + part] = {"type": "object", "additionalProperties": parts[part, "validation"]}
    words = {"type": "object", "additionalProperties": parts["notices", "validation"]}
    properties[NAMESPACE + "notices"] = words | {"propertyNames": {"enum": [*templates.KINDS]}}
    properties[NAMESPACE + "fingerprints"] = parts["fingerprints", "validation"]
    properties[NAMESPACE + "webhook"] = parts["webhook", "validation"]
    properties[NAMESPACE + "defaults"] = parts["defaults", "validation"]
    properties[NAMESPACE + "audit"] = {"type": "array", "items": parts["audit", "validation"]}
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
