"""The Key Vault store passes the contract against the stand-in, through the unmodified SDK; and what is its own."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.keyvault.secrets import SecretClient

from providers.issuers.memory import MemoryIssuer, MemoryVendor
from providers.stores.azure import AzureLogin, KeyVaultStore
from rotation import journal
from rotation.actions import Done
from rotation.clock import SystemClock
from rotation.engine import Engine, Outcome, Places, Target
from rotation.errors import Code, Trouble
from rotation.journal import Why
from rotation.model import Capabilities, Credential, Propagation
from rotation.names import dashed
from rotation.ports import SecretStore
from sandbox import tls
from sandbox.keyvault.entra import Principal, Rule
from sandbox.keyvault.harness import KeyVaultServer
from sandbox.keyvault.serving import tls_context
from sandbox.keyvault.vault import Delay, Entry, Settings, Version
from sandbox.processes import free_port
from tests.contracts.store import (
    AT,
    KEY_ID,
    ByHand,
    Names,
    StoreContract,
    at_once,
    current,
    full_policy,
    new_token,
    pending,
    rotated,
    same_state,
    staged,
    texts,
    trouble,
    value,
    without_value,
)
from tests.world import FakeClock, Trail

ENTRY = "prod--support-copilot-chat"
ROOT = Path(__file__).parents[2]
ACTIONS = "Microsoft.KeyVault/vaults/secrets/"


@pytest.fixture(scope="module")
def server() -> Iterator[KeyVaultServer]:
    with KeyVaultServer() as running:
        yield running


@pytest.fixture
def kv(server: KeyVaultServer, monkeypatch: pytest.MonkeyPatch) -> KeyVaultServer:
    """The stand-in, empty and without faults, and an environment that logs its owner in."""
    server.vault.reset()
    server.vault.settings = Settings()
    server.control.clear_faults()
    server.control.clear_log()
    log_in_as(monkeypatch, server, server.client_id, server.client_secret)
    return server


def log_in_as(monkeypatch: pytest.MonkeyPatch, kv: KeyVaultServer, client_id: str, client_secret: str) -> None:
    """Sets what DefaultAzureCredential goes by."""
    monkeypatch.setenv("AZURE_TENANT_ID", kv.tenant_id)
    monkeypatch.setenv("AZURE_CLIENT_ID", client_id)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", client_secret)


Make = Callable[..., KeyVaultStore]


@pytest.fixture
def make(kv: KeyVaultServer) -> Make:
    """A client, of the stand-in unless told otherwise."""
    return lambda **changed: client_of(kv, **changed)


def client_of(kv: KeyVaultServer, **changed: Any) -> KeyVaultStore:
    settings: dict[str, Any] = {
        "name": "keyvault",
        "vault_url": kv.vault_url,
        "login": AzureLogin(authority_host=kv.authority),
        "ca_bundle": kv.ca,
        "verify_challenge_resource": False,
        "clock": SystemClock(),
    }
    return KeyVaultStore(**(settings | changed))


@pytest.fixture
def store(make: Make) -> KeyVaultStore:
    """A store with one entry, ENTRY, that has a current version."""
    made = make()
    made.create(ENTRY, full_policy())
    rotated(made, ENTRY)
    return made


@pytest.fixture
def console(kv: KeyVaultServer) -> SecretClient:
    """The vault as its owner has it."""
    return kv.client()


def put_by_hand(console: SecretClient) -> ByHand:
    def put(entry: str, credential: Credential) -> None:
        console.set_secret(entry, credential.fields["value"].reveal())

    return put


def versions(kv: KeyVaultServer, name: str) -> tuple[Version, ...]:
    """All versions of one secret of the vault, oldest first."""
    return kv.vault.get(name)[0].versions


@contextmanager
def calls(kv: KeyVaultServer) -> Iterator[list[str]]:
    """What reaches the vault meanwhile: `METHOD path`, without the entry's name."""
    seen: list[str] = []
    before = len(kv.control.log)
    yield seen
    seen.extend(
        f"{record.method} {record.path.replace(ENTRY, '*')}"
        for record in kv.control.log[before:]
        if record.client_id and record.path.startswith(("/secrets", "/deletedsecrets"))
    )


class TestKeyVaultStore(StoreContract):
    """Each client logs in by itself, as a service principal that the environment names."""

    lists_journals = False

    @pytest.fixture
    def store(self, make: Make) -> SecretStore:
        return make()

    @pytest.fixture
    def second_client(self, make: Make) -> SecretStore:
        return make()

    @pytest.fixture
    def entry_name(self) -> Names:
        return lambda name: dashed("test", name)

    @pytest.fixture
    def by_hand(self, console: SecretClient) -> ByHand:
        return put_by_hand(console)


# --- layout and calls --------------------------------------------------------------------------------


def test_consumers_read_the_text(store: KeyVaultStore, kv: KeyVaultServer) -> None:
    """One field as it is, several as JSON, told apart by the content type; tags say whose it is."""
    one = rotated(store, ENTRY, Credential.of(value="kt-value-1"))
    assert versions(kv, ENTRY)[-1].value == "kt-value-1"
    assert versions(kv, ENTRY)[-1].content_type == "text/plain"
    two = rotated(store, ENTRY, Credential.of(user="u", password="kt-value-ü"))
    last = versions(kv, ENTRY)[-1]
    assert (last.value, last.content_type) == ('{"user": "u", "password": "kt-value-ü"}', "application/json")
    assert [dict(each.tags or {}).get("keyturn-token") for each in versions(kv, ENTRY)][1:] == [one.token, two.token]
    assert (last.tags or {}).keys() == {"keyturn-token", "keyturn-key"}
    assert (last.tags or {})["keyturn-key"].isascii()
    for part in ("-journal", "-policy"):
        store.record(ENTRY, {"future.x": "a=b"})
        assert {each.value for each in versions(kv, ENTRY + part)} == {"The tags of this version are Keyturn's."}


def test_portal_and_event_grid_are_told_when(kv: KeyVaultServer, make: Make) -> None:
    """Not before now; near its expiry, which is thirty days ahead of it, when it is due; the user's tags beside ours."""
    clock = FakeClock(datetime(2026, 5, 1, 12, tzinfo=UTC))
    store = make(clock=clock)
    store.create(ENTRY, full_policy() | {"tag.cost-centre": "4711", "tag.Team": "Süd"})
    rotated(store, ENTRY)
    last = versions(kv, ENTRY)[-1]
    assert last.not_before == int(clock.now().timestamp())
    assert last.expires == int((clock.now() + timedelta(days=30 + 30)).timestamp())
    own = {name: text for name, text in (last.tags or {}).items() if not name.startswith("keyturn-")}
    assert own == {"cost-centre": "4711", "Team": "Süd"}
    clock.move(timedelta(days=1))
    store.set_policy(ENTRY, full_policy() | {"rotate-every": "2d", "grace": "1h"})
    rotated(store, ENTRY)
    last = versions(kv, ENTRY)[-1]
    assert last.expires == int((clock.now() + timedelta(days=2 + 30)).timestamp())
    assert (last.tags or {}).keys() == {"keyturn-token", "keyturn-key"}


def test_an_entry_without_a_readable_policy_has_no_expiry(
    store: KeyVaultStore, kv: KeyVaultServer, console: SecretClient
) -> None:
    """What is not known is not made up."""
    store.set_policy(ENTRY, {"owner": "team-search"})
    rotated(store, ENTRY)
    assert versions(kv, ENTRY)[-1].expires is None


def test_every_operation_costs_the_calls_it_needs(store: KeyVaultStore, kv: KeyVaultServer, make: Make) -> None:
    """Observing five while the journal fits a page; every write sent once; reading what was observed none."""
    store.record(ENTRY, {"future.z": "a=b"})
    base, version = current(store, ENTRY), staged(store, ENTRY)
    look = ["GET /secrets/*-pending", "GET /secrets/*", "GET /secrets/*-policy", "GET /secrets/*-journal/versions"]
    deletes = [f"DELETE /secrets/*{part}" for part in ("", "-policy", "-pending", "-journal")]
    recovers = [
        call
        for parts in (("-pending", "-journal"), ("-policy",), ("",))
        for method in ("POST /deletedsecrets/*{}/recover", "GET /secrets/*{}/versions")
        for call in (method.format(part) for part in parts)
    ]
    made = [
        path
        for part in ("", "-policy", "-pending", "-journal")
        for path in (f"GET /secrets/*{part}/versions", f"GET /deletedsecrets/*{part}")
    ]
    made.remove("GET /deletedsecrets/*-policy")
    expected: list[tuple[str, Callable[[], object], list[str]]] = [
        ("observe", lambda: store.observe(ENTRY), [*look, "GET /secrets/*"]),
        ("read, observed", lambda: store.read(ENTRY, version), []),
        ("read, pending", lambda: store.read(ENTRY, without_value(version)), look[:1]),
        ("read, current", lambda: store.read(ENTRY, without_value(base)), look[:2]),
        (
            "find",
            lambda: store.find(ENTRY, base.token or ""),
            [
                "GET /secrets/*/versions",
                "GET /secrets/*-pending/versions",
                f"GET /secrets/*/{versions(kv, ENTRY)[-1].id}",
            ],
        ),
        ("record", lambda: store.record(ENTRY, {"future.x": "a=b", "future.y": "a=b"}), ["PUT /secrets/*-journal"]),
        ("forget", lambda: store.forget(ENTRY, ["future.x", "future.y"]), ["PUT /secrets/*-journal"]),
        ("record nothing", lambda: store.record(ENTRY, {}), []),
        (
            "promote",
            lambda: store.promote(ENTRY, version, base.id),
            [look[0], look[2], "GET /secrets/*", "PUT /secrets/*"],
        ),
        ("discard", lambda: store.discard(ENTRY, version), [look[0], "PUT /secrets/*-pending"]),
        ("stage", lambda: store.stage(ENTRY, new_token(), value(), key_id=KEY_ID), ["PUT /secrets/*-pending"]),
        ("discard, replaced", lambda: store.discard(ENTRY, version), look[:1]),
        (
            "set_policy",
            lambda: store.set_policy(ENTRY, full_policy()),
            ["GET /secrets/*-policy", "PUT /secrets/*-policy"],
        ),
        ("listing", lambda: list(store.listing()), ["GET /secrets"]),
        ("delete", lambda: store.delete(ENTRY), deletes),
        ("restore", lambda: store.restore(ENTRY), recovers),
        (
            "first record",
            lambda: make().record(ENTRY, {"f.x": "a=b"}),
            ["GET /secrets/*-policy", "PUT /secrets/*-journal"],
        ),
    ]
    for name, operation, wanted in expected:
        with calls(kv) as seen:
            operation()
        assert seen == wanted, name
        print(f"{name:18} {len(seen)}")
    with calls(kv) as seen:
        store.create("prod--another-entry", full_policy("another-entry"))
    assert [call.replace("prod--another-entry", "*") for call in seen] == [*made, "PUT /secrets/*-policy"]
    print(f"{'create':18} {len(seen)}")


BLOCKED = ("boto3", "botocore", "hvac", "pulumi", "openai", "moto", "flask", "pydantic", "jmespath")


def test_it_runs_with_its_own_sdk_only(kv: KeyVaultServer) -> None:
    """A rotation in a process where no other provider's SDK can be imported; the SDK is loaded at the first call."""
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
from providers.stores.azure import AzureLogin, KeyVaultStore
from rotation.clock import SystemClock
from rotation.model import Credential
store = KeyVaultStore(
    "keyvault", vault_url={kv.vault_url!r}, login=AzureLogin(authority_host={kv.authority!r}),
    ca_bundle={kv.ca!r}, verify_challenge_resource=False, clock=SystemClock(),
)
assert not any(name.partition(".")[0] in ("azure", "msal", "requests") for name in sys.modules)
store.create({ENTRY!r}, {{"owner": "team-search"}})
store.stage({ENTRY!r}, "t1", Credential.of(value="kt-value-1"), key_id="k1")
store.promote({ENTRY!r}, store.observe({ENTRY!r}).pending, None)
print(store.observe({ENTRY!r}).current.id, [one.name for one in store.listing()])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.stdout.strip(), done.stderr) == (f"t1 ['{ENTRY}']", "")


# --- the engine over it ------------------------------------------------------------------------------


@dataclass
class Fleet:
    """One secret in a vault of its own, an issuer in memory, and a new process for every run."""

    kv: KeyVaultServer
    clock: FakeClock
    vendor: MemoryVendor
    trail: Trail

    def engine(self) -> Engine:
        places = Places(lambda store, environment, name: ENTRY, lambda environment, name: None)
        able = Capabilities(tells_last_use=True, create=Propagation(in_a_row=2), revoke=Propagation(in_a_row=2))
        issuers = {"vendor": MemoryIssuer("vendor", self.vendor, able)}
        return Engine({"keyvault": client_of(self.kv, clock=self.clock)}, issuers, places, self.clock, self.trail)

    def sweep(self) -> Outcome:
        outcome = self.engine().run(Target("keyvault", ENTRY))
        assert self.vendor.accepts(self.handed_out()), "an outage"
        return outcome

    def handed_out(self) -> str:
        return versions(self.kv, ENTRY)[-1].value

    def live(self) -> list[str]:
        return [key.value for key in self.vendor.live()]


@pytest.fixture
def fleet(kv: KeyVaultServer) -> Iterator[Fleet]:
    clock = FakeClock(SystemClock().now())
    with KeyVaultServer(now=clock.now) as own:
        policy = full_policy() | {"store": "keyvault", "issuer": "vendor"}
        del policy["replicas"], policy["paired-with"]
        client_of(own, clock=clock).create(ENTRY, policy)
        yield Fleet(own, clock, MemoryVendor(clock.now), Trail())


def test_the_engine_rotates_through_it(fleet: Fleet) -> None:
    """First key, scheduled rotation, grace, revoked, proven, nothing left; as many journal versions as promised."""
    fleet.sweep()
    grown = []
    for _ in range(3):
        first, before = fleet.handed_out(), len(versions(fleet.kv, f"{ENTRY}-journal"))
        fleet.clock.move(timedelta(days=30))
        fleet.sweep()
        assert fleet.handed_out() != first
        assert fleet.live() == [first, fleet.handed_out()], "the old credential lives through its grace period"
        for _ in range(3):
            fleet.clock.move(timedelta(hours=25))
            fleet.sweep()
        assert isinstance(fleet.sweep().rest, Done)
        assert fleet.live() == [fleet.handed_out()]
        grown.append(len(versions(fleet.kv, f"{ENTRY}-journal")) - before)
    print(f"journal versions per rotation: {grown}")
    assert grown == [5, 5, 5]
    assert fleet.trail.events().count("proven") == 3
    left = client_of(fleet.kv).observe(ENTRY)
    assert {key.partition(".")[2] for key in left.journal.facts} == {left.current.token if left.current else None}


def test_the_engine_handles_an_emergency_through_it(fleet: Fleet) -> None:
    """The leaked key is replaced, and dies as soon as no write that was under way can bring it back."""
    fleet.sweep()
    leaked = fleet.handed_out()
    fleet.engine().emergency(Target("keyvault", ENTRY), contain_after=timedelta(hours=1))
    assert fleet.handed_out() != leaked
    for _ in range(3):
        fleet.clock.move(timedelta(minutes=16))
        fleet.sweep()
    assert fleet.live() == [fleet.handed_out()]
    assert "proven" in fleet.trail.events()
    assert client_of(fleet.kv).observe(ENTRY).journal.condemned == {}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("part", ["-journal", "-pending", ""])
def test_the_engine_survives_lost_answers(fleet: Fleet, part: str, when: Any) -> None:
    """Whichever write of a rotation is cut, and on whichever side of its effect: no key is left over."""
    fleet.sweep()
    fleet.clock.move(timedelta(days=30))
    fleet.kv.control.drop("PUT", f"/secrets/{ENTRY}{part}", when=when)
    fleet.sweep()
    for minutes in (16, 25 * 60, 25 * 60, 60, 25 * 60, 60):
        fleet.clock.move(timedelta(minutes=minutes))
        fleet.sweep()
    assert not fleet.kv.control.faults()
    assert len(fleet.live()) == 1
    assert fleet.live() == [fleet.handed_out()]


# --- without compare-and-set -------------------------------------------------------------------------


def test_the_later_of_two_writes_wins(store: KeyVaultStore, kv: KeyVaultServer, make: Make) -> None:
    """The window that is left, between the last look and the write: both promotions are done, in the vault's order."""
    assert not store.features.compare_and_set
    base, mine = current(store, ENTRY), staged(store, ENTRY)
    theirs = staged(make(), ENTRY)
    held = kv.control.hold("PUT", f"/secrets/{ENTRY}")
    raised: list[Trouble | None] = []
    slow = threading.Thread(target=lambda: raised.extend(at_once(lambda: store.promote(ENTRY, mine, base.id))))
    slow.start()
    kv.control.wait_held(held)
    make().promote(ENTRY, theirs, base.id)
    assert current(make(), ENTRY).token == theirs.token
    kv.control.release(held)
    slow.join(10)
    assert raised == [None]
    assert current(make(), ENTRY).token == mine.token
    found = make().find(ENTRY, theirs.token or "")
    assert found is not None, "what was overwritten is still there to be put back"


def test_what_moved_before_the_last_look_is_not_overwritten(
    store: KeyVaultStore, kv: KeyVaultServer, make: Make
) -> None:
    """A promoter that is held anywhere before its last look gets CONFLICT; nothing stands between look and write."""
    for path in (f"/secrets/{ENTRY}-pending", f"/secrets/{ENTRY}-policy"):
        base, mine = current(store, ENTRY), staged(store, ENTRY)
        theirs = staged(make(), ENTRY)
        held = kv.control.hold("GET", path)
        raised: list[Trouble | None] = []

        def promote(version: Any = mine, expected: str = base.id, told: Any = raised) -> None:
            told.extend(at_once(lambda: store.promote(ENTRY, version, expected)))

        slow = threading.Thread(target=promote)
        slow.start()
        kv.control.wait_held(held)
        make().promote(ENTRY, theirs, base.id)
        kv.control.release(held)
        slow.join(10)
        assert raised[0] is not None
        assert (raised[0].code, raised[0].maybe_applied) == (Code.CONFLICT, False)
        assert current(store, ENTRY).token == theirs.token
    with calls(kv) as seen:
        store.promote(ENTRY, staged(store, ENTRY), current(store, ENTRY).id)
    assert seen[-2:] == ["GET /secrets/*", "PUT /secrets/*"]


def test_two_copies_of_one_write_are_one(store: KeyVaultStore, kv: KeyVaultServer, console: SecretClient) -> None:
    """A write that reached the vault twice makes two versions; they are one here, under one id, to be built upon."""
    credential = value()
    version = rotated(store, ENTRY, credential)
    twin = versions(kv, ENTRY)[-1]
    console.set_secret(ENTRY, twin.value, tags=dict(twin.tags or {}))
    assert len({each.id for each in versions(kv, ENTRY)}) == 3
    assert current(store, ENTRY).id == version.id
    found = store.find(ENTRY, version.token or "")
    assert found is not None
    assert found.id == version.id
    assert store.read(ENTRY, without_value(version)).same_as(credential)
    waiting = staged(store, ENTRY)
    store.promote(ENTRY, waiting, version.id)
    assert current(store, ENTRY).id == waiting.id


def test_one_look_is_of_one_moment(store: KeyVaultStore, kv: KeyVaultServer, make: Make) -> None:
    """A promotion that is noted between two calls of a look is seen whole: never in the journal alone."""
    other = make()
    store.record(ENTRY, {"future.x": "a=b"})
    waiting, base = staged(other, ENTRY), current(other, ENTRY)
    held = kv.control.hold("GET", f"/secrets/{ENTRY}-journal/versions")
    seen: list[Any] = []
    look = threading.Thread(target=lambda: seen.append(store.observe(ENTRY)))
    look.start()
    kv.control.wait_held(held)
    other.promote(ENTRY, waiting, base.id)
    other.record(ENTRY, journal.promoted(waiting.token or "", AT))
    kv.control.release(held)
    look.join(10)
    assert seen[0].journal.promoted.keys() == {waiting.token}
    assert seen[0].current.token == waiting.token


def test_a_look_gives_up_on_what_never_stands_still(store: KeyVaultStore, kv: KeyVaultServer) -> None:
    """CONFLICT after three looks, each of which saw another version at its end than at its start."""
    store.record(ENTRY, {"future.x": "a=b"})
    rotated(store, ENTRY)
    for skip in (0, 1, 2):
        kv.control.stale(f"/secrets/{ENTRY}", skip=skip)
    with trouble(Code.CONFLICT, store, ENTRY):
        store.observe(ENTRY)


# --- the journal -------------------------------------------------------------------------------------


def test_a_long_journal_is_read_page_by_page(store: KeyVaultStore, kv: KeyVaultServer) -> None:
    """Sixty versions on three pages, or on pages of odd sizes and empty ones: every fact is there."""
    tokens = [new_token() for _ in range(60)]
    for token in tokens:
        store.record(ENTRY, journal.promoted(token, AT))
    with calls(kv) as seen:
        assert store.observe(ENTRY).journal.promoted.keys() == set(tokens)
    assert seen.count("GET /secrets/*-journal/versions") == 3
    kv.control.plan_pages(f"/secrets/{ENTRY}-journal/versions", (0, 25, 0, 1, 7, 0))
    assert store.observe(ENTRY).journal.promoted.keys() == set(tokens)
    store.forget(ENTRY, [f"promoted.{token}" for token in tokens[:59]])
    assert store.observe(ENTRY).journal.promoted.keys() == {tokens[59]}
    assert len(versions(kv, f"{ENTRY}-journal")) == 60 + 5, "fourteen tombstones a version"


@pytest.mark.parametrize("kind", ["drop", "503"])
def test_a_page_that_is_lost_is_asked_for_again(store: KeyVaultStore, kv: KeyVaultServer, kind: str) -> None:
    """In the middle of a list: no fact is missed, none is read as forgotten."""
    for number in range(60):
        store.record(ENTRY, {f"future.x{number}": "a=b"})
    path = f"/secrets/{ENTRY}-journal/versions"
    if kind == "drop":
        kv.control.drop("GET", path, when="after", skip=1, times=2)
    else:
        kv.control.fail("GET", path, 503, skip=1, times=2)
    assert len(store.observe(ENTRY).journal.facts) == 60
    kv.control.fail("GET", path, 503, skip=1, times=3)
    with trouble(Code.UNAVAILABLE, store, ENTRY):
        store.observe(ENTRY)


def test_the_later_fact_holds_whatever_the_clocks_say(store: KeyVaultStore, make: Make) -> None:
    """A writer an hour behind corrects, after having looked, what one an hour ahead wrote; and takes it away."""
    ahead = make(clock=FakeClock(SystemClock().now() + timedelta(hours=1)))
    behind = make(clock=FakeClock(SystemClock().now() - timedelta(hours=1)))
    token = new_token()
    ahead.record(ENTRY, journal.contain(token, AT))
    behind.observe(ENTRY)
    behind.record(ENTRY, journal.contain(token, AT - timedelta(minutes=5)))
    assert store.observe(ENTRY).journal.contain == {token: AT - timedelta(minutes=5)}
    ahead.observe(ENTRY)
    ahead.record(ENTRY, journal.contain(token, AT))
    behind.observe(ENTRY)
    behind.forget(ENTRY, [f"contain.{token}"])
    assert store.observe(ENTRY).journal.facts == {}
    behind.record(ENTRY, journal.contain(token, AT))
    assert store.observe(ENTRY).journal.contain == {token: AT}


def test_one_writer_is_in_order_with_itself(store: KeyVaultStore, make: Make) -> None:
    """Its clock may stand still or go back."""
    clock = FakeClock(SystemClock().now())
    writer = make(clock=clock)
    for number in range(10):
        writer.record(ENTRY, {"future.x": f"n={number}"})
        if number == 5:
            clock.move(timedelta(days=-1))
    assert store.observe(ENTRY).journal.facts == {"future.x": "n=9"}


def test_what_others_put_into_the_journal_is_left_alone(store: KeyVaultStore, console: SecretClient) -> None:
    """A version by hand has no time and holds nothing; tags of others' say nothing."""
    store.record(ENTRY, {"future.x": "a=b"})
    console.set_secret(f"{ENTRY}-journal", "x", tags={"fact.future.y": "a=b"})
    console.set_secret(f"{ENTRY}-journal", "x", tags={"keyturn-at": "yesterday", "cost-centre": "4711"})
    console.set_secret(f"{ENTRY}-journal", "x")
    assert store.observe(ENTRY).journal.facts == {"future.x": "a=b"}
    store.record(ENTRY, {"future.x": "a=c"})
    assert store.observe(ENTRY).journal.facts == {"future.x": "a=c"}


def test_many_facts_of_which_some_were_written(store: KeyVaultStore, kv: KeyVaultServer) -> None:
    """The second of two versions fails for certain: the caller is told that something was done all the same."""
    facts = {f"future.x{number}": "a=b" for number in range(20)}
    kv.control.fail("PUT", f"/secrets/{ENTRY}-journal", 429, skip=1)
    with pytest.raises(Trouble) as caught:
        store.record(ENTRY, facts)
    assert (caught.value.code, caught.value.maybe_applied) == (Code.THROTTLED, True)
    assert len(store.observe(ENTRY).journal.facts) == 14
    store.record(ENTRY, facts)
    assert store.observe(ENTRY).journal.facts == facts


# --- limits ------------------------------------------------------------------------------------------


def test_as_many_tags_as_there_may_be(store: KeyVaultStore, kv: KeyVaultServer) -> None:
    """Thirteen of the user's own beside two of ours; fourteen facts of 256 characters; a policy that fills its tags."""
    own = {f"tag.t{number:02}": f"{number:0200}" for number in range(13)}
    store.set_policy(ENTRY, full_policy() | own)
    assert store.observe(ENTRY).policy == full_policy() | own
    rotated(store, ENTRY)
    assert len(versions(kv, ENTRY)[-1].tags or {}) == 15
    used = len(policies_text(full_policy()))
    filled = full_policy() | {"tag.note": "x" * 256}
    filled["filler"] = "x" * (14 * 256 - len(policies_text(filled)) - len(',"filler":""'))
    assert used < 14 * 256
    store.set_policy(ENTRY, filled)
    assert len(versions(kv, f"{ENTRY}-policy")[-1].tags or {}) == 14
    assert store.observe(ENTRY).policy == filled
    assert next(iter(store.listing())).policy == filled
    facts = {f"future.{'k' * 243}{number}": "v=" + "v" * 254 for number in range(10)}
    assert len("fact." + next(iter(facts))) == 256
    store.record(ENTRY, facts)
    assert store.observe(ENTRY).journal.facts == facts


def policies_text(policy: dict[str, str]) -> str:
    return "{" + ",".join(f'"{key}":"{text}"' for key, text in policy.items()) + "}"


def test_more_than_the_vault_keeps_is_refused_early(store: KeyVaultStore, kv: KeyVaultServer) -> None:
    """INVALID before anything is sent: too many tags, too long ones, Keyturn's own names, a policy too large."""
    before = store.observe(ENTRY)
    many = {f"tag.t{number}": "x" for number in range(14)}
    refused: list[tuple[str, Callable[[], object]]] = [
        ("16 tags, at most 15", lambda: store.set_policy(ENTRY, full_policy() | many)),
        ("16 tags, at most 15", lambda: store.create("prod--other-entry", full_policy() | many)),
        ("at most 256 characters", lambda: store.set_policy(ENTRY, full_policy() | {"tag.x": "x" * 257})),
        ("at most 256 characters", lambda: store.set_policy(ENTRY, full_policy() | {f"tag.{'x' * 257}": "x"})),
        ("a tag has a name", lambda: store.set_policy(ENTRY, full_policy() | {"tag.": "x"})),
        ("Keyturn's own: keyturn-token", lambda: store.set_policy(ENTRY, {"tag.keyturn-token": "x"})),
        ("characters in the vault, at most 3584", lambda: store.set_policy(ENTRY, {"filler": "x" * 3585})),
        ("at most 256 characters", lambda: store.record(ENTRY, {"future.x": "x" * 257})),
        ("at most 256 characters", lambda: store.record(ENTRY, {"k" * 252: "x"})),
        ("at most 256 characters", lambda: store.stage(ENTRY, new_token(), value(), key_id="k" * 257)),
        ("has fields", lambda: store.stage(ENTRY, new_token(), Credential({}), key_id=None)),
    ]
    for told, act in refused:
        with calls(kv) as seen, pytest.raises(Trouble) as caught:
            act()
        assert (caught.value.code, caught.value.maybe_applied) == (Code.INVALID, False)
        assert told in str(caught.value)
        assert seen == []
    assert same_state(store.observe(ENTRY), before)


@pytest.mark.parametrize("name", ["", "prod/support-chat", "prod--sup port", "prod--ü", "x" * 120])
def test_names_that_the_vault_can_not_have(store: KeyVaultStore, kv: KeyVaultServer, name: str) -> None:
    """INVALID before anything is sent; the SDK would ask for another path."""
    with calls(kv) as seen:
        for act in (
            lambda: store.observe(name),
            lambda: store.create(name, full_policy()),
            lambda: store.record(name, {"a.b": "c=d"}),
            lambda: store.delete(name),
        ):
            with trouble(Code.INVALID, store, name):
                act()
    assert seen == []


def test_the_longest_name(make: Make) -> None:
    """What is left of 127 characters beside Keyturn's own endings."""
    store, entry = make(), f"prod--{'x' * 113}"
    store.create(entry, full_policy())
    store.record(entry, {"future.x": "a=b"})
    rotated(store, entry)
    assert [listed.name for listed in store.listing()] == [entry]


@pytest.mark.parametrize("ending", ["-pending", "-journal", "-policy"])
def test_nobody_elses_secret_is_written_to(store: KeyVaultStore, console: SecretClient, ending: str) -> None:
    """Neither a managed entry that is named like a sibling, nor an entry whose sibling's name is taken."""
    with trouble(Code.INVALID, store, ENTRY + ending):
        store.create(ENTRY + ending, full_policy())
    with trouble(Code.INVALID, store, ENTRY + ending):
        store.set_policy(ENTRY + ending, full_policy())
    other = "prod--billing-gateway"
    console.set_secret(other + ending, "theirs")
    with trouble(Code.CONFLICT, store, other) as caught:
        store.create(other, full_policy())
    assert f"{other}{ending} exists already" in str(caught.value)
    console.set_secret(other, "kt-value-theirs")
    with trouble(Code.INVALID, store, other) as caught:
        store.set_policy(other, full_policy())
    assert f"{other}{ending} is there already" in str(caught.value)
    assert console.get_secret(other + ending).value == "theirs"


def test_an_entry_made_by_hand_comes_under_management(store: KeyVaultStore, console: SecretClient) -> None:
    """A policy is written beside it; the value stays what it is until it is rotated."""
    console.set_secret("prod--billing-gateway", "kt-value-theirs", tags={"theirs": "yes"})
    store.set_policy("prod--billing-gateway", full_policy("billing-gateway"))
    assert store.observe("prod--billing-gateway").policy == full_policy("billing-gateway")
    theirs = current(store, "prod--billing-gateway")
    assert theirs.token is None
    assert len(list(console.list_properties_of_secret_versions("prod--billing-gateway"))) == 1
    store.promote("prod--billing-gateway", staged(store, "prod--billing-gateway"), theirs.id)
    store.set_policy("prod--billing-gateway", {})
    assert [listed.name for listed in store.listing()] == [ENTRY], "without a policy it is not managed"
    store.set_policy("prod--billing-gateway", full_policy("billing-gateway"))
    assert len(list(store.listing())) == 2


def test_ten_thousand_entries_are_listed_page_by_page(kv: KeyVaultServer, make: Make) -> None:
    """Metadata only, a page in memory at a time, however many there are."""
    clock = SystemClock().now()
    policy = {"keyturn-policy-1": '{"owner":"team-search"}'}
    for number in range(10_000):
        made = Version(uuid.uuid4().hex, "x", int(clock.timestamp()), int(clock.timestamp()), tags=policy)
        kv.vault.seed(Entry(f"prod--service-{number:05}-policy", (made,)))
    listing = make().listing()
    names = {next(listing).name for _ in range(8_000)}
    assert kv.control.count("GET", "/secrets") == 320, "no page before it is needed"
    tracemalloc.start()
    try:
        rest = sum(1 for _ in listing)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(names) + rest == 10_000
    assert kv.control.count("GET") == 400, "and nothing but the list"
    assert peak < 1_000_000, "as much as a page and its way through the SDK take, not 2,000 entries"


def test_a_damaged_policy_keeps_nobody_from_the_others(store: KeyVaultStore, console: SecretClient) -> None:
    """It is listed without its policy; a look at the entry says what to do."""
    store.create("prod--other-entry", full_policy("other-entry"))
    console.set_secret("prod--other-entry-policy", "x", tags={"keyturn-policy-1": '{"owner":'})
    assert {listed.name: dict(listed.policy) for listed in store.listing()} == {
        ENTRY: full_policy(),
        "prod--other-entry": {},
    }
    with trouble(Code.INVALID, store, "prod--other-entry") as caught:
        store.observe("prod--other-entry")
    assert "apply the stack again" in str(caught.value)
    store.set_policy("prod--other-entry", full_policy("other-entry"))
    assert store.observe("prod--other-entry").policy == full_policy("other-entry")


# --- disabled, deleted, recovered --------------------------------------------------------------------


@pytest.mark.parametrize("part", ["", "-pending", "-policy"])
def test_a_disabled_version_is_reported(store: KeyVaultStore, console: SecretClient, part: str) -> None:
    """INVALID with the name and what to do; nothing falls back to an older version, and enabling it is all it takes."""
    rotated(store, ENTRY)
    before = store.observe(ENTRY)
    console.update_secret_properties(ENTRY + part, enabled=False)
    with trouble(Code.INVALID, store, ENTRY) as caught:
        store.observe(ENTRY)
    assert f"{ENTRY}{part} is disabled" in str(caught.value)
    console.update_secret_properties(ENTRY + part, enabled=True)
    assert same_state(store.observe(ENTRY), before)


def test_a_disabled_current_version_is_not_promoted_over(store: KeyVaultStore, console: SecretClient) -> None:
    """Somebody disabled it on purpose; the attempt stays pending."""
    base, waiting = current(store, ENTRY), staged(store, ENTRY)
    console.update_secret_properties(ENTRY, enabled=False)
    with trouble(Code.INVALID, store, ENTRY):
        store.promote(ENTRY, waiting, base.id)
    console.update_secret_properties(ENTRY, enabled=True)
    store.promote(ENTRY, waiting, base.id)


def test_older_versions_that_were_disabled(store: KeyVaultStore, console: SecretClient, kv: KeyVaultServer) -> None:
    """As many do with what is superseded: not to be found or read any more; a copy that is enabled still is."""
    credential = value()
    old = rotated(store, ENTRY, credential)
    rotated(store, ENTRY)
    console.update_secret_properties(ENTRY, versions(kv, ENTRY)[-2].id, enabled=False)
    found = store.find(ENTRY, old.token or "")
    assert found is not None, "the staged copy"
    assert store.read(ENTRY, without_value(old)).same_as(credential)
    console.update_secret_properties(f"{ENTRY}-pending", versions(kv, f"{ENTRY}-pending")[-2].id, enabled=False)
    assert store.find(ENTRY, old.token or "") is None
    with trouble(Code.NOT_FOUND, store, ENTRY):
        store.read(ENTRY, without_value(old))


def test_what_is_deleted_by_hand_is_told_before_a_key_is_minted(store: KeyVaultStore, console: SecretClient) -> None:
    """A look says so: NOT_FOUND where current is gone, INVALID with the name where a sibling is; restore() heals it."""
    store.record(ENTRY, {"future.x": "a=b"})
    before = store.observe(ENTRY)
    for part, code in (("", Code.NOT_FOUND), ("-pending", Code.INVALID), ("-journal", Code.INVALID)):
        console.begin_delete_secret(ENTRY + part)
        with trouble(code, store, ENTRY) as caught:
            store.observe(ENTRY)
        assert f"{ENTRY}{part} is deleted" in str(caught.value)
        assert store.restore(ENTRY)
        assert same_state(store.observe(ENTRY), before)


def test_writes_to_a_deleted_entry(store: KeyVaultStore, make: Make, kv: KeyVaultServer) -> None:
    """NOT_FOUND for a runner that has looked before, and for one that has not; nothing is made anew under the name."""
    base, waiting = current(store, ENTRY), staged(store, ENTRY)
    store.record(ENTRY, {"future.x": "a=b"})
    make().delete(ENTRY)
    acts: list[Callable[[KeyVaultStore], object]] = [
        lambda client: client.record(ENTRY, {"future.y": "a=b"}),
        lambda client: client.forget(ENTRY, ["future.x"]),
        lambda client: client.stage(ENTRY, new_token(), value(), key_id=None),
        lambda client: client.set_policy(ENTRY, full_policy()),
        lambda client: client.promote(ENTRY, waiting, base.id),
    ]
    for client in (store, make()):
        for act in acts:
            with trouble(Code.NOT_FOUND, client, ENTRY):
                act(client)
    assert kv.vault.list_secrets("", 25).items == []
    with trouble(Code.NOT_FOUND, store, ENTRY) as caught:
        store.observe(ENTRY)
    assert "is deleted" in str(caught.value)


@pytest.mark.parametrize("part", ["", "-pending", "-journal", "-policy"])
def test_a_name_that_was_somebody_elses_is_not_made_an_entry(
    store: KeyVaultStore, console: SecretClient, part: str
) -> None:
    """A deleted secret keeps its name, of an entry or of a sibling: CONFLICT at once, not at the first rotation."""
    other = "prod--billing-gateway"
    console.set_secret(other + part, "theirs")
    console.begin_delete_secret(other + part)
    with trouble(Code.CONFLICT, store, other) as caught:
        store.create(other, full_policy("billing-gateway"))
    assert f"{other}{part} exists already, and is deleted" in str(caught.value)
    console.begin_recover_deleted_secret(other + part)
    assert console.get_secret(other + part).value == "theirs"


@pytest.mark.parametrize("slow", [Delay(seconds=20), Delay(refusals=3)], ids=["seconds", "refusals"])
def test_deleting_and_recovering_take_their_time(slow: Delay, monkeypatch: pytest.MonkeyPatch) -> None:
    """delete() does not wait; restore() does, for the deletion to end as well as for the recovery."""
    clock = FakeClock(SystemClock().now())
    settings = Settings(delete=slow, recover=slow, purge_protection=True)
    with KeyVaultServer(now=clock.now, settings=settings) as own:
        log_in_as(monkeypatch, own, own.client_id, own.client_secret)
        store = client_of(own, clock=clock)
        store.create(ENTRY, full_policy())
        rotated(store, ENTRY)
        store.record(ENTRY, {"future.x": "a=b"})
        before, at = store.observe(ENTRY), clock.now()
        store.delete(ENTRY)
        assert clock.now() == at
        with trouble(Code.NOT_FOUND, store, ENTRY):
            store.observe(ENTRY)
        store.delete(ENTRY)
        with trouble(Code.CONFLICT, store, ENTRY):
            store.create(ENTRY, full_policy())
        clock.move(timedelta(seconds=21))
        assert store.restore(ENTRY)
        assert clock.now() > at
        assert same_state(store.observe(ENTRY), before)
        assert not store.restore(ENTRY)


def test_a_recovery_that_does_not_end(kv: KeyVaultServer, make: Make) -> None:
    """UNAVAILABLE after a minute, perhaps applied; another try goes on from there."""
    clock = FakeClock(SystemClock().now())
    store = make(clock=clock)
    store.create(ENTRY, full_policy())
    before = store.observe(ENTRY)
    store.delete(ENTRY)
    kv.vault.settings = Settings(recover=Delay(refusals=100))
    with pytest.raises(Trouble) as caught:
        store.restore(ENTRY)
    assert (caught.value.code, caught.value.maybe_applied) == (Code.UNAVAILABLE, True)
    kv.control.clear_log()
    assert store.restore(ENTRY)
    assert same_state(store.observe(ENTRY), before)


def test_deleting_half_an_entry_may_have_had_an_effect(store: KeyVaultStore, kv: KeyVaultServer) -> None:
    """The caller is told; deleting again goes on."""
    kv.control.fail("DELETE", f"/secrets/{ENTRY}-pending", 429)
    with pytest.raises(Trouble) as caught:
        store.delete(ENTRY)
    assert (caught.value.code, caught.value.maybe_applied) == (Code.THROTTLED, True)
    store.delete(ENTRY)
    assert kv.vault.list_secrets("", 25).items == []


# --- faults ------------------------------------------------------------------------------------------

WRITES: dict[str, Callable[[KeyVaultStore, KeyVaultStore], object]] = {
    "stage": lambda store, _: store.stage(ENTRY, new_token(), value("stage"), key_id=None),
    "promote": lambda store, other: store.promote(ENTRY, pending(other, ENTRY), current(other, ENTRY).id),
    "discard": lambda store, other: store.discard(ENTRY, pending(other, ENTRY)),
    "record": lambda store, _: store.record(ENTRY, {"future.x": "a=b"}),
    "forget": lambda store, _: store.forget(ENTRY, ["future.x"]),
    "set_policy": lambda store, _: store.set_policy(ENTRY, full_policy()),
    "delete": lambda store, _: store.delete(ENTRY),
}


def method_of(write: str) -> str:
    return "DELETE" if write == "delete" else "PUT"


@pytest.fixture
def ready(store: KeyVaultStore) -> KeyVaultStore:
    """Something is pending, the journal has a fact, and the client knows the entry."""
    staged(store, ENTRY, value("ready"))
    store.record(ENTRY, {"future.x": "a=b"})
    store.observe(ENTRY)
    return store


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("write", WRITES)
def test_a_write_whose_answer_is_lost(
    ready: KeyVaultStore, kv: KeyVaultServer, make: Make, write: str, when: Any
) -> None:
    """UNAVAILABLE, perhaps applied, on whichever side of its effect; sent once; no value in the exception."""
    other = make()
    current(other, ENTRY)
    kv.control.drop(method_of(write), "/secrets/*", when=when, times=5)
    kv.control.clear_log()
    with pytest.raises(Trouble) as caught:
        WRITES[write](ready, other)
    assert (caught.value.code, caught.value.maybe_applied) == (Code.UNAVAILABLE, True)
    assert kv.control.count(method_of(write), "/secrets/*") == 1
    assert "kt-value" not in texts(caught.value)


@pytest.mark.parametrize(("status", "retry_after"), [(500, None), (503, 3.0), (408, None)])
@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_meets_a_fault_of_the_service(
    ready: KeyVaultStore, kv: KeyVaultServer, make: Make, write: str, status: int, retry_after: float | None
) -> None:
    """UNAVAILABLE, perhaps applied; sent once, even when the service says when to send it again."""
    kv.control.fail(method_of(write), "/secrets/*", status, times=5, retry_after=retry_after)
    kv.control.clear_log()
    with pytest.raises(Trouble) as caught:
        WRITES[write](ready, make())
    assert (caught.value.code, caught.value.maybe_applied) == (Code.UNAVAILABLE, True)
    assert caught.value.retry_after == retry_after
    assert f"HTTP {status}" in str(caught.value)
    assert "(request " in str(caught.value)
    assert kv.control.count(method_of(write), "/secrets/*") == 1


@pytest.mark.parametrize("write", WRITES)
def test_too_many_requests(ready: KeyVaultStore, kv: KeyVaultServer, make: Make, write: str) -> None:
    """THROTTLED with the wait that was asked for; sent once; certain to have had no effect."""
    kv.control.fail(method_of(write), "/secrets/*", 429, times=5, retry_after=7)
    kv.control.clear_log()
    with trouble(Code.THROTTLED, ready, ENTRY) as caught:
        WRITES[write](ready, make())
    assert caught.value.retry_after == 7
    assert kv.control.count(method_of(write), "/secrets/*") == 1


def test_a_read_is_tried_again_at_once(store: KeyVaultStore, kv: KeyVaultServer) -> None:
    """Two lost answers or faults are passed over, a third is reported; a request to wait is for the caller."""
    breaks: list[Callable[[int], int]] = [
        lambda times: kv.control.drop("GET", f"/secrets/{ENTRY}", when="after", times=times),
        lambda times: kv.control.fail("GET", f"/secrets/{ENTRY}", 503, times=times, retry_after=9),
    ]
    for break_it in breaks:
        break_it(2)
        current(store, ENTRY)
        break_it(3)
        with trouble(Code.UNAVAILABLE, store, ENTRY):
            store.observe(ENTRY)
    kv.control.clear_log()
    kv.control.fail("GET", f"/secrets/{ENTRY}", 429, times=3, retry_after=9)
    with trouble(Code.THROTTLED, store, ENTRY):
        store.observe(ENTRY)
    assert kv.control.count("GET", f"/secrets/{ENTRY}") == 1


@pytest.mark.parametrize("write", WRITES)
def test_a_write_to_a_vault_that_is_not_there(ready: KeyVaultStore, make: Make, kv: KeyVaultServer, write: str) -> None:
    """UNAVAILABLE, and certain to have had no effect."""
    client = make(vault_url=f"https://127.0.0.1:{free_port()}")
    with trouble(Code.UNAVAILABLE, client, ENTRY) as caught:
        WRITES[write](client, ready)
    assert "can not be reached" in str(caught.value)


@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_is_not_answered_in_time(ready: KeyVaultStore, kv: KeyVaultServer, make: Make, write: str) -> None:
    """UNAVAILABLE within the timeout, perhaps applied; and a read likewise, without the doubt."""
    hasty, other = make(timeout=0.2), make()
    hasty.observe(ENTRY)
    seen = other.observe(ENTRY)
    assert seen.pending is not None
    held = [kv.control.hold(method_of(write), "/secrets/*", when="after")]
    with pytest.raises(Trouble) as caught:
        WRITES[write](hasty, other)
    assert (caught.value.code, caught.value.maybe_applied) == (Code.UNAVAILABLE, True)
    assert "did not answer within 0.2 s" in str(caught.value)
    held.append(kv.control.hold("GET", f"/secrets/{ENTRY}-pending", times=3))
    with trouble(Code.UNAVAILABLE, hasty, ENTRY):
        hasty.observe(ENTRY)
    for number in held:
        kv.control.release(number)


@pytest.mark.parametrize(
    ("answer", "code", "unsure", "told"),
    [
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<p/>",
            Code.UNAVAILABLE,
            True,
            "a Key Vault?",
        ),
        (
            b"HTTP/1.1 307 Moved\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            Code.INVALID,
            False,
            "redirects",
        ),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", Code.UNAVAILABLE, True, "HTTP 502"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Code.INVALID, False, "there is no Key Vault at"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
            Code.UNAVAILABLE,
            True,
            "Key Vault",
        ),
        (None, Code.UNAVAILABLE, True, "broke the connection"),
    ],
    ids=["a page", "redirected", "a gateway", "elsewhere", "cut short", "broken TLS"],
)
def test_answers_that_are_no_vaults(
    kv: KeyVaultServer, make: Make, tmp_path: Path, answer: bytes | None, code: Code, unsure: bool, told: str
) -> None:
    """What can not be understood after a write has gone out leaves open whether it took effect; it is not sent again."""
    tls.issue(tmp_path, tmp_path / "server.pem")
    context = tls_context(tmp_path / "server.pem")
    requests: list[bytes] = []
    door = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = door.accept()
        raw = connection.dup()
        with context.wrap_socket(connection, server_side=True) as encrypted, raw:
            requests.append(encrypted.recv(65_536))
            if answer is None:
                raw.sendall(b"this is no TLS record")
            else:
                encrypted.sendall(answer)

    gateway = threading.Thread(target=serve)
    gateway.start()
    client = make(vault_url=f"https://127.0.0.1:{door.getsockname()[1]}", ca_bundle=str(tmp_path / "ca.pem"))
    client._there.add(ENTRY)
    with pytest.raises(Trouble) as caught:
        client.record(ENTRY, {"future.x": "a=b"})
    gateway.join(10)
    door.close()
    assert (caught.value.code, caught.value.maybe_applied) == (code, unsure)
    assert told in str(caught.value)
    assert [request[:4] for request in requests] == [b"PUT "]


def test_a_write_does_not_go_out_late(ready: KeyVaultStore, kv: KeyVaultServer, make: Make) -> None:
    """Whatever logging in took: the engine counts on no write later than a call may last."""
    clock = FakeClock(SystemClock().now())

    class SlowLogin(AzureLogin):
        def open(self, ca_bundle: str | None) -> Any:
            inner = super().open(ca_bundle)

            class Credential:
                def get_token_info(self, *scopes: str, options: Any = None) -> Any:
                    clock.sleep(41)
                    return inner.get_token_info(*scopes, options=options)

            return Credential()

    client = make(login=SlowLogin(authority_host=kv.authority), clock=clock)
    client._there.add(ENTRY)
    kv.control.clear_log()
    with trouble(Code.UNAVAILABLE, client, ENTRY) as caught:
        client.record(ENTRY, {"future.y": "a=b"})
    assert "was not sent" in str(caught.value)
    assert kv.control.count("PUT") == 0
    client.record(ENTRY, {"future.y": "a=b"})
    assert ready.observe(ENTRY).journal.facts.keys() == {"future.x", "future.y"}


def test_no_value_reaches_a_log(
    kv: KeyVaultServer, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the SDK's, not at its most talkative; nor a token, nor the client secret."""
    for sdk in ("azure", "msal", "urllib3", "requests"):
        caplog.set_level(logging.DEBUG, logger=sdk)  # a command that ran before has turned them down
    with caplog.at_level(logging.DEBUG):
        store = make()
        store.create(ENTRY, full_policy())
        rotated(store, ENTRY, Credential.of(value="kt-value-for-no-log"))
        store.read(ENTRY, without_value(current(store, ENTRY)))
        log_in_as(monkeypatch, kv, kv.client_id, "kt-value-wrong-secret")
        with trouble(Code.DENIED, store, ENTRY):
            make().observe(ENTRY)
    assert len(caplog.records) > 20
    for secret in ("kt-value-for-no-log", "kt-value-wrong-secret", kv.client_secret, "Bearer ey"):
        assert secret not in caplog.text


# --- logging in --------------------------------------------------------------------------------------


def test_threads_that_start_together(store: KeyVaultStore, make: Make) -> None:
    """One client serves many threads from its very first request."""
    client = make()
    raised = at_once(*[lambda: client.record(ENTRY, journal.promoted(new_token(), AT))] * 8)
    assert raised == [None] * 8
    assert len(client.observe(ENTRY).journal.promoted) == 8


def test_threads_whose_tokens_are_revoked(store: KeyVaultStore, kv: KeyVaultServer) -> None:
    """Each renews its own; none is left without because another has just thrown a shared one away."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(12):
            kv.directory.revoke_tokens()
            assert at_once(*[lambda: store.record(ENTRY, {"future.x": "a=b"})] * 8) == [None] * 8
    finally:
        sys.setswitchinterval(interval)
    assert len(versions(kv, f"{ENTRY}-journal")) == 12 * 8


def test_tokens_that_are_revoked(store: KeyVaultStore, kv: KeyVaultServer) -> None:
    """The vault asks for a new one, the SDK gets it, and the write is done once."""
    base, waiting = current(store, ENTRY), staged(store, ENTRY)
    kv.directory.revoke_tokens()
    before = len(versions(kv, ENTRY))
    store.promote(ENTRY, waiting, base.id)
    kv.directory.revoke_tokens()
    store.record(ENTRY, {"future.x": "a=b"})
    assert len(versions(kv, ENTRY)) == before + 1
    assert len(versions(kv, f"{ENTRY}-journal")) == 1


def test_the_vaults_tenant_may_be_another_than_the_environments(
    store: KeyVaultStore, kv: KeyVaultServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login gives tokens for its own tenant only, unless the configuration names the vault's."""
    monkeypatch.setenv("AZURE_TENANT_ID", str(uuid.uuid4()))
    stranger = make()
    with trouble(Code.DENIED, stranger, ENTRY) as caught:
        stranger.observe(ENTRY)
    assert "for this vault's tenant; tried EnvironmentCredential" in str(caught.value)
    known = make(login=AzureLogin(tenant_id=kv.tenant_id, authority_host=kv.authority))
    assert known.observe(ENTRY).current is not None


def test_the_identitys_client_id_reaches_the_sdk(kv: KeyVaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the managed and the workload identity; without one the SDK goes by the environment."""
    given: dict[str, Any] = {}
    monkeypatch.setattr("azure.identity.DefaultAzureCredential", lambda **settings: given.update(settings))
    AzureLogin("tenant-1", "client-1").open("/ca.pem")
    assert {given["managed_identity_client_id"], given["workload_identity_client_id"]} == {"client-1"}
    assert given["workload_identity_tenant_id"] == "tenant-1"
    assert given["additionally_allowed_tenants"] == ["tenant-1"]
    assert not {"authority", "disable_instance_discovery", "connection_verify"} & given.keys()
    given.clear()
    AzureLogin(authority_host="https://login.acme").open("/ca.pem")
    assert (given["authority"], given["connection_verify"]) == ("https://login.acme", "/ca.pem")
    assert not [name for name in given if name.endswith(("client_id", "tenant_id"))]
    assert AzureLogin("t", "client-1").how == "DefaultAzureCredential of client client-1"


@pytest.mark.parametrize("case", ["wrong secret", "unknown client", "nothing set", "no token service", "not trusted"])
def test_a_login_that_fails(
    store: KeyVaultStore, kv: KeyVaultServer, make: Make, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """DENIED or UNAVAILABLE with the reason; nothing was asked of the vault, and no secret is in the exception."""
    login, ca = AzureLogin(authority_host=kv.authority), kv.ca
    code, told = Code.DENIED, "was refused (AADSTS7000215)"
    secret = "kt-value-secret-of-a-client"
    if case == "wrong secret":
        log_in_as(monkeypatch, kv, kv.client_id, secret)
    if case == "unknown client":
        log_in_as(monkeypatch, kv, str(uuid.uuid4()), secret)
        told = "was refused (AADSTS700016)"
    if case == "nothing set":
        for name in [name for name in os.environ if name.startswith("AZURE_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
        told = "no way to log in gave a token for this vault's tenant; tried EnvironmentCredential"
    if case == "no token service":
        login, code, told = AzureLogin(authority_host=f"https://127.0.0.1:{free_port()}"), Code.UNAVAILABLE, "no answer"
    client = make(login=login, ca_bundle=ca)
    if case == "not trusted":
        client = make(login=Untrusting(authority_host=kv.authority))
        code, told = Code.UNAVAILABLE, "the certificate of the token service is not trusted"
    kv.control.clear_log()
    with trouble(code, client, ENTRY) as caught:
        client.observe(ENTRY)
    assert told in str(caught.value)
    assert secret not in texts(caught.value)
    assert kv.control.count(path="/secrets/*") == 0


class Untrusting(AzureLogin):
    """A login that goes by the machine's authorities."""

    def open(self, ca_bundle: str | None) -> Any:
        return super().open(None)


def test_a_missing_permission_is_named(
    store: KeyVaultStore, kv: KeyVaultServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DENIED says which action is missing on what, in the words of roles and in those of access policies."""
    waiting, base = staged(store, ENTRY), current(store, ENTRY)
    lacking: list[tuple[set[str], str, Callable[[KeyVaultStore], object]]] = [
        (set(), f"getSecret/action on {ENTRY}-pending (in an access policy: get)", lambda store: store.observe(ENTRY)),
        ({"get"}, f"readMetadata/action on {ENTRY}-journal (in an", lambda store: store.observe(ENTRY)),
        ({"get"}, f"setSecret/action on {ENTRY}-journal (in an", lambda store: store.record(ENTRY, {"a.b": "c=d"})),
        ({"get"}, f"setSecret/action on {ENTRY} (in an", lambda store: store.promote(ENTRY, waiting, base.id)),
        (
            {"get", "set"},
            "readMetadata/action on the vault (in an access policy: list",
            lambda store: list(store.listing()),
        ),
        ({"get"}, f"delete on {ENTRY} (in an", lambda store: store.delete(ENTRY)),
        ({"get"}, f"recover/action on {ENTRY}-pending (in an", lambda store: store.restore(ENTRY)),
    ]
    for allowed, told, act in lacking:
        kv.add_principal(Principal("limited", "s", allow=(Rule(frozenset(allowed)),)))
        log_in_as(monkeypatch, kv, "limited", "s")
        client = make()
        with trouble(Code.DENIED, client, "listing" if "the vault" in told else ENTRY) as caught:
            act(client)
        assert f"DefaultAzureCredential lacks {ACTIONS}{told}" in str(caught.value)


def test_the_least_role_is_enough_to_rotate(
    store: KeyVaultStore, kv: KeyVaultServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """get, set and list; deleting and restoring need more."""
    kv.add_principal(Principal("rotator", "s", allow=(Rule(frozenset({"get", "set", "list"})),)))
    log_in_as(monkeypatch, kv, "rotator", "s")
    client = make()
    client.create("prod--other-entry", full_policy("other-entry"))
    old = rotated(client, ENTRY)
    client.discard(ENTRY, staged(client, ENTRY))
    client.record(ENTRY, journal.condemned("t1", AT, Why.ORPHAN))
    client.forget(ENTRY, ["condemned.t1"])
    assert client.find(ENTRY, old.token or "") is not None
    assert len(list(client.listing())) == 2


def test_settings_that_can_not_work(store: KeyVaultStore, kv: KeyVaultServer, make: Make) -> None:
    """INVALID or UNAVAILABLE, with the setting that is about it."""
    cases: list[tuple[Code, str, KeyVaultStore]] = [
        (Code.INVALID, "no CA bundle at /nowhere/ca.pem", make(ca_bundle="/nowhere/ca.pem")),
        (Code.INVALID, "verifyChallengeResource", make(verify_challenge_resource=True)),
        (Code.INVALID, "nothing was sent", make(vault_url="http://127.0.0.1:1")),
        (Code.UNAVAILABLE, "caBundle", make(ca_bundle=None)),
        (Code.INVALID, "there is no Key Vault at", make(vault_url=f"{kv.vault_url}/elsewhere")),
    ]
    for code, told, client in cases:
        with trouble(code, client, ENTRY) as caught:
            client.observe(ENTRY)
        assert told in str(caught.value)
