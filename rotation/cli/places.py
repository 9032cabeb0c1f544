"""Where a declared secret is, for those who only read it: the stack file says where, the environment says who asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from providers import registry
from rotation.clock import SystemClock
from rotation.config import Config
from rotation.consumer.sources import KeyVaultEntry, SecretsManagerEntry, Source, VaultEntry
from rotation.model import Policy
from rotation.sections import EnvReference, KeyVaultConfig, SecretsManagerConfig, VaultConfig

_SECONDS: Final = 5.0
OF_VAULT: Final = ("VAULT_TOKEN", "VAULT_ROLE_ID", "VAULT_SECRET_ID")
"""An application's own login, in the variables that `rotation.consumer` goes by."""


def source_of(config: Config, policy: Policy, field: str | None, env: Mapping[str, str]) -> Source:
    """The entry of a declared secret in its primary store; opens no connection.

    Secrets Manager is asked with the SDK's own login and the store's `profile`, never with its `roleArn`, which is Keyturn's.
    Vault is asked with VAULT_TOKEN or VAULT_ROLE_ID and VAULT_SECRET_ID, and without these as the store's `auth` says.

    Raises:
        ConfigError: the login is incomplete.
    """
    about = config.stores[policy.store]
    entry = registry.entry_name(about, policy.environment, policy.name)
    match about:
        case SecretsManagerConfig():
            return SecretsManagerEntry(about.region, entry, field, partial(_secrets_manager, about))
        case KeyVaultConfig():
            return KeyVaultEntry(
                about.vault_url.removeprefix("https://"), entry, field, partial(_key_vault, config, about)
            )
        case VaultConfig():
            path = f"{about.prefix.strip('/')}/{entry}" if about.prefix else entry
            return VaultEntry(about.mount, path, field, _vault(config, policy.store, about, env))


def logins(config: Config) -> Iterator[str]:
    """The variables that the stack file names: logins and admin credentials of Keyturn's own."""
    waiting: list[Any] = [config.stores, config.issuers, config.channels, config.webhook, config.fingerprints]
    while waiting:
        part = waiting.pop()
        if isinstance(part, EnvReference):
            yield part.env
        elif isinstance(part, Mapping):
            waiting += part.values()
        elif isinstance(part, tuple | list):
            waiting += part
        else:
            waiting += [getattr(part, name) for name in getattr(type(part), "model_fields", ())]


def _secrets_manager(about: SecretsManagerConfig) -> Any:
    import boto3  # noqa: PLC0415 - a command has the SDK of the vault that it asks, not of all
    from botocore.config import Config as Settings  # noqa: PLC0415

    settings = Settings(connect_timeout=2, read_timeout=_SECONDS, retries={"total_max_attempts": 2, "mode": "standard"})
    session = boto3.session.Session(profile_name=about.profile)
    return session.client("secretsmanager", region_name=about.region, endpoint_url=about.endpoint_url, config=settings)


def _key_vault(config: Config, about: KeyVaultConfig) -> Any:
    from azure.keyvault.secrets import SecretClient  # noqa: PLC0415 - as above

    from providers.stores.azure import AzureLogin  # noqa: PLC0415

    bundle = str(config.root / about.ca_bundle) if about.ca_bundle else None
    login = AzureLogin(about.tenant_id, about.client_id, about.authority_host).open(bundle)
    return SecretClient(
        about.vault_url,
        login,
        verify_challenge_resource=about.verify_challenge_resource,
        connection_verify=bundle or True,
        connection_timeout=2,
        read_timeout=_SECONDS,
        retry_total=1,
    )


def _vault(config: Config, name: str, about: VaultConfig, env: Mapping[str, str]) -> Any:
    token, role, secret = (env.get(variable) for variable in OF_VAULT)
    login = None if token or role else registry.vault_login(name, config, env, SystemClock())

    def connect() -> Any:
        import hvac  # noqa: PLC0415 - as above

        bundle = str(config.root / about.ca_bundle) if about.ca_bundle else True
        client = hvac.Client(about.address, token, verify=bundle, namespace=about.namespace, timeout=_SECONDS)
        if login is not None:
            client.token = None  # hvac takes what it finds in the environment or at home
            client.token = login.log_in(client)["client_token"]
        elif role and not token:
            client.auth.approle.login(role, secret, mount_point=env.get("VAULT_APPROLE_MOUNT", "approle"))
        return client

    return connect
