"""One sweep without its hosts: what it finds, takes up, runs, and says of how that ended."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from providers.issuers.memory import MemoryIssuer
from providers.stores.memory import MemoryStore, MemoryVault
from rotation import actions, inventory, orphans, sweep
from rotation import policy as policies
from rotation.assembly import Assembly
from rotation.config import Config, GeneratedConfig
from rotation.engine import Engine, Outcome, Places, Target
from rotation.errors import Code, Trouble
from rotation.logs import JsonFormatter
from rotation.model import Entry, KeyInfo, Policy, SecretValue
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
    return Assembly(config, engine, engine.outside.stores, engine.outside.issuers, PLACES, world.clock)


PLACES = Places(lambda store, environment, name: f"{environment}/{name}", lambda environment, name: None)


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
    found, troubles = inventory.managed(assembly(world))
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
    issuer = world.engine().outside.issuers["vendor"]
    lost = issuer.mint(str(KeyName("acme", "test", NAME, "f" * 32))).key_id
    world.clock.move(timedelta(minutes=16))
    begun = sweep.begin(assembly(world))
    assert [orphan.key.key_id for orphan in begun.adopted] == [lost]
    assert len(world.live()) == 2
    assert "f" * 32 in world.engine().observe(world.target).primary.journal.condemned
    assert [policy.name for policy, _ in begun.run_all()] == [NAME]
    world.clock.move(timedelta(hours=25))  # somebody may use it all the same: it drains
    sweep_all(world)
    world.check_settled()


def test_a_store_that_does_not_answer_makes_no_orphans() -> None:
    """Its entries may claim them; and what is declared in it is not called missing."""
    world = World()
    sweep_all(world)
    world.engine().outside.issuers["vendor"].mint(str(KeyName("acme", "test", NAME, "f" * 32)))
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
        actions.Hold(cause=actions.Cause.UNVERIFIED, reason="the issuer is away"),
        None,
        engine.observe(world.target),
        [],
    )
    assert sweep.ended(outcome) is Ended.UNPROVEN
    shown = sweep.account(world.policy, outcome)
    assert (shown["ended"], shown["rest"]) == ("unproven", "held: the issuer is away")


def lines(world: World, *declared: Policy) -> tuple[Ended, list[dict[str, object]]]:
    """A whole sweep, and what it left in the log."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log = logging.getLogger("rotation.sweep")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        end = sweep.sweep(assembly(world, *declared))
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    return end, [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_whole_sweep_tells_each_run_in_one_line_of_the_log() -> None:
    """What was done, how it ended, and what comes next, as fields that a query can ask for."""
    world = World()
    end, (told,) = lines(world)
    assert end is Ended.DONE
    assert (told["secret"], told["ended"], told["level"]) == (NAME, "done", "info")
    assert told["did"] == ["minted key_1", "promoted in vault"]


def test_a_whole_sweep_is_as_good_as_the_worst_of_it() -> None:
    """A secret that fails, an entry that can not be read, or a name that is not applied."""
    world = World()
    missing = replace(world.policy, name="rag-worker-01")
    end, told = lines(world, world.policy, missing)
    assert (end, told[0]["message"]) == (Ended.DONE, "not applied yet: rag-worker-01")
    store = MemoryStore("vault", world.vaults["vault"], world.clock.now)
    store.create("test/a-damaged", policies.written(world.policy) | {"drain": "soon"})
    assert lines(world)[0] is Ended.FAILED
    store.delete("test/a-damaged")
    assert lines(world)[0] is Ended.DONE
    world.clock.move(timedelta(days=30))
    world.denied = ("vault", ("stage",))
    end, told = lines(world)
    assert (end, told[0]["level"], told[0]["ended"]) == (Ended.FAILED, "error", "failed")
    assert "stage" in str(told[0]["error"])
    edited = lines(world, replace(world.policy, rotate_every=timedelta(days=7)))[1]
    assert edited[-1]["message"] == f"{NAME}: rotateEvery differ from what is applied, which counts"


def test_fields_of_a_log_line_are_masked_and_replace_none_of_its_own() -> None:
    """However deep a living value stands, and whatever characters JSON would have to spell differently."""
    held = SecretValue('sk-"quoted"-value')
    record = logging.LogRecord("x", logging.INFO, "", 0, "hello", (), None)
    record.fields = {"level": "none", "n": 3, "none": None, "deep": [{"a": f"so {held.reveal()}!"}]}
    shown = json.loads(JsonFormatter().format(record))
    assert (shown["level"], shown["n"], shown["none"]) == ("info", 3, None)
    assert shown["deep"] == [{"a": "so [masked]!"}]


class PausedStore(MemoryStore):
    """Between two listings something else happens."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def listing(self) -> Iterator[Listed]:
        self.meanwhile()
        return super().listing()


@pytest.mark.parametrize("dated", [True, False])
def test_a_secret_that_moves_while_a_sweep_stands_between_two_stores_keeps_its_new_key(dated: bool) -> None:
    """Its new entry was not there yet when its store was listed; the issuer's list has its key already."""
    world = World(stores=("old",))
    world.run()
    world.vaults["new"] = MemoryVault()
    world.stores = ("old", "new")
    moved = replace(world.policy, store="new", replicas=())

    def move() -> None:
        MemoryStore("new", world.vaults["new"], world.clock.now).create(ENTRY, policies.written(moved))
        world.engine().run(Target("new", ENTRY))
        world.clock.move(timedelta(minutes=16))

    over = assembly(world)
    paused = PausedStore("old", world.vaults["old"], world.clock.now)
    paused.meanwhile = move
    issuer = over.issuers["vendor"]
    if not dated:
        issuer = Undated("vendor", world.vendor, issuer.capabilities)
    begun = sweep.begin(replace(over, stores={"new": over.stores["new"], "old": paused}, issuers={"vendor": issuer}))
    assert (begun.adopted, begun.troubles) == ((), ())
    assert world.live() == {"value-1", "value-2"}


class Undated(MemoryIssuer):
    """Its list does not say when a key was made."""

    def keys(self) -> Iterator[KeyInfo]:
        return (replace(key, created_at=None) for key in super().keys())  # noqa: SIM118 - a port's method


@pytest.mark.parametrize("code", [Code.DENIED, Code.UNAVAILABLE])
def test_a_store_that_nobody_lets_us_look_into_has_no_entry_and_one_that_is_silent_may(code: Code) -> None:
    """Rights are given entry by entry; an orphan waits for a store that does not answer."""
    world = World()
    world.run()
    engine = world.engine()
    issuer = engine.outside.issuers["vendor"]
    issuer.mint(str(KeyName("acme", "test", NAME, "f" * 32)))
    world.clock.move(timedelta(minutes=16))

    class Elsewhere(MemoryStore):
        def observe(self, entry: str) -> Entry:
            raise Trouble(code, self.name, f"{entry} can not be looked at")

    stores = {**engine.outside.stores, "elsewhere": Elsewhere("elsewhere", MemoryVault(), world.clock.now)}
    over = replace(assembly(world), engine=Engine(stores, {"vendor": issuer}, PLACES, world.clock, world.trail))
    listed = orphans.listings(over.issuers, ["vendor"], world.clock)
    found = list(orphans.unclaimed(listed, [(world.target, world.policy)], over.engine, world.clock))
    assert len(found) == (1 if code is Code.DENIED else 0)
