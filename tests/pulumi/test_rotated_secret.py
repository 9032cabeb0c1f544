"""The dynamic provider behind the server that the Pulumi CLI itself starts and talks to (`python -m pulumi.dynamic`)."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import yaml
from google.protobuf import json_format, struct_pb2  # type: ignore[import-untyped]
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from providers.pulumi.rotated_secret import RotatedSecretProvider, inputs, policy_of
from rotation import policy as policies
from rotation.model import Consumer, Drain, Ending, Policy
from tests.pulumi.project import HOOK, Project, Services

PICKLED = serialize_provider(RotatedSecretProvider())
FULL = Policy(
    installation="acme",
    environment="prod",
    name="support-copilot-chat",
    store="vault",
    issuer="openai",
    owner="support-platform",
    rotate_every=timedelta(days=30),
    grace=timedelta(hours=25, minutes=1),
    replicas=("mirror", "third"),
    drain=Drain(timedelta(hours=2), timedelta(days=3), Ending.REVOKE),
    contain_after=timedelta(minutes=7),
    consumers=(Consumer("support-api", timedelta(minutes=5)), Consumer("batch")),
    paired_with="support-copilot-batch",
    smoke_test=True,
    form="text postgresql://app:{value}@db/app?a={b",
    tags=(("cost-centre", "42"), ("team", "a=b c")),
)


def test_inputs_are_flat_readable_and_complete() -> None:
    """Texts, lists of texts and truth values; and they give the policy back, whatever it has."""
    shown = inputs(FULL)
    assert all(isinstance(value, str | bool) or all(isinstance(v, str) for v in value) for value in shown.values())
    assert (shown["grace"], shown["consumers"]) == ("1d1h1m", ["support-api=5m", "batch=15m"])
    assert policy_of(shown) == FULL
    bare = replace(FULL, replicas=(), consumers=(), paired_with=None, smoke_test=False, form="", tags=())
    assert policy_of(inputs(bare)) == bare
    assert inputs(bare)["format"] == "raw"
    older = {name: value for name, value in inputs(bare).items() if name not in ("format", "tags")}
    assert policy_of(older) == bare, "a state from before there were formats"


def test_what_is_pickled_is_a_name() -> None:
    """By reference, so that a new Python or new code makes no diff; and nothing is in it."""
    pickled = base64.b64decode(PICKLED)
    assert b"providers.pulumi.rotated_secret" in pickled
    assert b"RotatedSecretProvider" in pickled
    assert len(pickled) < 150
    configured = RotatedSecretProvider()
    assert serialize_provider(configured) == PICKLED


class Server:
    """A client of the dynamic provider's server; properties are plain dictionaries."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = provider_pb2_grpc.ResourceProviderStub(channel)

    def configure(self, project: Project) -> None:
        config = yaml.safe_load(project.stack_file.read_text())["config"]
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
        self._stub.Configure(provider_pb2.ConfigureRequest(args=_struct(texts)))

    def check(self, olds: dict[str, Any], news: dict[str, Any]) -> dict[str, str]:
        request = provider_pb2.CheckRequest(olds=_struct(olds), news=_struct(news))
        return {failure.property: failure.reason for failure in self._stub.Check(request).failures}

    def diff(self, id_: str, olds: dict[str, Any], news: dict[str, Any]) -> tuple[bool, list[str]]:
        answer = self._stub.Diff(provider_pb2.DiffRequest(id=id_, olds=_struct(olds), news=_struct(news)))
        assert answer.changes != provider_pb2.DiffResponse.DIFF_UNKNOWN
        assert not answer.deleteBeforeReplace
        return answer.changes == provider_pb2.DiffResponse.DIFF_SOME, list(answer.replaces)

    def create(self, props: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        answer = self._stub.Create(provider_pb2.CreateRequest(properties=_struct(props)))
        return answer.id, _plain(answer.properties)

    def update(self, id_: str, olds: dict[str, Any], news: dict[str, Any]) -> dict[str, Any]:
        request = provider_pb2.UpdateRequest(id=id_, olds=_struct(olds), news=_struct(news))
        return _plain(self._stub.Update(request).properties)

    def read(self, id_: str, props: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
        answer = self._stub.Read(provider_pb2.ReadRequest(id=id_, properties=_struct(props)))
        return answer.id, _plain(answer.properties), _plain(answer.inputs)

    def delete(self, id_: str, props: dict[str, Any]) -> None:
        self._stub.Delete(provider_pb2.DeleteRequest(id=id_, properties=_struct(props)))


def _struct(props: dict[str, Any]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(props)
    return struct


def _plain(struct: struct_pb2.Struct) -> dict[str, Any]:
    plain: dict[str, Any] = json_format.MessageToDict(struct)
    return plain


@contextmanager
def served(project: Project, **env: str) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "pulumi.dynamic"],
        cwd=project.root,
        env={**project.environ(), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stderr
    try:
        port = process.stdout.readline().strip()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            server = Server(channel)
            server.configure(project)
            yield server
    finally:
        process.kill()
        project.heard.append(process.communicate()[1])


@pytest.fixture
def project(services: Services, tmp_path: Path) -> Project:
    made = Project(tmp_path, services, None, f"t{uuid.uuid4().hex[:12]}")
    made.declare(made.secret(HOOK))
    return made


def props(project: Project, **changes: Any) -> dict[str, Any]:
    beside = {"bootstrap": "apply", "adopt": False, "adoptKeyId": "", "forceRevoke": False, "__provider": PICKLED}
    return {**inputs(project.policy(HOOK)), **beside, **changes}


def test_the_server_creates_reads_updates_and_deletes(project: Project) -> None:
    """The whole life over the wire, with the types that protobuf leaves of properties; nothing in it is a value."""
    with served(project) as server:
        news = props(project)
        assert server.check({}, news) == {}
        id_, outs = server.create(news)
        assert (id_, outs) == (f"vault:sandbox/{HOOK}", {**news, "entry": f"sandbox/{HOOK}"})
        assert server.diff(id_, outs, news) == (False, [])
        assert server.read(id_, outs) == (id_, outs, news)
        assert server.diff(id_, outs, props(project, adopt=True)) == (False, [])
        later = props(project, rotateEvery="60d", forceRevoke=True, format="json TOKEN=value", tags=["team=x y"])
        assert server.check(news, later) == {}
        assert server.diff(id_, outs, later) == (True, [])
        outs = server.update(id_, outs, later)
        assert outs == {**later, "entry": f"sandbox/{HOOK}"}
        assert server.diff(id_, outs, later) == (False, [])
        assert server.diff(id_, outs, props(project, store="mirror"))[1] == ["store"]
        values = project.values()
        server.delete(id_, outs)
        assert server.read(id_, outs) == ("", {"__provider": PICKLED}, {})
    assert not any(value in json.dumps(outs) + project.heard[-1] for value in values)
    assert "nothing is revoked" in project.heard[-1]


def test_a_policy_edited_outside_comes_back_as_inputs(project: Project) -> None:
    """The next preview then says what it puts right; the issuer stays as declared, since only a person may change it."""
    with served(project) as server:
        id_, outs = server.create(props(project))
        edited = replace(project.policy(HOOK), rotate_every=timedelta(days=90), issuer="openai")
        project.assembly().stores["vault"].set_policy(outs["entry"], policies.written(edited))
        _, found, seen = server.read(id_, outs)
        assert (found["rotateEvery"], found["issuer"]) == ("90d", "openai")
        assert seen == props(project, rotateEvery="90d")
        assert server.check(seen, props(project)) == {}
        assert server.diff(id_, found, props(project)) == (True, [])


FAULTY: list[tuple[dict[str, Any], str]] = [
    ({"grace": "60d", "drainAtMost": "90d"}, "grace"),
    ({"rotateEvery": "soon"}, "rotateEvery"),
    ({"store": "valt"}, "store"),
    ({"issuer": "nobody"}, "issuer"),
    ({"consumers": ["support-api=9d"]}, "consumers[0]"),
    ({"drainQuietFor": "20d"}, "drainQuietFor"),
    ({"drainThen": "later"}, "drainThen"),
    ({"installation": "No Such"}, "installation"),
    ({"issuer": "openai"}, "issuer"),
    ({"store": "mirror", "replicas": ["vault"]}, "store"),
    ({"format": "xml"}, "format"),
    ({"format": ""}, "format"),
    ({"format": "json a=value a=other"}, "format"),
    ({"format": "text {password}"}, "format"),
    ({"tags": ["aws:team=x"]}, "tags"),
    ({"tags": [f"t{number}=x" for number in range(11)]}, "tags"),
    ({"adoptKeyId": "key_1"}, "adoptKeyId"),
]


def test_faults_are_failures_of_a_property(project: Project) -> None:
    """What can be decided beforehand is refused by `check`, under the input's name, not by an exception."""
    with served(project) as server:
        for changes, wrong in FAULTY:
            failures = server.check(props(project), props(project, **changes))
            assert list(failures) == [wrong]
            assert all(failures.values())


def test_an_error_is_one_sentence_without_causes(project: Project) -> None:
    """The server shows whatever is raised as a traceback: ours ends in the sentence, and has one exception in it."""
    with served(project, KEYTURN_VAULT_SECRET_ID="not-a-secret-id") as server, pytest.raises(grpc.RpcError) as raised:
        server.create(props(project))
    told = raised.value.details()
    assert told.count("Traceback") == 1
    assert "exception" not in told.lower()
    assert told.strip().splitlines()[-1].startswith("providers.pulumi.rotated_secret.ApplyError: vault: ")
    assert "not-a-secret-id" not in told


def test_a_store_that_configuration_has_lost_is_named(project: Project) -> None:
    """Deleting needs to know where: the sentence says what to put back."""
    with served(project) as server:
        id_, outs = server.create(props(project))
    stores = yaml.safe_load(project.stack_file.read_text())["config"]["keyturn:stores"]
    project.declare(secrets=[], stores={"mirror": stores["mirror"]})
    with served(project) as server, pytest.raises(grpc.RpcError) as raised:
        server.delete(id_, outs)
    assert "keyturn:stores does not say any more where vault is" in raised.value.details()
