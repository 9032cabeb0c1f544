"""A fleet on Lambda: one function looks round and fills a queue, and is called again with what is in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from rotation.audit import FileAuditor
from rotation.batches import parse
from rotation.config import load
from rotation.errors import Trouble
from rotation.functions.lambda_host import QUEUE, Failed, Host
from rotation.functions.sqs import Sender
from rotation.provision import Provisioner
from sandbox.clock import SandboxClock
from sandbox.openbao import KEYTURN_POLICY, OpenBaoServer
from tests.test_batches import ONE

REGION: Final = "eu-central-1"
SECRETS: Final = 23
LOGIN: Final = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}


class Context:
    """An invocation with plenty of time."""

    aws_request_id = "request-1"

    def __init__(self, seconds: float = 300) -> None:
        self._left = int(seconds * 1000)

    def get_remaining_time_in_millis(self) -> int:
        return self._left


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    for name, text in {**LOGIN, "AWS_ENDPOINT_URL_SQS": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, text)
    client = boto3.client("sqs")
    yield client
    client.close()
    server.stop()


@pytest.fixture
def dead(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName="keyturn-dead")["QueueUrl"])


@pytest.fixture
def queue(sqs: Any, dead: str) -> str:
    """As docs/fleets.md says, but for the visibility timeout, which is no longer than a test may wait."""
    (arn,) = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"].values()
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
    settings = {"VisibilityTimeout": "1", "RedrivePolicy": redrive}
    return str(sqs.create_queue(QueueName="keyturn-runs", Attributes=settings)["QueueUrl"])


class Site:
    """A vault with secrets, and functions over it."""

    def __init__(self, folder: Path, server: OpenBaoServer, queue: str) -> None:
        self.clock = SandboxClock(folder / "clock.json")
        role_id, secret_id = server.approle(KEYTURN_POLICY)
        own = {"ROLE": role_id, "SECRET": secret_id, "KEYTURN_SANDBOX_CLOCK": str(folder / "clock.json"), QUEUE: queue}
        self.env = {**os.environ, **own}
        auth = {"method": "approle", "roleId": {"env": "ROLE"}, "secretId": {"env": "SECRET"}}
        names = [f"service-{number:02}" for number in range(SECRETS)]
        secret = {"store": "vault", "issuer": "made", "owner": "team", "rotateEvery": "30d", "grace": "24h"}
        store = {"kind": "hashicorp-vault", "address": server.address, "caBundle": str(server.ca), "auth": auth}
        declared = {
            "keyturn:installation": "acme",
            "keyturn:environment": "sandbox",
            "keyturn:stores": {"vault": store},
            "keyturn:issuers": {"made": {"kind": "generated"}},
            "keyturn:owners": {"team": {"notify": []}},
            "keyturn:secrets": [{"name": name, **secret} for name in names],
        }
        path = folder / "Pulumi.sandbox.yaml"
        path.write_text(yaml.safe_dump({"config": declared}))
        self.config, self.audit = load(path), FileAuditor(folder / "audit.jsonl")
        a = self.host()._assembly
        provisioner = Provisioner(a.engine, a.stores, a.issuers, a.places, a.clock, lambda _: None)
        for policy in self.config.policies:
            provisioner.create(policy, bootstrap="apply")

    def host(self, **env: str) -> Host:
        """A cold start."""
        return Host(self.config, {**self.env, **env}, self.audit, say=lambda _: None)

    def versions(self) -> set[str | None]:
        assembly = self.host()._assembly
        found = set()
        for policy in self.config.policies:
            current = assembly.stores["vault"].observe(f"sandbox/{policy.name}").current
            found.add(current.id if current else None)
        return found


@pytest.fixture
def site(tmp_path: Path, queue: str) -> Iterator[Site]:
    with OpenBaoServer() as server:
        yield Site(tmp_path, server, queue)


def received(sqs: Any, queue: str) -> list[dict[str, Any]]:
    """All that the queue gives out now, as Lambda hands it over."""
    found: list[dict[str, Any]] = []
    while some := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
        found += some
    return [
        {"messageId": one["MessageId"], "body": one["Body"], "eventSource": "aws:sqs", "handle": one["ReceiptHandle"]}
        for one in found
    ]


def test_a_fleet_is_rotated_by_messages(site: Site, sqs: Any, queue: str, dead: str) -> None:
    """A schedule dispatches where a queue is set; each message is run; a copy of one, and one that says nothing, does no harm."""
    site.clock.move(timedelta(days=31))
    answer = site.host().answer({"source": "aws.scheduler"}, Context())
    assert answer == {"total": SECRETS, "due": SECRETS, "messages": 3, "orphans": 0, "unseen": 0}
    records = received(sqs, queue)
    batches = [parse(record["body"]) for record in records]
    assert sorted(name for batch in batches for name in batch.names) == [p.name for p in site.config.policies]
    odd = {"messageId": "odd", "body": '{"keyturn": "runs"}', "eventSource": "aws:sqs"}
    worked = site.host().answer({"Records": [*records, {**records[0], "messageId": "copy"}, odd]}, Context())
    assert worked == {"batchItemFailures": []}
    for record in records:
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=record["handle"])
    assert site.versions() == {"2"}
    assert site.host().answer({"keyturn": "dispatch"}, Context())["due"] in (0, SECRETS)
    assert received(sqs, dead) == []


def test_what_fails_comes_again_and_then_lies_where_people_look(site: Site, sqs: Any, queue: str, dead: str) -> None:
    """Partial responses; after the visibility timeout; after too many times the dead-letter queue."""
    site.clock.move(timedelta(days=31))
    site.host().answer({"keyturn": "dispatch"}, Context())
    first = received(sqs, queue)
    hurried = site.host().answer({"Records": first}, Context(seconds=10))  # nothing begins in the last 20 s
    failures = [failure["itemIdentifier"] for failure in hurried["batchItemFailures"]]
    assert sorted(failures) == sorted(record["messageId"] for record in first)
    assert site.versions() == {"1"}
    again: list[dict[str, Any]] = []
    while len(again) < len(first):
        again += received(sqs, queue)
    assert {record["messageId"] for record in again} == set(failures)
    dropped: list[dict[str, Any]] = []
    while len(dropped) < len(first):
        assert not received(sqs, queue)
        dropped += received(sqs, dead)
    assert {record["body"] for record in dropped} == {record["body"] for record in first}


def test_a_dispatch_without_a_queue_says_what_is_missing(site: Site) -> None:
    with pytest.raises(Failed, match=QUEUE):
        site.host(**{QUEUE: ""}).answer({"keyturn": "dispatch"}, Context())


class Stubborn:
    """Takes all but the last message of a batch, so often."""

    def __init__(self, times: int) -> None:
        self.times, self.taken = times, list[str]()

    def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, str]]) -> dict[str, Any]:  # noqa: N803
        self.times -= 1
        refused = Entries[-1:] if self.times >= 0 else []
        self.taken += [entry["MessageBody"] for entry in Entries if entry not in refused]
        return {"Failed": [{"Id": entry["Id"]} for entry in refused]}


def test_messages_that_the_queue_did_not_take_are_sent_again() -> None:
    """A batch of which some fail is answered as a success."""
    stubborn = Stubborn(2)
    with Sender("queue", stubborn) as sender:
        for _ in range(12):
            sender.send(ONE)
    assert stubborn.taken == [str(ONE)] * 12
    with pytest.raises(Trouble, match="did not take 1"), Sender("queue", Stubborn(9)) as sender:
        sender.send(ONE)
