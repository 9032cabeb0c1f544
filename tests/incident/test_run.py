"""Carrying an incident out: what is killed, what is spared, and what a kill of the process at any point leads to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from providers.stores.memory import MemoryStore
from rotation.errors import Code, Trouble
from rotation.incident.plan import Leak
from rotation.incident.record import Incident, State
from rotation.incident.report import report
from rotation.incident.run import Saver
from rotation.incident.selection import Selection
from rotation.model import Credential, Model
from rotation.names import KeyName
from rotation.ports import Severity
from tests.incident.site import VAULT, Site, issuer, policy
from tests.world import Crash

ALL = Selection(everything=True)
NAMES = ("billing-api", "chat-api")


def site(root: Path, **more: object) -> Site:
    return Site([policy(name) for name in NAMES], root, **more)  # type: ignore[arg-type]


def test_everything_that_leaked_is_replaced_and_shown_dead(tmp_path: Path) -> None:
    """Each key with its times and the answers of its issuer; what is handed out works."""
    s = site(tmp_path)
    leaked = {name: s.value(name) for name in NAMES}
    incident = s.begin(ALL)
    runner = s.run(incident, workers=4)
    assert incident.over
    assert incident.alive == []
    for secret in incident.secrets:
        assert not s.accepted(leaked[secret.name])
        assert s.accepted(s.value(secret.name))
        (key,) = secret.keys
        times = [key.condemned_at, key.revoked_at, key.refused_at, key.proven_at]
        assert all(times)
        assert times == sorted(times)  # type: ignore[type-var]
        assert secret.replaced_at is not None
        told = report(incident, secret, runner.outcomes[secret.name])
        assert told.done
        assert (told.replaced or 0) <= (told.contained or 0) < (told.proven or 0)
    assert s.live() == len(NAMES)


def test_draining_credentials_go_with_the_current_one(tmp_path: Path) -> None:
    """All that lives of the secret is condemned."""
    s = site(tmp_path)
    s.process().engine.rotate(s.target("chat-api"))
    incident = s.begin(Selection(names=("chat-api",)))
    assert [key.role for key in incident.secrets[0].keys] == ["current", "previous"]
    s.run(incident)
    assert incident.over
    assert s.live() == len(NAMES)


@dataclass
class Kill:
    """Ends the process at one call."""

    at: int
    happened: bool = False

    def __call__(self, passed: int, _service: str, _call: str) -> None:
        if passed == self.at and not self.happened:
            self.happened = True
            raise Crash


def steps(prepare: Callable[[Path], Site], root: Path) -> int:
    """Calls of an undisturbed run."""
    s = prepare(root / "undisturbed")
    incident = s.begin(ALL)
    s.passed = 0
    s.run(incident)
    assert incident.over
    return s.passed


def with_replica(root: Path) -> Site:
    return Site([policy("chat-api", replicas=("mirror",))], root, {"vault": VAULT, "mirror": VAULT})


@pytest.mark.parametrize("prepare", [site, with_replica], ids=["two secrets", "a replica"])
@pytest.mark.parametrize("swept", [False, True], ids=["resumed at once", "a sweep came first"])
def test_a_kill_at_any_call_is_resumed(tmp_path: Path, prepare: Callable[[Path], Site], swept: bool) -> None:
    """Every leaked key dies; what had replaced one when the process was killed is what is handed out in the end."""
    number = steps(prepare, tmp_path)
    assert number > 30
    for at in range(1, number + 1):
        s = prepare(tmp_path / str(at))
        names = [one.name for one in s.policies]
        leaked = {name: s.value(name) for name in names}
        incident = s.begin(ALL)
        s.passed, s.fault = 0, Kill(at)
        with pytest.raises(Crash):
            s.run(incident)
        s.fault = None
        replaced = {name: s.value(name) for name in names if s.value(name) != leaked[name]}
        if swept:
            s.clock.move(timedelta(minutes=2))
            s.sweep()
            replaced |= {name: s.value(name) for name in names if s.value(name) != leaked[name]}
        resumed = s.resume()
        assert resumed.over, (at, resumed.secrets)
        for secret in resumed.secrets:
            for key in secret.keys:
                if key.revoked_at and key.role == "current" and not key.contained_at:
                    assert secret.replaced_at is not None
                    assert secret.replaced_at <= key.revoked_at, (at, secret)
        for name in names:
            assert not s.accepted(leaked[name]), at
            assert s.accepted(s.value(name)), at
            assert s.value(name) == replaced.get(name, s.value(name)), f"killed at {at}: replaced twice"
        s.clock.move(timedelta(days=3))
        s.sweep()
        assert s.live() == len(names), f"killed at {at}: {s.live()} keys live"


def test_an_incident_that_is_over_condemns_nothing_when_it_is_resumed(tmp_path: Path) -> None:
    """Its file may be older than what it did."""
    s = site(tmp_path)
    incident = s.begin(ALL)
    before = s.files.load(incident.id)
    s.run(incident)
    values = [s.value(name) for name in NAMES]
    s.files.save(before)
    resumed = s.resume()
    assert resumed.over
    assert [s.value(name) for name in NAMES] == values
    assert {key.proof for secret in resumed.secrets for key in secret.keys} == {"elsewhere"}


@pytest.mark.parametrize("keep", [False, True])
def test_scheduled_work_is_frozen_while_it_lasts(tmp_path: Path, keep: bool) -> None:
    """Until each secret is over, or until a person thaws it, where that was asked for."""
    s = site(tmp_path)
    incident = s.begin(ALL)
    incident.keep_frozen = keep
    seen: list[bool] = []

    def frozen(_passed: int, service: str, call: str) -> None:
        if service == "openai" and call == "before revoke":
            seen.append("frozen" in s.vaults["vault"].entries["test/billing-api"].facts)

    s.fault = frozen
    s.run(incident)
    assert incident.over
    assert seen[0]
    left = [s.process().engine.observe(s.target(name)).primary.journal.frozen for name in NAMES]
    assert [one.incident if one else None for one in left] == [incident.id if keep else None] * 2


def test_two_incidents_at_once_replace_each_key_once(tmp_path: Path) -> None:
    """Both were planned before either began; the second finds its keys dead."""
    s = site(tmp_path)
    first, second = s.begin(ALL), s.begin(ALL, "2026-01-01-0000-cd34")
    s.run(first)
    values = [s.value(name) for name in NAMES]
    s.run(second)
    assert first.over
    assert second.over
    assert [s.value(name) for name in NAMES] == values


def test_two_incidents_side_by_side_settle(tmp_path: Path) -> None:
    """The second does all of its work in the middle of the first, at whatever call: each key dies, one new one each is left.

    Where the first has looked, and the second is done before it marks what it saw, the mark is of a key that nobody knows
    any more: it says so, and is over once sweeps have closed that.
    """

    def second_at(at: int) -> tuple[Site, Incident, Incident]:
        s = site(tmp_path / str(at))
        first, second = s.begin(ALL), s.begin(ALL, "2026-01-01-0000-cd34")
        begun: list[Incident] = []

        def meanwhile(passed: int, _service: str, _call: str) -> None:
            if passed >= at and not begun:
                begun.append(second)
                switch = s.switch
                s.run(second)
                s.switch = switch

        s.passed, s.fault = 0, meanwhile
        s.run(first)
        assert begun
        return s, first, second

    for at in range(1, 60, 3):
        s, first, second = second_at(at)
        if not (first.over and second.over):
            s.clock.move(timedelta(minutes=20))
            s.sweep()
            for incident in (first, second):
                if not incident.over:
                    assert s.resume(incident.id).over, (at, incident.secrets)
        s.clock.move(timedelta(days=3))
        s.sweep()  # a mint that came too late is an orphan like any other
        assert s.live() == len(NAMES), at


def test_contain_first_revokes_before_it_replaces(tmp_path: Path) -> None:
    """And the record says that stores still handed it out."""
    s = site(tmp_path)
    incident = s.begin(Selection(names=("chat-api",)), contain_first=True)
    s.run(incident)
    (secret,) = incident.secrets
    assert secret.keys[0].contained_at is not None
    assert secret.replaced_at is not None
    assert secret.keys[0].contained_at < secret.replaced_at
    assert incident.over


def test_a_vault_that_is_away_is_named_and_the_key_contained(tmp_path: Path) -> None:
    """The replica can not be written: past containAfter the key dies all the same, and the stale vault is told."""
    s = with_replica(tmp_path)
    leaked = s.value("chat-api")
    incident = s.begin(ALL, contain_after=timedelta(minutes=1))
    s.away = {"mirror"}
    s.run(incident)
    (secret,) = incident.secrets
    assert not s.accepted(leaked)
    assert secret.stale == ["mirror"]
    assert secret.state is State.STUCK
    assert (incident.alive, incident.over) == ([], False)  # dead, and not replaced everywhere
    assert not report(incident, secret, None).done
    assert [notice.severity for notice in s.notices if notice.kind == "incident.stuck"] == [Severity.CRITICAL]
    s.away = set()
    assert s.resume().over
    assert s.value("chat-api") == s.value("chat-api", "mirror")


def test_a_primary_that_is_away_leaves_the_key_alive_and_the_others_go_on(tmp_path: Path) -> None:
    """Nothing could be marked: alive, told, and resumed once it is back."""
    both = [policy("chat-api"), policy("billing-api", store="other")]
    s = Site(both, tmp_path, {"vault": VAULT, "other": VAULT})
    leaked = s.value("billing-api")
    incident = s.begin(ALL)
    s.away = {"other"}
    runner = s.run(incident)
    states = {secret.name: secret.state for secret in incident.secrets}
    assert states == {"chat-api": State.OVER, "billing-api": State.STUCK}
    assert incident.alive == ["billing-api"]
    stuck = next(secret for secret in incident.secrets if secret.name == "billing-api")
    told = report(incident, stuck, runner.outcomes["billing-api"])
    assert told.alive
    assert not told.reached
    assert s.accepted(leaked)
    s.away = set()
    assert s.resume().over
    assert not s.accepted(leaked)


def test_a_vault_that_was_away_at_the_plan_is_not_forgotten(tmp_path: Path) -> None:
    """What it holds is declared: it stands in the plan, and its keys are found once it answers."""
    both = [policy("chat-api"), policy("billing-api", store="other")]
    s = Site(both, tmp_path, {"vault": VAULT, "other": VAULT})
    leaked = s.value("billing-api")
    s.away = {"other"}
    incident = s.begin(ALL)
    assert sorted(secret.name for secret in incident.secrets) == ["billing-api", "chat-api"]
    assert any("other" in note for note in incident.notes)
    s.away = set()
    s.run(incident)
    assert incident.over
    assert not s.accepted(leaked)


def test_a_manual_issuer_is_left_to_a_person_at_once(tmp_path: Path) -> None:
    """No waiting for somebody who has not been told; the owner hears what to do, and the exit is `alive`."""
    s = Site([policy("chat-api")], tmp_path, models={"openai": Model.MANUAL})
    vendor = s.vendors["openai"]
    made = s.process().issuers["openai"].mint("made by a person")
    outcome = s.process().engine.submit(s.target("chat-api"), made.credential, made.key_id)
    assert outcome.achieved
    began = s.clock.now()
    incident = s.begin(ALL)
    runner = s.run(incident)
    assert s.clock.now() - began < timedelta(minutes=1)
    (secret,) = incident.secrets
    assert secret.person is not None
    assert "keyturn submit chat-api" in secret.person
    assert report(incident, secret, runner.outcomes["chat-api"]).alive
    critical = [notice for notice in s.notices if notice.severity is Severity.CRITICAL]
    assert {notice.kind for notice in critical} == {"incident.begun", "incident.stuck"}
    assert len(vendor.live()) == 1


def test_the_administrative_credential_comes_first_and_holds_up_the_rest(tmp_path: Path) -> None:
    """What it minted would be minted with what leaked: nothing else begins before it is replaced."""
    of_admin = policy("openai-admin", issuer="admins")
    issuers = {"openai": issuer({"store": "vault", "name": "test/openai-admin"}), "admins": issuer()}
    s = Site([of_admin, *(policy(name) for name in NAMES)], tmp_path, issuers=issuers)
    leaked = [s.value(name) for name in NAMES]
    s.vendors["admins"].max_keys = 1  # can not be minted a second one
    incident = s.begin(Selection(admins=("openai",)))
    assert (incident.secrets[0].name, incident.secrets[0].wave) == ("openai-admin", 0)
    s.run(incident, patience=timedelta(seconds=10))
    assert all(s.accepted(value) for value in leaked)
    assert all("openai-admin" in (secret.rest or "") for secret in incident.secrets if secret.wave == 1)
    s.vendors["admins"].max_keys = None
    s.clock.move(timedelta(hours=1))
    resumed = s.resume()
    assert resumed.over, resumed.secrets
    assert not any(s.accepted(value) for value in leaked)


def test_what_a_person_put_there_is_replaced_and_said_to_live_on(tmp_path: Path) -> None:
    """Keyturn may not revoke it; nothing claims that it is dead."""
    s = site(tmp_path)
    theirs = s.process().issuers["openai"].mint("in the console")
    MemoryStore("vault", s.vaults["vault"], s.clock.now).put_by_hand("test/chat-api", theirs.credential)
    incident = s.begin(Selection(names=("chat-api",)))
    runner = s.run(incident)
    (secret,) = incident.secrets
    value = theirs.credential.fields["value"].reveal()
    assert s.value("chat-api") != value
    assert s.accepted(value)
    assert secret.state is State.STUCK
    told = report(incident, secret, runner.outcomes["chat-api"])
    assert told.alive
    assert not told.ours


def test_owners_are_told_once_each(tmp_path: Path) -> None:
    """Begun and over for each owner, replaced for each secret; a second run repeats nothing."""
    s = Site([policy("chat-api", owner="chat"), policy("billing-api", owner="money")], tmp_path)
    incident = s.begin(ALL)
    s.run(incident)
    told = sorted((notice.kind, notice.owner) for notice in s.notices)
    assert told == [
        ("incident.begun", "chat"),
        ("incident.begun", "money"),
        ("incident.over", "chat"),
        ("incident.over", "money"),
        ("incident.replaced", "chat"),
        ("incident.replaced", "money"),
    ]


def test_no_value_is_in_records_and_notices(tmp_path: Path) -> None:
    """Of none of the credentials that there ever were."""
    s = site(tmp_path)
    incident = s.begin(ALL)
    s.run(incident)
    text = (tmp_path / "incidents" / f"{incident.id}.json").read_text() + repr(s.notices)
    assert [value for value in s.values() if f'"{value}"' in text or f" {value}" in text] == []


def test_a_record_that_can_not_be_written_stops_nothing(tmp_path: Path) -> None:
    """It is said once; the journals hold what matters."""
    tries: list[int] = []

    def refuse() -> None:
        tries.append(1)
        raise Trouble(Code.UNAVAILABLE, "incident record", "the disk is full")

    with Saver(refuse) as saver:
        saver.save()
    assert len(tries) >= 2


def test_a_leaked_orphan_is_taken_up_and_killed(tmp_path: Path) -> None:
    """Alive at the issuer under our name, in no journal: condemned with the rest, without the wait of a sweep."""
    s = site(tmp_path)
    lost = "f" * 32
    orphan = s.process().issuers["openai"].mint(str(KeyName("acme", "test", "chat-api", lost)))
    target = s.target("chat-api")
    leak = Leak("gitleaks", "rule", "a.py:1", "orphan", "by its list", token=lost, key_id=orphan.key_id)
    incident = s.begin(Selection(leaked=(target,)), leaks={target: [leak]})
    assert [key.role for key in incident.secrets[0].keys] == ["current", "orphan"]
    s.run(incident)
    assert incident.over, incident.secrets
    assert not s.accepted(orphan.credential.fields["value"].reveal())
    assert isinstance(orphan.credential, Credential)
