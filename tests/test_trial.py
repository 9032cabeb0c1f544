"""A trial leaves nothing behind, wherever it is interrupted; and names what may be left when it can not see to that."""

from __future__ import annotations

import pytest

from providers.issuers.memory import MemoryIssuer, MemoryVendor
from rotation.errors import Code, Trouble
from rotation.trial import LOOKS_FOR, Trial
from tests.world import FakeClock

TOKEN = "0" * 32
CALLS = [f"{side} {call}" for call in ("keys", "mint", "verify", "last_use", "revoke") for side in ("before", "after")]


class Bench:
    """A vendor in memory, and something that happens at one call."""

    def __init__(self, at: str = "", happens: BaseException | None = None, times: int = 1) -> None:
        self.clock = FakeClock()
        self.vendor = MemoryVendor(self.clock.now)
        self.at, self.happens, self.times = at, happens, times
        self.trial = Trial(MemoryIssuer("vendor", self.vendor, hook=self.hook), self.clock, TOKEN)

    def hook(self, call: str) -> None:
        if call == self.at and self.happens and self.times:
            self.times -= 1
            raise self.happens


def test_a_whole_life() -> None:
    """Every step is good, and nothing is left."""
    bench = Bench()
    steps = [*bench.trial.run(), *bench.trial.clean()]
    assert all(step.good for step in steps)
    assert [step.name for step in steps] == ["list", "mint", "verify", "list the key", "last use", "revoke", "prove"]
    assert (bench.trial.alive, bench.vendor.live()) == (None, [])


@pytest.mark.parametrize("at", CALLS)
def test_an_interrupt_at_any_call(at: str) -> None:
    """Whoever cleans up afterwards finds what was made, by its name where its answer was lost."""
    bench = Bench(at, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        list(bench.trial.run())
    steps = list(bench.trial.clean())
    assert bench.vendor.live() == []
    assert bench.trial.alive is None or (at == "before mint" and not steps[-1].good)


@pytest.mark.parametrize("at", CALLS)
def test_no_answer_at_any_call(at: str) -> None:
    """The step fails in a sentence, and the same holds."""
    bench = Bench(at, Trouble(Code.UNAVAILABLE, "vendor", "no answer", maybe_applied=True))
    steps = [*bench.trial.run(), *bench.trial.clean()]
    assert [step.text for step in steps if not step.good][:1] == ["no answer"] or "verify" in at
    assert bench.vendor.live() == []


def test_a_mint_that_is_never_seen_may_be_alive() -> None:
    """It is looked for, and then named."""
    bench = Bench("before mint", Trouble(Code.UNAVAILABLE, "vendor", "no answer", maybe_applied=True))
    began = bench.clock.now()
    steps = [*bench.trial.run(), *bench.trial.clean()]
    assert [step.good for step in steps] == [True, False, False]
    assert bench.trial.alive == f"a key called {bench.trial.key_name}"
    assert bench.clock.now() - began >= LOOKS_FOR / 2


def test_a_revocation_that_fails_leaves_a_key_that_is_named() -> None:
    """By its id and name."""
    bench = Bench("before revoke", Trouble(Code.DENIED, "vendor", "not allowed"), times=5)
    assert not list(bench.trial.run())[-1].good
    list(bench.trial.clean())
    assert bench.trial.alive == f"the key key_1, called {bench.trial.key_name}"
    assert len(bench.vendor.live()) == 1


def test_a_key_that_stays_alive_is_not_proven() -> None:
    """Revoked on paper is not dead."""
    bench = Bench()
    bench.vendor.revoke_delay = LOOKS_FOR * 100
    steps = list(bench.trial.run())
    assert (steps[-1].name, steps[-1].good) == ("prove", False)
    assert bench.trial.alive
