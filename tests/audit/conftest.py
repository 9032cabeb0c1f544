"""S3 and CloudWatch Logs of moto; one vault and one issuer for the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from tests.cli.project import Project, Services, services

LOGIN = {
    "AWS_ACCESS_KEY_ID": "AKIAAUDITOFTESTS0000",
    "AWS_SECRET_ACCESS_KEY": "opens-nothing-elsewhere",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Its address."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def endpoint(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, for a process that is logged in there."""
    for name, value in LOGIN.items():
        monkeypatch.setenv(name, value)
    return moto


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services(tmp_path_factory.mktemp("services")) as found:
        yield found


@pytest.fixture
def project(tmp_path: Path, shared: Services) -> Iterator[Project]:
    """Two secrets declared, none applied."""
    yield Project(tmp_path, shared)
    shared.openai.control.reset()
