"""A fleet of real processes behind a real broker loses nothing and doubles nothing, whoever is killed when."""

from __future__ import annotations

import pytest

from tests.fleet import broker
from tests.fleet.execution import execute

pytestmark = pytest.mark.skipif(
    broker.program() is None, reason=f"there is no {' or '.join(broker.PROGRAMS)} on this machine"
)


def test_workers_that_are_killed_at_their_work_lose_nothing_and_double_nothing() -> None:
    """Thirty secrets are due at once; workers, and processes of theirs, die with credentials in their hands."""
    result = execute(secrets=30, workers=2, kills=3, seed=7)
    assert {kind: found for kind, found in result.faults.items() if found} == {}, result.told
    killed = result.site.killed
    assert killed.workers
    assert killed.children
    assert killed.workers + killed.children == 3
