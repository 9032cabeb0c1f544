"""Patience: what is asked again and when, what goes out once, and when a service is left alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from providers.issuers.memory import MemoryIssuer, MemoryVendor
from providers.stores.memory import MemoryStore, MemoryVault
from rotation.errors import Code, Trouble
from rotation.model import Credential
from rotation.resilience import Limits, PatientIssuer, PatientStore, Service
from tests.world import FakeClock


class Flaky:
    """Fails as often as it is told to, and counts."""

    def __init__(self, *troubles: Trouble) -> None:
        self.troubles = list(troubles)
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        if self.troubles:
            raise self.troubles.pop(0)
        return "answer"


def trouble(code: Code, **more: float | bool) -> Trouble:
    return Trouble(code, "vault", "no", **more)  # type: ignore[arg-type]


def service(clock: FakeClock, chance: Callable[[], float] = lambda: 0.5, **limits: float) -> Service:
    return Service("vault", clock, chance, Limits(**limits))  # type: ignore[arg-type]


def test_a_question_is_asked_again_with_growing_waits() -> None:
    """Each wait lies between the first and three times the last."""
    waits: list[float] = []

    class Noting(FakeClock):
        def sleep(self, seconds: float) -> None:
            waits.append(seconds)

    flaky = Flaky(*[trouble(Code.UNAVAILABLE)] * 3)
    assert service(Noting(), chance=lambda: 1.0).call("observe", flaky, repeatable=True) == "answer"
    assert waits == pytest.approx([0.6, 1.8, 5.4])


def test_the_services_own_word_wins() -> None:
    """Retry-After is kept to, and jitter only adds."""
    clock, flaky = FakeClock(), Flaky(trouble(Code.THROTTLED, retry_after=7.0))
    service(clock).call("observe", flaky, repeatable=False)
    assert timedelta(seconds=7) <= clock.now() - FakeClock().now() <= timedelta(seconds=7.2)


def test_a_write_without_an_answer_goes_out_once() -> None:
    """Whether it took effect is found out by looking, not by doing it again."""
    flaky = Flaky(trouble(Code.UNAVAILABLE, maybe_applied=True))
    with pytest.raises(Trouble):
        service(FakeClock()).call("observe", flaky, repeatable=False)
    assert flaky.asked == 1


@pytest.mark.parametrize("code", [Code.DENIED, Code.INVALID, Code.NOT_FOUND, Code.CONFLICT, Code.LIMIT])
def test_a_permanent_refusal_is_not_asked_again(code: Code) -> None:
    """Somebody has to change something first."""
    flaky = Flaky(trouble(code))
    with pytest.raises(Trouble):
        service(FakeClock()).call("observe", flaky, repeatable=True)
    assert flaky.asked == 1


def test_a_call_has_a_budget() -> None:
    """However often it fails, it ends within its time."""
    clock, flaky = FakeClock(), Flaky(*[trouble(Code.THROTTLED)] * 100)
    with pytest.raises(Trouble):
        service(clock, budget=20.0).call("observe", flaky, repeatable=True)
    assert clock.monotonic() <= 20


def test_a_broken_service_is_left_alone_and_tried_again() -> None:
    """After five failures in a row nobody asks for a while; then one call finds out."""
    clock = FakeClock()
    broken = service(clock)
    down = Flaky(*[trouble(Code.UNAVAILABLE, maybe_applied=True)] * 6)
    for _ in range(5):
        with pytest.raises(Trouble):
            broken.call("observe", down, repeatable=False)
    with pytest.raises(Trouble, match="left alone"):
        broken.call("observe", down, repeatable=False)
    assert down.asked == 5
    clock.move(timedelta(seconds=31))
    with pytest.raises(Trouble, match="no"):
        broken.call("observe", down, repeatable=False)
    with pytest.raises(Trouble, match="left alone"):
        broken.call("observe", down, repeatable=False)
    clock.move(timedelta(seconds=31))
    assert broken.call("observe", down, repeatable=False) == "answer"
    assert broken.call("observe", down, repeatable=False) == "answer"


def test_a_service_that_is_left_alone_is_told_with_what_broke_it() -> None:
    """Also when it is a call's own repetitions that broke it: their cause is not lost, nor that one may have worked."""
    cause = Trouble(Code.UNAVAILABLE, "vault", "prod/a: the server is sealed", maybe_applied=True)
    broken, down = service(FakeClock()), Flaky(*[cause] * 5)
    with pytest.raises(Trouble, match=r"left alone for .*: prod/a: the server is sealed") as caught:
        broken.call("record", down, repeatable=True)
    assert (down.asked, caught.value.code, caught.value.maybe_applied) == (5, Code.UNAVAILABLE, True)
    with pytest.raises(Trouble, match=r"left alone for .*: prod/a: the server is sealed") as later:
        broken.call("record", down, repeatable=True)
    assert (down.asked, later.value.maybe_applied) == (5, False)


def test_a_mint_goes_out_once_even_when_throttled() -> None:
    """And so does a verification: the engine counts its answers itself."""
    clock = FakeClock()
    calls: list[str] = []

    def hook(call: str) -> None:
        calls.append(call)
        if call == "before mint":
            raise trouble(Code.THROTTLED)

    issuer = PatientIssuer(MemoryIssuer("vendor", MemoryVendor(clock.now), hook=hook), service(clock))
    with pytest.raises(Trouble):
        issuer.mint("acme.test-a-b.t")
    assert calls == ["before mint"]


def test_a_store_behind_patience_is_the_same_store() -> None:
    """Every method reaches it, and reads outlast a fault."""
    clock, faults = FakeClock(), [trouble(Code.UNAVAILABLE)]

    def hook(call: str) -> None:
        if call == "before observe" and faults:
            raise faults.pop()

    store = PatientStore(MemoryStore("vault", MemoryVault(), clock.now, hook), service(clock))
    store.create("e", {"name": "n"})
    store.stage("e", "t1", Credential.of(value="v"), key_id="k")
    pending = store.observe("e").pending
    assert pending
    store.promote("e", pending, None)
    current = store.observe("e").current
    assert current
    assert store.read("e", current).fields["value"].reveal() == "v"
    assert store.find("e", "t1")
    store.record("e", {"x.y": "at=1"})
    store.forget("e", iter(["x.y"]))
    store.set_policy("e", {"name": "m"})
    assert [listed.policy for listed in store.listing()] == [{"name": "m"}]
    store.discard("e", pending)
    store.delete("e")
    assert store.restore("e")
    assert store.name == "vault"
    assert store.features.compare_and_set


def test_only_so_many_calls_are_under_way_at_once() -> None:
    """Whoever comes when all turns are taken waits for one, and then goes on."""
    patient = service(FakeClock(), at_once=2)
    inside, most, lock = 0, 0, threading.Lock()
    two = threading.Barrier(2)

    def work() -> str:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        two.wait(timeout=10)  # both turns are taken before one of them ends
        with lock:
            inside -= 1
        return "answer"

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: patient.call("observe", work, repeatable=True), range(6)))
    assert answers == ["answer"] * 6
    assert most == 2
