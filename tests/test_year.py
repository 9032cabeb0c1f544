"""A year of hourly sweeps by the real engine: nothing becomes overdue while they run, and an outage is caught up once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from providers.issuers.memory import MemoryIssuer, MemoryVendor
from providers.stores.memory import MemoryStore, MemoryVault
from rotation import policy as policies
from rotation.engine import Engine, Places, Target
from rotation.errors import Code, Trouble
from rotation.journal import Journal
from rotation.model import Blackout, Capabilities, Drain, Policy, Propagation, Restraint, Schedule
from rotation.policy import read_moment, read_window
from rotation.schedule import cron_bound, due, give
from rotation.schedule import cycle as cycle_of
from tests.test_schedule import changes_clocks, is_open
from tests.world import START, FakeClock, Trail

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
YEAR = 365 * DAY
QUIET = HOUR
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def freeze(start: str, end: str, reason: str) -> Blackout:
    return Blackout(read_moment(start), read_moment(end, end=True), reason)


FREEZES = (
    freeze("2026-03-27", "2026-04-08", "spring release"),  # over the change of clocks
    freeze("2026-06-20", "2026-06-24", "audit"),
    freeze("2026-11-20T18:00", "2026-12-01", "sale"),
    freeze("2026-12-18", "2027-01-04", "year-end freeze"),
)
NIGHTS = (read_window("Mon-Fri 22:00-04:00"),)
SUNDAYS = (read_window("Sun 02:00-05:00"),)
CRON = Schedule(cron="30 2 * * SUN", zone=BERLIN)
LAST_DAY = Schedule(cron="0 4 L * *", zone=NEW_YORK, jitter=3 * HOUR)


def secret(
    name: str, bound: timedelta, schedule: Schedule | None = None, pair: str | None = None, **more: timedelta
) -> Policy:
    return Policy(
        installation="acme",
        environment="test",
        name=name,
        store="vault",
        issuer="vendor",
        owner="team",
        rotate_every=bound,
        grace=more.get("grace", DAY),
        drain=Drain(quiet_for=QUIET),
        paired_with=pair,
        schedule=schedule or Schedule(),
    )


WAITS = give(DAY, QUIET)
PLAIN = (
    secret("every-month", 30 * DAY),
    secret("with-jitter", 7 * DAY, Schedule(jitter=36 * HOUR, zone=BERLIN)),
    secret("by-cron", cron_bound(CRON, timedelta(0)), CRON),
)
PLANNED = (
    secret("at-night", 10 * DAY, Schedule(windows=NIGHTS, zone=NEW_YORK, jitter=HOUR)),
    secret("early-aim", 35 * DAY, Schedule(every=20 * DAY, windows=SUNDAYS, zone=BERLIN, blackouts=FREEZES[:2])),
    secret("in-freezes", 40 * DAY, Schedule(windows=SUNDAYS, zone=BERLIN, blackouts=FREEZES)),
    secret("without-window", 25 * DAY, Schedule(zone=BERLIN, blackouts=FREEZES)),
    secret("by-month-end", cron_bound(LAST_DAY, timedelta(0)), LAST_DAY),
)
PAIRS = (
    secret("pair-plain", 30 * DAY, pair="pair-second"),
    secret("pair-second", 30 * DAY, pair="pair-plain"),
    secret("pair-windows", 30 * DAY, Schedule(windows=SUNDAYS, zone=BERLIN), pair="pair-windows-two"),
    secret("pair-windows-two", 30 * DAY, Schedule(windows=SUNDAYS, zone=BERLIN), pair="pair-windows"),
)


@dataclass
class Company:
    """Secrets in one store, an issuer, consumers that read every hour, and what may be down."""

    secrets: tuple[Policy, ...]
    clock: FakeClock = field(default_factory=FakeClock)
    down: Callable[[str], bool] = lambda _: False
    """Whether a call of `store` or `issuer` fails now."""

    def __post_init__(self) -> None:
        self.vault, self.trail, self.serial = MemoryVault(), Trail(), 0
        self.vendor = MemoryVendor(self.clock.now)
        self.rotated: dict[str, list[datetime]] = {policy.name: [] for policy in self.secrets}
        """When each became current, the first one included."""
        self.current: dict[str, str] = {}
        self.outside = MemoryStore("vault", self.vault, self.clock.now)
        for policy in self.secrets:
            self.outside.create(f"test/{policy.name}", policies.written(policy))
        propagation = Propagation(in_a_row=2)
        capabilities = Capabilities(tells_last_use=True, create=propagation, revoke=propagation)
        store = MemoryStore("vault", self.vault, self.clock.now, self._hook("store"))
        issuers = {
            name: MemoryIssuer(name, self.vendor, capabilities, self._hook(service))
            for name, service in (("vendor", "issuer"), ("other", "other issuer"))
        }
        places = Places(lambda _, environment, name: f"{environment}/{name}", lambda _, name: self.target(name))
        self.engine = Engine({"vault": store}, issuers, places, self.clock, self.trail, self._token)

    def _hook(self, service: str) -> Callable[[str], None]:
        def hook(call: str) -> None:
            if self.down(service):
                raise Trouble(Code.UNAVAILABLE, service, f"{call}: no answer", maybe_applied=call.startswith("after"))

        return hook

    def _token(self) -> str:
        self.serial += 1
        return f"token{self.serial:027d}"

    def target(self, name: str) -> Target | None:
        return Target("vault", f"test/{name}") if name in self.rotated else None

    def sweep(self, order: Iterable[str]) -> None:
        for name in order:
            self.engine.run(Target("vault", f"test/{name}"))

    def live(self) -> None:
        """What goes on whether sweeps run or not: each consumer reads its credential, uses it, and gets in."""
        for name, times in self.rotated.items():
            entry = self.vault.entries[f"test/{name}"]
            if entry.current is None or entry.current.credential is None:
                continue
            assert self.vendor.use(entry.current.credential), f"{name} hands out a dead credential"
            if self.current.get(name) != entry.current.id:
                self.current[name] = entry.current.id
                times.append(Journal(entry.facts).promoted[entry.current.token or ""])

    def overdue(self) -> list[str]:
        now = self.clock.now()
        return [p.name for p in self.secrets if (times := self.rotated[p.name]) and now > times[-1] + p.rotate_every]

    def pass_year(self, works: Callable[[datetime], bool], settled: timedelta, shuffle: random.Random) -> None:
        """Hourly sweeps.

        Parameters:
            works: whether the runner sweeps at this hour.
            settled: after so long without an outage nothing may be overdue.
        """
        healthy_since = self.clock.now()
        while self.clock.now() < START + YEAR:
            if works(self.clock.now()):
                self.sweep(shuffle.sample([*self.rotated], len(self.rotated)))
            if not works(self.clock.now()) or self.down("store") or self.down("issuer"):
                healthy_since = self.clock.now()
            self.live()
            if self.clock.now() >= healthy_since + settled:
                assert self.overdue() == [], self.clock.now()
            minute = self.clock.now().replace(minute=17, second=0, microsecond=0)
            self.clock.at = minute + HOUR


def in_pairs(company: Company) -> Iterable[tuple[datetime, datetime]]:
    """Moments of the one and of the other of each pair, the first credentials apart."""
    by_name: Mapping[str, Policy] = {policy.name: policy for policy in company.secrets}
    for name, policy in by_name.items():
        if policy.paired_with and name < policy.paired_with:
            for one in company.rotated[name][1:]:
                for other in company.rotated[policy.paired_with][1:]:
                    yield one, other


def test_a_quiet_year() -> None:
    """Nothing is ever overdue, which is looked at hourly; each rotation is at the first sweep after it is due, and so
    in its window and outside its blackouts by the clock on the wall; pairs keep apart; none comes on top."""
    company = Company(PLAIN + PLANNED + PAIRS)
    company.pass_year(lambda _: True, timedelta(0), random.Random(1))
    for policy in company.secrets:
        times = company.rotated[policy.name]
        assert len(times) - 1 >= YEAR // policy.rotate_every, policy.name
        for earlier, later in pairwise(times):
            planned = due(policy.schedule, cycle_of(policy, earlier)).at
            waits = HOUR + MINUTE + (WAITS + HOUR if policy.paired_with else timedelta(0))
            assert planned <= later <= planned + waits, (policy.name, earlier, later)
            assert is_open(policy.schedule, later) or changes_clocks(policy.schedule, later), (policy.name, later)
    gaps = [abs(one - other) for one, other in in_pairs(company)]
    assert len(gaps) > 100
    assert min(gaps) >= DAY


@dataclass(frozen=True)
class Outage:
    """Something is away from a moment on: the runner, the store or the issuer."""

    what: str
    start: datetime
    length: timedelta

    def lasts(self, now: datetime) -> bool:
        return self.start <= now < self.start + self.length


@pytest.mark.parametrize("seed", [1, 2])
def test_a_year_with_outages(seed: int) -> None:
    """Runner, store or issuer are away for hours or days. Some hours later nothing is overdue, and what was missed has
    been caught up once: no secret rotates before it is due, or more often than in a quiet year."""
    chance = random.Random(seed)
    outages = [
        Outage(what, START + chance.randint(72, 8600) * HOUR, chance.choice([2, 9, 40, 100]) * HOUR)
        for what in ("runner", "store", "issuer")
        for _ in range(4)
    ]
    company = Company(PLAIN + (PLANNED[:3] if seed == 1 else PAIRS[2:]))
    company.down = lambda what: any(outage.what == what and outage.lasts(company.clock.now()) for outage in outages)
    # A failure is backed off from for 6 h at most, and of two that are paired one goes after the other.
    settled = 8 * HOUR + (WAITS if seed == 2 else timedelta(0))
    company.pass_year(lambda _: not company.down("runner"), settled, chance)
    for policy in company.secrets:
        for earlier, later in pairwise(company.rotated[policy.name]):
            assert later >= due(policy.schedule, cycle_of(policy, earlier)).at, (policy.name, earlier, later)
    assert all(abs(one - other) >= DAY for one, other in in_pairs(company))
    company.down = lambda _: False
    for _ in range(100):
        company.sweep(company.rotated)
        company.live()
        company.clock.move(HOUR)
    assert len(company.vendor.live()) <= 2 * len(company.secrets)  # what still drains, and nothing that was lost


# --- pairs that are hard on each other -----------------------------------------------------------

TWO = secret("pair-a", 30 * DAY, pair="pair-b"), secret("pair-b", 30 * DAY, pair="pair-a")


def pass_days(company: Company, days: int) -> None:
    for _ in range(days * 24):
        company.sweep(company.rotated)
        company.live()
        company.clock.move(HOUR)


def test_two_that_are_late_still_take_turns() -> None:
    """After an outage that has made both overdue, the one that has waited longer goes first."""
    company = Company(TWO)
    pass_days(company, 2)
    company.clock.move(50 * DAY)
    pass_days(company, 4)
    (one, *ones), (other, *others) = (list(times[1:]) for times in company.rotated.values())
    assert ones == others == []
    assert DAY <= other - one <= DAY + 4 * HOUR


def test_a_pair_that_fails_makes_nobody_overdue() -> None:
    """It is waited for up to the bound, and not beyond."""
    company = Company((replace(TWO[0], issuer="other"), TWO[1]))
    pass_days(company, 2)
    company.down = lambda service: service == "other issuer"
    for _ in range(90):
        pass_days(company, 1)
        assert "pair-b" not in company.overdue()
    assert len(company.rotated["pair-a"]) == 1
    assert len(company.rotated["pair-b"]) == 4


def test_a_drain_that_does_not_end_makes_nobody_overdue() -> None:
    """A consumer that never reads its credential again keeps the old one in use."""
    company = Company((replace(TWO[0], rotate_every=10 * DAY), replace(TWO[1], rotate_every=10 * DAY)))
    pass_days(company, 2)
    first = company.vault.entries["test/pair-a"].current
    assert first
    assert first.credential
    for _ in range(40 * 24):
        company.vendor.use(first.credential)
        company.sweep(company.rotated)
        company.live()
        assert company.overdue() == []
        company.clock.move(HOUR)
    assert company.vendor.accepts(first.credential.fields["value"].reveal())
    assert all(abs(one - other) >= DAY for one, other in in_pairs(company))


LONG = freeze("2026-05-01", "2026-05-21", "migration")


@pytest.mark.parametrize("overrides", [(Restraint.WINDOW,), (Restraint.WINDOW, Restraint.BLACKOUT)])
def test_a_freeze_that_is_longer_than_a_secret_may_live(overrides: tuple[Restraint, ...]) -> None:
    """It is overdue, said so, and caught up once afterwards; or rotates all the same, where that is declared."""
    schedule = Schedule(zone=BERLIN, blackouts=(LONG,), overrides=overrides)
    company = Company((secret("in-freeze", 7 * DAY, schedule),))
    late = 0
    while company.clock.now() < START + 200 * DAY:
        outcome = company.engine.run(Target("vault", "test/in-freeze"))
        company.live()
        if company.overdue():
            late += 1
            assert outcome.rest is not None
            assert outcome.rest.reason.startswith("overdue, and waits for Fri 2026-05-22 00:00 Europe/Berlin, after")
        company.clock.at = company.clock.now().replace(minute=17, second=0, microsecond=0) + HOUR
    times = company.rotated["in-freeze"]
    inside = [moment for moment in times if not is_open(schedule, moment)]
    if Restraint.BLACKOUT in overrides:
        assert late == 0
        assert len(inside) == 3
    else:
        assert late > 13 * 24
        assert inside == []
    assert min(later - earlier for earlier, later in pairwise(times)) > 20 * HOUR


def test_an_emergency_does_not_wait_for_a_schedule() -> None:
    """Windows, blackouts and its pair are all against it."""
    schedule = Schedule(windows=SUNDAYS, blackouts=(freeze("2026-01-02", "2026-02-20", "freeze"),))
    pair = secret("pair-a", 60 * DAY, schedule, pair="pair-b"), secret("pair-b", 60 * DAY, schedule, pair="pair-a")
    company = Company(pair)
    company.sweep(("pair-a", "pair-b"))
    company.clock.move(9 * DAY)
    targets = [Target("vault", f"test/{policy.name}") for policy in pair]
    for target in targets:
        before = company.vault.entries[target.entry].current
        outcome = company.engine.emergency(target)
        assert outcome.achieved
        after = company.vault.entries[target.entry].current
        assert before
        assert after
        assert before.id != after.id
        assert before.credential is not None
        assert not company.vendor.accepts(before.credential.fields["value"].reveal())


@pytest.mark.parametrize("days", [30, 20])
def test_a_pair_that_is_frozen_is_not_waited_for(days: int) -> None:
    """It would go first, as the one that has waited longer; in an incident it does not go at all.

    Be the other one at its bound, as at 30 days, or due long before.
    """
    plan = Schedule(every=days * DAY) if days < 30 else Schedule()
    company = Company((replace(TWO[0], schedule=plan), replace(TWO[1], schedule=plan)))
    company.sweep(("pair-a",))
    company.clock.move(2 * DAY)
    company.sweep(("pair-b",))
    company.live()
    frozen = Target("vault", "test/pair-a")
    company.engine.freeze(frozen, "INC-1")
    company.clock.move(days * DAY - 3 * HOUR)
    pass_days(company, 1)
    first, second = company.rotated["pair-b"]
    assert second - first < days * DAY + 2 * HOUR
    company.clock.move(50 * DAY)
    pass_days(company, 2)
    assert [len(times) for times in company.rotated.values()] == [1, 3]
    assert company.engine.thaw(frozen)
    pass_days(company, 2)
    assert len(company.rotated["pair-a"]) == 2
