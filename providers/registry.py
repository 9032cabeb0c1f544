"""Opens the stores and issuers that a configuration declares. Each kind loads its own SDK, at first use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from rotation import extras
from rotation.declared import Config, ConfigError, Fault, entry_name
from rotation.errors import Code, Trouble
from rotation.model import Capabilities, SecretValue
from rotation.ports import Clock, Issuer, SecretStore

if TYPE_CHECKING:
    from providers.issuers.description import Description
    from providers.stores.vault import Login
    from rotation.sections import (
        DescribedConfig,
        EntryReference,
        EnvReference,
        FileReference,
        GeneratedConfig,
        HttpConfig,
        IamConfig,
        IssuerConfig,
        KeyPairConfig,
        KeyVaultConfig,
        OpenAIConfig,
        PassphraseConfig,
        PostgreSQLConfig,
        SecretsManagerConfig,
        VaultConfig,
    )

T = TypeVar("T")

__all__ = ["entry_name", "open_issuer", "open_store"]


_HERE: Final = Path()
_UNSET: Final = "is not set, or is empty"


@dataclass(frozen=True, slots=True)
class _Site:
    """What a kind is opened with, beside its own part of the configuration."""

    name: str
    path: str
    """The part, as in `keyturn:stores.vault`."""
    config: Config
    env: Mapping[str, str]
    clock: Clock
    stores: Mapping[str, SecretStore]
    admin: SecretValue | None = None
    """An issuer's admin credential, where it was given by hand."""

    def fault(self, below: str, message: str, allowed: str = "") -> ConfigError:
        return ConfigError([Fault(f"{self.path}{below}", message, allowed)])

    def variable(self, below: str, reference: EnvReference) -> str:
        """The value of an environment variable. Raises ConfigError with its name and the field that names it."""
        value = self.env.get(reference.env, "")
        if not value:
            raise self.fault(f"{below}.env", f"the environment variable {reference.env} {_UNSET}")
        return value


def open_store(name: str, config: Config, env: Mapping[str, str], clock: Clock) -> SecretStore:
    """A client of a declared store. Connects when it is first asked something.

    Parameters:
        name: as under `keyturn:stores`.
        config: the stack's configuration.
        env: where the store's own login is looked up, as in os.environ.
        clock: for the client.

    Raises:
        ConfigError: there is no such store, or its login is incomplete.
    """
    return _open(_STORES, config.stores, _Site(name, f"keyturn:stores.{name}", config, env, clock, {}))


def vault_login(name: str, config: Config, env: Mapping[str, str], clock: Clock) -> Login:
    """How a declared store of Vault is logged in to, for a client of one's own.

    Raises:
        ConfigError: the login is incomplete.
    """
    site = _Site(name, f"keyturn:stores.{name}", config, env, clock, {})
    return _vault_login(site, cast("VaultConfig", config.stores[name]))


def open_issuer(
    name: str,
    config: Config,
    env: Mapping[str, str],
    clock: Clock,
    stores: Mapping[str, SecretStore],
    admin: SecretValue | None = None,
) -> Issuer:
    """A client of a declared issuer. Connects when it is first asked something.

    Parameters:
        name: as under `keyturn:issuers`.
        config: the stack's configuration.
        env: where an admin credential by environment variable is looked up.
        clock: for the client.
        stores: where an admin credential that is an entry is read, afresh each time it is needed.
        admin: the admin credential itself, in place of where the configuration says it is.

    An admin credential that is not there is missed when it is needed, as Trouble: what an issuer can do is known
    without. Who is about to act asks require_admin() first.

    Raises:
        ConfigError: there is no such issuer.
    """
    return _open(_ISSUERS, config.issuers, _Site(name, f"keyturn:issuers.{name}", config, env, clock, stores, admin))


def require_admin(name: str, config: Config, env: Mapping[str, str]) -> None:
    """Makes sure that an issuer's admin credential is there, as far as that can be seen without asking anybody.

    Raises:
        ConfigError: the environment variable that it comes from is not set.
    """
    reference = getattr(config.issuers[name], "admin", None)
    path = f"keyturn:issuers.{name}"
    if reference is not None and (variable := _variable(reference)) is not None and not env.get(variable.env):
        raise ConfigError([Fault(f"{path}.admin.env", f"the environment variable {variable.env} {_UNSET}")])


def admin_value(
    name: str,
    config: Config,
    env: Mapping[str, str],
    clock: Clock,
    stores: Mapping[str, SecretStore],
    admin: SecretValue | None = None,
) -> SecretValue | None:
    """An issuer's admin credential itself, to tell it where it leaks; None for an issuer that has none.

    Raises:
        Trouble: it is not where the configuration says it is, or can not be read there.
    """
    reference = getattr(config.issuers[name], "admin", None)
    if reference is None:
        return None
    return _admin(_Site(name, f"keyturn:issuers.{name}", config, env, clock, stores, admin), reference)()


def fingerprint_key(
    config: Config, env: Mapping[str, str], clock: Clock, stores: Mapping[str, SecretStore]
) -> Callable[[], SecretValue] | None:
    """Reads the key of fingerprints from where the configuration says it is; None where it says nothing.

    What is returned raises Trouble or ConfigError when it is not there, or can not be read.
    """
    if config.fingerprints is None:
        return None
    return value_at("fingerprints", "their key", config.fingerprints, config, env, clock, stores)


def value_at(
    part: str,
    what: str,
    reference: EnvReference | FileReference | EntryReference,
    config: Config,
    env: Mapping[str, str],
    clock: Clock,
    stores: Mapping[str, SecretStore],
) -> Callable[[], SecretValue]:
    """Reads a value from where a part of the configuration says it is, afresh at each call.

    Parameters:
        part: of the configuration, as in `webhook.secret`; its first word starts messages.
        what: it is, in words.

    What is returned raises Trouble or ConfigError when it is not there, or can not be read.
    """
    site = _Site(part.partition(".")[0], f"keyturn:{part}", config, env, clock, stores)
    if (variable := _variable(reference)) is not None:
        return lambda: SecretValue(site.variable("", variable))
    if hasattr(reference, "file"):
        file = cast("FileReference", reference).file
        return lambda: _file_value(site, file)
    return lambda: _entry_value(site, cast("EntryReference", reference), what, "")


def _file_value(site: _Site, path: str) -> SecretValue:
    try:
        return SecretValue(Path(_existing(site, ".file", path)).read_text(encoding="utf-8").strip())
    except OSError as error:
        raise site.fault(".file", f"can not be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise site.fault(".file", "is not UTF-8 text") from None  # the error quotes it


def capabilities(about: IssuerConfig, root: Path = _HERE) -> Capabilities | None:
    """What an issuer can do, as far as its configuration tells without opening it; else None.

    Parameters:
        root: where relative paths start.
    """
    from providers.issuers import generated, iam, keypair, postgresql  # noqa: PLC0415

    if about.kind == "generated":
        return generated.GeneratedIssuer.capabilities
    if about.kind == "passphrase":
        return generated.PassphraseIssuer.capabilities
    if about.kind == "key-pair":
        return keypair.KeyPairIssuer.capabilities
    if about.kind == "aws-iam":
        return iam.capabilities(about.user, "")
    if about.kind == "postgresql":
        return postgresql.capabilities(about.users, f"{about.host}:{about.port}")
    from providers.issuers.http import capabilities_of  # noqa: PLC0415
    from providers.issuers.language import DescriptionFault  # noqa: PLC0415

    try:
        described = description_of(about, root)
    except (OSError, UnicodeDecodeError, DescriptionFault):
        return None  # which is said where the configuration is checked
    return capabilities_of(described) if described else None


def description_of(about: IssuerConfig, root: Path) -> Description | None:
    """The vendor that a configuration names; None where its kind is code.

    Parameters:
        root: where relative paths start.

    Raises:
        OSError, UnicodeDecodeError, DescriptionFault: a file of the user's own is not there, or not sound.
    """
    from providers.issuers.reading import read, shipped, shipped_kinds  # noqa: PLC0415 - pydantic and YAML

    if about.kind == "http":
        return read((root / about.description).read_text(encoding="utf-8"), about.description)
    return shipped(about.kind) if about.kind in shipped_kinds() else None


def descriptions(config: Config) -> dict[str, Description]:
    """The vendors that a configuration names, by the key under which it has them ready-made; see rotation.packed."""
    found = {_key(about): description_of(about, config.root) for about in config.issuers.values()}
    return {key: description for key, description in found.items() if description}


def described_faults(about: DescribedConfig | HttpConfig, root: Path) -> Iterator[Fault]:
    """What is wrong with the configuration of a described issuer; paths are within its part."""
    from providers.issuers.language import BASE_URL, DescriptionFault  # noqa: PLC0415

    try:
        description = description_of(about, root)
    except OSError as error:
        yield Fault(".description", f"can not be read: {error.strerror}")
        return
    except UnicodeDecodeError:
        yield Fault(".description", "is not UTF-8 text")
        return
    except DescriptionFault as error:
        yield from (Fault(".description", line) for line in str(error).splitlines())
        return
    assert description is not None, "both kinds are described"
    for fault in description.faults_in(_variables(about)):
        yield Fault(".baseUrl" if fault.path == BASE_URL else f".variables.{fault.path}".rstrip("."), fault.text)
    if description.auth is not None and about.admin is None:
        yield Fault(".admin", f"is needed: {description.title} are managed by requests that need it")
    told = description.last_use
    if about.watch_usage and not (description.usage or (told and (told.request is None or told.listed))):
        yield Fault(".watchUsage", f"has no use: {description.title} are not told the use of, all at once")
    if description.auth is None and about.admin is not None:
        yield Fault(".admin", f"has no use: {description.title} are managed by no request")


def _key(about: IssuerConfig) -> str:
    """By which a ready-made description is found."""
    return f"http:{about.description}" if about.kind == "http" else about.kind


def _variables(about: DescribedConfig | HttpConfig) -> dict[str, Any]:
    base = {} if about.base_url is None else {"baseUrl": about.base_url}
    return {**about.variables, **base}


def _secrets_manager(site: _Site, about: SecretsManagerConfig) -> SecretStore:
    from providers.stores.aws import AwsLogin, SecretsManagerStore  # noqa: PLC0415

    return SecretsManagerStore(
        site.name,
        region=about.region,
        endpoint_url=about.endpoint_url,
        login=AwsLogin(about.profile, about.role_arn, about.external_id),
        kms_key_id=about.kms_key_id,
        replica_regions=about.replica_regions,
        exempt_roles=about.exempt_roles,
        recovery_window_days=about.recovery_window.days,
        rotation_function=about.rotation_function,
        clock=site.clock,
    )


def _key_vault(site: _Site, about: KeyVaultConfig) -> SecretStore:
    from providers.stores.azure import AzureLogin, KeyVaultStore  # noqa: PLC0415

    return KeyVaultStore(
        site.name,
        vault_url=about.vault_url,
        login=AzureLogin(about.tenant_id, about.client_id, about.authority_host),
        ca_bundle=_file(site, ".caBundle", about.ca_bundle),
        verify_challenge_resource=about.verify_challenge_resource,
        clock=site.clock,
    )


def _vault(site: _Site, about: VaultConfig) -> SecretStore:
    from providers.stores.vault import VaultStore  # noqa: PLC0415

    return VaultStore(
        site.name,
        address=about.address,
        mount=about.mount,
        prefix=about.prefix,
        namespace=about.namespace,
        ca_bundle=_file(site, ".caBundle", about.ca_bundle),
        auth=_vault_login(site, about),
        clock=site.clock,
        environment=site.config.environment,
    )


def _vault_login(site: _Site, about: VaultConfig) -> Login:
    from providers.stores import vault  # noqa: PLC0415

    auth = about.auth
    if auth.method == "approle":
        role_id = site.variable(".auth.roleId", auth.role_id)
        return vault.AppRoleLogin(role_id, SecretValue(site.variable(".auth.secretId", auth.secret_id)), auth.mount)
    if auth.method == "kubernetes":
        return vault.KubernetesLogin(auth.role, Path(_existing(site, ".auth.tokenFile", auth.token_file)), auth.mount)
    if auth.method == "jwt":
        if (variable := _variable(auth.token)) is not None:
            return vault.JwtLogin(auth.role, SecretValue(site.variable(".auth.token", variable)), auth.mount)
        file = cast("FileReference", auth.token).file
        return vault.JwtLogin(auth.role, Path(_existing(site, ".auth.token.file", file)), auth.mount)
    if auth.method == "aws":
        if (lacking := extras.lacking(("botocore",))) is not None:
            raise site.fault(".auth", lacking)
        return vault.AwsLogin(auth.role, auth.mount, auth.header_value, auth.region)
    token = site.env.get("VAULT_TOKEN") or _token_of_vault_login(site.env.get("HOME"))
    if not token:
        raise site.fault(".auth", "VAULT_TOKEN is not set, and `vault login` has left no token in ~/.vault-token")
    return vault.TokenLogin(SecretValue(token))


def _token_of_vault_login(home: str | None) -> str:
    try:
        return Path(home, ".vault-token").read_text(encoding="utf-8").strip() if home else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _openai(site: _Site, about: OpenAIConfig) -> Issuer:
    variables = {
        "project": about.project,
        "serviceAccount": about.service_account,
        "smokeModel": about.smoke_model,
        "baseUrl": about.base_url,
        "expiresIn": None if about.expires_in is None else int(about.expires_in.total_seconds()),
    }
    return _described(site, about, variables)


def _by_description(site: _Site, about: DescribedConfig | HttpConfig) -> Issuer:
    return _described(site, about, _variables(about))


def _described(site: _Site, about: OpenAIConfig | DescribedConfig | HttpConfig, variables: Mapping[str, Any]) -> Issuer:
    """An issuer of which a description says everything."""
    from providers.issuers.http import HttpIssuer  # noqa: PLC0415
    from providers.issuers.language import DescriptionFault, admin_parts  # noqa: PLC0415

    given = {variable: value for variable, value in variables.items() if value is not None}
    description = _description(site, about)
    admin = _admin(site, about.admin, admin_parts(description)) if about.admin is not None else _no_admin
    try:
        return HttpIssuer(site.name, description, given, admin, site.clock)
    except DescriptionFault as error:
        paths = ((f"{site.path}.{fault.path}".rstrip("."), fault.text) for fault in error.faults)
        raise ConfigError(Fault(path, text) for path, text in paths) from None


def _no_admin() -> SecretValue:
    """Where nothing asks for one."""
    return SecretValue("")


def _description(site: _Site, about: OpenAIConfig | DescribedConfig | HttpConfig) -> Description:
    if (ready := site.config.descriptions.get(_key(about))) is not None:
        from providers.issuers.packed import description  # noqa: PLC0415

        return description(ready)
    # Pydantic and YAML; functions do without.
    found = description_of(about, site.config.root)
    assert found is not None, "these kinds are described"
    return found


def _iam(site: _Site, about: IamConfig) -> Issuer:
    from providers.issuers.iam import IamIssuer, Login  # noqa: PLC0415

    admin = None if about.admin is None else _admin(site, about.admin)
    login = Login(admin, about.profile, about.role_arn, about.external_id)
    return IamIssuer(site.name, about.user, login, about.region, about.endpoint_url)


def _postgresql(site: _Site, about: PostgreSQLConfig) -> Issuer:
    from providers.issuers.postgresql import PostgreSQLIssuer, Server  # noqa: PLC0415

    bundle = _file(site, ".caBundle", about.ca_bundle)
    server = Server(about.host, about.port, about.database, about.tls, bundle)
    return PostgreSQLIssuer(site.name, server, about.users, about.owner, about.admin_user, _admin(site, about.admin))


def _generated(site: _Site, about: GeneratedConfig) -> Issuer:
    from providers.issuers.generated import GeneratedIssuer  # noqa: PLC0415

    return GeneratedIssuer(site.name, about.length, about.alphabet, about.require)


def _passphrase(site: _Site, about: PassphraseConfig) -> Issuer:
    from providers.issuers.generated import PassphraseIssuer  # noqa: PLC0415

    return PassphraseIssuer(site.name, about.words, about.separator)


def _key_pair(site: _Site, about: KeyPairConfig) -> Issuer:
    from providers.issuers.keypair import KeyPairIssuer  # noqa: PLC0415

    return KeyPairIssuer(site.name, about.algorithm)


_STORES: Final[Mapping[str, Callable[[_Site, Any], SecretStore]]] = {
    "aws-secrets-manager": _secrets_manager,
    "azure-key-vault": _key_vault,
    "hashicorp-vault": _vault,
}
_ISSUERS: Final[Mapping[str, Callable[[_Site, Any], Issuer]]] = {
    "openai": _openai,
    "aws-iam": _iam,
    "postgresql": _postgresql,
    "generated": _generated,
    "passphrase": _passphrase,
    "key-pair": _key_pair,
}
"""How each kind that the configuration knows is opened."""


_DESCRIBED: Final = "variables"
"""What the configuration of an issuer has that a description says everything of."""


def _open(kinds: Mapping[str, Callable[[_Site, Any], T]], declared: Mapping[str, Any], site: _Site) -> T:
    about = declared.get(site.name)
    if about is None:
        raise site.fault("", "is not declared", ", ".join(declared))
    if (lacking := extras.lacking(extras.BY_KIND.get(about.kind, ()))) is not None:
        raise site.fault("", lacking)
    opens = cast("Callable[[_Site, Any], T]", _by_description) if hasattr(about, _DESCRIBED) else kinds[about.kind]
    return opens(site, about)


def _file(site: _Site, below: str, path: str | None) -> str | None:
    return None if path is None else _existing(site, below, path)


def _existing(site: _Site, below: str, path: str) -> str:
    """The path of an existing file, from where the configuration stands."""
    found = site.config.root / path
    if not found.is_file():
        raise site.fault(below, f"there is no file {found}")
    return str(found)


def _variable(reference: EnvReference | FileReference | EntryReference) -> EnvReference | None:
    """A reference to an environment variable; None for one of another kind."""
    return cast("EnvReference", reference) if hasattr(reference, "env") else None


def _admin(
    site: _Site, reference: EnvReference | EntryReference, parts: tuple[str, ...] = ()
) -> Callable[[], SecretValue]:
    """Gives an admin credential each time it is asked for.

    Parameters:
        parts: what it consists of, where it is a JSON object; an entry may have them as fields.
    """
    if (by_hand := site.admin) is not None:
        return lambda: by_hand
    if (variable := _variable(reference)) is None:
        remedy = f"; --admin-from {site.name} takes it from a person instead"
        return lambda: _entry_value(site, cast("EntryReference", reference), "the admin credential", remedy, parts)
    # Held for as long as the issuer, so that logs mask it.
    value = SecretValue(site.env.get(variable.env, ""))

    def given() -> SecretValue:
        if not value.reveal():
            told = f"its admin credential is missing: the environment variable {variable.env} {_UNSET}"
            raise Trouble(Code.DENIED, site.name, told)
        return value

    return given


def _entry_value(
    site: _Site, reference: EntryReference, called: str, remedy: str, parts: tuple[str, ...] = ()
) -> SecretValue:
    """What an entry holds: its field `value`, or the only one that it has; with parts, those as a JSON object.

    Raises:
        Trouble: it can not be read. Never NOT_FOUND or CONFLICT, which an issuer's callers would take for
            its answer about a key; and nothing was asked of the issuer yet.
    """
    store, what = site.stores[reference.store], f"{called} {reference.name} in {reference.store}"
    try:
        current = store.current(reference.name)
        fields = current.fields
    except Trouble as trouble:
        code = trouble.code if trouble.code in (Code.UNAVAILABLE, Code.THROTTLED) else Code.DENIED
        told = f"{what} can not be read: {trouble}{remedy}"
        raise Trouble(code, site.name, told, retry_after=trouble.retry_after) from None
    if parts and fields.keys() >= {*parts}:
        return SecretValue(json.dumps({part: fields[part].reveal() for part in parts}))
    if "value" in fields:
        return fields["value"]
    if len(fields) == 1:
        return next(iter(fields.values()))
    told = f"has several fields ({', '.join(fields)}) and none is called value"
    raise Trouble(Code.DENIED, site.name, f"{what} {told}")
