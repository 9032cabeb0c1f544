"""The Vault store passes the contract against a real OpenBao, under the least policy; and what is its own."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
import requests

from providers.issuers.memory import MemoryIssuer, MemoryVendor
from providers.stores.vault import AppRoleLogin, Login, TokenLogin, VaultStore
from rotation import journal
from rotation import policy as policies
from rotation.clock import SystemClock
from rotation.engine import Engine, Places, Target
from rotation.errors import Code, Trouble
from rotation.model import Capabilities, Credential, SecretValue
from rotation.ports import Listed, SecretStore
from sandbox.openbao import OpenBaoServer
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
    staged,
    texts,
    trouble,
    value,
    without_value,
)
from tests.world import FakeClock, Trail

LEAST = """
path "secret/data/PREFIX/*" { capabilities = ["create", "read", "update", "patch"] }
path "secret/metadata/PREFIX/*" { capabilities = ["create", "read", "patch", "list"] }
path "secret/subkeys/PREFIX/*" { capabilities = ["read"] }
path "secret/delete/PREFIX/*" { capabilities = ["update"] }
path "secret/undelete/PREFIX/*" { capabilities = ["update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
"""
"""What the module's docstring promises to be enough."""

ENTRY = "prod/support-copilot-chat"
MERGE = {"Content-Type": "application/merge-patch+json"}


@dataclass
class MovableClock(SystemClock):
    """Real time, and a monotonic clock that can be moved ahead."""

    ahead: float = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@dataclass
class Console:
    """The server as its administrator has it."""

    server: OpenBaoServer
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False
        self.session.verify = str(self.server.ca)
        self.session.headers["X-Vault-Token"] = self.server.root_token

    def send(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        answer = self.session.request(
            method, f"{self.server.address}/v1/{path}", json=body, headers=headers, timeout=30
        )
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    @contextmanager
    def requests_of(self, path: str) -> Iterator[list[tuple[str, str]]]:
        """What reaches the server meanwhile below a path, from its own audit log: (operation, path) each."""
        seen: list[tuple[str, str]] = []
        start = self.server.audit_log.stat().st_size
        yield seen
        with self.server.audit_log.open() as log:
            log.seek(start)
            for line in log:
                record = json.loads(line)
                if record["type"] == "request" and record["request"]["path"].startswith(path):
                    seen.append((record["request"]["operation"], record["request"]["path"]))


@pytest.fixture(scope="module")
def server() -> Iterator[OpenBaoServer]:
    with OpenBaoServer() as running:
        yield running


@pytest.fixture(scope="module")
def console(server: OpenBaoServer) -> Iterator[Console]:
    made = Console(server)
    with made.session:
        yield made


@pytest.fixture
def prefix() -> str:
    """A corner of the mount for one test."""
    return f"t{uuid.uuid4().hex[:8]}"


Make = Callable[..., VaultStore]


@pytest.fixture
def make(server: OpenBaoServer, prefix: str) -> Make:
    """A client of the test's own corner, logged in with the root token unless told otherwise."""

    def client(**changed: Any) -> VaultStore:
        settings: dict[str, Any] = {
            "name": "vault",
            "address": server.address,
            "mount": "secret",
            "prefix": prefix,
            "ca_bundle": str(server.ca),
            "auth": TokenLogin(SecretValue(server.root_token)),
            "clock": SystemClock(),
        }
        return VaultStore(**(settings | changed))

    return client


@pytest.fixture
def store(make: Make) -> VaultStore:
    """A store with one entry, ENTRY, that has a current version."""
    made = make()
    made.create(ENTRY, full_policy())
    rotated(made, ENTRY)
    return made


def put_by_hand(console: Console, prefix: str) -> ByHand:
    def put(entry: str, credential: Credential) -> None:
        fields = {name: text.reveal() for name, text in credential.fields.items()}
        console.send("POST", f"secret/data/{prefix}/{entry}", {"data": fields})

    return put


class TestVaultStore(StoreContract):
    """Under the least policy, logged in by AppRole, over TLS with the server's own authority."""

    @pytest.fixture
    def login(self, server: OpenBaoServer, prefix: str) -> Login:
        role_id, secret_id = server.approle(LEAST.replace("PREFIX", prefix))
        return AppRoleLogin(role_id, SecretValue(secret_id))

    @pytest.fixture
    def store(self, make: Make, login: Login) -> SecretStore:
        return make(auth=login)

    @pytest.fixture
    def second_client(self, make: Make, login: Login) -> SecretStore:
        return make(auth=login)

    @pytest.fixture
    def by_hand(self, console: Console, prefix: str) -> ByHand:
        return put_by_hand(console, prefix)


# --- layout and calls --------------------------------------------------------------------------------


def test_consumers_read_the_fields_at_top_level(store: VaultStore, console: Console, prefix: str) -> None:
    """The payload is the credential's fields and one label; custom metadata of others stays."""
    path = f"secret/metadata/{prefix}/{ENTRY}"
    console.send("PATCH", path, {"custom_metadata": {"cost-centre": "4711"}}, **MERGE)
    version = rotated(store, ENTRY, Credential.of(value="kt-value-1", region="eu"))
    store.record(ENTRY, journal.promoted(version.token or "", AT))
    store.set_policy(ENTRY, full_policy(owner="new-owner"))
    payload = console.send("GET", f"secret/data/{prefix}/{ENTRY}")["data"]["data"]
    assert payload.keys() == {"value", "region", "keyturn"}
    assert (payload["value"], payload["region"]) == ("kt-value-1", "eu")
    label = dict(word.split("=") for word in payload["keyturn"].split(" "))
    assert label.keys() == {"token", "key", "sum"}
    assert label["token"] == version.token
    custom = console.send("GET", path)["data"]["custom_metadata"]
    assert custom["cost-centre"] == "4711"
    assert {key.partition(".")[0] for key in custom} == {"cost-centre", "journal", "policy"}


def test_every_operation_costs_the_calls_it_needs(store: VaultStore, console: Console, prefix: str) -> None:
    """Observing two, every write of a rotation one; reading what was observed none."""
    top = f"secret/metadata/{prefix}/"
    data, metadata = f"secret/data/{prefix}/{ENTRY}", f"{top}{ENTRY}"
    version = staged(store, ENTRY)
    base = current(store, ENTRY)
    expected: list[tuple[Callable[[], object], list[tuple[str, str]]]] = [
        (lambda: store.observe(ENTRY), [("read", f"{data}-pending"), ("read", data)]),
        (lambda: store.read(ENTRY, version), []),
        (lambda: store.read(ENTRY, without_value(base)), [("read", data)]),
        (lambda: store.find(ENTRY, version.token or ""), [("read", data), ("read", f"{data}-pending")]),
        (lambda: store.record(ENTRY, {"future.x": "a=b", "future.y": "a=b"}), [("patch", metadata)]),
        (lambda: store.forget(ENTRY, ["future.x", "future.y"]), [("patch", metadata)]),
        (lambda: store.record(ENTRY, {}), []),
        (lambda: store.stage(ENTRY, new_token(), value(), key_id=KEY_ID), [("update", f"{data}-pending")]),
        (lambda: store.promote(ENTRY, version, base.id), [("update", data)]),
        (lambda: store.discard(ENTRY, version), [("update", f"{data}-pending")]),
        (lambda: list(store.listing()), [("list", top), ("list", f"secret/detailed-metadata/{prefix}/prod/")]),
    ]
    for number, (operation, calls) in enumerate(expected):
        with console.requests_of("secret/") as seen:
            operation()
        assert seen == calls, number


def test_a_server_without_detailed_metadata(
    make: Make, store: VaultStore, server: OpenBaoServer, console: Console, prefix: str
) -> None:
    """The same listing, an entry a call: where the engine knows no such path, as Vault's, and where it is not allowed."""
    store.create("dev/support-copilot-chat", full_policy(owner="team-dev"))
    store.create("dev/gone", full_policy())
    store.delete("dev/gone")
    listed = list(store.listing())
    assert [entry.name for entry in listed] == ["dev/support-copilot-chat", ENTRY]
    top = f"secret/metadata/{prefix}/"
    calls = [
        ("list", top),
        ("list", f"{top}dev/"),
        ("read", f"{top}dev/gone"),
        ("read", f"{top}dev/support-copilot-chat"),
        ("list", f"{top}prod/"),
        ("read", f"{top}{ENTRY}"),
    ]
    # The engine's own answer for a path that it does not know.
    to = server.address
    with gateway(lambda path, _: (307, {"Location": to + path.replace("detailed-", "un-")}, b"")) as address:
        without = make(address=address)
        not_allowed = make(auth=TokenLogin(SecretValue(server.token(LEAST.replace("PREFIX", prefix)))))
        for client in (without, not_allowed):
            with console.requests_of("secret/metadata/") as seen:
                assert list(client.listing()) == listed
            assert seen == calls


def test_looking_at_pending_before_current_misses_no_promotion(make: Make, console: Console, prefix: str) -> None:
    """The order of the two reads is what shows a version that is promoted between them in at least one role."""
    store = make()
    store.create(ENTRY, full_policy())
    with console.requests_of(f"secret/data/{prefix}/") as seen:
        store.observe(ENTRY)
    assert [path.removeprefix(f"secret/data/{prefix}/") for _, path in seen] == [f"{ENTRY}-pending", ENTRY]


def test_importing_the_module_loads_no_sdk() -> None:
    """A host that names this store in its configuration does not pay for it before it is used."""
    code = (
        "import sys, providers.stores.vault as v\n"
        "from rotation.model import SecretValue\n"
        "v.VaultStore('v', address='http://127.0.0.1:1', mount='m', auth=v.TokenLogin(SecretValue('t')), clock=None)\n"
        "print(sorted({'hvac', 'requests', 'urllib3'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"


ALONE = """
import sys
from importlib.abc import MetaPathFinder

class OtherSdks(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"boto3", "botocore", "azure", "msal", "pulumi", "moto", "flask", "typer", "pydantic"}:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, OtherSdks())
from providers.stores.vault import TokenLogin, VaultStore
from rotation.clock import SystemClock
from rotation.model import Credential, SecretValue

address, ca, prefix, entry = sys.argv[1:]
auth = TokenLogin(SecretValue(sys.stdin.read()))
store = VaultStore(
    "vault", address=address, mount="secret", prefix=prefix, ca_bundle=ca, auth=auth, clock=SystemClock()
)
base = store.observe(entry).current
store.stage(entry, "t" * 32, Credential.of(value="kt-value-alone"), key_id="key-1")
store.promote(entry, store.observe(entry).pending, base.id)
print(store.observe(entry).current.token, [listed.name for listed in store.listing()])
"""


def test_it_runs_with_its_own_sdk_only(store: VaultStore, server: OpenBaoServer, prefix: str) -> None:
    """Where no other cloud's SDK can be imported: observed, staged, promoted, listed."""
    arguments = [server.address, str(server.ca), prefix, ENTRY]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *arguments],
        input=server.root_token,
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.split("\n") == [f"{'t' * 32} ['{ENTRY}']", ""], done.stderr


MANY = 2_000
"""Of 10,000, which take half a minute to make: those are listed in 56 calls, and the peak of memory is the same."""


def filled(console: Console, folder: str, count: int) -> None:
    """Entries with a whole policy, and the pending sibling of each tenth."""
    host, port = console.server.address.removeprefix("https://").split(":")
    trust = ssl.create_default_context(cafile=str(console.server.ca))
    policy = {f"policy.{key}": text for key, text in full_policy().items()}
    body = json.dumps({"custom_metadata": policy})
    headers = {"X-Vault-Token": console.server.root_token, "Content-Type": "application/json"}

    # Plain HTTP clients: the time of one request is ours to save here.
    def fill(start: int) -> None:
        line = http.client.HTTPSConnection(host, int(port), context=trust, timeout=30)
        for number in range(start, count, 4):
            for name in (f"e-{number:05}", f"e-{number:05}-pending")[: 2 if number % 10 == 0 else 1]:
                line.request("POST", f"/v1/secret/metadata/{folder}/{name}", body, headers)
                assert line.getresponse().read() == b""
        line.close()

    threads = [threading.Thread(target=fill, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def most_memory(listing: Iterator[Listed]) -> int:
    """In use at any moment while all entries are listed and let go, in bytes."""
    tracemalloc.start()
    try:
        count = 0
        for count, listed in enumerate(listing, 1):
            assert listed.name == f"prod/e-{count - 1:05}"
        assert count == MANY
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_many_entries_are_listed_in_pages(make: Make, server: OpenBaoServer, console: Console, prefix: str) -> None:
    """A call for each 200 paths or, where the server can not, for each entry; no value read, and memory stays flat."""
    filled(console, f"{prefix}/prod", MANY)
    top, folder = f"secret/metadata/{prefix}/", f"secret/detailed-metadata/{prefix}/prod/"
    one_by_one = make(auth=TokenLogin(SecretValue(server.token(LEAST.replace("PREFIX", prefix)))))
    # 2,200 paths make 11 full pages, and the one after the last is asked for.
    in_pages = [("list", top)] + [("list", folder)] * 12
    singly = [("list", top), ("list", folder), ("list", f"{top}prod/")]  # the second is denied
    singly += [("read", f"{top}prod/e-{number:05}") for number in range(MANY)]
    # A page and its answer's text; every name. All entries at once would be three times a page.
    for client, calls, room in ((make(), in_pages, 3_000_000), (one_by_one, singly, 1_000_000)):
        next(client.listing())  # connected, modules loaded
        with console.requests_of("secret/") as seen:
            most = most_memory(client.listing())
        assert seen == calls
        assert most < room


def test_the_engine_rotates_through_it(make: Make, prefix: str) -> None:
    """A primary and a replica, a fresh process each time: first key, rotation, grace, revoked, proven, nothing left."""
    clock = FakeClock(SystemClock().now())
    vendor = MemoryVendor(clock.now)
    policy = policies.read(full_policy() | {"store": "one", "replicas": "two", "issuer": "vendor"})
    for name in ("one", "two"):
        make(name=name, prefix=f"{prefix}-{name}").create(ENTRY, policies.written(policy))

    def sweep() -> None:
        places = Places(lambda store, environment, name: ENTRY, lambda environment, name: None)
        stores = {name: make(name=name, prefix=f"{prefix}-{name}", clock=clock) for name in ("one", "two")}
        issuers = {"vendor": MemoryIssuer("vendor", vendor, Capabilities(tells_last_use=True))}
        Engine(stores, issuers, places, clock, Trail()).run(Target("one", ENTRY))

    def handed_out() -> list[Credential]:
        stores = [make(name=name, prefix=f"{prefix}-{name}") for name in ("one", "two")]
        return [store.read(ENTRY, current(store, ENTRY)) for store in stores]

    sweep()
    first = handed_out()
    assert all(vendor.accepts(credential.fields["value"].reveal()) for credential in first)
    clock.move(policy.rotate_every)
    sweep()
    second = handed_out()
    assert second[0].same_as(second[1])
    assert not second[0].same_as(first[0])
    assert len(vendor.live()) == 2
    for _ in range(3):
        clock.move(policy.grace + timedelta(hours=1))
        sweep()
    assert [key.value for key in vendor.live()] == [second[0].fields["value"].reveal()]
    left = make(name="one", prefix=f"{prefix}-one").observe(ENTRY)
    assert {key.partition(".")[2] for key in left.journal.facts} == {left.current.token if left.current else None}


# --- what people and settings do to an entry ---------------------------------------------------------


def test_a_value_edited_beside_its_label_is_not_ours(store: VaultStore, console: Console, prefix: str) -> None:
    """A console keeps the label when somebody changes the value; the version must not pass for the attempt's own."""
    path = f"secret/data/{prefix}/{ENTRY}"
    before = current(store, ENTRY)
    payload = console.send("GET", path)["data"]["data"]
    console.send("POST", path, {"data": payload | {"value": "kt-value-edited"}})
    edited = current(store, ENTRY)
    assert (edited.token, edited.key_id) == (None, None)
    assert store.read(ENTRY, edited).same_as(Credential.of(value="kt-value-edited"))
    console.send("POST", path, {"data": payload})
    assert current(store, ENTRY).token == before.token


def test_fields_that_are_not_text_are_read_as_json(store: VaultStore, console: Console, prefix: str) -> None:
    """Vault keeps any JSON; what somebody else wrote is still a readable version."""
    console.send("POST", f"secret/data/{prefix}/{ENTRY}", {"data": {"port": 5432, "hosts": ["a"], "value": "v"}})
    assert current(store, ENTRY).credential is not None
    read = store.read(ENTRY, current(store, ENTRY))
    assert {name: text.reveal() for name, text in read.fields.items()} == {
        "port": "5432",
        "hosts": '["a"]',
        "value": "v",
    }


def test_a_credential_may_not_use_the_label(store: VaultStore) -> None:
    """INVALID for a field of that name, and for a credential without any."""
    for credential in (Credential.of(value="kt-value-x", keyturn="kt-value-y"), Credential({})):
        with trouble(Code.INVALID, store, ENTRY):
            store.stage(ENTRY, new_token(), credential, key_id=None)


def test_a_creation_that_broke_off_is_completed(make: Make, console: Console, prefix: str) -> None:
    """The path exists without version or metadata of ours: create() goes on."""
    console.send("POST", f"secret/metadata/{prefix}/{ENTRY}", {"max_versions": 0})
    store = make()
    store.create(ENTRY, full_policy())
    assert store.observe(ENTRY).policy == full_policy()
    with trouble(Code.CONFLICT, store, ENTRY):
        store.create(ENTRY, full_policy())


def test_a_destroyed_current_version(store: VaultStore, console: Console, prefix: str) -> None:
    """There is nothing to hand out and nothing to restore; the entry counts as deleted."""
    number = int(current(store, ENTRY).id)
    console.send("POST", f"secret/destroy/{prefix}/{ENTRY}", {"versions": [number]})
    with trouble(Code.NOT_FOUND, store, ENTRY):
        store.observe(ENTRY)
    assert not store.restore(ENTRY)
    assert list(store.listing()) == []


def test_versions_that_the_server_dropped(store: VaultStore, console: Console, prefix: str) -> None:
    """Of more than max_versions the oldest go: not found by token, NOT_FOUND to read; the rest is."""
    console.send("POST", f"secret/metadata/{prefix}/{ENTRY}", {"max_versions": 2})
    console.send("POST", f"secret/metadata/{prefix}/{ENTRY}-pending", {"max_versions": 2})
    made = [rotated(store, ENTRY) for _ in range(4)]
    assert store.find(ENTRY, made[0].token or "") is None
    with trouble(Code.NOT_FOUND, store, ENTRY):
        store.read(ENTRY, without_value(made[0]))
    found = store.find(ENTRY, made[2].token or "")
    assert found is not None
    assert found.id == made[2].id


def test_entries_that_expire_by_themselves_are_live_until_then(make: Make, console: Console, prefix: str) -> None:
    """A mount may delete versions after a time; that time stands in the metadata from the start."""
    mount = f"expiring-{prefix}"
    mount_kv(console, mount)
    console.send("POST", f"{mount}/config", {"delete_version_after": "1h"})
    store = make(mount=mount)
    store.create(ENTRY, full_policy())
    rotated(store, ENTRY)
    assert [listed.name for listed in store.listing()] == [ENTRY]
    store.delete(ENTRY)
    assert list(store.listing()) == []


def test_a_mount_that_wants_check_and_set(make: Make, console: Console, prefix: str) -> None:
    """Every operation works there too; staging takes a look first."""
    mount = f"cas-{prefix}"
    mount_kv(console, mount)
    console.send("POST", f"{mount}/config", {"cas_required": True})
    store = make(mount=mount, prefix=None)
    store.create(ENTRY, full_policy())
    rotated(store, ENTRY)
    now = rotated(store, ENTRY)
    store.discard(ENTRY, pending(store, ENTRY))
    assert staged(store, ENTRY).id != now.id
    assert [listed.name for listed in store.listing()] == [ENTRY]


def test_a_namespace(make: Make, console: Console, prefix: str) -> None:
    """Everything goes to the namespace's own mount."""
    console.send("POST", f"sys/namespaces/{prefix}", {})
    mount_kv(console, "secret", **{"X-Vault-Namespace": prefix})
    store = make(namespace=prefix)
    store.create(ENTRY, full_policy())
    rotated(store, ENTRY)
    assert [listed.name for listed in store.listing()] == [ENTRY]
    assert list(make().listing()) == []


def mount_kv(console: Console, mount: str, version: str = "2", **headers: str) -> None:
    """A KV engine; a new one of version 2 refuses requests for a moment."""
    console.send("POST", f"sys/mounts/{mount}", {"type": "kv", "options": {"version": version}}, **headers)
    deadline = time.monotonic() + 10
    address = f"{console.server.address}/v1/{mount}/config"
    while version == "2" and not console.session.get(address, headers=headers, timeout=10).ok:
        assert time.monotonic() < deadline


# --- logging in --------------------------------------------------------------------------------------


@dataclass
class Role:
    """An AppRole with settings of its own."""

    console: Console
    settings: dict[str, Any]

    def login(self, policy: str) -> AppRoleLogin:
        name = f"role-{uuid.uuid4().hex[:8]}"
        self.console.send("PUT", f"sys/policies/acl/{name}", {"policy": policy})
        self.console.send("POST", f"auth/approle/role/{name}", {"token_policies": [name], **self.settings})
        role_id = self.console.send("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
        secret_id = self.console.send("POST", f"auth/approle/role/{name}/secret-id")["data"]["secret_id"]
        return AppRoleLogin(role_id, SecretValue(secret_id))


def test_a_token_that_ends_early_is_replaced(make: Make, store: VaultStore, console: Console, prefix: str) -> None:
    """Tokens of a few uses: every operation works all the same, writes included, each done once."""
    login = Role(console, {"token_num_uses": 4}).login(LEAST.replace("PREFIX", prefix))
    short = make(auth=login)
    with console.requests_of("auth/approle/login") as logins:
        for _ in range(3):
            before = int(current(short, ENTRY).id)
            assert int(rotated(short, ENTRY).id) == before + 1
    assert len(logins) > 3


def test_a_token_is_replaced_before_it_expires(make: Make, store: VaultStore, console: Console, prefix: str) -> None:
    """By the clock, at two thirds of its life, without a refused request: one that can not be renewed."""
    clock = MovableClock()
    login = Role(console, {"token_ttl": "1h", "token_type": "batch"}).login(LEAST.replace("PREFIX", prefix))
    client = make(auth=login, clock=clock)
    for ahead, wanted in ((0, ["update"]), (2390, []), (2410, ["update"]), (4790, []), (4820, ["update"])):
        clock.ahead = ahead
        with console.requests_of("auth/") as seen:
            client.observe(ENTRY)
        assert [operation for operation, _ in seen] == wanted, ahead


def test_threads_that_start_together_log_in_once(make: Make, store: VaultStore, console: Console, prefix: str) -> None:
    """One client serves many threads."""
    client = make(auth=Role(console, {}).login(LEAST.replace("PREFIX", prefix)))
    with console.requests_of("auth/approle/login") as logins:
        raised = at_once(*[lambda: client.record(ENTRY, journal.promoted(new_token(), AT))] * 8)
    assert raised == [None] * 8
    assert len(logins) == 1
    assert len(client.observe(ENTRY).journal.promoted) == 8


def test_a_login_that_is_refused(make: Make, store: VaultStore) -> None:
    """DENIED, naming the login and the entry, never the secret id."""
    client = make(auth=AppRoleLogin("no-such-role", SecretValue("kt-value-secret-id")))
    with trouble(Code.DENIED, client, ENTRY) as caught:
        client.promote(ENTRY, current(store, ENTRY), "1")
    assert "AppRole at auth/approle" in str(caught.value)


def test_a_token_that_has_ended(make: Make, store: VaultStore) -> None:
    """DENIED, and says that it is the token; a configured one can not be replaced."""
    client = make(auth=TokenLogin(SecretValue("kt-value-no-such-token")))
    with trouble(Code.DENIED, client, ENTRY) as caught:
        client.observe(ENTRY)
    assert "expired or was revoked" in str(caught.value)


LACKING = {
    "'read' on secret/data/PREFIX/prod/support-copilot-chat-pending": lambda store: store.observe(ENTRY),
    "'create' and 'update' on secret/data/PREFIX/prod/support-copilot-chat-pending": lambda store: store.stage(
        ENTRY, new_token(), value(), key_id=None
    ),
    "'patch' on secret/metadata/PREFIX/prod/support-copilot-chat": lambda store: store.record(ENTRY, {"a.b": "c=d"}),
    "'read' on secret/metadata/PREFIX/prod/support-copilot-chat": lambda store: store.create(ENTRY, full_policy()),
}


@pytest.mark.parametrize("lacking", LACKING)
def test_a_missing_permission_is_named(
    make: Make, store: VaultStore, server: OpenBaoServer, prefix: str, lacking: str
) -> None:
    """DENIED says which capability is missing on which path."""
    token = server.token('path "auth/token/lookup-self" { capabilities = ["read"] }')
    client = make(auth=TokenLogin(SecretValue(token)))
    with trouble(Code.DENIED, client, ENTRY) as caught:
        LACKING[lacking](client)
    assert f"the policy of a configured token lacks {lacking.replace('PREFIX', prefix)}" in str(caught.value)


def test_a_listing_that_is_not_allowed(make: Make, server: OpenBaoServer) -> None:
    """The same for the listing, which has no entry."""
    token = server.token('path "auth/token/lookup-self" { capabilities = ["read"] }')
    client = make(auth=TokenLogin(SecretValue(token)))
    with trouble(Code.DENIED, client, "listing") as caught:
        list(client.listing())
    assert "lacks 'list' on secret/metadata/" in str(caught.value)


# --- faults ------------------------------------------------------------------------------------------


class Line:
    """A TCP relay to the server that can be told to lose the next answer, once the server has given it."""

    def __init__(self, address: str) -> None:
        host, port = address.removeprefix("https://").split(":")
        self._server = (host, int(port))
        self._door = socket.create_server(("127.0.0.1", 0))
        self.address = f"https://127.0.0.1:{self._door.getsockname()[1]}"
        self.lose = threading.Event()
        self._sockets = [self._door]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._sockets:
            self._hang_up(end)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for end in self._sockets:
            end.close()

    def _start(self, what: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=what, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):  # hung up
            while True:
                client = self._door.accept()[0]
                upstream = socket.create_connection(self._server)
                self._sockets += [client, upstream]
                self._start(self._relay, client, upstream, False)
                self._start(self._relay, upstream, client, True)

    def _relay(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while (received := source.recv(65_536)) and not (answers and self.lose.is_set()):
                target.sendall(received)
            if received:
                self.lose.clear()
        self._hang_up(source)
        self._hang_up(target)

    @staticmethod
    def _hang_up(end: socket.socket) -> None:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def line(server: OpenBaoServer) -> Iterator[Line]:
    with Line(server.address) as made:
        yield made


def test_a_promotion_whose_answer_is_lost(make: Make, store: VaultStore, line: Line) -> None:
    """UNAVAILABLE, perhaps applied; it went out once; another look shows that it was."""
    client = make(address=line.address)
    base = current(client, ENTRY)
    credential = value()
    version = staged(client, ENTRY, credential)
    line.lose.set()
    with pytest.raises(Trouble) as caught:
        client.promote(ENTRY, version, base.id)
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.maybe_applied
    assert credential.fields["value"].reveal() not in texts(caught.value)
    now = current(client, ENTRY)
    assert now.token == version.token
    assert int(now.id) == int(base.id) + 1


def test_a_read_whose_answer_is_lost_is_repeated(make: Make, store: VaultStore, line: Line, console: Console) -> None:
    """Reads have no effect, so a broken connection is worth another try at once."""
    client = make(address=line.address)
    client.observe(ENTRY)
    line.lose.set()
    with console.requests_of("secret/data/") as seen:
        client.observe(ENTRY)
    assert not line.lose.is_set()
    assert len(seen) == 3


def test_deleting_half_an_entry_may_have_had_an_effect(make: Make, store: VaultStore, server: OpenBaoServer) -> None:
    """The main path is deleted, the pending one denied: the caller is told that something was done."""
    prefix = store._prefix.strip("/")
    policy = (
        LEAST.replace("PREFIX", prefix) + f'path "secret/delete/{prefix}/{ENTRY}-pending" {{ capabilities = ["deny"] }}'
    )
    client = make(auth=TokenLogin(SecretValue(server.token(policy))))
    with pytest.raises(Trouble) as caught:
        client.delete(ENTRY)
    assert caught.value.code is Code.DENIED
    assert caught.value.maybe_applied
    store.delete(ENTRY)
    assert store.restore(ENTRY)
    assert store.observe(ENTRY).pending is not None


WRITES: dict[str, Callable[[VaultStore, VaultStore], object]] = {
    "stage": lambda store, _: store.stage(ENTRY, new_token(), value(), key_id=None),
    "promote": lambda store, other: store.promote(ENTRY, pending(other, ENTRY), "1"),
    "discard": lambda store, other: store.discard(ENTRY, pending(other, ENTRY)),
    "record": lambda store, _: store.record(ENTRY, {"future.x": "a=b"}),
    "forget": lambda store, _: store.forget(ENTRY, ["future.x"]),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_to_a_server_that_is_not_there(make: Make, store: VaultStore, write: str) -> None:
    """UNAVAILABLE, and certain to have had no effect."""
    client = make(address=f"https://127.0.0.1:{free_port()}")
    with trouble(Code.UNAVAILABLE, client, ENTRY) as caught:
        WRITES[write](client, store)
    assert "can not be reached" in str(caught.value)


@pytest.mark.parametrize("write", WRITES)
def test_a_write_to_a_server_that_does_not_answer(make: Make, store: VaultStore, write: str) -> None:
    """UNAVAILABLE within the timeout, perhaps applied."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = make(address=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1)
        begun = time.monotonic()
        with pytest.raises(Trouble) as caught:
            WRITES[write](client, store)
    assert time.monotonic() < begun + 2
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.maybe_applied
    assert "did not answer within 0.1 s" in str(caught.value)


def test_a_certificate_that_is_not_trusted(make: Make, store: VaultStore) -> None:
    """UNAVAILABLE, nothing sent, and the setting named that is about trust."""
    client = make(ca_bundle=None)
    with trouble(Code.UNAVAILABLE, client, ENTRY) as caught:
        client.record(ENTRY, {"future.x": "a=b"})
    assert "ca_bundle" in str(caught.value)


Answer = Callable[[str, bytes], tuple[int, dict[str, str], bytes]]
"""Status, headers and body for a path and a body."""


@contextmanager
def gateway(answer: Answer) -> Iterator[str]:
    """The address of something that stands where the server should, and answers in its place."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, headers, body = answer(self.path, self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.send_response(status)
            for name, text in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 - the base's form of name

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base's own name
            """Nothing on the terminal."""

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join(10)


@pytest.mark.parametrize("status", [301, 307])
def test_a_redirected_write(make: Make, store: VaultStore, server: OpenBaoServer, status: int) -> None:
    """A standby's 307 is followed. A gateway's 301 would turn the write into a read: it is refused, not taken as done."""
    version, base = staged(store, ENTRY), current(store, ENTRY)
    with gateway(lambda path, _: (status, {"Location": server.address + path}, b"")) as address:
        client = make(address=address)
        if status == 307:
            client.promote(ENTRY, version, base.id)
        else:
            with trouble(Code.INVALID, client, ENTRY) as caught:
                client.promote(ENTRY, version, base.id)
            assert server.address in str(caught.value)
    assert (current(store, ENTRY).token == version.token) is (status == 307)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_that_repeats_the_request(make: Make, status: int) -> None:
    """INVALID; what was sent with a value is not quoted, whatever the answer says."""
    with gateway(lambda _, body: (status, {}, json.dumps({"errors": [body.decode()]}).encode())) as address:
        client = make(address=address)
        with trouble(Code.INVALID, client, ENTRY):
            client.stage(ENTRY, new_token(), value(), key_id=KEY_ID)


@pytest.mark.parametrize("status", [200, 404, 502])
def test_an_answer_that_is_not_from_a_vault(make: Make, status: int) -> None:
    """UNAVAILABLE for a page where JSON should be: above all, its 404 does not mean that there is no entry."""
    with gateway(lambda _, body: (status, {"Content-Type": "text/html"}, b"<html>" + body)) as address:
        client = make(address=address)
        with trouble(Code.UNAVAILABLE, client, ENTRY):
            client.observe(ENTRY)
        credential = value()
        with pytest.raises(Trouble) as caught:
            client.stage(ENTRY, new_token(), credential, key_id=KEY_ID)
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.maybe_applied is (status != 404)
    assert credential.fields["value"].reveal() not in texts(caught.value)


def test_settings_that_can_not_work(make: Make, store: VaultStore, console: Console, prefix: str) -> None:
    """INVALID: no file, no engine, an engine of version 1, no URL, a token that is none."""
    mount_kv(console, f"one-{prefix}", version="1")
    clients = {
        "no CA bundle at": make(ca_bundle="/nowhere/ca.pem"),
        "no KV version 2 engine at nowhere/": make(mount="nowhere"),
        "malformed": make(address="localhost"),
        " malformed": make(auth=TokenLogin(SecretValue("kt-value-of\nmore-lines"))),
    }
    for told, client in clients.items():
        with trouble(Code.INVALID, client, ENTRY) as caught:
            client.observe(ENTRY)
        assert told in str(caught.value)
    with pytest.raises(Trouble) as refused:
        make(mount=f"one-{prefix}").create(ENTRY, full_policy())
    assert refused.value.code is Code.INVALID


def test_metadata_that_the_server_refuses(store: VaultStore) -> None:
    """INVALID, in the server's own words: there is no value among them."""
    with trouble(Code.INVALID, store, ENTRY) as caught:
        store.record(ENTRY, {"future.x": "x" * 513})
    assert "513" in str(caught.value)
    assert store.observe(ENTRY).journal.facts == {}


def test_too_many_requests(make: Make, console: Console, prefix: str) -> None:
    """THROTTLED, with the wait that the server asked for; nothing was done."""
    mount = f"limited-{prefix}"
    mount_kv(console, mount)
    store = make(mount=mount)
    store.create(ENTRY, full_policy())
    console.send("POST", "sys/quotas/config", {"enable_rate_limit_response_headers": True})
    console.send("POST", f"sys/quotas/rate-limit/{prefix}", {"rate": 1, "interval": "60s", "path": f"{mount}/"})
    store.record(ENTRY, {"future.x": "a=b"})
    with trouble(Code.THROTTLED, store, ENTRY) as caught:
        store.record(ENTRY, {"future.y": "a=b"})
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 60
    console.send("DELETE", f"sys/quotas/rate-limit/{prefix}")
    assert store.observe(ENTRY).journal.facts == {"future.x": "a=b"}


def test_a_sealed_server() -> None:
    """UNAVAILABLE for reads and writes; of a write it is not said that it had no effect."""
    with OpenBaoServer() as server:
        store = VaultStore(
            "vault",
            address=server.address,
            mount="secret",
            ca_bundle=str(server.ca),
            auth=TokenLogin(SecretValue(server.root_token)),
            clock=SystemClock(),
        )
        store.create(ENTRY, full_policy())
        Console(server).send("POST", "sys/seal")
        with trouble(Code.UNAVAILABLE, store, ENTRY) as caught:
            store.observe(ENTRY)
        assert "is sealed" in str(caught.value)
        with pytest.raises(Trouble) as written:
            store.stage(ENTRY, new_token(), value(), key_id=None)
        assert written.value.code is Code.UNAVAILABLE
        assert written.value.maybe_applied
        assert "is sealed" in str(written.value)


def test_a_write_does_not_go_out_late(make: Make, store: VaultStore) -> None:
    """Whatever logging in took: the engine counts on no write later than a call may last."""
    clock = MovableClock()

    class SlowLogin:
        how = "a slow login"

        def log_in(self, client: Any) -> dict[str, Any]:
            clock.ahead += 41
            return {"client_token": store._server._auth.token.reveal(), "lease_duration": 0}  # type: ignore[attr-defined]

    client = make(auth=SlowLogin(), clock=clock)
    version, base = staged(store, ENTRY), current(store, ENTRY)
    with trouble(Code.UNAVAILABLE, client, ENTRY):
        client.promote(ENTRY, version, base.id)
    assert current(store, ENTRY).id == base.id
    client.promote(ENTRY, version, base.id)
    assert current(store, ENTRY).token == version.token
