"""When the long-running sweep sweeps: on the next date, on the interval, sooner after a failure; and what probes are told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from providers.issuers.memory import MemoryIssuer
from providers.stores.memory import MemoryStore
from rotation.actions import Cause
from rotation.assembly import Assembly
from rotation.config import load
from rotation.daemon import Daemon
from rotation.engine import Engine, Places
from rotation.errors import Code, Trouble
from rotation.model import Capabilities, Model
from rotation.observe.board import Board, Look
from rotation.status import Phase
from tests.world import ENTRY, START, World

STACK = """
config:
  keyturn:installation: acme
  keyturn:environment: test
  keyturn:stores:
    vault: {kind: hashicorp-vault, address: "https://127.0.0.1:1", auth: {method: token}}
  keyturn:issuers:
    vendor: {kind: generated}
  keyturn:owners:
    team: {notify: []}
  keyturn:secrets:
    - {name: support-copilot-chat, store: vault, issuer: vendor, owner: team, rotateEvery: 30d}
"""
MINUTE = timedelta(minutes=1)


class Site:
    """A daemon over a world in memory, whose sleeps move the clock; it ends after so many sweeps."""

    def __init__(self, path: Path, world: World, every: timedelta = 5 * MINUTE, chance: float = 0.0) -> None:
        (path / "Pulumi.test.yaml").write_text(STACK)
        self.world, self.stopping, self.board = world, threading.Event(), Board()
        self.sweeps: list[float] = []
        self.slept = 0
        self.at_sweep: Callable[[int], None] = lambda _: None
        config = load(path / "Pulumi.test.yaml")
        engine = world.engine()
        places = Places(lambda *_: ENTRY, lambda *_: None)
        counted = self._counted(engine)
        self.assembly = Assembly(config, counted, engine.outside.stores, engine.outside.issuers, places, world.clock)
        self.daemon = Daemon(self.assembly, self.board, self.stopping, every, lambda: chance, wait=self._wait)

    def _counted(self, engine: Engine) -> Engine:
        """Notes each sweep by its listing of the store, which every sweep makes once."""
        site, store = self, engine.outside.stores["vault"]
        assert isinstance(store, MemoryStore)
        plain = store.listing

        def listing() -> object:
            site.sweeps.append(site.world.clock.monotonic())
            site.at_sweep(len(site.sweeps))
            return plain()

        store.listing = listing  # type: ignore[assignment]
        return engine

    def _wait(self, seconds: float) -> None:
        self.slept += 1
        self.world.clock.sleep(seconds)

    def run(self, sweeps: int, at_sweep: Callable[[int], None] = lambda _: None) -> list[float]:
        """Seconds between the sweeps."""

        def at(number: int) -> None:
            try:
                at_sweep(number)
            finally:
                if number == sweeps:
                    self.stopping.set()

        self.at_sweep = at
        self.daemon.run()
        return [later - earlier for earlier, later in zip(self.sweeps, self.sweeps[1:], strict=False)]

    @property
    def looks(self) -> dict[str, Look]:
        return {look.policy.name: look for look in self.board._looks.values()}


def away(number: int) -> None:
    raise Trouble(Code.UNAVAILABLE, "vault", "no answer")


def test_the_interval_is_kept_while_nothing_comes_first(tmp_path: Path) -> None:
    """Within the tick of a second."""
    assert Site(tmp_path, World()).run(4) == pytest.approx([300, 300, 300], abs=3)


def test_the_next_date_wakes_it(tmp_path: Path) -> None:
    """A credential that is due in nine hours is replaced then, not at the next round time; the end of the grace period too."""
    world = World(rotate_every=timedelta(hours=9), grace=timedelta(hours=1))
    site = Site(tmp_path, world, every=timedelta(hours=2))
    dates: list[float] = []

    def noted(number: int) -> None:
        if look := site.looks.get(world.policy.name):
            assert look.due_at
            dates.append((look.due_at - START).total_seconds())

    site.run(8, noted)
    due = dates[0]
    assert any(due <= at < due + 3 for at in site.sweeps), (site.sweeps, dates)
    assert any(due + 3600 <= at < due + 3600 + 60 for at in site.sweeps), (site.sweeps, dates)
    assert site.sweeps[:4] == pytest.approx([0, 7200, 14400, 21600], abs=10)


def test_a_clock_that_is_set_is_noticed(tmp_path: Path) -> None:
    """Or a machine that has slept: what fell due meanwhile is done within a second, not after the interval."""
    world = World()
    site = Site(tmp_path, world, every=timedelta(hours=6))
    plain = site._wait

    def jump(seconds: float) -> None:
        plain(seconds)
        if site.slept == 10:
            world.clock.at += timedelta(days=40)  # the wall clock; the daemon's own seconds go on by this as well

    site.daemon._wait = jump
    site.run(2)
    assert site.slept <= 12


def test_jitter_only_delays(tmp_path: Path) -> None:
    """By a tenth of the interval, at most half a minute."""
    assert Site(tmp_path, World(), chance=1.0).run(3) == pytest.approx([330, 330], abs=3)
    assert Site(tmp_path, World(), every=MINUTE, chance=0.5).run(3) == pytest.approx([63, 63], abs=3)


def test_after_a_failure_it_looks_soon_and_then_ever_later(tmp_path: Path) -> None:
    """10 s, doubling, never later than the interval; one success and it is patient again."""

    def outage(number: int) -> None:
        if number < 7:
            away(number)

    site = Site(tmp_path, World())
    assert site.run(9, outage) == pytest.approx([10, 20, 40, 80, 160, 300, 300, 300], abs=3)


def test_a_sweep_that_breaks_off_is_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it was. It is logged, the probe is told, and the next sweep begins afresh."""
    told: list[str] = []
    site = Site(tmp_path, World())

    def broken(number: int) -> None:
        told.append(site.daemon.health().reason)
        if number == 2:
            raise ZeroDivisionError

    site.run(4, broken)
    assert told == ["the first sweep is not over", "ready", "the last sweep broke off: ZeroDivisionError", "ready"]
    assert "the sweep broke off" in caplog.text


def test_readiness_follows_the_stores(tmp_path: Path) -> None:
    """Of the last sweep. What is known of a store's secrets stays, as unreachable, and is not forgotten."""
    told: list[tuple[bool, str]] = []
    site = Site(tmp_path, World())

    def outage(number: int) -> None:
        health = site.daemon.health()
        told.append((health.ready, health.reason))
        if number == 3:
            assert site.looks[site.world.policy.name].phase is Phase.STEADY
        if number == 2:
            away(number)

    site.run(2, outage)
    look = site.looks[site.world.policy.name]
    assert look.phase is Phase.UNREACHABLE
    assert look.due_at is not None
    assert told == [(False, "the first sweep is not over"), (True, "ready")]
    assert site.daemon.health().reason == "stopping"
    site.stopping.clear()
    assert site.daemon.health().reason == "vault: no answer"


def test_a_loop_that_does_not_turn_is_not_alive(tmp_path: Path) -> None:
    """After three intervals, a quarter of an hour at least: a run may stay for minutes."""
    site = Site(tmp_path, World(), every=timedelta(hours=1))
    site.run(1)
    site.world.clock.move(timedelta(hours=3))
    assert site.daemon.health().alive
    site.world.clock.move(timedelta(minutes=1))
    assert not site.daemon.health().alive
    short = Site(tmp_path, World(), every=timedelta(seconds=10))
    short.world.clock.move(timedelta(minutes=15))
    assert short.daemon.health().alive


def test_nothing_new_is_begun_once_it_is_to_stop(tmp_path: Path) -> None:
    """The store was listed, and that was all."""
    site = Site(tmp_path, World())
    site.run(1)
    assert site.world.calls.count("before mint") == 0
    assert not site.looks


def test_the_log_has_a_line_for_each_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not one for each secret and sweep."""
    caplog.set_level("INFO", logger="rotation")
    site = Site(tmp_path, World(rotate_every=timedelta(days=30)))
    site.run(20)
    assert len([record for record in caplog.records if record.levelname == "INFO"]) == 2


def test_what_is_gone_is_forgotten_and_what_is_not_applied_is_shown(tmp_path: Path) -> None:
    """A secret that no store has any more ends its series; one that is only declared has a phase and no dates."""
    site = Site(tmp_path, World())

    def deleted(number: int) -> None:
        if number == 3:
            site.world.vaults["vault"].entries.clear()

    site.run(4, deleted)
    assert site.looks[site.world.policy.name].phase is Phase.NOT_APPLIED
    names = {instrument.name for instrument, _, _ in site.board.read(site.world.clock.now())}
    assert names == {"keyturn_secret_phase", "keyturn_store_reached", "keyturn_observation_timestamp_seconds"}


def test_a_hold_is_shown_with_what_it_waits_for(tmp_path: Path) -> None:
    """By the code of its cause, not its words."""
    world = World(capabilities=Capabilities(model=Model.MANUAL, revokes=False))
    site = Site(tmp_path, world)
    issuer = site.assembly.issuers["vendor"]
    assert isinstance(issuer, MemoryIssuer)
    site.run(2)
    assert site.looks[world.policy.name].held == Cause.PERSON.value
