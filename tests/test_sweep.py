"""One sweep without its hosts: what it finds, takes up, runs, and says of how that ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from providers.stores.memory import MemoryStore
from rotation import decide as d
from rotation import policy as policies
from rotation import sweep
from rotation.assembly import Assembly
from rotation.config import Config, GeneratedConfig
from rotation.engine import Outcome, Places
from rotation.errors import Code, Trouble
from rotation.model import Policy
from rotation.names import KeyName
from rotation.ports import Listed
from rotation.sweep import Ended
from tests.world import ENTRY, NAME, World


class SilentStore(MemoryStore):
    """One that does not answer when it is asked what it has."""

    def listing(self) -> Iterator[Listed]:
        raise Trouble(Code.UNAVAILABLE, self.name, "does not answer")


def assembly(world: World, *declared: Policy) -> Assembly:
    """A fresh process over the world, with what its file declares."""
    engine = world.engine()
    config = Config(
        "acme",
        "test",
        {},
        {"vendor": GeneratedConfig(kind="generated", length=32, alphabet="0123456789")},
        {},
        declared or (world.policy,),
        {},
    )
    places = Places(lambda store, environment, name: f"{environment}/{name}", lambda environment, name: None)
    return Assembly(config, engine, engine._stores, engine._issuers, places, world.clock)


def sweep_all(world: World, *declared: Policy) -> dict[str, Outcome]:
    return {policy.name: outcome for policy, outcome in sweep.begin(assembly(world, *declared)).run_all()}


def test_a_sweep_runs_what_is_due_and_settles_it() -> None:
    """From nothing to the first credential, and through a rotation to its old key's death."""
    world = World()
    assert sweep.ended(sweep_all(world)[NAME]) is Ended.DONE
    for days in (30, 2, 1):
        world.clock.move(timedelta(days=days))
        sweep_all(world)
    world.check_settled()
    assert world.handed_out() == {"vault": "value-2"}


def test_what_is_not_of_this_environment_is_left_alone() -> None:
    """Nor is another installation's, although a store lists both."""
    world = World()
    store = MemoryStore("vault", world.vaults["vault"], world.clock.now)
    for name, other in (("prod/x-y", {"environment": "prod"}), ("test/z-y", {"installation": "others"})):
        store.create(name, policies.written(world.policy) | other)
    found, troubles = sweep.managed(assembly(world))
    assert ([target.entry for target, _ in found], troubles) == ([ENTRY], [])


def test_an_entry_that_can_not_be_read_is_said_and_holds_up_nobody() -> None:
    """Neither does one whose issuer the file does not know."""
    world = World()
    store = MemoryStore("vault", world.vaults["vault"], world.clock.now)
    store.create("test/a-damaged", policies.written(world.policy) | {"drain": "soon"})
    store.create("test/b-strange", policies.written(replace(world.policy, name="b-strange", issuer="gone")))
    begun = sweep.begin(assembly(world), "Pulumi.test.yaml")
    told = [str(trouble) for trouble in begun.troubles]
    assert len(told) == 2
    assert "'drain'" in told[0]
    assert "issuer gone, which Pulumi.test.yaml lacks" in told[1]
    assert [policy.name for policy, _ in begun.run_all()] == [NAME]


def test_an_orphan_is_condemned_before_the_runs_and_killed_by_its_secrets_own() -> None:
    """No second path revokes."""
    world = World()
    sweep_all(world)
    issuer = world.engine()._issuers["vendor"]
    lost = issuer.mint(str(KeyName("acme", "test", NAME, "f" * 32))).key_id
    world.clock.move(timedelta(minutes=16))
    begun = sweep.begin(assembly(world))
    assert [orphan.key.key_id for orphan in begun.adopted] == [lost]
    assert len(world.live()) == 2
    ((_, outcome),) = begun.run_all()
    assert sweep.account(world.policy, outcome)["did"]
    world.check_settled()


def test_a_store_that_does_not_answer_makes_no_orphans() -> None:
    """Its entries may claim them; and what is declared in it is not called missing."""
    world = World()
    sweep_all(world)
    world.engine()._issuers["vendor"].mint(str(KeyName("acme", "test", NAME, "f" * 32)))
    world.clock.move(timedelta(minutes=16))
    over = assembly(world, world.policy, replace(world.policy, name="other-one", store="silent"))
    stores = dict(over.stores) | {"silent": SilentStore("silent", world.vaults["vault"], world.clock.now)}
    begun = sweep.begin(replace(over, stores=stores))
    assert (begun.adopted, begun.missing, len(begun.troubles)) == ((), (), 1)
    assert [policy.name for _, policy in begun.secrets] == [NAME]


def test_what_is_declared_and_not_applied_is_named() -> None:
    """Nothing is run for it: the applied policy is the one that counts."""
    world = World()
    begun = sweep.begin(assembly(world, world.policy, replace(world.policy, name="rag-worker-01")))
    assert begun.missing == ("rag-worker-01",)
    assert [policy.name for _, policy in begun.secrets] == [NAME]


def test_differences_from_the_file_are_named_as_the_file_names_them() -> None:
    """Whoever has edited the file and not applied it is told, not obeyed."""
    world = World()
    edited = replace(world.policy, rotate_every=timedelta(days=7), owner="others")
    assert sweep.unapplied(assembly(world, edited).config, world.policy) == ("owner", "rotateEvery")


@pytest.mark.parametrize(
    ("achieved", "trouble", "ends"),
    [
        (None, False, Ended.DONE),
        (None, True, Ended.FAILED),
        (True, True, Ended.DONE),
        (False, False, Ended.FAILED),
        (False, True, Ended.FAILED),
    ],
)
def test_how_a_run_ended(achieved: bool | None, trouble: bool, ends: Ended) -> None:
    """What was asked for and is so counts, whatever failed on the way."""
    world = World()
    caught = Trouble(Code.UNAVAILABLE, "vault", "does not answer") if trouble else None
    outcome = Outcome(world.target, None, caught, None, [], achieved)
    assert sweep.ended(outcome) is ends


def test_a_leaked_key_that_still_lives_counts_above_all() -> None:
    """A credential that is condemned and not shown dead."""
    world = World()
    sweep_all(world)
    engine = world.engine()
    engine.condemn(world.target)
    outcome = Outcome(
        world.target,
        d.Hold(cause=d.Cause.UNVERIFIED, reason="the issuer is away"),
        None,
        engine.observe(world.target),
        [],
    )
    assert sweep.ended(outcome) is Ended.UNPROVEN
    shown = sweep.account(world.policy, outcome)
    assert (shown["ended"], shown["rest"]) == ("unproven", "held: the issuer is away")
