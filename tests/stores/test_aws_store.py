"""The Secrets Manager store passes the contract against the sandbox's AWS; and what is its own."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
import tracemalloc
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import trustme

from providers.issuers.memory import MemoryIssuer, MemoryVendor
from providers.stores.aws import NO_CREDENTIAL, AwsLogin, SecretsManagerStore
from rotation import actions, journal
from rotation import policy as policies
from rotation.engine import Engine, Outcome, Places, Target
from rotation.errors import Code, Trouble
from rotation.journal import Attempt, Why
from rotation.model import Credential, Policy, Version
from rotation.ports import SecretStore
from sandbox.aws.server import REGION, AwsServer
from sandbox.aws.wire import Answer, Call
from sandbox.processes import free_port
from tests.contracts.store import (
    AT,
    KEY_ID,
    ByHand,
    StoreContract,
    at_once,
    current,
    full_policy,
    new_token,
    pending,
    rotated,
    same_state,
    staged,
    trouble,
    value,
)
from tests.world import SWEEPS, FakeClock, Trail

ENTRY = "prod/support-copilot-chat"
OTHER_REGION = "eu-west-1"
ROOT = Path(__file__).parents[2]
LAMBDA = f"arn:aws:lambda:{REGION}:123456789012:function:rotate"


@dataclass
class QuickClock:
    """Real time for stamps; pauses are over at once and move the monotonic clock."""

    passed: float = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds


@pytest.fixture(scope="module", autouse=True)
def _parsed_once() -> Iterator[None]:
    """All clients of this module share botocore's model of the service, which takes 0.1 s to parse."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(botocore.session.create_loader))
        yield


@pytest.fixture(scope="module")
def shared() -> Iterator[AwsServer]:
    with AwsServer() as server:
        yield server


def as_admin(server: AwsServer, monkeypatch: pytest.MonkeyPatch, region: str = REGION) -> None:
    """The environment of a process that is logged in. Only STS has its endpoint there; a store is told its own."""
    variables = server.environment(region)
    variables["AWS_ENDPOINT_URL_STS"] = variables.pop("AWS_ENDPOINT_URL")
    nothing = {"AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}
    for name, text in {**variables, **nothing, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, text)


@pytest.fixture
def server(shared: AwsServer, monkeypatch: pytest.MonkeyPatch) -> AwsServer:
    shared.control.reset()
    as_admin(shared, monkeypatch)
    return shared


@pytest.fixture
def console(server: AwsServer) -> Any:
    """The service as a person has it."""
    return server.client("secretsmanager")


Make = Callable[..., SecretsManagerStore]


@pytest.fixture
def make(server: AwsServer) -> Make:
    def client(**changed: Any) -> SecretsManagerStore:
        settings: dict[str, Any] = {"region": REGION, "endpoint_url": server.endpoint, "login": AwsLogin()}
        return SecretsManagerStore("aws", **({"clock": QuickClock()} | settings | changed))

    return client


@pytest.fixture
def store(make: Make) -> SecretsManagerStore:
    """A store with one entry, ENTRY, that has a current version."""
    made = make()
    made.create(ENTRY, full_policy())
    rotated(made, ENTRY)
    return made


@contextmanager
def calls_of(server: AwsServer) -> Iterator[list[str]]:
    """Names of the calls that reach the server meanwhile, in order."""
    server.control.forget_calls()
    seen: list[str] = []
    yield seen
    seen += [record.operation.partition(":")[2] for record in server.control.calls()]


@contextmanager
def meanwhile(server: AwsServer, operation: str, act: Callable[[], object], *, before: bool = False) -> Iterator[None]:
    """Lets somebody else act once, right after (or before) the next such call was carried out."""
    service = server._service
    answer, done = service.answer, threading.Event()

    def between(call: Call) -> Answer | None:
        meets = call.operation == operation and not done.is_set()
        if meets:
            done.set()
        if meets and before:
            act()
        answered = answer(call)
        if meets and not before:
            act()
        return answered

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "answer", between)
        yield
    assert done.is_set()


class TestSecretsManagerStore(StoreContract):
    """Logged in by the chain, one process of a person beside it."""

    more_than_a_page = 120

    @pytest.fixture
    def store(self, make: Make) -> SecretStore:
        return make()

    @pytest.fixture
    def second_client(self, make: Make) -> SecretStore:
        return make()

    @pytest.fixture
    def by_hand(self, console: Any) -> ByHand:
        def put(entry: str, credential: Credential) -> None:
            text = credential.fields["value"].reveal()
            try:
                console.put_secret_value(SecretId=entry, SecretString=text)
            except console.exceptions.ResourceNotFoundException:
                console.create_secret(Name=entry, SecretString=text)

        return put


# --- calls -------------------------------------------------------------------------------------------


def test_every_operation_costs_the_calls_it_needs(store: SecretsManagerStore, server: AwsServer) -> None:
    """One each, for all that a rotation is made of; none for nothing."""
    base = current(store, ENTRY)
    version = staged(store, ENTRY)
    expected: list[tuple[Callable[[], object], list[str]]] = [
        (lambda: store.observe(ENTRY), ["DescribeSecret"]),
        (lambda: store.read(ENTRY, version), ["GetSecretValue"]),
        (lambda: store.find(ENTRY, version.token or ""), ["GetSecretValue"]),
        (lambda: store.read(ENTRY, store.find(ENTRY, version.token or "") or version), ["GetSecretValue"]),
        (lambda: store.record(ENTRY, {"future.x": "a=b", "future.y": "a=b"}), ["TagResource"]),
        (lambda: store.forget(ENTRY, ["future.x", "future.y"]), ["UntagResource"]),
        (lambda: store.record(ENTRY, {}), []),
        (lambda: store.forget(ENTRY, []), []),
        (lambda: store.stage(ENTRY, new_token(), value(), key_id=KEY_ID), ["PutSecretValue"]),
        (lambda: store.promote(ENTRY, version, base.id), ["UpdateSecretVersionStage"]),
        (lambda: store.discard(ENTRY, pending(store, ENTRY)), ["DescribeSecret", "UpdateSecretVersionStage"]),
        (lambda: store.set_policy(ENTRY, full_policy()), ["DescribeSecret"]),
        (lambda: store.set_policy(ENTRY, full_policy(owner="other")), ["DescribeSecret", "TagResource"]),
        (lambda: store.create("prod/another-one", full_policy()), ["CreateSecret"]),
        (lambda: store.delete("prod/another-one"), ["DescribeSecret", "DeleteSecret"]),
        (lambda: store.restore("prod/another-one"), ["DescribeSecret", "RestoreSecret"]),
        (lambda: list(store.listing()), ["ListSecrets"]),
    ]
    for number, (operation, wanted) in enumerate(expected):
        with calls_of(server) as seen:
            operation()
        assert seen == wanted, number


def test_staging_looks_first_where_it_does_not_know(make: Make, store: SecretsManagerStore, server: AwsServer) -> None:
    """A client that has not seen the entry with a value takes one call more, once it has, no more."""
    client = make()
    for wanted in (["DescribeSecret", "PutSecretValue"], ["PutSecretValue"]):
        with calls_of(server) as seen:
            client.stage(ENTRY, new_token(), value(), key_id=None)
        assert seen == wanted


def test_a_listing_has_pages_of_a_hundred(make: Make, server: AwsServer) -> None:
    """Metadata only: no other call than ListSecrets."""
    store = make()
    for number in range(120):
        store.create(f"prod/service-{number:03}", full_policy())
    with calls_of(server) as seen:
        listing = store.listing()
        next(listing)
        assert len(server.control.calls()) == 1, "pages are fetched as they are needed"
        assert len(list(listing)) == 119
    assert seen == ["ListSecrets", "ListSecrets"]


# --- versions and labels -----------------------------------------------------------------------------


def labels(console: Any, entry: str = ENTRY) -> dict[str, str]:
    about = console.describe_secret(SecretId=entry).get("VersionIdsToStages", {})
    return {label: version for version, held in about.items() for label in held}


def test_the_token_is_the_version_id(store: SecretsManagerStore, console: Any) -> None:
    """So a repeated put is one, and the version is found by its token without a search."""
    version = staged(store, ENTRY)
    assert version.id == version.token
    assert labels(console)["AWSPENDING"] == version.token


def test_consumers_read_what_was_promoted(store: SecretsManagerStore, console: Any) -> None:
    """Without a stage, as AWSCURRENT, and its predecessor as AWSPREVIOUS, which moves by itself."""
    first, credential = current(store, ENTRY), value()
    second = staged(store, ENTRY, credential)
    assert console.get_secret_value(SecretId=ENTRY)["VersionId"] == first.id
    store.promote(ENTRY, second, first.id)
    read = console.get_secret_value(SecretId=ENTRY)
    assert (read["VersionId"], read["SecretString"]) == (second.id, credential.fields["value"].reveal())
    held = labels(console)
    assert (held["AWSCURRENT"], held["AWSPREVIOUS"], held["AWSPENDING"]) == (second.id, first.id, second.id)


def test_a_pending_label_on_the_current_version_is_nothing_pending(
    store: SecretsManagerStore, console: Any, server: AwsServer
) -> None:
    """It is left there, as rotation functions may; native rotation takes it for finished as well."""
    now = current(store, ENTRY)
    assert labels(console)["AWSPENDING"] == now.id
    assert store.observe(ENTRY).pending is None
    console.rotate_secret(SecretId=ENTRY, RotationLambdaARN=LAMBDA)


def test_nothing_is_handed_out_before_the_first_promotion(make: Make, console: Any) -> None:
    """The service makes any first value current. A marker takes that place: what is only staged is not read."""
    store = make()
    store.create(ENTRY, full_policy())
    with pytest.raises(console.exceptions.ResourceNotFoundException):
        console.get_secret_value(SecretId=ENTRY)
    staged(store, ENTRY)
    credential = value()
    version = staged(store, ENTRY, credential)
    read = console.get_secret_value(SecretId=ENTRY)
    assert read["VersionId"] == NO_CREDENTIAL
    assert "SecretString" not in read
    store.promote(ENTRY, version, None)
    assert console.get_secret_value(SecretId=ENTRY)["SecretString"] == credential.fields["value"].reveal()
    rotated(store, ENTRY)
    assert labels(console)["AWSPREVIOUS"] == version.id


def test_the_marker_does_not_take_the_place_of_a_value(make: Make, server: AwsServer, console: Any) -> None:
    """Somebody makes a value current between the look of a stage and its puts: that stays current."""
    store = make()
    store.create(ENTRY, full_policy())
    with meanwhile(server, "DescribeSecret", lambda: console.put_secret_value(SecretId=ENTRY, SecretString="theirs")):
        store.stage(ENTRY, new_token(), value(), key_id=None)
    assert console.get_secret_value(SecretId=ENTRY)["SecretString"] == "theirs"
    with trouble(Code.CONFLICT, store, ENTRY):
        store.promote(ENTRY, pending(store, ENTRY), None)


def test_a_first_stage_that_breaks_off(make: Make, server: AwsServer) -> None:
    """After the marker: nothing is there yet, and the next stage goes on. A marker without answer is sent again."""
    store = make()
    store.create(ENTRY, full_policy())
    server.control.fail("PutSecretValue", "denied", skip=1)
    with trouble(Code.DENIED, store, ENTRY):
        store.stage(ENTRY, new_token(), value(), key_id=None)
    seen = store.observe(ENTRY)
    assert (seen.current, seen.pending) == (None, None)
    store.promote(ENTRY, staged(store, ENTRY), None)
    other = "prod/another-one"
    store.create(other, full_policy())
    server.control.fail("PutSecretValue", "lost_answer")
    with calls_of(server) as calls:
        version = staged(store, other)
    assert Counter(calls)["PutSecretValue"] == 3
    store.promote(other, version, None)


def test_a_first_promotion_where_nothing_is_current(make: Make, server: AwsServer) -> None:
    """Should the service ever leave AWSCURRENT off a first value, the entry is not stuck."""
    store = make()
    store.create(ENTRY, full_policy())
    version = staged(store, ENTRY)
    del server._service._secrets.region(REGION).secrets[ENTRY].primary.labels["AWSCURRENT"]
    assert store.observe(ENTRY).current is None
    store.promote(ENTRY, version, None)
    assert current(store, ENTRY).id == version.id


def test_of_two_first_promotions_where_nothing_is_current(make: Make, server: AwsServer, console: Any) -> None:
    """There too: CONFLICT for the later of two."""
    store = make()
    store.create(ENTRY, full_policy())
    theirs, mine = staged(store, ENTRY), staged(store, ENTRY)
    del server._service._secrets.region(REGION).secrets[ENTRY].primary.labels["AWSCURRENT"]
    with (
        meanwhile(server, "DescribeSecret", lambda: make_current(console, theirs.id)),
        trouble(Code.CONFLICT, store, ENTRY),
    ):
        store.promote(ENTRY, mine, None)
    assert current(store, ENTRY).id == theirs.id


def make_current(console: Any, version: str, instead_of: str | None = None) -> None:
    away = {"RemoveFromVersionId": instead_of} if instead_of else {}
    console.update_secret_version_stage(SecretId=ENTRY, VersionStage="AWSCURRENT", MoveToVersionId=version, **away)


def test_a_refused_promotion_that_a_look_can_not_explain(
    store: SecretsManagerStore, server: AwsServer, console: Any
) -> None:
    """A look may lag behind, or somebody moves the label back: still CONFLICT, for the caller to look again."""
    base, theirs = current(store, ENTRY), staged(store, ENTRY)
    mine = staged(store, ENTRY)
    make_current(console, theirs.id, base.id)
    with (
        meanwhile(server, "DescribeSecret", lambda: make_current(console, base.id, theirs.id), before=True),
        trouble(Code.CONFLICT, store, ENTRY),
    ):
        store.promote(ENTRY, mine, base.id)
    assert current(store, ENTRY).id == base.id


def test_a_discarded_token_can_be_staged_again(make: Make, store: SecretsManagerStore, server: AwsServer) -> None:
    """A repeated put does not bring the label back, so the label is moved; from whoever has it now."""
    credential = value()
    version = staged(store, ENTRY, credential)
    store.discard(ENTRY, version)
    store.stage(ENTRY, version.id, credential, key_id=None)
    assert pending(store, ENTRY).id == version.id
    staged(store, ENTRY)
    with calls_of(server) as calls:
        store.stage(ENTRY, version.id, credential, key_id=None)
    assert calls == ["PutSecretValue", "DescribeSecret", "UpdateSecretVersionStage"]
    assert pending(store, ENTRY).id == version.id


def test_a_label_that_is_wanted_twice_at_once(make: Make, store: SecretsManagerStore, server: AwsServer) -> None:
    """Somebody else stages between the look and the move: CONFLICT, and theirs stays pending."""
    credential, theirs = value(), new_token()
    version = staged(store, ENTRY, credential)
    staged(store, ENTRY)
    other = make()
    with (
        meanwhile(server, "DescribeSecret", lambda: other.stage(ENTRY, theirs, value(), key_id=None)),
        trouble(Code.CONFLICT, store, ENTRY),
    ):
        store.stage(ENTRY, version.id, credential, key_id=None)
    assert pending(store, ENTRY).id == theirs


def test_a_token_names_one_value(store: SecretsManagerStore) -> None:
    """CONFLICT for another value under it, pending or current; the first one stays."""
    credential = value()
    version = staged(store, ENTRY, credential)
    base = current(store, ENTRY)
    for promoted in (False, True):
        if promoted:
            store.promote(ENTRY, version, base.id)
        with trouble(Code.CONFLICT, store, ENTRY) as caught:
            store.stage(ENTRY, version.id, value(), key_id=None)
        assert version.id in str(caught.value)
        assert store.read(ENTRY, version).same_as(credential)


def test_a_version_that_is_gone_is_not_promoted(store: SecretsManagerStore) -> None:
    """NOT_FOUND: nobody else was faster, there is nothing to promote."""
    base = current(store, ENTRY)
    with trouble(Code.NOT_FOUND, store, ENTRY) as caught:
        store.promote(ENTRY, Version(new_token(), None), base.id)
    assert "is gone" in str(caught.value)
    assert current(store, ENTRY).id == base.id


def test_an_id_that_is_none_is_refused_before_it_is_sent(store: SecretsManagerStore, server: AwsServer) -> None:
    """INVALID: version ids have 32 to 64 characters."""
    with calls_of(server) as calls, trouble(Code.INVALID, store, ENTRY):
        store.stage(ENTRY, "short", value(), key_id=None)
    assert calls == []


# --- what is ours, and what others do ----------------------------------------------------------------


def test_ids_of_others_are_tokens_once_the_journal_names_them(store: SecretsManagerStore, console: Any) -> None:
    """An adopted version, or one of native rotation, has an id as consoles make it. Until then it is foreign, and
    is dated, as nothing in the journal says since when it is current."""
    made = console.put_secret_value(SecretId=ENTRY, SecretString="kt-by-hand")["VersionId"]
    foreign = current(store, ENTRY)
    assert (foreign.id, foreign.token) == (made, None)
    assert foreign.created_at is not None
    assert foreign.created_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - foreign.created_at) < timedelta(minutes=1)
    store.record(ENTRY, journal.key_fact(made, KEY_ID))
    assert current(store, ENTRY).token == made


def test_native_rotation_registers_a_version_before_it_has_a_value(
    store: SecretsManagerStore, console: Any, server: AwsServer
) -> None:
    """Nothing is pending until the value is there; then it is, under the token that the service chose."""
    base = current(store, ENTRY)
    token = console.rotate_secret(SecretId=ENTRY, RotationLambdaARN=LAMBDA)["VersionId"]
    assert labels(console)["AWSPENDING"] == token
    with calls_of(server) as calls:
        assert store.observe(ENTRY).pending is None
    assert calls == ["DescribeSecret", "ListSecretVersionIds"]
    store.record(ENTRY, Attempt(token, base.id, ("aws",), AT, Why.DUE).written())
    version = staged(store, ENTRY, token=token)
    assert version.created_at is not None
    store.promote(ENTRY, version, base.id)
    assert current(store, ENTRY).token == token
    console.rotate_secret(SecretId=ENTRY)


def test_native_rotation_of_an_entry_without_a_value(make: Make, console: Any) -> None:
    """The registered version keeps its label beside the marker, and nothing is current before the promotion."""
    store = make()
    store.create(ENTRY, full_policy())
    token = console.rotate_secret(SecretId=ENTRY, RotationLambdaARN=LAMBDA)["VersionId"]
    store.record(ENTRY, Attempt(token, None, ("aws",), AT, Why.FIRST).written())
    version = staged(store, ENTRY, token=token)
    assert store.observe(ENTRY).current is None
    store.promote(ENTRY, version, None)
    assert current(store, ENTRY).token == token


def test_a_pending_version_of_somebody_else(store: SecretsManagerStore, console: Any) -> None:
    """It is pending, under no token, and can be discarded."""
    console.put_secret_value(SecretId=ENTRY, SecretString="theirs", VersionStages=["AWSPENDING"])
    version = pending(store, ENTRY)
    assert version.token is None
    store.discard(ENTRY, version)
    assert store.observe(ENTRY).pending is None


def test_a_binary_version_is_no_credential(store: SecretsManagerStore, console: Any) -> None:
    """INVALID for its value, and for that alone."""
    made = console.put_secret_value(SecretId=ENTRY, SecretBinary=b"\x00kt-value-binary")["VersionId"]
    assert current(store, ENTRY).id == made
    with trouble(Code.INVALID, store, ENTRY) as caught:
        store.read(ENTRY, current(store, ENTRY))
    assert "is binary" in str(caught.value)
    rotated(store, ENTRY)


# --- values ------------------------------------------------------------------------------------------


def test_fields_are_one_json_text(store: SecretsManagerStore, console: Any) -> None:
    """`value` alone is stored as it is; a repeated stage writes the same text, whatever the order of the fields."""
    token = new_token()
    for fields in ({"user": "ü", "secret": "s"}, {"secret": "s", "user": "ü"}):
        store.stage(ENTRY, token, Credential.of(**fields), key_id=None)
    text = console.get_secret_value(SecretId=ENTRY, VersionId=token)["SecretString"]
    assert text == '{"secret": "s", "user": "ü"}'
    one = staged(store, ENTRY, Credential.of(token="t"))
    assert console.get_secret_value(SecretId=ENTRY, VersionId=one.id)["SecretString"] == '{"token": "t"}'


def test_a_value_that_the_service_would_not_keep(store: SecretsManagerStore, server: AwsServer) -> None:
    """INVALID before anything is sent: nothing at all, an empty text, and fields that are too large together."""
    half = "é" * 16_384
    empty = (Credential({}), Credential.of(value=""))
    with calls_of(server) as calls:
        for credential in (*empty, Credential.of(a=half, b=half)):
            with trouble(Code.INVALID, store, ENTRY):
                store.stage(ENTRY, new_token(), credential, key_id=None)
    assert calls == []
    staged(store, ENTRY, Credential.of(a=half, b=half[:-12]))


# --- tags --------------------------------------------------------------------------------------------


def tags(console: Any, entry: str = ENTRY) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in console.describe_secret(SecretId=entry).get("Tags", ())}


def test_policy_and_journal_are_tags(store: SecretsManagerStore, console: Any) -> None:
    """Readable in the console, each fact by itself; tags of others are neither policy nor touched."""
    console.tag_resource(SecretId=ENTRY, Tags=[{"Key": "cost-centre", "Value": "4711"}])
    token = new_token()
    store.record(ENTRY, journal.promoted(token, AT))
    found = tags(console)
    assert found[f"keyturn:journal.promoted.{token}"] == "at=2026-03-01T12:30:00Z"
    assert found["keyturn:policy.owner"] == "team-search"
    assert "tag.cost-centre" not in store.observe(ENTRY).policy
    store.set_policy(ENTRY, {"name": "support-copilot-chat"})
    wanted = {"cost-centre": "4711", f"keyturn:journal.promoted.{token}": found[f"keyturn:journal.promoted.{token}"]}
    assert tags(console) == wanted | {"keyturn:policy.name": "support-copilot-chat"}


@pytest.mark.parametrize(("text", "parts"), [("x" * 256, 1), ("x" * 257, 2), ("web=15m " * 150, 5), (" " * 600, 3)])
def test_a_long_text_goes_on_in_further_tags(make: Make, console: Any, text: str, parts: int) -> None:
    """And comes back as one; a shorter one leaves nothing of it behind."""
    store, policy = make(), full_policy() | {"consumers": text}
    store.create(ENTRY, policy)
    assert store.observe(ENTRY).policy == policy
    assert [listed.policy for listed in store.listing()] == [policy]
    held = [held for key, held in tags(console).items() if key.startswith("keyturn:policy.consumers")]
    assert len(held) == parts
    assert text.isspace() or not any(part.startswith(" ") or part.endswith(" ") for part in held[:-1])
    store.set_policy(ENTRY, policy | {"consumers": "short"})
    assert store.observe(ENTRY).policy["consumers"] == "short"
    assert len([key for key in tags(console) if key.startswith("keyturn:policy.consumers")]) == 1


def test_tags_of_the_users_own(store: SecretsManagerStore, console: Any) -> None:
    """They stand without a prefix, come back with the policy, and go when the policy names them no more."""
    console.tag_resource(SecretId=ENTRY, Tags=[{"Key": "cost-centre", "Value": "4711"}])
    mine = full_policy() | {"tag.team": "search", "tag.data/class": "secret"}
    store.set_policy(ENTRY, mine)
    assert (tags(console)["team"], tags(console)["data/class"]) == ("search", "secret")
    assert store.observe(ENTRY).policy == mine
    assert [listed.policy for listed in store.listing()] == [mine]
    console.untag_resource(SecretId=ENTRY, TagKeys=["team"])
    assert "tag.team" not in store.observe(ENTRY).policy, "what is gone is not said to be there"
    store.set_policy(ENTRY, full_policy())
    assert store.observe(ENTRY).policy == full_policy()
    assert {key for key in tags(console) if not key.startswith("keyturn:")} == {"cost-centre"}
    made = "prod/another-one"
    store.create(made, mine)
    assert store.observe(made).policy == mine


@pytest.mark.parametrize(
    "strings",
    [
        {"tag.aws:name": "x"},
        {"tag.keyturn:policy.name": "x"},
        {"tag.two words": "x"},
        {"tag.": "x"},
        {"tag.quoted": '"x"'},
        {"tag.long": "x" * 257},
        {"long-name-" * 12: "x"},
        {"owner": "a#b"},
    ],
)
def test_what_is_no_tag_is_refused(store: SecretsManagerStore, server: AwsServer, strings: dict[str, str]) -> None:
    """INVALID, by name, and nothing is sent that would write."""
    before = store.observe(ENTRY)
    for write in (store.set_policy, store.create):
        with trouble(Code.INVALID, store, ENTRY):
            write(ENTRY, full_policy() | strings)
    with trouble(Code.INVALID, store, ENTRY):
        store.record(ENTRY, {"future.x": '{"a": "b"}'})
    with trouble(Code.INVALID, store, ENTRY):
        store.record(ENTRY, {"future.x": "x" * 257})
    assert same_state(store.observe(ENTRY), before)


def test_a_policy_leaves_room_for_the_journal(store: SecretsManagerStore, console: Any) -> None:
    """INVALID with the numbers, for a new entry as for one that has tags of others; the journal does not count."""
    room = 26 - len(full_policy())
    own = {f"tag.t{number}": "x" for number in range(room - 1)}
    store.record(ENTRY, {f"future.x{number}": "a=b" for number in range(24)})
    store.set_policy(ENTRY, full_policy() | own)
    store.create("prod/another-one", full_policy() | own)
    store.set_policy(ENTRY, full_policy())
    console.tag_resource(SecretId=ENTRY, Tags=[{"Key": "cost-centre", "Value": "4711"}])
    with trouble(Code.INVALID, store, ENTRY) as caught:
        store.set_policy(ENTRY, full_policy() | own)
    assert "27 tags, at most 26" in str(caught.value)
    with trouble(Code.INVALID, store, "prod/one-more"):
        store.create("prod/one-more", full_policy() | own | {"tag.more": "x"})


def test_a_journal_that_does_not_fit_is_explained(store: SecretsManagerStore, console: Any) -> None:
    """INVALID with the numbers; nothing of it is written. Others have taken the room that was there."""
    others = [{"Key": f"t{number}", "Value": "x"} for number in range(50 - len(full_policy()))]
    console.tag_resource(SecretId=ENTRY, Tags=others)
    with trouble(Code.INVALID, store, ENTRY) as caught:
        store.record(ENTRY, {"future.x": "a=b"})
    assert "51 tags, at most 50" in str(caught.value)
    assert store.observe(ENTRY).journal.facts == {}


# --- keys, regions, deletion -------------------------------------------------------------------------


def test_key_and_replica_regions_stay(make: Make, server: AwsServer, console: Any) -> None:
    """Through stage, promotion, deletion and recovery; consumers in the other region read the promoted value."""
    store = make(kms_key_id="alias/keyturn", replica_regions=(OTHER_REGION,))
    store.create(ENTRY, full_policy())
    rotated(store, ENTRY)
    credential = value()
    rotated(store, ENTRY, credential)
    store.delete(ENTRY)
    there = server.client("secretsmanager", region=OTHER_REGION)
    assert there.list_secrets()["SecretList"] == []
    assert store.restore(ENTRY)
    about = console.describe_secret(SecretId=ENTRY)
    assert about["KmsKeyId"] == "alias/keyturn"
    assert [(one["Region"], one["Status"]) for one in about["ReplicationStatus"]] == [(OTHER_REGION, "InSync")]
    kept = console.list_secret_version_ids(SecretId=ENTRY)["Versions"]
    assert {key for version in kept for key in version["KmsKeyIds"]} == {"alias/keyturn"}
    assert there.get_secret_value(SecretId=ENTRY)["SecretString"] == credential.fields["value"].reveal()
    rotated(store, ENTRY)


def test_entries_replicated_by_the_service_belong_to_the_other_region(make: Make) -> None:
    """They are not listed there, can be looked at, and a write is refused with the region to write in."""
    here = make(replica_regions=(OTHER_REGION,))
    here.create(ENTRY, full_policy())
    base, version = rotated(here, ENTRY), staged(here, ENTRY)
    there = make(region=OTHER_REGION, replica_regions=())
    assert list(there.listing()) == []
    assert current(there, ENTRY).id == base.id
    writes: list[Callable[[], object]] = [
        lambda: there.stage(ENTRY, new_token(), value(), key_id=None),
        lambda: there.record(ENTRY, {"future.x": "a=b"}),
        lambda: there.promote(ENTRY, version, base.id),
        lambda: there.discard(ENTRY, version),
    ]
    for write in writes:
        with trouble(Code.INVALID, there, ENTRY) as caught:
            write()
        assert "replica" in str(caught.value)
    assert pending(here, ENTRY).id == version.id


def test_the_recovery_window(make: Make, console: Any) -> None:
    """As long as configured; a deleted entry says until when it can be restored."""
    store = make(recovery_window_days=7)
    store.create(ENTRY, full_policy())
    store.delete(ENTRY)
    end = console.describe_secret(SecretId=ENTRY)["DeletedDate"].astimezone(UTC)
    assert abs(end - datetime.now(UTC) - timedelta(days=7)) < timedelta(minutes=1)
    with trouble(Code.NOT_FOUND, store, ENTRY) as caught:
        store.observe(ENTRY)
    assert f"restored until {end:%Y-%m-%d}" in str(caught.value)


def test_everything_about_a_deleted_entry(store: SecretsManagerStore) -> None:
    """NOT_FOUND that says so, whatever is asked; deleting half of it is for the next to complete."""
    version, base = staged(store, ENTRY), current(store, ENTRY)
    store.delete(ENTRY)
    calls: list[Callable[[], object]] = [
        lambda: store.read(ENTRY, version),
        lambda: store.stage(ENTRY, new_token(), value(), key_id=None),
        lambda: store.promote(ENTRY, version, base.id),
        lambda: store.discard(ENTRY, version),
        lambda: store.record(ENTRY, {"future.x": "a=b"}),
        lambda: store.forget(ENTRY, ["future.x"]),
        lambda: store.set_policy(ENTRY, full_policy()),
    ]
    for call in calls:
        with trouble(Code.NOT_FOUND, store, ENTRY) as caught:
            call()
        assert "is deleted" in str(caught.value)


def test_deleting_half_an_entry_may_have_had_an_effect(make: Make, server: AwsServer) -> None:
    """Its replicas are gone, itself is not: the caller is told that something was done, and can repeat it."""
    store = make(replica_regions=(OTHER_REGION,))
    store.create(ENTRY, full_policy())
    server.control.fail("DeleteSecret", "denied")
    with pytest.raises(Trouble) as caught:
        store.delete(ENTRY)
    assert caught.value.code is Code.DENIED
    assert caught.value.maybe_applied
    store.delete(ENTRY)
    server.control.fail("ReplicateSecretToRegions", "denied")
    with pytest.raises(Trouble) as caught:
        store.restore(ENTRY)
    assert caught.value.maybe_applied
    assert store.observe(ENTRY).policy == full_policy()


def test_deleted_by_two_at_once(store: SecretsManagerStore, server: AwsServer, console: Any) -> None:
    """The second finds it done."""
    with meanwhile(server, "DescribeSecret", lambda: console.delete_secret(SecretId=ENTRY)):
        store.delete(ENTRY)
    assert store.restore(ENTRY)


# --- faults ------------------------------------------------------------------------------------------

Write = Callable[[SecretsManagerStore], object]
WRITES: dict[str, tuple[str, Write]] = {
    "stage": ("PutSecretValue", lambda store: store.stage(ENTRY, "f" * 32, Credential.of(value="v"), key_id=None)),
    "promote": (
        "UpdateSecretVersionStage",
        lambda store: store.promote(ENTRY, pending(store, ENTRY), current(store, ENTRY).id),
    ),
    "discard": ("UpdateSecretVersionStage", lambda store: store.discard(ENTRY, pending(store, ENTRY))),
    "record": ("TagResource", lambda store: store.record(ENTRY, {"future.x": "a=b"})),
    "forget": ("UntagResource", lambda store: store.forget(ENTRY, ["future.y"])),
    "set_policy": ("TagResource", lambda store: store.set_policy(ENTRY, full_policy(owner="new-owner"))),
    "create": ("CreateSecret", lambda store: store.create("prod/another-one", full_policy())),
    "delete": ("DeleteSecret", lambda store: store.delete(ENTRY)),
}
EFFECTS: dict[str, Callable[[SecretsManagerStore, Version], bool]] = {
    "stage": lambda store, _: pending(store, ENTRY).token == "f" * 32,
    "promote": lambda store, version: current(store, ENTRY).id == version.id,
    "discard": lambda store, _: store.observe(ENTRY).pending is None,
    "record": lambda store, _: "future.x" in store.observe(ENTRY).journal.facts,
    "forget": lambda store, _: "future.y" not in store.observe(ENTRY).journal.facts,
    "set_policy": lambda store, _: store.observe(ENTRY).policy["owner"] == "new-owner",
    "create": lambda store, _: len(list(store.listing())) == 2,
    "delete": lambda store, _: not list(store.listing()),
}


def ready(store: SecretsManagerStore) -> Version:
    """What each of WRITES can be done to."""
    store.record(ENTRY, {"future.y": "a=b"})
    return staged(store, ENTRY)


@pytest.mark.parametrize("kind", ["lost_answer", "drop", "server_error"])
@pytest.mark.parametrize("write", WRITES)
def test_a_write_without_a_good_answer(store: SecretsManagerStore, server: AwsServer, write: str, kind: Any) -> None:
    """UNAVAILABLE, perhaps applied; it went out once; another look tells."""
    operation, act = WRITES[write]
    version = ready(store)
    server.control.fail(operation, kind)
    with calls_of(server) as calls, pytest.raises(Trouble) as caught:
        act(store)
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.maybe_applied
    assert Counter(calls)[operation] == 1
    assert EFFECTS[write](store, version) == (kind == "lost_answer")


@pytest.mark.parametrize("write", WRITES)
def test_a_throttled_write_is_sent_again(make: Make, store: SecretsManagerStore, server: AwsServer, write: str) -> None:
    """Three times at most, as it was not carried out; then THROTTLED, and certain to have had no effect."""
    operation, act = WRITES[write]
    version = ready(store)
    clock = QuickClock()
    client = make(clock=clock)
    server.control.fail(operation, "throttle", times=4)
    with calls_of(server) as calls, pytest.raises(Trouble) as caught:
        act(client)
    assert caught.value.code is Code.THROTTLED
    assert not caught.value.maybe_applied
    assert Counter(calls)[operation] == 4
    assert clock.passed == pytest.approx(2.6)
    assert not EFFECTS[write](store, version)
    server.control.fail(operation, "throttle", times=3)
    act(client)
    assert EFFECTS[write](store, version)


READS: dict[str, tuple[str, Write]] = {
    "observe": ("DescribeSecret", lambda store: store.observe(ENTRY)),
    "find": ("GetSecretValue", lambda store: store.find(ENTRY, current(store, ENTRY).id)),
    "listing": ("ListSecrets", lambda store: list(store.listing())),
}


@pytest.mark.parametrize("kind", ["lost_answer", "drop", "server_error", "throttle"])
@pytest.mark.parametrize("read", READS)
def test_a_read_without_a_good_answer_is_sent_again(
    store: SecretsManagerStore, server: AwsServer, read: str, kind: Any
) -> None:
    """Three times at most, with pauses; then it is the caller's, with nothing changed."""
    operation, act = READS[read]
    server.control.fail(operation, kind, times=3)
    act(store)
    server.control.fail(operation, kind, times=4)
    with pytest.raises(Trouble) as caught:
        act(store)
    assert caught.value.code is (Code.THROTTLED if kind == "throttle" else Code.UNAVAILABLE)
    assert not caught.value.maybe_applied


def test_a_version_that_is_not_to_be_seen_yet(store: SecretsManagerStore, server: AwsServer) -> None:
    """The service is consistent in the end: what was just put is asked for again before it counts as gone."""
    version = staged(store, ENTRY)
    server.control.fail("GetSecretValue", "not_found", times=3)
    store.read(ENTRY, version)
    server.control.fail("GetSecretValue", "not_found", times=4)
    with trouble(Code.NOT_FOUND, store, ENTRY):
        store.read(ENTRY, version)
    server.control.fail("UpdateSecretVersionStage", "not_found", times=3)
    store.promote(ENTRY, version, current(store, ENTRY).id)
    assert current(store, ENTRY).id == version.id


LACKING: dict[str, Write] = {
    "DescribeSecret": lambda store: store.observe(ENTRY),
    "GetSecretValue": lambda store: store.read(ENTRY, current(store, ENTRY)),
    "PutSecretValue": WRITES["stage"][1],
    "UpdateSecretVersionStage": WRITES["promote"][1],
    "TagResource": WRITES["record"][1],
    "UntagResource": WRITES["forget"][1],
    "CreateSecret": lambda store: store.create(ENTRY, full_policy()),
    "DeleteSecret": WRITES["delete"][1],
}


@pytest.mark.parametrize("action", LACKING)
def test_a_missing_permission_is_named(store: SecretsManagerStore, server: AwsServer, action: str) -> None:
    """DENIED says which action is missing on which secret, and whose login it is."""
    ready(store)
    server.control.fail(action, "denied")
    with trouble(Code.DENIED, store, ENTRY) as caught:
        LACKING[action](store)
    assert f"the default chain lacks secretsmanager:{action} on {ENTRY} in {REGION}" in str(caught.value)


def test_a_listing_that_is_not_allowed(store: SecretsManagerStore, server: AwsServer) -> None:
    """The same for the listing, which has no entry."""
    server.control.fail("ListSecrets", "denied")
    with trouble(Code.DENIED, store, "listing") as caught:
        list(store.listing())
    assert f"secretsmanager:ListSecrets in {REGION}" in str(caught.value)


@pytest.mark.parametrize("write", ["stage", "record"])
def test_a_service_that_is_not_there(make: Make, write: str) -> None:
    """UNAVAILABLE, and certain to have had no effect."""
    endpoint = f"http://127.0.0.1:{free_port()}"
    client = make(endpoint_url=endpoint)
    client._valued.add(ENTRY)
    with trouble(Code.UNAVAILABLE, client, ENTRY) as caught:
        WRITES[write][1](client)
    assert f"{endpoint} can not be reached" in str(caught.value)


@pytest.mark.parametrize("write", ["stage", "record"])
def test_a_service_that_does_not_answer(make: Make, write: str) -> None:
    """UNAVAILABLE within the timeout, perhaps applied."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = make(endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1)
        client._valued.add(ENTRY)
        with pytest.raises(Trouble) as caught:
            WRITES[write][1](client)
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.maybe_applied
    assert "did not answer within 0.1 s" in str(caught.value)


def test_a_proxy_that_is_not_there(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """UNAVAILABLE, and nothing was sent."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    client = make(endpoint_url="http://secretsmanager.test")
    with trouble(Code.UNAVAILABLE, client, ENTRY) as caught:
        client.record(ENTRY, {"future.x": "a=b"})
    assert "proxy" in str(caught.value)


def test_what_the_service_refuses(make: Make) -> None:
    """INVALID, in the service's own words: a name that can not be, a replica in the store's own region."""
    store, wrong = make(), "prod/no#name"
    acts: list[Callable[[], object]] = [
        lambda: store.create(wrong, full_policy()),
        lambda: store.observe(wrong),
        lambda: store.find(wrong, new_token()),
    ]
    for act in acts:
        with trouble(Code.INVALID, store, wrong) as caught:
            act()
        assert "Invalid name" in str(caught.value)
    with trouble(Code.INVALID, make(replica_regions=(REGION,)), ENTRY) as caught:
        make(replica_regions=(REGION,)).create(ENTRY, full_policy())
    assert "Invalid replica region" in str(caught.value)


def test_a_certificate_that_is_not_trusted(make: Make) -> None:
    """UNAVAILABLE, nothing sent, and the setting named that is about trust."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as door:

        def shake_hands() -> None:
            with suppress(OSError):  # that the client turns away is what is tested
                context.wrap_socket(door.accept()[0], server_side=True).close()

        thread = threading.Thread(target=shake_hands)
        thread.start()
        client = make(endpoint_url=f"https://127.0.0.1:{door.getsockname()[1]}")
        with trouble(Code.UNAVAILABLE, client, ENTRY) as caught:
            client.record(ENTRY, {"future.x": "a=b"})
        thread.join(10)
    assert "AWS_CA_BUNDLE" in str(caught.value)


def test_a_write_does_not_go_out_late(make: Make, store: SecretsManagerStore, server: AwsServer) -> None:
    """Whatever logging in took: the engine counts on no write later than a call may last."""

    class SlowLogin(QuickClock):
        def monotonic(self) -> float:
            self.passed += 41
            return self.passed

    version, base = staged(store, ENTRY), current(store, ENTRY)
    client = make(clock=SlowLogin())
    with calls_of(server) as calls, trouble(Code.UNAVAILABLE, client, ENTRY):
        client.promote(ENTRY, version, base.id)
    assert calls == []


Answers = Callable[[str, dict[str, Any]], tuple[int, bytes]]


@contextmanager
def answering(answers: Answers, *, as_aws: bool = True) -> Iterator[str]:
    """A server that answers what it is told to: the endpoint. For what the stand-in does not say."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            operation = self.headers["X-Amz-Target"].partition(".")[2]
            status, text = answers(operation, json.loads(body))
            self.send_response(status)
            if as_aws:
                self.send_header("x-amzn-RequestId", str(uuid.uuid4()))
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


def refusal(code: str, message: str) -> tuple[int, bytes]:
    return 400, json.dumps({"__type": code, "Message": message}).encode()


def test_an_answer_that_is_not_the_services(make: Make) -> None:
    """A page of a proxy is no empty entry: UNAVAILABLE; a write may have gone through all the same."""
    with answering(lambda *_: (200, b"<html>Log in to the network</html>"), as_aws=False) as endpoint:
        client = make(endpoint_url=endpoint)
        with trouble(Code.UNAVAILABLE, client, ENTRY) as caught:
            client.observe(ENTRY)
        assert "not that of Secrets Manager" in str(caught.value)
        with pytest.raises(Trouble) as written:
            client.record(ENTRY, {"future.x": "a=b"})
        assert written.value.maybe_applied
    with answering(lambda *_: (502, b"<html>Bad gateway</html>"), as_aws=False) as endpoint:
        client = make(endpoint_url=endpoint)
        with trouble(Code.UNAVAILABLE, client, ENTRY):
            client.observe(ENTRY)


@pytest.mark.parametrize(
    ("code", "message", "expected", "told"),
    [
        ("EncryptionFailure", "The key is disabled.", Code.INVALID, "KMS key can not be used (EncryptionFailure)"),
        ("AccessDeniedException", "Access to KMS is not allowed", Code.DENIED, "or its KMS key does not allow"),
        ("LimitExceededException", "Too many versions.", Code.INVALID, "refused (LimitExceededException)"),
        ("ExpiredTokenException", "The token is expired", Code.DENIED, "credentials of the default chain were refused"),
        ("TooManyRequestsException", "Slow down", Code.THROTTLED, "too many requests"),
    ],
)
def test_refusals_that_the_sandbox_does_not_make(
    make: Make, code: str, message: str, expected: Code, told: str
) -> None:
    """Each with what to do about it. What answers a put is not passed on: it might quote the value."""
    credential = value()
    quoted = f"{message} {credential.fields['value'].reveal()}"
    with answering(lambda *_: refusal(code, quoted)) as endpoint:
        client = make(endpoint_url=endpoint)
        client._valued.add(ENTRY)
        with trouble(expected, client, ENTRY) as caught:
            client.stage(ENTRY, new_token(), credential, key_id=None)
    assert told in str(caught.value)


def test_a_secret_of_another_service(make: Make) -> None:
    """INVALID, and says whose it is: what that service manages nobody else changes."""

    def answers(operation: str, _: dict[str, Any]) -> tuple[int, bytes]:
        if operation == "DescribeSecret":
            return 200, json.dumps({"ARN": "arn", "Name": ENTRY, "OwningService": "rds"}).encode()
        return refusal("InvalidRequestException", "You can't modify a managed secret.")

    with answering(answers) as endpoint:
        client = make(endpoint_url=endpoint)
        with trouble(Code.INVALID, client, ENTRY) as caught:
            client.record(ENTRY, {"future.x": "a=b"})
    assert "belongs to rds" in str(caught.value)


def test_ten_thousand_entries_take_no_more_memory_than_a_thousand(make: Make) -> None:
    """A page at a time, metadata only."""
    held = [{"Key": "keyturn:policy.name", "Value": "support-copilot-chat"}]
    page = json.dumps({"SecretList": [{"Name": f"prod/service-{n:03}", "Tags": held} for n in range(100)]}).encode()
    entries = 0

    def answers(_: str, asked: dict[str, Any]) -> tuple[int, bytes]:
        assert asked["MaxResults"] == 100
        after = int(asked.get("NextToken", 0)) + 100
        return 200, page if after >= entries else page[:-1] + f', "NextToken": "{after}"}}'.encode()

    peaks = []
    with answering(answers) as endpoint:
        store = make(endpoint_url=endpoint)
        list(store.listing())
        for entries in (1_000, 10_000):
            tracemalloc.start()
            assert sum(1 for _ in store.listing()) == entries
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < peaks[0] * 2
    assert peaks[1] < 1_000_000


# --- logging in --------------------------------------------------------------------------------------


def role(server: AwsServer, *, external_id: str = "acme-keyturn") -> str:
    """A role that the account may assume with this external id: its ARN."""
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"AWS": f"arn:aws:iam::{server.account_id}:root"},
                "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
            }
        ],
    }
    iam = server.client("iam")
    made = iam.create_role(RoleName="keyturn-rotator", AssumeRolePolicyDocument=json.dumps(trust))
    arn: str = made["Role"]["Arn"]
    return arn


def test_a_role_is_assumed_once(make: Make, server: AwsServer) -> None:
    """With the external id, at first use; all calls of all threads are the role's."""
    store = make(login=AwsLogin(role_arn=role(server), external_id="acme-keyturn"))
    with calls_of(server) as calls:
        store.create(ENTRY, full_policy())
        rotated(store, ENTRY)
        assert at_once(*[lambda: store.record(ENTRY, journal.promoted(new_token(), AT))] * 6) == [None] * 6
    assert Counter(calls)["AssumeRole"] == 1
    keys = {record.access_key_id for record in server.control.calls() if record.operation.startswith("secretsmanager:")}
    assert len(keys) == 1
    assert keys != {server.access_key_id}


@pytest.mark.parametrize(("minutes_left", "renewed"), [(30, False), (5, True)])
def test_a_role_is_assumed_again_before_it_ends(
    make: Make, monkeypatch: pytest.MonkeyPatch, minutes_left: int, renewed: bool
) -> None:
    """By botocore, a quarter of an hour before. The session that STS gives lasts an hour; here it began earlier."""
    with AwsServer(now=lambda: datetime.now(UTC) - timedelta(minutes=60 - minutes_left)) as server:
        as_admin(server, monkeypatch)
        login = AwsLogin(role_arn=role(server), external_id="acme-keyturn")
        store = make(endpoint_url=server.endpoint, login=login)
        store.create(ENTRY, full_policy())
        with calls_of(server) as calls:
            store.observe(ENTRY)
        assert ("AssumeRole" in calls) == renewed


@pytest.mark.parametrize("external_id", [None, "somebody-else"])
def test_a_role_that_may_not_be_assumed(make: Make, server: AwsServer, external_id: str | None) -> None:
    """DENIED, naming role and profile; the entry was not asked."""
    arn = role(server)
    client = make(login=AwsLogin(role_arn=arn, external_id=external_id))
    with calls_of(server) as calls, trouble(Code.DENIED, client, ENTRY) as caught:
        client.record(ENTRY, {"future.x": "a=b"})
    assert f"role {arn} from the default chain was refused (AccessDenied)" in str(caught.value)
    assert calls == ["AssumeRole"]


@pytest.mark.parametrize(
    ("kind", "code"), [("throttle", Code.THROTTLED), ("server_error", Code.UNAVAILABLE), ("drop", Code.UNAVAILABLE)]
)
def test_a_login_that_fails_has_written_nothing(
    make: Make, store: SecretsManagerStore, server: AwsServer, kind: Any, code: Code
) -> None:
    """A fault of STS is not taken for one of the write, which never went out; the next call logs in."""
    client = make(login=AwsLogin(role_arn=role(server), external_id="acme-keyturn"))
    server.control.fail("sts:AssumeRole", kind)
    with calls_of(server) as calls, trouble(code, client, ENTRY):
        client.record(ENTRY, {"future.x": "a=b"})
    assert set(calls) == {"AssumeRole"}
    client.record(ENTRY, {"future.x": "a=b"})


def test_a_profile(make: Make, server: AwsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own credentials, whatever the environment holds; one that is not there is named."""
    secret = server.environment()["AWS_SECRET_ACCESS_KEY"]
    file = tmp_path / "credentials"
    file.write_text(f"[team]\naws_access_key_id = {server.access_key_id}\naws_secret_access_key = {secret}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFSOMEBODYELSE00")
    make(login=AwsLogin(profile="team")).create(ENTRY, full_policy())
    with trouble(Code.DENIED, make(), ENTRY) as caught:
        make().observe(ENTRY)
    assert "credentials of the default chain were refused" in str(caught.value)
    client = make(login=AwsLogin(profile="nobody"))
    with trouble(Code.DENIED, client, ENTRY) as caught:
        client.observe(ENTRY)
    assert "nobody" in str(caught.value)


def test_no_credentials_at_all(make: Make, store: SecretsManagerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """DENIED; a client that finds some later goes on."""
    client = make()
    with monkeypatch.context() as patch:
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        with trouble(Code.DENIED, client, ENTRY) as caught:
            client.observe(ENTRY)
        assert "Partial credentials" in str(caught.value)
        patch.delenv("AWS_ACCESS_KEY_ID")
        with trouble(Code.DENIED, client, ENTRY) as caught:
            client.record(ENTRY, {"future.x": "a=b"})
        assert "no AWS credentials in the default chain" in str(caught.value)
    client.record(ENTRY, {"future.x": "a=b"})


def test_an_endpoint_that_is_none(make: Make) -> None:
    """INVALID, nothing sent."""
    client = make(endpoint_url="localhost")
    with trouble(Code.INVALID, client, ENTRY):
        client.observe(ENTRY)


# --- alone, and with the engine ----------------------------------------------------------------------


def test_constructing_loads_no_sdk() -> None:
    """A host that names this store in its configuration does not pay for it before it is used."""
    code = (
        "import sys, providers.stores.aws as a\n"
        "a.SecretsManagerStore('a', region='eu-west-1', login=a.AwsLogin(), clock=None)\n"
        "print(sorted({'boto3', 'botocore', 'urllib3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


ALONE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"hvac", "azure", "pulumi", "requests", "msal", "pydantic", "yaml", "rich", "typer"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
from providers.stores.aws import AwsLogin, SecretsManagerStore
from rotation.clock import SystemClock
from rotation.model import Credential

store = SecretsManagerStore("aws", region=sys.argv[1], login=AwsLogin(), clock=SystemClock())
base = store.observe(sys.argv[2]).current
store.stage(sys.argv[2], "a" * 32, Credential.of(value="kt-value-alone"), key_id=None)
store.promote(sys.argv[2], store.observe(sys.argv[2]).pending, base.id)
print(store.observe(sys.argv[2]).current.token)
"""


def test_it_works_with_its_own_sdk_alone(store: SecretsManagerStore, server: AwsServer) -> None:
    """None of the packages that other stores and hosts need is there. The endpoint comes from the environment."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, REGION, ENTRY],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **server.environment()},
    )
    assert done.stdout.strip() == "a" * 32, done.stderr
    assert current(store, ENTRY).token == "a" * 32


@dataclass
class Turn:
    """One secret whose primary is Secrets Manager, its issuer in memory, and what a run of the engine calls there."""

    server: AwsServer
    clock: FakeClock

    def __post_init__(self) -> None:
        self.vendor = MemoryVendor(self.clock.now)
        self.store = SecretsManagerStore(
            "aws", region=REGION, endpoint_url=self.server.endpoint, login=AwsLogin(), clock=self.clock
        )
        self.trail = Trail()
        self.target = Target("aws", ENTRY)
        policy = Policy(
            installation="acme",
            environment="prod",
            name="support-copilot-chat",
            store="aws",
            issuer="vendor",
            owner="team",
            rotate_every=timedelta(days=30),
            grace=timedelta(hours=24),
        )
        self.store.create(ENTRY, policies.written(policy))

    def engine(self) -> Engine:
        places = Places(lambda store, environment, name: f"{environment}/{name}", lambda environment, name: None)
        issuer = MemoryIssuer("vendor", self.vendor)
        return Engine({"aws": self.store}, {"vendor": issuer}, places, self.clock, self.trail)

    def run(self, what: str, act: Callable[[Engine], Outcome]) -> tuple[Outcome, Counter[str]]:
        with calls_of(self.server) as calls:
            outcome = act(self.engine())
        read = self.server.client("secretsmanager").get_secret_value(SecretId=ENTRY)["SecretString"]
        assert self.vendor.accepts(read), "what consumers read works"
        count = Counter(calls)
        print(f"{what}: {count.total()} calls of Secrets Manager: {dict(count)}")
        return outcome, count


@pytest.fixture
def turn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Turn]:
    clock = FakeClock()
    with AwsServer(now=clock.now) as server:
        as_admin(server, monkeypatch)
        yield Turn(server, clock)


def test_a_secret_turns(turn: Turn) -> None:
    """From an empty entry over a rotation and the end of the old key to an emergency, with the calls that each takes."""
    outcome, calls = turn.run("first credential", lambda engine: engine.run(turn.target))
    assert isinstance(outcome.rest, actions.Done)
    # The intent, the id of the key, its promotion.
    rotation = {"TagResource": 3, "PutSecretValue": 1, "GetSecretValue": 1, "UpdateSecretVersionStage": 1}
    assert calls == rotation | {"DescribeSecret": 4, "PutSecretValue": 2}

    outcome, calls = turn.run("nothing due", lambda engine: engine.run(turn.target))
    assert calls == {"DescribeSecret": 1}

    turn.clock.move(timedelta(days=30))
    outcome, calls = turn.run("rotation", lambda engine: engine.run(turn.target))
    assert isinstance(outcome.rest, actions.Wait)
    assert len(turn.vendor.live()) == 2
    assert calls == rotation | {"DescribeSecret": 3}

    turn.clock.move(timedelta(hours=25))
    outcome, calls = turn.run("retirement", lambda engine: engine.run(turn.target))
    assert isinstance(outcome.rest, actions.Done)
    assert [key.value for key in turn.vendor.live()] == ["value-2"]
    assert calls == {"DescribeSecret": 2, "TagResource": 2, "GetSecretValue": 1, "UntagResource": 1}

    outcome, calls = turn.run("emergency", lambda engine: engine.emergency(turn.target))
    assert [key.value for key in turn.vendor.live()] == ["value-3"]
    assert calls.total() <= 15


@pytest.mark.parametrize("kind", ["lost_answer", "drop", "denied"])
@pytest.mark.parametrize("operation", ["TagResource", "PutSecretValue", "UpdateSecretVersionStage", "UntagResource"])
def test_a_secret_turns_over_a_fault(turn: Turn, operation: str, kind: Any) -> None:
    """Each write of a rotation fails once: consumers read a working value throughout, and sweeps finish the rest."""
    turn.run("first credential", lambda engine: engine.run(turn.target))
    turn.clock.move(timedelta(days=30))
    turn.server.control.fail(operation, kind)
    outcome, _ = turn.run("rotation", lambda engine: engine.run(turn.target))
    for minutes in SWEEPS:
        turn.clock.move(timedelta(minutes=minutes))
        outcome, _ = turn.run("sweep", lambda engine: engine.run(turn.target))
    assert isinstance(outcome.rest, actions.Done)
    assert turn.store.read(ENTRY, current(turn.store, ENTRY)).same_as(Credential.of(value=turn.vendor.live()[0].value))
    assert len(turn.vendor.live()) == 1
    assert turn.vendor.live()[0].value != "value-1"


def test_many_values_are_read_in_few_calls(store: SecretsManagerStore, console: Any, server: AwsServer) -> None:
    """45 entries in three calls; an entry that is not there, or binary, is not among them."""
    names = [f"prod/many-{number:02}" for number in range(45)]
    for number, name in enumerate(names):
        console.create_secret(Name=name, SecretString=f"value-{number}")
    console.create_secret(Name="prod/many-binary", SecretBinary=b"\x00")
    with calls_of(server) as calls:
        found = store.read_many([*names, "prod/many-binary", "prod/nothing"])
    assert calls == ["BatchGetSecretValue"] * 3
    assert sorted(found) == names
    held = found["prod/many-07"]
    assert held.credential
    assert held.credential.fields["value"].reveal() == "value-7"
    assert store.read("prod/many-07", Version(held.id, None)).same_as(held.credential)
