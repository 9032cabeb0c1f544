"""What docs/postgresql.md has an administrator do, done on a real server."""

import pytest

from tests.docs.pages import DOCS, blocks
from tests.postgres.server import MISSING, binaries, running


def test_the_preparation_of_a_server_runs() -> None:
    """As a superuser, statement by statement; then the role that Keyturn logs in with may make users."""
    found = binaries()
    if found is None:
        pytest.skip(MISSING)
    (block,) = (block for block in blocks(DOCS / "postgresql.md") if block.kind == "sql")
    with running(found, {}) as place, place.superuser() as superuser:
        superuser.execute(block.text.encode())
        may = superuser.execute("SELECT rolcreaterole FROM pg_roles WHERE rolname = 'keyturn'").fetchone()
    assert may == (True,)
