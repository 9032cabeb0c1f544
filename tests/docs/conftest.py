"""One sandbox for all pages; with xdist one for a worker, and `--dist loadgroup` gives all pages to one worker."""

from collections.abc import Iterator

import pytest

from tests.docs.world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("docs"))
    try:
        made.up()
        yield made
    finally:
        made.down()
