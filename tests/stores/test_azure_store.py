"""The Key Vault store passes the contract against the stand-in, through the unmodified SDK; and what is its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from providers.stores.azure import AzureLogin, KeyVaultStore
from rotation.clock import SystemClock
from rotation.model import Credential
from rotation.names import dashed
from rotation.ports import SecretStore
from sandbox.keyvault.harness import KeyVaultServer
from tests.contracts.store import ByHand, Names, StoreContract


@pytest.fixture(scope="module")
def server() -> Iterator[KeyVaultServer]:
    with KeyVaultServer() as running:
        yield running


@pytest.fixture
def kv(server: KeyVaultServer, monkeypatch: pytest.MonkeyPatch) -> KeyVaultServer:
    """The stand-in, empty and without faults, and an environment that logs its owner in."""
    server.vault.reset()
    server.control.clear_faults()
    server.control.clear_log()
    log_in_as(server, monkeypatch, server.client_id, server.client_secret)
    return server


def log_in_as(server: KeyVaultServer, monkeypatch: pytest.MonkeyPatch, client_id: str, client_secret: str) -> None:
    """Sets what DefaultAzureCredential goes by."""
    monkeypatch.setenv("AZURE_TENANT_ID", server.tenant_id)
    monkeypatch.setenv("AZURE_CLIENT_ID", client_id)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", client_secret)


Make = Callable[..., KeyVaultStore]


@pytest.fixture
def make(kv: KeyVaultServer) -> Make:
    """A client, for the stand-in unless told otherwise."""

    def client(**changed: Any) -> KeyVaultStore:
        settings: dict[str, Any] = {
            "name": "keyvault",
            "vault_url": kv.vault_url,
            "login": AzureLogin(authority_host=kv.authority),
            "ca_bundle": kv.ca,
            "verify_challenge_resource": False,
            "clock": SystemClock(),
        }
        return KeyVaultStore(**(settings | changed))

    return client


class TestKeyVaultStore(StoreContract):
    """Each client logs in by itself, as a service principal that the environment names."""

    @pytest.fixture
    def store(self, make: Make) -> SecretStore:
        return make()

    @pytest.fixture
    def second_client(self, make: Make) -> SecretStore:
        return make()

    @pytest.fixture
    def entry_name(self) -> Names:
        return lambda name: dashed("test", name)

    @pytest.fixture
    def by_hand(self, kv: KeyVaultServer) -> ByHand:
        console = kv.client()
        return lambda entry, credential: put_by_hand(console, entry, credential)


def put_by_hand(console: Any, entry: str, credential: Credential) -> None:
    console.set_secret(entry, credential.fields["value"].reveal())
