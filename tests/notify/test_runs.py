"""What became of a run is told in four parts: what happened, how things are, what happens next, what a person can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from providers.stores.memory import MemoryStore
from rotation import policy as policies
from rotation.actions import Cause
from rotation.engine import Outcome
from rotation.errors import Code, Trouble
from rotation.model import Capabilities, Consumer, Drain
from rotation.notify import runs, templates
from rotation.notify.runs import PATIENCE, notices
from rotation.ports import Notice, Severity
from tests.world import ENTRY, NAME, World

DAYS = timedelta(days=1)
BEFORE = timedelta(days=3)


def capabilities(world: World) -> Capabilities:
    return world.engine().outside.issuers["vendor"].capabilities


def told(world: World, outcome: Outcome) -> list[Notice]:
    found = [*notices(world.policy, outcome, capabilities(world), world.clock.now(), BEFORE)]
    for notice in found:
        assert notice.owner == "team"
        assert notice.secret == NAME
        assert notice.subject.startswith(f"test/{NAME}: ")
        assert "\n" not in notice.subject
        assert [line.partition(":")[0] for line in notice.text.splitlines() if ":" in line][-3:] == [
            "Now",
            "Next, by itself",
            "You can",
        ]
        assert set(notice.facts) >= set(templates.PARTS)
        # Whatever a kind promises to templates, or is left empty by them, is among what was declared.
        declared = {*templates.COMMON, *templates.KINDS[notice.kind]} | {"due_at", "overdue_at", "previous_key_id"}
        assert set(notice.facts) <= declared | {"key_id", "version", "grace_until"}
        assert not [value for value in world.key_values() if value in notice.text + notice.subject + str(notice.facts)]
    return found


def kinds(found: Sequence[Notice]) -> list[tuple[str, str]]:
    return [(notice.kind, notice.severity.value) for notice in found]


@pytest.fixture
def world() -> World:
    """A secret with a credential, at rest."""
    made = World(rotate_every=30 * DAYS)
    made.sweep_until_quiet()
    return made


def fails(world: World, call: str, code: Code, message: str = "no") -> None:
    def fault(_: int, now: str) -> None:
        if now == f"before {call}":
            raise Trouble(code, "vendor", message)

    world.fault = fault


def test_nothing_is_told_of_what_is_as_it_should_be(world: World) -> None:
    """But for the end of a trouble, which only those hear who were told of it."""
    found = told(world, world.sweep())
    assert kinds(found) == [("rotation.resolved", "info")]
    assert found[0].subject.endswith("works again")


def test_a_rotation_is_announced_once_its_time_is_near(world: World) -> None:
    """With the date in the subject, so that one date is one notice."""
    due = world.sweep().rest
    assert due is not None
    at = due.due_at  # type: ignore[attr-defined]
    world.clock.at = at - BEFORE - timedelta(minutes=1)
    assert "rotation.before" not in dict(kinds(told(world, world.sweep())))
    world.clock.at = at - BEFORE
    (before,) = (n for n in told(world, world.sweep()) if n.kind == "rotation.before")
    assert before.severity is Severity.INFO
    assert f"rotates from {at:%Y-%m-%d %H:%M}Z on" in before.subject
    world.clock.move(timedelta(hours=5))
    (again,) = (n for n in told(world, world.sweep()) if n.kind == "rotation.before")
    assert again.same_as == before.same_as


def test_a_rotation_that_is_done_says_which_key_and_until_when_the_old_one_works(world: World) -> None:
    """And who has to read it by when."""
    world.policy = replace(world.policy, consumers=(Consumer("support-api", timedelta(minutes=15)),))
    MemoryStore("vault", world.vaults["vault"], world.clock.now).set_policy(ENTRY, policies.written(world.policy))
    world.clock.move(31 * DAYS)
    began = world.clock.now()
    found = told(world, world.sweep())
    done = found[0]
    assert kinds(found[:1]) == [("rotation.done", "info")]
    assert done.facts["key_id"] in done.subject
    assert done.facts["previous_key_id"] in done.text
    assert done.facts["grace_until"] == f"{began + DAYS:%Y-%m-%d %H:%M}Z"
    assert "support-api (within 15m)" in done.text
    assert [n.kind for n in told(world, world.sweep())] == ["rotation.resolved"]


def test_a_rotation_is_done_when_the_last_store_has_it() -> None:
    """Not before: a replica that is away is told of when it is done."""
    world = World(("vault", "mirror"))
    world.sweep_until_quiet()
    world.clock.move(31 * DAYS)
    world.denied = ("mirror", ("promote",))
    first = told(world, world.sweep())
    assert "rotation.done" not in dict(kinds(first))
    world.denied = ("", ())
    assert "rotation.done" in dict(kinds(told(world, world.sweep())))


def test_a_refusal_is_told_at_once_and_in_the_same_words_each_time(world: World) -> None:
    """The subject says nothing that changes from one sweep to the next; the text quotes the service."""
    world.clock.move(31 * DAYS)
    fails(world, "mint", Code.DENIED, "request 1: not allowed")
    (first,) = told(world, world.sweep())
    (waiting,) = told(world, world.sweep())
    assert waiting.same_as == first.same_as
    fails(world, "mint", Code.DENIED, "request 2: not allowed")
    world.clock.move(timedelta(hours=2))
    found = told(world, world.sweep())
    assert (first.kind, first.facts["service"], first.facts["code"]) == ("rotation.failed", "vendor", "denied")
    assert first.subject.endswith(": rotations fail: denied")
    assert "request 1" in first.text
    assert "keyturn doctor" in first.text
    assert [n.same_as for n in found] == [first.same_as]
    assert "request 2" in found[0].text
    world.fault = None
    world.clock.move(timedelta(hours=2))
    assert {"rotation.done", "rotation.resolved"} <= dict(kinds(told(world, world.sweep()))).keys()


def test_a_failure_that_passes_is_told_when_it_has_held_something_up(world: World) -> None:
    """Not a blip between two sweeps; louder once the credential is older than is allowed."""
    due = world.sweep().rest.due_at  # type: ignore[union-attr]
    fails(world, "mint", Code.UNAVAILABLE)
    world.clock.at = due + timedelta(minutes=1)
    assert told(world, world.sweep()) == []
    world.clock.at = due + PATIENCE + timedelta(minutes=20)
    assert kinds(told(world, world.sweep())) == [("rotation.failed", "warning")]
    world.clock.move(31 * DAYS)
    assert kinds(told(world, world.sweep())) == [("rotation.failed", "critical")]


def test_a_store_that_is_away_is_no_matter_of_each_owner(world: World) -> None:
    """It would be told to all of them, once for each secret; one that refuses is."""
    away = Outcome(world.target, None, Trouble(Code.UNAVAILABLE, "vault", "no answer"), None, [])
    assert told(world, away) == []
    gone = Outcome(world.target, None, Trouble(Code.NOT_FOUND, "vault", "no entry"), None, [])
    assert told(world, gone) == []
    refused = Outcome(world.target, None, Trouble(Code.DENIED, "vault", "may not read"), None, [])
    (notice,) = told(world, refused)
    assert (notice.kind, notice.facts["code"]) == ("rotation.failed", "denied")
    assert "can not be looked at: vault: denied" in notice.subject


def test_keys_that_never_work_are_told_while_it_backs_off(world: World) -> None:
    """Nothing failed in this sweep, and still a person should look."""
    world.create_delay = world.vendor.create_delay = timedelta(days=400)
    world.clock.move(29 * DAYS)
    found: list[Notice] = []
    for _ in range(4):
        found = told(world, world.sweep())
        if found and found[-1].kind == "rotation.failed":
            break
        world.clock.move(timedelta(hours=1))
    assert found[-1].kind == "rotation.failed"
    assert found[-1].subject.endswith("rotations fail: never-verified")
    assert "in a row by now" in found[-1].text


def test_a_hold_says_what_has_to_change(world: World) -> None:
    """A drain that never falls quiet, at its end."""
    world = World(rotate_every=30 * DAYS, drain=Drain(timedelta(hours=1), 2 * DAYS))
    world.sweep_until_quiet()
    world.clock.move(31 * DAYS)
    world.sweep()
    found: list[Notice] = []
    for _ in range(6):
        world.clock.move(timedelta(hours=12))
        for key in world.vendor.live():
            key.last_used_at = world.clock.now()
        found = told(world, world.sweep())
    assert kinds(found) == [("rotation.hold", "warning")]
    assert found[0].facts["cause"] == "in-use"
    assert found[0].subject.endswith(": an old credential is still in use")
    assert "find who uses the old credential" in found[0].text


def test_every_cause_and_every_code_has_words() -> None:
    """A new one is no hole in what owners are told."""
    assert runs._HELD.keys() == set(Cause)
    assert runs._ADVICE.keys() == set(Code)


def test_what_should_be_dead_and_is_not_is_told_loudly(world: World) -> None:
    """Whatever else there is to be told."""
    world.revoke_delay = world.vendor.revoke_delay = 365 * DAYS
    world.clock.move(31 * DAYS)
    world.sweep()
    found: list[Notice] = []
    for _ in range(6):
        world.clock.move(timedelta(hours=12))
        found = told(world, world.sweep())
    assert kinds(found) == [("rotation.hold", "critical")]
    assert found[0].facts["cause"] == runs.UNPROVEN
    assert found[0].subject.endswith("a credential that should be dead is not")


def test_an_issuer_that_the_stack_has_no_more_is_no_fault_of_telling(world: World) -> None:
    """Nothing can be said of its credential then."""
    assert [*notices(world.policy, world.sweep(), None, world.clock.now(), BEFORE)] == []
