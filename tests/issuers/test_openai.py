"""OpenAI as described, against its stand-in: the contract in both ways of making keys, and what is peculiar to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests

from providers.issuers.http import HttpIssuer
from providers.issuers.language import DescriptionFault
from providers.issuers.reading import shipped
from rotation.errors import Code, Trouble
from rotation.model import Credential, SecretValue, Verdict
from rotation.ports import Grade, Issuer
from sandbox.openai.harness import OpenAIServer
from tests.contracts.issuer import IssuerContract, IssuerHarness, Mishap, Operation, key_name
from tests.world import FakeClock

FAULTS: dict[Mishap, dict[str, Any]] = {
    Mishap.LOST_BEFORE: {},
    Mishap.LOST_AFTER: {"when": "after"},
    Mishap.FAULT_BEFORE: {"status": 503},
    Mishap.FAULT_AFTER: {"when": "after", "status": 500},
    Mishap.THROTTLED: {"status": 429, "code": "rate_limit_exceeded", "retry_after": 7},
    Mishap.ADDRESS_REFUSED: {"status": 401, "code": "ip_not_authorized"},
}


class OpenAIHarness(IssuerHarness):
    """A project of a stand-in with propagation delays, which the test's clock drives."""

    more_than_a_page = 103
    unknown_ids = ("key_0", "svc_acct_0/key_0")

    def __init__(self, server: OpenAIServer, clock: FakeClock, *, shared: bool) -> None:
        self.clock = clock
        self.server = server
        self.control = server.control
        self.control.reset()
        self.project = self.admin("POST", "projects", {"name": "Support"})["id"]
        self.variables: dict[str, str | int] = {"project": self.project, "baseUrl": server.base_url}
        self.account: str | None = self.account_in_use("shared") if shared else None
        if self.account:
            self.variables["serviceAccount"] = self.account
        self.open: list[HttpIssuer] = []
        self.issuer = self.client()
        self.control.configure(create_delay=2, revoke_delay=3)

    def client(self, admin: Callable[[], SecretValue] | None = None, **variables: str | int) -> HttpIssuer:
        get_admin = admin or (lambda: SecretValue(self.server.admin_key))
        issuer = HttpIssuer("openai", shipped("openai"), {**self.variables, **variables}, get_admin, self.clock)
        self.open.append(issuer)
        return issuer

    def without_admin(self) -> Issuer:
        def refuse() -> SecretValue:
            raise AssertionError("the administrative credential was asked for")

        return self.client(refuse)

    def use(self, credential: Credential) -> bool:
        headers = {"Authorization": f"Bearer {credential.fields['value'].reveal()}"}
        body = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "ping"}]}
        return requests.post(f"{self.server.base_url}/chat/completions", json=body, headers=headers, timeout=5).ok

    def live(self) -> int:
        return sum(key["deleted_at"] is None and key["project_id"] == self.project for key in self.control.issued())

    def mints(self) -> int:
        ends = "/service_accounts" if self.account is None else "/api_keys"
        return sum(r["method"] == "POST" and r["path"].endswith(ends) for r in self.control.requests())

    def happen(self, mishap: Mishap, operation: Operation) -> None:
        project = f"/v1/organization/projects/{self.project}"
        accounts = f"{project}/service_accounts"
        method, path = {
            "mint": ("POST", accounts if self.account is None else f"{accounts}/*/api_keys"),
            "keys": ("GET", f"{project}/api_keys"),
            "verify": ("GET", "/v1/models"),
            "revoke": ("DELETE", f"{project}/api_keys/*"),
            "last_use": ("GET", f"{project}/api_keys/*"),
        }[operation]
        self.control.fault(method, path, **FAULTS[mishap])

    def secrets(self) -> Iterable[str]:
        return [self.server.admin_key]

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """A request of a person with the administrative credential."""
        headers = {"Authorization": f"Bearer {self.server.admin_key}"}
        url = f"{self.server.base_url}/organization/{path}"
        answer = requests.request(method, url, json=body, headers=headers, timeout=5)
        answer.raise_for_status()
        return answer.json()

    def account_in_use(self, name: str) -> str:
        """A service account with a role and no keys of ours."""
        path = f"projects/{self.project}/service_accounts"
        account = str(self.admin("POST", path, {"name": name, "create_service_account_only": True})["id"])
        self.admin("POST", f"{path}/{account}", {"role": "member"})
        return account

    def accounts(self) -> set[str]:
        listed = self.admin("GET", f"projects/{self.project}/service_accounts?limit=100")
        return {account["name"] for account in listed["data"]}


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[OpenAIServer, FakeClock]]:
    """One for all tests; each has a project of its own."""
    clock = FakeClock()
    with OpenAIServer(now=clock.now) as server:
        yield server, clock


def made(server: tuple[OpenAIServer, FakeClock], *, shared: bool) -> Iterator[OpenAIHarness]:
    harness = OpenAIHarness(*server, shared=shared)
    yield harness
    for issuer in harness.open:
        issuer.close()


@pytest.fixture
def shared(server: tuple[OpenAIServer, FakeClock]) -> Iterator[OpenAIHarness]:
    """All keys under one service account."""
    yield from made(server, shared=True)


@pytest.fixture
def separate(server: tuple[OpenAIServer, FakeClock]) -> Iterator[OpenAIHarness]:
    """A service account for each key."""
    yield from made(server, shared=False)


class TestSharedAccount(IssuerContract):
    @pytest.fixture
    def harness(self, shared: OpenAIHarness) -> IssuerHarness:
        return shared


class TestAccountPerKey(IssuerContract):
    @pytest.fixture
    def harness(self, separate: OpenAIHarness) -> IssuerHarness:
        return separate


class TestWhereKeysOfAccountsCanNotBeDeleted(IssuerContract):
    @pytest.fixture
    def harness(self, separate: OpenAIHarness) -> IssuerHarness:
        separate.control.configure(deny_service_account_key_delete=True)
        return separate


class TestRevocation:
    def test_a_separate_account_goes_with_its_key(self, separate: OpenAIHarness) -> None:
        """Nothing is left behind in the project."""
        issued = separate.minted(key_name("token1"))
        assert separate.accounts() == {key_name("token1")}
        separate.issuer.revoke(issued.key_id)
        assert separate.accounts() == set()

    def test_an_account_left_by_an_interrupted_revocation_goes_with_the_next(self, separate: OpenAIHarness) -> None:
        """The key is gone already; the second step still runs."""
        issued = separate.minted(key_name("token1"))
        separate.control.fault("DELETE", f"/v1/organization/projects/{separate.project}/service_accounts/*")
        with pytest.raises(Trouble):
            separate.issuer.revoke(issued.key_id)
        assert (separate.live(), separate.accounts()) == (0, {key_name("token1")})
        separate.issuer.revoke(issued.key_id)
        assert separate.accounts() == set()

    def test_a_shared_account_is_never_deleted(self, shared: OpenAIHarness) -> None:
        """Not even by an issuer that is configured to make an account for each key."""
        issued, other = shared.minted(key_name("token1")), shared.minted(key_name("token2"))
        del shared.variables["serviceAccount"]
        later = shared.client()
        assert {info.key_id for info in later.keys()} == {issued.key_id, other.key_id}  # noqa: SIM118 - not a mapping
        later.revoke(issued.key_id)
        assert shared.accounts() == {"shared"}
        assert shared.live() == 1

    def test_a_separate_account_is_found_by_an_issuer_configured_to_share(self, separate: OpenAIHarness) -> None:
        """Changing the configuration makes no key disappear from the list: that would pass for a proof."""
        issued = separate.minted(key_name("token1"))
        later = separate.client(serviceAccount=separate.account_in_use("shared"))
        assert [(k.name, k.key_id) for k in later.keys()] == [(key_name("token1"), issued.key_id)]  # noqa: SIM118
        later.revoke(issued.key_id)
        assert (separate.live(), separate.accounts()) == (0, {"shared"})

    def test_a_foreign_account_is_never_part_of_an_id(self, shared: OpenAIHarness) -> None:
        """Revoking such a key, once adopted, must leave its account and all its other keys alone."""
        accounts = f"projects/{shared.project}/service_accounts"
        foreign = shared.admin("POST", accounts, {"name": "Production App"})
        person = shared.control.create_user_key(shared.project, "my laptop")
        listed = {info.key_id: info.name for info in shared.listed()}
        assert listed == {foreign["api_key"]["id"]: "Secret Key", person["id"]: "my laptop"}

    def test_where_a_shared_accounts_key_can_not_be_deleted(self, shared: OpenAIHarness) -> None:
        """It says what to do; the key is still alive."""
        issued = shared.minted(key_name("token1"))
        shared.control.configure(deny_service_account_key_delete=True)
        with pytest.raises(Trouble, match="without serviceAccount") as raised:
            shared.issuer.revoke(issued.key_id)
        assert raised.value.code is Code.INVALID
        assert shared.live() == 1

    @pytest.mark.parametrize("key_id", ["..", "", "a/b/c", "svc_acct_0/..", "%2e%2e", "."])
    def test_an_id_can_not_lead_elsewhere(self, shared: OpenAIHarness, key_id: str) -> None:
        """DELETE …/api_keys/.. would be a DELETE of something else."""
        before = len(shared.control.requests())
        with pytest.raises(Trouble) as raised:
            shared.issuer.revoke(key_id)
        assert raised.value.code is Code.INVALID
        deleted = [r["path"] for r in shared.control.requests()[before:]]
        assert deleted in ([], [f"/v1/organization/projects/{shared.project}/service_accounts/svc_acct_0"])


class TestVerdicts:
    def test_the_ip_allowlist_does_not_make_a_key_invalid(self, shared: OpenAIHarness) -> None:
        """The key is as good as ever from where its consumers are."""
        issued = shared.minted(key_name("token1"))
        shared.control.configure(ip_allowlist=["192.0.2.0/24"])
        check = shared.issuer.verify(issued.credential)
        assert check.verdict is Verdict.UNKNOWN
        assert "IP allowlist" in check.reason
        assert "ip_not_authorized" in check.reason

    def test_an_administrator_is_told_what_was_refused(self, shared: OpenAIHarness) -> None:
        """A wrong admin key, an address that is not let in, and what another kind of key may not do."""
        wrong = shared.client(admin=lambda: SecretValue("sk-admin-" + "x" * 40))
        with pytest.raises(Trouble, match="the admin key is refused") as raised:
            list(wrong.keys())
        assert raised.value.code is Code.DENIED
        issued = shared.minted(key_name("token1"))
        with pytest.raises(Trouble, match="the admin key lacks a scope") as raised:
            list(shared.client(admin=lambda: issued.credential.fields["value"]).keys())
        assert raised.value.code is Code.DENIED
        shared.control.fault(
            "GET", f"/v1/organization/projects/{shared.project}/*", status=401, code="ip_not_authorized"
        )
        with pytest.raises(Trouble, match="may not be on the IP allowlist") as raised:
            list(shared.issuer.keys())
        assert raised.value.code is Code.DENIED

    def test_a_key_without_the_scope_to_list_models_is_live(self, shared: OpenAIHarness) -> None:
        """Narrowed, but accepted: limited."""
        path = f"projects/{shared.project}/service_accounts/{shared.account}/api_keys"
        narrow = shared.admin("POST", path, {"name": "narrow", "scopes": ["model.request"]})
        shared.clock.move(shared.issuer.capabilities.create.timeout)
        check = shared.issuer.verify(Credential.of(value=narrow["value"]))
        assert check.verdict is Verdict.LIMITED
        assert shared.issuer.smoke(Credential.of(value=narrow["value"])).verdict is Verdict.VALID

    def test_a_smoke_test_fails_where_the_model_may_not_be_asked(self, shared: OpenAIHarness) -> None:
        """Accepted or not: what the consumers need does not work."""
        path = f"projects/{shared.project}/service_accounts/{shared.account}/api_keys"
        narrow = shared.admin("POST", path, {"name": "narrow", "scopes": ["api.model.read"]})
        shared.clock.move(shared.issuer.capabilities.create.timeout)
        assert shared.issuer.verify(Credential.of(value=narrow["value"])).verdict is Verdict.VALID
        assert not shared.issuer.smoke(Credential.of(value=narrow["value"])).verdict.live

    @pytest.mark.parametrize(
        ("status", "code", "verdict"),
        [
            (401, "invalid_api_key", Verdict.INVALID),
            (401, None, Verdict.UNKNOWN),
            (401, "account_deactivated", Verdict.UNKNOWN),
            (403, "unsupported_country_region_territory", Verdict.UNKNOWN),
            (404, None, Verdict.UNKNOWN),
            (429, "insufficient_quota", Verdict.LIMITED),
            (429, "rate_limit_exceeded", Verdict.UNKNOWN),
            (500, None, Verdict.UNKNOWN),
            (503, "invalid_api_key", Verdict.UNKNOWN),
        ],
    )
    def test_only_one_answer_is_about_the_key(
        self, shared: OpenAIHarness, status: int, code: str | None, verdict: Verdict
    ) -> None:
        """Everything else leaves open whether the key is alive."""
        issued = shared.minted(key_name("token1"))
        shared.control.fault("GET", "/v1/models", status=status, code=code)
        check = shared.issuer.verify(issued.credential)
        assert check.verdict is verdict
        assert check.request_id
        assert check.request_id.startswith("req_")

    @pytest.mark.parametrize("body", [None, {}, {"object": "error"}, {"data": []}, "<html>Welcome</html>"])
    def test_a_success_of_somebody_else_is_none(self, body: Any) -> None:
        """A proxy or a captive portal answers 200 to everything; only a list of models is OpenAI's yes."""
        openai = shipped("openai")
        assert openai.smoke is not None
        assert not [rule for rule in openai.verify.rules + openai.smoke.rules if rule.matches(200, body)]

    def test_the_vendor_sees_nobody_but_the_new_key(self, shared: OpenAIHarness) -> None:
        """As the stand-in's log tells."""
        issued = shared.minted(key_name("token1"))
        before = len(shared.control.requests())
        shared.issuer.verify(issued.credential)
        shared.issuer.smoke(issued.credential)
        assert [r["key_id"] for r in shared.control.requests()[before:]] == [issued.key_id] * 2

    def test_a_smoke_test_records_what_was_answered(self, shared: OpenAIHarness) -> None:
        """Model, request id, latency and rate limits, for the audit trail."""
        issued = shared.minted(key_name("token1"))
        check = shared.client(smokeModel="gpt-4o-mini").smoke(issued.credential)
        assert check.facts["model"] == "gpt-4o-mini"
        assert check.facts["status"] == "200"
        assert check.facts["latency_ms"].isdecimal()
        assert {"x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens"} <= check.facts.keys()
        assert check.request_id == shared.control.requests()[-1]["request_id"]

    def test_a_model_that_the_project_has_not(self, shared: OpenAIHarness) -> None:
        """Says so; it is no fault of the key."""
        issued = shared.minted(key_name("token1"))
        check = shared.client(smokeModel="no-such-model").smoke(issued.credential)
        assert check.verdict is Verdict.UNKNOWN
        assert "no such model" in check.reason


class TestKeys:
    def test_a_lifetime_is_asked_for_when_configured(self, shared: OpenAIHarness) -> None:
        """As a number, in seconds; the vendor ends the key by itself."""
        issued = shared.client(expiresIn=3600).mint(key_name("token1"))
        (key,) = shared.admin("GET", f"projects/{shared.project}/api_keys?owner_project_access=any")["data"]
        assert key["id"] == issued.key_id
        assert key["expires_at"] == key["created_at"] + 3600

    def test_a_key_with_a_lifetime_says_when_it_ends(self, shared: OpenAIHarness, separate: OpenAIHarness) -> None:
        """In both ways of making one; the engine then replaces it in time."""
        for harness in (shared, separate):
            issued = harness.client(expiresIn=3600).mint(key_name("a"))
            assert issued.created_at is not None
            assert issued.expires_at == issued.created_at + timedelta(hours=1)
            assert harness.client().mint(key_name("b")).expires_at is None

    def test_no_lifetime_is_asked_for_otherwise(self, separate: OpenAIHarness) -> None:
        """The field is left out; it is not in the older description of the API."""
        separate.issuer.mint(key_name("token1"))
        (key,) = separate.admin("GET", f"projects/{separate.project}/api_keys?owner_project_access=any")["data"]
        assert key["expires_at"] is None

    def test_keys_of_an_account_without_access_are_listed(self, shared: OpenAIHarness) -> None:
        """They are alive, and would be hidden by default."""
        path = f"projects/{shared.project}/service_accounts"
        account = shared.admin("POST", path, {"name": "no role", "create_service_account_only": True})["id"]
        issued = shared.client(serviceAccount=account).mint(key_name("token1"))
        assert issued.key_id in {info.key_id for info in shared.listed()}

    def test_a_wrong_account_or_project_is_not_found(self, shared: OpenAIHarness) -> None:
        """Permanent: a person has to change something. Nothing was made."""
        for wrong in (shared.client(serviceAccount="svc_acct_0"), shared.client(project="proj_0")):
            with pytest.raises(Trouble) as raised:
                wrong.mint(key_name("token1"))
            assert raised.value.code is Code.NOT_FOUND
            assert not raised.value.maybe_applied
        with pytest.raises(Trouble) as raised:
            list(shared.client(project="proj_0").keys())
        assert raised.value.code is Code.NOT_FOUND

    def test_a_wrong_admin_key_is_denied(self, shared: OpenAIHarness) -> None:
        """And not repeated, in whole or in part."""
        wrong = "sk-admin-0123456789abcdefghijklmnopqrstuvwxyz"
        with pytest.raises(Trouble) as raised:
            shared.client(lambda: SecretValue(wrong)).mint(key_name("token1"))
        assert raised.value.code is Code.DENIED
        assert "invalid_api_key" in str(raised.value)
        assert wrong[-4:] not in str(raised.value)

    def test_the_admin_key_in_use_is_known_among_others(self, shared: OpenAIHarness) -> None:
        """By what OpenAI shows of it; one that ends soon is warned of."""
        shared.admin("POST", "admin_api_keys", {"name": "another"})
        ending = shared.admin("POST", "admin_api_keys", {"name": "rotation", "expires_in_seconds": 86_400})
        shared.clock.sleep(3)  # until it is accepted everywhere
        found = next(iter(shared.client().examine()))
        assert (found.grade, "no end is told" in found.text) == (Grade.GOOD, True)
        found = next(iter(shared.client(lambda: SecretValue(ending["value"])).examine()))
        assert found.grade is Grade.WARNING
        assert found.text.startswith("it is called rotation, made 0 h ago; ends ")
        assert ending["value"] not in found.text + found.remedy

    def test_the_vendors_clock_is_told(self, shared: OpenAIHarness) -> None:
        """The stand-in's goes by the test's clock; another machine's may be off."""
        issuer = shared.client()
        list(issuer.keys())
        assert issuer.skew is not None
        assert abs(issuer.skew) < timedelta(seconds=2)
        late = FakeClock()
        late.move(shared.clock.now() - late.now() + timedelta(minutes=10))
        variables = shared.variables
        with HttpIssuer(
            "openai", shipped("openai"), variables, lambda: SecretValue(shared.server.admin_key), late
        ) as off:
            list(off.keys())
            assert off.skew is not None
            assert timedelta(minutes=9) < off.skew < timedelta(minutes=11)

    def test_a_throttled_call_says_when_to_come_back(self, shared: OpenAIHarness) -> None:
        """From Retry-After."""
        shared.happen(Mishap.THROTTLED, "keys")
        with pytest.raises(Trouble) as raised:
            list(shared.issuer.keys())
        assert raised.value.retry_after == 7

    def test_the_project_is_needed(self) -> None:
        """Said before anything is sent."""
        with pytest.raises(DescriptionFault, match="openai: project: is needed: the id of the project"):
            HttpIssuer("openai", shipped("openai"), {}, lambda: SecretValue("x"), FakeClock())
