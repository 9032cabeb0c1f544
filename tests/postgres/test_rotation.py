"""Whole rotations of a PostgreSQL password by the engine, under a workload that reconnects and must never fail."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self

import psycopg
import pytest

from providers.issuers.postgresql import PostgreSQLIssuer
from providers.stores.memory import MemoryStore, MemoryVault
from rotation import actions
from rotation import policy as policies
from rotation.engine import Engine, Outcome, Places, Target
from rotation.errors import Trouble
from rotation.logs import masked
from rotation.model import MASK, Credential, Policy, SecretValue
from tests.postgres.harness import ADMIN, ADMIN_PASSWORD, OWNER, USERS, RunningClock, cleared, connect, server
from tests.postgres.server import Place
from tests.postgres.wire import When, Wire
from tests.world import ENTRY, NAME, SWEEPS, Trail

ENOUGH = 3
"""Queries with a credential, before the test goes on."""


@dataclass
class Site:
    """One secret in a store in memory, its password in a real server, and time that tests can move."""

    place: Place
    users: tuple[str, ...] = USERS
    wire: Wire | None = None
    clock: RunningClock = field(default_factory=RunningClock)
    vault: MemoryVault = field(default_factory=MemoryVault)
    trail: Trail = field(default_factory=Trail)

    def __post_init__(self) -> None:
        self.target = Target("vault", ENTRY)
        self.store = MemoryStore("vault", self.vault, self.clock.now)
        self.tokens = itertools.count(1)
        self.policy = Policy(
            installation="acme", environment="test", name=NAME, store="vault", issuer="postgres", owner="team",
            rotate_every=timedelta(days=30), grace=timedelta(hours=24),
        )  # fmt: skip
        self.store.create(ENTRY, policies.written(self.policy))
        owner = OWNER if len(self.users) > 1 else None
        where = server(self.place, self.wire.port if self.wire else None)
        self.issuer = PostgreSQLIssuer("postgres", where, self.users, owner, ADMIN, lambda: SecretValue(ADMIN_PASSWORD))

    def engine(self) -> Engine:
        places = Places(lambda store, environment, name: f"{environment}/{name}", lambda environment, name: None)
        issuers = {"postgres": self.issuer}
        return Engine(
            {"vault": self.store}, issuers, places, self.clock, self.trail, lambda: f"token{next(self.tokens):027d}"
        )

    def sweep(self) -> Outcome:
        return self.engine().run(self.target)

    def current(self) -> Credential:
        return self.store.current(ENTRY)

    def user(self) -> str:
        return self.current().fields["username"].reveal()

    def logins(self) -> set[str]:
        """Roles that can log in."""
        with self.place.superuser() as superuser:
            rows = superuser.execute(
                "SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname = ANY(%s)", (list(USERS),)
            )
            return {row[0] for row in rows}


class Workload:
    """Consumers in threads: each reads the secret, connects, and queries a table that all of them share."""

    def __init__(self, site: Site, *, holds: int) -> None:
        self._site = site
        self._holds = holds
        """Queries on one connection before it reads the secret and connects again."""
        self._over = threading.Event()
        self.failures: list[str] = []
        self.done: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._over.is_set():
            credential = self._site.current()
            user = credential.fields["username"].reveal()
            try:
                with connect(self._site.place, credential) as connection:
                    for _ in range(self._holds):
                        connection.execute("UPDATE counted SET n = n + 1")
            except psycopg.Error as error:
                self.failures.append(f"{user}: {error}")
            self.done[user] = self.done.get(user, 0) + 1

    def await_more(self, user: str) -> None:
        """Until it has connected some more times as this user."""
        wanted = self.done.get(user, 0) + ENOUGH
        until(lambda: self.done.get(user, 0) >= wanted)


def until(reached: Callable[[], bool]) -> None:
    for _ in range(3000):
        if reached():
            return
        time.sleep(0.01)
    raise AssertionError("not reached within half a minute")


@pytest.fixture
def site(place: Place) -> Site:
    cleared(place)
    return Site(place)


def test_a_workload_that_reconnects_never_fails(site: Site) -> None:
    """Through three rotations with their drains and revocations: one connects for each query, one holds connections."""
    site.sweep()
    with connect(site.place, site.current()) as first:
        first.execute("CREATE TABLE counted AS SELECT 0 AS n")
    users = [site.user()]
    with Workload(site, holds=1) as hasty, Workload(site, holds=5) as holding:
        for _ in range(3):
            site.clock.move(timedelta(days=30))
            site.sweep()
            users.append(site.user())
            assert site.logins() == {*USERS}, "the old user works on while it drains"
            for workload in (hasty, holding):
                workload.await_more(users[-1])  # by the end of the grace period both have read the new one
            site.clock.move(timedelta(hours=25))
            assert isinstance(site.sweep().rest, actions.Done)
            assert site.logins() == {users[-1]}
            for workload in (hasty, holding):
                workload.await_more(users[-1])
    assert users == ["app_a", "app_b", "app_a", "app_b"]
    assert hasty.failures + holding.failures == []
    assert site.trail.events().count("proven") == 3


def test_an_emergency_ends_who_holds_the_leaked_password(site: Site) -> None:
    """Its session ends, its password is shown dead, and the other user's credential is handed out."""
    site.sweep()
    leaked = site.current()
    intruder = connect(site.place, leaked)
    site.engine().emergency(site.target)
    for minutes in SWEEPS:
        site.sweep()
        site.clock.move(timedelta(minutes=minutes))
    with pytest.raises(psycopg.OperationalError):
        intruder.execute("SELECT 1")
    assert site.issuer.verify(leaked).reason == "the server refuses this user and password"
    assert site.issuer.verify(site.current()).verdict.live
    assert "proven" in site.trail.events()


@pytest.mark.parametrize("users", [USERS, USERS[:1]], ids=["alternating", "single"])
@pytest.mark.parametrize("when", ["start", "commit", "committed"])
def test_it_heals_from_a_lost_mint(place: Place, users: tuple[str, ...], when: When) -> None:
    """Whether or not the password was changed: at the end one user can log in, with the value that is handed out."""
    cleared(place)
    wire = Wire(place)
    try:
        site = Site(place, users, wire)
        site.sweep()
        before = site.current()
        site.clock.move(timedelta(days=30))
        wire.happen(when)
        with contextlib.suppress(Trouble):
            site.sweep()
        if len(users) > 1:
            assert site.issuer.verify(before).verdict.live, "whatever became of the mint, nobody is cut off"
        for minutes in SWEEPS:
            site.sweep()
            site.clock.move(timedelta(minutes=minutes))
        assert site.issuer.verify(site.current()).verdict.live
        assert not site.current().same_as(before)
        assert site.logins() == {site.user()}
    finally:
        wire.close()


def test_a_password_is_in_no_record(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in the audit trail nor in the journal nor in what is logged."""
    caplog.set_level("DEBUG")
    site.sweep()
    password = site.current().fields["password"].reveal()
    journal = repr(site.store.observe(ENTRY).journal.facts)
    for text in (repr(site.trail.records), journal, caplog.text):
        assert password not in text
    assert "app_a/" in repr(site.trail.records)
    assert masked(f"{password} of app_a at 127.0.0.1") == f"{MASK} of app_a at 127.0.0.1"
