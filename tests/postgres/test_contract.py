"""The PostgreSQL issuer keeps the contract, against a real server over TLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.issuer import IssuerContract, IssuerHarness
from tests.postgres.harness import PostgreSQLHarness
from tests.postgres.server import Place


class TestPostgreSQLIssuer(IssuerContract):
    @pytest.fixture
    def harness(self, place: Place) -> Iterator[IssuerHarness]:
        harness = PostgreSQLHarness(place)
        yield harness
        harness.close()
