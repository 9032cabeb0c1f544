"""The Pulumi CLI for the tests that need the real one, and the services that all projects share."""

import os
from collections.abc import Iterator

import pytest

from sandbox.clock import SandboxClock
from sandbox.openai.harness import OpenAIServer
from sandbox.openbao import KEYTURN_POLICY, OpenBaoServer
from sandbox.pulumi_cli import PulumiCli, ensure
from tests.pulumi.project import Services


@pytest.fixture(scope="session")
def cli() -> PulumiCli:
    """The CLI of this machine. Where none can be had, what asks for it is skipped, with the reason."""
    if os.environ.get("KEYTURN_NO_PULUMI") == "1":
        pytest.skip("KEYTURN_NO_PULUMI=1: nothing here was run against a Pulumi CLI")
    said: list[str] = []
    found = ensure(said.append)
    if found is None:
        pytest.skip(f"no Pulumi CLI can be had here: {'; '.join(said)}")
    return found


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    clock_file = tmp_path_factory.mktemp("clock") / "clock.json"
    clock = SandboxClock(clock_file)
    with OpenBaoServer() as bao, OpenAIServer(now=clock.now) as openai:
        yield Services(bao, openai, clock, clock_file, bao.approle(KEYTURN_POLICY))
