"""Three vaults, an issuer, and a project that has a secret in each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox.aws.server import REGION, AwsServer
from sandbox.keyvault.harness import KeyVaultServer
from tests.cli.project import BATCH, CHAT, Project, Services, services

EMBED = "support-copilot-embed"
IN: dict[str, str] = {"vault": CHAT, "aws": BATCH, "azure": EMBED}
"""By store, the secret that it holds."""


@dataclass(frozen=True)
class Vaults:
    """What the tests of a session share."""

    shared: Services
    aws: AwsServer
    keyvault: KeyVaultServer


@pytest.fixture(scope="session")
def vaults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vaults]:
    with (
        services(tmp_path_factory.mktemp("services")) as shared,
        AwsServer(now=shared.time.now) as aws,
        KeyVaultServer(now=shared.time.now, ca_dir=shared.bao.ca.parent) as keyvault,
    ):
        yield Vaults(shared, aws, keyvault)


def declare_stores(project: Project, vaults: Vaults) -> None:
    """Says where the two are, in a stack file that has just been written."""
    aws, keyvault = vaults.aws, vaults.keyvault
    project.change("stores.aws", {"kind": "aws-secrets-manager", "region": REGION, "endpointUrl": aws.endpoint})
    azure: dict[str, Any] = {"vaultUrl": keyvault.vault_url, "authorityHost": keyvault.authority}
    azure |= {"caBundle": keyvault.ca, "verifyChallengeResource": False}
    project.change("stores.azure", {"kind": "azure-key-vault", **azure})


@pytest.fixture
def project(tmp_path: Path, vaults: Vaults, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Its secrets are applied; this process is logged in as an application, with read rights in Vault."""
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project", vaults.shared)
    bao, aws, keyvault = vaults.shared.bao, vaults.aws, vaults.keyvault
    project.environ |= {name: text for name, text in aws.environment(REGION).items() if name != "AWS_ENDPOINT_URL"}
    project.environ |= {
        "AZURE_TENANT_ID": keyvault.tenant_id,
        "AZURE_CLIENT_ID": keyvault.client_id,
        "AZURE_CLIENT_SECRET": keyvault.client_secret,
        "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
    }
    for name, text in project.environ.items():
        monkeypatch.setenv(name, text)
    project.declare(*(project.secret(name, store=store) for store, name in IN.items()))
    declare_stores(project, vaults)
    project.apply()
    reads = f'path "secret/data/{project.installation}/*" {{ capabilities = ["read"] }}'
    role, secret = bao.approle(reads)
    application = {"VAULT_ADDR": bao.address, "VAULT_CACERT": str(bao.ca)}
    application |= {"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret, "AWS_ENDPOINT_URL_SECRETS_MANAGER": aws.endpoint}
    for name in set(os.environ) & {"VAULT_TOKEN", "AWS_ENDPOINT_URL"}:
        monkeypatch.delenv(name)
    for name, text in application.items():
        monkeypatch.setenv(name, text)
    yield project
    # Entries of one name are one entry in these two, whatever the installation.
    vaults.keyvault.vault.reset()
    vaults.aws.control.reset()
    vaults.shared.openai.control.reset()
