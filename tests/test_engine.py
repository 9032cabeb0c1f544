"""The engine on the reference store and issuer: what a rotation, a sweep and an emergency do."""

from __future__ import annotations

from datetime import timedelta

import pytest

from providers.stores.memory import MemoryStore
from rotation import actions
from rotation.effects import Effects
from rotation.errors import Code, Trouble
from rotation.model import Credential, Drain, Ending
from rotation.ports import Record
from rotation.situation import Order
from tests.world import Crash, Trail, World


def test_a_new_entry_gets_its_first_credential() -> None:
    """An entry with a policy and no value is given one by the next sweep."""
    world = World()
    outcome = world.run()
    assert isinstance(outcome.rest, actions.Done)
    assert world.handed_out() == {"vault": "value-1"}
    world.check_settled()


def test_nothing_happens_before_the_rotation_is_due() -> None:
    """A second sweep changes nothing and looks only."""
    world = World()
    world.run()
    world.calls.clear()
    world.run()
    assert world.calls == ["before observe", "after observe"]


def test_a_due_rotation_promotes_then_drains_then_proves_the_old_key_dead() -> None:
    """Mint, stage, verify, promote; after grace and quiet: revoke and prove."""
    world = World()
    world.run()
    world.clock.move(timedelta(days=30))
    outcome = world.run()
    assert isinstance(outcome.rest, actions.Wait)
    assert world.handed_out() == {"vault": "value-2"}
    assert world.live() == {"value-1", "value-2"}, "the old credential lives through its grace period"
    world.clock.move(timedelta(hours=25))
    outcome = world.run()
    assert isinstance(outcome.rest, actions.Done)
    assert world.live() == {"value-2"}
    assert "proven" in world.trail.events()
    assert not [f for f in outcome.seen.primary.journal.facts if "0001" in f], "nothing is kept of a proven key"  # type: ignore[union-attr]


def test_a_used_old_key_is_not_revoked() -> None:
    """The quiet period counts from the last use the issuer saw; unknown is never unused."""
    world = World(drain=Drain(quiet_for=timedelta(hours=2)))
    world.run()
    world.clock.move(timedelta(days=30))
    world.run()
    old = next(key for key in world.vendor.keys if key.value == "value-1")
    for _ in range(30):
        world.clock.move(timedelta(hours=1))
        old.last_used_at = world.clock.now()
        world.run()
    assert "value-1" in world.live()
    world.clock.move(timedelta(hours=3))
    world.run()
    assert world.live() == {"value-2"}


@pytest.mark.parametrize("then", list(Ending))
def test_the_longest_drain_ends_as_declared(then: Ending) -> None:
    """A consumer that never falls quiet: hold and say so, or revoke."""
    world = World(drain=Drain(quiet_for=timedelta(hours=2), at_most=timedelta(days=3), then=then))
    world.run()
    world.clock.move(timedelta(days=30))
    world.run()
    old = next(key for key in world.vendor.keys if key.value == "value-1")
    outcome = world.run()
    for _ in range(80):
        world.clock.move(timedelta(hours=1))
        old.last_used_at = world.clock.now()
        outcome = world.run()
    if then is Ending.HOLD:
        assert isinstance(outcome.rest, actions.Hold)
        assert "value-1" in world.live()
    else:
        assert world.live() == {"value-2"}


def test_an_emergency_replaces_revokes_and_proves_at_once() -> None:
    """No grace, no quiet period; the consumer never reads a dead value."""
    world = World()
    world.run()
    outcome = world.emergency()
    assert isinstance(outcome.rest, actions.Done)
    assert world.live() == {"value-2"}
    assert "proven" in world.trail.events()
    world.check_settled()


def test_contain_first_revokes_before_the_replacement_and_says_so() -> None:
    """A declared outage: the leaked key dies first."""
    world = World(allow_outage=True)
    world.run()
    world.emergency(contain_after=timedelta(0))
    events = world.trail.events()
    assert events.index("contain") < events.index("promote", events.index("contain"))
    assert world.live() == {"value-2"}
    world.allow_outage = False
    world.check_settled()


def test_an_emergency_that_can_not_replace_contains_after_its_delay() -> None:
    """The issuer's verification is out of reach: after containAfter the leaked key dies all the same."""
    world = World(allow_outage=True)
    world.run()
    world.vendor.unreachable = True
    world.emergency()
    assert "value-1" in world.live()
    world.clock.move(timedelta(minutes=6))
    world.run()
    assert "value-1" not in world.live()


def test_a_rotation_on_request_happens_before_it_is_due() -> None:
    """`rotate` names the version it wants gone; once it is gone the order is fulfilled."""
    world = World()
    seen = world.run().seen
    assert seen
    assert seen.primary.current
    world.run(Order(replace=seen.primary.current.token))
    assert world.handed_out() == {"vault": "value-2"}
    world.run(Order(replace=seen.primary.current.token))
    assert world.handed_out() == {"vault": "value-2"}


def test_a_key_that_never_verifies_is_discarded_and_minted_afresh() -> None:
    """A poisoned attempt is condemned, the rotation backs off, the next attempt succeeds."""
    world = World(create_delay=timedelta(days=1))
    world.run()
    assert world.handed_out() == {"vault": None}
    assert "condemn" in world.trail.events()
    world.vendor.create_delay = timedelta(0)
    world.clock.move(timedelta(minutes=6))
    world.run()
    world.sweep_until_quiet()
    world.check_settled()


def test_propagation_is_waited_for() -> None:
    """A key that is refused for its first seconds is not poisoned."""
    world = World(create_delay=timedelta(seconds=20), revoke_delay=timedelta(seconds=20))
    world.run()
    world.emergency()
    assert "condemn" in world.trail.events()
    assert len(world.vendor.keys) == 2
    world.check_settled()


def test_replicas_get_the_same_credential_and_the_old_one_dies_after_all_agree() -> None:
    """Two stores: staged in both, primary first, then the replica."""
    world = World(stores=("vault", "second"))
    world.run()
    world.clock.move(timedelta(days=30))
    world.run()
    assert world.handed_out() == {"vault": "value-2", "second": "value-2"}
    world.clock.move(timedelta(hours=25))
    world.run()
    world.check_settled()


def test_a_value_put_by_hand_is_replaced_when_due_and_nothing_of_theirs_is_revoked() -> None:
    """A person edits the entry: their credential is not ours to revoke."""
    world = World()
    world.run()
    theirs = world.engine().outside.issuers["vendor"].mint("somebody's key")
    store = world.engine().outside.stores["vault"]
    store.put_by_hand(world.target.entry, theirs.credential)  # type: ignore[attr-defined]
    world.clock.move(timedelta(days=30))
    world.sweep_until_quiet()
    assert {"value-2", "value-3"} == world.live()
    assert world.handed_out() == {"vault": "value-3"}


def test_an_emergency_stays_until_the_leaked_key_is_shown_dead() -> None:
    """Verification of the replacement is out of reach: containment comes at its time, within one command."""
    world = World(allow_outage=True)
    world.run()
    world.vendor.unreachable = True
    outcome = world.engine().emergency(world.target, patience=timedelta(minutes=8))
    assert "contain" in [record.event for record in outcome.records]
    assert "value-1" not in world.live()


def test_a_plan_changes_nothing_and_asks_what_it_must() -> None:
    """The plan of a draining secret knows whether the old key is quiet, and leaves no trace."""
    world = World()
    world.run()
    world.clock.move(timedelta(days=30))
    world.run()
    world.clock.move(timedelta(hours=25))
    before = len(world.trail.records)
    decision, _ = world.engine().plan(world.target)
    assert isinstance(decision, actions.Condemn)
    assert len(world.trail.records) == before
    assert world.live() == {"value-1", "value-2"}


def test_every_action_has_a_handler() -> None:
    """A decision that nothing carries out would be found only in production."""
    assert {a.__name__ for a in Effects.handlers} == {a.__name__ for a in actions.Action.__subclasses__()}


def test_nothing_happens_when_the_audit_trail_can_not_be_written() -> None:
    """Evidence first: a failing auditor stops the rotation before its next effect."""

    class Refusing(Trail):
        def write(self, record: Record) -> None:
            raise Trouble(Code.UNAVAILABLE, "audit trail", "disk full")

    world = World()
    world.trail = Refusing()
    outcome = world.run()
    assert outcome.trouble
    assert world.vendor.keys == []
    assert world.calls == ["before observe", "after observe"]


def test_a_rollback_is_a_new_attempt_and_the_other_credential_drains() -> None:
    """The old value comes back as a new version; the newer key retires after its own grace."""
    world = World()
    world.run()
    world.clock.move(timedelta(days=30))
    world.run()
    assert world.handed_out() == {"vault": "value-2"}
    world.engine().rollback(world.target)
    assert world.handed_out() == {"vault": "value-1"}
    assert world.live() == {"value-1", "value-2"}
    world.clock.move(timedelta(hours=25))
    world.run()
    world.check_settled()
    assert world.handed_out() == {"vault": "value-1"}


def test_a_rollback_never_goes_back_to_a_dead_credential() -> None:
    """After its retirement there is nothing to go back to, and that is said."""
    world = World()
    world.run()
    world.emergency()
    outcome = world.engine().rollback(world.target)
    assert isinstance(outcome.rest, actions.Hold)
    assert world.handed_out() == {"vault": "value-2"}


@pytest.mark.parametrize("stores", [("vault",), ("vault", "second")])
@pytest.mark.parametrize("known", [True, False])
def test_an_adopted_entry_is_unchanged_until_its_rotation(known: bool, stores: tuple[str, ...]) -> None:
    """With its key id the adopted credential retires like ours; without it Keyturn never revokes it."""
    world = World(stores=stores)
    theirs = world.engine().outside.issuers["vendor"].mint("a person's key")
    for name in stores:
        store = world.engine().outside.stores[name]
        store.set_policy(world.target.entry, {})
    first = world.engine().outside.stores["vault"]
    first.put_by_hand(world.target.entry, theirs.credential)  # type: ignore[attr-defined]
    world.engine().adopt(world.target, world.policy, key_id=theirs.key_id if known else None)
    assert world.handed_out()["vault"] == "value-1"
    world.run()
    assert world.handed_out() == dict.fromkeys(stores, "value-1"), "replicas get what the primary holds"
    assert len(world.vendor.keys) == 1
    world.clock.move(timedelta(days=30))
    world.sweep_until_quiet()
    assert world.handed_out() == dict.fromkeys(stores, "value-2")
    assert world.live() == ({"value-2"} if known else {"value-1", "value-2"})


def test_a_dead_credential_is_not_adopted() -> None:
    """Nothing is written when the issuer refuses what the entry holds."""
    world = World(allow_outage=True)
    store = world.engine().outside.stores["vault"]
    store.set_policy(world.target.entry, {})
    store.put_by_hand(world.target.entry, Credential.of(value="dead"))  # type: ignore[attr-defined]
    with pytest.raises(Trouble) as raised:
        world.engine().adopt(world.target, world.policy, key_id=None)
    assert raised.value.code is Code.INVALID
    seen = store.observe(world.target.entry)
    assert (dict(seen.policy), dict(seen.journal.facts)) == ({}, {})


def test_release_hands_the_entry_back_unchanged() -> None:
    """No policy, no journal, the value as it was; refused while an old credential drains."""
    world = World()
    world.run()
    world.clock.move(timedelta(days=30))
    world.run()
    with pytest.raises(Trouble):
        world.engine().release(world.target)
    world.clock.move(timedelta(hours=25))
    world.run()
    world.engine().release(world.target)
    seen = world.engine().outside.stores["vault"].observe(world.target.entry)
    assert (dict(seen.policy), dict(seen.journal.facts)) == ({}, {})
    assert world.handed_out() == {"vault": "value-2"}
    assert world.live() == {"value-2"}


@pytest.mark.parametrize("call", ["after set_policy", "before forget"])
def test_a_release_that_was_cut_off_is_finished_by_another(call: str) -> None:
    """Adopting another value under its journal would have the key revoked that was handed back; that is refused."""
    world = World(allow_outage=True)
    world.run()
    store = world.engine().outside.stores["vault"]
    assert isinstance(store, MemoryStore)

    def dies(_: object, at: str) -> None:
        if at == call:
            raise Crash(at)

    world.fault = dies
    with pytest.raises(Crash):
        world.engine().release(world.target)
    world.fault = None
    own = world.engine().outside.issuers["vendor"].mint("somebody's own")
    store.put_by_hand(world.target.entry, own.credential)
    with pytest.raises(Trouble, match="keyturn release support-copilot-chat") as raised:
        world.engine().adopt(world.target, world.policy, key_id=own.key_id)
    assert raised.value.code is Code.CONFLICT
    assert not store.observe(world.target.entry).policy
    world.engine().release(world.target)
    assert not store.observe(world.target.entry).journal.facts
    world.engine().adopt(world.target, world.policy, key_id=own.key_id)
    assert len(store.observe(world.target.entry).journal.tokens()) == 1


def test_a_policy_that_was_taken_off_in_a_rotation_is_no_release() -> None:
    """Its journal knows of a key that drains: forgetting that would lose it."""
    world = World()
    world.run()
    world.clock.move(timedelta(days=30))
    world.run()
    store = world.engine().outside.stores["vault"]
    store.set_policy(world.target.entry, {})
    with pytest.raises(Trouble, match="no policy is applied"):
        world.engine().release(world.target)
    assert store.observe(world.target.entry).journal.superseded


@pytest.mark.parametrize("then", ["sweeps", "emergency"])
def test_what_a_failed_adoption_named_is_not_revoked(then: str) -> None:
    """It was refused the policy; then its person put another key there, as the first one is another team's."""
    world = World(allow_outage=True)
    vendor = world.engine().outside.issuers["vendor"]
    theirs, own = vendor.mint("another team's"), vendor.mint("this team's")
    store = world.engine().outside.stores["vault"]
    assert isinstance(store, MemoryStore)
    store.set_policy(world.target.entry, {})
    store.put_by_hand(world.target.entry, theirs.credential)

    def denies(_: object, call: str) -> None:
        if call == "before set_policy":
            raise Trouble(Code.DENIED, "vault", "may not")

    world.fault = denies
    with pytest.raises(Trouble):
        world.engine().adopt(world.target, world.policy, key_id=theirs.key_id)
    world.fault = None
    world.clock.move(timedelta(days=1))
    store.put_by_hand(world.target.entry, own.credential)
    world.engine().adopt(world.target, world.policy, key_id=own.key_id)
    if then == "emergency":
        world.emergency()
    for _ in range(5):
        world.clock.move(timedelta(days=1))
        world.sweep()
    assert "value-1" in world.live()
    assert ("value-2" in world.live()) is (then == "sweeps")


def test_a_key_deleted_outside_is_replaced_at_once() -> None:
    """The sweep's listing does not show the current key; it is refused, so it is replaced without waiting."""
    world = World(allow_outage=True)
    world.run()
    world.vendor.keys[0].revoked = True
    world.clock.move(timedelta(hours=1))
    world.sweep()
    assert world.handed_out() == {"vault": "value-2"}
    assert world.live() == {"value-2"}


def test_a_list_that_is_late_kills_nothing() -> None:
    """Absent from the list, and yet accepted: the credential stays."""
    world = World()
    world.run()
    world.clock.move(timedelta(hours=1))
    world.run(Order(listed=frozenset(), listed_at=world.clock.now()))
    assert world.handed_out() == {"vault": "value-1"}
    assert len(world.vendor.keys) == 1


def test_a_credential_that_expires_is_replaced_before() -> None:
    """Two days and a grace period ahead of its own expiry, whatever the interval says."""
    world = World()
    world.vendor.expires_after = timedelta(days=10)
    world.run()
    world.clock.move(timedelta(days=6, hours=23))
    world.run()
    assert world.handed_out() == {"vault": "value-1"}
    world.clock.move(timedelta(hours=2))
    world.run()
    assert world.handed_out() == {"vault": "value-2"}


def by_hand(world: World, value: str) -> None:
    store = world.engine().outside.stores["vault"]
    store.put_by_hand(world.target.entry, Credential.of(value=value))  # type: ignore[attr-defined]


def test_our_own_value_put_by_hand_is_recognised() -> None:
    """Someone re-enters the current value in a console: it is the same key, and it is not retired."""
    world = World()
    world.run()
    seen = world.engine().observe(world.target)
    assert (key := seen.primary.current) is not None
    by_hand(world, "value-1")
    again = world.run().seen
    assert again is not None
    assert (again.primary.current or key).id != key.id
    assert world.engine().outside.situation(again).current_key == key.token, "an incident names the right key at once"
    world.clock.move(timedelta(days=2))
    world.sweep_until_quiet()
    assert world.live() == {"value-1"}
    world.emergency()
    assert world.live() == {"value-2"}
    world.check_settled()


def test_a_hand_made_rollback_starts_the_grace_period_anew() -> None:
    """The old value is put back by hand and replaced again: its grace counts from its last end."""
    world = World()
    world.run()
    world.clock.move(timedelta(days=30))
    world.run()
    world.clock.move(timedelta(hours=20))
    by_hand(world, "value-1")
    world.run()
    assert world.handed_out() == {"vault": "value-3"}, "it is old, so its rotation is due at once"
    world.clock.move(timedelta(hours=23))
    world.run()
    assert "value-1" in world.live()


@pytest.mark.parametrize("given", ["key_9", "key_2"])
def test_an_id_that_can_not_be_the_credentials_is_refused(given: str) -> None:
    """It is what the next rotation revokes: no key that the issuer does not list, and none of another secret's."""
    world = World(allow_outage=True)
    store = world.engine().outside.stores["vault"]
    store.set_policy(world.target.entry, {})
    world.engine().outside.issuers["vendor"].mint("a person's key")
    world.engine().outside.issuers["vendor"].mint(f"acme.prod-other-chat.{'f' * 32}")
    by_hand(world, "value-1")
    with pytest.raises(Trouble) as raised:
        world.engine().adopt(world.target, world.policy, key_id=given)
    assert raised.value.code is Code.INVALID
    assert given in str(raised.value)
    assert not store.observe(world.target.entry).journal.facts


def test_adopting_twice_is_adopting_once() -> None:
    """The answer of the first was lost after its facts were written."""
    world = World()
    store = world.engine().outside.stores["vault"]
    store.set_policy(world.target.entry, {})
    theirs = world.engine().outside.issuers["vendor"].mint("a person's key")
    by_hand(world, "value-1")
    world.engine().adopt(world.target, world.policy, key_id=theirs.key_id)
    store.set_policy(world.target.entry, {})
    world.engine().adopt(world.target, world.policy, key_id=theirs.key_id)
    world.clock.move(timedelta(days=2))
    world.sweep_until_quiet()
    assert world.live() == {"value-1"}


def test_releasing_and_adopting_makes_no_orphan() -> None:
    """The key carries our name, and the entry claims it by its id."""
    world = World()
    world.run()
    world.engine().release(world.target)
    world.engine().adopt(world.target, world.policy, key_id="key_1")
    world.clock.move(timedelta(hours=1))
    world.sweep_until_quiet()
    assert world.live() == {"value-1"}


def test_an_emergency_command_that_is_repeated_leaves_the_replacement_alone() -> None:
    """The first was interrupted before its proof: the second goes on with it."""
    world = World(revoke_delay=timedelta(minutes=3))
    world.run()
    world.engine().emergency(world.target, patience=timedelta(seconds=20))
    world.engine().emergency(world.target)
    assert world.live() == {"value-2"}
    world.check_settled()


def test_an_emergency_replaces_what_keyturn_did_not_make() -> None:
    """The entry held a person's key: it is replaced; revoking it is theirs to do."""
    world = World()
    world.run()
    theirs = world.engine().outside.issuers["vendor"].mint("somebody's key")
    by_hand(world, theirs.credential.fields["value"].reveal())
    outcome = world.engine().emergency(world.target, patience=timedelta(minutes=1))
    assert outcome.achieved
    assert world.handed_out() == {"vault": "value-3"}
    assert "value-2" in world.live()


def test_a_failing_replica_does_not_hold_up_an_emergency() -> None:
    """It can be read, not written: the primary is replaced, and the leaked key dies at containAfter."""
    world = World(stores=("vault", "second"))
    world.run()
    world.denied = ("second", ("stage", "promote"))
    world.engine().emergency(world.target, patience=timedelta(minutes=7))
    assert world.handed_out()["vault"] == "value-2"
    assert "value-1" not in world.live()


def test_keys_that_never_verify_do_not_pile_up() -> None:
    """Weeks of a vendor whose new keys never work: few live keys, a short journal."""
    world = World()
    world.run()
    world.clock.move(timedelta(days=30))
    world.vendor.create_delay = timedelta(days=400)
    seen = None
    for _ in range(60):
        world.clock.move(timedelta(hours=7))
        seen = world.sweep().seen
    assert seen
    assert len(world.live()) <= 4
    assert len(seen.primary.journal.facts) < 24


def test_the_age_of_a_key_is_not_reset_by_storing_it_anew() -> None:
    """An orphan sweep shortly before the rotation is due must not postpone it."""
    world = World()
    world.run()
    world.clock.move(timedelta(days=29))
    issuer = world.engine().outside.issuers["vendor"]
    issuer.mint(f"acme.test-{world.policy.name}.{'f' * 32}")
    world.clock.move(timedelta(hours=1))
    world.sweep()
    assert world.handed_out() == {"vault": "value-1"}
    world.clock.move(timedelta(hours=23, minutes=5))
    world.run()
    assert world.handed_out() == {"vault": "value-3"}
