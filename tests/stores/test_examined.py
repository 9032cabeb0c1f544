"""What stores tell by reading alone: permissions that are missing, readers, quotas, clocks; each against the most real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

import botocore.session
import pytest
import requests

from providers.stores.aws import CALLS, AwsLogin, SecretsManagerStore
from providers.stores.azure import AzureLogin, KeyVaultStore, _Token
from providers.stores.memory import MemoryStore, MemoryVault
from providers.stores.vault import TokenLogin, VaultStore
from providers.stores.vault_policies import grants, rules
from rotation.clock import SystemClock
from rotation.errors import Code, Trouble
from rotation.model import SecretValue
from rotation.ports import Clock, Grade
from rotation.resilience import PatientStore, Service
from sandbox.aws.server import REGION, AwsServer
from sandbox.keyvault.entra import Principal, Rule
from sandbox.keyvault.harness import KeyVaultServer
from sandbox.openbao import OpenBaoServer
from tests.contracts.examined import SWEEP, ExaminedStoreContract, Log, by_check, failing
from tests.contracts.store import full_policy, rotated
from tests.world import FakeClock

ENTRY = "prod/support-copilot-chat"


# --- Vault -------------------------------------------------------------------------------------------

RIGHTS = {
    "data/prod/*": ["create", "read", "update"],
    "metadata/prod/*": ["read", "patch"],
}
SELF = {"auth/token/lookup-self": ["read"], "sys/capabilities-self": ["update"]}


def policy(mount: dict[str, list[str]], others: dict[str, list[str]]) -> str:
    whole = {f"secret/{path}": held for path, held in mount.items()} | others
    return "\n".join(f'path "{path}" {{ capabilities = {json.dumps(held)} }}' for path, held in whole.items())


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBaoServer]:
    with OpenBaoServer() as server:
        yield server


def vault(bao: OpenBaoServer, token: str | None = None, clock: Clock | None = None) -> VaultStore:
    return VaultStore(
        "vault",
        address=bao.address,
        mount="secret",
        ca_bundle=str(bao.ca),
        auth=TokenLogin(SecretValue(token or bao.root_token)),
        clock=clock or SystemClock(),
    )


@pytest.fixture(scope="module")
def filled(bao: OpenBaoServer) -> VaultStore:
    store = vault(bao)
    store.create(ENTRY, full_policy())
    rotated(store, ENTRY)
    return store


class TestVault(ExaminedStoreContract):
    @pytest.fixture
    def entry(self, filled: VaultStore) -> str:
        return ENTRY

    @pytest.fixture
    def store(self, bao: OpenBaoServer) -> VaultStore:
        return vault(bao, bao.token(policy(RIGHTS, SELF)))

    @pytest.fixture
    def late(self, bao: OpenBaoServer) -> VaultStore:
        return vault(bao, clock=FakeClock())

    @pytest.fixture
    def log(self, bao: OpenBaoServer) -> Log:
        def read() -> list[str]:
            lines = [json.loads(line) for line in bao.audit_log.read_text().splitlines()]
            asked = [line["request"] for line in lines if line["type"] == "request"]
            return [f"{each['operation']} {each['path']}" for each in asked]

        return read

    @pytest.fixture
    def writes(self) -> Callable[[str], bool]:
        """A question that is put as an update is none."""
        return lambda request: (
            request != "update sys/capabilities-self" and request.partition(" ")[0] not in ("read", "list")
        )

    @pytest.mark.parametrize(
        ("path", "right"), [(path, right) for path, held in RIGHTS.items() for right in held], ids=" ".join
    )
    def test_one_capability_less_is_told(self, bao: OpenBaoServer, path: str, right: str) -> None:
        """By its name and its exact path, without trying it; for each entry by itself."""
        less = {**RIGHTS, path: [held for held in RIGHTS[path] if held != right]}
        store = vault(bao, bao.token(policy(less, SELF)))
        found = [each for each in store.examine({ENTRY: SWEEP, self.absent: SWEEP}) if each.check == "permissions"]
        assert {each.entry for each in found} == {ENTRY, self.absent}
        for each in found:
            assert each.grade is Grade.FAILING
            assert f"'{right}' on secret/{path.removesuffix('prod/*')}{each.entry}" in each.text
            assert each.remedy

    def test_only_what_is_asked_for_must_be_allowed(self, bao: OpenBaoServer) -> None:
        """A replica keeps no journal: no right to write one is missed there."""
        less = {**RIGHTS, "metadata/prod/*": ["read"]}
        store = vault(bao, bao.token(policy(less, SELF)))
        assert failing(list(store.examine({ENTRY: ("observe", "read", "stage", "promote", "discard")}))) == []
        assert failing(list(store.examine({ENTRY: ("record",)}))) != []

    def test_a_token_that_may_not_ask_is_told(self, bao: OpenBaoServer) -> None:
        """Its rights are then unchecked, with the reason; that it can not look itself up is a warning."""
        found = by_check(list(vault(bao, bao.token(policy(RIGHTS, {}))).examine({ENTRY: SWEEP})))
        assert found == {"login": Grade.WARNING, "permissions": Grade.UNCHECKED}

    def test_a_token_of_a_person_that_ends_is_warned_of(self, bao: OpenBaoServer) -> None:
        """Nobody gets another when it has; a root token is warned of for another reason."""
        (ending,) = (f for f in vault(bao, bao.token(policy(RIGHTS, SELF))).examine({}) if f.check == "login")
        assert (ending.grade, "Keyturn can not get another" in ending.text) == (Grade.WARNING, True)
        (root,) = (f for f in vault(bao).examine({}) if f.check == "login")
        assert (root.grade, "root token" in root.text) == (Grade.WARNING, True)

    def test_silence_is_unchecked(self, bao: OpenBaoServer) -> None:
        """And no exception."""
        store = VaultStore(
            "vault", address="https://127.0.0.1:1", mount="secret", auth=TokenLogin(SecretValue("t")), clock=FakeClock()
        )
        assert {found.grade for found in store.examine({ENTRY: SWEEP})} <= {Grade.WARNING, Grade.UNCHECKED}
        assert store.skew is None
        assert bao.address != "https://127.0.0.1:1"

    def test_patience_passes_the_time_on(self, bao: OpenBaoServer, filled: VaultStore) -> None:
        """So that whoever works with a store as it is opened can ask; one that does not tell has none."""
        clock = SystemClock()
        store = PatientStore(vault(bao), Service("vault", clock, lambda: 0.5))
        store.observe(ENTRY)
        assert store.skew is not None
        assert abs(store.skew) < timedelta(seconds=5)
        memory = PatientStore(MemoryStore("m", MemoryVault(), clock.now), Service("m", clock, lambda: 0.5))
        assert memory.skew is None
        assert filled.name == store.name

    def test_readers_are_the_policies_that_grant_reading(self, bao: OpenBaoServer) -> None:
        """Not our own, and not those that reach other entries only."""
        admin = {"X-Vault-Token": bao.root_token}
        for name, text in {
            "support-copilot": f'path "secret/data/{ENTRY}" {{ capabilities = ["read"] }}',
            "everything": 'path "secret/*" { capabilities = ["read", "list"] }',
            "other": 'path "secret/data/prod/other" { capabilities = ["read"] }',
            "lists": 'path "secret/data/prod/*" { capabilities = ["list"] }',
        }.items():
            url = f"{bao.address}/v1/sys/policies/acl/{name}"
            assert requests.put(url, json={"policy": text}, headers=admin, verify=str(bao.ca), timeout=5).ok
        rights = {"sys/policies/acl": ["list"], "sys/policies/acl/*": ["read"], "auth/token/lookup-self": ["read"]}
        store = vault(bao, bao.token(policy(RIGHTS, rights)))
        told = store.readers([ENTRY, "prod/other"])
        known = {"support-copilot", "everything", "other", "lists"}
        assert set(told[ENTRY]) & known == {"support-copilot", "everything"}
        assert set(told["prod/other"]) & known == {"everything", "other"}
        (own,) = store._server.inspect("GET", "auth/token/lookup-self")["data"]["policies"]  # type: ignore[index]
        assert own not in told[ENTRY]

    def test_who_may_not_ask_for_policies_is_told_so(self, bao: OpenBaoServer) -> None:
        """The caller says that readers are unchecked, and why."""
        with pytest.raises(Trouble, match="sys/policies/acl") as caught:
            vault(bao, bao.token(policy(RIGHTS, SELF))).readers([ENTRY])
        assert caught.value.code is Code.DENIED


@pytest.mark.parametrize(
    ("text", "granted"),
    [
        ('path "secret/data/prod/a" { capabilities = ["read"] }', True),
        ('path "secret/data/prod/a" {\n  # capabilities = ["read"]\n capabilities = ["list"] /* read */ }', False),
        ('path "secret/data/prod/a" { policy = "write" }', True),
        ('path "secret/data/+/a" { capabilities = ["read"] }', True),
        ('path "secret/+/a" { capabilities = ["read"] }', False),
        ('path "secret/*" { capabilities = ["read"] }\npath "secret/data/prod/*" { capabilities = ["deny"] }', False),
        ('path "secret/*" { capabilities = ["deny"] }\npath "secret/data/prod/a" { capabilities = ["read"] }', True),
        ('path "secret/data/{{identity.entity.name}}/a" { capabilities = ["read"] }', True),
        ('path "secret/data/prod/a" { capabilities = ["read"] allowed_parameters = { "x" = ["read"] } }', True),
        (
            'path "secret/data/prod/a" { allowed_parameters = { capabilities = ["read"] } capabilities = ["list"] }',
            False,
        ),
        ('path "secret/data/prod/a" { capabilities = ["read", "deny"] }', False),
        ('{"path": {"secret/data/prod/*": {"capabilities": ["read"]}}}', True),
        ('{"path": [{"secret/data/prod/*": {"policy": "deny"}}]}', False),
        ("[]", False),
        ("no policy at all {{{", False),
        ("", False),
    ],
)
def test_what_a_policy_grants(text: str, granted: bool) -> None:
    """As Vault's documentation has it: the most specific pattern alone counts, a deny in it wins."""
    assert grants(rules(text), "secret/data/prod/a", "read") is granted


# --- Secrets Manager ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsServer]:
    """All clients share botocore's models of the services, which take 0.1 s each to parse."""
    with pytest.MonkeyPatch.context() as patch, AwsServer() as server:
        patch.setattr(botocore.session, "create_loader", cache(botocore.session.create_loader))
        yield server


def secrets_manager(aws: AwsServer, clock: Clock | None = None) -> SecretsManagerStore:
    return SecretsManagerStore(
        "aws", region=REGION, endpoint_url=aws.endpoint, login=AwsLogin(), clock=clock or SystemClock()
    )


class TestSecretsManager(ExaminedStoreContract):
    @pytest.fixture(autouse=True)
    def _login(self, aws: AwsServer, monkeypatch: pytest.MonkeyPatch) -> None:
        aws.control.reset()
        self.become(monkeypatch, aws, aws.environment(REGION))

    def become(self, monkeypatch: pytest.MonkeyPatch, aws: AwsServer, variables: dict[str, str]) -> None:
        nothing = {"AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}
        for name, text in {**variables, **nothing, "AWS_EC2_METADATA_DISABLED": "true"}.items():
            monkeypatch.setenv(name, text)

    @pytest.fixture
    def entry(self, aws: AwsServer, _login: None) -> str:
        store = secrets_manager(aws)
        store.create(ENTRY, full_policy())
        rotated(store, ENTRY)
        return ENTRY

    @pytest.fixture
    def store(self, aws: AwsServer) -> SecretsManagerStore:
        return secrets_manager(aws)

    @pytest.fixture
    def late(self, aws: AwsServer) -> SecretsManagerStore:
        return secrets_manager(aws, FakeClock())

    @pytest.fixture
    def log(self, aws: AwsServer) -> Log:
        return lambda: [call.operation.partition(":")[2] for call in aws.control.calls()]

    @pytest.fixture
    def writes(self) -> Callable[[str], bool]:
        return lambda call: not call.startswith(("Get", "List", "Describe", "Simulate"))

    def limited(
        self, aws: AwsServer, monkeypatch: pytest.MonkeyPatch, statements: Sequence[dict[str, Any]]
    ) -> SecretsManagerStore:
        """A client of a user with these statements alone."""
        iam = aws.client("iam")
        iam.create_user(UserName="rotator")
        document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        iam.put_user_policy(UserName="rotator", PolicyName="p", PolicyDocument=document)
        key = iam.create_access_key(UserName="rotator")["AccessKey"]
        login = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        self.become(monkeypatch, aws, {**aws.environment(REGION), **login})
        return secrets_manager(aws)

    def allowing(self, *actions: str, **more: Any) -> dict[str, Any]:
        resource = f"arn:aws:secretsmanager:{REGION}:*:secret:prod/*"
        return {"Effect": "Allow", "Action": [f"secretsmanager:{a}" for a in actions], "Resource": resource, **more}

    ALL = tuple(dict.fromkeys(call for operation in SWEEP for call in CALLS[operation]))

    @pytest.mark.parametrize("less", ALL)
    def test_one_permission_less_is_told(
        self, aws: AwsServer, entry: str, monkeypatch: pytest.MonkeyPatch, less: str
    ) -> None:
        """By its name, on each entry, whether it is there yet or not."""
        store = self.limited(aws, monkeypatch, [self.allowing(*(call for call in self.ALL if call != less))])
        found = [each for each in store.examine({entry: SWEEP, self.absent: SWEEP}) if each.grade is Grade.FAILING]
        assert [each.entry for each in found] == [entry, self.absent]
        assert all(f"is not allowed secretsmanager:{less} on {each.entry}" in each.text for each in found)
        assert all(each.remedy for each in found)

    def test_all_that_is_needed_is_enough(self, aws: AwsServer, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also where only the journal's own tags may be written."""
        tags = {"ForAllValues:StringLike": {"aws:TagKeys": ["keyturn:journal.*"]}}
        others = [call for call in self.ALL if "Tag" not in call]
        statements = [self.allowing(*others), self.allowing("TagResource", "UntagResource", Condition=tags)]
        found = by_check(list(self.limited(aws, monkeypatch, statements).examine({entry: SWEEP})))
        assert found == {"quota": Grade.GOOD, "login": Grade.GOOD, "permissions": Grade.GOOD}

    def test_where_the_service_rotates_it_must_be_let_start(
        self, aws: AwsServer, entry: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And nobody needs that elsewhere."""
        store = self.limited(aws, monkeypatch, [self.allowing(*self.ALL)])
        (told,) = failing(list(store.examine({entry: (*SWEEP, "start_rotation")})))
        assert "is not allowed secretsmanager:RotateSecret" in told

    def test_what_hangs_on_a_condition_is_unchecked(
        self, aws: AwsServer, entry: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is known here of the network that a request comes from."""
        condition = {"StringEquals": {"aws:SourceVpce": "vpce-1"}}
        store = self.limited(aws, monkeypatch, [self.allowing(*self.ALL, Condition=condition)])
        (found,) = (each for each in store.examine({entry: SWEEP}) if each.check == "permissions")
        assert found.grade is Grade.UNCHECKED
        assert "depends on aws:SourceVpce" in found.text

    @pytest.mark.parametrize("kind", ["denied", "drop"])
    def test_a_login_that_may_not_ask_is_told(self, aws: AwsServer, entry: str, kind: Any) -> None:
        """Who it is, STS tells everybody."""
        aws.control.fail("iam:SimulatePrincipalPolicy", kind, times=9)
        found = list(secrets_manager(aws).examine({entry: SWEEP}))
        assert by_check(found) == {"quota": Grade.GOOD, "login": Grade.GOOD, "permissions": Grade.UNCHECKED}
        assert "iam:SimulatePrincipalPolicy" in found[-1].text

    def test_more_than_quotas_allow_is_warned_of(self, store: SecretsManagerStore) -> None:
        """Before anything is asked."""
        work: dict[str, Sequence[str]] = {f"prod/a-{number}": SWEEP for number in range(501)}
        assert next(store.examine(work)).grade is Grade.WARNING

    def test_readers_are_the_principals_of_the_resource_policy(
        self, aws: AwsServer, entry: str, store: SecretsManagerStore
    ) -> None:
        """All who are let read, whatever the statement's form; none without a policy; entries that are absent are left out."""
        role = "arn:aws:iam::123456789012:role/support-copilot"
        statements = [
            {"Effect": "Allow", "Principal": {"AWS": [role]}, "Action": "secretsmanager:Get*", "Resource": "*"},
            {"Effect": "Allow", "Principal": {"Service": "x.amazonaws.com"}, "Action": "*", "Resource": "*"},
            {"Effect": "Allow", "Principal": "*", "Action": "secretsmanager:DescribeSecret", "Resource": "*"},
            {"Effect": "Deny", "Principal": {"AWS": "arn:aws:iam::1:root"}, "Action": "*", "Resource": "*"},
            {"Effect": "Allow", "NotPrincipal": {"AWS": role}, "NotAction": "secretsmanager:Put*", "Resource": "*"},
            {"Effect": "Allow", "Principal": "*", "Action": "secretsmanager:getsecretvalue", "Resource": "*"},
        ]
        console = aws.client("secretsmanager")
        assert store.readers([entry, self.absent]) == {entry: []}
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        console.put_resource_policy(SecretId=entry, ResourcePolicy=policy, BlockPublicPolicy=False)
        everybody = ["everybody but those that a statement names", "everybody"]
        assert store.readers([entry]) == {entry: [role, "x.amazonaws.com", *everybody]}

    def test_who_may_not_ask_for_resource_policies_is_told_so(
        self, aws: AwsServer, entry: str, store: SecretsManagerStore
    ) -> None:
        """The caller says that readers are unchecked, and why."""
        aws.control.fail("GetResourcePolicy", "denied")
        with pytest.raises(Trouble, match="lacks secretsmanager:GetResourcePolicy"):
            store.readers([entry])


# --- Key Vault ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kv() -> Iterator[KeyVaultServer]:
    with KeyVaultServer() as server:
        yield server


def key_vault(kv: KeyVaultServer, clock: Clock | None = None) -> KeyVaultStore:
    return KeyVaultStore(
        "keyvault",
        vault_url=kv.vault_url,
        login=AzureLogin(authority_host=kv.authority),
        ca_bundle=kv.ca,
        verify_challenge_resource=False,
        clock=clock or SystemClock(),
    )


class TestKeyVault(ExaminedStoreContract):
    absent = "prod--not-applied-yet"

    @pytest.fixture(autouse=True)
    def _login(self, kv: KeyVaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
        kv.vault.reset()
        kv.control.clear_faults()
        self.become(monkeypatch, kv, kv.client_id, kv.client_secret)

    def become(self, monkeypatch: pytest.MonkeyPatch, kv: KeyVaultServer, client_id: str, client_secret: str) -> None:
        monkeypatch.setenv("AZURE_TENANT_ID", kv.tenant_id)
        monkeypatch.setenv("AZURE_CLIENT_ID", client_id)
        monkeypatch.setenv("AZURE_CLIENT_SECRET", client_secret)

    @pytest.fixture
    def entry(self, kv: KeyVaultServer, _login: None) -> str:
        store = key_vault(kv)
        store.create("prod--support-copilot-chat", full_policy())
        rotated(store, "prod--support-copilot-chat")
        return "prod--support-copilot-chat"

    @pytest.fixture
    def store(self, kv: KeyVaultServer) -> KeyVaultStore:
        return key_vault(kv)

    @pytest.fixture
    def late(self, kv: KeyVaultServer) -> KeyVaultStore:
        return key_vault(kv, FakeClock())

    @pytest.fixture
    def log(self, kv: KeyVaultServer) -> Log:
        return lambda: [f"{record.method} {record.path}" for record in kv.control.log]

    @pytest.fixture
    def writes(self) -> Callable[[str], bool]:
        return lambda request: not request.startswith("GET ")

    @pytest.mark.parametrize(("less", "action"), [("get", "getSecret/action"), ("list", "readMetadata/action")])
    def test_a_permission_to_read_that_is_missing_is_told(
        self, kv: KeyVaultServer, entry: str, monkeypatch: pytest.MonkeyPatch, less: str, action: str
    ) -> None:
        """By what a 403 says, once for each entry."""
        allowed = frozenset({"get", "set", "list"} - {less})
        kv.add_principal(Principal("limited", "s", allow=(Rule(allowed),)))
        self.become(monkeypatch, kv, "limited", "s")
        found = [each for each in key_vault(kv).examine({entry: SWEEP, self.absent: SWEEP}) if each.entry]
        assert {each.grade for each in found} == {Grade.FAILING}
        told = [each.entry for each in found if f"lacks Microsoft.KeyVault/vaults/secrets/{action}" in each.text]
        assert told == [entry, self.absent]
        assert all(each.remedy for each in found)

    def test_writing_is_not_tried(self, entry: str, store: KeyVaultStore) -> None:
        """And said to be unchecked: nothing but a write would tell."""
        found = by_check(list(store.examine({entry: SWEEP})))
        assert found == {"quota": Grade.GOOD, "permissions": Grade.GOOD, "permissions to write": Grade.UNCHECKED}

    def test_silence_is_unchecked(self, kv: KeyVaultServer, entry: str, store: KeyVaultStore) -> None:
        """And no exception."""
        for path in ("/secrets/*", "/deletedsecrets/*"):
            kv.control.fail("GET", path, 503, times=99)
        grades = [found.grade for found in store.examine({entry: SWEEP}) if found.entry]
        assert grades
        assert set(grades) == {Grade.UNCHECKED}

    def test_a_fault_of_the_token_service_is_no_refusal(self) -> None:
        """Whoever reads it has nothing to grant; azure-identity says it in words only."""
        told = "DefaultAzureCredential failed.\n\tEnvironmentCredential: Authentication failed: HTTP Error: 503"
        assert _Token(None, "a login")._failed(told, "ClientAuthenticationError").code is Code.UNAVAILABLE

    def test_more_than_quotas_allow_is_warned_of(self, store: KeyVaultStore) -> None:
        """Before anything is asked."""
        work: dict[str, Sequence[str]] = {f"prod--a-{number}": SWEEP for number in range(226)}
        assert next(store.examine(work)).grade is Grade.WARNING
