"""The reference store passes the contract."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from providers.stores.memory import MemoryStore, MemoryVault
from rotation.ports import SecretStore
from tests.contracts.store import ByHand, StoreContract


def now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


class TestMemoryStore(StoreContract):
    """Two clients of one vault."""

    @pytest.fixture
    def vault(self) -> MemoryVault:
        return MemoryVault()

    @pytest.fixture
    def store(self, vault: MemoryVault) -> SecretStore:
        return MemoryStore("memory", vault, now)

    @pytest.fixture
    def second_client(self, vault: MemoryVault) -> SecretStore:
        return MemoryStore("memory", vault, now)

    @pytest.fixture
    def by_hand(self, vault: MemoryVault) -> ByHand:
        return MemoryStore("console", vault, now).put_by_hand


class TestMemoryStoreWithoutCompareAndSet(TestMemoryStore):
    """As a service that can only be read and then written."""

    @pytest.fixture
    def store(self, vault: MemoryVault) -> SecretStore:
        return MemoryStore("memory", vault, now, fenced=False)

    @pytest.fixture
    def second_client(self, vault: MemoryVault) -> SecretStore:
        return MemoryStore("memory", vault, now, fenced=False)


class TestTextOnlyMemoryStore(TestMemoryStore):
    """As a service whose versions hold one text, and nothing of fields."""

    @pytest.fixture
    def store(self, vault: MemoryVault) -> SecretStore:
        return MemoryStore("memory", vault, now, text_only=True)

    @pytest.fixture
    def second_client(self, vault: MemoryVault) -> SecretStore:
        return MemoryStore("memory", vault, now, text_only=True)

    @pytest.fixture
    def by_hand(self, vault: MemoryVault) -> ByHand:
        return MemoryStore("console", vault, now, text_only=True).put_by_hand
