"""`keyturn policy` as people and scripts use it. It asks no store, so none is running."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from rotation.cli.main import run
from tests.access.life import BATCH, CHAT, declared

ROLE = "arn:aws:iam::333333333333:role/keyturn"
AWS = {"kind": "aws-secrets-manager", "region": "eu-west-1", "roleArn": ROLE}
VAULT = {"kind": "hashicorp-vault", "address": "https://vault.example:8200", "mount": "kv", "prefix": "team"}
AZURE = {"kind": "azure-key-vault", "vaultUrl": "https://acme.vault.azure.net"}
GROUP = "/subscriptions/s/resourceGroups/g"


class Ran:
    def __init__(self, capsys: pytest.CaptureFixture[str], stack: dict[str, Any], root: Path) -> None:
        self._capsys = capsys
        self._file = root / "Pulumi.test.yaml"
        config = {f"keyturn:{key}": value for key, value in stack.items()}
        self._file.write_text(yaml.safe_dump({"config": config}))

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        try:
            with pytest.raises(SystemExit) as ended:
                run(["policy", *arguments, "--config", str(self._file)])
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
        out, err = self._capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return code, out, err

    def json(self, *arguments: str) -> Any:
        code, out, _ = self(*arguments, "--json")
        assert code == 0
        return json.loads(out)


@pytest.fixture
def stack(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    def made(stores: dict[str, Any], environment: str = "prod", **about_chat: Any) -> Ran:
        whole = declared(stores, **about_chat)
        return Ran(capsys, {**whole, "environment": environment}, tmp_path)

    return made


def actions(document: dict[str, Any]) -> set[str]:
    return {action for statement in document["Statement"] for action in statement["Action"]}


def resources(document: dict[str, Any]) -> set[str]:
    return {resource for statement in document["Statement"] for resource in statement["Resource"]}


def test_an_iam_policy_is_printed_as_it_is_attached(stack: Any) -> None:
    """The same document with and without --json; names of the declared secrets, account of the role, region of the store."""
    ran = stack({"aws": AWS})
    code, out, err = ran("aws", "--for", "read", CHAT)
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document == ran.json("aws", "--for", "read", CHAT)
    assert document["Version"] == "2012-10-17"
    [statement] = document["Statement"]
    assert statement["Action"] == ["secretsmanager:GetSecretValue"]
    assert statement["Resource"] == [
        f"arn:aws:secretsmanager:eu-west-1:333333333333:secret:prod/{CHAT}-??????",
    ]


@pytest.mark.parametrize(
    ("changed", "start"),
    [
        ({"roleArn": None}, "arn:aws:secretsmanager:eu-west-1:*:secret:prod/"),
        ({"roleArn": None, "region": "cn-north-1"}, "arn:aws-cn:secretsmanager:cn-north-1:*:secret:prod/"),
        ({"roleArn": None, "region": "us-gov-west-1"}, "arn:aws-us-gov:secretsmanager:us-gov-west-1:*:secret:prod/"),
        ({"prefix": "team/"}, "arn:aws:secretsmanager:eu-west-1:333333333333:secret:team/prod/"),
    ],
)
def test_where_entries_are_is_where_the_store_is(stack: Any, changed: dict[str, Any], start: str) -> None:
    """Partition, region, account as far as it is known, prefix."""
    about = {key: value for key, value in {**AWS, **changed}.items() if value is not None}
    document = stack({"aws": about}).json("aws", "--for", "read")
    assert all(resource.startswith(start) for resource in resources(document))


def test_bootstrap_decides_what_pulumi_up_needs(stack: Any) -> None:
    """In production no value is read; elsewhere it mints; an option says otherwise."""
    value = "secretsmanager:GetSecretValue"
    assert value not in actions(stack({"aws": AWS}).json("aws", "--for", "provision"))
    assert value in actions(stack({"aws": AWS}).json("aws", "--for", "provision", "--bootstrap", "apply"))
    assert value in actions(stack({"aws": AWS}, "dev").json("aws", "--for", "provision"))
    assert value not in actions(stack({"aws": AWS}, "dev").json("aws", "--for", "provision", "--bootstrap", "function"))


def test_to_adopt_takes_to_read(stack: Any) -> None:
    """Of the one secret that is to be adopted."""
    document = stack({"aws": AWS}, adopt=True).json("aws", "--for", "provision")
    reading = [s["Resource"] for s in document["Statement"] if "secretsmanager:GetSecretValue" in s["Action"]]
    assert reading == [[f"arn:aws:secretsmanager:eu-west-1:333333333333:secret:prod/{CHAT}-??????"]]


@pytest.mark.parametrize(
    ("key", "resource", "alias"),
    [
        ("1234-ab", "arn:aws:kms:eu-west-1:333333333333:key/1234-ab", None),
        ("arn:aws:kms:eu-west-1:444444444444:key/1234", "arn:aws:kms:eu-west-1:444444444444:key/1234", None),
        ("alias/keyturn", "arn:aws:kms:eu-west-1:333333333333:key/*", "alias/keyturn"),
        (
            "arn:aws:kms:eu-west-1:333333333333:alias/keyturn",
            "arn:aws:kms:eu-west-1:333333333333:key/*",
            "alias/keyturn",
        ),
    ],
)
def test_a_key_of_ones_own_is_used_through_the_service(stack: Any, key: str, resource: str, alias: str | None) -> None:
    """Consumers decrypt; who writes encrypts, too; there is no such statement without a key."""
    for persona, wanted in (("read", {"kms:Decrypt"}), ("rotate", {"kms:Decrypt", "kms:GenerateDataKey"})):
        document = stack({"aws": {**AWS, "kmsKeyId": key}}).json("aws", "--for", persona)
        [statement] = [s for s in document["Statement"] if s["Sid"].endswith("Key")]
        assert (set(statement["Action"]), statement["Resource"]) == (wanted, [resource])
        assert statement["Condition"]["StringEquals"] == {"kms:ViaService": "secretsmanager.eu-west-1.amazonaws.com"}
        assert statement["Condition"].get("ForAnyValue:StringEquals") == (
            {"kms:ResourceAliases": alias} if alias else None
        )
    assert not any("kms:" in action for action in actions(stack({"aws": AWS}).json("aws", "--for", "rotate")))


def test_who_works_needs_the_administrative_credential_and_a_look_at_the_pair(stack: Any) -> None:
    """Of secrets that were not named, nothing more than that."""
    paired = {"pairedWith": BATCH}
    whole = declared({"aws": AWS}, **paired)
    whole["secrets"][1]["pairedWith"] = CHAT
    ran = stack({"aws": AWS})
    ran._file.write_text(yaml.safe_dump({"config": {f"keyturn:{key}": value for key, value in whole.items()}}))
    by_entry: dict[str, set[str]] = {}
    for statement in ran.json("aws", "--for", "respond", CHAT)["Statement"]:
        for resource in statement["Resource"]:
            entry = resource.rpartition(":")[2]
            by_entry.setdefault(entry, set()).update(a.partition(":")[2] for a in statement["Action"])
    assert by_entry["keyturn-openai-admin-??????"] == {"GetSecretValue"}
    assert by_entry[f"prod/{BATCH}-??????"] == {"DescribeSecret", "ListSecretVersionIds"}
    assert "keyturn-openai-admin" not in json.dumps(ran.json("aws", "--for", "read"))


def test_hcl_is_printed_as_vault_takes_it(stack: Any) -> None:
    """Exact paths, below mount and prefix; comments say which store."""
    code, out, _ = stack({"vault": VAULT})("vault", "--for", "read", CHAT)
    assert code == 0
    assert out.splitlines() == [
        "# vault: read",
        f'path "kv/data/team/prod/{CHAT}" {{',
        '  capabilities = ["read"]',
        '  denied_parameters = { "version" = [] }',
        "}",
        "",
    ]


def test_consumers_with_networks_get_a_role_for_each_set(stack: Any) -> None:
    """In JSON as the role's settings, in text as a command to look at; several are said to be several."""
    ran = stack({"vault": VAULT}, allowedCidrs=["10.1.0.0/16"])
    plain, bound = ran.json("vault", "--for", "read")
    assert (plain["name"], plain["role"]) == ("keyturn-read", None)
    assert bound["role"] == {
        "token_policies": [bound["name"]],
        "token_bound_cidrs": ["10.1.0.0/16"],
        "secret_id_bound_cidrs": ["10.1.0.0/16"],
    }
    assert CHAT in bound["policy"]
    assert CHAT not in plain["policy"]
    _, out, err = ran("vault", "--for", "read")
    assert f"# vault write auth/approle/role/{bound['name']} token_policies={bound['name']} " in out
    assert "These are several policies" in err


def test_roles_of_azure_are_printed_as_commands(stack: Any) -> None:
    """A role for each set of actions, an assignment for each scope, and what Azure can not narrow."""
    ran = stack({"azure": AZURE})
    code, out, err = ran("azure", "--for", "read", CHAT, "--resource-group", GROUP)
    assert (code, err) == (0, "")
    scope = f"{GROUP}/providers/Microsoft.KeyVault/vaults/acme/secrets/prod--{CHAT}"
    assert "every version of it, older values too" in out
    assert f"az role assignment create --assignee-object-id \"$PRINCIPAL\" --role 'Keyturn get' --scope {scope}" in out
    document = ran.json("azure", "--for", "read", CHAT, "--resource-group", GROUP)["azure"]
    assert document["assignments"] == [{"role": "Keyturn get", "scope": scope}]
    [role] = document["roles"]
    assert role["DataActions"] == ["Microsoft.KeyVault/vaults/secrets/getSecret/action"]
    assert role["AssignableScopes"] == [GROUP]
    _, _, err = ran("azure", "--for", "read", CHAT)
    assert "--resource-group" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("aws",), "Missing option '--for'"),
        (("aws", "--for", "everybody"), "everybody"),
        (("gcp", "--for", "read"), "gcp"),
        (("aws", "--for", "read", "no-such-secret"), "declares no secret no-such-secret"),
        (("aws", "--for", "read", "--store", "vault"), "has no store vault of this service; it has: aws"),
        (("azure", "--for", "read"), "it has: none"),
    ],
)
def test_what_can_not_be_used_is_said(stack: Any, arguments: tuple[str, ...], told: str) -> None:
    """With exit code 2, and nothing on standard output."""
    code, out, err = stack({"aws": AWS, "vault": VAULT})(*arguments)
    assert (code, out) == (2, "")
    assert told in err


def test_one_store_of_several_can_be_named(stack: Any) -> None:
    """A replica takes less than a primary: no journal is there."""
    other = {**AWS, "region": "eu-central-1"}
    ran = stack({"aws": AWS, "other": other})
    whole = ran.json("aws", "--for", "rotate")
    alone = ran.json("aws", "--for", "rotate", "--store", "other")
    assert {r.split(":")[3] for r in resources(alone) if r != "*"} == {"eu-central-1"}
    assert {r.split(":")[3] for r in resources(whole) if r != "*"} == {"eu-central-1", "eu-west-1"}
    assert not {"secretsmanager:TagResource", "secretsmanager:UntagResource"} & actions(alone)


def test_a_policy_that_iam_would_refuse_is_announced(stack: Any, tmp_path: Path) -> None:
    """By its size, and with what to do."""
    ran = stack({"aws": AWS})
    whole = declared({"aws": AWS})
    whole["secrets"] += [{**whole["secrets"][1], "name": f"support-copilot-worker-{n:02}"} for n in range(40)]
    ran._file.write_text(yaml.safe_dump({"config": {f"keyturn:{key}": value for key, value in whole.items()}}))
    code, out, err = ran("aws", "--for", "rotate")
    assert code == 0
    assert json.loads(out)
    assert "a managed policy of IAM at most 6144: name some secrets at a time" in " ".join(err.split())
