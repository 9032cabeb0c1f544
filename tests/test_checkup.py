"""What stores hand out is shown to its issuer, but never a credential that is on its way out."""

from __future__ import annotations

from datetime import timedelta

from rotation import checkup
from rotation.errors import Code
from rotation.model import Verdict
from tests.world import NAME, World


def test_a_replica_that_still_hands_out_what_drains_is_told_and_not_tried() -> None:
    """Showing it would count as use, and it would never fall quiet."""
    world = World(stores=("vault", "mirror"))
    world.run()
    world.clock.move(timedelta(days=31))
    world.denied = ("mirror", ("promote",))
    world.run()
    old, new = world.vendor.keys
    assert world.handed_out() == {"vault": new.value, "mirror": old.value}
    used = old.last_used_at
    world.clock.move(timedelta(minutes=5))
    engine = world.engine()
    primary, mirror = checkup.verify(engine, engine.outside.issuers, world.target, NAME)
    assert (primary.verdict, primary.agrees, primary.key_id) == (Verdict.VALID, True, new.key_id)
    assert (mirror.verdict, mirror.agrees, mirror.key_id) == (Verdict.UNKNOWN, False, old.key_id)
    assert "on its way out" in mirror.reason
    assert (mirror.shown, mirror.trouble) == (False, None)
    assert old.last_used_at == used
    assert new.last_used_at == world.clock.now()


def test_what_a_store_does_not_give_is_told_apart_from_what_an_issuer_says() -> None:
    """A store's refusal has its code; an issuer's silence has none, and the credential was shown."""
    world = World()
    world.run()
    engine = world.engine()
    world.vendor.unreachable = True
    (silent,) = checkup.verify(engine, engine.outside.issuers, world.target, NAME)
    assert (silent.verdict, silent.shown, silent.trouble) == (Verdict.UNKNOWN, True, None)
    world.denied = ("vault", ("observe",))
    (refused,) = checkup.verify(engine, engine.outside.issuers, world.target, NAME)
    assert (refused.verdict, refused.shown, refused.trouble) == (Verdict.UNKNOWN, False, Code.DENIED)
