"""Described vendors under the engine: two slots in turn, and an administrative key that makes and revokes its own kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from providers.issuers.http import HttpIssuer
from providers.issuers.reading import shipped
from providers.issuers.samples import shipped_samples
from providers.stores.memory import MemoryStore
from rotation.engine import Engine
from rotation.errors import Trouble
from rotation.model import SecretValue
from rotation.resilience import PatientIssuer, Service
from sandbox.vendor import Key, Vendor
from tests.world import ENTRY, World


class DescribedWorld(World):
    """A world whose issuer asks a described vendor; what it hands out must be accepted there at every call."""

    def at(self, vendor: Vendor, admin: Callable[[], SecretValue]) -> None:
        self.asked, self.admin = vendor, admin
        self.issuer: HttpIssuer | None = None

    def engine(self) -> Engine:
        engine = super().engine()
        if self.issuer:
            self.issuer.close()
        self.issuer = HttpIssuer("vendor", self.asked.about, self.asked.variables, self.admin, self.clock)
        return Engine(
            engine.outside.stores,
            {"vendor": self.issuer},
            engine.outside.places,
            self.clock,
            self.trail,
            engine.outside.tokens,
        )

    def patient(self, send: Callable[..., Any] | None = None) -> Engine:
        """An engine whose issuer asks again as a host's does.

        Parameters:
            send: stands between it and the vendor: gets what really sends, and what it is to send.
        """
        parts = super().engine().outside
        issuer = HttpIssuer("vendor", self.asked.about, self.asked.variables, self.admin, self.clock)
        if send:
            real = issuer._wire.send
            issuer._wire.send = lambda *call: send(real, *call)  # type: ignore[method-assign]
        asked = PatientIssuer(issuer, Service("vendor", self.clock, lambda: 0.5))
        return Engine(parts.stores, {"vendor": asked}, parts.places, self.clock, self.trail, parts.tokens)

    def check(self) -> None:
        for store, value in self.handed_out().items():
            assert value is None or self.asked.accepts({"value": value}, use=False), f"outage in {store}"

    def current(self) -> str:
        value = self.handed_out()["vault"]
        assert value
        return value

    def holding(self, slot: str) -> Key:
        return next(key for key in self.asked.live() if key.slot == slot)


@contextmanager
def world(kind: str, *, administer: bool = False) -> Iterator[DescribedWorld]:
    made = DescribedWorld()
    samples, about = shipped_samples(kind), shipped(kind)
    delay = timedelta(seconds=3)
    vendor = Vendor(about, samples, now=made.clock.now, create_delay=delay, revoke_delay=delay, administer=administer)
    with vendor:
        made.at(vendor, lambda: SecretValue(vendor.admin))
        yield made
        if made.issuer:
            made.issuer.close()


@pytest.mark.parametrize("kind", ["azure-openai", "azure-storage"])
def test_two_slots_take_turns(kind: str) -> None:
    """The other one is regenerated; the old one is discarded when its grace is over, and is free for the next turn."""
    with world(kind) as w:
        w.run()
        first = w.current()
        assert w.issuer
        assert w.holding(w.issuer.capabilities.slots[0]).values == {"value": first}
        w.clock.move(timedelta(days=30))
        w.run()
        second = w.current()
        assert second != first
        assert w.asked.accepts({"value": first}, use=False), "it drains"
        w.clock.move(timedelta(days=20))
        w.run()
        assert not w.asked.accepts({"value": first}, use=False)
        assert "proven" in w.trail.events()
        w.clock.move(timedelta(days=12))
        w.run()
        assert w.current() not in (first, second)
        assert w.asked.minted == 4, "three keys, and one to discard the first"


def test_a_slot_that_somebody_else_has_used_is_not_discarded() -> None:
    """Its id is of a value that it does not hold any more: there is nothing of ours to revoke."""
    with world("azure-openai") as w:
        w.run()
        w.clock.move(timedelta(days=30))
        w.run()
        assert w.issuer
        w.issuer.mint("by hand", w.issuer.capabilities.slots[0])
        theirs = dict(w.holding(w.issuer.capabilities.slots[0]).values)
        w.clock.move(timedelta(days=20))
        w.run()
        assert w.asked.accepts(theirs, use=False)
        assert "proven" in w.trail.events()


def test_an_admin_key_rotates_itself() -> None:
    """A person brings the first; from then on the new one makes the next, and revokes the one that made it."""
    with world("openai-admin", administer=True) as w:
        bootstrap = w.asked.admin

        def admin() -> SecretValue:
            store = MemoryStore("vault", w.vaults["vault"], w.clock.now)
            try:
                return store.current(ENTRY).fields["value"]
            except Trouble:
                return SecretValue(bootstrap)

        w.admin = admin
        w.run()
        first = w.current()
        w.asked.admin = "nobody has this one any more"
        w.clock.move(timedelta(days=30))
        w.run()
        assert w.current() != first
        w.clock.move(timedelta(days=3))
        w.run()
        w.clock.move(timedelta(days=1))
        w.sweep_until_quiet()
        assert not w.asked.accepts({"value": first}, use=False)
        assert [key.values["value"] for key in w.asked.live()] == [w.current()]
