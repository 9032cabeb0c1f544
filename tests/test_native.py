"""What a secret must be like so that Secrets Manager itself can rotate it, and how Secrets Manager is told."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from providers.stores.aws import AwsLogin, SecretsManagerStore
from rotation.clock import SystemClock
from rotation.config import ConfigError, parse
from rotation.errors import Code, Trouble
from rotation.model import Capabilities, Credential, Model, Propagation, SecretValue
from rotation.native import faults
from rotation.policy import read, written
from sandbox.aws.server import AwsServer

REGION = "eu-central-1"
FUNCTION = f"arn:aws:lambda:{REGION}:123456789012:function:keyturn"
ENTRY = "prod/support-copilot-chat"

STACK: dict[str, Any] = {
    "installation": "acme",
    "environment": "prod",
    "stores": {
        "aws": {
            "kind": "aws-secrets-manager",
            "region": REGION,
            "rotation": "native",
            "rotationFunction": FUNCTION,
        },
        "vault": {"kind": "hashicorp-vault", "address": "https://vault.internal:8200"},
    },
    "issuers": {
        "openai": {"kind": "openai", "project": "proj_a", "admin": {"env": "OPENAI_ADMIN_KEY"}},
        "generated": {"kind": "generated"},
    },
    "owners": {"team": {"notify": []}},
    "secrets": [
        {"name": "support-copilot-chat", "store": "aws", "issuer": "openai", "owner": "team", "rotateEvery": "30d"},
        {
            "name": "support-copilot-hook",
            "store": "vault",
            "issuer": "generated",
            "owner": "team",
            "rotateEvery": "30d",
        },
    ],
}


def stack(store: dict[str, Any] | None = None, secret: dict[str, Any] | None = None) -> dict[str, Any]:
    whole = copy.deepcopy(STACK)
    whole["stores"]["aws"] |= store or {}
    whole["secrets"][0] |= secret or {}
    return whole


def told(whole: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(whole)
    return str(caught.value)


def test_the_store_says_it_and_the_applied_policy_keeps_it() -> None:
    """Of the secrets whose primary store it is; a function that sees only the entry knows who rotates it."""
    native, other = parse(STACK).policies
    assert (native.native, other.native) == (True, False)
    assert read(written(native)) == native
    assert written(native)["rotation"] == "native"
    assert "rotation" not in written(other)
    assert not parse(stack({"rotation": "direct", "rotationFunction": None})).policies[0].native


@pytest.mark.parametrize(
    ("store", "fault"),
    [
        ({"rotationFunction": None}, "native needs the function"),
        ({"rotation": "direct"}, "direct has no use for rotationFunction"),
        ({"rotationFunction": FUNCTION.replace(REGION, "eu-west-1")}, "the store's own region"),
        ({"rotationFunction": "keyturn"}, "the ARN of the Lambda function"),
        ({"rotation": "both"}, "direct: sweeps rotate; or native"),
    ],
)
def test_a_native_store_needs_its_function(store: dict[str, Any], fault: str) -> None:
    """In its own region, as the service calls no other; and nobody else has use for one."""
    assert fault in told(stack(store))


@pytest.mark.parametrize(
    ("secret", "path", "fault"),
    [
        ({"rotateEvery": "4h30m", "grace": "1h"}, "rotateEvery", "whole hours"),
        ({"schedule": {"every": "7d", "jitter": "1h"}}, "schedule", "knows an interval only"),
    ],
)
def test_what_the_service_can_not_do_is_refused(secret: dict[str, Any], path: str, fault: str) -> None:
    """With the field, and the way out."""
    message = told(stack(secret=secret))
    assert f"secrets[0].{path}" in message
    assert fault in message
    assert "rotation: direct" in message


def test_pairs_slow_issuers_and_people_are_refused() -> None:
    """The service knows no pairs, a step has one run of a function, and no step waits for a person."""
    policy = parse(STACK).policies[0]
    slow = Capabilities(create=Propagation(timeout=timedelta(minutes=11)))
    assert [path for path, _, _ in faults(policy, slow)] == ["issuer"]
    assert [path for path, _, _ in faults(policy, Capabilities(model=Model.MANUAL))] == ["issuer"]
    assert [*faults(policy, Capabilities(create=Propagation(timeout=timedelta(minutes=10))))] == []
    pair = {**STACK["secrets"][0], "name": "support-copilot-batch", "pairedWith": "support-copilot-chat"}
    whole = stack(secret={"pairedWith": "support-copilot-batch"})
    whole["secrets"].append(pair)
    assert told(whole).count("both of a pair") == 2


# --- telling Secrets Manager -----------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[AwsServer]:
    with AwsServer(account_id="123456789012") as running:
        yield running


@pytest.fixture
def store(server: AwsServer, monkeypatch: pytest.MonkeyPatch) -> SecretsManagerStore:
    for name, text in server.environment(REGION).items():
        monkeypatch.setenv(name, text)
    made = SecretsManagerStore("aws", region=REGION, login=AwsLogin(), clock=SystemClock(), rotation_function=FUNCTION)
    made.create(ENTRY, written(parse(STACK).policies[0]))
    return made


def settings(store: SecretsManagerStore) -> tuple[bool, str, str] | None:
    service = store.observe(ENTRY).service
    return (service.enabled, service.function, service.schedule) if service else None


def test_settings_are_written_once_and_in_place(store: SecretsManagerStore, server: AwsServer) -> None:
    """On, changed, the same again, off; none of it starts a rotation."""
    assert settings(store) is None
    store.set_rotation(ENTRY, timedelta(days=30))
    assert settings(store) == (True, FUNCTION, "rate(30 days)")
    store.set_rotation(ENTRY, timedelta(days=1))
    assert settings(store) == (True, FUNCTION, "rate(1 day)")
    store.set_rotation(ENTRY, timedelta(hours=36))
    assert settings(store) == (True, FUNCTION, "rate(36 hours)")
    asked = server.control.counts()["secretsmanager:RotateSecret"]
    store.set_rotation(ENTRY, timedelta(hours=36))
    assert server.control.counts()["secretsmanager:RotateSecret"] == asked
    store.set_rotation(ENTRY, None)
    store.set_rotation(ENTRY, None)
    assert settings(store) == (False, FUNCTION, "rate(36 hours)")
    assert server.control.counts()["secretsmanager:CancelRotateSecret"] == 1
    assert store.observe(ENTRY).pending is None


def test_settings_of_others_are_understood(store: SecretsManagerStore, server: AwsServer) -> None:
    """A console writes days."""
    console = server.client("secretsmanager", region=REGION)
    rules = {"AutomaticallyAfterDays": 7}
    console.rotate_secret(SecretId=ENTRY, RotationLambdaARN=FUNCTION, RotationRules=rules, RotateImmediately=False)
    assert settings(store) == (True, FUNCTION, "rate(7 days)")


def test_a_rotation_that_is_begun_is_seen_and_keeps_others_from_beginning(store: SecretsManagerStore) -> None:
    """The same token twice is one; another is a conflict, in words."""
    with pytest.raises(Trouble) as never:
        store.start_rotation(ENTRY, "a" * 32)
    assert never.value.code is Code.INVALID
    store.set_rotation(ENTRY, timedelta(days=30))
    store.start_rotation(ENTRY, "a" * 32)
    service = store.observe(ENTRY).service
    assert service is not None
    assert (service.begun, service.enabled) == ("a" * 32, True)
    assert service.idle_since is not None
    works: list[Callable[[], None]] = [
        lambda: store.start_rotation(ENTRY, "b" * 32),
        lambda: store.set_rotation(ENTRY, timedelta(days=9)),
    ]
    for work in works:
        with pytest.raises(Trouble, match="counts a rotation of it as begun") as conflict:
            work()
        assert conflict.value.code is Code.CONFLICT


def test_the_right_that_the_service_gave_goes_out_with_its_token_alone(store: SecretsManagerStore) -> None:
    """As a role of another account needs it; and only while its rotation is worked on."""
    store.observe(ENTRY)
    sent: list[tuple[str, str | None]] = []

    def listen(params: dict[str, Any], **_: Any) -> None:
        sent.append((params["ClientRequestToken"], params.get("RotationToken")))

    client: Any = store._service._client
    client.meta.events.register("provide-client-params.secretsmanager.PutSecretValue", listen)
    right = "r" * 40
    with store.rotating(ENTRY, "a" * 36, SecretValue(right)):
        store.stage(ENTRY, "a" * 36, Credential.of(value="one"), key_id=None)
        store.stage(ENTRY, "b" * 36, Credential.of(value="two"), key_id=None)
    store.stage(ENTRY, "c" * 36, Credential.of(value="three"), key_id=None)
    assert [pair for pair in sent if pair[0][0] in "abc"] == [("a" * 36, right), ("b" * 36, None), ("c" * 36, None)]


def test_a_store_without_a_function_says_what_is_missing(server: AwsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy may be applied by a newer configuration than the one at hand."""
    for name, text in server.environment(REGION).items():
        monkeypatch.setenv(name, text)
    bare = SecretsManagerStore("aws", region=REGION, login=AwsLogin(), clock=SystemClock())
    bare.create(ENTRY, written(parse(STACK).policies[0]))
    with pytest.raises(Trouble, match="rotationFunction"):
        bare.set_rotation(ENTRY, timedelta(days=30))
    assert bare.observe(ENTRY).service is None
