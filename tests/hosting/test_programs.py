"""What all hosting programs have in common, read from their files."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rotation import hosted
from rotation.config import load
from tests.hosting import tables
from tests.hosting.packages import KEYTURN, PROGRAMS, ROOT

PACKAGES = {"aws": "pulumi-aws", "azure": "pulumi-azure-native", "kubernetes": "pulumi-kubernetes"}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_requirements_are_pinned_and_have_keyturn_beside(program: Path) -> None:
    """The official package and Pulumi's own, each in one version; Keyturn from the checkout, which the rights come from."""
    *pins, ours = (program / "requirements.txt").read_text().splitlines()
    assert ours == KEYTURN
    assert {line.partition("==")[0] for line in pins} == {"pulumi", PACKAGES[program.name]}
    assert all(line.partition("==")[2] for line in pins)
    assert yaml.safe_load((program / "Pulumi.yaml").read_text())["name"] == f"keyturn-{program.name}"


def test_keyturns_own_environment_has_none_of_these_packages() -> None:
    """Its program would be told to download their plugins."""
    told = (ROOT / "requirements.txt").read_text() + (ROOT / "requirements-dev.txt").read_text()
    assert not [name for name in PACKAGES.values() if name in told]


def test_what_a_host_has_to_give_is_read_from_the_stack(tmp_path: Path) -> None:
    """Variables wherever a login names one, VAULT_TOKEN where the method is a token; ports of addresses and databases."""
    config = load(ROOT / "Pulumi.prod.yaml")
    assert hosted.variables(config) == {"KEYTURN_VAULT_ROLE_ID", "KEYTURN_VAULT_SECRET_ID"}
    assert hosted.ports(config) == (443, 8200)
    whole = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())
    whole["config"]["keyturn:stores"]["vault"] |= {"address": "https://vault.example", "auth": {"method": "token"}}
    whole["config"]["keyturn:issuers"]["database"] = {
        "kind": "postgresql",
        "host": "db.example",
        "port": 6432,
        "database": "app",
        "users": ["app"],
        "adminUser": "rotator",
        "admin": {"env": "PGADMIN"},
    }
    (tmp_path / "Pulumi.prod.yaml").write_text(yaml.safe_dump(whole))
    config = load(tmp_path / "Pulumi.prod.yaml")
    assert hosted.variables(config) == {"VAULT_TOKEN", "PGADMIN"}
    assert hosted.ports(config) == (443, 6432)


def test_the_documentation_has_every_setting() -> None:
    """The tables of docs/hosting.md are those of the code: `python -m tests.hosting.tables` writes them."""
    page = tables.PAGE.read_text()
    assert page == tables.written(page)
