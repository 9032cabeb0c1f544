"""The Lambda function from its package: rotated by RotateSecret for real, retried, crashed, and used in an emergency."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hosting.packages import archive
from hosting.packages import aws as package
from sandbox.aws.executor import FunctionError
from sandbox.openai.harness import OpenAIServer
from tests.cli.project import Time
from tests.functions.lambda_site import CHAT, FUNCTION, HOOK, InStep, Site, site

MINT = "/v1/organization/projects/*/service_accounts"
MODELS = "/v1/models"
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def time(tmp_path_factory: pytest.TempPathFactory) -> Time:
    return Time(tmp_path_factory.mktemp("clock") / "clock.json")


@pytest.fixture(scope="module")
def openai(time: Time) -> Iterator[OpenAIServer]:
    with OpenAIServer(now=time.now) as server:
        yield server


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package; each test gives it a configuration of its own."""
    root = tmp_path_factory.mktemp("package")
    stack = root / "Pulumi.any.yaml"
    stack.write_text(STACK)
    archive.write(root / "keyturn-lambda.zip", package.entries(stack))
    return root / "keyturn-lambda.zip"


STACK = f"""
config:
  keyturn:installation: acme
  keyturn:environment: any
  keyturn:stores:
    aws: {{kind: aws-secrets-manager, region: eu-central-1, rotation: native, rotationFunction: "{FUNCTION}"}}
  keyturn:issuers:
    openai: {{kind: openai, project: proj_any, admin: {{env: OPENAI_ADMIN_KEY}}}}
    generated: {{kind: generated}}
"""


@pytest.fixture
def bare(tmp_path: Path, openai: OpenAIServer, time: Time) -> Iterator[Site]:
    with site(tmp_path, openai, time) as made:
        yield made
    openai.control.clear_faults()
    openai.control.configure(create_delay=0)


@pytest.fixture
def here(bare: Site, built: Path) -> Site:
    """One natively rotated secret with its first credential, and the function."""
    bare.declare({"name": CHAT})
    bare.deploy(built)
    bare.apply()
    bare.executor.invocations.clear()
    return bare


def settled(site: Site, names: tuple[str, ...] = (CHAT,)) -> None:
    """What lives is what is handed out, and the service may rotate again."""
    site.settle()
    assert len(site.alive()) == len(names)
    for name in names:
        assert site.accepted(site.value(name))
        labels = site.labels(name)
        assert labels.get("AWSPENDING") in (None, labels["AWSCURRENT"])


# --- rotation by the service -----------------------------------------------------------------------


def test_a_package_rotates_by_rotate_secret(bare: Site) -> None:
    """From the zip and nothing else: minted, verified, promoted under the service's own token; then the old one dies."""
    bare.declare({"name": CHAT})
    bare.deploy()
    bare.apply()
    bare.executor.invocations.clear()
    old = bare.value()
    token = bare.rotate()
    assert bare.steps() == [("createSecret", True), ("setSecret", True), ("testSecret", True), ("finishSecret", True)]
    assert bare.labels()["AWSCURRENT"] == token
    assert bare.labels().get("AWSPENDING") in (None, token)
    assert bare.value() != old
    assert bare.accepted(bare.value())
    assert bare.accepted(old)  # in its grace period
    settled(bare)
    assert not bare.accepted(old)
    assert bare.rotate() != token


def test_both_spellings_and_repeated_steps(here: Site) -> None:
    """A step that was done before is done; names with underscores are the same steps."""
    seen: list[Mapping[str, Any]] = []
    here.before = seen.append
    here.rotate()
    here.before = None
    keys = here.keys()
    spelt = {"createSecret": "create_secret", "testSecret": "test_secret", "finishSecret": "finish_secret"}
    for event in seen:
        here.executor.invoke({**event, "Step": spelt.get(event["Step"], "set_secret")})
    assert here.keys() == keys
    assert here.labels()["AWSCURRENT"] == seen[0]["ClientRequestToken"]


def test_a_failing_step_is_retried_without_another_mint(here: Site, openai: OpenAIServer) -> None:
    """The service tries the whole rotation again; what createSecret has made is used again."""
    before = len(here.keys())
    openai.control.fault("GET", MODELS, times=2, status=503)
    token = here.rotate()
    assert here.steps()[2] == ("testSecret", False)
    assert here.steps()[-1] == ("finishSecret", True)
    assert here.labels()["AWSCURRENT"] == token
    assert len(here.keys()) == before + 1
    settled(here)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("TagResource", "lost_answer"),
        ("TagResource", "drop"),
        ("PutSecretValue", "lost_answer"),
        ("PutSecretValue", "drop"),
        ("UpdateSecretVersionStage", "lost_answer"),
        ("UpdateSecretVersionStage", "drop"),
        ("GetSecretValue", "drop"),
        ("DescribeSecret", "throttle"),
    ],
)
def test_no_fault_of_the_service_leaves_anything_behind(here: Site, operation: str, kind: Any) -> None:
    """Whichever call is lost, refused or cut off: the value stays good, and in the end one key lives."""
    here.aws.control.fail(operation, kind, times=1)
    here.rotate()
    assert here.accepted(here.value())
    settled(here)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_mint_gives_its_token_up(here: Site, openai: OpenAIServer, when: Any) -> None:
    """A token mints once. The label goes, the step fails, and when it is due the sweep has the service begin anew."""
    here.time.move(30 * DAY)
    openai.control.fault("POST", MINT, when=when)
    token = here.rotate()
    assert ("createSecret", False) in here.steps()
    assert "AWSPENDING" not in here.labels() or here.labels()["AWSPENDING"] != token
    old = here.value()
    settled(here)
    assert here.value() != old
    assert here.labels()["AWSCURRENT"] != token


def test_a_poisoned_value_is_given_up_and_minted_afresh(here: Site, openai: OpenAIServer) -> None:
    """Never accepted: condemned, its label taken off, the step fails. The next sweep starts a fresh RotateSecret."""
    here.time.move(30 * DAY)
    old = here.value()
    openai.control.configure(create_delay=100_000)
    token = here.rotate()
    assert here.steps()[2] == ("testSecret", False)
    assert here.labels().get("AWSPENDING") in (None, here.labels()["AWSCURRENT"])
    assert here.value() == old
    here.time.move(timedelta(minutes=1))
    openai.control.configure(create_delay=0)
    here.executor.invocations.clear()
    here.time.move(timedelta(minutes=20))
    here.sweep()
    here.executor.wait()
    assert [step for step, good in here.steps() if good] == ["createSecret", "setSecret", "testSecret", "finishSecret"]
    assert here.labels()["AWSCURRENT"] != token
    here.time.move(timedelta(seconds=100_000))
    settled(here)


@pytest.mark.parametrize("step", ["setSecret", "testSecret", "finishSecret"])
def test_every_step_may_be_a_cold_start(here: Site, step: str) -> None:
    """Nothing of a rotation lives in a process: another one goes on with it."""
    here.before = lambda event: here.executor.freeze() if event["Step"] == step else None
    token = here.rotate()
    here.before = None
    assert [invocation.cold for invocation in here.executor.invocations].count(True) >= 1
    assert here.labels()["AWSCURRENT"] == token
    settled(here)


@pytest.mark.parametrize("call", ["TagResource", "PutSecretValue", "UpdateSecretVersionStage"])
def test_a_killed_function_is_gone_on_from(here: Site, call: str) -> None:
    """Killed as soon as this call has come: before, in or after the next one. The service's retries or sweeps go on."""
    before = here.aws.control.counts().get(f"secretsmanager:{call}", 0)
    over = threading.Event()

    def strike() -> None:
        while not over.is_set():
            if here.aws.control.counts().get(f"secretsmanager:{call}", 0) > before:
                here.executor.kill()
                return

    killer = threading.Thread(target=strike)
    killer.start()
    try:
        here.rotate()
    finally:
        over.set()
        killer.join()
    assert here.accepted(here.value())
    settled(here)


def test_a_rotation_that_the_service_gives_up_is_taken_on_by_sweeps(here: Site) -> None:
    """The function was never called for the last steps; the sweep promotes what was staged and verified."""

    def broken(event: Mapping[str, Any]) -> None:
        if event.get("Step") == "testSecret":
            raise FunctionError("can not be called")

    here.before = broken
    token = here.rotate()
    here.before = None
    assert here.labels()["AWSPENDING"] == token != here.labels()["AWSCURRENT"]
    here.sweep()
    assert here.labels()["AWSPENDING"] != here.labels()["AWSCURRENT"]  # its steps may still come
    settled(here)
    assert here.labels()["AWSCURRENT"] == token


@pytest.mark.parametrize("step", ["createSecret", "testSecret", "finishSecret"])
def test_an_emergency_does_not_wait_for_the_service(here: Site, step: str) -> None:
    """It moves the labels itself, whatever the service is at; the service's steps then fail, and do no harm."""
    leaked = here.value()
    done: list[bool | None] = []

    def strike(event: Mapping[str, Any]) -> None:
        if event.get("Step") == step and not done:
            done.append(here.assembly().engine.emergency(here.target()).achieved)

    here.before = strike
    token = here.rotate()
    here.before = None
    assert done == [True]
    assert (step, False) in here.steps()
    assert not here.accepted(leaked)
    assert here.accepted(here.value())
    assert here.labels()["AWSCURRENT"] != token
    settled(here)
    assert here.rotate() == here.labels()["AWSCURRENT"]


def test_a_step_of_no_rotation_is_refused(here: Site) -> None:
    """The guards of the protocol: not enabled, a token that is not pending, a policy that leaves it to sweeps."""
    arn = here.secretsmanager.describe_secret(SecretId=here.target().entry)["ARN"]
    stranger = {"SecretId": arn, "ClientRequestToken": "0" * 36}
    for step in ("createSecret", "finishSecret"):
        with pytest.raises(FunctionError, match="not pending"):
            here.executor.invoke({"Step": step, **stranger})
    here.secretsmanager.cancel_rotate_secret(SecretId=here.target().entry)
    with pytest.raises(FunctionError, match="not enabled"):
        here.executor.invoke({"Step": "createSecret", **stranger})
    with pytest.raises(FunctionError, match="there is no step"):
        here.executor.invoke({"Step": "eatSecret", **stranger})
    with pytest.raises(FunctionError, match="no ARN"):
        here.executor.invoke({"Step": "createSecret", **stranger, "SecretId": "x"})


def test_one_scheduler_works_on_a_secret(here: Site) -> None:
    """Settings follow the policy; a secret that sweeps rotate is none of the service's."""
    entry = here.target().entry

    def settings() -> tuple[bool, str]:
        about = here.secretsmanager.describe_secret(SecretId=entry)
        return about["RotationEnabled"], about["RotationRules"]["ScheduleExpression"]

    native = here.policy()
    assert settings() == (True, "rate(30 days)")
    assert here.secretsmanager.describe_secret(SecretId=entry)["RotationLambdaARN"] == FUNCTION
    often = replace(native, rotate_every=timedelta(hours=36), grace=timedelta(hours=1))
    here.update(native, often)
    assert settings() == (True, "rate(36 hours)")
    direct = replace(native, native=False)
    here.update(often, direct)
    assert settings()[0] is False
    here.secretsmanager.rotate_secret(SecretId=entry)  # somebody's button turns it on again
    here.executor.wait()
    assert ("createSecret", False) in here.steps()
    assert "leaves rotation to sweeps" in here.executor.log
    settled(here)
    here.update(direct, native)
    assert settings() == (True, "rate(30 days)")
    here.assembly().engine.release(here.target())
    assert settings()[0] is False


def test_the_sweep_starts_what_the_service_missed(here: Site) -> None:
    """Not when it is due, which is the service's turn, but a day later; and never by moving labels."""
    here.time.move(30 * DAY + timedelta(hours=1))
    here.sweep()
    here.executor.wait()
    assert here.steps() == []
    here.time.move(DAY)
    here.sweep()
    here.executor.wait()
    assert [step for step, good in here.steps() if good] == ["createSecret", "setSecret", "testSecret", "finishSecret"]
    settled(here)


def test_a_person_who_asks_waits_for_the_service(here: Site) -> None:
    """`keyturn rotate` calls RotateSecret, and sees it through."""
    old = here.value()
    clock = InStep(here.time.path, here.executor)
    outcome = here.assembly(clock).engine.rotate(here.target(), patience=timedelta(minutes=2))
    assert outcome.achieved, outcome
    assert here.value() != old
    here.executor.wait()
    assert here.steps()[-1] == ("finishSecret", True)


def test_a_replica_in_another_region_knows_the_services_tokens(bare: Site, built: Path) -> None:
    """Its own journal says nothing of them; the primary's does."""
    second = {"kind": "aws-secrets-manager", "region": "eu-west-1", "endpointUrl": bare.aws.endpoint}
    bare.declare({"name": CHAT, "replicas": ["second"]}, second=second)
    bare.deploy(built)
    bare.apply()
    token = bare.rotate()
    west = bare.aws.client("secretsmanager", region="eu-west-1")
    there = west.get_secret_value(SecretId=bare.target().entry)
    assert (there["VersionId"], there["SecretString"]) == (token, bare.value())
    settled(bare)
    assert bare.rotate() == west.get_secret_value(SecretId=bare.target().entry)["VersionId"]


# --- schedules and batches -------------------------------------------------------------------------


def test_a_schedule_sweeps_everything(bare: Site, built: Path, openai: OpenAIServer) -> None:
    """What is due is rotated where sweeps do it, what has drained is revoked and shown dead; what failed is told."""
    direct = {"rotation": "direct", "kind": "aws-secrets-manager", "region": "eu-central-1"}
    store = {**direct, "endpointUrl": bare.aws.endpoint}
    bare.declare({"name": CHAT}, {"name": HOOK, "issuer": "generated"}, aws=store)
    bare.deploy(built)
    bare.apply()
    old = bare.value(HOOK), bare.value()
    bare.time.move(30 * DAY)
    assert bare.sweep() == {"secrets": 2, "orphans": 0, "unseen": 0, "done": 2}
    assert not {*old} & {bare.value(HOOK), bare.value()}
    bare.time.move(30 * DAY)
    openai.control.fault("POST", MINT, times=1, status=403, code="forbidden")
    with pytest.raises(FunctionError, match="left something"):
        bare.sweep()
    settled(bare)


def test_a_batch_tells_which_messages_come_again(bare: Site, built: Path, openai: OpenAIServer) -> None:
    """One bad name, or one secret that fails, holds up no other; a name that comes twice is run once."""
    store = {"kind": "aws-secrets-manager", "region": "eu-central-1", "endpointUrl": bare.aws.endpoint}
    bare.declare({"name": CHAT}, {"name": HOOK, "issuer": "generated"}, aws=store)
    bare.deploy(built)
    bare.apply()
    bare.time.move(30 * DAY)
    openai.control.fault("POST", MINT, times=1, status=403, code="forbidden")
    bodies = {"a": CHAT, "b": HOOK, "c": json.dumps({"secret": HOOK}), "d": "no-such-name"}
    records = [
        {"messageId": id_, "eventSource": "aws:sqs", "body": body, "attributes": {}} for id_, body in bodies.items()
    ]
    old = bare.value(HOOK)
    assert bare.executor.invoke({"Records": records}) == {
        "batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "d"}]
    }
    assert bare.value(HOOK) != old


def test_no_rotation_begins_with_too_little_time(here: Site, built: Path) -> None:
    """A function that is cut off between mint and store would lose the key: it says what to change instead."""
    here.executor.close()
    here.deploy(built, timeout=30.0, retries=0)
    keys = here.keys()
    here.rotate()
    assert "raise the timeout" in here.executor.log
    assert here.keys() == keys


def test_an_unknown_event_is_refused_in_words(here: Site) -> None:
    """Says what is known."""
    with pytest.raises(FunctionError, match="EventBridge"):
        here.executor.invoke({"hello": "world"})


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("stack.yaml", "config: {}", "is YAML, which this package can not read"),
        ("keyturn.json", '{"format": 0}', "build the package again"),
        ("absent.json", None, "can not be used"),
    ],
)
def test_a_configuration_that_is_none_is_told_in_words(
    here: Site, tmp_path: Path, name: str, text: str | None, told: str
) -> None:
    """At the first event, and at each that follows: nothing was done."""
    path = tmp_path / "elsewhere" / name
    path.parent.mkdir()
    if text is not None:
        path.write_text(text)
    here.extra["KEYTURN_CONFIG"] = str(path)
    here.executor.freeze()
    for _ in range(2):
        with pytest.raises(FunctionError, match=told):
            here.executor.invoke({"keyturn": "sweep"})


# --- what it tells ---------------------------------------------------------------------------------


def test_no_value_is_in_the_log_and_every_line_names_its_invocation(here: Site, openai: OpenAIServer) -> None:
    """At DEBUG, over a rotation, a failure and a sweep: nothing of any key, of the admin credential, of RotationToken."""
    secrets = {openai.admin_key, here.value()}
    here.before = lambda event: secrets.add(event.get("RotationToken", here.value()))
    openai.control.fault("GET", MODELS, times=1, status=401)
    here.rotate()
    secrets.add(here.value())
    here.before = None
    here.settle()
    log = here.executor.log
    assert len(secrets) >= 4
    assert not [secret for secret in secrets if secret in log]
    lines = [line for line in here.log() if "logger" in line]
    assert lines
    assert all(re.fullmatch(r"[0-9a-f-]{36}", line["aws_request_id"]) for line in lines), lines
    ended = [line for line in lines if line["logger"] == "keyturn.lambda" and "ms" in line and "calls" in line]
    assert {"cold", "what", "ms", "of_ms"} <= ended[0].keys()
    assert ended[-1]["calls"]["aws"]["calls"] > 0


def test_metrics_are_lines_that_cloudwatch_reads(here: Site) -> None:
    """The embedded metric format: ages, phase, durations, calls per service, under names and codes only."""
    here.rotate()
    here.settle()
    metrics: dict[str, list[dict[str, Any]]] = {}
    for line in here.log():
        for about in line.get("_aws", {}).get("CloudWatchMetrics", ()):
            assert about["Namespace"] == "Keyturn"
            assert len(about["Dimensions"][0]) <= 30
            assert {*about["Dimensions"][0]} <= line.keys()
            for metric in about["Metrics"]:
                assert metric["Unit"] in ("Seconds", "Count")
                metrics.setdefault(metric["Name"], []).append(line)
    assert {
        "keyturn_secret_age_seconds",
        "keyturn_secret_phase",
        "keyturn_calls_total",
        "keyturn_call_duration_seconds",
        "keyturn_rotation_duration_seconds",
        "keyturn_proof_duration_seconds",
        "keyturn_runs_total",
    } <= metrics.keys()
    told = metrics["keyturn_secret_age_seconds"][-1]
    assert (told["secret"], told["issuer"], told["store"]) == (CHAT, "openai", "aws")
    assert {line["service"] for line in metrics["keyturn_calls_total"]} == {"aws", "openai"}


# --- the package -----------------------------------------------------------------------------------


def names_of(zip_file: Mapping[str, bytes]) -> set[str]:
    return {name.partition("/")[0] for name in zip_file}


def test_a_package_is_the_same_twice(tmp_path: Path) -> None:
    """Same sources, same stack: same bytes."""
    stack = tmp_path / "Pulumi.any.yaml"
    stack.write_text(STACK)
    for number in ("1", "2"):
        archive.write(tmp_path / number, package.entries(stack))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_a_package_holds_what_its_stack_needs(tmp_path: Path) -> None:
    """No checker of configurations, no other cloud's SDK, no bytecode, nothing of the sandbox, nothing compiled."""
    stack = tmp_path / "Pulumi.any.yaml"
    stack.write_text(STACK)
    packed = package.entries(stack)
    assert names_of(packed) == {
        "keyturn.json", "rotation", "providers", "requests", "certifi", "idna", "charset_normalizer",
    }  # fmt: skip
    assert not [name for name in packed if "__pycache__" in name or name.endswith((".pyc", ".so"))]
    assert not {"rotation/config.py", "providers/issuers/description.py", "providers/stores/vault.py"} & packed.keys()
    assert package.platform_bound(packed) == []


def test_a_package_takes_along_what_a_replica_elsewhere_needs(tmp_path: Path) -> None:
    """Vault's SDK for Vault, and its certificate."""
    stack = tmp_path / "Pulumi.any.yaml"
    vault = "    vault: {kind: hashicorp-vault, address: 'https://vault.internal', caBundle: ca/vault.pem}\n"
    stack.write_text(STACK.replace("  keyturn:issuers:", vault + "  keyturn:issuers:"))
    with pytest.raises(archive.Unpackable, match="caBundle"):
        package.entries(stack)
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "vault.pem").write_text("-----")
    packed = package.entries(stack)
    assert "hvac" in names_of(packed)
    assert "azure" not in names_of(packed)
    assert {"ca/vault.pem", "providers/stores/vault.py"} <= packed.keys()


def test_a_package_takes_along_what_schedules_need(tmp_path: Path) -> None:
    """A parser of cron and the time zones, where a secret has such a schedule."""
    stack = tmp_path / "Pulumi.any.yaml"
    direct = STACK.replace(f', rotation: native, rotationFunction: "{FUNCTION}"', "")
    schedule = "{cron: '0 3 * * 0', timeZone: Europe/Berlin, latest: 14d}"
    secret = f"{{name: a-b, store: aws, issuer: generated, owner: t, grace: 1h, schedule: {schedule}}}"
    stack.write_text(f"{direct}  keyturn:owners: {{t: {{notify: []}}}}\n  keyturn:secrets: [{secret}]\n")
    packed = package.entries(stack)
    assert {"cronsim", "tzdata"} <= names_of(packed)
    assert "tzdata/zoneinfo/Europe/Berlin" in packed


def test_the_function_loads_no_other_clouds_sdk(here: Site) -> None:
    """Nor anything that its runtime has not: a whole rotation was done with nothing else to be found."""
    here.rotate()
    present = {path.name for path in here.executor._task.iterdir()} | {
        path.name for path in here.executor._runtime.iterdir()
    }
    assert not present & {"azure", "hvac", "pydantic", "yaml", "msal", "typer", "rich", "pulumi"}
    assert here.steps()[-1] == ("finishSecret", True)


def test_the_command_builds_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Says where it is and what the function's handler is; a faulty stack file is a usage fault."""
    (tmp_path / "Pulumi.any.yaml").write_text(STACK)
    monkeypatch.chdir(tmp_path)
    assert package.main(["--stack", "any"]) == 0
    assert "handler rotation.functions.aws_lambda.handler" in capsys.readouterr().out
    assert (tmp_path / package.OUTPUT).exists()
    (tmp_path / "Pulumi.any.yaml").write_text(STACK.replace("acme", "AC ME"))
    assert package.main(["--stack", "any"]) == 2
    assert "keyturn:installation" in capsys.readouterr().err
