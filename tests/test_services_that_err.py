"""Schedules in which nobody edits anything: a service is late, short, wrong about the time, or delivers twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from providers.issuers.memory import MemoryIssuer, MemoryVendor, VendorKey
from providers.issuers.wire import Silence
from providers.stores.aws import AwsLogin, SecretsManagerStore
from providers.stores.memory import MemoryStore
from rotation import actions
from rotation import policy as policies
from rotation.engine import Engine
from rotation.errors import Code, Trouble
from rotation.incident.plan import Leak
from rotation.incident.selection import Selection
from rotation.model import Capabilities, Credential, Entry, Issued, KeyInfo, LastUse, Model, Propagation
from rotation.ports import Record
from rotation.provision import Refusal
from rotation.situation import Stop
from sandbox.aws.records import ReplicaStatus
from sandbox.aws.server import REGION, AwsServer
from tests.incident.site import Site, policy
from tests.issuers.test_described_life import world as described
from tests.pulumi.test_provision import Place
from tests.test_native_crash import NativeWorld
from tests.world import ENTRY, Crash, Trail, World

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
SHORT = Propagation(in_a_row=2, interval=timedelta(seconds=1), timeout=MINUTE)


def sweeps(world: World, span: timedelta, step: timedelta) -> Iterator[actions.Rest | None]:
    """One sweep after another; the world checks at every call that nobody is handed what is refused."""
    until = world.clock.now() + span
    while world.clock.now() < until:
        world.clock.move(step)
        yield world.sweep().rest


# --- lists, counts and clocks ------------------------------------------------------------------------


@pytest.mark.parametrize("lacks", [slice(0), slice(1, None)], ids=["all", "the oldest"])
@pytest.mark.parametrize("times", [1, 9])
def test_a_list_that_is_short_ends_no_grace(lacks: slice, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A good answer by its form, once or for minutes. The key that it lacks is in use."""
    world = World()
    world.run()
    world.clock.move(31 * DAY)
    world.engine().rotate(world.target)
    world.clock.move(2 * HOUR)
    listed, asked = MemoryIssuer.keys, list[int]()

    def short(issuer: MemoryIssuer) -> Iterator[KeyInfo]:
        asked.append(1)
        return iter(list(listed(issuer))[lacks]) if len(asked) <= times else listed(issuer)

    monkeypatch.setattr(MemoryIssuer, "keys", short)
    world.sweep()
    assert asked
    assert "value-1" in world.live()


def test_counts_that_lag_say_nothing_of_a_young_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Current for two hours only, at an issuer whose counts are a day behind: it reads as never used, and is in use."""
    lag, uses = DAY, list[datetime]()
    world = World(grace=6 * HOUR)

    def counted(_: MemoryIssuer, key_id: str) -> LastUse:
        assert key_id
        return LastUse(True, max((at for at in uses if at + lag <= world.clock.now()), default=None), granularity=lag)

    monkeypatch.setattr(MemoryIssuer, "last_use", counted)
    world.run()
    world.clock.move(2 * HOUR)
    world.engine().rotate(world.target)
    for _ in sweeps(world, 3 * DAY, HOUR):
        assert world.vendor.accepts("value-1")
        uses.append(world.clock.now())


@pytest.mark.parametrize("ahead", [2 * MINUTE, 2 * HOUR, 30 * HOUR])
def test_a_key_that_leaks_after_a_clock_was_put_right_dies(ahead: timedelta) -> None:
    """The store's was ahead at the promotion: what is noted afterwards is from before that, by the right time."""
    world = World()
    world.run()
    world.clock.move(31 * DAY)
    parts = world.engine().outside
    there = Engine(
        parts.stores, parts.issuers, parts.places, world.clock, world.trail, parts.tokens, ahead=lambda _: -ahead
    )
    there.rotate(world.target)
    world.clock.move(30 * MINUTE)
    assert world.emergency().trouble is None
    for _ in sweeps(world, 3 * HOUR, 10 * MINUTE):
        pass
    assert not world.vendor.accepts("value-2")
    assert world.vendor.accepts(world.handed_out()["vault"] or "")


@pytest.mark.parametrize(("behind", "grace"), [(2 * HOUR, DAY), (25 * HOUR, 23 * HOUR)])
def test_a_store_whose_clock_is_put_right_ends_no_grace(behind: timedelta, grace: timedelta) -> None:
    """What is written is in its time, which was behind at the promotion."""
    world = World()
    world.run()
    world.clock.move(31 * DAY)
    parts = world.engine().outside
    there = Engine(
        parts.stores, parts.issuers, parts.places, world.clock, world.trail, parts.tokens, ahead=lambda _: behind
    )
    there.rotate(world.target)
    since = world.clock.now()
    for _ in sweeps(world, 2 * DAY, 10 * MINUTE):
        if not world.vendor.accepts("value-1"):
            break
    assert grace <= world.clock.now() - since < 2 * DAY


@pytest.mark.parametrize("model", [Model.SLOTS, Model.REPLACE])
@pytest.mark.parametrize(("one", "other"), [(20 * MINUTE, timedelta(0)), (timedelta(0), -20 * MINUTE)])
def test_an_attempt_that_looks_old_by_another_clock_is_left_alone(
    model: Model, one: timedelta, other: timedelta
) -> None:
    """Two runners see the store through nodes whose clocks differ, and the mint of the first is on its way."""
    world = World(model=model)
    world.allow_outage = True  # between mint and promotion, where there is one credential only
    world.run()
    world.clock.move(31 * DAY)
    begun: list[str] = []

    def engine(ahead: timedelta) -> Engine:
        parts = World.engine(world).outside
        return Engine(
            parts.stores, parts.issuers, parts.places, world.clock, world.trail, parts.tokens, ahead=lambda _: ahead
        )

    def meanwhile(_: int, call: str) -> None:
        if call == "before mint" and not begun:
            begun.append(call)
            engine(other).run(world.target)

    world.fault = meanwhile
    engine(one).run(world.target)
    assert begun
    assert world.vendor.accepts(world.handed_out()["vault"] or "")


@pytest.mark.parametrize("room", [None, 2])
def test_a_vendor_that_knows_nobody_for_a_while_ends_no_grace(
    room: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For ten minutes it lists no key and refuses every one."""
    world = World(max_keys=room)
    world.allow_outage = True
    world.run()
    world.clock.move(31 * DAY)
    world.engine().rotate(world.target)
    world.clock.move(2 * HOUR)
    with monkeypatch.context() as away:
        away.setattr(MemoryVendor, "accepts", lambda *_: False)
        away.setattr(MemoryIssuer, "keys", lambda _: iter(()))
        for _ in range(5):
            world.sweep()
            world.clock.move(2 * MINUTE)
    for _ in sweeps(world, 6 * HOUR, HOUR):
        pass
    assert "value-1" in world.live()


def test_a_list_that_never_shows_an_old_key_does_not_keep_it_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Showing it to the issuer, to see whether it is dead, were a use."""
    listed, world = MemoryIssuer.keys, World(rotate_every=90 * DAY)
    world.run()
    world.clock.move(31 * DAY)
    world.engine().rotate(world.target)
    monkeypatch.setattr(MemoryIssuer, "keys", lambda issuer: iter([k for k in listed(issuer) if k.key_id != "key_1"]))
    for _ in sweeps(world, 3 * DAY, HOUR):
        pass
    assert "value-1" not in world.live()


@pytest.mark.parametrize("form", ["", "text Bearer {value}"])
def test_an_adopted_value_is_not_read_in_another_form(form: str) -> None:
    """Only a person can revoke it. Read in the form that is declared by now it would be refused, and pass for dead."""
    world = World(model=Model.MANUAL)
    parts = world.engine().outside
    store, issuer = parts.stores["vault"], parts.issuers["vendor"]
    theirs = issuer.mint("a person's key")
    store.set_policy(ENTRY, {})
    MemoryStore("vault", world.vaults["vault"], world.clock.now).put_by_hand(
        ENTRY, Credential.of(value="Bearer value-1")
    )
    world.allow_outage = True
    before = replace(world.policy, form="text Bearer {value}")
    world.engine().adopt(world.target, before, key_id=theirs.key_id)
    store.set_policy(ENTRY, policies.written(replace(before, form=form)))
    world.clock.move(DAY)
    second = issuer.mint("another one")
    world.engine().submit(world.target, second.credential, second.key_id)
    last = list(sweeps(world, 3 * DAY, 6 * HOUR))[-1]
    assert world.vendor.accepts("value-1")
    assert isinstance(last, actions.Hold)
    assert "by hand" in last.reason


@pytest.mark.parametrize("blip", [1, 2, 5, 60])
def test_refusals_of_everybody_are_no_revocation_by_hand(blip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person has to revoke what leaked, and has not yet; for some seconds the vendor refuses every key."""
    world = World(
        model=Model.MANUAL, capabilities=Capabilities(model=Model.MANUAL, revokes=False, create=SHORT, revoke=SHORT)
    )
    issuer = world.engine().outside.issuers["vendor"]
    for name in ("one", "two"):
        made = issuer.mint(f"made by a person: {name}")
        world.engine().submit(world.target, made.credential, made.key_id)
        world.clock.move(DAY)
        if name == "one":
            world.engine().condemn(world.target)
    world.allow_outage = True
    assert world.sweep().unproven
    accepts, until = MemoryVendor.accepts, world.clock.now() + HOUR + timedelta(seconds=blip)
    world.clock.move(HOUR)
    monkeypatch.setattr(MemoryVendor, "accepts", lambda vendor, value: vendor.now() >= until and accepts(vendor, value))
    for _ in sweeps(world, DAY, HOUR):
        pass
    assert world.vendor.accepts("value-1")
    assert world.sweep().unproven


# --- a vendor's own limits ---------------------------------------------------------------------------


@pytest.mark.parametrize("declared", [None, 2])
@pytest.mark.parametrize("at", ["after mint", "before stage"])
@pytest.mark.parametrize("first", [True, False])
def test_a_lost_mint_that_takes_the_last_place_is_revoked(at: str, declared: int | None, first: bool) -> None:
    """Of a quota that the vendor shares with others, which no description declares."""
    able = Capabilities(tells_last_use=True, max_keys=declared, create=SHORT, revoke=SHORT)
    world = World(max_keys=2, capabilities=able)
    if first:
        now = world.clock.now()
        world.vendor.keys.append(VendorKey("key_of_somebody", "", "theirs", now, now))
    else:
        world.run()
        world.clock.move(31 * DAY)
    with suppress(Crash):
        world.fault = lambda _, call: crash_at(world, call, at)
        world.run()
    for _ in sweeps(world, 3 * DAY, HOUR):
        pass
    assert world.live() - {"theirs"} == {world.handed_out()["vault"]}


def test_a_key_that_never_works_makes_room_for_another() -> None:
    """And it has taken the last place."""
    world = World(max_keys=2, capabilities=Capabilities(tells_last_use=True, create=SHORT, revoke=SHORT))
    world.run()
    world.clock.move(31 * DAY)
    world.vendor.create_delay = 400 * DAY
    world.run()
    world.vendor.create_delay = timedelta(0)
    for _ in sweeps(world, 4 * DAY, HOUR):
        pass
    assert world.handed_out()["vault"] not in ("value-1", "value-2", None)
    assert "value-2" not in world.live()


def crash_at(world: World, call: str, at: str) -> None:
    if call == at:
        world.fault = None
        raise Crash(call)


# --- slots -------------------------------------------------------------------------------------------


def test_a_regeneration_that_comes_late_meets_no_new_key() -> None:
    """Its answer was lost and it was sent again; the first is carried out a minute after the second."""
    with described("azure-storage") as world:
        engine = world.patient
        late: list[Any] = []

        def lost(real: Any, call: Any, *more: Any) -> Any:
            if "regenerate" in call.url and not late:
                late.append((world.clock.now() + MINUTE, lambda: real(call, "admin")))
                return Silence("the connection broke before an answer came", sent=True)
            return real(call, *more)

        def carry_out(*_: Any) -> None:
            if late and late[0] and world.clock.now() >= late[0][0]:
                _, go = late[0]
                late[0] = ()
                go()

        engine().run(world.target)
        world.clock.move(30 * DAY)
        engine().run(world.target)
        world.clock.move(2 * HOUR)  # one drains in the first slot, the other is current in the second: both leak
        leaked = world.current()
        world.fault = carry_out
        engine(lost).emergency(world.target)
        assert late == [()]
        assert world.current() != leaked
        assert world.asked.accepts({"value": world.current()}, use=False)


def test_the_one_key_that_works_is_not_revoked() -> None:
    """A server fails over to a standby that lacks its last commits: what is current is dead, and in no list."""
    world = World(model=Model.SLOTS)
    world.allow_outage = True
    world.run()
    world.clock.move(31 * DAY)
    world.engine().rotate(world.target)
    next(key for key in world.vendor.keys if key.value == "value-2").revoked = True
    for _ in sweeps(world, 3 * DAY, HOUR):
        assert world.vendor.accepts("value-1") or world.vendor.accepts(world.handed_out()["vault"] or "")
    assert world.vendor.accepts(world.handed_out()["vault"] or "")


# --- the audit trail, and the service's own rotation ---------------------------------------------------


class Broken(Trail):
    """Takes no record from the end of a mint on."""

    down = False
    armed = False

    def write(self, record: Record) -> None:
        self.down |= self.armed and record.event == "mint.done"
        if self.down:
            raise Trouble(Code.UNAVAILABLE, "audit", "the trail did not answer")
        super().write(record)


@pytest.mark.parametrize("named", [True, False])
def test_a_trail_that_fails_after_a_mint_loses_no_key(named: bool) -> None:
    """The value is in memory alone: it is stored first, and complained about then."""
    able = Capabilities(tells_last_use=True, max_keys=2, names_keys=named, create=SHORT, revoke=SHORT)
    world = World(max_keys=2, capabilities=able)
    world.trail = trail = Broken()
    world.run()
    world.clock.move(31 * DAY)
    trail.armed = True
    outcome = world.run()
    assert outcome.trouble is not None
    assert outcome.trouble.service == "audit"
    trail.armed = trail.down = False
    for _ in sweeps(world, 3 * DAY, 6 * HOUR):
        pass
    assert world.live() == {"value-2"} == set(world.handed_out().values())


@pytest.mark.parametrize("at", ["after observe", "before record", "after record", "before mint", "after mint"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_step_that_is_delivered_twice_leaves_one_key(at: str, whole: bool) -> None:
    """At an issuer that knows no names, and has room for two keys."""
    able = Capabilities(tells_last_use=True, names_keys=False, max_keys=2, create=SHORT, revoke=SHORT)
    world = NativeWorld(stores=("vault",), max_keys=2, capabilities=able)
    world.run()
    world.clock.move(30 * DAY)
    world.begin()
    (token,) = world.service.asked
    came: list[str] = []

    def twin(_: int, call: str) -> None:
        if call != at or came:
            return
        came.append(call)
        for stop in Stop if whole else (Stop.STAGED,):
            world.step(token, stop)

    world.fault = twin
    world.serve()
    assert came
    for _ in sweeps(world, 40 * DAY, 6 * HOUR):
        pass
    world.check_settled()


# --- other regions -----------------------------------------------------------------------------------


def test_a_region_that_lags_keeps_its_key_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets Manager copies the entry to another region by itself, and says that it can not any more."""
    other, world = "us-east-1" if REGION != "us-east-1" else "us-west-2", World()
    with AwsServer(now=world.clock.now) as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key_id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server._secret_access_key)
        parts = world.engine().outside

        def engine() -> Engine:
            store = SecretsManagerStore(
                "vault", region=REGION, endpoint_url=server.endpoint, login=AwsLogin(), replica_regions=(other,),
                clock=world.clock,
            )  # fmt: skip
            return Engine({"vault": store}, parts.issuers, parts.places, world.clock, world.trail, parts.tokens)

        engine().outside.stores["vault"].create(ENTRY, policies.written(world.policy))
        engine().run(world.target)
        service = next(one for one in vars(server._service).values() if type(one).__name__ == "SecretsManager")
        replicas = service.region(REGION).secrets[ENTRY].replicas
        replicas[other] = ReplicaStatus(other, "k", "Failed", "Replication failed: the KMS key is disabled")
        world.clock.move(31 * DAY)
        rotated = engine().run(world.target)
        world.clock.move(3 * DAY)
        held = engine().run(world.target)
        for outcome in (rotated, held):
            assert isinstance(outcome.rest, actions.Hold)
            assert f"vault/{other}: replication is Failed" in outcome.rest.reason
        assert world.live() == {"value-1", "value-2"}
        replicas[other] = ReplicaStatus(other, "k", "InSync", "")
        engine().run(world.target)
        world.clock.move(3 * DAY)
        engine().run(world.target)
        assert world.live() == {"value-2"}


def test_an_apply_does_not_wait_for_other_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service copies within seconds, and says InProgress until it has."""
    place, other = Place(), "us-east-1" if REGION != "us-east-1" else "us-west-2"
    observe = MemoryStore.observe

    def copying(store: MemoryStore, entry: str) -> Entry:
        return replace(observe(store, entry), behind={other: "replication is InProgress"}, copying=frozenset({other}))

    monkeypatch.setattr(MemoryStore, "observe", copying)
    place.create()
    assert place.world.live() == {place.world.handed_out()["vault"]}


# --- incidents, and the end of an entry ----------------------------------------------------------------


def test_a_replacement_that_leaks_too_is_replaced(tmp_path: Path) -> None:
    """Its source is still open; what it replaced is not shown dead yet, as the issuer takes its time."""
    site = Site([policy("chat-api")], tmp_path)
    site.vendors["openai"].revoke_delay = 12 * MINUTE
    first = site.begin(Selection(names=("chat-api",)), identity="2026-01-01-0000-ab12")
    site.run(first, patience=timedelta(seconds=10))
    replacement = site.value("chat-api")
    site.clock.move(8 * MINUTE)
    (step,) = site.plan(Selection(names=("chat-api",))).steps
    token = next(key.token for key in step.keys if key.role == "current")
    leak = Leak("github", "secret", "repo/log", "current", "value", token=token, public=True)
    second = site.begin(
        Selection(names=("chat-api",)), identity="2026-01-01-0010-cd34", leaks={site.target("chat-api"): [leak]}
    )
    site.run(second)
    assert token in {key.token for key in second.secrets[0].keys}
    assert not second.over or not site.accepted(replacement)
    assert site.value("chat-api") != replacement
    for _ in range(24):
        site.clock.move(HOUR)
        site.sweep()
    assert not site.accepted(replacement)


@pytest.mark.parametrize("call", ["after revoke", "before verify", "before keys", "after record", "before delete"])
@pytest.mark.parametrize("turn", [1, 2, 3, 4])
def test_a_deletion_beside_a_sweep_leaves_no_key(call: str, turn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole sweep runs between two calls of it, and the issuer's list is a minute behind."""
    listed = MemoryIssuer.keys

    def late(issuer: MemoryIssuer) -> Iterator[KeyInfo]:
        now = issuer._vendor.now()
        return iter([key for key in listed(issuer) if key.created_at and key.created_at + MINUTE <= now])

    monkeypatch.setattr(MemoryIssuer, "keys", late)
    place = Place()
    place.create()
    world, seen = place.world, list[str]()
    world.allow_outage = True
    place.quiet()

    def sweep_at(_: int, made: str) -> None:
        if made == call and any(record.event == "condemn" for record in world.trail.records):
            seen.append(made)
            if len(seen) == turn:
                world.fault = None
                world.run()

    world.fault = sweep_at
    try:
        place.delete(force=True)
    except Refusal:
        assert not place.deleted()
    else:
        assert not world.live()


def test_a_deletion_that_was_given_up_keeps_no_emergency_from_replacing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has said that it begins; then the audit trail fails, and nothing is condemned."""
    place = Place()
    place.create()
    world = place.world
    place.quiet()
    write = Trail.write

    def refuse(trail: Trail, record: Record) -> None:
        if record.event == "condemn":
            raise Trouble(Code.UNAVAILABLE, "audit", "the trail did not answer")
        write(trail, record)

    with monkeypatch.context() as broken:
        broken.setattr(Trail, "write", refuse)
        with pytest.raises(Trouble, match="audit"):
            place.delete(force=True)
    world.clock.move(3 * MINUTE)
    assert world.emergency().trouble is None
    assert world.live() == {"value-2"} == {world.handed_out()["vault"]}


@pytest.mark.parametrize("kind", ["named", "unnamed", "expiring", "slots", "twice"])
def test_a_mint_after_a_deletion_is_taken_back(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep is held up before its mint. Then the journal may be written first, and that is what fails."""
    model = Model.SLOTS if kind == "slots" else Model.MINT
    slots = ("key1", "key2") if kind == "slots" else ()
    named = kind != "unnamed"
    able = Capabilities(
        model=model, slots=slots, tells_last_use=True, names_keys=named, create=SHORT, revoke=SHORT, spreads=MINUTE
    )
    world = World(model=model, capabilities=able)
    world.vendor.expires_after = 90 * DAY if kind == "expiring" else None
    world.run()
    world.allow_outage = True
    world.clock.move(31 * DAY)
    made: list[str] = []

    def overtaken(_: int, call: str) -> None:
        if call == "before mint" and not made:
            made.append(call)
            if kind == "twice":
                twin = MemoryIssuer("vendor", world.vendor).mint(sent[-1])
                assert twin.key_id
            world.vaults["vault"].entries.pop(ENTRY)

    sent: list[str] = []
    mint = MemoryIssuer.mint

    def sends(issuer: MemoryIssuer, key_name: str, slot: str | None = None) -> Issued:
        sent.append(key_name)
        return mint(issuer, key_name, slot)

    monkeypatch.setattr(MemoryIssuer, "mint", sends)

    world.fault = overtaken
    world.run()
    assert made
    assert world.live() == {"value-1"}, "what the entry handed out is up to who deleted it; the new one is nobody's"


@pytest.mark.parametrize(
    "begun", ["before observe", "before record", "before revoke", "before verify", "before delete"]
)
def test_a_mint_that_a_deletion_overtakes_is_taken_back(begun: str) -> None:
    """A sweep that looked before the deletion began is held up before its mint until the entry is gone."""
    place = Place()
    place.create()
    world = place.world
    world.allow_outage = True
    place.quiet()
    world.clock.move(31 * DAY)
    held, go, main = threading.Event(), threading.Event(), threading.current_thread()

    def hold(_: int, call: str) -> None:
        if threading.current_thread() is not main and call == "before mint" and not go.is_set():
            held.set()
            go.wait(20)

    sweep = threading.Thread(target=world.run)

    def start(number: int, call: str) -> None:
        if threading.current_thread() is main and call == begun and sweep.ident is None:
            sweep.start()
            held.wait(1)
        hold(number, call)

    world.fault = start
    try:
        place.delete(force=True)
    except Refusal:
        pass
    finally:
        go.set()
        sweep.join(20)
        world.fault = None
    assert not (place.deleted() and world.live())
