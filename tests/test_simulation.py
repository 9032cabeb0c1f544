"""The simulated stores pass the stores' contract, so that what is shown over them says something of the real ones."""

from __future__ import annotations

import pytest

from rotation.ports import SecretStore
from tests.contracts.store import ByHand, Names, StoreContract
from tests.simulation.stores import KeyVault, SecretsManager, Service, Store, Vault
from tests.simulation.wire import Box, Planned, Wire


class _SimulatedStore(StoreContract):
    """Two clients of one simulated service."""

    kind: type[Vault | SecretsManager | KeyVault]

    @pytest.fixture
    def client(self) -> Store:
        return self.kind("simulated", Service(Box("simulated", {})), Wire(Planned()))

    @pytest.fixture
    def store(self, client: Store) -> SecretStore:
        return client

    @pytest.fixture
    def second_client(self, client: Store) -> SecretStore:
        return self.kind("simulated", client.service, client.wire)

    @pytest.fixture
    def by_hand(self, client: Store) -> ByHand:
        return client.put_by_hand


class TestVault(_SimulatedStore):
    kind = Vault


class TestSecretsManager(_SimulatedStore):
    kind = SecretsManager


class TestKeyVault(_SimulatedStore):
    kind = KeyVault

    @pytest.fixture
    def entry_name(self) -> Names:
        return lambda name: f"test--{name}"
