"""Schedules that once broke an invariant: what a crash, a person, a restored backup or a wrong clock did to a secret.

Each was found by looking for harm, not by a rule's own reasoning, so each stays as it was found. The world checks at
every call that no store hands out what the issuer refuses; a test that turns this off starts from such a state.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from providers.issuers.memory import MemoryIssuer, MemoryVendor, VendorKey
from providers.stores.aws import AwsLogin, SecretsManagerStore
from providers.stores.memory import MemoryStore, MemoryVault
from providers.stores.vault import TokenLogin, VaultStore
from rotation import actions
from rotation import journal as facts
from rotation import policy as policies
from rotation.engine import Engine, Places, Target
from rotation.errors import Code, Trouble
from rotation.journal import Journal, Why
from rotation.model import (
    Capabilities,
    Credential,
    Drain,
    Ending,
    Entry,
    Issued,
    Model,
    Policy,
    Propagation,
    SecretValue,
    Version,
)
from rotation.names import KeyName
from rotation.ports import SecretStore
from rotation.provision import Refusal
from rotation.situation import Order
from sandbox.aws.server import REGION, AwsServer
from sandbox.openbao import OpenBaoServer
from tests.pulumi.test_provision import Place, Silent
from tests.world import ENTRY, NAME, START, Crash, FakeClock, Trail, World

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
SHORT = Propagation(in_a_row=2, interval=timedelta(seconds=1), timeout=MINUTE)
YEAR = 365 * DAY


# --- what the schedules are made of ------------------------------------------------------------------


def entry_of(world: World, store: str = "vault") -> Any:
    """An entry as its store keeps it, for those who change it behind everybody's back."""
    return world.vaults[store].entries[ENTRY]


def journal_of(world: World) -> Journal:
    return Journal(entry_of(world).facts)


def by_hand(world: World) -> Issued:
    """A key that a person has made at the issuer, under a name of their own."""
    vendor, model = world.vendor, world.vendor.model
    vendor.model = Model.MINT
    made = MemoryIssuer("vendor", vendor).mint("a person's")
    vendor.model = model
    return made


def paste(world: World, value: str, token: str | None = None) -> None:
    """A person makes a value current, in a console or by a script that names the version itself."""
    held, vault = entry_of(world), world.vaults["vault"]
    held.current = vault.add_version(held, token, Credential.of(value=value), created_at=world.clock.now())


def unmanaged(world: World, value: Credential) -> None:
    """The entry as it was before Keyturn: a person's value, and no policy."""
    entry_of(world).policy = {}
    MemoryStore("vault", world.vaults["vault"], world.clock.now).put_by_hand(ENTRY, value)


def restored(world: World, since: Callable[[], object]) -> None:
    """The primary's entry is brought back from a backup as it was before all this."""
    held = entry_of(world)
    before = dict(held.policy), dict(held.facts), list(held.versions), held.current, held.pending
    since()
    held.policy, held.facts, held.versions, held.current, held.pending = before


def applied(world: World, policy: Policy) -> None:
    world.policy = policy
    entry_of(world).policy = dict(policies.written(policy))


def sweep_for(world: World, span: timedelta, every: timedelta = DAY) -> actions.Rest | None:
    """Sweeps, and nobody else; what the last one came to."""
    outcome, end = None, world.clock.now() + span
    while world.clock.now() < end:
        world.clock.move(every)
        outcome = world.sweep()
    return outcome.rest if outcome else None


def rotated_once(world: World) -> None:
    """The first credential, and a month later another on request."""
    world.run()
    world.clock.move(31 * DAY)
    assert world.engine().rotate(world.target).achieved


@contextmanager
def cut_off(world: World, at: str) -> Iterator[None]:
    """The process dies the first time that it comes to this call."""

    def fault(_: int, call: str) -> None:
        if call == at:
            world.fault = None
            raise Crash(at)

    world.fault = fault
    with suppress(Crash):
        yield
    assert world.fault is None, f"nobody came to {at}"


@contextmanager
def meanwhile(world: World, at: str, act: Callable[[], object]) -> Iterator[None]:
    """Somebody else acts when the process first comes to this call."""

    def fault(_: int, call: str) -> None:
        if call == at:
            world.fault = None
            act()

    world.fault = fault
    yield
    assert world.fault is None, f"nobody came to {at}"


@contextmanager
def alive_in(world: World, store: str) -> Iterator[None]:
    """Whatever this store hands out meanwhile works; the others may hand out what they like."""

    def fault(_: int, call: str) -> None:
        value = world.handed_out()[store]
        assert value is not None
        assert world.vendor.accepts(value), f"{store} hands out a dead credential at {call}"

    world.allow_outage, world.fault = True, fault
    yield
    world.fault, world.allow_outage = None, False


# --- replicas and restored backups -------------------------------------------------------------------


@pytest.mark.parametrize("again", [World.run, World.sweep])
def test_a_dead_key_is_not_mirrored_over_a_living_one(again: Callable[[World], object]) -> None:
    """A run dies between the primary's promotion and the replica's, and a person deletes the new key at the issuer.

    The replica's own, older credential works until it is replaced by one that does.
    """
    world = World(stores=("vault", "aws"))
    world.run()
    world.clock.move(31 * DAY)
    with cut_off(world, "after promote"):
        world.run()
    assert world.handed_out() == {"vault": "value-2", "aws": "value-1"}
    world.vendor.keys[1].revoked = True
    world.clock.move(MINUTE)
    with alive_in(world, "aws"):
        again(world)
    assert world.handed_out() == {"vault": "value-3", "aws": "value-3"}


@pytest.mark.parametrize("again", [World.run, World.sweep])
def test_a_restored_primary_is_not_mirrored_over_a_living_replica(again: Callable[[World], object]) -> None:
    """The primary comes back from a backup of before the last rotation, its key long revoked; the replica's works.

    Nor is that key, of which the restored journal knows nothing, revoked under those who use it.
    """
    world = World(stores=("vault", "aws"))
    world.run()
    world.clock.move(31 * DAY)

    def retired() -> None:
        world.sweep()
        sweep_for(world, 3 * DAY)
        assert world.live() == {"value-2"}

    restored(world, retired)
    with alive_in(world, "aws"):
        again(world)
    assert world.handed_out() == {"vault": "value-3", "aws": "value-3"}
    sweep_for(world, 23 * HOUR, HOUR)
    assert "value-2" in world.live()
    sweep_for(world, 4 * DAY)
    world.check_settled()


def test_a_key_that_a_restored_journal_does_not_know_drains() -> None:
    """One store, restored: consumers still hold the newer key, and the sweep takes it for an orphan."""
    world = World()
    world.run()
    world.clock.move(31 * DAY)

    def retired() -> None:
        world.sweep()
        sweep_for(world, 3 * DAY)

    restored(world, retired)
    world.allow_outage = True
    world.sweep()
    world.allow_outage = False
    sweep_for(world, 23 * HOUR, HOUR)
    assert "value-2" in world.live()
    sweep_for(world, 4 * DAY)
    world.check_settled()


def test_a_key_in_a_store_that_the_sweep_does_not_know_drains() -> None:
    """A secret has moved: the file names its new store only, and consumers still read the old one.

    To the sweep the old store's key is an orphan. It lives for the grace period, in which they change over.
    """
    world = World(stores=("old",))
    world.run()
    world.vaults["new"] = MemoryVault()
    moved = replace(world.policy, store="new")
    MemoryStore("new", world.vaults["new"], world.clock.now).create(ENTRY, policies.written(moved))
    world.engine().run(Target("new", ENTRY))
    left = world.vaults.pop("old")
    world.stores, world.policy = ("new",), moved
    world.clock.move(20 * MINUTE)
    world.sweep()
    sweep_for(world, 23 * HOUR, HOUR)
    assert world.vendor.accepts("value-1")
    assert MemoryStore("old", left, world.clock.now).handed_out(ENTRY)
    sweep_for(world, 2 * DAY)
    world.check_settled()


def test_a_replica_that_was_never_released_is_told() -> None:
    """A replica leaves the policy and nobody releases it: what it holds up is a hold, not done."""
    world = World(stores=("vault", "aws"))
    world.run()
    applied(world, replace(world.policy, replicas=()))
    world.clock.move(31 * DAY)
    world.sweep()
    rest = sweep_for(world, 3 * DAY)
    assert isinstance(rest, actions.Hold), rest
    assert rest.cause is actions.Cause.STORE
    assert "aws" in rest.reason
    assert world.vendor.accepts("value-1")


# --- the journal -------------------------------------------------------------------------------------


class Narrow(MemoryStore):
    """A store that takes no more facts than there is room for, and says so."""

    room = 24

    def observe(self, entry: str) -> Entry:
        return replace(super().observe(entry), room=self.room)

    def record(self, entry: str, facts: Mapping[str, str]) -> None:
        if len({**self._vault.entries[entry].facts, **facts}) > self.room:
            raise Trouble(Code.INVALID, self.name, f"{entry}: no room")
        super().record(entry, facts)


@dataclass
class Room:
    """A store with one entry that has room for some 24 facts, an engine over it, and an issuer."""

    store: SecretStore
    target: Target
    clock: FakeClock

    def __post_init__(self) -> None:
        self.vendor = MemoryVendor(self.clock.now)

    def engine(self) -> Engine:
        """A new process."""
        issuer = MemoryIssuer("vendor", self.vendor, Capabilities(create=SHORT, revoke=SHORT))
        places = Places(lambda store, environment, name: self.target.entry, lambda environment, name: None)
        return Engine({self.target.store: self.store}, {"vendor": issuer}, places, self.clock, Trail())

    def accepted(self) -> bool:
        return self.vendor.accepts(self.store.current(self.target.entry).fields["value"].reveal())


def tagged(store: str, count: int) -> dict[str, str]:
    """A policy of this many strings, with a grace of a week."""
    policy = replace(World().policy, store=store, grace=7 * DAY)
    own = count - len(policies.written(policy)) - 1  # the list of their names is one more where they are tags
    written = policies.written(replace(policy, tags=tuple((f"t{number}", "x") for number in range(own))))
    assert len(written) <= count
    return written


@pytest.fixture
def narrow() -> Room:
    """The reference store."""
    clock, vault = FakeClock(), MemoryVault()
    store = Narrow("vault", vault, clock.now)
    store.create(ENTRY, tagged("vault", 20))
    return Room(store, Target("vault", ENTRY), clock)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """An entry of Secrets Manager with as many tags as a policy and its people may take of 50."""
    clock = FakeClock()
    with AwsServer(now=clock.now) as server:
        variables = server.environment(REGION)
        nothing = {"AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}
        for name, text in {**variables, **nothing, "AWS_EC2_METADATA_DISABLED": "true"}.items():
            monkeypatch.setenv(name, text)
        store = SecretsManagerStore("aws", region=REGION, endpoint_url=server.endpoint, login=AwsLogin(), clock=clock)
        store.create(ENTRY, tagged("aws", 26))
        yield Room(store, Target("aws", ENTRY), clock)


@pytest.fixture
def openbao() -> Iterator[Room]:
    """An entry of OpenBao whose people have left 24 of its 64 keys of custom metadata."""
    clock = FakeClock()
    with OpenBaoServer() as server:
        store = VaultStore(
            name="vault", address=server.address, mount="secret", prefix="p", ca_bundle=str(server.ca),
            auth=TokenLogin(SecretValue(server.root_token)), clock=clock,
        )  # fmt: skip
        store.create(ENTRY, tagged("vault", 40))
        yield Room(store, Target("vault", ENTRY), clock)


@pytest.fixture
def room(request: pytest.FixtureRequest) -> Room:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Room)
    return found


@pytest.mark.parametrize("room", ["narrow", "aws", "openbao"], indirect=True)
def test_rotations_leave_room_in_the_journal_for_an_emergency(room: Room) -> None:
    """Six rotations asked for within one grace period, then a leak of everything.

    What no emergency could be written down for any more waits; the emergency replaces, revokes and proves.
    """
    assert isinstance(room.engine().run(room.target).rest, actions.Done)
    made = []
    for _ in range(6):
        room.clock.move(6 * HOUR)
        made.append(room.engine().rotate(room.target).achieved)
    assert made[0]
    assert not made[-1]
    room.clock.move(HOUR)
    outcome = room.engine().emergency(room.target, patience=MINUTE)
    assert (outcome.achieved, outcome.trouble, outcome.unproven) == (True, None, False)
    assert room.accepted()
    assert len(room.vendor.live()) == 1


class NarrowWorld(World):
    """Whose stores have room for so few facts."""

    def engine(self) -> Engine:
        usual = super().engine().outside
        stores = {n: Narrow(n, v, self.clock.now, self._hook_of(n)) for n, v in self.vaults.items()}
        return Engine(stores, usual.issuers, usual.places, self.clock, self.trail, usual.tokens)


def test_orphans_leave_room_in_the_journal_for_an_emergency() -> None:
    """The mints of four dead runs turn up beside a draining key, and then everything has leaked."""
    world = NarrowWorld()
    rotated_once(world)
    for number in range(4):
        MemoryIssuer("vendor", world.vendor).mint(str(KeyName("acme", "test", NAME, f"{number:032d}")))
    world.clock.move(6 * HOUR)
    world.sweep()
    outcome = world.engine().emergency(world.target)
    assert (outcome.achieved, outcome.trouble) == (True, None)
    sweep_for(world, 5 * DAY, 6 * HOUR)
    world.check_settled()


@pytest.mark.parametrize("edits", [3, 6])
def test_values_of_people_leave_room_in_the_journal_for_an_emergency(narrow: Room, edits: int) -> None:
    """An on-call tries one key after another by hand within a grace period, and then everything has leaked.

    Once the person has revoked theirs as told, nothing is held any more.
    """
    vault = narrow.store._vault  # type: ignore[attr-defined]
    narrow.engine().run(narrow.target)
    for _ in range(edits):
        narrow.clock.move(10 * MINUTE)
        theirs = MemoryIssuer("vendor", narrow.vendor).mint("a person's").credential
        MemoryStore("vault", vault, narrow.clock.now).put_by_hand(ENTRY, theirs)
        assert narrow.engine().run(narrow.target).trouble is None
    narrow.clock.move(HOUR)
    outcome = narrow.engine().emergency(narrow.target, patience=MINUTE)
    assert (outcome.achieved, outcome.trouble) == (True, None)
    for key in narrow.vendor.keys:
        key.revoked = key.revoked or key.name == "a person's"
    for _ in range(20):
        narrow.clock.move(DAY)
        outcome = narrow.engine().run(narrow.target)
    assert isinstance(outcome.rest, actions.Done), (outcome.rest, outcome.trouble)
    assert narrow.accepted()


def test_a_version_id_with_spaces_is_a_base_like_any_other() -> None:
    """A person puts a value under a sentence as its version's id, which is then the base of the next attempts."""
    world = World()
    world.run()
    held = entry_of(world)
    put = Version("deploy 2026-01-02 by hand, ticket #4711", None, None, START, by_hand(world).credential)
    held.versions.append(put)
    held.current = put
    world.sweep()
    assert world.engine().rotate(world.target).achieved
    assert {attempt.base for attempt in journal_of(world).attempts.values()} >= {put.id}
    sweep_for(world, 3 * DAY)
    assert world.live() == {"value-2", "value-3"}  # the person's is theirs to revoke
    world.check()


# --- clocks ------------------------------------------------------------------------------------------


@dataclass
class Ahead:
    """A machine's own clock, which is wrong."""

    world: World
    by: timedelta

    def now(self) -> datetime:
        return self.world.clock.now() + self.by

    def monotonic(self) -> float:
        return self.world.clock.monotonic()

    def sleep(self, seconds: float) -> None:
        self.world.clock.sleep(seconds)


def runner_ahead(world: World, by: timedelta) -> Engine:
    """A runner that has heard from its store how far its clock is ahead."""
    clock, usual = Ahead(world, by), world.engine().outside
    stores = {name: MemoryStore(name, vault, clock.now, world.hook) for name, vault in world.vaults.items()}
    return Engine(stores, usual.issuers, usual.places, clock, world.trail, usual.tokens, ahead=lambda _: by)


def test_a_clock_that_is_ahead_does_not_end_a_grace_period() -> None:
    """Five minutes after a promotion another runner sweeps, whose machine believes that it is tomorrow."""
    world = World()
    rotated_once(world)
    world.clock.move(5 * MINUTE)
    runner_ahead(world, 25 * HOUR).run(world.target)
    assert world.live() == {"value-1", "value-2"}
    sweep_for(world, 2 * DAY)
    world.check_settled()


@pytest.mark.parametrize("at", ["after record", "after promote"])
def test_a_clock_that_is_ahead_holds_up_nobody(at: str) -> None:
    """A runner whose machine is two months ahead dies after its intent, or right after its promotion."""
    world = World()
    world.run()
    world.clock.move(31 * DAY)
    with cut_off(world, at):
        runner_ahead(world, 60 * DAY).run(world.target)
    sweep_for(world, 2 * DAY, 6 * HOUR)
    world.check_settled()
    assert world.handed_out() == {"vault": "value-2"}
    due = world.sweep().rest
    assert isinstance(due, actions.Done)
    assert due.due_at is not None
    assert due.due_at < world.clock.now() + 30 * DAY


# --- deleting and releasing --------------------------------------------------------------------------


def test_a_delete_waits_for_whoever_can_tell_whose_a_key_is() -> None:
    """A store of the stack is silent, so that nobody knows whose the lost key of a dead run is.

    No sweep looks for it once the entry is gone: the entry stays, and the repetition kills both.
    """
    place = Place("vault")
    place.create()
    MemoryIssuer("vendor", place.world.vendor).mint(str(KeyName("acme", "test", NAME, "f" * 32)))
    place.world.clock.move(3 * HOUR)
    place.world.allow_outage = True
    place.world.vaults["other"] = Silent()  # type: ignore[assignment]
    with pytest.raises(Refusal, match="key_2"):
        place.delete(force=True)
    assert not place.deleted()
    del place.world.vaults["other"]
    place.delete(force=True)
    assert (place.deleted(), place.world.live()) == (True, set())


def test_a_delete_does_not_take_a_twin_for_the_key_that_it_has_killed() -> None:
    """The request of a mint arrived twice, and minutes later the secret is deleted: both bear one token."""
    place = Place("vault")
    with meanwhile(place.world, "after mint", lambda: again(place.world)):
        place.create()
    place.world.clock.move(5 * MINUTE)
    place.world.allow_outage = True
    with pytest.raises(Refusal, match="key_2"):
        place.delete(force=True)
    assert not place.deleted()
    place.world.clock.move(16 * MINUTE)
    place.delete(force=True)
    assert (place.deleted(), place.world.live()) == (True, set())


def again(world: World) -> None:
    """The request of the last mint arrives once more."""
    MemoryIssuer("vendor", world.vendor).mint(world.vendor.keys[-1].name)


@pytest.mark.parametrize("dies", [True, False])
def test_a_release_does_not_forget_the_intent_of_a_run(dies: bool) -> None:
    """A run writes its intent between the two looks of a release, and dies, or mints and goes on.

    The entry stays managed: else its key were in no journal, at an entry that no sweep looks at.
    """
    world = World()
    world.run()
    world.clock.move(31 * DAY)
    release = world.engine()

    def another() -> None:
        if dies:
            with cut_off(world, "before mint"):
                world.run()
        else:
            world.run()

    with meanwhile(world, "before set_policy", another), pytest.raises(Trouble, match="has just begun"):
        release.release(world.target)
    assert policies.read(entry_of(world).policy) == world.policy
    world.sweep_until_quiet()
    world.check_settled()


# --- what people put there ---------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, uuid.UUID(int=7).hex])
def test_the_value_of_a_draining_key_is_known_again(token: str | None) -> None:
    """A person goes back by hand, to a value whose key drains, under a version id that looks like a token of ours."""
    world = World()
    rotated_once(world)
    world.clock.move(20 * HOUR)
    paste(world, "value-1", token)
    sweep_for(world, 3 * DAY, HOUR)
    world.check_settled()


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.THROTTLED, Code.DENIED])
def test_a_read_that_fails_makes_no_stranger_of_a_draining_key(code: Code) -> None:
    """The same, and the store does not answer when it is asked for the old value."""
    world = World(rotate_every=YEAR)
    rotated_once(world)
    world.clock.move(20 * HOUR)
    paste(world, "value-1")

    def silent() -> None:
        raise Trouble(code, "vault", "no answer")

    with meanwhile(world, "before find", silent):
        sweep_for(world, HOUR, HOUR)
    sweep_for(world, 3 * DAY, HOUR)
    world.check_settled()
    assert world.handed_out() == {"vault": "value-1"}


@pytest.mark.parametrize("first", [True, False])
def test_two_adoptions_at_once_name_one_key(first: bool) -> None:
    """Two people adopt one entry, and one of them knows the key's id: it is the same key, and current."""
    world = World(rotate_every=YEAR)
    made = by_hand(world)
    unmanaged(world, made.credential)
    ids = (made.key_id, None) if first else (None, made.key_id)

    def another() -> None:
        world.engine().adopt(world.target, world.policy, key_id=ids[0])

    with meanwhile(world, "before record", another):
        world.engine().adopt(world.target, world.policy, key_id=ids[1])
    assert len(journal_of(world).adopted) == 1
    assert isinstance(sweep_for(world, 5 * DAY), actions.Done)
    world.check_settled()


def test_what_a_person_went_back_to_stays() -> None:
    """Somebody moves the label of what is current back to a young version, as the console offers it.

    The newer one is still labelled as staged. It was current before, so it is not promoted once more.
    """
    world = World()
    world.run()
    first = entry_of(world).current
    world.clock.move(2 * DAY)
    assert world.engine().rotate(world.target).achieved
    world.clock.move(2 * HOUR)
    entry_of(world).current = first
    sweep_for(world, 3 * DAY, HOUR)
    assert world.handed_out() == {"vault": "value-1"}
    world.check_settled()


def test_a_copied_entry_does_not_act_for_the_original() -> None:
    """An entry is copied with its metadata to another name, and sweeps come by both for weeks."""
    world = World()
    world.run()
    world.clock.move(DAY)
    vault, original = world.vaults["vault"], entry_of(world)
    copy = dataclasses.replace(original, policy=dict(original.policy), facts=dict(original.facts), versions=[])
    copy.current = vault.add_version(copy, None, original.current.credential, created_at=world.clock.now())
    vault.entries[f"{ENTRY}-backup"] = copy
    for _ in range(40):
        world.clock.move(DAY)
        refused = world.engine().run(Target("vault", f"{ENTRY}-backup"))
        assert refused.trouble is not None
        assert refused.trouble.code is Code.INVALID
        assert ENTRY in str(refused.trouble)
        world.sweep()
    assert world.handed_out() == {"vault": "value-2"}
    assert len(world.vendor.keys) == 2
    sweep_for(world, 3 * DAY)
    world.check_settled()


def test_an_adopted_value_without_an_id_is_left_to_its_person() -> None:
    """Adopted without the key's id, at an issuer that tells last use: nobody can be asked about it, and nobody waits."""
    world = World(drain=Drain(then=Ending.REVOKE))
    made = by_hand(world)
    unmanaged(world, made.credential)
    world.engine().adopt(world.target, world.policy, key_id=None)
    sweep_for(world, 33 * DAY)
    assert world.handed_out() == {"vault": "value-2"}
    assert isinstance(world.sweep().rest, actions.Done)
    assert {token for key in journal_of(world).facts if (token := key.partition(".")[2])} == set(
        journal_of(world).attempts
    )
    assert world.live() == {"value-1", "value-2"}


# --- what a person brings ----------------------------------------------------------------------------


def manual() -> World:
    """A world whose keys a person makes and revokes."""
    told = Capabilities(model=Model.MANUAL, revokes=False, create=SHORT, revoke=SHORT)
    world = World(model=Model.MANUAL, capabilities=told)
    made = by_hand(world)
    assert world.engine().submit(world.target, made.credential, made.key_id).achieved
    world.clock.move(31 * DAY)
    return world


@pytest.mark.parametrize(
    ("value", "key_id"),
    [("value-1", None), ("value-1", "key_9"), ("value-2", "key_1"), ("value-2", "sk-value-2")],
    ids=["current", "current-under-another-id", "id-of-current", "value-in-the-id"],
)
def test_what_is_submitted_is_new(value: str, key_id: str | None) -> None:
    """The value that is current already would be told to be revoked by hand; an id with a value in it would be written."""
    world = manual()
    by_hand(world)
    before = dict(entry_of(world).facts)
    outcome = world.engine().submit(world.target, Credential.of(value=value), key_id)
    assert (outcome.achieved, outcome.trouble is None) == (False, False)
    assert value not in str(outcome.trouble)
    assert (entry_of(world).facts, world.handed_out()) == (before, {"vault": "value-1"})


def test_a_hold_for_a_value_that_nobody_can_show_ends() -> None:
    """The declared form changes with each submission, so that no old value can be shown to the issuer again.

    Told to revoke it by hand, the person does; after the longest drain it is believed.
    """
    world = manual()
    for form in ("text {value}", ""):
        applied(world, replace(world.policy, form=form))
        made = by_hand(world)
        assert world.engine().submit(world.target, made.credential, made.key_id).achieved
        sweep_for(world, 2 * DAY)
        for key in world.vendor.keys:
            key.revoked = key.key_id != made.key_id
        held = world.sweep().rest
        assert isinstance(held, actions.Hold)
        assert held.cause is actions.Cause.PERSON
        assert isinstance(sweep_for(world, 16 * DAY), actions.Done)
        world.clock.move(31 * DAY)


# --- proofs and orphans ------------------------------------------------------------------------------


def test_a_list_proves_nothing_before_a_revocation_has_its_time() -> None:
    """After a change of form nobody can show the old value; the list drops its key at once, those who check it later."""
    world = World(revoke_delay=timedelta(seconds=30))
    world.run()
    applied(world, replace(world.policy, form="text {value}"))
    sweep_for(world, 2 * DAY, HOUR)
    assert world.handed_out() == {"vault": "value-2"}
    at = {record.event: record.at for record in world.trail.records if record.event in ("revoke.done", "proven")}
    assert at["proven"] >= at["revoke.done"] + world.vendor.revoke_delay
    assert not world.vendor.accepts("value-1")


def test_a_value_pasted_back_after_a_restore_is_not_swept() -> None:
    """A vault is restored from yesterday's backup and a person pastes the working key back in.

    The journal has never heard of that key, and of current nobody knows the id: it is no orphan while that may be it.
    """
    world = World(rotate_every=60 * DAY)
    world.run()
    world.clock.move(2 * DAY)

    def retired() -> None:
        world.engine().rotate(world.target)
        sweep_for(world, 3 * DAY)

    restored(world, retired)
    paste(world, "value-2")
    sweep_for(world, 5 * DAY)
    assert world.handed_out() == {"vault": "value-2"}
    sweep_for(world, 70 * DAY)
    world.check_settled()


def test_a_value_saved_anew_between_release_and_adoption_is_not_swept() -> None:
    """A released entry's value is saved again in a console and adopted without its id: its key is alive under our name."""
    world = World()
    world.run()
    world.clock.move(DAY)
    world.engine().release(world.target)
    paste(world, "value-1")
    entry_of(world).pending = None
    world.clock.move(DAY)
    world.engine().adopt(world.target, world.policy, key_id=None)
    sweep_for(world, 5 * DAY)
    assert world.handed_out() == {"vault": "value-1"}
    sweep_for(world, 40 * DAY)
    world.check_settled()


@pytest.mark.parametrize("dies", [True, False])
def test_a_mint_that_arrived_twice_leaves_one_key(dies: bool) -> None:
    """Two keys under one token: of one nobody ever saw the value, and where the run dies, of both."""
    world = World()
    world.run()
    world.clock.move(31 * DAY)

    def twice() -> None:
        again(world)
        if dies:
            raise Crash

    with suppress(Crash), meanwhile(world, "after mint", twice):
        world.run()
    sweep_for(world, 5 * DAY, 6 * HOUR)
    world.check_settled()


def test_a_mint_in_doubt_is_not_forgotten_where_its_issuer_leads_elsewhere() -> None:
    """A run dies after its mint, and the issuer's settings come to name another project: its list says nothing of it."""
    world = World(capabilities=Capabilities(scope="one", create=SHORT, revoke=SHORT))
    world.run()
    world.clock.move(31 * DAY)
    with cut_off(world, "after mint"):
        world.run()
    lost = world.vendor.keys[-1]
    known, token = lost.name, lost.name.rpartition(".")[2]
    world.capabilities = Capabilities(scope="two", create=SHORT, revoke=SHORT)
    lost.name = "not in this list"
    held = sweep_for(world, 3 * DAY)
    assert isinstance(held, actions.Hold), held
    assert held.cause is actions.Cause.PERSON
    assert token in journal_of(world).attempts
    world.capabilities = Capabilities(scope="one", create=SHORT, revoke=SHORT)
    lost.name = known
    sweep_for(world, 3 * DAY)
    world.check_settled()


# --- rollback and emergency --------------------------------------------------------------------------


def test_a_rollback_does_not_retire_what_it_goes_back_to() -> None:
    """Asked for when the grace period is over and no sweep has come by since."""
    world = World(rotate_every=YEAR)
    rotated_once(world)
    world.clock.move(25 * HOUR)
    assert world.engine().rollback(world.target).achieved
    assert world.handed_out() == {"vault": "value-1"}
    sweep_for(world, 3 * DAY)
    world.check_settled()


def test_a_rollback_to_a_key_that_is_condemned_meanwhile_is_replaced_once() -> None:
    """A paused sweep condemns the older key as retired just before the rollback's promotion.

    One replacement is made, by the rollback's own run; the older key, handed out for a moment, drains anew.
    """
    world = World(rotate_every=YEAR)
    rotated_once(world)
    old = world.vendor.keys[0].name.rpartition(".")[2]
    world.clock.move(23 * HOUR)

    def condemned() -> None:
        world.engine().outside.stores["vault"].record(ENTRY, facts.condemned(old, world.clock.now(), Why.RETIRED))

    with meanwhile(world, "before promote", condemned):
        outcome = world.engine().rollback(world.target)
    assert (outcome.achieved, world.handed_out()) == (False, {"vault": "value-3"})
    assert len(world.vendor.keys) == 3
    sweep_for(world, 23 * HOUR, HOUR)
    assert "value-1" in world.live()
    sweep_for(world, 3 * DAY)
    world.check_settled()


def test_a_condemned_key_that_a_person_went_back_to_drains_anew() -> None:
    """A sweep has found the older key drained; before it says so in the journal, its value is current again by hand."""
    world = World(rotate_every=YEAR)
    rotated_once(world)
    world.clock.move(25 * HOUR)
    with meanwhile(world, "before record", lambda: paste(world, "value-1")):
        world.sweep()
    sweep_for(world, 23 * HOUR, HOUR)
    assert world.handed_out() == {"vault": "value-3"}
    assert "value-1" in world.live()
    sweep_for(world, 3 * DAY, 6 * HOUR)
    world.check_settled()


def test_a_rollback_to_a_key_that_is_to_die_is_not_achieved() -> None:
    """The same, and the issuer stops answering, so that nothing takes the condemned key's place for now."""
    world = World(rotate_every=YEAR)
    rotated_once(world)
    old = world.vendor.keys[0].name.rpartition(".")[2]

    def condemned() -> None:
        world.engine().outside.stores["vault"].record(ENTRY, facts.condemned(old, world.clock.now(), Why.RETIRED))
        world.vendor.unreachable = True

    with meanwhile(world, "before promote", condemned):
        outcome = world.engine().rollback(world.target)
    assert (outcome.achieved, world.handed_out()) == (False, {"vault": "value-1"})
    world.vendor.unreachable = False
    sweep_for(world, 3 * DAY)
    world.check_settled()


def test_a_rollback_does_not_undo_the_replacement_of_an_emergency() -> None:
    """An emergency condemns every key just before the rollback's promotion: the leaked one must not be what stays."""
    world = World(rotate_every=YEAR)
    rotated_once(world)
    world.clock.move(2 * HOUR)
    with meanwhile(world, "before promote", lambda: world.engine().condemn(world.target)):
        outcome = world.engine().rollback(world.target)
    assert not outcome.achieved
    assert len(world.vendor.keys) == 3
    sweep_for(world, DAY, HOUR)
    world.check_settled()
    assert world.handed_out() == {"vault": "value-3"}


def leaked_once() -> World:
    """After an emergency whose leaked key is revoked, and nobody can show it dead: the issuer does not answer."""
    world = World(rotate_every=YEAR)
    world.run()
    world.clock.move(3 * DAY)

    def away() -> None:
        world.vendor.unreachable = True

    with meanwhile(world, "after revoke", away):
        assert world.engine().emergency(world.target, patience=MINUTE).achieved
    return world


def test_an_emergency_that_is_run_again_goes_on_with_the_first() -> None:
    """The same command minutes later: what has replaced the leaked key is not condemned with it."""
    world = leaked_once()
    world.clock.move(5 * MINUTE)
    world.vendor.unreachable = False
    assert world.engine().emergency(world.target).achieved
    assert world.handed_out() == {"vault": "value-2"}
    world.check_settled()


def test_a_second_leak_is_not_the_first() -> None:
    """Two days later the replacement leaks, while the first leaked key is still not shown dead."""
    world = leaked_once()
    world.clock.move(2 * DAY)
    leaked = journal_of(world).tokens() - set(journal_of(world).condemned)
    world.engine().emergency(world.target, contain_after=DAY, patience=MINUTE)
    assert leaked <= set(journal_of(world).condemned)
    world.vendor.unreachable = False
    sweep_for(world, DAY, HOUR)
    world.check_settled()
    assert world.handed_out() == {"vault": "value-3"}


def test_version_ids_of_two_stores_may_be_equal() -> None:
    """A person saves the same value again, then another one; what mirrors it bears the first one's number by chance.

    The numbers of one store say nothing of another's: the key of before retires, and the run comes to its end.
    """
    world = World(stores=("vault", "aws"), rotate_every=YEAR)
    world.run()
    paste(world, "value-1")
    world.run()
    paste(world, by_hand(world).credential.fields["value"].reveal())
    assert world.run().trouble is None
    assert isinstance(sweep_for(world, 3 * DAY), actions.Done)
    world.check_settled()


# --- what is dead waits for nothing, and what is slow ends -------------------------------------------


@pytest.mark.parametrize("how", ["deleted", "mistyped"])
def test_a_dead_current_credential_waits_for_no_replica(how: str) -> None:
    """A replica is away; somebody deletes the current key at the issuer, or mistypes a value into the primary.

    There is nothing to lose in the primary: what replaces the dead value does not wait for the replica.
    """
    world = World(stores=("vault", "aws"))
    world.allow_outage = True
    world.sweep()
    world.clock.move(DAY)
    world.denied = ("aws", ("observe",))
    if how == "deleted":
        for key in world.vendor.keys:
            key.revoked, key.accepted_until = True, world.clock.now()
    else:
        paste(world, "a typo")
    sweep_for(world, timedelta(hours=2), every=timedelta(minutes=16))
    assert world.vendor.accepts(world.handed_out()["vault"] or "")


def test_an_adopted_key_is_not_gone_for_a_list_that_asks_for_our_names() -> None:
    """A person's key is adopted with its id and superseded; then a run dies before its mint, so that the next one asks
    the issuer for its list, which tells of names of ours. The person's key drains for its whole grace all the same."""
    world = World()
    issued = by_hand(world)
    unmanaged(world, issued.credential)
    world.engine().adopt(world.target, world.policy, key_id=issued.key_id)
    world.clock.move(DAY)
    world.sweep()
    assert world.engine().rotate(world.target).achieved
    world.clock.move(5 * MINUTE)
    with cut_off(world, "before mint"):
        world.engine().rotate(world.target)
    sweep_for(world, timedelta(hours=2), every=timedelta(minutes=16))
    assert world.vendor.accepts(issued.credential.fields["value"].reveal())


def test_a_verification_that_takes_a_minute_still_tells() -> None:
    """An answer that comes late is an answer: what was known before it is old, and it is not."""
    world = World()
    world.run()
    world.clock.move(DAY)
    world.fault = lambda _, call: world.clock.move(timedelta(seconds=61)) if call == "before verify" else None
    assert world.engine().rotate(world.target).achieved
    world.fault = None
    assert isinstance(sweep_for(world, 3 * DAY), actions.Done)
    world.check_settled()


# --- what is current under another name --------------------------------------------------------------


def mints_fail(world: World) -> None:
    """The vendor answers 500 to every mint from now on."""

    def fault(_: int, call: str) -> None:
        if call == "before mint":
            raise Trouble(Code.UNAVAILABLE, "vendor", "500")

    world.fault = fault


def test_a_rollback_goes_back_to_a_key_and_not_to_a_trace_of_one() -> None:
    """A rollback's promotion is noted late, after the attempt was dropped. Nobody goes back to that note, under which the
    value of the first key would be current while the key itself is taken for superseded."""
    world = World(rotate_every=YEAR)
    rotated_once(world)
    world.clock.move(timedelta(hours=1))

    def forward() -> None:
        assert world.engine().rotate(world.target, take_over=True).achieved
        world.clock.move(MINUTE)
        world.sweep()

    with cut_off(world, "after promote"):
        world.engine().rollback(world.target)
    world.clock.move(MINUTE)
    with meanwhile(world, "before record", forward):
        world.sweep()
    world.clock.move(MINUTE)
    assert world.engine().rollback(world.target).achieved
    sweep_for(world, 40 * DAY, timedelta(hours=6))
    was = world.handed_out()["vault"]
    assert world.engine().rotate(world.target).achieved
    assert was in world.live(), "it has its grace"


@pytest.mark.parametrize("tells", [False, True])
def test_a_value_that_could_not_be_compared_has_its_grace(tells: bool) -> None:
    """The form changes, and a person goes back to the first key by hand, whose version is of the old form."""
    capabilities = Capabilities(tells_last_use=tells, create=SHORT, revoke=SHORT)
    world = World(capabilities=capabilities, drain=Drain(then=Ending.REVOKE))
    world.run()
    world.clock.move(DAY)
    applied(world, replace(world.policy, form="text {value}"))
    world.sweep()
    world.clock.move(timedelta(hours=2))
    paste(world, "value-1")
    while world.handed_out()["vault"] == "value-1":
        world.clock.move(timedelta(hours=1))
        world.vendor.use(Credential.of(value="value-1"))
        world.sweep()
    for _ in range(23):
        world.clock.move(timedelta(hours=1))
        world.vendor.use(Credential.of(value="value-1"))
        world.sweep()
        assert "value-1" in world.live()
    sweep_for(world, 20 * DAY)
    assert "value-1" not in world.live()


def test_an_emergency_replaces_what_it_can_not_compare_before_it_revokes() -> None:
    """As before, and then the leak, while the vendor mints nothing: the old key may be what is handed out."""
    world = World(rotate_every=YEAR)
    world.run()
    world.clock.move(31 * DAY)
    applied(world, replace(world.policy, form="text {value}"))
    world.sweep()
    world.clock.move(timedelta(hours=2))
    paste(world, "value-1")
    world.sweep()
    world.clock.move(timedelta(hours=1))
    mints_fail(world)
    world.engine().emergency(world.target, contain_after=DAY, patience=MINUTE)
    assert "value-1" in world.live()
    world.fault = None
    world.clock.move(timedelta(hours=7))
    world.sweep()
    sweep_for(world, DAY, timedelta(hours=1))
    assert "value-1" not in world.live()


@pytest.mark.parametrize("lost", [False, True])
def test_a_note_that_is_lost_makes_nobody_a_stranger(lost: bool) -> None:
    """A person saves the current value once more. That it is ours is found out, and can not be written down at first."""
    world = World(rotate_every=YEAR)
    world.run()
    world.clock.move(DAY)
    paste(world, "value-1")
    world.engine().condemn(world.target, contain_after=timedelta(hours=1))

    def fault(_: int, call: str) -> None:
        if call == "before record":
            world.fault = None
            raise Trouble(Code.UNAVAILABLE if lost else Code.THROTTLED, "vault", "no", maybe_applied=lost)

    world.fault = fault
    world.engine().run(world.target, Order(take_over=True))
    sweep_for(world, DAY, timedelta(hours=1))
    assert world.live() == {"value-2"}
    world.check_settled()


HOUR = timedelta(hours=1)


def forgetful(**more: Any) -> Capabilities:
    """An issuer that does not know when a key was last used."""
    return Capabilities(tells_last_use=False, create=SHORT, revoke=SHORT, **more)


def gone_after(world: World, value: str) -> timedelta:
    """Sweeps until a value is dead; how long it took from now."""
    begun = world.clock.now()
    while value in world.live() and world.clock.now() < begun + 4 * DAY:
        world.clock.move(10 * MINUTE)
        world.sweep()
    return world.clock.now() - begun


def test_what_a_rollback_handed_out_drains_be_it_noted_or_not() -> None:
    """Its process dies right after the promotion, and a person's value takes its place before anybody looks."""
    world = World(rotate_every=YEAR, capabilities=forgetful())
    rotated_once(world)
    world.clock.move(DAY - 5 * MINUTE)
    with cut_off(world, "after promote"):
        world.engine().rollback(world.target)
    world.clock.move(10 * MINUTE)
    paste(world, by_hand(world).credential.fields["value"].reveal())
    assert gone_after(world, "value-1") >= DAY - 20 * MINUTE


@pytest.mark.parametrize("on", ["rollback", "rotate"])
def test_a_condemnation_counts_from_the_look_that_it_rests_on(on: str) -> None:
    """A sweep stops between its look and its decision; meanwhile somebody goes back to the key, and forward again."""
    world = World(rotate_every=YEAR, capabilities=forgetful())
    rotated_once(world)
    world.clock.move(23 * HOUR + 50 * MINUTE)

    def others() -> None:
        assert world.engine().rollback(world.target).achieved
        world.clock.move(6 * MINUTE)
        assert getattr(world.engine(), on)(world.target).achieved
        world.clock.move(6 * MINUTE)

    world.clock.move(11 * MINUTE)
    with meanwhile(world, "before record", others):
        world.engine().run(world.target)
    assert gone_after(world, "value-1") >= 23 * HOUR


def test_what_was_promoted_without_a_note_may_be_what_is_current() -> None:
    """The process dies after the promotion; the form changes, and somebody saves the value once more."""
    world = World(capabilities=forgetful())
    world.run()
    world.clock.move(31 * DAY)
    with cut_off(world, "after promote"):
        world.run()
    world.clock.move(2 * MINUTE)
    applied(world, replace(world.policy, form="text {value}"))
    paste(world, "value-2")
    sweep_for(world, 2 * DAY, HOUR)


def test_a_persons_key_stays_a_persons_after_a_restore() -> None:
    """The journal is brought back from before their value was adopted, and a replica has it already."""
    world = World(stores=("vault", "aws"))
    world.run()
    world.clock.move(DAY)
    theirs = by_hand(world)
    paste(world, theirs.credential.fields["value"].reveal())
    restored(world, world.sweep)
    sweep_for(world, 70 * DAY)
    assert theirs.credential.fields["value"].reveal() in world.live()
    assert isinstance(world.sweep().rest, actions.Done)


@pytest.mark.parametrize("told", [False, True])
def test_no_slot_is_regenerated_that_may_hold_what_is_handed_out(told: bool) -> None:
    """An account's key was adopted, with its slot as its id, or with an id that does not say which slot it is."""
    world = World(model=Model.SLOTS)
    now = world.clock.now()
    world.vendor.keys.append(VendorKey("key1" if told else "portal", "portal", "portal-key1", now, now, slot="key1"))
    unmanaged(world, Credential.of(value="portal-key1"))
    world.engine().adopt(world.target, world.policy, key_id="key1" if told else "portal")
    world.clock.move(31 * DAY)
    outcome = world.sweep()
    if told:
        assert world.handed_out()["vault"] != "portal-key1"
    else:
        assert isinstance(outcome.rest, actions.Hold)
        assert "which slot" in outcome.rest.reason
        assert world.handed_out()["vault"] == "portal-key1"


def test_an_id_is_not_adopted_that_the_entry_itself_contradicts() -> None:
    """Released, and taken over again with the id of another application's key: that one would be revoked."""
    world = World(rotate_every=YEAR)
    world.run()
    other = by_hand(world)
    world.engine().release(world.target)
    with pytest.raises(Trouble, match="it holds the key key_1, and not"):
        world.engine().adopt(world.target, world.policy, key_id=other.key_id)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_rotation_that_was_asked_for_goes_on_once_it_is_known_whose_the_value_is(earlier: bool) -> None:
    """Somebody saves the value once more, or an earlier one, in a console, and asks for a rotation before a sweep comes."""
    world = World(rotate_every=YEAR)
    rotated_once(world) if earlier else world.run()
    world.clock.move(HOUR)
    paste(world, "value-1")
    minted = len(world.vendor.keys)
    assert world.engine().rotate(world.target).achieved
    assert len(world.vendor.keys) == minted + 1
    assert world.handed_out()["vault"] != "value-1"


def test_a_tag_that_can_not_be_taken_off_costs_no_grace() -> None:
    """A key is put back by hand, and that it had been superseded can not be forgotten just then."""
    world = World(capabilities=forgetful())
    world.run()
    world.clock.move(31 * DAY)
    world.sweep()
    world.clock.move(2 * HOUR)
    paste(world, by_hand(world).credential.fields["value"].reveal())
    world.sweep()
    world.clock.move(20 * HOUR)
    paste(world, "value-2")
    world.clock.move(5 * MINUTE)
    applied(world, replace(world.policy, rotate_every=DAY / 2))

    def fault(_: int, call: str) -> None:
        if call == "before forget":
            raise Trouble(Code.DENIED, "vault", "forget is not allowed")

    world.fault = fault
    assert isinstance(world.sweep().rest, actions.Hold)
    world.fault = None
    assert world.handed_out()["vault"] == "value-2"  # nothing takes its place while its drain counts from then
    world.sweep()
    assert world.handed_out()["vault"] != "value-2"
    assert gone_after(world, "value-2") >= DAY - 20 * MINUTE


def test_a_rollback_to_what_can_not_be_read_begins_nothing() -> None:
    """The form has changed since. An intent would keep others waiting, and in the end lock an issuer of two keys."""
    world = World(stores=("vault", "aws"), max_keys=2, rotate_every=YEAR)
    rotated_once(world)
    world.clock.move(HOUR)
    applied(world, replace(world.policy, form="text {value}"))
    world.sweep()
    world.clock.move(HOUR)
    outcome = world.engine().rollback(world.target)
    assert not outcome.achieved
    assert isinstance(outcome.rest, actions.Hold)
    sweep_for(world, 5 * DAY, 6 * HOUR)
    assert isinstance(world.sweep().rest, actions.Done)
    world.check_settled()


def test_a_freeze_holds_up_no_replacement_of_what_expires_by_itself() -> None:
    """An emergency was killed before its thaw, and nobody takes the freeze off. Keys live for twenty days."""
    world = World(rotate_every=30 * DAY)
    world.vendor.expires_after = 20 * DAY
    world.run()
    world.clock.move(DAY)
    world.engine().freeze(world.target, "2026-01-02-0000-ab12")
    sweep_for(world, 40 * DAY, HOUR * 6)
    assert world.handed_out()["vault"] != "value-1"


def test_a_slot_that_may_be_handed_out_is_not_revoked() -> None:
    """Somebody sets another password of the slot in use, and stores it by hand: it dies with the one that it replaced."""
    world = World(model=Model.SLOTS)
    world.run()
    world.clock.move(DAY)
    paste(world, "set-by-hand")
    now = world.clock.now()
    world.vendor.keys.append(VendorKey("portal", "portal", "set-by-hand", now, now, slot="key1"))
    rest = sweep_for(world, 10 * DAY, 6 * HOUR)
    assert isinstance(rest, actions.Hold)
    assert "which slot" in rest.reason
    assert "value-1" in world.live()


def test_an_emergency_does_not_stop_at_a_slot_that_is_refused() -> None:
    """What leaked was adopted with no word of its slot, and the issuer does not touch the slot that it is in."""
    world = World(model=Model.SLOTS)
    now = world.clock.now()
    world.vendor.keys.append(VendorKey("portal", "portal", "portal-key1", now, now, slot="key1"))
    world.vendor.guarded = frozenset({"key1"})
    unmanaged(world, Credential.of(value="portal-key1"))
    world.engine().adopt(world.target, world.policy, key_id="portal")
    world.clock.move(DAY)
    world.emergency()
    sweep_for(world, 2 * HOUR, timedelta(minutes=5))
    assert world.handed_out()["vault"] != "portal-key1"
    assert "portal-key1" not in world.live()


def test_an_orphan_is_not_told_apart_unseen() -> None:
    """Its value is in some entry that nobody knows of; a person puts it into ours before its grace is over."""
    world = World(rotate_every=YEAR, capabilities=forgetful())
    world.run()
    world.clock.move(DAY)
    name = KeyName(world.policy.installation, world.policy.environment, NAME, "e" * 32)
    orphan = MemoryIssuer("vendor", world.vendor).mint(str(name))
    world.clock.move(HOUR)
    world.sweep()
    world.clock.move(22 * HOUR)
    value = orphan.credential.fields["value"].reveal()
    paste(world, value)
    sweep_for(world, 3 * DAY, HOUR)
    assert world.handed_out()["vault"] == value
    assert value in world.live()
