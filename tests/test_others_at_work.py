"""Schedules in which somebody else is at work: a person's edits and applies, a deletion, a vendor that answers late."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from providers.issuers.iam import IamIssuer
from providers.issuers.memory import MemoryIssuer, MemoryVendor, VendorKey
from providers.issuers.wire import Silence
from providers.stores.memory import MemoryStore, MemoryVault
from providers.stores.vault import TokenLogin, VaultStore
from rotation import journal as facts
from rotation import policy as policies
from rotation.actions import Hold
from rotation.clock import SystemClock
from rotation.engine import Engine, Places, Target
from rotation.errors import Code, Trouble
from rotation.model import (
    Capabilities,
    Check,
    Credential,
    Drain,
    Entry,
    Issued,
    Model,
    Policy,
    Propagation,
    SecretValue,
    Verdict,
)
from rotation.ports import Record
from rotation.provision import Provisioner
from sandbox.aws.server import AwsServer
from sandbox.openbao import OpenBaoServer
from tests.iam.test_iam import USER, IamHarness, Site
from tests.issuers.test_described_life import world as described
from tests.simulation import scenarios
from tests.simulation.explore import NATURES, replayed
from tests.simulation.wire import Actor, Deed, Planned, Step, What, Wire
from tests.simulation.world import Broken, Setting
from tests.simulation.world import World as SimulatedWorld
from tests.world import ENTRY, NAME, Crash, FakeClock, Trail, World

DAY, HOUR, MINUTE, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
SHORT = Propagation(in_a_row=2, interval=timedelta(seconds=1), timeout=MINUTE)
BEARER = "text Bearer {value}"


def store_of(world: World, name: str = "vault") -> MemoryStore:
    return MemoryStore(name, world.vaults[name], world.clock.now)


def apply(world: World, form: str) -> None:
    """The stack is applied with another form of values."""
    store_of(world).set_policy(ENTRY, policies.written(replace(world.policy, form=form)))


def works(world: World) -> bool:
    """Whether what the primary hands out is accepted."""
    value = (world.handed_out()["vault"] or "").removeprefix("Bearer ")
    return bool(value) and world.vendor.accepts(value)


def sweep_for(world: World, span: timedelta, step: timedelta = HOUR) -> None:
    for _ in range(int(span / step)):
        world.clock.move(step)
        world.sweep()


# --- a person, and an apply ---------------------------------------------------------------------------


@pytest.mark.parametrize("applied", ["before", "after"])
@pytest.mark.parametrize("tells", [False, True])
def test_a_value_saved_in_another_form_drains_from_its_replacement(applied: str, tells: bool) -> None:
    """A person saves the current value anew, and it is not of the declared form: nobody can tell that it is ours."""
    world = World(capabilities=Capabilities(tells_last_use=tells, create=SHORT, revoke=SHORT))
    world.allow_outage = True  # the world compares values as they are
    if applied == "before":
        apply(world, BEARER)
    world.run()
    world.clock.move(DAY)
    store_of(world).put_by_hand(ENTRY, Credential.of(value="value-1"))
    if applied == "after":
        apply(world, BEARER)
    handed = world.clock.now()
    for _ in range(60 * 24):
        world.clock.move(HOUR)
        if (world.handed_out()["vault"] or "").removeprefix("Bearer ") == "value-1":
            handed = world.clock.now()
        world.sweep()
        if "value-1" not in world.live():
            break
    assert "value-1" not in world.live()
    assert world.clock.now() - handed >= world.grace


@pytest.mark.parametrize("form", ["other", "declared"])
@pytest.mark.parametrize("tells", [False, True])
def test_going_back_by_hand_in_another_form_starts_the_grace_period_anew(tells: bool, form: str) -> None:
    """Value-1 drains; a person puts it back without what the form has around it; the next rotation replaces it."""
    world = World(capabilities=Capabilities(tells_last_use=tells, create=SHORT, revoke=SHORT))
    world.allow_outage = True
    apply(world, BEARER)
    world.run()
    world.clock.move(31 * DAY)
    world.run()
    world.clock.move(2 * HOUR)
    pasted = "value-1" if form == "other" else "Bearer value-1"
    store_of(world).put_by_hand(ENTRY, Credential.of(value=pasted))
    handed = world.clock.now()
    for _ in range(24 * 50):
        world.clock.move(HOUR)
        if world.handed_out()["vault"] == pasted:
            handed = world.clock.now()
        world.sweep()
        if "value-1" not in world.live():
            break
    assert "value-1" not in world.live()
    assert world.clock.now() - handed >= world.grace


def test_what_was_told_apart_was_told_from_another_value() -> None:
    """A person goes back to the draining value, in another form, between its comparison and its condemnation."""
    world = World(capabilities=Capabilities(tells_last_use=False, create=SHORT, revoke=SHORT))
    world.allow_outage = True
    world.engine().outside.issuers["vendor"].mint("a person's key")
    store_of(world).set_policy(ENTRY, {})
    store_of(world).put_by_hand(ENTRY, Credential.of(value="Bearer value-1"))
    world.engine().adopt(world.target, replace(world.policy, form=BEARER), key_id=None)
    world.clock.move(DAY)
    world.engine().rotate(world.target)
    world.clock.move(HOUR)
    assert world.engine().rollback(world.target).achieved
    world.clock.move(HOUR)
    world.sweep()
    world.clock.move(DAY)
    assert world.handed_out() == {"vault": "Bearer value-1"}
    pasted: list[str] = []

    def paste(_: object, call: str) -> None:
        if call == "before record" and world.trail.records[-1].event == "condemn" and not pasted:
            store_of(world).put_by_hand(ENTRY, Credential.of(value="value-2"))
            pasted.append(call)

    world.fault = paste
    for _ in range(60):
        world.sweep()
        world.clock.move(HOUR)
        assert works(world)
    assert pasted


def test_a_primary_that_is_stranded_waits_for_a_mirror_under_way() -> None:
    """An emergency meets a mirror before its promotion, and dies; then somebody saves a typo into the primary."""
    able = Capabilities(tells_last_use=True, max_keys=2, create=SHORT, revoke=SHORT)
    world = World(stores=("vault", "rep"), max_keys=2, capabilities=able)
    world.run()
    world.clock.move(31 * DAY)
    promotions: list[str] = []
    dead: list[str] = []

    def looks(_: object, __: str) -> None:
        value = world.handed_out()["rep"]
        if value is not None and not world.vendor.accepts(value):
            dead.append(value)

    def dies(_: object, call: str) -> None:
        if call == "before mint":
            raise Crash(call)

    def fault(_: object, call: str) -> None:
        promotions.extend([call] * (call == "before promote"))
        if len(promotions) == 2:
            world.fault = dies
            assert world.handed_out() == {"vault": "value-2", "rep": "value-1"}
            world.clock.move(timedelta(seconds=5))
            world.engine().condemn(world.target, contain_after=HOUR)
            world.allow_outage = True  # a person's, of the primary alone
            store_of(world).put_by_hand(ENTRY, Credential.of(value="typo"))
            world.clock.move(timedelta(seconds=20))
            with suppress(Crash):
                world.sweep()
            world.fault = looks

    world.fault = fault
    world.run()
    assert len(promotions) >= 2
    assert not dead


@pytest.mark.parametrize("able", [
    Capabilities(max_keys=2, create=SHORT, revoke=SHORT),
    Capabilities(model=Model.SLOTS, slots=("one", "two"), create=SHORT, revoke=SHORT),
])  # fmt: skip
@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize("dies", [True, False])
def test_a_stranded_primary_at_a_full_issuer_goes_back(able: Capabilities, mirrored: bool, dies: bool) -> None:
    """Somebody saves a typo into the primary before what is superseded was noted: neither key can go, none can be made."""
    world = World(stores=("vault", "rep"), model=able.model, max_keys=2, capabilities=able, allow_outage=True)
    world.run()
    world.clock.move(31 * DAY)
    calls: list[str] = []

    def fault(_: object, call: str) -> None:
        calls.append(call)
        if calls.count("after promote") == 1 + mirrored and call == ("after promote" if mirrored else "after record"):
            world.fault = None
            store_of(world).put_by_hand(ENTRY, Credential.of(value="typo"))
            if dies:
                raise Crash(call)

    world.fault = fault
    with suppress(Crash):
        world.run()
    if dies:
        assert world.handed_out() == {"vault": "typo", "rep": "value-2" if mirrored else "value-1"}
        sweep_for(world, 2 * HOUR)
    assert world.handed_out() == {"vault": "value-2", "rep": "value-2"}
    sweep_for(world, 3 * DAY)
    assert world.live() == {"value-2"}
    sweep_for(world, 40 * DAY)
    world.check_settled()


ONE = Capabilities(model=Model.REPLACE, create=SHORT, revoke=SHORT)
"""An issuer of one credential: creating the next one is what destroys it."""


@pytest.mark.parametrize("restored", [False, True])
def test_a_typo_over_the_one_credential_destroys_nothing(restored: bool) -> None:
    """The mint that is to replace it fails, and the person may put the right value back meanwhile: it has to live."""
    world = World(model=Model.REPLACE, capabilities=ONE, allow_outage=True)
    world.run()
    world.clock.move(DAY)
    store_of(world).put_by_hand(ENTRY, Credential.of(value="typo"))

    def full(_: object, call: str) -> None:
        if call == "before mint":
            raise Trouble(Code.THROTTLED, "vendor", "slow down")

    world.fault = full
    world.sweep()
    world.clock.move(MINUTE)
    world.sweep()
    assert world.live() == {"value-1"}
    if restored:
        store_of(world).put_by_hand(ENTRY, Credential.of(value="value-1"))
    world.fault = None
    sweep_for(world, DAY)
    assert world.live() == {world.handed_out()["vault"]} == {"value-1" if restored else "value-2"}
    assert "revoke" not in world.trail.events()


def test_another_login_that_a_person_saves_takes_nothing_from_the_one_credential() -> None:
    """It works, and so does the one before, which nobody revokes: whoever still uses it is told of to its person."""
    world = World(model=Model.REPLACE, capabilities=ONE)
    world.run()
    world.clock.move(DAY)
    now = world.clock.now()
    world.vendor.keys.append(VendorKey("key_9", "another login", "theirs", created_at=now, accepted_from=now))
    store_of(world).put_by_hand(ENTRY, Credential.of(value="theirs"))
    sweep_for(world, 5 * HOUR)
    rest = world.sweep().rest
    assert isinstance(rest, Hold)
    assert "revoke it there by hand" in rest.reason
    assert world.live() == {"value-1", "theirs"}
    assert "revoke" not in world.trail.events()


def test_the_one_credential_under_another_name_is_not_revoked() -> None:
    """Released, saved anew, adopted; a replica still has it under the name that it had."""
    world = World(stores=("vault", "rep"), model=Model.REPLACE, capabilities=ONE, allow_outage=True)
    world.run()
    world.clock.move(DAY)
    world.engine().release(world.target)
    store_of(world).put_by_hand(ENTRY, Credential.of(value="value-1"))
    store_of(world, "rep").set_policy(ENTRY, policies.written(world.policy))
    world.engine().adopt(world.target, world.policy, key_id="key_1")
    sweep_for(world, 3 * DAY)
    assert world.handed_out() == {"vault": "value-1", "rep": "value-1"}
    assert world.live() == {"value-1"}
    assert "proven" not in world.trail.events()


def test_a_stranded_primary_goes_back_where_somebody_elses_key_fills_the_issuer() -> None:
    """A person makes a key of their own, puts it into the primary, and then a typo: the issuer says that it is full."""
    able = Capabilities(max_keys=2, create=SHORT, revoke=SHORT)
    world = World(stores=("vault", "rep"), max_keys=2, capabilities=able, allow_outage=True)
    world.run()
    own = MemoryIssuer("vendor", world.vendor).mint("a person's")
    store_of(world).put_by_hand(ENTRY, own.credential)
    store_of(world).put_by_hand(ENTRY, Credential.of(value="typo"))
    sweep_for(world, 2 * HOUR)
    assert world.handed_out() == {"vault": "value-1", "rep": "value-1"}
    assert world.live() == {"value-1", "value-2"}


def test_a_replica_that_was_filled_by_hand_does_not_keep_a_dead_primary_as_it_is() -> None:
    """A run dies right after its promotion, a person hurries the replica along, and saves a typo into the primary."""
    able = Capabilities(tells_last_use=True, max_keys=2, create=SHORT, revoke=SHORT)
    world = World(stores=("vault", "rep"), max_keys=2, capabilities=able, allow_outage=True)
    world.run()
    world.clock.move(31 * DAY)

    def dies(_: object, call: str) -> None:
        if call == "after promote":
            raise Crash(call)

    world.fault = dies
    with suppress(Crash):
        world.run()
    world.fault = None
    store_of(world, "rep").put_by_hand(ENTRY, Credential.of(value="value-2"))
    store_of(world).put_by_hand(ENTRY, Credential.of(value="typo"))
    sweep_for(world, 2 * HOUR)
    assert all(value is not None and world.vendor.accepts(value) for value in world.handed_out().values())
    sweep_for(world, 40 * DAY)
    assert world.live() == set(world.handed_out().values())


@pytest.mark.parametrize("able", [
    Capabilities(tells_last_use=True, max_keys=2, create=SHORT, revoke=SHORT),
    Capabilities(tells_last_use=True, model=Model.SLOTS, slots=("one", "two"), create=SHORT, revoke=SHORT),
])  # fmt: skip
@pytest.mark.parametrize("dies", [True, False])
def test_a_typo_that_is_stored_anew_is_mirrored_nowhere(able: Capabilities, dies: bool) -> None:
    """An emergency has to get past the version of a typo: that it is the same value is no word of the issuer."""
    world = World(stores=("vault", "rep"), model=able.model, max_keys=2, capabilities=able, allow_outage=True)
    world.run()
    world.clock.move(DAY)
    store_of(world).put_by_hand(ENTRY, Credential.of(value="typo"))
    world.clock.move(HOUR)
    calls: list[str] = []
    shown: set[str | None] = set()

    def looks(_: object, __: str) -> None:
        shown.add(world.handed_out()["rep"])

    def fault(_: object, call: str) -> None:
        calls.append(call)
        if call == "after verify" and "after stage" in calls:
            world.fault = looks
            if dies:
                raise Crash(call)
            world.engine().emergency(world.target, contain_after=3 * DAY, patience=MINUTE)

    world.fault = fault
    with suppress(Crash):
        world.sweep()
    world.clock.move(MINUTE)
    if dies:
        world.engine().emergency(world.target, contain_after=3 * DAY, patience=MINUTE)
    sweep_for(world, DAY)
    assert "typo" not in shown
    assert world.live() == {world.handed_out()["vault"]} == {world.handed_out()["rep"]}


def test_a_stranded_primary_whose_last_value_nobody_can_read_says_so() -> None:
    """It is not tried for ever, and the wait names what ends it."""
    able = Capabilities(max_keys=2, create=SHORT, revoke=SHORT)
    world = World(stores=("vault", "rep"), max_keys=2, capabilities=able, allow_outage=True)
    world.run()
    world.clock.move(31 * DAY)
    calls: list[str] = []

    def fault(_: object, call: str) -> None:
        calls.append(call)
        if call == "after record" and "after promote" in calls:
            world.fault = None
            store_of(world).put_by_hand(ENTRY, Credential.of(value="typo"))
            raise Crash(call)

    world.fault = fault
    with suppress(Crash):
        world.run()
    entry = world.vaults["vault"].entries[ENTRY]
    entry.versions = [version for version in entry.versions if version == entry.current]
    sweep_for(world, 2 * DAY)
    rest = world.sweep().rest
    assert rest is not None
    assert "`keyturn emergency support-copilot-chat` does not wait" in rest.reason
    attempts = store_of(world).observe(ENTRY).journal.attempts.values()
    assert sum(attempt.of is not None for attempt in attempts) == 3


def test_a_look_that_is_behind_takes_nothing_back() -> None:
    """An entry made a moment ago, which a stale read does not know yet; another run has promoted this one's mint."""
    world = World(capabilities=Capabilities(tells_last_use=True, create=SHORT, revoke=SHORT))
    begun, promoted = world.clock.now(), list[str]()

    class Behind(MemoryStore):
        def observe(self, entry: str) -> Entry:
            if promoted and world.clock.now() < begun + timedelta(seconds=10):
                raise Trouble(Code.NOT_FOUND, self.name, f"{entry}: no such entry")
            return super().observe(entry)

    parts = world.engine().outside
    behind = Behind("vault", world.vaults["vault"], world.clock.now, world._hook_of("vault"))

    def fault(_: object, call: str) -> None:
        if call == "after stage" and not promoted:
            world.fault = None
            world.run()  # takes up what is staged, and promotes it
            promoted.append(call)

    world.fault = fault
    Engine({"vault": behind}, parts.issuers, parts.places, world.clock, world.trail, parts.tokens).run(world.target)
    assert promoted
    world.check()
    world.sweep_until_quiet()
    world.check_settled()


def test_a_contained_slot_is_replaced_after_a_mint_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An apply changed the form, so nobody can read the leaked value any more; and the issuer refuses one mint."""
    world = World(model=Model.SLOTS)
    world.allow_outage = True
    world.run()
    world.clock.move(DAY)
    apply(world, BEARER)
    real, refusals = MemoryIssuer.mint, [True]

    def mint(issuer: MemoryIssuer, key_name: str, slot: str | None = None) -> Issued:
        if refusals:
            refusals.pop()
            raise Trouble(Code.DENIED, "vendor", "refused for certain, once")
        return real(issuer, key_name, slot)

    monkeypatch.setattr(MemoryIssuer, "mint", mint)
    world.engine().emergency(world.target, contain_after=timedelta(0))
    assert not refusals
    sweep_for(world, 2 * DAY)
    assert works(world)


@pytest.mark.parametrize("regenerates", [False, True])
@pytest.mark.parametrize("typo", ["typo", "value-1"])
def test_a_typo_does_not_keep_both_slots(typo: str, regenerates: bool) -> None:
    """A person saves something dead while the old slot drains: that slot takes the replacement once it has drained."""
    able = Capabilities(model=Model.SLOTS, slots=("key1", "key2"), regenerates=regenerates, create=SHORT, revoke=SHORT)
    world = World(model=Model.SLOTS, capabilities=able)
    world.run()
    world.clock.move(31 * DAY)
    world.run()
    if typo == "value-1":  # revoked by then, and a person goes back to it while the next one drains
        sweep_for(world, 3 * DAY)
        assert "value-1" not in world.live()
        world.clock.move(31 * DAY)
        world.run()
    world.clock.move(HOUR)
    world.allow_outage = True  # a person's
    store_of(world).put_by_hand(ENTRY, Credential.of(value=typo))
    sweep_for(world, 20 * DAY)
    assert works(world)


@pytest.mark.parametrize("most", [2, None])
@pytest.mark.parametrize("how", ["typo", "backup", "deleted"])
def test_a_primary_with_nothing_that_works_gets_the_place_of_what_drains(how: str, most: int | None) -> None:
    """The replica still hands out what works, and can not agree with a primary that has nothing to mirror."""
    able = Capabilities(tells_last_use=True, max_keys=most, create=SHORT, revoke=SHORT)
    world = World(stores=("vault", "rep"), max_keys=most, capabilities=able)
    world.run()
    entry = world.vaults["vault"].entries[ENTRY]
    backup = dict(entry.facts), list(entry.versions), entry.current, entry.pending
    world.clock.move(DAY)
    world.engine().rotate(world.target)
    sweep_for(world, 3 * DAY)
    world.engine().rotate(world.target)
    world.clock.move(HOUR)
    assert world.live() == {"value-2", "value-3"}
    world.allow_outage = True  # a person's
    match how:
        case "typo":
            store_of(world).put_by_hand(ENTRY, Credential.of(value="typo"))
        case "backup":
            entry.facts, entry.versions, entry.current, entry.pending = backup
        case _:
            entry.versions = [version for version in entry.versions if version is not entry.current]
            entry.current = None
    sweep_for(world, 40 * DAY, 2 * HOUR)
    assert works(world)


def test_what_a_person_took_from_where_it_was_staged_is_not_revoked() -> None:
    """The replica's login may not promote, so a person pastes the staged value, whose attempt was given up by then."""
    world = World(stores=("vault", "rep"), fenced=False)
    world.run()
    world.clock.move(DAY)
    world.denied = ("rep", ("stage",))
    world.engine().rotate(world.target)
    pending = store_of(world).observe(ENTRY).pending
    assert pending is not None
    assert pending.credential is not None
    world.denied = ("", ())
    world.clock.move(16 * MINUTE)

    def dies(_: object, call: str) -> None:
        if call == "after promote":
            world.fault = None
            raise Crash(call)

    world.fault = dies
    with suppress(Crash):
        world.sweep()
    store_of(world, "rep").put_by_hand(ENTRY, pending.credential)
    world.clock.move(MINUTE)
    world.denied = ("rep", ("promote",))
    for _ in range(5):
        world.clock.move(16 * MINUTE)
        world.sweep()  # the world checks that each store hands out what works


def test_a_note_that_comes_late_is_read_in_no_other_form() -> None:
    """It brings back the facts of a key that was retired meanwhile, of which only a version tells."""
    world = World(capabilities=Capabilities(create=SHORT, revoke=SHORT))
    world.allow_outage = True
    promotions: list[str] = []

    def fault(_: object, call: str) -> None:
        promotions.extend([call] * (call == "before promote"))
        if call == "after observe" and len(promotions) == 2 and world.handed_out()["vault"] == "value-2":
            promotions.append("paused")  # this run has seen its promotion, and not noted it yet
            world.engine().rotate(world.target)
            sweep_for(world, 3 * DAY)
            assert "value-2" not in world.live()

    world.fault = fault
    world.run()
    world.clock.move(DAY)
    world.engine().rotate(world.target)
    assert "paused" in promotions
    world.fault = None
    apply(world, BEARER)
    sweep_for(world, 80 * DAY, 6 * HOUR)
    token = "token000000000000000000000000002"
    facts = store_of(world).observe(ENTRY).journal.facts
    assert not [fact for fact in facts if fact.endswith(token) and fact.startswith(("condemned", "revoked", "key"))]


# --- a vendor that answers late -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["azure-storage", "azure-openai"])
@pytest.mark.parametrize("minutes", [1, 3, 16])
def test_a_slot_is_not_made_anew_long_after_its_look(kind: str, minutes: int) -> None:
    """A revocation stands still before its second request; the slot holds what is handed out by the time it goes on."""
    with described(kind) as world:
        engine = world.patient
        engine().run(world.target)
        world.clock.move(30 * DAY)
        engine().run(world.target)
        world.clock.move(20 * DAY)
        paused: list[str] = []

        def send(real: Callable[..., Any], call: Any, *more: Any) -> Any:
            if "regenerate" in call.url and not paused:
                for _ in range(minutes):
                    world.clock.move(MINUTE)
                    engine().run(world.target)
                engine().emergency(world.target)
                world.clock.move(timedelta(seconds=5))
                paused.append(world.current())
            return real(call, *more)

        engine(send).run(world.target)
        assert paused
        world.clock.move(timedelta(seconds=10))
        assert world.asked.accepts({"value": world.current()}, use=False)


@pytest.mark.parametrize("kind", ["azure-storage", "azure-openai"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_slot_is_adopted_by_its_name_or_its_id(kind: str, whole: bool) -> None:
    """It is the value in it that tells: its key retires like any other, and another slot is refused."""
    with described(kind) as world:
        engine = world.engine()
        slots = engine.outside.issuers["vendor"].capabilities.slots
        issued = engine.outside.issuers["vendor"].mint("by hand", slots[0])
        world.clock.move(timedelta(seconds=10))
        store_of(world).set_policy(ENTRY, {})
        store_of(world).put_by_hand(ENTRY, issued.credential)
        world.clock.move(HOUR)
        with pytest.raises(Trouble, match=f"is that of {slots[0]}, and not of {slots[1]}"):
            world.engine().adopt(world.target, world.policy, key_id=slots[1])
        world.engine().adopt(world.target, world.policy, key_id=issued.key_id if whole else slots[0])
        for days in (30, 1.1, 14, 1, 15, 1.1, 31, 1.1, 31):
            world.clock.move(timedelta(days=days))
            world.engine().run(world.target)
        assert world.trail.events().count("promote.done") >= 3


class Spreading:
    """IAM, parts of which do not know a young key: those that list, and where asked for those that change."""

    def __init__(self, client: Any, clock: FakeClock, lag: timedelta, *, changes: bool) -> None:
        self._client, self._clock, self._lag, self._changes = client, clock, lag, changes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def is_young(self, key: Mapping[str, Any]) -> bool:
        return bool(key["CreateDate"] > self._clock.now() - self._lag)

    def list_access_keys(self, **asked: str) -> Any:
        page = self._client.list_access_keys(**asked)
        page["AccessKeyMetadata"] = [key for key in page["AccessKeyMetadata"] if not self.is_young(key)]
        return page

    def update_access_key(self, **asked: str) -> Any:
        young = [
            key["AccessKeyId"]
            for key in self._client.list_access_keys(UserName=asked["UserName"])["AccessKeyMetadata"]
            if self.is_young(key)
        ]
        if self._changes and asked["AccessKeyId"] in young:
            answer = {"Error": {"Code": "NoSuchEntity", "Message": "The Access Key cannot be found"}}
            raise ClientError({**answer, "ResponseMetadata": {"HTTPStatusCode": 404}}, "UpdateAccessKey")  # type: ignore[typeddict-item]
        return self._client.update_access_key(**asked)


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("dies", [False, True])
def test_an_emergency_right_after_a_mint_leaves_no_key_in_iam(dies: bool, changes: bool) -> None:
    """A second after its mint neither STS nor the list knows the key: that says nothing of whether it is dead."""
    clock, lag = FakeClock(), timedelta(seconds=10)
    with AwsServer(now=clock.now) as server:
        harness = IamHarness(server, clock)
        site = Site(harness)
        issuer = harness.issuer
        assert isinstance(issuer, IamIssuer)
        connect, shown = issuer._client, issuer.verify
        issuer._client = lambda: Spreading(connect(), clock, lag, changes=changes)  # type: ignore[method-assign]
        fired: list[str] = []

        def verify(credential: Credential) -> Check:
            key_id = credential.fields["access_key_id"].reveal()
            if not fired and site.trail.events().count("mint") > 1 and key_id != site.current:
                fired.append(key_id)
                clock.move(timedelta(seconds=1))
                site.engine().emergency(site.target)
                if dies:
                    raise Crash("before verify")
            keys = {key["AccessKeyId"]: key for key in harness.iam.list_access_keys(UserName=USER)["AccessKeyMetadata"]}
            if key_id in keys and keys[key_id]["CreateDate"] > clock.now() - lag:
                return Check(Verdict.INVALID, "InvalidClientTokenId: no such key, or not active")
            return shown(credential)

        issuer.verify = verify  # type: ignore[method-assign]
        site.sweep()
        clock.move(30 * DAY)
        with suppress(Crash):
            site.engine().run(site.target)
        assert fired
        site.settle()
        for _ in range(3):
            site.sweep(days=31)
        assert fired[0] not in harness.statuses()


# --- a deletion ---------------------------------------------------------------------------------------


class Ahead(SystemClock):
    """The server's time, which can be moved ahead."""

    by = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.by

    def monotonic(self) -> float:
        return super().monotonic() + self.by.total_seconds()

    def sleep(self, seconds: float) -> None:
        self.by += timedelta(seconds=seconds)


@dataclass
class Deleting:
    """A store in which an entry is deleted right before one call of a run on it."""

    store: Any
    call: str
    delete: Callable[[], None]

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.store, name)
        if name != self.call:
            return real

        def first(*asked: Any) -> Any:
            if name != "record" or any(fact.startswith("attempt.") for fact in asked[1]):
                self.delete()
            return real(*asked)

        return first


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("call", ["record", "promote"])
def test_a_deletion_in_vault_leaves_no_key_and_no_entry(call: str, named: bool) -> None:
    """OpenBao keeps what comes for a deleted entry: the run sees at its next look that it is gone."""
    clock, trail, deleted = Ahead(), Trail(), list[bool]()
    vendor = MemoryVendor(clock.now)
    able = Capabilities(tells_last_use=True, create=SHORT, revoke=SHORT, names_keys=named)
    places = Places(lambda store, environment, name: f"{environment}/{name}", lambda environment, name: None)
    policy = Policy(
        installation="acme", environment="test", name=NAME, store="vault", issuer="vendor", owner="team",
        rotate_every=30 * DAY, grace=DAY, drain=Drain(),
    )  # fmt: skip
    with OpenBaoServer() as server:
        prefix = f"t{uuid.uuid4().hex[:8]}"

        def store() -> VaultStore:
            return VaultStore(
                "vault", address=server.address, mount="secret", prefix=prefix, ca_bundle=str(server.ca),
                auth=TokenLogin(SecretValue(server.root_token)), clock=clock, environment="test",
            )  # fmt: skip

        def engine(through: Any) -> Engine:
            return Engine({"vault": through}, {"vendor": MemoryIssuer("vendor", vendor, able)}, places, clock, trail)

        def delete() -> None:
            if not deleted:
                deleted.append(True)
                provisioner().delete(policy, force_revoke=True)

        def provisioner() -> Provisioner:
            issuers = {"vendor": MemoryIssuer("vendor", vendor, able)}
            return Provisioner(engine(store()), {"vault": store()}, issuers, places, clock, print)

        provisioner().create(policy, bootstrap="apply")
        assert len(vendor.live()) == 1
        clock.by += 31 * DAY
        outcome = engine(Deleting(store(), call, delete)).run(Target("vault", f"test/{NAME}"))
        assert deleted
        assert outcome.trouble is not None
        assert outcome.trouble.code is Code.NOT_FOUND
        assert not vendor.live()
        assert not list(store().listing())
        with pytest.raises(Trouble):
            store().current(f"test/{NAME}")


# --- a note that can not be written -------------------------------------------------------------------


def refused(world: World, fact: str, times: int = 1) -> None:
    """So many writes of such facts are refused for certain, whatever passes by meanwhile."""
    store = store_of(world)
    left = [times]

    class Refusing(MemoryStore):
        def record(self, entry: str, facts: Mapping[str, str]) -> None:
            self._refuse(*facts)
            super().record(entry, facts)

        def forget(self, entry: str, facts: Iterable[str]) -> None:
            facts = list(facts)
            self._refuse(*facts)
            super().forget(entry, facts)

        def _refuse(self, *facts: str) -> None:
            if left[0] and any(one.startswith(fact) for one in facts):
                left[0] -= 1
                raise Trouble(Code.THROTTLED, "vault", "slow down")

    world.opened = {store.name: Refusing}


@pytest.mark.parametrize("then", ["emergency", "edit"])
def test_nothing_is_mirrored_before_its_promotion_is_noted(then: str) -> None:
    """Else a key that a replica hands out, and that nobody can reach, counts as one that was never handed out."""
    world = World(stores=("vault", "azure"), capabilities=Capabilities(create=SHORT, revoke=SHORT))
    world.run()
    world.clock.move(31 * DAY)
    refused(world, "promoted.")
    assert world.run().trouble is not None
    assert world.handed_out() == {"vault": "value-2", "azure": "value-1"}
    world.opened.clear()
    world.denied = ("azure", ("observe",))
    world.allow_outage = True
    if then == "emergency":
        world.emergency(contain_after=2 * HOUR)
    else:
        issuer = world.engine().outside.issuers["vendor"]
        store_of(world).put_by_hand(ENTRY, issuer.mint("a person's key").credential)
    sweep_for(world, 3 * DAY)
    assert world.vendor.accepts(world.handed_out()["azure"] or "") or then == "emergency"  # contained, as declared
    world.denied = ("", ())
    sweep_for(world, 3 * DAY)
    assert len({*world.handed_out().values()}) == 1
    assert works(world)


@pytest.mark.parametrize("times", [1, 2])
def test_what_a_rollback_made_current_keeps_its_grace(times: int) -> None:
    """Its process dies at once, and the first sweep a day later may not write what it sees."""
    world = World(capabilities=Capabilities(create=SHORT, revoke=SHORT))
    world.run()
    world.clock.move(31 * DAY)
    world.run()
    world.clock.move(HOUR)

    def die(_: int, call: str) -> None:
        if call == "after promote":
            raise Crash

    world.fault = die
    with suppress(Crash):
        world.engine().rollback(world.target)
    world.fault = None
    assert world.handed_out() == {"vault": "value-1"}
    world.clock.move(25 * HOUR)
    refused(world, "", times)
    world.sweep()
    world.opened.clear()
    last = world.clock.at
    while "value-1" in world.live() and world.clock.at < last + 9 * DAY:
        if world.handed_out() == {"vault": "value-1"}:
            last = world.clock.at
        world.clock.move(10 * MINUTE)
        world.sweep()
    assert world.clock.at - last >= world.grace


# --- slots that are regenerated -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan",
    [
        "due twice / aws+azure / regenerated slots / 16:after>two+26h 46:pause>one+16m 118:linger>two+26h",
        "rollback / aws / regenerated slots / 5:die-after",
    ],
)
def test_a_slot_rests_after_it_was_regenerated(plan: str) -> None:
    """What nobody holds is forgotten only once no other request to regenerate its slot is under way."""
    assert replayed(plan).broken is None


def test_no_slot_is_given_out_while_a_request_to_regenerate_it_is_under_way() -> None:
    """Contained at once, and its process dies; others find the key dead and replace it before that request lands."""

    class DieLate:
        done = False

        def __call__(self, number: int, step: Step) -> Deed | None:
            if self.done or not (step.actor == "emergency" and step.call.startswith("regenerate")):
                return None
            self.done = True
            return Deed(What.DIE_LATE)

        def over(self, number: int) -> bool:
            return self.done

    wire = Wire(Planned())
    world = SimulatedWorld.new(Setting(("vault",), NATURES["regenerated slots"]), wire)
    scenarios.in_grace(world)
    wire.choose = DieLate()
    wire.act([Actor("emergency", partial(scenarios.contain, world))])
    wire.choose = Planned()
    try:
        for minutes in (0.0, 0.5, 10, 60, 25 * 60, 25 * 60):
            wire.move(minutes * MINUTE)
            world.sweep()
    except Broken as broken:
        pytest.fail(str(broken))
    assert world.handed[0] is not None
    assert world.vendor.accepts(world.handed[0], wire.now)
    assert world.unsettled() is None


@pytest.mark.parametrize("kind", ["azure-openai", "azure-storage"])
def test_a_second_request_to_regenerate_a_slot_comes_before_its_promotion(kind: str) -> None:
    """What goes out twice takes effect within a call's time: nothing is promoted until then, and then it is tried again."""
    with described(kind) as world:
        world.patient().run(world.target)
        world.clock.move(30 * DAY)
        copies: list[tuple[datetime, Callable[[], object]]] = []

        def send(real: Any, call: Any, *more: Any) -> Any:
            for at, copy in copies:
                if world.clock.now() >= at:
                    copies.clear()
                    copy()
            answer = real(call, *more)
            if "regenerate" in call.url and not sent:
                sent.append(call.url)
                copies.append((world.clock.now() + 50 * SECOND, lambda: real(call, *more)))
            return answer

        sent: list[str] = []
        engine = world.patient(send)
        for _ in range(30):
            engine.run(world.target)
            world.clock.move(10 * MINUTE)
            assert world.asked.accepts({"value": world.current()}, use=False)
        assert sent
        assert not copies


@pytest.mark.parametrize("kind", ["azure-openai", "azure-storage"])
def test_a_slot_rests_before_its_secret_is_deleted(kind: str) -> None:
    """The request that regenerates it was not answered, and lands when the same secret is made anew elsewhere."""
    with described(kind) as world:
        world.vaults["vault"].entries.clear()
        world.vaults["other"] = MemoryVault()
        late: list[tuple[datetime, Callable[[], object]]] = []

        def send(real: Any, call: Any, *more: Any) -> Any:
            if "regenerate" in call.url and late_too and not late:
                late.append((world.clock.now() + MINUTE, lambda: real(call, *more)))
                world.clock.move(15 * SECOND)
                return Silence("no answer in time", sent=True)
            return real(call, *more)

        late_too = False
        engine = world.patient(send)
        outside = engine.outside
        provisioner = Provisioner(engine, outside.stores, outside.issuers, outside.places, world.clock, print)
        provisioner.create(world.policy, bootstrap="apply")
        world.clock.move(5 * DAY)
        world.check = lambda: None  # type: ignore[method-assign]
        late_too = True
        provisioner.delete(world.policy, force_revoke=True)
        ((lands, land),) = late
        assert world.clock.now() >= lands
        land()
        provisioner.create(replace(world.policy, store="other"), bootstrap="apply")
        handed = MemoryStore("other", world.vaults["other"], world.clock.now).handed_out(ENTRY)
        assert handed is not None
        assert world.asked.accepts({"value": handed.fields["value"].reveal()}, use=False)


# --- a mint that arrives twice, in a store whose versions name no key -----------------------------------


def minted_twice(world: World, dies: str) -> None:
    """A rotation whose request to mint arrives twice; the process dies at this call."""
    minted: list[str] = []

    def fault(_: int, call: str) -> None:
        if call == "after mint" and not minted:
            minted.append(world.vendor.keys[-1].name)
            MemoryIssuer("vendor", world.vendor).mint(minted[0])
        if call == dies and minted:
            world.fault = None
            raise Crash

    world.fault = fault
    with suppress(Crash):
        world.engine().rotate(world.target)
    world.fault = None


def turned(**options: Any) -> World:
    world = World(keeps_key_id=False, capabilities=Capabilities(create=SHORT, revoke=SHORT), **options)
    world.run()
    world.clock.move(31 * DAY)
    return world


@pytest.mark.parametrize("dies", ["after stage", "after promote", "before record"])
def test_the_key_whose_value_is_stored_is_the_one_that_lives(dies: str) -> None:
    """The list has two keys of one name, and its last one is not the one in the store."""
    world = turned()
    minted_twice(world, dies)
    for _ in range(12 * 24):
        world.clock.move(HOUR)
        world.sweep()
        assert works(world)
    world.check_settled()
    assert len(world.live()) == 1


@pytest.mark.parametrize(
    "plan",
    [
        "due, emergency and an edit / aws / two keys / 6:late",
        "due, emergency and an edit / aws+azure / two keys / 11:die-late",
    ],
)
def test_an_id_that_is_written_when_its_key_is_dead_holds_up_nothing(plan: str) -> None:
    """A person's value is handed out by then, and nobody has the dead one's value any more to tell it from that."""
    assert replayed(plan).broken is None


@pytest.mark.parametrize("dies", ["after stage", "after promote"])
def test_in_an_emergency_the_leaked_one_of_two_keys_of_one_name_dies(dies: str) -> None:
    """Condemned by its token, which is that of two keys."""
    world = turned()
    minted_twice(world, dies)
    leaked = "value-2"
    assert leaked in world.live()
    world.clock.move(MINUTE)
    world.allow_outage = True
    world.emergency()
    sweep_for(world, HOUR, MINUTE)
    assert leaked not in world.live()
    sweep_for(world, 3 * DAY)
    assert len(world.live()) == 1


def test_a_revocation_is_written_down_with_the_id_that_it_revoked() -> None:
    """Nothing had told the id of the condemned key; where its name is that of two, the other one is an orphan."""
    world = turned()
    minted_twice(world, "before record")  # its id is not noted, and no value is stored
    world.emergency()
    sweep_for(world, 3 * DAY)
    revoked = [record for record in world.trail.records if record.event == "revoke.done"]
    assert {record.key_id for record in revoked} == {"key_1", "key_2", "key_3"}
    assert len(world.live()) == 1


@pytest.mark.parametrize(
    "plan",
    [
        "due and emergency / vault / slow / 5:twice",
        "due and emergency / aws / slow / 4:twice",
        "due and emergency / aws / free / 4:twice 51:linger>run+16m",
    ],
    ids=["the version names another key", "a version names no key", "the revocation is noted late"],
)
def test_one_of_two_keys_of_one_name_is_not_shown_dead_by_the_other(plan: str) -> None:
    """The dead one's value is still in the store, under the name of both."""
    assert replayed(plan).broken is None


def test_nobody_rolls_back_to_what_ends_by_itself_before_long() -> None:
    """The next sweep, which would replace it, may come in an hour."""
    world = World(capabilities=Capabilities(tells_last_use=True, create=SHORT, revoke=SHORT))
    world.run()
    world.clock.move(31 * DAY)
    world.run()
    (first,) = (key for key, id_ in store_of(world).observe(ENTRY).journal.key_ids.items() if id_ == "key_1")
    for left, good in ((HOUR, False), (12 * HOUR, True)):
        store_of(world).record(ENTRY, facts.expires(first, world.clock.at + left))
        outcome = world.engine().rollback(world.target)
        assert outcome.achieved is good
        assert good or "expires by itself before long" in str(outcome.rest)


# --- a machine that sleeps ------------------------------------------------------------------------------


class Sleeper(FakeClock):
    """Its machine was suspended for so long, which the monotonic clock does not count."""

    slept = timedelta(0)

    def monotonic(self) -> float:
        return super().monotonic() - self.slept.total_seconds()

    def suspend(self, span: timedelta) -> None:
        self.slept += span
        self.move(span)


def test_a_write_after_a_suspension_knows_that_its_attempt_is_over() -> None:
    """A run has taken an attempt up from another one, without compare-and-set, and sleeps while a record is written."""
    world = World(stores=("vault", "mirror"), fenced=False)
    world.run()
    world.clock.move(DAY)
    clock = world.clock = Sleeper(world.clock.at)
    world.vendor.now = clock.now

    def dies(_: int, call: str) -> None:
        if call == "after stage":
            raise Crash

    world.fault = dies
    with suppress(Crash):
        world.engine().rotate(world.target)
    world.fault = None
    clock.move(MINUTE)
    trail, slept = world.trail, list[str]()
    write = trail.write

    def slow(record: Record) -> None:
        write(record)
        if record.event == "promote" and not slept:
            slept.append(record.event)
            clock.suspend(20 * MINUTE)

    trail.write = slow  # type: ignore[method-assign]
    outcome = world.sweep()
    assert slept
    assert "ran out of time" in str(outcome.trouble)
    sweep_for(world, 3 * DAY)
    world.check_settled()
