"""IAM users in the configuration, in functions' packages, and in the rights that `keyturn policy aws` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hosting.packages import aws, azure
from providers import registry
from providers.access import aws as rights
from providers.issuers.iam import CALLS, FIELDS, IamIssuer
from rotation.cli.main import run
from rotation.clock import SystemClock
from rotation.config import ConfigError, IamConfig, parse
from tests.functions.test_azure_package import stack

GOOD: dict[str, Any] = {"kind": "aws-iam", "user": "support-bot", "path": "/bots/", "region": "eu-west-1"}
CALLED = {f"iam:{call}" for calls in CALLS.values() for call in calls}


def parsed(**changes: Any) -> Any:
    issuers = {"bot": GOOD | changes}
    return parse({"keyturn:environment": "prod", "keyturn:installation": "acme", "keyturn:issuers": issuers})


def test_it_is_opened_with_the_sdks_chain() -> None:
    """Nothing is asked of AWS; an admin credential is not needed."""
    config = parsed()
    issuer = registry.open_issuer("bot", config, {}, SystemClock(), {})
    registry.require_admin("bot", config, {})
    assert isinstance(issuer, IamIssuer)
    assert (issuer.capabilities.fields, issuer.capabilities.max_keys) == (FIELDS, 2)
    known = registry.capabilities(config.issuers["bot"])
    assert known is not None
    assert known.create == issuer.capabilities.create


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"user": "bots/support"}, "issuers.bot.user: has the wrong form"),
        ({"path": "bots"}, "issuers.bot.path: has the wrong form"),
        ({"roleArn": "keyturn"}, "issuers.bot.roleArn: has the wrong form"),
        ({"admin": "AKIAEXAMPLE:secret"}, "issuers.bot.admin: must be a reference, never the credential itself"),
    ],
)
def test_what_can_not_be_is_refused(changes: dict[str, Any], fault: str) -> None:
    """With the path of the field."""
    with pytest.raises(ConfigError) as raised:
        parsed(**changes)
    assert fault in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "resource"),
    [
        ({}, "arn:aws:iam::*:user/bots/support-bot"),
        ({"region": "cn-north-1", "path": "/"}, "arn:aws-cn:iam::*:user/support-bot"),
        ({"roleArn": "arn:aws:iam::333333333333:role/k"}, "arn:aws:iam::333333333333:user/bots/support-bot"),
    ],
)
def test_the_rights_are_those_of_one_user(changes: dict[str, Any], resource: str) -> None:
    """Every call that the issuer makes, and none that it does not."""
    (statement,) = rights.document([], [("bot", IamConfig.model_validate(GOOD | changes))])["Statement"]
    assert statement["Sid"] == "BotKeys"
    assert {*statement["Action"]} == CALLED
    assert statement["Resource"] == [resource]


@pytest.mark.parametrize(("persona", "granted"), [("rotate", True), ("respond", True), ("read", False)])
def test_policy_prints_them_beside_the_stores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], persona: str, granted: bool
) -> None:
    """For whoever mints and revokes; a consumer gets none of them."""
    usual = {"store": "aws", "owner": "support", "rotateEvery": "30d", "grace": "24h"}
    config = {
        "installation": "acme",
        "environment": "prod",
        "stores": {"aws": {"kind": "aws-secrets-manager", "region": "eu-west-1"}},
        "issuers": {"bot": GOOD},
        "owners": {"support": {"notify": []}},
        "secrets": [{"name": "support-bot", "issuer": "bot", **usual}],
    }
    file = tmp_path / "Pulumi.prod.yaml"
    file.write_text(yaml.safe_dump({"config": {f"keyturn:{key}": value for key, value in config.items()}}))
    with pytest.raises(SystemExit) as ended:
        run(["policy", "aws", "--for", persona, "--config", str(file), "--json"])
    assert ended.value.code == 0
    actions = {action for s in json.loads(capsys.readouterr().out)["Statement"] for action in s["Action"]}
    assert ({action for action in actions if action.startswith("iam:")} == CALLED) is granted
    assert any(action.startswith("secretsmanager:") for action in actions)


def test_two_secrets_do_not_share_a_user() -> None:
    """There is room for the keys of one, and nothing tells whose a key is."""
    secret = {"name": "support-bot", "store": "vault", "issuer": "bot", "owner": "support", "rotateEvery": "30d"}
    values = {
        "keyturn:environment": "prod",
        "keyturn:installation": "acme",
        "keyturn:stores": {"vault": {"kind": "hashicorp-vault", "address": "https://vault.acme.example"}},
        "keyturn:issuers": {"bot": GOOD},
        "keyturn:owners": {"support": {"notify": []}},
        "keyturn:secrets": [secret, secret | {"name": "support-jobs"}],
    }
    with pytest.raises(ConfigError) as raised:
        parse(values)
    assert "secrets[1].issuer: the keys of bot are those of support-bot already" in str(raised.value)
    assert "secrets[0].issuer" not in str(raised.value)


@pytest.mark.parametrize("used", [True, False])
def test_only_a_stack_that_needs_it_packs_it(tmp_path: Path, used: bool) -> None:
    """And has the SDK of AWS installed by a Functions app."""
    path = stack(tmp_path, issuers={"bot": GOOD if used else {"kind": "generated"}}, secrets=[])
    functions, zipped = azure.entries(path), aws.entries(path)
    assert ("boto3==" in functions["requirements.txt"].decode()) is used
    for packed in (functions, zipped):
        assert ("providers/issuers/iam.py" in packed) is used
