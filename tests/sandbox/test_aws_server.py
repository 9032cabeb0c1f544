"""The AWS stand-in as a harness: faults, the call log, stale lists, several accounts, and memory between runs."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from sandbox.aws import state
from sandbox.aws.control import Control
from sandbox.aws.server import AwsServer
from sandbox.clock import SandboxClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONCE = Config(retries={"total_max_attempts": 1})
VALUE = "sk-value-that-must-not-be-told"


@pytest.fixture(scope="module")
def shared() -> Iterator[AwsServer]:
    with AwsServer() as server:
        yield server


@pytest.fixture
def server(shared: AwsServer) -> AwsServer:
    shared.control.reset()
    return shared


@pytest.mark.parametrize(
    ("kind", "secrets_code", "iam_code"),
    [
        ("throttle", "ThrottlingException", "Throttling"),
        ("server_error", "InternalServiceError", "ServiceFailure"),
        ("denied", "AccessDeniedException", "AccessDenied"),
        ("unknown_key", "UnrecognizedClientException", "InvalidClientTokenId"),
        ("not_found", "ResourceNotFoundException", "NoSuchEntity"),
    ],
)
def test_faults_answer_in_the_words_of_the_service(
    server: AwsServer, kind: Any, secrets_code: str, iam_code: str
) -> None:
    """A fault befalls as many matching calls as asked for, nothing is done, and the next call goes through."""
    sm, iam = server.client("secretsmanager", config=ONCE), server.client("iam", config=ONCE)
    server.control.fail("CreateSecret", kind)
    server.control.fail("iam:CreateUser", kind)
    with pytest.raises(ClientError, match=secrets_code):
        sm.create_secret(Name="dev/one", SecretString=VALUE)
    with pytest.raises(ClientError, match=iam_code):
        iam.create_user(UserName="one")
    assert sm.list_secrets()["SecretList"] == []
    sm.create_secret(Name="dev/one", SecretString=VALUE)
    iam.create_user(UserName="one")


def test_dropped_connection_leaves_nothing_done(server: AwsServer) -> None:
    """`drop` closes the connection before the call is performed."""
    sm = server.client("secretsmanager", config=ONCE)
    server.control.fail("CreateSecret", "drop")
    with pytest.raises(ConnectionClosedError):
        sm.create_secret(Name="dev/one", SecretString=VALUE)
    assert sm.list_secrets()["SecretList"] == []


def test_lost_answer_leaves_it_done(server: AwsServer) -> None:
    """`lost_answer` closes the connection after the call was performed."""
    iam = server.client("iam", config=ONCE)
    iam.create_user(UserName="one")
    server.control.fail("CreateAccessKey", "lost_answer")
    with pytest.raises(ConnectionClosedError):
        iam.create_access_key(UserName="one")
    assert len(iam.list_access_keys(UserName="one")["AccessKeyMetadata"]) == 1


def test_boto3_repeats_a_mint_whose_answer_was_lost(server: AwsServer) -> None:
    """With boto3's own retries a lost answer mints twice: why a mint goes out once."""
    iam = server.client("iam")
    iam.create_user(UserName="one")
    server.control.fail("CreateAccessKey", "lost_answer")
    iam.create_access_key(UserName="one")
    assert len(iam.list_access_keys(UserName="one")["AccessKeyMetadata"]) == 2


def test_boto3_repeats_a_move_whose_answer_was_lost(server: AwsServer) -> None:
    """With boto3's own retries a promotion that was applied is reported as refused: it must be read back."""
    sm = server.client("secretsmanager")
    first = sm.create_secret(Name="dev/one", SecretString="1")["VersionId"]
    second = sm.put_secret_value(SecretId="dev/one", SecretString="2", VersionStages=["AWSPENDING"])["VersionId"]
    server.control.fail("UpdateSecretVersionStage", "lost_answer")
    with pytest.raises(ClientError, match="InvalidParameterException"):
        sm.update_secret_version_stage(
            SecretId="dev/one", VersionStage="AWSCURRENT", MoveToVersionId=second, RemoveFromVersionId=first
        )
    assert sm.get_secret_value(SecretId="dev/one")["VersionId"] == second


def test_one_of_many_promotions_wins(server: AwsServer) -> None:
    """Of concurrent moves of AWSCURRENT away from the same version exactly one succeeds."""
    sm = server.client("secretsmanager")
    base = sm.create_secret(Name="dev/one", SecretString="0")["VersionId"]
    rivals = [
        sm.put_secret_value(SecretId="dev/one", SecretString=str(number), VersionStages=[f"rival-{number}"])[
            "VersionId"
        ]
        for number in range(8)
    ]

    def promote(rival: str) -> bool:
        try:
            sm.update_secret_version_stage(
                SecretId="dev/one", VersionStage="AWSCURRENT", MoveToVersionId=rival, RemoveFromVersionId=base
            )
        except sm.exceptions.InvalidParameterException:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(promote, rivals))
    assert won.count(True) == 1
    assert sm.get_secret_value(SecretId="dev/one")["VersionId"] == rivals[won.index(True)]


def test_faults_skip_count_and_match_patterns(server: AwsServer) -> None:
    """A fault can let calls through first, befall several, and name operations by pattern."""
    sm = server.client("secretsmanager", config=ONCE)
    server.control.fail("secretsmanager:*", "throttle", times=2, skip=1)
    outcomes = []
    for _ in range(4):
        try:
            sm.list_secrets()
            outcomes.append("ok")
        except ClientError as error:
            outcomes.append(error.response["Error"]["Code"])
    assert outcomes == ["ok", "ThrottlingException", "ThrottlingException", "ok"]
    server.control.fail("*", "throttle", times=99)
    server.control.clear_faults()
    sm.list_secrets()


def test_unknown_faults_are_refused(server: AwsServer) -> None:
    """A fault's kind is one of those that the control knows."""
    with pytest.raises(HTTPError) as caught:
        server.control.fail("*", "gremlins")  # type: ignore[arg-type]
    with caught.value:
        assert caught.value.code == 400


def test_log_counts_and_tells_no_values(server: AwsServer) -> None:
    """The log has each call with its region, its subject and its outcome, counts of them, and no values."""
    sm = server.client("secretsmanager", region="eu-west-1", config=ONCE)
    sm.create_secret(Name="dev/one", SecretString=VALUE)
    sm.get_secret_value(SecretId="dev/one")
    with pytest.raises(ClientError):
        sm.get_secret_value(SecretId="dev/two")
    with pytest.raises(ClientError):
        server.client("iam").get_user(UserName="nobody")
    assert server.control.counts() == {
        "secretsmanager:CreateSecret": 1,
        "secretsmanager:GetSecretValue": 2,
        "iam:GetUser": 1,
    }
    calls = server.control.calls()
    assert [(call.subject, call.outcome) for call in calls] == [
        ("dev/one", "ok"),
        ("dev/one", "ok"),
        ("dev/two", "ResourceNotFoundException"),
        ("nobody", "NoSuchEntity"),
    ]
    assert (calls[0].region, calls[0].access_key_id) == ("eu-west-1", server.access_key_id)
    assert VALUE not in repr(calls)
    server.control.forget_calls()
    assert server.control.calls() == []


def test_lists_can_be_stale(server: AwsServer) -> None:
    """ListSecrets answers from the moment of freezing while every other operation sees the truth."""
    sm = server.client("secretsmanager")
    sm.create_secret(Name="dev/old", SecretString="1")
    server.control.freeze_lists(True)
    sm.create_secret(Name="dev/new", SecretString="1")
    sm.delete_secret(SecretId="dev/old", ForceDeleteWithoutRecovery=True)
    assert [entry["Name"] for entry in sm.list_secrets()["SecretList"]] == ["dev/old"]
    sm.describe_secret(SecretId="dev/new")
    server.control.freeze_lists(False)
    assert [entry["Name"] for entry in sm.list_secrets()["SecretList"]] == ["dev/new"]


def test_two_servers_are_two_accounts(server: AwsServer) -> None:
    """Servers in one process share nothing: neither secrets nor users nor keys."""
    with AwsServer() as another:
        assert another.account_id != server.account_id
        server.client("secretsmanager").create_secret(Name="dev/one", SecretString="1")
        server.client("iam").create_user(UserName="one")
        made = server.client("iam").create_access_key(UserName="one")["AccessKey"]
        assert another.client("secretsmanager").list_secrets()["SecretList"] == []
        assert [user["UserName"] for user in another.client("iam").list_users()["Users"]] == ["sandbox-admin"]
        stranger = another.client("sts", credentials=(made["AccessKeyId"], made["SecretAccessKey"]))
        with pytest.raises(ClientError, match="InvalidClientTokenId"):
            stranger.get_caller_identity()


def test_failing_rotation_hook_does_not_fail_the_call(capfd: pytest.CaptureFixture[str]) -> None:
    """RotateSecret has answered before its function runs; what the function does cannot fail it."""

    def fail(_: object) -> None:
        raise RuntimeError("no such function")

    with AwsServer(on_rotate=fail) as server:
        sm = server.client("secretsmanager")
        sm.create_secret(Name="dev/one", SecretString="1")
        sm.rotate_secret(SecretId="dev/one", RotationLambdaARN="arn:aws:lambda:eu-central-1:123456789012:function:f")
    assert "no such function" in capfd.readouterr().err


def test_ten_thousand_secrets_stay_quick(server: AwsServer) -> None:
    """Finding one of 10,000 does not look at the others: filling the account is linear."""
    service = server._service._secrets
    for number in range(10_000):
        service.invoke("CreateSecret", "eu-central-1", {"Name": f"dev/{number:05}"})
    pages = list(server.client("secretsmanager").get_paginator("list_secrets").paginate())
    assert len(pages) == 100
    assert sum(len(page["SecretList"]) for page in pages) == 10_000


@contextmanager
def running(*arguments: str) -> Iterator[str]:
    """The server as a process: its endpoint. Ends it by SIGTERM, as `down` does."""
    command = [sys.executable, "-m", "sandbox.aws.server", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0


@contextmanager
def clients(endpoint: str) -> Iterator[tuple[Any, Any]]:
    session = boto3.session.Session(
        aws_access_key_id="AKIAOWNADMIN00000000", aws_secret_access_key="own", region_name="eu-central-1"
    )
    sm, iam = (session.client(name, endpoint_url=endpoint) for name in ("secretsmanager", "iam"))
    try:
        yield sm, iam
    finally:
        sm.close()
        iam.close()


def test_a_process_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--state`: secrets, labels, replicas, users and keys survive a stop; only the owner can read the file."""
    monkeypatch.setenv("SANDBOX_AWS_ACCESS_KEY_ID", "AKIAOWNADMIN00000000")
    monkeypatch.setenv("SANDBOX_AWS_SECRET_ACCESS_KEY", "own")
    directory, clock = tmp_path / "aws", tmp_path / "clock.json"
    with running("--state", str(directory), "--clock", str(clock)) as endpoint, clients(endpoint) as (sm, iam):
        sm.create_secret(Name="dev/one", SecretString="1", AddReplicaRegions=[{"Region": "eu-west-1"}])
        pending = sm.put_secret_value(SecretId="dev/one", SecretString="2", VersionStages=["AWSPENDING"])["VersionId"]
        iam.create_user(UserName="one")
        made = iam.create_access_key(UserName="one")["AccessKey"]
    file = directory / state.NAME
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    SandboxClock(clock).move(timedelta(days=100))
    with running("--state", str(directory), "--clock", str(clock)) as endpoint, clients(endpoint) as (sm, iam):
        details = sm.describe_secret(SecretId="dev/one")
        assert details["VersionIdsToStages"][pending] == ["AWSPENDING"]
        assert details["ReplicationStatus"][0]["Region"] == "eu-west-1"
        assert sm.get_secret_value(SecretId="dev/one")["SecretString"] == "1"
        (key,) = iam.list_access_keys(UserName="one")["AccessKeyMetadata"]
        assert key["AccessKeyId"] == made["AccessKeyId"]
        later = sm.put_secret_value(SecretId="dev/one", SecretString="3")["VersionId"]
        created = sm.get_secret_value(SecretId="dev/one", VersionId=later)["CreatedDate"]
        assert created - details["CreatedDate"] >= timedelta(days=100)
        assert Control(endpoint).counts()["secretsmanager:PutSecretValue"] == 1


def test_state_of_others_is_not_loaded(tmp_path: Path) -> None:
    """A state file that others may write to, or that another account made, stops the start with a reason."""
    with AwsServer(state_directory=tmp_path, account_id="111111111111"):
        pass
    with pytest.raises(state.StateError, match="holds account 111111111111"):
        AwsServer(state_directory=tmp_path, account_id="222222222222")
    (tmp_path / state.NAME).chmod(0o644)
    with pytest.raises(state.StateError, match="0600"):
        AwsServer(state_directory=tmp_path, account_id="111111111111")


def test_health_and_unknown_control_paths(server: AwsServer) -> None:
    """The control path answers health, and 404 for what it does not know."""
    with urlopen(f"{server.endpoint}/_sandbox/health") as answer:  # noqa: S310
        assert json.load(answer) == {"ok": True}
    with pytest.raises(HTTPError) as caught:
        urlopen(f"{server.endpoint}/_sandbox/nothing")  # noqa: S310
    with caught.value:
        assert caught.value.code == 404
