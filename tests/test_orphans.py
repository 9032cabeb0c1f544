"""The orphan sweep: what nothing claims dies; what is young, claimed, or somebody else's lives."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from rotation import orphans
from rotation.engine import Engine, Target
from rotation.names import KeyName
from tests.world import NAME, World


def sweep(world: World) -> list[str]:
    engine = world.engine()
    found = list(orphans.find(engine.outside.issuers, [(world.target, world.policy)], engine, world.clock))
    for orphan, seen in found:
        at = orphan.key.created_at
        assert at
        engine.adopt_orphan(orphan.target, seen, orphan.token, orphan.key.key_id, at)
    world.run()
    if found:
        world.clock.move(timedelta(hours=25))  # somebody may use it all the same: it drains
        world.run()
    return [orphan.key.key_id for orphan, _ in found]


def mint(world: World, installation: str = "acme", environment: str = "test", name: str = NAME) -> str:
    issuer = world.engine().outside.issuers["vendor"]
    return issuer.mint(str(KeyName(installation, environment, name, "f" * 32))).key_id


def test_an_unclaimed_key_is_revoked_and_proven_gone() -> None:
    """The current credential is stored anew first, so that no paused run can promote the orphan."""
    world = World()
    world.run()
    key_id = mint(world)
    world.clock.move(timedelta(minutes=16))
    assert sweep(world) == [key_id]
    world.check_settled()
    assert world.handed_out() == {"vault": "value-1"}


def test_a_young_key_is_left_alone() -> None:
    """Some run may be about to store it."""
    world = World()
    world.run()
    mint(world)
    assert sweep(world) == []
    assert len(world.live()) == 2


def test_keys_of_others_are_left_alone() -> None:
    """Another installation, another environment, another secret with a longer name, and a key with no such name."""
    world = World()
    world.run()
    mint(world, installation="other")
    mint(world, environment="prod")
    mint(world, name=f"{NAME}-01")
    world.engine().outside.issuers["vendor"].mint("a person's key")
    world.clock.move(timedelta(days=2))
    assert sweep(world) == []
    assert len(world.live()) == 5


def test_current_and_draining_keys_are_claimed() -> None:
    """A draining credential is in no role but in the journal."""
    world = World()
    world.run()
    world.clock.move(timedelta(days=30))
    world.run()
    world.clock.move(timedelta(hours=1))
    assert sweep(world) == []
    assert len(world.live()) == 2


def test_destroying_a_secret_kills_every_key_of_it() -> None:
    """Current, draining and lost ones; nothing takes their place."""
    world = World(allow_outage=True)
    world.run()
    world.clock.move(timedelta(days=30))
    world.run()
    outcome = world.engine().destroy(world.target)
    assert type(outcome.rest).__name__ == "Done", outcome
    assert world.live() == set()


def test_a_secret_that_moves_between_stores_keeps_both_keys() -> None:
    """Key names carry no store: what either entry claims is no orphan."""
    world = World(stores=("vault",))
    world.run()
    other = World(stores=("vault",))
    other.vendor, other.clock = world.vendor, world.clock
    other.serial = 50
    other.run()
    world.clock.move(timedelta(minutes=16))
    usual = world.engine().outside
    stores = dict(usual.stores) | {"new": other.engine().outside.stores["vault"]}
    engine = Engine(stores, usual.issuers, usual.places, usual.clock, usual.auditor, usual.tokens)
    moved = replace(world.policy, store="new")
    secrets = [(world.target, world.policy), (Target("new", world.target.entry), moved)]
    assert list(orphans.find(usual.issuers, secrets, engine, world.clock)) == []
    assert len(world.live()) == 2


def test_the_second_key_of_a_mint_that_arrived_twice_is_found() -> None:
    """Some proxy sent the request again: two live keys have one token, and only one of them is in a store."""
    world = World()
    world.run()
    (first,) = world.vendor.live()
    twin = world.engine().outside.issuers["vendor"].mint(first.name).key_id
    world.clock.move(timedelta(minutes=16))
    assert sweep(world) == [twin]
    world.check_settled()
    assert world.handed_out() == {"vault": "value-1"}


def test_the_second_key_of_a_retiring_one_is_found() -> None:
    """The proof of the one does not take the other for it."""
    world = World()
    world.run()
    (first,) = world.vendor.live()
    issuer = world.engine().outside.issuers["vendor"]
    twin = issuer.mint(first.name).key_id
    world.engine().emergency(world.target)
    world.clock.move(timedelta(minutes=16))
    assert sweep(world) == [twin]
    world.check_settled()
