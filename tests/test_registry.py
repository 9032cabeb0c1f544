"""Opening what a configuration declares: each kind with its own SDK only, and clear words when something is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from providers import registry
from providers.issuers.generated import GeneratedIssuer
from providers.issuers.http import HttpIssuer
from providers.registry import entry_name, open_issuer, open_store, require_admin
from providers.stores.aws import AwsLogin, SecretsManagerStore
from providers.stores.azure import AzureLogin, KeyVaultStore
from providers.stores.memory import MemoryStore, MemoryVault
from providers.stores.vault import AppRoleLogin, JwtLogin, KubernetesLogin, TokenLogin, VaultStore
from providers.stores.vault import AwsLogin as VaultAwsLogin
from rotation.config import Config, ConfigError, load, parse
from rotation.errors import Code, Trouble
from rotation.model import Credential, SecretValue
from rotation.ports import SecretStore
from rotation.sections import DescribedConfig, HttpConfig, IssuerConfig, StoreConfig

CANARY = "canary-7f3a9c1e"
BY_HAND = "--admin-from shared takes it from a person instead"
ROOT = Path(__file__).parent.parent
STORES: Mapping[str, Any] = {
    "aws": {"kind": "aws-secrets-manager", "region": "eu-west-1"},
    "azure": {"kind": "azure-key-vault", "vaultUrl": "https://acme.vault.azure.net"},
    "vault": {"kind": "hashicorp-vault", "address": "https://127.0.0.1:1"},
    "role": {
        "kind": "hashicorp-vault",
        "address": "https://127.0.0.1:1",
        "mount": "role",
        "auth": {"method": "approle", "roleId": {"env": "ROLE"}, "secretId": {"env": "SECRET"}},
    },
    "tls": {"kind": "hashicorp-vault", "address": "https://127.0.0.1:2", "caBundle": "certs/ca.pem"},
}
ISSUERS: Mapping[str, Any] = {
    "openai": {"kind": "openai", "project": "proj_1", "admin": {"env": "OPENAI_ADMIN_KEY"}},
    "shared": {
        "kind": "openai",
        "project": "proj_1",
        "baseUrl": "http://127.0.0.1:1/v1",
        "admin": {"store": "vault", "name": "shared/openai"},
    },
    "passwords": {"kind": "generated", "length": 20, "alphabet": "abcdefghijklmnopqrstuvwxyz"},
    "shortest": {"kind": "generated", "length": 14},
}


class Clock:
    """Time stands still."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here waits")


def config() -> Config:
    return parse({"installation": "acme", "environment": "prod", "stores": STORES, "issuers": ISSUERS})


def opened_store(name: str, env: Mapping[str, str]) -> SecretStore:
    return open_store(name, config(), env, Clock())


def test_a_vault_is_opened_with_a_token() -> None:
    """From VAULT_TOKEN; nothing is asked of the server yet."""
    store = opened_store("vault", {"VAULT_TOKEN": CANARY})
    assert isinstance(store, VaultStore)
    assert store.name == "vault"


def test_the_token_of_vault_login_is_used(tmp_path: Path) -> None:
    """Where VAULT_TOKEN is not set, as Vault's own command does."""
    (tmp_path / ".vault-token").write_text(f"{CANARY}\n")
    assert isinstance(opened_store("vault", {"HOME": str(tmp_path)}), VaultStore)


def test_a_vault_is_opened_with_approle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both halves come from the variables that the configuration names."""
    seen: dict[str, Any] = {}

    def remember(_: VaultStore, name: str, **given: Any) -> None:
        seen.update(given, name=name)

    monkeypatch.setattr(VaultStore, "__init__", remember)
    opened_store("role", {"ROLE": "r1", "SECRET": CANARY})
    login = seen["auth"]
    assert isinstance(login, AppRoleLogin)
    assert (login.role_id, login.secret_id.reveal()) == ("r1", CANARY)
    opened_store("vault", {"VAULT_TOKEN": CANARY})
    assert isinstance(seen["auth"], TokenLogin)
    assert seen["auth"].token.reveal() == CANARY


def test_a_vault_is_opened_by_what_the_workload_is(tmp_path: Path) -> None:
    """Files are found from where the configuration stands, a token in a variable by its name; no value is read yet."""
    (tmp_path / "token").write_text(CANARY)

    def opened(**auth: Any) -> Any:
        declared = {"vault": {**STORES["vault"], "auth": {"role": "keyturn", **auth}}}
        changed = replace(parse({"installation": "acme", "environment": "prod", "stores": declared}), root=tmp_path)
        store = open_store("vault", changed, {"CI_JWT": CANARY}, Clock())
        assert isinstance(store, VaultStore)
        return store._server._auth

    pod = opened(method="kubernetes", tokenFile="token", mount="kubernetes/eu")
    assert isinstance(pod, KubernetesLogin)
    assert (pod.role, pod.token_file, pod.mount) == ("keyturn", tmp_path / "token", "kubernetes/eu")
    file = opened(method="jwt", token={"file": str(tmp_path / "token")})
    assert isinstance(file, JwtLogin)
    assert (file.role, file.token, file.mount) == ("keyturn", tmp_path / "token", "jwt")
    variable = opened(method="jwt", token={"env": "CI_JWT"}, mount="github")
    assert isinstance(variable.token, SecretValue)
    assert (variable.token.reveal(), variable.mount) == (CANARY, "github")
    assert opened(method="aws") == VaultAwsLogin("keyturn")
    aws = opened(method="aws", mount="aws-eu", headerValue="vault.acme.example", region="eu-west-1")
    assert aws == VaultAwsLogin("keyturn", "aws-eu", "vault.acme.example", "eu-west-1")
    for auth, told in (
        ({"method": "kubernetes"}, ".tokenFile: there is no file /var/run/secrets/kubernetes.io/serviceaccount/token"),
        ({"method": "jwt", "token": {"file": "nowhere"}}, f".token.file: there is no file {tmp_path}/nowhere"),
        (
            {"method": "jwt", "token": {"env": "OTHER"}},
            ".token.env: the environment variable OTHER is not set, or is empty",
        ),
    ):
        with pytest.raises(ConfigError) as raised:
            opened(**auth)
        assert str(raised.value) == f"keyturn:stores.vault.auth{told}"


def test_a_key_vault_is_opened_as_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field arrives. The login goes by the environment itself, so nothing is missing from it beforehand."""
    seen: dict[str, Any] = {}

    def remember(_: KeyVaultStore, name: str, **given: Any) -> None:
        seen.update(given, name=name)

    monkeypatch.setattr(KeyVaultStore, "__init__", remember)
    opened_store("azure", {})
    assert seen["name"] == "azure"
    assert seen["vault_url"] == "https://acme.vault.azure.net"
    assert (seen["login"], seen["ca_bundle"], seen["verify_challenge_resource"]) == (AzureLogin(), None, True)
    declared = {
        "tenantId": "t",
        "clientId": "c",
        "authorityHost": "https://login.acme",
        "verifyChallengeResource": False,
    }
    store = {**STORES["azure"], **declared}
    changed = parse({"installation": "acme", "environment": "prod", "stores": {"azure": store}})
    open_store("azure", changed, {}, Clock())
    assert seen["login"] == AzureLogin("t", "c", "https://login.acme")
    assert seen["verify_challenge_resource"] is False


def test_secrets_manager_is_opened_as_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field arrives; the recovery window in days. The SDK finds credentials by itself, in the environment too."""
    seen: dict[str, Any] = {}

    def remember(_: SecretsManagerStore, name: str, **given: Any) -> None:
        given.pop("clock")
        seen.update(given, name=name)

    monkeypatch.setattr(SecretsManagerStore, "__init__", remember)
    opened_store("aws", {})
    assert seen == {
        "name": "aws",
        "region": "eu-west-1",
        "endpoint_url": None,
        "login": AwsLogin(),
        "kms_key_id": None,
        "replica_regions": (),
        "exempt_roles": (),
        "recovery_window_days": 30,
        "rotation_function": None,
    }
    role = "arn:aws:iam::123456789012:role/keyturn"
    function = "arn:aws:lambda:eu-west-1:123456789012:function:keyturn"
    declared = {
        "endpointUrl": "http://127.0.0.1:1",
        "profile": "team",
        "roleArn": role,
        "externalId": "acme",
        "kmsKeyId": "alias/keyturn",
        "replicaRegions": ["eu-west-2", "us-east-1"],
        "exemptRoles": [f"{role}-on-call"],
        "recoveryWindow": "1w",
        "rotation": "native",
        "rotationFunction": function,
    }
    store = {**STORES["aws"], **declared}
    open_store("aws", parse({"installation": "acme", "environment": "prod", "stores": {"aws": store}}), {}, Clock())
    assert seen == {
        "name": "aws",
        "region": "eu-west-1",
        "endpoint_url": "http://127.0.0.1:1",
        "login": AwsLogin("team", role, "acme"),
        "kms_key_id": "alias/keyturn",
        "replica_regions": ("eu-west-2", "us-east-1"),
        "exempt_roles": (f"{role}-on-call",),
        "recovery_window_days": 7,
        "rotation_function": function,
    }


def test_every_kind_can_be_opened() -> None:
    """What the configuration takes, this version opens."""
    for sections, opened in ((StoreConfig, registry._STORES), (IssuerConfig, registry._ISSUERS)):
        coded = [s for s in get_args(sections) if s not in (DescribedConfig, HttpConfig)]  # see tests/test_described.py
        kinds = {kind for section in coded for kind in get_args(section.model_fields["kind"].annotation)}
        assert kinds == opened.keys()


def test_a_ca_bundle_is_found_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the configuration, not to where the command was started."""
    stack = tmp_path / "Pulumi.prod.yaml"
    stack.write_text(
        "config:\n  keyturn:installation: acme\n  keyturn:environment: prod\n  keyturn:stores:\n"
        "    tls: {kind: hashicorp-vault, address: 'https://127.0.0.1:1', caBundle: certs/ca.pem}\n"
    )
    seen: list[str | None] = []
    monkeypatch.setattr(VaultStore, "__init__", lambda _, __, **given: seen.append(given["ca_bundle"]))
    with pytest.raises(ConfigError) as raised:
        open_store("tls", load(stack), {"VAULT_TOKEN": CANARY}, Clock())
    assert str(raised.value) == f"keyturn:stores.tls.caBundle: there is no file {tmp_path}/certs/ca.pem"
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "ca.pem").touch()
    open_store("tls", load(stack), {"VAULT_TOKEN": CANARY}, Clock())
    assert seen == [f"{tmp_path}/certs/ca.pem"]


def open_named(part: str, name: str, env: Mapping[str, str]) -> object:
    if part == "stores":
        return opened_store(name, env)
    return open_issuer(name, config(), env, Clock(), {})


@pytest.mark.parametrize(
    ("part", "name", "env", "told"),
    [
        (
            "stores",
            "vault",
            {"HOME": "/nowhere"},
            ".vault.auth: VAULT_TOKEN is not set, and `vault login` has left no token in ~/.vault-token",
        ),
        (
            "stores",
            "role",
            {"SECRET": CANARY},
            ".role.auth.roleId.env: the environment variable ROLE is not set, or is empty",
        ),
        (
            "stores",
            "role",
            {"ROLE": CANARY, "SECRET": ""},
            ".role.auth.secretId.env: the environment variable SECRET is not set, or is empty",
        ),
        ("stores", "gcp", {}, ".gcp: is not declared; allowed: aws, azure, vault, role, tls"),
        ("issuers", "acme", {}, ".acme: is not declared; allowed: openai, shared, passwords, shortest"),
    ],
)
def test_what_is_missing_is_named(part: str, name: str, env: Mapping[str, str], told: str) -> None:
    """The field, the variable by name, and no value."""
    with pytest.raises(ConfigError) as raised:
        open_named(part, name, env)
    assert str(raised.value) == f"keyturn:{part}{told}"


@pytest.mark.parametrize("env", [{}, {"OPENAI_ADMIN_KEY": ""}])
def test_an_issuer_is_known_without_its_admin_credential(env: Mapping[str, str]) -> None:
    """What it can do needs none; who is about to act is told at once, and whoever did not ask is when it is missed."""
    told = "the environment variable OPENAI_ADMIN_KEY is not set, or is empty"
    issuer = open_issuer("openai", config(), env, Clock(), {})
    assert issuer.capabilities.tells_last_use
    with pytest.raises(ConfigError) as raised:
        require_admin("openai", config(), env)
    assert str(raised.value) == f"keyturn:issuers.openai.admin.env: {told}"
    with pytest.raises(Trouble, match=told) as caught:
        list(issuer.keys())
    assert (caught.value.code, caught.value.maybe_applied) == (Code.DENIED, False)


@pytest.mark.parametrize("name", ["openai", "shared", "passwords"])
def test_nothing_is_missed_that_is_there_or_is_not_a_variable(name: str) -> None:
    """An entry is asked for when it is needed; generated values need nobody's leave."""
    require_admin(name, config(), {"OPENAI_ADMIN_KEY": CANARY})


def test_openai_is_opened_from_its_description() -> None:
    """With the admin key of the named variable."""
    issuer = open_issuer("openai", config(), {"OPENAI_ADMIN_KEY": CANARY}, Clock(), {})
    assert isinstance(issuer, HttpIssuer)
    assert issuer.name == "openai"


def test_generated_values_follow_the_declaration() -> None:
    """Length and alphabet arrive; what the configuration lets pass, the issuer accepts."""
    issuer = open_issuer("passwords", config(), {}, Clock(), {})
    assert isinstance(issuer, GeneratedIssuer)
    value = issuer.mint("acme.prod-a-b.t1").credential.fields["value"].reveal()
    assert len(value) == 20
    assert value.islower()
    assert isinstance(open_issuer("shortest", config(), {}, Clock(), {}), GeneratedIssuer)


def admin_of(store: MemoryStore) -> Callable[[], SecretValue]:
    issuer = open_issuer("shared", config(), {}, Clock(), {"vault": store})
    assert isinstance(issuer, HttpIssuer)
    return issuer._admin


def shelf(*credentials: Credential) -> MemoryStore:
    store = MemoryStore("vault", MemoryVault(), Clock().now)
    store.create("shared/openai", {"note": "not ours"})
    for credential in credentials:
        store.put_by_hand("shared/openai", credential)
    return store


@pytest.mark.parametrize("fields", [{"value": CANARY}, {"value": CANARY, "note": "x"}, {"adminKey": CANARY}])
def test_an_admin_credential_may_be_an_entry(fields: dict[str, str]) -> None:
    """Its field `value`, or the only one; read at each need, so that it may be rotated itself."""
    store = shelf(Credential.of(**fields))
    admin = admin_of(store)
    assert admin().reveal() == CANARY
    store.put_by_hand("shared/openai", Credential.of(value="next"))
    assert admin().reveal() == "next"


@pytest.mark.parametrize(
    ("store", "told"),
    [
        (shelf(), f"can not be read: vault: shared/openai: has no value; {BY_HAND}"),
        (shelf(Credential.of(a=CANARY, b=CANARY)), "has several fields (a, b) and none is called value"),
        (
            MemoryStore("vault", MemoryVault(), Clock().now),
            f"can not be read: vault: shared/openai: no such entry; {BY_HAND}",
        ),
    ],
)
def test_an_admin_entry_that_can_not_be_used(store: MemoryStore, told: str) -> None:
    """Denied, and never "not found", which would pass for the vendor's answer about a key."""
    with pytest.raises(Trouble) as raised:
        admin_of(store)()
    assert raised.value.code is Code.DENIED
    assert str(raised.value) == f"shared: the admin credential shared/openai in vault {told}"


def test_a_store_that_is_down_is_no_final_answer() -> None:
    """The next sweep tries again."""

    def down(call: str) -> None:
        if call == "before current":
            raise Trouble(Code.UNAVAILABLE, "vault", "no answer", retry_after=3)

    with pytest.raises(Trouble) as raised:
        admin_of(MemoryStore("vault", MemoryVault(), Clock().now, down))()
    assert (raised.value.code, raised.value.retry_after, raised.value.maybe_applied) == (Code.UNAVAILABLE, 3, False)


@pytest.mark.parametrize(
    ("store", "name"), [("aws", "prod/support-chat"), ("azure", "prod--support-chat"), ("vault", "prod/support-chat")]
)
def test_entries_are_named_by_kind(store: str, name: str) -> None:
    """As each service can hold them."""
    assert entry_name(config().stores[store], "prod", "support-chat") == name


OPENING = """
import sys
from datetime import UTC, datetime
from providers.registry import open_issuer, open_store, require_admin
from rotation.clock import SystemClock
from rotation.config import parse

stores = {"vault": {"kind": "hashicorp-vault", "address": "https://127.0.0.1:1"}}
issuers = {"openai": {"kind": "openai", "project": "p", "admin": {"env": "KEY"}}, "made": {"kind": "generated"}}
config = parse({"installation": "acme", "environment": "prod", "stores": stores, "issuers": issuers})
env = {"VAULT_TOKEN": "t", "KEY": "k"}
if WHAT == "vault":
    open_store("vault", config, env, SystemClock())
else:
    open_issuer(WHAT, config, env, SystemClock(), {})
heavy = ("providers.stores", "providers.issuers", "boto3", "azure", "hvac", "pulumi", "jmespath")
print(*sorted(name for name in sys.modules if name.startswith(heavy) and name.count(".") <= 2))
"""


@pytest.mark.parametrize(
    ("what", "module", "sdk"),
    [
        ("vault", "providers.stores.vault", "hvac"),
        ("openai", "providers.issuers.http", "jmespath"),
        ("made", "providers.issuers.generated", None),
    ],
)
def test_each_kind_loads_only_its_own(what: str, module: str, sdk: str | None) -> None:
    """A function pays for what it uses: the kind's module, what that is made of, and its one SDK."""
    code = f"WHAT = {what!r}\n{OPENING}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert module in loaded
    assert {name.partition(".")[0] for name in loaded} <= {"providers", sdk}
    other = "providers.issuers" if module.startswith("providers.stores") else "providers.stores"
    assert other not in loaded
