"""Consumers are made to read a new value: a webhook that can trust what it is told, a workload that is rolled out anew."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rotation.config import parse
from rotation.errors import Code, Trouble
from rotation.model import SecretValue
from rotation.notify import wiring
from rotation.notify.consumers import DELIVERY, SIGNATURE, Change, Readers, annotation, call_webhook, restart
from rotation.notify.courier import Limited
from rotation.sections import KubernetesSection
from tests.notify.places import AT, TOKEN, cluster, endpoint, memory, silence
from tests.world import FakeClock

CANARY = "canary-of-a-signing-secret-0123456789"
CHANGE = Change(
    environment="prod",
    secret="support-copilot-chat",
    consumer="support-api",
    version="token1",
    stores=("aws", "vault"),
    at=AT,
    key_id="key_2",
    previous_key_id="key_1",
    grace_until="2026-01-02T00:00:00+00:00",
)
PLACE = "namespaces/support/deployments/api"
API = KubernetesSection(namespace="support", kind="Deployment", name="api")


def call(address: str, limit: float = 5.0) -> None:
    call_webhook("consumer support-api", address, SecretValue(CANARY), CHANGE, AT, limit)


# --- webhooks --------------------------------------------------------------------------------------


def test_a_webhook_is_told_what_changed_and_can_check_who_says_so() -> None:
    """Ids and times, no value; signed with the time, so that neither can be made up nor sent again later."""
    with endpoint() as there:
        call(f"{there.url}/hook")
    (asked,) = there.asked
    assert (asked.method, asked.path, asked.headers["Content-Type"]) == ("POST", "/hook", "application/json")
    assert asked.json == {
        "kind": "rotation.done",
        "delivery": asked.headers[DELIVERY],
        "at": "2026-01-01T00:00:00+00:00",
        "environment": "prod",
        "secret": "support-copilot-chat",
        "consumer": "support-api",
        "version": "token1",
        "stores": ["aws", "vault"],
        "keyId": "key_2",
        "previousKeyId": "key_1",
        "graceUntil": "2026-01-02T00:00:00+00:00",
    }
    parts = dict(part.split("=", 1) for part in asked.headers[SIGNATURE].split(","))
    signed = f"{int(AT.timestamp())}.".encode() + asked.body
    assert parts == {
        "t": str(int(AT.timestamp())),
        "v1": hmac.new(CANARY.encode(), signed, hashlib.sha256).hexdigest(),
    }
    assert CANARY not in str(asked)


def test_each_try_is_the_same_delivery_and_each_version_another() -> None:
    """So that a receiver can tell a repetition."""
    assert replace(CHANGE, at=AT.replace(year=2027)).delivery == CHANGE.delivery
    assert replace(CHANGE, version="token2").delivery != CHANGE.delivery
    assert replace(CHANGE, consumer="support-web").delivery != CHANGE.delivery


def test_no_redirect_is_followed_and_no_answer_read() -> None:
    """What is signed goes where it was meant to go; what was said is not repeated."""
    with endpoint() as there, endpoint() as elsewhere:
        there.status, there.body = 307, CANARY
        there.headers = {"Location": elsewhere.url}
        with pytest.raises(Trouble) as caught:
            call(there.url)
    assert str(caught.value) == "consumer support-api: it answered 307"
    assert (len(there.asked), len(elsewhere.asked)) == (1, 0)


@pytest.mark.parametrize(
    "address", ["http://10.0.0.1/x", "http://hooks.example.org", "ftp://127.0.0.1", "", "https://["]
)
def test_nothing_is_sent_unencrypted(address: str) -> None:
    """But to this machine itself. An address that comes from a reference is only seen here."""
    with pytest.raises(Trouble, match="consumer support-api: its address is not https") as caught:
        call(address)
    assert caught.value.code.permanent


def test_a_webhook_that_never_answers_is_given_up() -> None:
    """And may be tried again; nothing of its address is told."""
    with silence() as port, pytest.raises(Trouble) as caught:
        call(f"http://127.0.0.1:{port}/{CANARY}", limit=0.05)
    assert str(caught.value) == "consumer support-api: it can not be reached (ReadTimeout)"
    assert caught.value.code is Code.UNAVAILABLE


# --- Kubernetes ------------------------------------------------------------------------------------


def test_a_workload_is_rolled_out_anew_once_for_each_version(tmp_path: Path) -> None:
    """By an annotation of its pods, beside all that is there; the same version again changes nothing."""
    with cluster(tmp_path, PLACE) as there:
        before = json.dumps(there.workloads[PLACE]["spec"]["template"]["spec"])
        for version, generation in (("token1", 2), ("token1", 2), ("token2", 3)):
            restart("consumer api", API, replace(CHANGE, version=version), there.env, there.account, 5.0)
            assert there.annotations(PLACE) == {"keyturn.dev/rotated.support-copilot-chat": version}
            assert there.generation(PLACE) == generation
        other = replace(CHANGE, secret="support-copilot-batch")
        restart("consumer api", API, other, there.env, there.account, 5.0)
        assert len(there.annotations(PLACE)) == 2
        template = there.workloads[PLACE]["spec"]["template"]
        assert json.dumps(template["spec"]) == before
        assert template["metadata"]["labels"] == {"app": "api"}
    assert there.refused == []


def test_an_annotation_has_a_name_that_kubernetes_takes() -> None:
    """At most 63 characters behind the prefix, and another for another secret."""
    long = "a-" + "b" * 62
    names = {annotation(long), annotation(long[:-1] + "c")}
    assert len(names) == 2
    assert all(len(name.removeprefix("keyturn.dev/")) <= 63 for name in names)


def test_what_the_cluster_refuses_is_told_by_its_status(tmp_path: Path) -> None:
    """A workload that is not there; a token that is not let in."""
    with cluster(tmp_path, PLACE) as there:
        other = KubernetesSection(namespace="support", kind="StatefulSet", name="api")
        with pytest.raises(Trouble, match="consumer api: it answered 404"):
            restart("consumer api", other, CHANGE, there.env, there.account, 5.0)
        (there.account / "token").write_text("another")
        with pytest.raises(Trouble, match="consumer api: it answered 401"):
            restart("consumer api", API, CHANGE, there.env, there.account, 5.0)
    assert there.refused == ["404 namespaces/support/statefulsets/api", f"401 {PLACE}"]


def test_a_cluster_of_another_authority_is_not_spoken_to(tmp_path: Path) -> None:
    """The token goes to the cluster's own API server alone."""
    (tmp_path / "other").mkdir()
    with cluster(tmp_path, PLACE) as there, cluster(tmp_path / "other", PLACE) as other:
        (there.account / "ca.crt").write_bytes((other.account / "ca.crt").read_bytes())
        with pytest.raises(Trouble, match="consumer api: its certificate is not trusted"):
            restart("consumer api", API, CHANGE, there.env, there.account, 5.0)
        assert there.generation(PLACE) == 1


def test_outside_of_a_cluster_it_says_so(tmp_path: Path) -> None:
    """As a laptop does."""
    with pytest.raises(Trouble, match="runs in no pod of a cluster"):
        restart("consumer api", API, CHANGE, {}, tmp_path, 5.0)


# --- both, beside the work -------------------------------------------------------------------------


def readers(reach: Callable[[Change], None], path: Path | None = None) -> Readers:
    return Readers(
        {CHANGE.secret: {CHANGE.consumer: reach}},
        memory(path),
        FakeClock(),
        limited=lambda: Limited(10, ()),
    )


def flush(made: Readers) -> list[str]:
    return made.flush(10.0, lambda: 0.0)


def test_what_failed_is_tried_by_the_next_sweep_in_whatever_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once it is taken nobody tries again."""
    reached: list[str] = []
    failing = True

    def reach(change: Change) -> None:
        if failing:
            raise OSError(CANARY)
        reached.append(change.version)

    path = tmp_path / "notices.json"
    with caplog.at_level(logging.DEBUG):
        first = readers(reach, path)
        first.read(CHANGE, fresh=True)
        told = "consumer support-api was not made to read prod/support-copilot-chat: OSError"
        assert flush(first) == [told]
        assert f"{told}; the next sweep tries again" in caplog.text
        assert CANARY not in caplog.text
        failing = False
        for _ in range(3):
            later = readers(reach, path)
            later.read(CHANGE, fresh=False)
            assert flush(later) == []
    assert reached == ["token1"]


def test_a_consumer_that_was_never_told_is_not_told_of_what_was_there_before() -> None:
    """Declaring onRotate restarts nothing."""
    reached: list[str] = []
    made = readers(lambda change: reached.append(change.version))
    made.read(CHANGE, fresh=False)
    made.read(replace(CHANGE, version="token2"), fresh=False)
    flush(made)
    assert reached == ["token2"]


def test_the_declared_consumers_are_reached(tmp_path: Path) -> None:
    """A webhook by address or by reference, a workload by the pod's own account; values are looked up at each call."""
    kubernetes = {"kubernetes": {"namespace": "support", "kind": "Deployment", "name": "api"}}
    secret = {"env": "HOOK_SECRET"}
    with endpoint() as there, cluster(tmp_path, PLACE) as cluster_:
        config = parse(
            {
                "installation": "acme",
                "environment": "prod",
                "stores": {"vault": {"kind": "hashicorp-vault", "address": "https://vault:8200"}},
                "issuers": {"generated": {"kind": "generated"}},
                "owners": {"team": {}},
                "secrets": [
                    {
                        "name": "support-copilot-chat",
                        "store": "vault",
                        "issuer": "generated",
                        "owner": "team",
                        "rotateEvery": "30d",
                        "consumers": [
                            {"name": "one", "onRotate": {"webhook": {"url": f"{there.url}/one", "secret": secret}}},
                            {"name": "two", "onRotate": {"webhook": {"urlFrom": {"file": "two"}, "secret": secret}}},
                            {"name": "three", "onRotate": {"restart": kubernetes}},
                            {"name": "four"},
                            {"name": "five", "onRotate": {"webhook": {"url": there.url, "secret": {"env": "NO"}}}},
                        ],
                    }
                ],
            }
        )
        config = replace(config, root=tmp_path)
        env = {**cluster_.env, "HOOK_SECRET": CANARY}
        made = wiring.readers(config, env, {}, memory(), FakeClock(), account=cluster_.account)
        assert made is not None
        assert made.of("support-copilot-chat") == ("one", "two", "three", "five")
        (tmp_path / "two").write_text(f"{there.url}/{CANARY}\n")
        for consumer in made.of("support-copilot-chat"):
            made.read(replace(CHANGE, consumer=consumer), fresh=True)
        (told,) = flush(made)
        assert told.startswith(
            "consumer five was not made to read prod/support-copilot-chat: the secret of its webhook"
        )
        assert told.endswith("is missing: the environment variable NO is not there, or is empty")
        assert sorted(asked.path for asked in there.asked) == [f"/{CANARY}", "/one"]
        assert cluster_.generation(PLACE) == 2
    assert TOKEN not in str(there.asked)
