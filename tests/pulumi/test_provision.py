"""Provisioning in memory: what each operation does, and that any of them can be cut off at any call and repeated."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import NoReturn, cast

import pytest

from providers.issuers.memory import MemoryIssuer
from providers.stores.memory import MemoryStore, MemoryVault
from rotation import orphans
from rotation import policy as policies
from rotation.engine import Places, Target
from rotation.errors import Code, Trouble
from rotation.model import Capabilities, Credential, Model, Policy, Propagation
from rotation.provision import Applied, Bootstrap, Provisioner, Refusal, diff, forbidden
from tests.world import ENTRY, NAME, Crash, World

HOUR = timedelta(hours=1)


class Place:
    """A world without the entry, and provisioners over it; each is a process of its own."""

    def __init__(self, *stores: str, capabilities: Capabilities | None = None) -> None:
        self.world = World(stores=stores or ("vault",), capabilities=capabilities)
        for vault in self.world.vaults.values():
            vault.entries.clear()
        self.policy = self.world.policy
        self.told: list[str] = []

    def provisioner(self) -> Provisioner:
        world = self.world
        engine = world.engine()
        stores = {n: MemoryStore(n, v, world.clock.now, world.hook) for n, v in world.vaults.items()}
        capabilities = world.capabilities or Capabilities(tells_last_use=True)
        issuer = MemoryIssuer("vendor", world.vendor, capabilities, world.hook)
        places = Places(lambda store, environment, name: f"{environment}/{name}", lambda environment, name: None)
        return Provisioner(engine, stores, {"vendor": issuer}, places, world.clock, self.told.append)

    def create(self, bootstrap: Bootstrap = "apply", policy: Policy | None = None) -> None:
        self.provisioner().create(policy or self.policy, bootstrap=bootstrap)

    def adopt(self, key_id: str | None = None, bootstrap: Bootstrap = "apply") -> None:
        self.provisioner().create(self.policy, bootstrap=bootstrap, adopt=True, adopt_key_id=key_id)

    def theirs(self, *stores: str) -> str:
        """Entries that a person made, with a key that works. Gives its id."""
        issued = MemoryIssuer("vendor", self.world.vendor).mint("a person's key")
        for name in stores or ("vault",):
            self.store(name).create(ENTRY, {})
            self.store(name).put_by_hand(ENTRY, issued.credential)
        return issued.key_id

    def versions(self, name: str = "vault") -> list[str]:
        return [version.id for version in self.world.vaults[name].entries[ENTRY].versions]

    def update(self, new: Policy, bootstrap: Bootstrap = "apply") -> None:
        self.provisioner().update(self.policy, new, bootstrap=bootstrap)

    def read(self) -> Applied | None:
        return self.provisioner().read(self.policy)

    def delete(self, *, force: bool = False) -> None:
        self.provisioner().delete(self.policy, force_revoke=force)

    def store(self, name: str) -> MemoryStore:
        return MemoryStore(name, self.world.vaults[name], self.world.clock.now)

    def use(self) -> bool:
        credential = self.store("vault").handed_out(ENTRY)
        assert credential is not None
        return self.world.vendor.use(credential)

    def quiet(self) -> None:
        self.world.clock.move(2 * HOUR)

    def deleted(self, name: str = "vault") -> bool:
        return self.world.vaults[name].entries[ENTRY].deleted


def crash_at(number: int) -> Callable[[int, str], None]:
    def fault(count: int, call: str) -> None:
        if count == number:
            raise Crash(call)

    return fault


def lose_answer_at(number: int) -> Callable[[int, str], None]:
    """The call takes effect when the hook runs after it, and either way nobody is told."""

    def fault(count: int, call: str) -> None:
        if count == number and not call.endswith(("verify", "smoke")):
            raise Trouble(Code.UNAVAILABLE, "network", f"no answer to {call}", maybe_applied=True)

    return fault


class Silent:
    """A service that does not answer."""

    @property
    def entries(self) -> NoReturn:
        raise Trouble(Code.UNAVAILABLE, "other", "no answer")


# --- create --------------------------------------------------------------------------------------


def test_apply_ends_with_a_credential_that_works_in_every_store() -> None:
    """With `apply`, create returns when each store hands out the one key that was minted."""
    place = Place("vault", "mirror")
    place.create()
    assert policies.read(place.store("mirror").observe(ENTRY).policy) == place.policy
    assert len(place.world.live()) == 1
    place.world.check_settled()


def test_function_leaves_the_mint_to_the_function() -> None:
    """With `function`, the entry and its policy are there, and the issuer was not asked for anything."""
    place = Place()
    place.create("function")
    seen = place.store("vault").observe(ENTRY)
    assert (seen.current, policies.read(seen.policy)) == (None, place.policy)
    assert not any(call.endswith(("mint", "keys")) for call in place.world.calls)
    place.world.run()
    place.world.check_settled()
    assert place.use()


@pytest.mark.parametrize("fault", [crash_at, lose_answer_at])
@pytest.mark.parametrize("stores", [("vault",), ("vault", "mirror")])
def test_a_create_that_is_cut_off_anywhere_is_finished_by_the_next(
    stores: tuple[str, ...], fault: Callable[[int], Callable[[int, str], None]]
) -> None:
    """Whatever call fails, before or after its effect: creating again ends with one live key that is handed out."""
    undisturbed = Place(*stores)
    undisturbed.create()
    for number in range(1, len(undisturbed.world.calls) + 1):
        place = Place(*stores)
        place.world.fault = fault(number)
        try:
            place.create()
        except (Crash, Trouble, Refusal):
            place.world.fault = None
            place.create()
        assert place.use()
        place.world.fault = None
        place.world.sweep_until_quiet()
        place.world.check_settled()
        assert len(place.world.live()) == 1


def test_an_entry_of_someone_else_is_left_alone() -> None:
    """An entry without our policy, or of another installation, is refused with whose it is, and not touched."""
    for other, told in (
        ({}, "was not made by Keyturn; `adopt: true` takes it under management"),
        (policies.written(replace(World().policy, installation="other")), "installation other, not acme"),
        (policies.written(replace(World().policy, issuer="other")), "issuer other, not vendor"),
        (policies.written(replace(World().policy, store="elsewhere")), "store elsewhere, not vault"),
    ):
        place = Place()
        place.world.allow_outage = True  # what is handed out there is none of ours
        place.store("vault").create(ENTRY, other)
        place.store("vault").put_by_hand(ENTRY, Credential.of(value="theirs"))
        with pytest.raises(Refusal, match=told):
            place.create()
        entry = place.world.vaults["vault"].entries[ENTRY]
        assert (entry.policy, len(entry.versions), entry.facts, place.world.live()) == (other, 1, {}, set())


def test_a_replica_that_is_someone_elses_stops_the_create_before_the_primary() -> None:
    """Nothing is minted for a secret that can not have all of its entries."""
    place = Place("vault", "mirror")
    place.world.allow_outage = True
    place.store("mirror").create(ENTRY, {})
    with pytest.raises(Refusal, match="mirror"):
        place.create()
    assert (place.world.vaults["vault"].entries, place.world.live()) == ({}, set())


def test_an_entry_in_its_recovery_window_is_restored_with_a_new_credential() -> None:
    """After a delete the same secret can be created again; it says that it was restored, and the dead key is replaced."""
    place = Place()
    place.create()
    place.quiet()
    place.delete()
    assert place.deleted()
    place.create()
    assert place.told == [f"vault: {ENTRY} was deleted and has been restored."]
    assert place.use()
    place.world.sweep_until_quiet()
    place.world.check_settled()


def test_a_create_that_cannot_mint_says_how_to_go_on() -> None:
    """The issuer does not answer: the entry stays, and the message names it and what to do."""
    place = Place()
    place.world.vendor.unreachable = True
    with pytest.raises(
        Refusal, match=r"vault: test/support-copilot-chat exists.*can not be verified.*next `pulumi up`"
    ):
        place.create()
    place.world.vendor.unreachable = False
    place.create()
    place.world.check_settled()


# --- adopt ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bootstrap", ["apply", "function"])
@pytest.mark.parametrize("known", [True, False])
def test_an_adopted_entry_is_managed_and_nothing_in_it_changes(known: bool, bootstrap: Bootstrap) -> None:
    """Value and versions stay, even when its rotation is overdue: that is the next sweep's. With its key id the old key
    is then revoked like ours, without it it lives on, and that is said."""
    place = Place()
    key_id = place.theirs()
    before = place.versions()
    place.world.clock.move(timedelta(days=90))
    place.adopt(key_id if known else None, bootstrap)
    assert place.versions() == before
    assert place.read() == Applied(place.policy)
    [told] = place.told
    assert told.startswith(f"vault: {ENTRY} is adopted, with its value as it was.")
    assert ("never revoked" in told) is not known
    place.world.sweep_until_quiet()
    assert place.world.handed_out() == {"vault": "value-2"}
    assert place.world.live() == ({"value-2"} if known else {"value-1", "value-2"})


@pytest.mark.parametrize("fault", [crash_at, lose_answer_at])
@pytest.mark.parametrize("replicas", [(), ("mirror",)])
def test_an_adoption_that_is_cut_off_anywhere_is_finished_by_the_next(
    replicas: tuple[str, ...], fault: Callable[[int], Callable[[int, str], None]]
) -> None:
    """Whatever call fails, before or after its effect: the same again ends managed, with the versions as they were and
    one name for the key; the rotation that follows leaves nothing behind."""

    def made() -> tuple[Place, str]:
        place = Place("vault", "mirror")
        place.policy = replace(place.policy, replicas=replicas)
        return place, place.theirs("vault", *replicas)

    undisturbed, key_id = made()
    undisturbed.adopt(key_id)
    assert len(undisturbed.world.calls) > 8
    for number in range(1, len(undisturbed.world.calls) + 1):
        place, key_id = made()
        before = {name: place.versions(name) for name in ("vault", *replicas)}
        place.world.fault = fault(number)
        try:
            place.adopt(key_id)
        except (Crash, Trouble, Refusal):
            place.world.fault = None
            place.adopt(key_id)
        place.world.fault = None
        assert {name: place.versions(name) for name in before} == before
        seen = place.store("vault").observe(ENTRY)
        assert len(seen.journal.adopted) == 1
        assert place.read() == Applied(place.policy)
        place.world.clock.move(timedelta(days=31))
        place.world.sweep_until_quiet()
        assert place.world.live() == {"value-2"}
        handed = place.world.handed_out()
        assert all(handed[name] == "value-2" for name in before)


def test_adopting_again_never_mints() -> None:
    """`adopt` stays in the file, and a lost state makes Pulumi create it again: nothing moves, due or not."""
    place = Place()
    key_id = place.theirs()
    place.adopt(key_id)
    before = place.versions()
    place.world.clock.move(timedelta(days=90))
    place.adopt(key_id)
    assert (place.versions(), len(place.world.vendor.keys)) == (before, 1)


def test_a_replica_is_adopted_with_the_same_value_only() -> None:
    """One credential that a person keeps in two vaults comes whole; two credentials are a mistake, and nothing is touched."""
    place = Place("vault", "mirror")
    key_id = place.theirs("vault", "mirror")
    place.adopt(key_id)
    assert place.read() == Applied(place.policy)
    assert place.told[0] == f"mirror: {ENTRY} is adopted, with its value as it was."
    place.world.sweep_until_quiet()
    place.world.check_settled()

    other = Place("vault", "mirror")
    other.theirs("vault")
    other.theirs("mirror")
    with pytest.raises(Refusal, match=r"holds another value than vault\. It was left alone"):
        other.adopt()
    for name in ("vault", "mirror"):
        entry = other.store(name).observe(ENTRY)
        assert (dict(entry.policy), dict(entry.journal.facts), len(other.versions(name))) == ({}, {}, 1)


def test_a_new_replica_of_an_adopted_entry_is_filled_by_the_sweep() -> None:
    """Adopting runs nothing; the replica's entry is there and gets what the primary holds."""
    place = Place("vault", "mirror")
    place.adopt(place.theirs("vault"))
    assert place.world.handed_out() == {"vault": "value-1", "mirror": None}
    place.world.sweep()
    assert place.world.handed_out() == {"vault": "value-1", "mirror": "value-1"}


def test_where_there_is_nothing_to_adopt_it_is_made() -> None:
    """No entry, and that is said; or an empty one."""
    place = Place()
    place.adopt()
    assert place.told == [f"vault: there is no {ENTRY} to adopt; it is made."]
    place.world.check_settled()
    empty = Place()
    empty.store("vault").create(ENTRY, {})
    empty.adopt()
    assert empty.use()
    empty.world.check_settled()


def test_what_is_somebody_elses_is_not_adopted() -> None:
    """Another installation's entry, or a value that the issuer refuses: left as it is."""
    place = Place()
    place.world.allow_outage = True
    other = policies.written(replace(place.policy, installation="other"))
    place.store("vault").create(ENTRY, other)
    with pytest.raises(Refusal, match="installation other, not acme"):
        place.adopt()
    assert place.store("vault").observe(ENTRY).policy == other
    dead = Place()
    dead.world.allow_outage = True
    dead.store("vault").put_by_hand(ENTRY, Credential.of(value="dead"))
    with pytest.raises(Trouble, match="its credential is refused"):
        dead.adopt()
    entry = dead.store("vault").observe(ENTRY)
    assert (dict(entry.policy), dict(entry.journal.facts), len(dead.versions())) == ({}, {}, 1)


def test_an_entry_in_its_recovery_window_is_adopted_too() -> None:
    """It is brought back first, and that is said."""
    place = Place()
    key_id = place.theirs()
    place.store("vault").delete(ENTRY)
    place.adopt(key_id)
    assert place.told[0] == f"vault: {ENTRY} was deleted and has been restored."
    assert place.use()


def test_deleting_an_adopted_secret_is_guarded_like_any() -> None:
    """In use: refused. Quiet: its key dies, which is why its id was given. Without the id it waits for a person."""
    place = Place()
    place.adopt(place.theirs())
    place.use()
    with pytest.raises(Refusal, match="key_1 was used at"):
        place.delete()
    place.world.allow_outage = True
    place.quiet()
    place.delete()
    assert (place.world.live(), place.deleted()) == (set(), True)

    unknown = Place()
    unknown.theirs()
    unknown.adopt()
    unknown.quiet()
    with pytest.raises(Refusal, match="does not tell when its key was last used"):
        unknown.delete()
    unknown.world.allow_outage = True
    with pytest.raises(Refusal, match="by hand"):
        unknown.delete(force=True)
    assert (unknown.world.live(), unknown.deleted()) == ({"value-1"}, False)
    MemoryIssuer("vendor", unknown.world.vendor).revoke("key_1")
    unknown.delete(force=True)
    assert unknown.deleted()


def test_a_released_secret_is_not_deleted() -> None:
    """Its entry is somebody else's business again: one with our key says how to take it out of the state."""
    place = Place()
    place.create()
    place.world.engine().release(place.world.target)
    assert place.read() is None
    with pytest.raises(Refusal, match="If it was released, `pulumi refresh` takes it out of the state"):
        place.delete()
    assert place.use()
    adopted = Place()
    adopted.adopt(adopted.theirs())
    adopted.world.engine().release(adopted.world.target)
    adopted.delete()
    assert adopted.use()


# --- read and update -----------------------------------------------------------------------------


def test_rotation_is_never_drift_and_a_policy_changed_outside_is() -> None:
    """A rotated value and a grown journal read as before; a policy that somebody edited reads as it is."""
    place = Place()
    place.create()
    place.world.clock.move(timedelta(days=31))
    place.world.run()
    assert place.read() == Applied(place.policy)
    edited = replace(place.policy, rotate_every=timedelta(days=90))
    place.store("vault").set_policy(ENTRY, policies.written(edited))
    assert place.read() == Applied(edited)


def test_an_unreadable_policy_is_drift_that_update_puts_right() -> None:
    """A field that was removed or spoilt is named; applying the policy again heals it."""
    place = Place()
    place.create()
    spoilt = policies.written(place.policy) | {"drain": "for ever"}
    place.store("vault").set_policy(ENTRY, spoilt)
    read = place.read()
    assert read is not None
    assert (read.policy, "'drain'" in read.fault) == (place.policy, True)
    place.update(place.policy)
    assert place.read() == Applied(place.policy)


def test_what_is_gone_or_not_ours_any_more_reads_as_nothing() -> None:
    """Deleted outside, or deleted and made anew by somebody else."""
    place = Place()
    place.create()
    place.store("vault").set_policy(ENTRY, {})
    assert place.read() is None
    place.store("vault").delete(ENTRY)
    assert place.read() is None


def test_a_replica_entry_that_is_gone_is_drift() -> None:
    """It is missing from what is read, and update makes it again, with the credential."""
    place = Place("vault", "mirror")
    place.create()
    del place.world.vaults["mirror"].entries[ENTRY]
    assert place.read() == Applied(replace(place.policy, replicas=()))
    place.update(place.policy)
    assert place.read() == Applied(place.policy)
    place.world.check_settled()


def test_a_changed_policy_is_applied_in_place() -> None:
    """Policy in every store, and neither value nor journal nor key is touched."""
    place = Place("vault", "mirror")
    place.create()
    before = place.store("vault").observe(ENTRY)
    new = replace(place.policy, rotate_every=timedelta(days=60), owner="other-team")
    place.update(new)
    for name in ("vault", "mirror"):
        assert policies.read(place.store(name).observe(ENTRY).policy) == new
    after = place.store("vault").observe(ENTRY)
    assert after.current is before.current
    assert after.journal.facts == before.journal.facts
    assert not place.told


def test_a_new_replica_gets_the_credential_and_a_dropped_one_keeps_its_own() -> None:
    """With `apply` the replica hands out the same key at once; dropping it says what becomes of its entry."""
    place = Place("vault", "mirror")
    both, place.policy = place.policy, replace(place.policy, replicas=())
    place.create()
    place.update(both)
    place.world.check_settled()
    assert place.store("mirror").handed_out(ENTRY) is not None
    alone, place.policy = place.policy, both
    place.update(alone)
    [told] = place.told
    assert told.startswith(f"mirror: {ENTRY} is released. It keeps its value, which dies with the next rotation")
    assert not place.deleted("mirror")


def test_a_replica_that_lags_can_be_taken_out() -> None:
    """It lost a right, so the month's rotation left it behind: taking it out of the declaration must free the rest."""
    place = Place("vault", "mirror")
    place.create()
    place.world.clock.move(timedelta(days=31))
    place.world.denied = ("mirror", ("promote",))
    place.world.sweep()
    place.update(replace(place.policy, replicas=()))
    assert place.told


@pytest.mark.parametrize("at", range(1, 12))
def test_an_update_that_drops_a_replica_loses_it_nowhere(at: int) -> None:
    """One that was added later stands in no attempt. Cut off anywhere, it is released, or still in the policy."""
    place = Place("vault", "mirror")
    both, alone = place.policy, replace(place.policy, replicas=())
    place.policy = alone
    place.create()
    place.update(both)
    place.policy = both
    place.world.fault = crash_at(len(place.world.calls) + at)
    with suppress(Crash):
        place.update(alone)
    place.world.fault = None
    seen = policies.read(place.store("vault").observe(ENTRY).policy)
    assert "mirror" in seen.replicas or not place.store("mirror").observe(ENTRY).policy


def test_with_function_a_new_replica_waits_for_the_function() -> None:
    """Whoever applies reads no value: the replica's entry is made, and the next sweep fills it."""
    place = Place("vault", "mirror")
    both, place.policy = place.policy, replace(place.policy, replicas=())
    place.create()
    place.update(both, "function")
    assert place.store("mirror").handed_out(ENTRY) is None
    place.world.run()
    place.world.check_settled()


def test_update_never_takes_an_entry_that_is_someone_elses() -> None:
    """The entry was replaced outside: refused, with what to do."""
    place = Place()
    place.create()
    other = policies.written(replace(place.policy, installation="other"))
    place.store("vault").set_policy(ENTRY, other)
    with pytest.raises(Refusal, match="pulumi refresh"):
        place.update(place.policy)
    assert place.store("vault").observe(ENTRY).policy == other


# --- delete --------------------------------------------------------------------------------------


def test_a_secret_in_use_is_not_deleted() -> None:
    """Used within quietFor: refused, nothing changed. Quiet: deleted, and its key is dead."""
    place = Place("vault", "mirror")
    place.create()
    place.quiet()
    place.use()
    facts = dict(place.store("vault").observe(ENTRY).journal.facts)
    with pytest.raises(Refusal, match=r"key_1 was used at .*KEYTURN_FORCE_REVOKE=support-copilot-chat"):
        place.delete()
    assert (place.store("vault").observe(ENTRY).journal.facts, len(place.world.live())) == (facts, 1)
    place.world.allow_outage = True  # deleting a secret ends it
    place.quiet()
    place.delete()
    assert (place.world.live(), place.deleted(), place.deleted("mirror")) == (set(), True, True)


def test_a_draining_key_in_use_protects_its_secret_too() -> None:
    """A consumer that still uses the previous key would be cut off as well."""
    place = Place()
    place.create()
    old = place.store("vault").handed_out(ENTRY)
    assert old is not None
    place.world.clock.move(timedelta(days=31))
    place.world.run()
    place.quiet()
    place.world.vendor.use(old)
    with pytest.raises(Refusal, match="key_1 was used"):
        place.delete()


@pytest.mark.parametrize("knows", [True, False])
def test_unknown_is_never_unused(knows: bool) -> None:
    """An issuer that does not tell, or does not know: refused however long ago; with force_revoke the key dies."""
    place = Place(capabilities=Capabilities(tells_last_use=knows))
    place.create()
    if knows:
        place.world.vendor.keys[0].key_id = "renamed"
    place.world.clock.move(timedelta(days=10))
    with pytest.raises(Refusal, match="does not"):
        place.delete()
    assert len(place.world.live()) == 1
    if knows:
        place.world.vendor.keys[0].key_id = "key_1"
    place.world.allow_outage = True
    place.delete(force=True)
    assert (place.world.live(), place.deleted()) == (set(), True)


def test_a_value_put_by_hand_is_in_use_as_far_as_anybody_knows() -> None:
    """Current is a credential that Keyturn did not make: refused unless forced."""
    place = Place()
    place.create()
    place.world.allow_outage = True
    place.quiet()
    place.store("vault").put_by_hand(ENTRY, Credential.of(value="by hand"))
    with pytest.raises(Refusal, match="put there by someone else"):
        place.delete()
    place.delete(force=True)
    assert (place.world.live(), place.deleted()) == (set(), True)


def test_without_a_registry_there_is_nothing_to_revoke() -> None:
    """Generated values: said so, and deleted."""
    place = Place(capabilities=Capabilities(registry=False))
    place.create()
    place.delete()
    assert place.told == [f"{NAME}: vendor keeps no keys: nothing is revoked, the entry is deleted."]
    assert place.deleted()


def test_a_foreign_entry_is_never_deleted() -> None:
    """What stands at the secret's place belongs to another installation: deleting the secret leaves it alone."""
    place = Place()
    other = policies.written(replace(place.policy, installation="other"))
    place.store("vault").create(ENTRY, other)
    place.delete(force=True)
    assert not place.deleted()


@pytest.mark.parametrize("fault", [crash_at, lose_answer_at])
@pytest.mark.parametrize("drained", [True, False])
def test_a_delete_that_is_cut_off_anywhere_is_finished_by_the_next(
    drained: bool, fault: Callable[[int], Callable[[int, str], None]]
) -> None:
    """Whatever call fails, before or after its effect: deleting again ends with no live key and no entry."""

    def made() -> Place:
        place = Place("vault", "mirror")
        place.create()
        place.world.allow_outage = True
        if not drained:
            place.world.clock.move(timedelta(days=31))
            place.world.run()
        place.quiet()
        place.world.calls.clear()
        return place

    undisturbed = made()
    undisturbed.delete()
    for number in range(1, len(undisturbed.world.calls) + 1):
        place = made()
        place.world.fault = fault(number)
        try:
            place.delete()
        except (Crash, Trouble, Refusal):
            place.world.fault = None
            place.delete()
        assert (place.world.live(), place.deleted(), place.deleted("mirror")) == (set(), True, True)


@pytest.mark.parametrize("when", ["before delete", "after delete"])
def test_a_sweep_that_replaces_the_dying_key_meanwhile_leaves_nothing_behind(when: str) -> None:
    """A sweep finds the condemned key and mints a new one just as the entry goes: that key dies too."""
    place = Place()
    place.create()
    place.world.allow_outage = True
    place.quiet()
    raced = False

    def sweep(_: int, call: str) -> None:
        nonlocal raced
        if call == when and not raced:
            raced = True
            place.world.fault = None
            place.world.run()

    place.world.fault = sweep
    place.delete()
    assert raced
    assert (place.world.live(), place.deleted()) == (set(), True)


@pytest.mark.parametrize("who", ["emergency", "sweep"])
@pytest.mark.parametrize("model", [Model.MINT, Model.SLOTS])
def test_a_key_that_replaced_the_dying_one_dies_too_where_no_name_tells_of_it(model: Model, who: str) -> None:
    """The deletion stands still for hours, or an emergency takes it for a leak: another key is current by then."""
    slots = ("key1", "key2") if model is Model.SLOTS else ()
    able = Capabilities(model=model, slots=slots, names_keys=False, max_keys=2, tells_last_use=True)
    place = Place(capabilities=able)
    place.world.vendor.model = place.world.model = model
    place.create()
    place.world.allow_outage = True
    place.quiet()

    def meanwhile(_: int, call: str) -> None:
        if (
            call == ("after record" if who == "emergency" else "before verify")
            and "condemn" in place.world.trail.events()
        ):
            place.world.fault = None
            place.world.emergency() if who == "emergency" else place.world.clock.move(3 * HOUR)
            place.world.sweep()

    place.world.fault = meanwhile
    place.delete()
    assert place.world.trail.events().count("mint.done") == 2
    assert (place.world.live(), place.deleted()) == (set(), True)


def test_where_creating_destroys_a_secret_does_not_move_under_its_readers() -> None:
    """Pulumi makes the new entry before it deletes the old one, whose credential is in the slot that would be taken."""
    able = Capabilities(model=Model.SLOTS, slots=("key1", "key2"), tells_last_use=True)
    place = Place("old", "new", capabilities=able)
    place.world.vendor.model = place.world.model = Model.SLOTS
    place.policy = replace(place.policy, replicas=())
    place.create()
    with pytest.raises(Refusal, match="old hands out a credential of vendor under this name"):
        place.create(policy=replace(place.policy, store="new"))
    held = place.store("old").handed_out(ENTRY)
    assert held
    assert place.world.vendor.use(held)
    place.world.allow_outage = True
    place.quiet()
    place.delete()
    place.create(policy=replace(place.policy, store="new"))
    assert place.store("new").handed_out(ENTRY)


def test_what_was_released_after_a_rollback_is_no_orphan_of_the_same_name_elsewhere() -> None:
    """Its journal is gone, and its version goes by another token than its key does at the issuer."""
    for keeps in (True, False):
        place = Place("vault", "other")
        place.world.keeps_key_id = keeps
        place.policy = replace(place.policy, replicas=())
        place.world.policy = place.policy
        place.create()
        place.world.clock.move(timedelta(days=31))
        place.world.allow_outage = True
        place.world.run()
        assert place.world.engine().rollback(place.world.target).achieved
        place.world.sweep_until_quiet()
        place.world.engine().release(place.world.target)
        moved = replace(place.policy, store="other")
        place.create(policy=moved)
        place.world.clock.move(HOUR)
        engine = place.world.engine()
        listed = orphans.listings(engine.outside.issuers, ["vendor"], place.world.clock)
        there = Target("other", ENTRY)
        assert list(orphans.unclaimed(listed, [(there, moved)], engine, place.world.clock)) == []
        assert place.use()


def test_an_orphan_dies_with_its_secret() -> None:
    """A live key under the secret's name that no journal claims is revoked with the others, once it is old enough."""
    place = Place()
    place.create()
    place.world.allow_outage = True
    issuer = MemoryIssuer("vendor", place.world.vendor)
    issuer.mint(f"acme.test-{NAME}.lost")
    place.quiet()
    place.delete()
    assert (place.world.live(), place.deleted()) == (set(), True)


def test_a_secret_that_was_moved_keeps_its_new_key() -> None:
    """Keys are named after the secret, not after its store: deleting the old entry leaves the new entry's key alone,
    and takes an orphan all the same. With a store that can not be asked nobody knows, and nothing is deleted: once the
    entry is gone no sweep looks under its name any more."""
    for reachable in (True, False):
        place = Place("vault", "other")
        place.policy = replace(place.policy, replicas=())
        place.create()
        place.create(policy=replace(place.policy, store="other"))
        MemoryIssuer("vendor", place.world.vendor).mint(f"acme.test-{NAME}.lost")
        place.quiet()
        place.world.allow_outage = True
        silent = not reachable and place.world.vaults.pop("other")
        if silent:
            place.world.vaults["other"] = cast("MemoryVault", Silent())
        if silent:
            with pytest.raises(Refusal, match="can not be told whose these keys are"):
                place.delete()
            assert not place.deleted()
            place.world.vaults["other"] = silent
        place.delete()
        handed = place.store("other").handed_out(ENTRY)
        assert handed is not None
        assert place.world.vendor.use(handed)
        assert place.deleted()
        assert len(place.world.live()) == 1


@pytest.mark.parametrize("who", ["a sweep, 40 minutes later", "an emergency", "an up"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
def test_a_delete_that_is_held_up_right_at_the_end_leaves_no_key(who: str, *, named: bool) -> None:
    """Somebody promotes another key after its last look. Where keys have no names, it counts what has come since."""
    short = Propagation(in_a_row=2, interval=timedelta(seconds=1), timeout=timedelta(minutes=1))
    place = Place(capabilities=Capabilities(names_keys=named, tells_last_use=True, create=short, revoke=short))
    world = place.world
    place.create()
    place.quiet()
    world.allow_outage = True

    def hold(_: int, call: str) -> None:
        if call != "before delete":
            return
        world.fault = None
        if who.startswith("a sweep"):
            world.clock.move(timedelta(minutes=40))
            world.sweep()
        elif who == "an emergency":
            assert world.engine().emergency(world.target).achieved
        else:
            place.provisioner().update(place.policy, place.policy, bootstrap="apply")
        assert world.live() == {"value-2"}

    world.fault = hold
    place.delete(force=True)
    assert (world.live(), place.deleted()) == (set(), True)


@pytest.mark.parametrize("model", [Model.MANUAL, Model.REPLACE])
def test_what_only_a_person_can_revoke_is_deleted_once_that_is_done(model: Model) -> None:
    """The refusal says what to do, and the next one sees that it was done."""
    place = Place(capabilities=Capabilities(model=model, tells_last_use=True, revokes=False))
    world = place.world
    world.model = world.vendor.model = model
    world.allow_outage = True
    if model is Model.MANUAL:
        place.create("function")
        made = MemoryIssuer("vendor", world.vendor).mint("made by hand")
        assert world.engine().submit(world.target, made.credential, made.key_id).achieved
    else:
        place.create()
    place.quiet()
    with pytest.raises(Refusal, match="revoke the credential key_1 by hand at vendor"):
        place.delete(force=True)
    assert not place.deleted()
    world.vendor.keys[0].revoked = True
    place.delete(force=True)
    assert place.deleted()


def test_an_entry_that_is_gone_for_good_leaves_its_keys_to_a_person() -> None:
    """Without the journal nobody knows which keys are its own: they are named, not revoked; once dead, all is well."""
    place = Place()
    place.create()
    place.world.allow_outage = True
    del place.world.vaults["vault"].entries[ENTRY]
    with pytest.raises(Refusal, match="alive under its name at vendor: key_1"):
        place.delete()
    MemoryIssuer("vendor", place.world.vendor).revoke("key_1")
    place.delete()


def test_an_entry_deleted_by_hand_is_restored_to_revoke_its_keys() -> None:
    """Deleting in a console revokes nothing; deleting the secret afterwards does."""
    place = Place()
    place.create()
    place.world.allow_outage = True
    place.quiet()
    place.store("vault").delete(ENTRY)
    place.delete()
    assert (place.world.live(), place.deleted()) == (set(), True)


def test_an_interrupted_first_mint_can_be_deleted() -> None:
    """The first credential was never finished: what is there of it is cleaned up."""
    for number in range(1, 60):
        place = Place()
        place.world.fault = crash_at(number)
        try:
            place.create()
        except Crash:
            place.world.fault = None
            place.world.clock.move(timedelta(hours=3))
            place.world.allow_outage = True
            place.delete()
            assert place.world.live() == set()
        else:
            return


# --- diff ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "replaces"),
    [
        ({"rotate_every": timedelta(days=7)}, ()),
        ({"owner": "other", "grace": HOUR}, ()),
        ({"replicas": ("mirror",)}, ()),
        ({"store": "elsewhere"}, ("store",)),
        ({"name": "support-other"}, ("name",)),
        ({"environment": "prod", "store": "elsewhere"}, ("store", "environment")),
    ],
)
def test_only_another_entry_is_a_replacement(change: dict[str, object], replaces: tuple[str, ...]) -> None:
    """Policy changes in place; another store, name or environment makes another entry. All of these are allowed."""
    old = World().policy
    new = replace(old, **change)  # type: ignore[arg-type]
    assert set(diff(old, new).changes) == set(change)
    assert diff(old, new).replaces == replaces
    assert forbidden(old, new) == {}


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ({}, {"issuer": "other"}, "issuer"),
        ({}, {"installation": "other"}, "installation"),
        ({"replicas": ("b",)}, {"store": "b"}, "store"),
        ({}, {"store": "b", "replicas": ("vault",)}, "store"),
        ({"replicas": ("c",)}, {"store": "b", "replicas": ("c",)}, "store"),
    ],
)
def test_a_change_that_no_order_makes_safe_is_refused(
    old: dict[str, object], new: dict[str, object], field: str
) -> None:
    """The same entry under two issuers, or under two primaries: the field is named."""
    before = replace(World().policy, **old)  # type: ignore[arg-type]
    assert list(forbidden(before, replace(before, **new))) == [field]  # type: ignore[arg-type]
