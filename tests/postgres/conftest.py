"""The server of this folder's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres.server import MISSING, Place, binaries, running


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    """A server that logs every statement."""
    found = binaries()
    if found is None:
        pytest.skip(MISSING)
    with running(found, {}) as place:
        with place.superuser() as superuser:
            if place.statistics:
                superuser.execute("CREATE EXTENSION pg_stat_statements")
            superuser.execute("CREATE ROLE keyturn LOGIN CREATEROLE PASSWORD 'admin-secret-of-keyturn'")
            superuser.execute("GRANT pg_signal_backend TO keyturn")
            superuser.execute("CREATE ROLE barred LOGIN PASSWORD 'barred'")
        yield place
