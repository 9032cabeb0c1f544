"""The Azure Functions host: what it answers, what it puts into the queue, and what the runs do at a real-enough vault."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rotation import batches
from rotation import policy as policies
from rotation.assembly import Assembly, assemble
from rotation.config import Config, ConfigError, parse
from rotation.functions import azure_functions
from rotation.functions.azure_functions import (
    FLEET,
    Host,
    Prompt,
    Redeliver,
    SweepFailed,
    is_fleet,
    open_host,
    preflight,
    prompts,
)
from rotation.functions.event_grid import Mangled
from rotation.model import SecretValue
from rotation.sweep import Ended
from sandbox.keyvault.harness import KeyVaultServer
from sandbox.openai.harness import OpenAIServer
from tests.functions.events import EXPIRED, NEAR, NEW, VAULT, body, cloud_event, data, event, odd_data, validation
from tests.functions.test_event_grid import changed_events
from tests.world import FakeClock, Trail

ROOT = Path(__file__).parents[2]
CHAT, BATCH, HOOK = "support-copilot-chat", "support-copilot-batch", "support-copilot-webhook"
ENTRY = f"prod--{CHAT}"
VENDOR = {"kind": "openai", "project": "proj_x", "admin": {"env": "OPENAI_ADMIN_KEY"}}


def declared(**changed: Any) -> dict[str, Any]:
    """A stack with one vault, two keys of OpenAI and a password."""
    usual = {"store": "azure", "owner": "support-platform", "rotateEvery": "30d", "grace": "24h"}
    whole = {
        "installation": "acme",
        "environment": "prod",
        "stores": {"azure": {"kind": "azure-key-vault", "vaultUrl": f"https://{VAULT}.vault.azure.net"}},
        "issuers": {"openai": VENDOR, "generated": {"kind": "generated"}},
        "owners": {"support-platform": {"notify": []}},
        "secrets": [
            {"name": CHAT, "issuer": "openai", **usual},
            {"name": BATCH, "issuer": "openai", **usual},
            {"name": HOOK, "issuer": "generated", **usual},
        ],
    } | changed
    return {f"keyturn:{key}": value for key, value in whole.items()}


@pytest.fixture(scope="module")
def config() -> Config:
    return parse(declared())


def unopened() -> Assembly:
    raise AssertionError("the webhook must not need any service")


@pytest.fixture(scope="module")
def webhook(config: Config) -> Host:
    """A host that can answer, and do nothing else."""
    return Host(config, unopened)


def posted(host: Host, *events: object) -> azure_functions.Answer:
    return host.answer("POST", {"aeg-event-type": "Notification"}, body(*events))


# --- the webhook -----------------------------------------------------------------------------------


@pytest.mark.parametrize("envelope", [event, cloud_event])
@pytest.mark.parametrize("about", [data, odd_data])
@pytest.mark.parametrize("kind", [NEAR, EXPIRED])
def test_an_event_puts_its_secret_into_the_queue(webhook: Host, envelope: Any, about: Any, kind: str) -> None:
    """In both envelopes, in the spelling of the service and in that of the published sample."""
    answer = posted(webhook, envelope(kind, about(ENTRY), ENTRY))
    assert (answer.status, answer.prompts) == (HTTPStatus.OK, (Prompt(CHAT, "azure"),))
    assert prompts(str(answer.prompts[0]), webhook.config) == [Prompt(CHAT, "azure")]


def test_a_new_version_is_looked_at_only(webhook: Host, caplog: pytest.LogCaptureFixture) -> None:
    """It is what our own run made; somebody else's is the next sweep's."""
    caplog.set_level(logging.INFO)
    answer = posted(webhook, event(NEW, data(ENTRY), ENTRY))
    assert (answer.status, answer.prompts) == (HTTPStatus.OK, ())
    assert f"event about {CHAT}: looked at only" in caplog.text


def test_one_batch_asks_once_for_each_secret(webhook: Host) -> None:
    """Duplicates and disorder within it cost nothing."""
    first, second = event(NEAR, data(ENTRY), ENTRY), event(EXPIRED, data(f"prod--{BATCH}"), f"prod--{BATCH}")
    answer = posted(webhook, second, first, first, event(EXPIRED, data(ENTRY), ENTRY))
    assert [prompt.secret for prompt in answer.prompts] == [BATCH, CHAT]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (event(NEAR, data(f"staging--{CHAT}"), f"staging--{CHAT}"), "not of the environment prod"),
        (event(NEAR, data("database"), "database"), "not of the environment prod"),
        (event(NEAR, data(f"{ENTRY}-pending"), f"{ENTRY}-pending"), "not the name of a secret"),
        (event(NEAR, data(f"{ENTRY}-journal"), f"{ENTRY}-journal"), "not the name of a secret"),
        (event(NEAR, data("prod--x"), "prod--x"), "not the name of a secret"),
        (
            event(NEAR, data(ENTRY, host="z.vault.azure.net", vault="z"), ENTRY, topic="/elsewhere"),
            "none of this stack's stores",
        ),
        (event("Microsoft.KeyVault.KeyExpired", data(ENTRY), ENTRY), "event of another kind"),
        (event("Contoso.Items.Received", {"a": 1}, "x"), "event of another kind"),
    ],
)
def test_what_is_not_ours_is_answered_well_and_told(
    webhook: Host, caplog: pytest.LogCaptureFixture, given: Mapping[str, Any], told: str
) -> None:
    """Otherwise Event Grid would send it again for a day."""
    caplog.set_level(logging.INFO)
    answer = posted(webhook, given)
    assert (answer.status, answer.prompts) == (HTTPStatus.OK, ())
    assert told in caplog.text


@pytest.mark.parametrize("given", [b"", b"{", b'"x"', b"[1]", body({"id": 1}), body(event(NEAR, {}, ENTRY))])
def test_what_can_not_be_understood_is_refused_for_good(webhook: Host, given: bytes) -> None:
    """400: it would be as mangled the next time."""
    assert webhook.answer("POST", {}, given).status is HTTPStatus.BAD_REQUEST


def test_a_good_event_is_heard_beside_a_mangled_one(webhook: Host) -> None:
    """A 400 would lose it: it is not sent again."""
    answer = posted(webhook, "what?", event(NEAR, data(ENTRY), ENTRY))
    assert (answer.status, answer.prompts) == (HTTPStatus.OK, (Prompt(CHAT, "azure"),))


def test_a_subscription_is_validated_by_repeating_its_code(webhook: Host) -> None:
    """As Event Grid's own schema has it; the address in the event is not visited."""
    answer = webhook.answer("POST", {"aeg-event-type": "SubscriptionValidation"}, body(validation("512d38b6")))
    assert (answer.status, json.loads(answer.body)) == (HTTPStatus.OK, {"validationResponse": "512d38b6"})
    assert answer.headers["Content-Type"] == "application/json"


def test_a_cloud_events_subscription_is_validated_by_its_headers(webhook: Host) -> None:
    """The origin is repeated, and any rate allowed where one was asked for; nobody else may send events here."""
    asked = {"WebHook-Request-Origin": "eventgrid.azure.net", "WebHook-Request-Rate": "120"}
    answer = webhook.answer("OPTIONS", asked, b"")
    assert answer.status is HTTPStatus.OK
    assert answer.headers == {"WebHook-Allowed-Origin": "eventgrid.azure.net", "WebHook-Allowed-Rate": "*"}
    assert preflight({"webhook-request-origin": "eventgrid.azure.net"}).headers == {
        "WebHook-Allowed-Origin": "eventgrid.azure.net"
    }
    for origin in ("", "example.com", "eventgrid.azure.net\r\nX: y"):
        assert preflight({"webhook-request-origin": origin}).status is HTTPStatus.BAD_REQUEST
    assert webhook.answer("GET", {}, b"").status is HTTPStatus.METHOD_NOT_ALLOWED


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changed_events() | st.binary())
def test_whatever_is_posted_never_prompts_another_secret(webhook: Host, given: bytes) -> None:
    """It is answered with 200 or 400, and asks for what was meant or for nothing."""
    answer = webhook.answer("POST", {}, given)
    assert answer.status in (HTTPStatus.OK, HTTPStatus.BAD_REQUEST)
    assert set(answer.prompts) <= {Prompt(CHAT, "azure")}
    assert answer.status is HTTPStatus.OK or not answer.prompts


# --- messages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [CHAT, f"  {CHAT}\n", f'"{CHAT}"', f'{{"secret": "{CHAT}"}}', f'{{"secret": "{CHAT}", "more": 1}}'.encode()],
)
def test_a_message_is_a_name_or_says_one(config: Config, given: bytes | str) -> None:
    """However a person or a script has put it."""
    assert prompts(given, config) == [Prompt(CHAT)]


def test_events_may_come_by_the_queue_itself(config: Config) -> None:
    """A subscription can deliver to a storage queue, without the webhook."""
    one = event(NEAR, data(ENTRY), ENTRY)
    assert prompts(json.dumps(one), config) == prompts(body(one), config) == [Prompt(CHAT, "azure")]
    assert prompts(body(event(NEAR, data("database"), "database")), config) == []


@pytest.mark.parametrize(
    "given",
    ["", "Support Copilot", "../x", b"\xff", "{", '{"secret": 5}', f'{{"secret": "{CHAT}", "store": 1}}', "[" * 99999],
)
def test_a_message_that_names_nothing_is_mangled_and_dropped(
    webhook: Host, caplog: pytest.LogCaptureFixture, given: bytes | str
) -> None:
    """It would be the same each time, so it does not come again; and no engine is opened for it."""
    with pytest.raises(Mangled):
        prompts(given, webhook.config)
    assert webhook.run(given) == []
    assert "message dropped" in caplog.text


# --- end to end ------------------------------------------------------------------------------------


class Site:
    """A vault, an issuer and an app over them, on one clock that stands still unless it is moved."""

    def __init__(self, vault: KeyVaultServer, openai: OpenAIServer, clock: FakeClock, folder: Path) -> None:
        self.vault, self.openai, self.clock, self.folder = vault, openai, clock, folder
        self.trail = Trail()
        self.project = self._project()
        here = {"authorityHost": vault.authority, "caBundle": vault.ca, "verifyChallengeResource": False}
        issuer = VENDOR | {"project": self.project, "baseUrl": openai.base_url}
        store = {"kind": "azure-key-vault", "vaultUrl": vault.vault_url, **here}
        self.declared = declared(
            stores={"azure": store}, issuers={"openai": issuer, "generated": {"kind": "generated"}}
        )
        self.config = parse(self.declared)
        self.env = {"OPENAI_ADMIN_KEY": openai.admin_key}

    def _project(self) -> str:
        headers = {"Authorization": f"Bearer {self.openai.admin_key}"}
        url = f"{self.openai.base_url}/organization/projects"
        return str(requests.post(url, json={"name": "functions"}, headers=headers, timeout=10).json()["id"])

    def app(self) -> Host:
        """A fresh instance of the app, as the platform starts one whenever it likes."""
        return Host(self.config, lambda: assemble(self.config, self.env, self.trail, self.clock))

    def apply(self, *names: str) -> None:
        assembly = assemble(self.config, self.env, self.trail, self.clock)
        for policy in self.config.policies:
            if policy.name in names:
                target = assembly.target(policy)
                assembly.stores[target.store].create(target.entry, policies.written(policy))

    def event(self, kind: str, name: str) -> dict[str, Any]:
        """About an entry of this vault, which has no name of its own but its address."""
        entry = f"prod--{name}"
        address = {"Id": f"{self.vault.vault_url}/secrets/{entry}/0", "VaultName": None}
        return event(kind, data(entry) | address, entry, topic="/sandbox")

    def deliver(self, *events: object) -> list[Ended]:
        """From Event Grid's post to the end of the runs, each function in an instance of its own."""
        answer = posted(self.app(), *events)
        assert answer.status is HTTPStatus.OK
        return [end for prompt in answer.prompts for end in self.app().run(str(prompt))]

    def minted(self) -> list[str]:
        return [key["id"] for key in self.openai.control.issued() if key["project_id"] == self.project]

    def alive(self) -> int:
        issued = self.openai.control.issued()
        return sum(key["accepted"] for key in issued if key["project_id"] == self.project)

    def expires(self, name: str) -> datetime:
        found = self.vault.client().get_secret(f"prod--{name}").properties.expires_on
        assert found
        return found


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    clock = FakeClock(datetime.now(UTC).replace(microsecond=0))
    with KeyVaultServer(now=clock.now) as vault, OpenAIServer(now=clock.now) as openai:
        monkeypatch.setenv("AZURE_TENANT_ID", vault.tenant_id)
        monkeypatch.setenv("AZURE_CLIENT_ID", vault.client_id)
        monkeypatch.setenv("AZURE_CLIENT_SECRET", vault.client_secret)
        yield Site(vault, openai, clock, tmp_path)


def test_the_vaults_own_notice_leads_to_a_rotation(site: Site) -> None:
    """From the timer's first key, to the event thirty days before the expiry in the vault, to the old key's death."""
    site.apply(CHAT)
    assert site.minted() == []
    site.app().sweep()
    assert len(site.minted()) == 1
    sent_at = site.expires(CHAT) - timedelta(days=30)
    assert sent_at == site.clock.now() + timedelta(days=30)
    site.clock.at = sent_at
    assert site.deliver(site.event(NEAR, CHAT)) == [Ended.DONE]
    assert len(site.minted()) == 2
    site.clock.move(timedelta(days=2))
    site.app().sweep()
    assert site.alive() == 1


def test_duplicates_disorder_and_losses_cost_nothing(site: Site) -> None:
    """One rotation a period, whatever Event Grid repeats, delays or turns round."""
    site.apply(CHAT)
    site.app().sweep()
    near, expired, new = (site.event(kind, CHAT) for kind in (NEAR, EXPIRED, NEW))
    assert site.deliver(expired, near, new) == [Ended.DONE]
    assert len(site.minted()) == 1
    site.clock.move(timedelta(days=30))
    for events in ([near], [near, near], [expired], [new, near], [expired, new]):
        site.deliver(*events)
    assert len(site.minted()) == 2
    site.clock.move(timedelta(days=30))
    site.app().sweep()
    assert len(site.minted()) == 3


def test_a_run_touches_no_secret_but_its_own(site: Site) -> None:
    """Its neighbour is as much due."""
    site.apply(CHAT, BATCH)
    assert site.app().run(CHAT) == [Ended.DONE]
    assert {record.secret for record in site.trail.records} == {ENTRY}
    assert len(site.minted()) == 1


def test_a_fleets_timer_fills_the_queue_and_other_instances_do_the_work(site: Site) -> None:
    """As many instances as there are messages; one that comes again, or to an app whose vault is away, does no harm."""
    site.apply(CHAT, BATCH)
    messages = site.app().dispatch()
    assert sorted(name for message in messages for name in batches.parse(message).names) == sorted([CHAT, BATCH])
    assert site.minted() == []
    with site.vault.down(), pytest.raises(Redeliver, match=CHAT):
        site.app().run(messages[0])
    assert [site.app().run(message.encode()) for message in (*messages, *messages)] == [[Ended.DONE] * 2] * 2
    assert len(site.minted()) == 2
    assert site.app().run('{"keyturn": "runs"}') == []


def test_a_setting_makes_an_app_a_fleet() -> None:
    """Nothing else: a timer that sweeps is what most need."""
    assert [is_fleet({FLEET: text}) for text in ("1", "true", "0", "")] == [True, True, False, False]
    assert not is_fleet({})


def test_a_reason_that_passes_brings_the_message_back(site: Site) -> None:
    """The platform delivers it again, and the next try does what is due."""
    site.apply(CHAT)
    with site.vault.down(), pytest.raises(Redeliver, match=CHAT):
        site.app().run(CHAT)
    assert site.app().run(CHAT) == [Ended.DONE]
    assert len(site.minted()) == 1


def test_a_reason_that_stays_does_not(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Not applied, refused by the vault, or without the login that it needs: each sweep says so again."""
    assert site.app().run(CHAT) == []
    assert f"no secret {CHAT} is applied" in caplog.text
    site.apply(CHAT)
    site.vault.control.fail("PUT", f"/secrets/{ENTRY}-journal", 403, times=9)
    assert site.app().run(CHAT) == []
    assert "not tried again before the next sweep" in caplog.text
    site.vault.control.clear_faults()
    site.env = {}
    assert site.app().run(CHAT) == []
    assert "OPENAI_ADMIN_KEY is not set" in caplog.text
    assert site.minted() == []


def test_another_installations_secret_of_the_same_name_is_left_alone(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The name in the event is ours, and the applied policy says that the entry is not."""
    assembly = assemble(site.config, site.env, site.trail, site.clock)
    policy = next(policy for policy in site.config.policies if policy.name == CHAT)
    strange = policies.written(policy) | {"installation": "others"}
    assembly.stores["azure"].create(ENTRY, strange)
    assert site.deliver(site.event(NEAR, CHAT)) == []
    assert f"no secret {CHAT} that is kept in azure is applied" in caplog.text
    assert (site.minted(), site.trail.records) == ([], [])


def test_a_secret_that_is_applied_and_declared_no_more_is_found(site: Site) -> None:
    """What is applied counts."""
    site.apply(CHAT)
    site.declared["keyturn:secrets"] = site.declared["keyturn:secrets"][1:]
    site.config = parse(site.declared)
    assert site.deliver(site.event(NEAR, CHAT)) == [Ended.DONE]
    assert len(site.minted()) == 1


def test_a_replicas_vault_prompts_its_secret_and_no_other(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Its entry expires there too; the run begins at the primary. One that is not kept there is left alone."""
    with KeyVaultServer(now=site.clock.now) as mirror:
        stores = site.declared["keyturn:stores"]
        stores["mirror"] = stores["azure"] | {"vaultUrl": mirror.vault_url, "caBundle": mirror.ca}
        stores["mirror"]["authorityHost"] = mirror.authority
        chat, batch, _ = site.declared["keyturn:secrets"]
        site.declared["keyturn:secrets"] = [chat | {"replicas": ["mirror"]}, batch]
        site.config = parse(site.declared)
        site.apply(CHAT, BATCH)
        assembly = assemble(site.config, site.env, site.trail, site.clock)
        assembly.stores["mirror"].create(ENTRY, policies.written(site.config.policies[0]))
        there = {"Id": f"{mirror.vault_url}/secrets/{ENTRY}/0", "VaultName": None}
        assert site.deliver(event(NEAR, data(ENTRY) | there, ENTRY, topic="/sandbox")) == [Ended.DONE]
        assert site.vault.client().get_secret(ENTRY).value == mirror.client().get_secret(ENTRY).value
        other = f"prod--{BATCH}"
        there = {"Id": f"{mirror.vault_url}/secrets/{other}/0", "VaultName": None}
        assert site.deliver(event(NEAR, data(other) | there, other, topic="/sandbox")) == []
        assert f"no secret {BATCH} that is kept in mirror is applied" in caplog.text


def test_the_timer_sweeps_everything_and_fails_where_something_is_left(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed invocation is what the platform's alerts go by; the secrets that are well are done all the same."""
    site.apply(CHAT, BATCH, HOOK)
    site.vault.control.fail("PUT", f"/secrets/prod--{BATCH}-journal", 403, times=9)
    with pytest.raises(SweepFailed, match="ended failed"):
        site.app().sweep()
    assert len(site.minted()) == 1
    assert site.vault.client().get_secret(f"prod--{HOOK}").value
    site.vault.control.clear_faults()
    site.app().sweep()
    assert len(site.minted()) == 2


def test_nothing_of_a_value_is_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the functions say while they mint, stage and promote."""
    caplog.set_level(logging.DEBUG)
    site.apply(CHAT, HOOK)
    site.app().sweep()
    site.deliver(site.event(NEAR, CHAT))
    client = site.vault.client()
    for name in (CHAT, HOOK):
        value = client.get_secret(f"prod--{name}").value
        assert value
        told = "".join(str(record.__dict__) for record in caplog.records if record.name.startswith("rotation"))
        assert value not in told
        assert value not in str(site.trail.records)


# --- starting --------------------------------------------------------------------------------------


@pytest.fixture
def platform_log() -> Iterator[io.StringIO]:
    """The log as the platform's worker sets it up: a handler of its own at the root, with no idea of secrets."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = [logging.StreamHandler(stream)]
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_platforms_own_log_is_masked(tmp_path: Path, platform_log: io.StringIO) -> None:
    """Its handlers stay, as they are the way to the platform; SDKs do not tell it of every request."""
    (tmp_path / "Pulumi.prod.yaml").write_text(yaml.safe_dump({"config": declared()}))
    open_host(tmp_path, {})
    held = SecretValue("sk-a-living-value")
    logging.getLogger("whoever").info("so it is %s", held.reveal())
    logging.getLogger("azure.core").info("a request")
    (line,) = platform_log.getvalue().splitlines()
    assert json.loads(line)["message"] == "so it is [masked]"


@pytest.mark.usefixtures("platform_log")
def test_an_app_finds_its_one_stack_file(tmp_path: Path) -> None:
    """With several, a setting names it; with none, or a faulty one, it says so."""
    (tmp_path / "Pulumi.prod.yaml").write_text(yaml.safe_dump({"config": declared()}))
    assert open_host(tmp_path, {}).config.environment == "prod"
    (tmp_path / "Pulumi.dev.yaml").write_text(yaml.safe_dump({"config": declared(environment="dev")}))
    with pytest.raises(ConfigError, match="KEYTURN_STACK"):
        open_host(tmp_path, {})
    assert open_host(tmp_path, {"KEYTURN_STACK": "dev"}).config.environment == "dev"
    with pytest.raises(ConfigError, match=r"no Pulumi\.<stack>\.yaml"):
        open_host(tmp_path / "elsewhere", {})


@pytest.mark.usefixtures("platform_log")
def test_the_audit_trail_goes_to_the_console_or_to_a_file(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The platform keeps what is printed; a file on a mounted share is better evidence."""
    site.apply(HOOK, CHAT)
    (tmp_path / "Pulumi.prod.yaml").write_text(yaml.safe_dump({"config": site.declared}))
    assert open_host(tmp_path, site.env).run(HOOK) == [Ended.DONE]
    assert "promote.done" in [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    trail = tmp_path / "share" / "prod.jsonl"
    assert open_host(tmp_path, site.env | {"KEYTURN_AUDIT_FILE": str(trail)}).run(CHAT) == [Ended.DONE]
    assert "promote.done" in [json.loads(line)["event"] for line in trail.read_text().splitlines()]
    assert capsys.readouterr().out == ""


def test_the_import_of_the_host_loads_no_sdk() -> None:
    """Neither of a cloud, nor of the platform, nor of the command line: a store loads its own when it is first asked."""
    heavy = (
        "boto3",
        "botocore",
        "hvac",
        "azure.identity",
        "azure.keyvault",
        "azure.functions",
        "requests",
        "typer",
        "pulumi",
    )
    code = f"import sys, rotation.functions.azure_functions; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
