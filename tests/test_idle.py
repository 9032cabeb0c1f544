"""What is spared a look is what a look would find nothing to do for: at every moment of a secret's life, whatever went wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from providers.stores.memory import MemoryStore
from rotation import idle, sweep
from rotation import policy as policies
from rotation.actions import Rest
from rotation.assembly import Assembly
from rotation.engine import Outcome, Target
from rotation.errors import Code, Trouble
from rotation.idle import Memory
from rotation.model import Policy
from rotation.names import KeyName
from rotation.ports import Glance
from rotation.situation import ATTEMPT_LIFE, Order
from rotation.survey import Quiet, Survey
from tests.test_sweep import assembly
from tests.world import ENTRY, NAME, Crash, World

MINUTES = (1, 5, 16, 60, 25 * 60, 29 * 24 * 60, 31 * 24 * 60)
calm = settings(max_examples=60, deadline=None)


def looked(world: World) -> tuple[list[Quiet], Survey]:
    """One look round by a fresh process, and what it found quiet."""
    quiet: list[Quiet] = []
    survey = Survey(assembly(world), "the file", quiet.append, lambda _: None)
    survey.look()
    return quiet, survey


def calls(world: World, since: int) -> list[str]:
    """Calls from there on, each once."""
    return [call for call in world.calls[since:] if call.startswith("before ")]


class Marked(MemoryStore):
    """Its listing tells no more of an entry than whether it is as before, as a store does that keeps journals apart."""

    def glances(self) -> Iterator[Glance]:
        for name, found in sorted(self._vault.entries.items()):
            state = (
                sorted(found.facts.items()),
                found.current and found.current.id,
                found.pending and found.pending.id,
            )
            mark = hash((str(state), str(sorted(found.policy.items())))) % 2**62 + 1
            yield Glance(name, found.policy, mark=mark)


def marked(world: World) -> Assembly:
    """A long-lived process over a world whose store gives marks alone."""
    over = assembly(world)
    store = Marked("vault", world.vaults["vault"], world.clock.now, world._hook_of("vault"))
    engine = over.engine
    engine.outside.stores["vault"] = store  # type: ignore[index]
    return over


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(MINUTES), st.sampled_from(("run", "run", "crash", "rotate", "condemn", "mint"))),
        max_size=8,
    ),
    at=st.integers(1, 30),
)
@calm
def test_what_is_quiet_is_what_a_run_does_nothing_for(steps: list[tuple[int, str]], at: int) -> None:
    """From any point of any life, crashes and lost keys included: a quiet secret's run ends the same, and changes nothing."""
    world = World(allow_outage=True)
    for minutes, what in steps:
        world.clock.move(timedelta(minutes=minutes))
        engine = world.engine()
        match what:
            case "crash":
                world.fault = crash_after(len(world.calls) + at)
                with suppress(Crash):
                    engine.run(world.target)
                world.fault = None
            case "rotate":
                engine.rotate(world.target)
            case "condemn":
                engine.condemn(world.target)
            case "mint":
                engine.outside.issuers["vendor"].mint(str(KeyName("acme", "test", NAME, "f" * 32)))
            case _:
                engine.run(world.target)
    found, survey = looked(world)
    before = dict(world.vaults["vault"].entries[ENTRY].facts)
    for one in found:
        outcome = world.engine().run(world.target, survey.ledger.order("vendor"))
        assert outcome.records == []
        assert isinstance(outcome.rest, Rest)
        assert one.outcome is not None
        assert one.outcome.rest is not None
        assert type(outcome.rest) is type(one.outcome.rest)
        assert outcome.rest.reason == one.outcome.rest.reason
        assert world.vaults["vault"].entries[ENTRY].facts == before


def crash_after(last: int) -> Callable[[int, str], None]:
    def fault(number: int, _call: str) -> None:
        if number > last:
            raise Crash

    return fault


def test_an_idle_secret_costs_no_call_of_its_own() -> None:
    """The listing of its store and that of its issuer, and nothing else; the same for any number."""
    world = World()
    world.sweep_until_quiet()
    since = len(world.calls)
    begun = sweep.begin(assembly(world))
    assert [outcome.rest is not None for _, outcome in begun.run_all()] == [True]
    assert sorted(calls(world, since)) == ["before keys", "before listing"]
    assert (len(begun.due), begun.quiet, begun.total) == (0, 1, 1)


def test_a_secret_in_its_grace_period_costs_none_either() -> None:
    """Only time matters; once it is over, somebody has to ask."""
    world = World()
    world.sweep_until_quiet()
    world.clock.move(timedelta(days=31))
    world.sweep()
    world.clock.move(timedelta(hours=2))
    assert [quiet.until for quiet in looked(world)[0]] == [world.clock.now() + timedelta(hours=22)]
    world.clock.move(timedelta(hours=23))
    assert looked(world)[0] == []


def test_a_key_that_was_deleted_at_its_issuer_is_looked_at() -> None:
    """The listing of the store shows nothing of that; the issuer's list does."""
    world = World(allow_outage=True)
    world.sweep_until_quiet()
    world.vendor.keys.clear()
    assert looked(world)[0] == []


def test_an_orphan_of_an_idle_secret_is_found_and_its_secret_run() -> None:
    """With one look at that secret, in a sweep that looks at no other."""
    world = World()
    world.sweep_until_quiet()
    world.engine().outside.issuers["vendor"].mint(str(KeyName("acme", "test", NAME, "f" * 32)))
    world.clock.move(timedelta(minutes=16))
    begun = sweep.begin(assembly(world))
    assert [orphan.token for orphan in begun.adopted] == ["f" * 32]
    assert [target for target, _ in begun.due] == [world.target]


def test_replicas_are_looked_at() -> None:
    """A listing of the primary does not tell what they hand out."""
    world = World(("vault", "aws"))
    world.sweep_until_quiet()
    assert looked(world)[0] == []


def test_what_is_declared_differently_is_still_said() -> None:
    """Of a secret that has nothing to do, too."""
    world = World()
    world.sweep_until_quiet()
    edited = replace(world.policy, owner="others")
    begun = sweep.begin(assembly(world, edited))
    ((_, outcome),) = begun.run_all()
    assert outcome.seen is not None
    assert sweep.unapplied(assembly(world, edited).config, outcome.seen.policy) == ("owner",)


def test_a_host_is_told_of_each_while_nothing_is_kept() -> None:
    """So that a sweep takes the same room for any number; without a listener some are kept for the report."""
    world = World()
    world.sweep_until_quiet()
    told: list[Target] = []
    begun = sweep.begin(assembly(world), quiet=lambda one: told.append(one.target))
    assert (told, len(begun.secrets), begun.total) == ([world.target], 0, 1)
    assert len(sweep.begin(assembly(world)).secrets) == 1


def test_secrets_that_differ_in_name_alone_share_a_policy() -> None:
    """What is held of a secret is small: 100,000 that all have to be looked at fit, too."""
    world = World()
    store = MemoryStore("vault", world.vaults["vault"], world.clock.now)
    for number in range(50):
        name = f"service-{number:03}"
        store.create(f"test/{name}", policies.written(replace(world.policy, name=name)))
    _, survey = looked(world)
    due = survey.due()
    assert len(due) == 51
    assert len({id(one.like) for one in due._held}) == 1
    assert {policy.name for _, policy in due} >= {"service-000", "service-049"}
    assert due[1][1] == replace(world.policy, name="service-001") or due[1][1].name.startswith("s")
    assert len(due[:3]) == 3


# --- a store that gives marks alone ------------------------------------------------------------------


def test_nothing_is_asked_of_what_is_as_it_was_when_nothing_was_to_be_done() -> None:
    """Until its mark is another one, its time has come, or a day is over."""
    world = World()
    world.sweep_until_quiet()
    over = marked(world)
    assert sweep.sweep(over) is sweep.Ended.DONE
    world.clock.move(timedelta(minutes=5))
    since = len(world.calls)
    assert sweep.sweep(over) is sweep.Ended.DONE
    assert calls(world, since) == ["before keys"]
    MemoryStore("vault", world.vaults["vault"], world.clock.now).record(
        ENTRY, {"frozen": "at=2026-01-01T00:00:00Z incident=x"}
    )
    sweep.sweep(over)
    assert "before observe" in calls(world, since)
    sweep.sweep(over)
    world.clock.move(timedelta(days=1))
    since = len(world.calls)
    sweep.sweep(over)
    assert "before observe" in calls(world, since)


def test_an_orphan_is_seen_although_its_secret_is_remembered() -> None:
    """The keys that are listed of a secret are part of how it was."""
    world = World()
    world.sweep_until_quiet()
    over = marked(world)
    sweep.sweep(over)
    sweep.sweep(over)
    over.engine.outside.issuers["vendor"].mint(str(KeyName("acme", "test", NAME, "f" * 32)))
    world.clock.move(timedelta(minutes=16))
    assert [orphan.token for orphan in sweep.begin(over).adopted] == ["f" * 32]


def test_a_rotation_that_is_due_is_not_slept_through() -> None:
    """Nor is its announcement."""
    world = World()
    world.sweep_until_quiet()
    over = marked(world)
    since = world.handed_out()
    for _ in range(31):
        sweep.sweep(over)
        world.clock.move(timedelta(days=1))
    assert world.handed_out() != since


def outcome_of(world: World) -> Outcome:
    return world.engine().run(world.target, Order())


def test_what_is_in_flight_or_failed_is_not_remembered() -> None:
    """A run that did something, that failed, or that came upon somebody's attempt."""
    world, memory = World(), Memory()
    now = world.clock.now
    memory.note(world.target, 7, outcome_of(world), now(), timedelta(days=3))
    assert memory.until(world.target, 7, now()) is None, "it has done something"
    memory.note(world.target, 7, outcome_of(world), now(), timedelta(days=3))
    assert memory.until(world.target, 7, now()) is None, "its attempt is young"
    world.clock.move(ATTEMPT_LIFE)
    done = outcome_of(world)
    failed = replace_trouble(done)
    memory.note(world.target, 7, failed, now(), timedelta(days=3))
    assert memory.until(world.target, 7, now()) is None, "it failed"
    memory.note(world.target, 7, done, now(), timedelta(days=3))
    until = memory.until(world.target, 7, now())
    assert until is not None
    assert timedelta(hours=11) < until - now() <= idle.LOOK_WITHIN
    assert memory.until(world.target, 8, now()) is None
    memory.sweep(now() + idle.LOOK_WITHIN)
    assert memory._until == {}


def replace_trouble(outcome: Outcome) -> Outcome:
    return Outcome(outcome.target, outcome.rest, Trouble(Code.UNAVAILABLE, "vault", "away"), outcome.seen, [])


def test_policies_are_announced_before_anything_is_asked_for_them() -> None:
    """A login that is not set ends a sweep before it has changed anything."""
    world = World()
    seen: list[Policy] = []
    Survey(assembly(world), "the file", lambda _: None, seen.append).look()
    assert [policy.name for policy in seen] == [NAME]
