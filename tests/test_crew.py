"""A sweep in two parts comes to the same as a sweep in one, whatever its queue does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from rotation import crew
from rotation.assembly import Assembly
from rotation.batches import Batch
from rotation.crew import Worker
from rotation.errors import Code, Trouble
from rotation.names import KeyName
from rotation.sweep import Ended
from tests.test_sweep import assembly
from tests.world import NAME, Crash, World

DAY = timedelta(days=1)


def fleet(world: World) -> Assembly:
    """A process of a fleet, with where its secrets are."""
    over = assembly(world)
    return replace(over, places=replace(over.places, entry_name=lambda _, environment, name: f"{environment}/{name}"))


def dispatched(world: World) -> list[Batch]:
    queue: list[Batch] = []
    sent = crew.dispatch(fleet(world), queue.append)
    assert (sent.messages, sent.due) == (len(queue), sum(len(batch.names) for batch in queue))
    return queue


def run(world: World, *batches: Batch) -> list[crew.Worked]:
    return [Worker(fleet(world)).run(str(batch)) for batch in batches]


def test_what_is_due_is_sent_out_and_done_by_whoever_gets_it() -> None:
    """From the first credential to the old one's death; what has nothing to do is in no message."""
    world = World()
    for days in (0, 1, 30, 2, 1):
        world.clock.move(days * DAY)
        queue = dispatched(world)
        assert [worked.ends for worked in run(world, *queue)] in ([(Ended.DONE,)], [])
    world.check_settled()
    assert world.handed_out() == {"vault": "value-2"}
    assert dispatched(world) == []


def test_a_message_that_comes_again_changes_nothing() -> None:
    """Twice, and once more when all is done."""
    world = World()
    queue = dispatched(world)
    run(world, *queue, *queue)
    world.clock.move(timedelta(days=3))
    run(world, *queue)
    assert world.handed_out() == {"vault": "value-1"}
    assert len(world.live()) == 1


@pytest.mark.parametrize("at", range(1, 25, 2))
def test_a_worker_that_dies_leaves_nothing_that_the_next_does_not_put_right(at: int) -> None:
    """At any call of a rotation; the same message, and later dispatches."""
    world = World()
    run(world, *dispatched(world))
    world.clock.move(timedelta(days=31))
    queue, last = dispatched(world), len(world.calls) + at

    def die(number: int, _call: str) -> None:
        if number > last:
            raise Crash

    world.fault = die
    with suppress(Crash):
        run(world, *queue)
    world.fault = None
    run(world, *queue)
    for minutes in (16, 16, 60, 26 * 60, 26 * 60):
        world.clock.move(timedelta(minutes=minutes))
        run(world, *dispatched(world))
    world.check_settled()
    assert set(world.handed_out().values()) - {"value-1"}


def test_an_orphan_is_taken_up_by_the_dispatch_and_killed_by_a_worker() -> None:
    """Its secret had nothing to do otherwise."""
    world = World()
    world.sweep_until_quiet()
    world.engine().outside.issuers["vendor"].mint(str(KeyName("acme", "test", NAME, "f" * 32)))
    world.clock.move(timedelta(minutes=16))
    run(world, *dispatched(world))
    world.clock.move(timedelta(hours=25))
    run(world, *dispatched(world))
    world.check_settled()


def test_what_fails_and_may_pass_comes_again_and_nothing_else() -> None:
    """A store that is away; not a right that is lacking, which every dispatch tells."""
    world = World()
    (batch,) = dispatched(world)
    world.fault = failing(Trouble(Code.UNAVAILABLE, "vault", "away"), "before stage")
    assert run(world, batch)[0].again == (NAME,)
    world.fault = failing(Trouble(Code.DENIED, "vault", "not allowed"), "before applied")
    assert run(world, batch)[0] == crew.Worked((), ())


def failing(trouble: Trouble, at: str) -> Callable[[int, str], None]:
    def fault(_: int, call: str) -> None:
        if call == at:
            raise trouble

    return fault


@pytest.mark.parametrize(
    "changes",
    [{"installation": "others"}, {"environment": "prod"}, {"store": "elsewhere"}, {"names": ("another-secret",)}],
)
def test_what_is_not_ours_is_left_alone(changes: dict[str, object]) -> None:
    """Whatever a message says; it does not come again."""
    world = World()
    (batch,) = dispatched(world)
    assert run(world, replace(batch, **changes))[0] == crew.Worked((), ())  # type: ignore[arg-type]
    assert world.handed_out() == {"vault": None}


def test_what_can_not_be_understood_is_dropped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """Without repeating any of it."""
    assert Worker(fleet(World())).run('{"keyturn": "runs", "value": "hunter2"}') == crew.Worked((), ())
    assert "message dropped" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_host_that_ends_begins_no_further_secret() -> None:
    world = World()
    (batch,) = dispatched(world)
    assert Worker(fleet(world), stopping=lambda: True).run(str(batch)).again == (NAME,)
    assert not world.live()


def test_a_list_is_asked_for_where_the_dispatcher_has_not_seen_the_key_in_it_and_not_each_time() -> None:
    """Five minutes are recent enough: runs know how old it is."""
    world = World()
    world.sweep_until_quiet()
    batch = Batch("acme", "test", "vault", (NAME,), list=True)
    worker, since = Worker(fleet(world)), len(world.calls)
    worker.run(str(replace(batch, list=False)))
    assert world.calls[since:].count("before keys") == 0
    worker.run(str(batch))
    worker.run(str(batch))
    assert world.calls[since:].count("before keys") == 1
    world.clock.move(crew.LISTED_FOR)
    worker.run(str(batch))
    assert world.calls[since:].count("before keys") == 2
