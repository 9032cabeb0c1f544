"""Errands are done beside the work: bounded, in order, within a limit, again where that may help."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from rotation.errors import Code, Trouble
from rotation.notify.courier import Courier, Limited, judged


def test_errands_are_done_in_order_and_what_waits_goes_together() -> None:
    """While one is under way the others gather, up to the size of a batch."""
    began, go = threading.Event(), threading.Event()
    batches: list[list[int]] = []

    def deliver(errands: Sequence[int]) -> None:
        began.set()
        assert go.wait(10)
        batches.append([*errands])

    courier = Courier[int]("test", deliver, batch=3)
    assert courier.take(1)
    assert began.wait(10)
    assert all(courier.take(errand) for errand in range(2, 7))
    go.set()
    assert courier.wait(10) == ()
    assert batches == [[1], [2, 3, 4], [5, 6]]


def test_there_is_room_for_so_many_and_no_more() -> None:
    """A place that takes too long loses what comes last; nobody waits for it."""
    go = threading.Event()

    def deliver(_: Sequence[int]) -> None:
        go.wait(10)

    courier = Courier[int]("test", deliver, batch=1, room=2)
    assert courier.take(1)
    while courier.wait(0.01) != (1,):
        pass  # until the first is under way
    assert [courier.take(errand) for errand in (2, 3, 4)] == [True, True, False]
    assert courier.wait(0.01) == (1, 2, 3)
    go.set()
    assert courier.wait(10) == ()


def test_a_fault_loses_one_errand_and_not_the_courier(caplog: pytest.LogCaptureFixture) -> None:
    """The next one is done all the same."""
    done: list[int] = []

    def deliver(errands: Sequence[int]) -> None:
        if errands[0] == 1:
            raise KeyError(1)
        done.extend(errands)

    courier = Courier[int]("test", deliver, batch=1)
    courier.take(1)
    courier.take(2)
    assert courier.wait(10) == ()
    assert done == [2]
    assert "what was under way is lost" in caplog.text


@pytest.mark.parametrize(
    ("codes", "tries", "raised"),
    [
        ([], 1, None),
        ([Code.UNAVAILABLE], 2, None),
        ([Code.UNAVAILABLE, Code.THROTTLED], 3, None),
        ([Code.UNAVAILABLE] * 3, 3, Code.UNAVAILABLE),
        ([Code.DENIED], 1, Code.DENIED),
        ([Code.UNAVAILABLE, Code.INVALID], 2, Code.INVALID),
    ],
)
def test_what_passes_is_tried_again_and_what_does_not_is_not(
    codes: list[Code], tries: int, raised: Code | None
) -> None:
    """Three times at most."""
    made: list[int] = []

    def send() -> None:
        made.append(1)
        if len(made) <= len(codes):
            raise Trouble(codes[len(made) - 1], "place", "no")

    limited = Limited(10, (0.0, 0.0))
    if raised is None:
        limited.call("place", send)
    else:
        with pytest.raises(Trouble) as caught:
            limited.call("place", send)
        assert caught.value.code is raised
    assert len(made) == tries


def test_a_call_that_hangs_is_given_up_and_no_second_one_begun() -> None:
    """One thread waits for it at most, however often the place is called."""
    go = threading.Event()
    begun: list[int] = []

    def hang() -> None:
        begun.append(1)
        go.wait(30)

    limited = Limited(0.02, (0.0,))
    with pytest.raises(Trouble, match="an earlier call has no answer yet"):
        limited.call("place", hang)
    assert len(begun) == 1
    go.set()
    limited._hanging.join(10) if limited._hanging else None
    limited.call("place", lambda: None)


def test_what_a_library_raises_is_told_by_its_name_alone() -> None:
    """Its text has the address in it, token and all."""
    limited = Limited(10, ())
    with pytest.raises(Trouble) as caught:
        limited.call("place", lambda: (_ for _ in ()).throw(OSError("https://hooks/T0/B0/token")))
    assert str(caught.value) == "place: OSError"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (302, Code.INVALID),
        (400, Code.INVALID),
        (401, Code.DENIED),
        (404, Code.NOT_FOUND),
        (408, Code.UNAVAILABLE),
        (429, Code.THROTTLED),
        (503, Code.UNAVAILABLE),
    ],
)
def test_a_status_says_whether_it_is_worth_trying_again(status: int, code: Code) -> None:
    """What a person must change is not repeated."""
    assert judged(status) is code
