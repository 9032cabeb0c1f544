"""The Pulumi CLI for the tests that need the real one."""

import os

import pytest

from sandbox.pulumi_cli import PulumiCli, ensure


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
