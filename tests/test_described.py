"""Described issuers in a stack file: kinds by name and by file, variables checked where they stand, and packed for functions."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from providers import registry
from providers.issuers.http import HttpIssuer
from providers.issuers.reading import shipped, shipped_kinds
from providers.issuers.samples import shipped_samples
from providers.stores.memory import MemoryStore, MemoryVault
from rotation.config import load
from rotation.declared import Config, ConfigError
from rotation.model import Credential, Model, SecretValue
from rotation.packed import pack, unpack
from rotation.sections import DescribedConfig
from sandbox.vendor import Vendor
from tests.world import FakeClock

STACK: dict[str, Any] = {
    "keyturn:installation": "acme",
    "keyturn:environment": "dev",
    "keyturn:stores": {"vault": {"kind": "hashicorp-vault", "address": "https://vault.example.com"}},
    "keyturn:owners": {"team": {}},
}


def stack(tmp_path: Path, issuers: dict[str, Any], template: str = "") -> Path:
    """A stack file with these issuers, and a secret of the first."""
    secrets: list[dict[str, Any]] = [
        {"name": "mail-sender", "store": "vault", "issuer": next(iter(issuers)), "owner": "team", "rotateEvery": "30d"}
    ]
    if template:
        secrets[0]["format"] = {"text": template}
    config = {**STACK, "keyturn:issuers": issuers, "keyturn:secrets": secrets}
    file = tmp_path / "Pulumi.dev.yaml"
    file.write_text(yaml.safe_dump({"config": config}))
    return file


def faults(file: Path) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(file)
    return [f"{fault.path}: {fault.message}" for fault in raised.value.faults]


def sendgrid(**changes: Any) -> dict[str, Any]:
    about = {"kind": "sendgrid", "variables": {"scopes": ["mail.send"]}, "admin": {"env": "SENDGRID"}}
    return {"mail": {**about, **changes}}


def opened(config: Config, name: str, stores: dict[str, Any] | None = None, **env: str) -> HttpIssuer:
    issuer = registry.open_issuer(name, config, env, FakeClock(), stores or {})
    assert isinstance(issuer, HttpIssuer)
    return issuer


def test_every_vendor_that_comes_along_is_a_kind() -> None:
    """But OpenAI, whose fields stand beside its kind."""
    kinds = get_args(DescribedConfig.model_fields["kind"].annotation)
    assert {*kinds, "openai"} == {*shipped_kinds()}


@pytest.mark.parametrize("kind", [kind for kind in shipped_kinds() if kind != "openai"])
def test_each_is_opened_as_its_samples_configure_it(tmp_path: Path, kind: str) -> None:
    """With what its description can do."""
    about: dict[str, Any] = {"kind": kind, "variables": shipped_samples(kind).variables}
    if shipped(kind).auth:
        about["admin"] = {"env": "ADMIN"}
    config = load(stack(tmp_path, {"vendor": about}))
    issuer = opened(config, "vendor", ADMIN="x")
    assert issuer.capabilities.model == Model(shipped(kind).model)
    told = registry.capabilities(config.issuers["vendor"])
    assert told
    assert told.fields == issuer.capabilities.fields


@pytest.mark.parametrize(
    ("issuers", "told"),
    [
        (sendgrid(variables={"scope": ["x"]}), "keyturn:issuers.mail.variables.scope: is not a variable of SendGrid API keys; allowed: baseUrl, scopes, scopesOf"),
        (sendgrid(variables={"scopes": "mail.send"}), "keyturn:issuers.mail.variables.scopes: must be a list of texts, with at least one"),
        (sendgrid(variables={}), "keyturn:issuers.mail.variables: needs one of scopesOf, scopes"),
        (sendgrid(variables=["x"]), "keyturn:issuers.mail.variables: must be a mapping"),
        (sendgrid(admin=None), "keyturn:issuers.mail.admin: is needed: SendGrid API keys are managed by requests that need it"),
        (sendgrid(admin="SG.x"), "keyturn:issuers.mail.admin: must be a reference, never the credential itself"),
        (sendgrid(admin={"store": "valut", "name": "x"}), "keyturn:issuers.mail.admin.store: there is no such store"),
        (sendgrid(project="x"), "keyturn:issuers.mail.project: unknown key"),
        (sendgrid(kind="sendgird"), "keyturn:issuers.mail.kind: is not known"),
        ({"g": {"kind": "groq", "admin": {"env": "X"}}}, "keyturn:issuers.g.admin: has no use: Groq API keys are managed by no request"),
        ({"g": {"kind": "http"}}, "keyturn:issuers.g.description: is missing"),
        ({"g": {"kind": "http", "description": "none.yaml"}}, "keyturn:issuers.g.description: can not be read: No such file or directory"),
        ({"g": {"kind": "http", "description": "bad.yaml"}}, "keyturn:issuers.g.description: bad.yaml: must be a mapping"),
    ],
)  # fmt: skip
def test_faults_are_named_where_they_stand(tmp_path: Path, issuers: dict[str, Any], told: str) -> None:
    """When the stack file is read: before anything is applied, and without a value."""
    (tmp_path / "bad.yaml").write_text("- x")
    found = faults(stack(tmp_path, issuers))
    assert any(line == told or line.startswith(told) for line in found), found


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    """By its path, from where the stack file stands; fields and form are known from it."""
    folder = tmp_path / "issuers"
    folder.mkdir()
    source = Path(registry.__file__).parent / "issuers" / "descriptions" / "twilio.yaml"
    (folder / "own.yaml").write_text(source.read_text())
    about = {"kind": "http", "description": "issuers/own.yaml", "variables": {"account": "AC1"}, "admin": {"env": "X"}}
    config = load(stack(tmp_path, {"own": about}, "{username}:{password}"))
    assert opened(config, "own", X="x").capabilities.fields == ("password", "username")
    assert faults(stack(tmp_path, {"own": about}, "{username}")) == [
        "keyturn:secrets[0].format: leaves out the field password of own"
    ]


def test_a_function_has_its_descriptions_ready(tmp_path: Path) -> None:
    """Those that come along and one's own: nothing is read where it runs."""
    source = Path(registry.__file__).parent / "issuers" / "descriptions" / "twilio.yaml"
    (tmp_path / "own.yaml").write_text(source.read_text())
    own = {"kind": "http", "description": "own.yaml", "variables": {"account": "AC1"}, "admin": {"env": "X"}}
    config = load(stack(tmp_path, {**sendgrid(), "own": own}))
    text = pack(config, registry.descriptions(config))
    found = unpack(text, Path("/nowhere"))
    for name, fields in (("mail", ("value",)), ("own", ("password", "username"))):
        assert opened(found, name, X="x", SENDGRID="x").capabilities.fields == fields


def test_an_openai_key_may_be_told_to_end(tmp_path: Path) -> None:
    """As a duration; in the request in seconds."""
    about = {"kind": "openai", "project": "proj_1", "expiresIn": "90d", "admin": {"env": "X"}}
    issuer = opened(load(stack(tmp_path, {"ai": about})), "ai", X="x")
    assert issuer._values["expiresIn"] == timedelta(days=90).total_seconds()


def test_an_admin_credential_of_several_parts(tmp_path: Path) -> None:
    """An entry with those fields, or one value that is a JSON object; the same for the vendor."""
    clock = FakeClock()
    with Vendor(shipped("datadog-api-keys"), shipped_samples("datadog-api-keys"), now=clock.now) as vendor:
        about = {"kind": "datadog-api-keys", "baseUrl": vendor.variables["baseUrl"]}
        at = {"store": "vault", "name": "prod/datadog"}
        config = load(stack(tmp_path, {"dd": {**about, "admin": at}}))
        parts = json.loads(vendor.admin)
        for fields in (parts, {"value": vendor.admin}):
            store = MemoryStore("vault", MemoryVault(), clock.now)
            store.create("prod/datadog", {})
            token = "0" * 32
            store.stage("prod/datadog", token, Credential({n: SecretValue(v) for n, v in fields.items()}), key_id=None)
            pending = store.observe("prod/datadog").pending
            assert pending
            store.promote("prod/datadog", pending, None)
            with opened(config, "dd", {"vault": store}) as issuer:
                assert list(issuer.keys()) == []


def test_only_who_tells_is_watched(tmp_path: Path) -> None:
    """An issuer that tells of no key's use, or of one key at a time, can not be watched in a sweep."""
    (told,) = faults(stack(tmp_path, sendgrid(watchUsage=True)))
    assert told.startswith("keyturn:issuers.mail.watchUsage: has no use: SendGrid")
    about = {"kind": "openai", "project": "proj_1", "admin": {"env": "KEY"}, "watchUsage": True}
    assert getattr(load(stack(tmp_path, {"openai": about})).issuers["openai"], "watch_usage", None) is True
    about = {"kind": "mistral", "variables": shipped_samples("mistral").variables, "admin": {"env": "KEY"}}
    assert "mistral" in load(stack(tmp_path, {"mistral": {**about, "watchUsage": True}})).issuers, "its list tells"


@pytest.mark.parametrize("kind", [kind for kind in shipped_kinds() if kind != "openai"])
def test_slots_are_those_of_one_secret(tmp_path: Path, kind: str) -> None:
    """Making a key in a slot destroys what is there, be it another secret's; else a vendor has keys for many."""
    about: dict[str, Any] = {"kind": kind, "variables": shipped_samples(kind).variables}
    if shipped(kind).auth:
        about["admin"] = {"env": "ADMIN"}
    file = stack(tmp_path, {"one": about})
    written = yaml.safe_load(file.read_text())
    (first,) = written["config"]["keyturn:secrets"]
    written["config"]["keyturn:secrets"] += [{**first, "name": "mail-reader"}, {**first, "name": "mail-filer"}]
    file.write_text(yaml.safe_dump(written))
    if shipped(kind).slots:
        assert faults(file) == ["keyturn:secrets[1].issuer: the slots of one are those of mail-sender already"]
    else:
        assert len(load(file).policies) == 3
