"""hosting/kubernetes: what `pulumi up` would ask a cluster for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from rotation.config import load
from tests.hosting.packages import ROOT
from tests.hosting.programs import CANARY, Graph, run

pytestmark = pytest.mark.xdist_group("hosting")
"""One worker: what a program registers is asked for once, and read by many."""

IMAGE = "registry.example.com/keyturn@sha256:" + "a" * 64
ROLE = "arn:aws:iam::333333333333:role/keyturn-pod"


@pytest.fixture(scope="module")
def plain() -> Graph:
    """The shipped stack with the fewest settings."""
    return run("kubernetes", {"image": IMAGE, "stackFile": str(ROOT / "Pulumi.prod.yaml")}, {})


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Everything on, with a stack file that has a certificate beside it."""
    folder = tmp_path_factory.mktemp("full")
    whole = yaml.safe_load((ROOT / "Pulumi.staging.yaml").read_text())
    whole["config"]["keyturn:stores"]["vault"]["caBundle"] = "ca.pem"
    (folder / "ca.pem").write_text("public")
    (folder / "Pulumi.staging.yaml").write_text(yaml.safe_dump(whole))
    settings = {
        "image": "registry.example.com/keyturn:0.1.0",
        "stackFile": str(folder / "Pulumi.staging.yaml"),
        "namespace": "rotation",
        "sweepEvery": 10,
        "awsRole": ROLE,
        "azureClient": "0c-ffee",
        "vaultAudience": "vault-staging",
        "credentials": "logins",
        "egress": ["10.0.0.0/8", "0.0.0.0/0"],
        "storage": "5Gi",
        "storageClass": "fast",
        "environment": {"HTTPS_PROXY": "http://proxy.acme.example:3128"},
        "tags": {"team": "support"},
    }
    return run("kubernetes", settings, {}, stack="staging")


@pytest.fixture(params=["plain", "full"])
def either(request: pytest.FixtureRequest) -> Graph:
    found: Graph = request.getfixturevalue(request.param)
    return found


def pod(graph: Graph) -> dict[str, Any]:
    template: dict[str, Any] = graph.one("CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    return template


def test_every_object_is_valid(either: Graph) -> None:
    """By Kubernetes' published schemas, where a field that there is not is a fault; in one namespace."""
    made = [each["inputs"] for each in either.resources]
    for each in made:
        kubernetes_validate.validate(each, "1.37", strict=True)
    (namespace,) = [each["metadata"]["name"] for each in made if each["kind"] == "Namespace"]
    assert {each["metadata"].get("namespace", namespace) for each in made} == {namespace}
    assert namespace == either.outputs["namespace"]


def test_the_manifests_are_the_source(plain: Graph) -> None:
    """With no settings, what is made is what deploy/kubernetes has, but for the stack file, the image and labels."""
    shipped = {}
    for name in ("config.yaml", "network.yaml", "cronjob.yaml"):
        for each in yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / name).read_text()):
            shipped[each["kind"], each["metadata"]["name"]] = each
    del shipped["NetworkPolicy", "keyturn-metrics"]
    made = {(each["inputs"]["kind"], each["name"]): each["inputs"] for each in plain.resources}
    assert made.keys() == shipped.keys()
    job = shipped["CronJob", "keyturn-sweep"]
    job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["image"] = IMAGE
    labels = {"app.kubernetes.io/name": "keyturn", "keyturn/environment": "prod"}
    job["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"] = labels
    for key, each in shipped.items():
        if key[0] in ("CronJob", "NetworkPolicy", "PersistentVolumeClaim"):
            assert made[key]["spec"] == each["spec"], key
    assert made["ServiceAccount", "keyturn"]["automountServiceAccountToken"] is False


def test_the_stack_file_is_mounted_and_read(either: Graph, full: Graph) -> None:
    """Text and files beside it, under the name that the command line has; Keyturn reads it from there."""
    (container,) = pod(either)["spec"]["containers"]
    (config,) = [arg.removeprefix("--config=") for arg in container["args"] if arg.startswith("--config=")]
    data = either.one("ConfigMap")["data"]
    assert str(Path(config).parent) in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert Path(config).name in data
    assert full.one("ConfigMap")["data"]["ca.pem"] == "public"


def test_the_mounted_stack_file_is_the_declared_one(plain: Graph, tmp_path: Path) -> None:
    """Byte for byte."""
    text = plain.one("ConfigMap")["data"]["Pulumi.prod.yaml"]
    assert text == (ROOT / "Pulumi.prod.yaml").read_text()
    (tmp_path / "Pulumi.prod.yaml").write_text(text)
    assert load(tmp_path / "Pulumi.prod.yaml").environment == "prod"


def test_pods_keep_to_the_restricted_standard(either: Graph) -> None:
    """No root, no capability, nothing of its own writable; the namespace refuses anything else."""
    spec = pod(either)["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"] == "512Mi"
    assert spec["automountServiceAccountToken"] is False
    labels = either.one("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_nothing_is_reached_but_what_is_named(plain: Graph, full: Graph) -> None:
    """All of the namespace is denied everything, both ways; Keyturn's pods get names, and the ports of stores and issuers."""
    for graph in (plain, full):
        nothing = graph.one("NetworkPolicy", "keyturn-nothing")["spec"]
        assert nothing == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        opened = graph.one("NetworkPolicy", "keyturn-egress")["spec"]
        assert "ingress" not in opened
        assert opened["podSelector"]["matchLabels"].items() <= pod(graph)["metadata"]["labels"].items()
        names, world = opened["egress"]
        assert {port["port"] for port in names["ports"]} == {53}
        assert {port["port"] for port in world["ports"]} == {443, 8200}
        for peer in world["to"]:
            assert peer["ipBlock"]["cidr"] != "0.0.0.0/0" or peer["ipBlock"]["except"] == ["169.254.0.0/16"]
    cidrs = [peer["ipBlock"]["cidr"] for peer in full.one("NetworkPolicy", "keyturn-egress")["spec"]["egress"][1]["to"]]
    assert cidrs == ["10.0.0.0/8", "0.0.0.0/0"]


def test_clouds_know_it_by_its_service_account(plain: Graph, full: Graph) -> None:
    """Annotations and, for Azure, the pod's label; the token for Vault is for Vault alone."""
    account = full.one("ServiceAccount")["metadata"]["annotations"]
    assert account == {"eks.amazonaws.com/role-arn": ROLE, "azure.workload.identity/client-id": "0c-ffee"}
    assert pod(full)["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    (token,) = [
        s["serviceAccountToken"]
        for v in pod(full)["spec"]["volumes"]
        for s in v.get("projected", {}).get("sources", ())
    ]
    assert token["audience"] == "vault-staging"
    assert not plain.one("ServiceAccount")["metadata"].get("annotations")
    assert "azure.workload.identity/use" not in pod(plain)["metadata"]["labels"]


def test_logins_are_files_of_a_secret_that_is_there(plain: Graph, full: Graph) -> None:
    """Referred to by name; where none is, what nothing sets is told."""
    spec = pod(full)["spec"]
    (secret,) = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
    assert secret == {"secretName": "logins", "defaultMode": 0o440}
    (container,) = spec["containers"]
    (folder,) = [each["value"] for each in container["env"] if each["name"] == "CREDENTIALS_DIRECTORY"]
    assert folder in {mount["mountPath"] for mount in container["volumeMounts"] if mount.get("readOnly")}
    assert all("valueFrom" not in each for each in container["env"])
    assert full.all("Secret") == []
    assert full.outputs["variablesNotSet"] == []
    assert plain.outputs["variablesNotSet"] == ["KEYTURN_VAULT_ROLE_ID", "KEYTURN_VAULT_SECRET_ID"]


def test_settings_arrive(full: Graph) -> None:
    """Schedule, room, labels, variables, and the environment's own trail."""
    assert full.one("CronJob")["spec"]["schedule"] == "*/10 * * * *"
    claim = full.one("PersistentVolumeClaim")["spec"]
    assert (claim["resources"]["requests"]["storage"], claim["storageClassName"]) == ("5Gi", "fast")
    assert all(each["inputs"]["metadata"]["labels"]["team"] == "support" for each in full.resources)
    (container,) = pod(full)["spec"]["containers"]
    env = {each["name"]: each["value"] for each in container["env"]}
    assert env["HTTPS_PROXY"] == "http://proxy.acme.example:3128"
    assert env["KEYTURN_AUDIT_FILE"].endswith("/staging.jsonl")


def test_the_trail_is_protected_and_pods_come_last(plain: Graph) -> None:
    """With the namespace or the volume the audit trail would go; no pod runs before what it may reach is said."""
    assert {each["name"] for each in plain.resources if each["protect"]} == {"keyturn", "keyturn-audit"}
    (job,) = plain.all("CronJob")
    assert {urn.rpartition("::")[2] for urn in job["after"]} >= {"keyturn-nothing", "keyturn-egress", "keyturn-stack"}


def test_no_secret_is_in_any_input(either: Graph) -> None:
    """Logins in the environment of whoever applies stay there."""
    assert CANARY not in either.text
    assert '{"encrypted":' not in json.dumps([each["inputs"] for each in either.resources])


def test_a_login_in_vault_without_its_token_is_refused(tmp_path: Path) -> None:
    """The cluster's own token, which the method takes by default, is not mounted; and an image has to be named."""
    whole = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())
    whole["config"]["keyturn:stores"]["vault"]["auth"] = {"method": "kubernetes", "role": "keyturn"}
    (tmp_path / "Pulumi.prod.yaml").write_text(yaml.safe_dump(whole))
    graph = run("kubernetes", {"image": IMAGE, "stackFile": str(tmp_path / "Pulumi.prod.yaml")}, {})
    assert (graph.code, graph.resources) == (32, [])
    assert "the pod has its token in /var/run/secrets/keyturn/vault-token" in "\n".join(graph.told)


def test_an_image_has_to_be_named() -> None:
    """There is no default that could be somebody else's."""
    graph = run("kubernetes", {}, {})
    assert graph.code == 32
    assert "keyturn-kubernetes:image: Field required" in "\n".join(graph.told)
