"""hosting/azure: what `pulumi up` would ask Azure for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hosting.packages import archive
from hosting.packages import azure as package
from rotation.cli.main import app
from tests.hosting.packages import ROOT
from tests.hosting.programs import CANARY, Graph, run

pytestmark = pytest.mark.xdist_group("hosting")
"""One worker: what a program registers is asked for once, and read by many."""

GROUP = "/subscriptions/5ab5c81e/resourceGroups/acme-prod"
OWNER = "support-platform@acme.example"
REFERENCE = "https://acme-prod.vault.azure.net/secrets/vault-secret-id"
QUEUE = "keyturn-runs"


def _build(folder: Path, change: Callable[[dict[str, Any]], None] | None = None, **settings: Any) -> Graph:
    """The graph of prod's stack file, changed, from a package that was built from it."""
    whole = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())
    if change:
        change(whole["config"])
    file = folder / "Pulumi.prod.yaml"
    file.write_text(yaml.safe_dump(whole))
    archive.write(folder / "keyturn-functions.zip", package.entries(file))
    given = {"package": str(folder / "keyturn-functions.zip"), "stackFile": str(file), "owners": [OWNER]}
    graph = run("azure", given | {"vaultGroup": GROUP} | settings, {})
    assert graph.code == 0, graph.told
    return graph


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """The shipped stack with the fewest settings."""
    return _build(tmp_path_factory.mktemp("plain"))


def _second_vault(config: dict[str, Any]) -> None:
    config["keyturn:stores"]["spare"] = {"kind": "azure-key-vault", "vaultUrl": "https://acme-spare.vault.azure.net"}
    config["keyturn:secrets"][2]["replicas"] = ["spare"]


@pytest.fixture(scope="module")
def full_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("full")


@pytest.fixture(scope="module")
def full(full_folder: Path) -> Graph:
    """Everything on: a network, a fleet, logins by reference, a vault for replicas."""
    settings: dict[str, Any] = {
        "network": {"cidr": "10.1.2.0/24"},
        "fleet": True,
        "references": {"KEYTURN_VAULT_SECRET_ID": REFERENCE},
        "environment": {"HTTPS_PROXY": "http://proxy.acme.example:3128"},
        "tags": {"CostCenter": "42"},
        "sweepEvery": 15,
        "vaultLocation": "northeurope",
    }
    return _build(full_folder, _second_vault, **settings)


@pytest.fixture(params=["plain", "full"])
def either(request: pytest.FixtureRequest) -> Graph:
    found: Graph = request.getfixturevalue(request.param)
    return found


def printed(file: Path) -> dict[str, Any]:
    """What `keyturn policy azure` prints, by store."""
    arguments = ["policy", "azure", "--config", str(file), "--for", "rotate", "--resource-group", GROUP, "--json"]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def env(graph: Graph) -> dict[str, str]:
    return {each["name"]: each["value"] for each in graph.one("web:WebApp")["siteConfig"]["appSettings"]}


# --- rights ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["plain", "full"])
def test_the_identity_has_what_keyturn_policy_prints(
    which: str, request: pytest.FixtureRequest, full_folder: Path
) -> None:
    """The same custom roles, with the environment in their names, at the same scopes; nobody else gets them."""
    graph: Graph = request.getfixturevalue(which)
    told = printed(ROOT / "Pulumi.prod.yaml" if which == "plain" else full_folder / "Pulumi.prod.yaml")
    wanted = {
        f"{role['Name']} (prod)": (role["DataActions"], role["Actions"], role["AssignableScopes"])
        for document in told.values()
        for role in document["roles"]
    }
    made = {
        each["roleName"]: (
            each["permissions"][0]["dataActions"],
            each["permissions"][0]["actions"],
            each["assignableScopes"],
        )
        for each in graph.inputs("RoleDefinition")
    }
    assert made == wanted
    titles = {f"{each['name']}-id": each["inputs"]["roleName"] for each in graph.all("RoleDefinition")}
    custom = [each for each in graph.inputs("RoleAssignment") if each["roleDefinitionId"] in titles]
    assert {each["principalId"] for each in custom} == {"principal-of-keyturn-prod"}
    given = sorted((titles[each["roleDefinitionId"]], each["scope"]) for each in custom)
    assert given == sorted(
        (f"{g['role']} (prod)", g["scope"]) for document in told.values() for g in document["assignments"]
    )


def test_nothing_else_is_given_but_its_surroundings(plain: Graph, full: Graph) -> None:
    """Its own storage and log; each entry that a setting refers to, alone; the topic may put messages into the queue."""

    def given(graph: Graph) -> set[tuple[str, str, str]]:
        own = [each for each in graph.inputs("RoleAssignment") if each["roleDefinitionId"].startswith("/")]
        return {(each["roleDefinitionId"][-12:], each["scope"], each["principalId"]) for each in own}

    one, other = given(plain), given(full)
    identity = "principal-of-keyturn-prod"
    assert one == {
        ("0f276bb0955b", "keyturnprod-id", identity),
        ("5f855dd0fb88", "keyturnprod-id", identity),
        ("420c390055eb", "keyturn-prod-id", identity),
        ("0f6e12d7b80a", "keyturnprod-id", "principal-of-acme-prod"),
    }
    entry = f"{GROUP}/providers/Microsoft.KeyVault/vaults/acme-prod/secrets/vault-secret-id"
    assert other - one == {
        ("0445c86b69e6", entry, identity),
        ("0f6e12d7b80a", "keyturnprod-id", "principal-of-acme-spare"),
    }
    for graph in (plain, full):
        assert "*" not in json.dumps([graph.inputs("RoleDefinition"), graph.inputs("RoleAssignment")])


# --- what runs ---------------------------------------------------------------------------------------


def test_the_app_logs_in_as_its_identity(either: Graph) -> None:
    """To storage, vaults, its package and its log; there is no key and no password anywhere."""
    site, storage = either.one("web:WebApp"), either.one("StorageAccount")
    assert site["identity"] == {"type": "UserAssigned", "userAssignedIdentities": ["keyturn-prod-id"]}
    assert site["keyVaultReferenceIdentity"] == "keyturn-prod-id"
    package = site["functionAppConfig"]["deployment"]["storage"]
    assert package["authentication"]["type"] == "UserAssignedIdentity"
    assert package["value"].endswith("/package")
    assert storage["allowSharedKeyAccess"] is storage["allowBlobPublicAccess"] is False
    said = env(either)
    assert said["AzureWebJobsStorage__credential"] == "managedidentity"
    assert "AzureWebJobsStorage" not in said
    assert said["AZURE_CLIENT_ID"] == said["AzureWebJobsStorage__clientId"] == "client-of-keyturn-prod"
    assert said["APPLICATIONINSIGHTS_AUTHENTICATION_STRING"] == "ClientId=client-of-keyturn-prod;Authorization=AAD"
    assert either.one("applicationinsights:Component")["disableLocalAuth"] is True
    assert [each["allow"] for each in either.inputs("ScmAllowed") + either.inputs("FtpAllowed")] == [False, False]


def test_the_plan_scales_to_nothing_and_nobody_reaches_the_app(either: Graph) -> None:
    """Flex Consumption; https alone; what is not a deployment is refused."""
    assert either.one("AppServicePlan")["sku"] == {"name": "FC1", "tier": "FlexConsumption"}
    site = either.one("web:WebApp")
    assert site["httpsOnly"] is True
    assert site["siteConfig"]["ipSecurityRestrictionsDefaultAction"] == "Deny"
    assert site["siteConfig"]["minTlsVersion"] == "1.2"
    assert site["functionAppConfig"]["runtime"] == {"name": "python", "version": "3.12"}


def test_rights_are_there_before_the_app(either: Graph) -> None:
    """Its first sweep would fail without."""
    waits = {urn.rpartition("::")[2] for urn in either.all("web:WebApp")[0]["after"]}
    assert {each["name"] for each in either.all("RoleAssignment") if "message-sender" not in each["name"]} <= waits


def test_settings_arrive(plain: Graph, full: Graph) -> None:
    """The timer, a fleet, variables; logins by reference to where they are."""
    one, other = env(plain), env(full)
    assert (one["KEYTURN_SWEEP_SCHEDULE"], other["KEYTURN_SWEEP_SCHEDULE"]) == ("0 */5 * * * *", "0 */15 * * * *")
    assert "KEYTURN_FLEET" not in one
    assert other["KEYTURN_FLEET"] == "1"
    assert other["HTTPS_PROXY"] == "http://proxy.acme.example:3128"
    assert other["KEYTURN_VAULT_SECRET_ID"] == f"@Microsoft.KeyVault(SecretUri={REFERENCE})"
    assert plain.outputs["variablesNotSet"] == ["KEYTURN_VAULT_ROLE_ID", "KEYTURN_VAULT_SECRET_ID"]
    assert full.outputs["variablesNotSet"] == ["KEYTURN_VAULT_ROLE_ID"]
    assert "--build-remote true -g keyturn-prod -n keyturn-prod" in plain.outputs["deploy"]


# --- events ------------------------------------------------------------------------------------------


def test_events_of_each_vault_go_to_the_queue(plain: Graph, full: Graph) -> None:
    """By the topic's identity, so that no address holds a key; of this environment's entries, and of what a run is due for."""
    assert {each["name"] for each in plain.all("SystemTopic")} == {"acme-prod"}
    assert {each["name"] for each in full.all("SystemTopic")} == {"acme-prod", "acme-spare"}
    for topic in full.all("SystemTopic"):
        assert topic["inputs"]["source"] == f"{GROUP}/providers/Microsoft.KeyVault/vaults/{topic['name']}"
        assert topic["inputs"]["location"] == "northeurope"
        assert topic["inputs"]["identity"] == {"type": "SystemAssigned"}
    for made in full.inputs("SystemTopicEventSubscription"):
        assert "destination" not in made
        there = made["deliveryWithResourceIdentity"]["destination"]
        assert (there["endpointType"], there["queueName"], there["resourceId"]) == (
            "StorageQueue",
            QUEUE,
            "keyturnprod-id",
        )
        kinds = {"Microsoft.KeyVault.SecretNearExpiry", "Microsoft.KeyVault.SecretExpired"}
        assert set(made["filter"]["includedEventTypes"]) == kinds
        assert made["filter"]["subjectBeginsWith"] == "prod--"
    assert plain.one("storage:Queue")["queueName"] == QUEUE


# --- who is called -----------------------------------------------------------------------------------


def test_every_alert_has_a_target(either: Graph) -> None:
    """The group of owners, who are told by mail."""
    rules = either.inputs("ScheduledQueryRule")
    assert {each["ruleName"].removeprefix("keyturn-prod-") for each in rules} == {
        "no-sweep",
        "sweeps-fail",
        "unproven",
        "rotations-fail",
        "overdue",
        "messages-fail",
    }
    for rule in rules:
        assert rule["criteria"]["allOf"][0]["operator"] in ("LessThan", "GreaterThan")
        assert rule["actions"] == {"actionGroups": ["keyturn-prod-id"]}
        assert rule["scopes"] == ["keyturn-prod-id"]
        assert rule["enabled"] is True
    group = either.one("ActionGroup")
    assert [each["emailAddress"] for each in group["emailReceivers"]] == [OWNER]
    (absent,) = [each for each in rules if each["criteria"]["allOf"][0]["operator"] == "LessThan"]
    assert absent["ruleName"].endswith("no-sweep")
    assert absent["windowSize"] == ("PT2H" if either.outputs["addresses"] else "PT30M")


def test_alerts_search_for_what_the_app_logs(plain: Graph) -> None:
    """Names of its functions, fields of its lines and the words in them, as the code has them."""
    functions = (ROOT / "hosting" / "functions" / "function_app.py").read_text()
    host = (ROOT / "rotation" / "functions" / "azure_functions.py").read_text()
    sweep = (ROOT / "rotation" / "sweep.py").read_text()
    events = (ROOT / "rotation" / "functions" / "event_grid.py").read_text()
    queries = " ".join(each["criteria"]["allOf"][0]["query"] for each in plain.inputs("ScheduledQueryRule"))
    for name in ("sweep", "run"):
        assert f"name == '{name}'" in queries
        assert f'@app.function_name("{name}")' in functions
    for field, source in (("ended", sweep), ("secret", sweep), ("kind", host)):
        assert f"line.{field}" in queries
        assert f'"{field}": ' in source
    for word, source in (("failed", sweep), ("unproven", sweep), ("Microsoft.KeyVault.SecretExpired", events)):
        assert f"== '{word}'" in queries
        assert f'"{word}"' in source


# --- storage, network --------------------------------------------------------------------------------


def test_what_keeps_something_is_encrypted_twice(either: Graph) -> None:
    """By the service, and by its infrastructure; over TLS 1.2 alone."""
    storage = either.one("StorageAccount")
    assert storage["encryption"]["requireInfrastructureEncryption"] is True
    assert storage["encryption"]["services"]["queue"] == {"enabled": True, "keyType": "Account"}
    assert (storage["minimumTlsVersion"], storage["enableHttpsTrafficOnly"]) == ("TLS1_2", True)


def test_what_others_rely_on_is_protected(plain: Graph, full: Graph) -> None:
    """The log, which holds the audit trail, with its group; the address that stands in allowlists."""
    kept = {"azure-native:resources:ResourceGroup", "azure-native:operationalinsights:Workspace"}
    assert {each["type"] for each in plain.resources if each["protect"]} == kept
    assert {each["type"] for each in full.resources if each["protect"]} == kept | {
        "azure-native:network:PublicIPAddress"
    }
    assert plain.one("Workspace")["retentionInDays"] == 400


def test_the_network_leaves_by_one_address(plain: Graph, full: Graph) -> None:
    """The app's subnet, which is given to its plan, goes out through the gateway; without the setting there is none."""
    assert [each for each in plain.resources if each["type"].startswith("azure-native:network")] == []
    assert "virtualNetworkSubnetId" not in plain.one("web:WebApp")
    assert plain.outputs["addresses"] == []
    subnet = full.one("Subnet")
    assert full.one("web:WebApp")["virtualNetworkSubnetId"] == "app-id"
    assert subnet["natGateway"] == {"id": "keyturn-prod-id"}
    assert subnet["defaultOutboundAccess"] is False
    assert [each["serviceName"] for each in subnet["delegations"]] == ["Microsoft.App/environments"]
    assert full.one("NatGateway")["publicIpAddresses"] == [{"id": "keyturn-prod-id"}]
    assert full.one("PublicIPAddress")["publicIPAllocationMethod"] == "Static"
    assert full.outputs["addresses"] == ["198.51.100.7"]


# --- no secret, and words ------------------------------------------------------------------------------


def test_no_secret_is_in_any_input(either: Graph) -> None:
    """Logins stand in the environment that the program runs in; nothing of them is registered, put out or told."""
    assert CANARY not in either.text
    assert '{"encrypted":' not in json.dumps([each["inputs"] for each in either.resources])
    assert "AccountKey" not in either.text
    assert "code=" not in either.text


def test_tags_are_on_everything_that_takes_them(full: Graph) -> None:
    """Ours, and the person's."""
    untagged = {"RoleDefinition", "RoleAssignment", "Queue", "BlobContainer", "Subnet", "SystemTopicEventSubscription"}
    untagged |= {"WebAppScmAllowed", "WebAppFtpAllowed"}
    for each in full.resources:
        if each["custom"] and each["type"].rpartition(":")[2] not in untagged:
            assert each["inputs"]["tags"] == {"Application": "keyturn", "Environment": "prod", "CostCenter": "42"}, (
                each["type"]
            )


def test_a_package_of_another_stack_file_is_refused(tmp_path: Path) -> None:
    """Rights are generated from the file, and the app goes by what is packed."""
    archive.write(tmp_path / "package.zip", {"Pulumi.prod.yaml": b"config: {}"})
    given = {"package": str(tmp_path / "package.zip"), "stackFile": str(ROOT / "Pulumi.prod.yaml"), "vaultGroup": GROUP}
    graph = run("azure", given, {})
    assert (graph.code, graph.resources) == (32, [])
    assert "was built from another stack file" in "\n".join(graph.told)
