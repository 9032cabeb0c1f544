"""What a report says of facts: the same as `keyturn status` where both can tell, and what only it knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import pytest

from providers.issuers.memory import MemoryIssuer
from rotation import status
from rotation.errors import Code, Trouble
from rotation.journal import Journal
from rotation.model import Capabilities
from rotation.policy import read as read_policy
from rotation.report import Facts, Known, Report, report
from rotation.report.lives import History, Kind, State, What
from rotation.report.report import Standing
from rotation.status import Phase
from tests.report.made import INCIDENT, NOW, facts
from tests.world import ENTRY, NAME, START, World


def lines(world: World, **more: object) -> list[Mapping[str, Any]]:
    """The trail of a world, as it would be read back."""
    return [
        {**{k: v for k, v in asdict(record).items() if v}, "at": record.at.isoformat(), "writer": "1a2b@here", **more}
        for record in world.trail.records
    ]


def of(world: World, *, trail: bool = True, **more: Any) -> Report:
    """A report on a world, by what its store lists."""
    store = world.engine()._stores["vault"]
    secrets = [Known(one.name, read_policy(one.policy), one.facts) for one in store.listing()]
    found: dict[str, Any] = {"secrets": secrets, "declared": [world.policy], "lines": lines(world) if trail else ()}
    return report(Facts("acme", "test", "Pulumi.test.yaml", world.clock.now(), **{**found, "trail": "here", **more}))


def status_of(world: World) -> status.Row:
    issuer = MemoryIssuer("vendor", world.vendor, Capabilities(), lambda _: None)
    return status.row(world.engine(), world.target, world.policy, world.clock.now(), {"vendor": issuer})


def lived(world: World, moment: str) -> None:
    """The life of a secret up to a moment, from the one before."""
    match moment:
        case "first":
            world.engine().run(world.target)
        case "later":
            world.clock.move(timedelta(days=12))
        case "rotated":
            world.clock.move(timedelta(days=17, hours=23))
            world.engine().run(world.target)
        case "drained":
            world.clock.move(timedelta(hours=30))
            world.engine().run(world.target)


@pytest.mark.parametrize("trail", [True, False])
def test_it_says_what_status_says(trail: bool) -> None:
    """Phase, key, age, due date and overdue date, at every point of a secret's life; with the trail and without."""
    world = World()
    for moment in ("nothing", "first", "later", "rotated", "drained"):
        lived(world, moment)
        (account,) = of(world, trail=trail).accounts
        row = status_of(world)
        told = (account.phase, account.key_id, account.due_at, account.overdue_at)
        assert told == (row.phase, row.key_id, row.due_at, row.overdue_at), moment
        assert (account.rotated_at is None) == (row.rotated_at is None)
        if account.rotated_at and row.rotated_at:
            assert abs(account.rotated_at - row.rotated_at) < timedelta(seconds=2)


def test_a_credential_is_followed_from_creation_to_proof() -> None:
    """All of its steps in their order, by whom; its successor is current."""
    world = World()
    for moment in ("first", "later", "rotated", "drained"):
        lived(world, moment)
    made = of(world)
    (account,) = made.accounts
    old, new = account.lives
    assert (old.state, new.state) == (State.DEAD, State.CURRENT)
    assert [step.what for step in old.steps] == [
        What.BEGUN, What.CREATED, What.VERIFIED, What.PROMOTED, What.SUPERSEDED, What.CONDEMNED, What.REVOKED, What.REFUSED, What.PROVEN,
    ]  # fmt: skip
    assert [step.at for step in old.steps] == sorted(step.at for step in old.steps)
    assert {step.run for step in old.steps} == {"1a2b@here"}
    assert old.steps[3].note == "vault"
    assert old.steps[-1].note == "refused by its issuer"
    assert old.key_id != new.key_id == account.key_id
    (period,) = [one for one in made.periods if one.proofs]
    assert len(period.proofs) == 1
    assert made.cadences[0].on_time == 1


def test_the_journal_alone_tells_what_lives() -> None:
    """Without a trail: the current credential and the draining one, with nobody named."""
    world = World()
    for moment in ("first", "later", "rotated"):
        lived(world, moment)
    made = of(world, trail=False)
    (account,) = made.accounts
    assert [life.state for life in account.lives] == [State.DRAINING, State.CURRENT]
    assert {step.run for life in account.lives for step in life.steps} == {None}
    assert made.actors == {}


def test_a_leak_is_urgent_until_it_is_dead() -> None:
    """Condemned by an incident: alive, in what needs attention first of all, and counted; then over."""
    world = World()
    lived(world, "first")
    world.engine().condemn(world.target, contain_after=timedelta(minutes=5), incident="2026-01-01-0000-aaaa")
    (account,) = of(world).accounts
    assert account.phase is Phase.CONDEMNED
    assert [account.name for account in of(world).alive] == [NAME]
    assert of(world).attention[0].urgent
    assert account.frozen is not None
    world.engine().run(world.target)
    (account,) = of(world).accounts
    assert not account.alive
    assert [life.state for life in account.lives] == [State.DEAD, State.CURRENT]


def test_standing_is_age_held_against_the_policy() -> None:
    """Within, due, overdue, unknown; and the share never looks better than it is."""
    found = facts(400, past=timedelta(days=1))
    made = report(found)
    by_name = {account.name: account for account in made.accounts}
    for known in found.secrets:
        account = by_name[known.policy.name]
        assert account.rotated_at is not None
        overdue = NOW - account.rotated_at >= known.policy.rotate_every
        assert (account.standing is Standing.OVERDUE) == overdue
    assert made.now.secrets == 400
    assert made.now.overdue == sum(account.standing is Standing.OVERDUE for account in made.accounts) > 0
    assert made.now.share == (400 - made.now.overdue) / 400
    assert sum(slot.secrets for slot in made.calendar) == 400
    assert sum(cadence.now.secrets for cadence in made.cadences) == 400
    assert sum(owner.now.secrets for owner in made.owners) == 400


def test_due_is_not_overdue_yet() -> None:
    """Between the moment a rotation should begin and the one from which the credential is too old."""
    world = World()
    lived(world, "first")
    for gap, standing in ((29.5, Standing.WITHIN), (0.45, Standing.DUE), (0.2, Standing.OVERDUE)):
        world.clock.move(timedelta(days=gap))
        assert of(world).accounts[0].standing is standing


def test_revoked_is_not_dead() -> None:
    """Until it is shown: a journal that says revoked and not proven makes a secret one that is not shown dead."""
    made = report(facts(20, past=timedelta(days=1)))
    (account,) = made.alive
    assert account.phase is Phase.UNPROVEN
    assert [life.state for life in account.lives if life.token == "f" * 32] == [State.UNPROVEN]


def test_what_needs_attention_comes_worst_first() -> None:
    """Alive, overdue, failing, frozen."""
    made = report(facts(700, past=timedelta(days=1)))
    said = [(one.urgent, one.what.split()[0]) for one in made.attention]
    assert [kind for n, kind in enumerate(said) if n == 0 or said[n - 1] != kind] == [
        (True, "a"), (False, "overdue"), (False, "failed"), (False, "frozen"),
    ]  # fmt: skip


def test_the_past_is_counted_once() -> None:
    """Each promotion, failure and proof of the trail in one period; those of an incident apart."""
    made = report(facts(30, past=timedelta(days=100)))
    steps = [step for account in made.accounts for life in account.lives for step in life.steps]
    first = made.periods[0].start
    promoted = [step for step in steps if step.what is What.PROMOTED and step.at >= first]
    assert sum(p.rotations + p.emergencies for p in made.periods) == len(promoted)
    assert sum(p.emergencies for p in made.periods) == sum(step.incident == INCIDENT for step in promoted)
    assert sum(p.failures for p in made.periods) == 3
    assert made.periods[-1].start <= NOW < made.periods[-1].until
    assert len(made.proofs) == sum(life.state is State.DEAD for account in made.accounts for life in account.lives)


def test_a_secret_that_is_gone_is_told_of() -> None:
    """As long as the trail is; but not while a store is silent, which may have it, and not a drill's canary."""
    found = facts(3)
    assert [account.name for account in report(found).accounts if account.gone] == ["legacy-exporter-token"]
    found = facts(3)
    assert not [account for account in report(replace(found, silent=frozenset({"vault"}))).accounts if account.gone]
    canary = [{**line, "secret": "prod/drill-canary-aws-openai"} for line in facts(1).lines]
    assert len(report(replace(facts(3), lines=canary)).accounts) == 3


def test_a_silent_store_is_not_an_empty_one() -> None:
    """Its secrets are unreachable; those of a store that answered, and lacks them, are not applied."""
    found = facts(6)
    bare = replace(found, secrets=[], silent=frozenset({"vault"}), lines=())
    phases = {account.name: account.phase for account in report(bare).accounts}
    for policy in found.declared:
        assert phases[policy.name] is (Phase.UNREACHABLE if policy.store == "vault" else Phase.NOT_APPLIED)
    assert report(bare).now.secrets == 2


def test_only_what_was_asked_for() -> None:
    """Names narrow everything: accounts, figures, and what is gone."""
    found = facts(20)
    name = found.secrets[4].policy.name
    made = report(replace(found, only=frozenset({name})))
    assert [account.name for account in made.accounts] == [name]
    assert made.now.secrets == 1


def test_a_trail_that_breaks_off_is_said() -> None:
    """What was read before counts; that the rest is missing stands in the report."""

    def broken() -> Any:
        yield from lines(world)
        raise Trouble(Code.UNAVAILABLE, "s3", "no answer")

    world = World()
    lived(world, "first")
    made = of(world, lines=broken())
    assert made.accounts[0].lives[0].state is State.CURRENT
    assert "no answer" in made.troubles[0]


NONSENSE: list[Mapping[str, Any]] = [
    {"at": "yesterday", "event": "mint.done", "secret": ENTRY, "token": "t"},
    {"at": "9999-12-31T23:59:59-14:00", "event": "mint.done", "secret": ENTRY, "token": "t"},
    {"at": START.isoformat(), "event": "proven", "secret": ENTRY, "token": ["t"]},
    {"at": START.isoformat(), "event": "proven", "secret": {"a": 1}, "token": "t"},
    {"at": START.isoformat(), "event": "proven", "secret": ENTRY, "token": "t", "detail": "none"},
    {"at": START.isoformat(), "event": "prove", "secret": ENTRY, "token": "t", "detail": {"verdict": {}}},
    {"at": START.isoformat(), "event": "unheard-of", "secret": ENTRY, "token": "t", "who": [], "writer": 7},
    {"at": START.isoformat(), "event": "mint.failed", "secret": ENTRY, "reason": "x" * 100_000},
]


@pytest.mark.parametrize("line", NONSENSE, ids=lambda line: str(line["event"]))
def test_a_trail_may_say_anything(line: Mapping[str, Any]) -> None:
    """Nobody has vouched for its lines: one that makes no sense is left out, and long ones are cut."""
    world = World()
    lived(world, "first")
    (account,) = of(world, lines=[*lines(world), line]).accounts
    assert account.phase is Phase.STEADY
    assert all(len(event.text) < 400 for event in account.events)


def test_a_journal_that_can_not_be_read_stops_nothing() -> None:
    """The secret is told as one that could not be looked at."""
    found = facts(3)
    broken = replace(found.secrets[0], facts={"revoked.abc": "at=never"})
    made = report(replace(found, secrets=[broken, *found.secrets[1:]]))
    account = next(one for one in made.accounts if one.name == broken.policy.name)
    assert account.phase is Phase.UNREACHABLE
    assert "can not be read" in account.error
    assert made.now.secrets == 3


def test_order_of_lines_does_not_matter() -> None:
    """Machines write to one trail, each by its own clock and in its own time."""
    found = facts(5)
    forward = report(found)
    backward = report(replace(found, lines=list(found.lines)[::-1]))
    assert [account.lives for account in forward.accounts] == [account.lives for account in backward.accounts]


def test_a_rewrite_is_no_second_credential() -> None:
    """A version that carries a key made before belongs to that key's life."""
    history = History()
    for event, token, more in (
        ("mint.done", "one", {"key_id": "k1"}),
        ("promote.done", "one", {"store": "vault"}),
        ("stage", "two", {"key_id": "k1"}),
        ("promote.done", "two", {"store": "vault"}),
    ):
        history.hear({"at": START.isoformat(), "event": event, "token": token, **more})
    (life,) = history.lives(Journal())
    assert (life.key_id, life.state) == ("k1", State.CURRENT)
    assert life.at(What.SUPERSEDED) is None


def test_what_else_happened_is_kept_in_order() -> None:
    """Failures, freezes and thaws, with their reasons."""
    history = History()
    for event in ("thaw", "freeze", "mint.failed", "nothing"):
        history.hear({"at": START.isoformat(), "event": event, "reason": "why"})
    assert [(event.kind, event.text) for event in history.events] == [
        (Kind.THAWED, "scheduled work goes on: why"),
        (Kind.FROZEN, "scheduled work stopped: why"),
        (Kind.FAILED, "mint failed: why"),
    ]
