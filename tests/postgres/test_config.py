"""PostgreSQL in the configuration: what is allowed, what is refused, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hosting.packages import aws, azure
from providers import registry
from providers.issuers.postgresql import FIELDS
from rotation import form as forms
from rotation.clock import SystemClock
from rotation.config import Config, ConfigError, PostgreSQLConfig, parse
from rotation.model import Credential, Model
from tests.functions.test_azure_package import stack

GOOD: dict[str, Any] = {
    "kind": "postgresql",
    "host": "db.acme.example",
    "database": "app",
    "users": ["app_a", "app_b"],
    "owner": "app_owner",
    "adminUser": "keyturn",
    "admin": {"env": "DB_ADMIN"},
}


def faults(**changes: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        parsed(**changes)
    return str(raised.value)


def parsed(**changes: Any) -> Config:
    values = {"keyturn:environment": "prod", "keyturn:installation": "acme", "keyturn:issuers": {"db": GOOD | changes}}
    return parse(values)


def test_it_is_opened_with_its_slots(tmp_path: Path) -> None:
    """As the sections say; nothing is asked of the server."""
    config = parsed(port=6432)
    about = config.issuers["db"]
    assert isinstance(about, PostgreSQLConfig)
    assert about.tls == "verify-full"
    issuer = registry.open_issuer("db", config, {}, SystemClock(), {})
    known = registry.capabilities(about)
    assert known == issuer.capabilities
    assert (known.model, known.slots, known.fields) == (Model.SLOTS, ("app_a", "app_b"), FIELDS)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"users": []}, "issuers.db.users: "),
        ({"users": ["app_a", "app_a"]}, "users, owner and adminUser name a role twice"),
        ({"users": ["keyturn"]}, "users, owner and adminUser name a role twice"),
        ({"owner": None}, "several users need an owner"),
        ({"users": ["App"]}, "issuers.db.users[0]: has the wrong form"),
        ({"tls": "disable"}, "issuers.db.tls: is not known; allowed: verify-full"),
        ({"tls": "verify-ca"}, "issuers.db.tls: verify-ca trusts any name"),
        ({"admin": "secret"}, "issuers.db.admin: must be a reference, never the credential itself"),
        ({"port": 70000}, "issuers.db.port: is out of range; allowed: 1 to 65535"),
        ({"host": "user:pass@db"}, "issuers.db.host: has the wrong form"),
    ],
)
def test_what_can_not_be_is_refused(changes: dict[str, Any], fault: str) -> None:
    """With the path of the field and what is allowed."""
    assert fault in faults(**changes)


def test_a_url_can_be_what_consumers_read() -> None:
    """As the manual shows it."""
    url = "postgresql://{username}:{password}@{host}:{port}/{database}?sslmode=verify-full"
    usual = {"store": "vault", "owner": "team", "rotateEvery": "30d", "grace": "24h"}
    config = parse({
        "keyturn:environment": "prod",
        "keyturn:installation": "acme",
        "keyturn:issuers": {"db": GOOD},
        "keyturn:stores": {"vault": {"kind": "hashicorp-vault", "address": "https://vault.example"}},
        "keyturn:owners": {"team": {"notify": []}},
        "keyturn:secrets": [{"name": "support-db", "issuer": "db", "format": {"text": url}, **usual}],
    })  # fmt: skip
    issued = Credential.of(username="app_a", password="x/y", host="db", port="5432", database="app")
    rendered = forms.render(issued, config.policies[0].form).fields["value"].reveal()
    assert rendered == "postgresql://app_a:x%2Fy@db:5432/app?sslmode=verify-full"


@pytest.mark.parametrize("used", [True, False])
def test_only_a_stack_that_needs_it_packs_its_driver(tmp_path: Path, used: bool) -> None:
    """With the authorities of its server; libpq comes along to Lambda, and is installed by the Functions app."""
    (tmp_path / "db.pem").write_text("public")
    issuers = {"db": {**GOOD, "caBundle": "db.pem"}} if used else {"db": {"kind": "generated"}}
    path = stack(tmp_path, issuers=issuers, secrets=[])
    functions, zipped = azure.entries(path), aws.entries(path)
    assert ("psycopg[binary]==" in functions["requirements.txt"].decode()) is used
    for packed in (functions, zipped):
        assert ("providers/issuers/postgresql.py" in packed) is used
        assert (packed.get("db.pem") == b"public") is used
    assert any(name.startswith("psycopg_binary/") for name in zipped) is used


def test_two_secrets_do_not_share_roles() -> None:
    """Each mint gives a role another password: one would take the other's from it."""
    secret = {"name": "billing-main", "store": "vault", "issuer": "db", "owner": "payments", "rotateEvery": "30d"}
    values = {
        "keyturn:environment": "prod",
        "keyturn:installation": "acme",
        "keyturn:stores": {"vault": {"kind": "vault", "address": "https://vault.acme.example"}},
        "keyturn:issuers": {"db": GOOD},
        "keyturn:owners": {"payments": {}},
        "keyturn:secrets": [secret, secret | {"name": "billing-jobs"}],
    }
    with pytest.raises(ConfigError) as raised:
        parse(values)
    assert "secrets[1].issuer: the roles of db are those of billing-main already" in str(raised.value)
    assert "secrets[0].issuer" not in str(raised.value)
