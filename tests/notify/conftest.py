"""One vault and one issuer for the tests that run commands."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.project import Project, Services, services


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services(tmp_path_factory.mktemp("services")) as found:
        yield found


@pytest.fixture
def project(tmp_path: Path, shared: Services) -> Iterator[Project]:
    """Two secrets declared, none applied."""
    yield Project(tmp_path, shared)
    shared.openai.control.reset()
