"""Drills over memory: one that passes, ones that must not, and what one that was killed leaves to the next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from providers.stores.memory import MemoryStore
from rotation.assembly import Assembly
from rotation.errors import Code, Trouble
from rotation.incident import drill as drills
from rotation.incident import evidence as evidences
from rotation.incident.evidence import Evidence, Files, State
from rotation.incident.run import Tapped
from rotation.model import Model, Policy
from tests.incident.site import VAULT, Site, consumer, policy
from tests.world import Crash

ID, LATER = "2026-01-01-0000-d001", "2026-01-01-0001-d002"
CANARY = "drill-canary-vault-openai"


def site(root: Path, **more: object) -> Site:
    made = Site([policy("chat-api", consumers=(consumer("web"),))], root, **more)  # type: ignore[arg-type]
    for vendor in made.vendors.values():
        vendor.prefix = "value-of-the-vendor-"  # long enough to be known again where it leaks
    return made


@dataclass
class Drilled:
    """What came of one."""

    site: Site
    evidence: Evidence
    files: Files
    said: list[str] = field(default_factory=list)

    def text(self) -> str:
        """All that was written and said."""
        folder = self.files.folder.parent
        written = [path.read_text() for path in folder.rglob("*") if path.is_file()]
        return "\n".join([*written, *self.said, *map(str, self.site.notices), *map(str, self.site.trail.records)])


def drill(
    s: Site,
    *,
    identity: str = ID,
    chosen: Sequence[Policy] | None = None,
    patience: timedelta = timedelta(minutes=10),
    silent: bool = False,
) -> Drilled:
    """As the command does it, without looking for left-overs first."""
    assembly = s.process()
    picked = drills.canaries(assembly, identity)[0] if chosen is None else [*chosen]
    files = Files(s.root / "drills")
    evidence = Evidence(
        id=identity,
        installation="acme",
        environment="test",
        stack="Pulumi.test.yaml",
        ran_by="oncall@laptop",
        began_at=s.clock.now(),
        versions={"keyturn": "0"},
        subjects=[drills.subject_of(one, assembly.issuers[one.issuer]) for one in picked],
        silent=silent,
    )
    done = Drilled(s, evidence, files)

    def listen(_: str, heard: object) -> None:
        s.switch.auditor = Tapped(s.trail, heard)  # type: ignore[arg-type]

    drills.Drill(
        assembly,
        evidence,
        picked,
        keep=lambda: files.save(evidence),
        incidents=s.files,
        listen=listen,
        say=done.said.append,
        patience=patience,
    ).run()
    files.save(evidence)
    return done


def entries(s: Site) -> list[str]:
    """What a consumer could still read."""
    vault = s.vaults["vault"]
    return [name for name, found in vault.entries.items() if not found.deleted]


def clear(
    s: Site, assembly: Assembly | None = None, *, known: Sequence[str] = (), take_over: bool = False
) -> list[str]:
    gone, left, _ = drills.removed_left_overs(assembly or s.process(), known, s.clock.now(), take_over=take_over)
    assert not left
    return gone


def test_a_drill_passes_and_leaves_nothing(tmp_path: Path) -> None:
    """Every time is measured, in its order; nobody's secret is touched; no canary and none of its keys is left."""
    s = site(tmp_path)
    before = s.value("chat-api")
    done = drill(s)
    e = done.evidence
    assert e.all_faults == []
    assert e.state is State.PASSED
    (one,) = e.subjects
    assert (one.name, one.canary, one.cleaned, one.verdict) == (CANARY, True, True, "invalid")
    assert one.leaked_key_id != one.key_id
    t = e.times
    assert t.match is not None
    assert t.replace is not None
    assert t.contain is not None
    assert t.prove is not None
    assert t.total is not None
    assert t.match <= t.replace <= t.contain < t.prove <= t.total
    (used,) = one.consumers
    assert used.uses >= 2
    assert used.new_value_seconds is not None
    assert s.value("chat-api") == before
    assert entries(s) == ["test/chat-api"]
    assert s.live() == 1


def test_a_drill_goes_the_way_of_an_emergency(tmp_path: Path) -> None:
    """Its incident is in the records, by the report's finding, as a drill; nothing stays frozen."""
    s = site(tmp_path)
    drill(s)
    incident = s.files.load(ID)
    assert incident.over
    assert incident.selected.startswith("a drill: ")
    (leak,) = incident.leaks
    assert (leak.source, leak.standing, leak.secret, leak.alive) == ("gitleaks", "current", CANARY, True)
    events = [record.event for record in s.trail.records if record.secret == f"test/{CANARY}"]
    assert events.index("condemn") < events.index("promote.done", events.index("condemn")) < events.index("proven")


def test_no_value_is_written_or_told(tmp_path: Path) -> None:
    """Neither what leaked nor what replaced it: not in evidence, record, trail, notices, or on the screen."""
    s = site(tmp_path)
    told = drill(s).text()
    minted = [value for value in s.values() if value.startswith("value-of-the-vendor-")]
    assert len(minted) == 2
    assert CANARY in told
    for value in minted:
        assert value not in told


def test_owners_are_told_that_it_is_a_drill(tmp_path: Path) -> None:
    """Each notice in its subject and in its text; with --silent nobody hears of it, and the evidence says so."""
    s = site(tmp_path)
    e = drill(s).evidence
    assert {notice.kind for notice in s.notices} == {"incident.begun", "incident.replaced", "incident.over"}
    assert all(notice.subject.startswith("DRILL: ") for notice in s.notices)
    assert all(notice.text.startswith(f"This is the drill {ID}: nothing has leaked.") for notice in s.notices)
    assert [(one.owner, one.channels) for one in e.owners] == [("team", [])]
    quiet = site(tmp_path / "quiet")
    told = drill(quiet, silent=True).evidence.owners
    assert quiet.notices == []
    assert told[0].kinds == ["incident.begun", "incident.replaced", "incident.over"]


def test_an_issuer_that_does_not_revoke_is_found_out(tmp_path: Path) -> None:
    """The leaked key is accepted on and on: alive, not passed; the entry stays, as its keys are not dead."""
    s = site(tmp_path)
    s.vendors["openai"].revoke_delay = timedelta(days=1)
    e = drill(s, patience=timedelta(minutes=3)).evidence
    assert e.state is State.ALIVE
    (one,) = e.subjects
    assert one.alive
    assert one.verdict == "valid"
    assert one.times.prove is None
    assert e.times.prove is None
    assert one.cleaned is False
    assert any("what leaked is alive" in fault for fault in one.faults)
    assert f"test/{CANARY}" in entries(s)
    s.vendors["openai"].revoke_delay = timedelta(0)
    s.clock.sleep(2 * 86400)
    assert clear(s, known=[ID]) == [CANARY]
    assert s.live() == 1


def test_a_key_that_comes_back_to_life_is_found_out(tmp_path: Path) -> None:
    """What was shown dead is shown to its issuer once more at the end; that is accepted again, so the drill has not passed."""
    s = site(tmp_path)

    def revive(_: int, service: str, call: str) -> None:
        leaked = s.vendors["openai"].keys[1:2]
        if service == "vault" and call == "after forget" and leaked and leaked[0].revoked:
            leaked[0].revoked, s.fault = False, None

    s.fault = revive
    e = drill(s).evidence
    (one,) = e.subjects
    assert one.times.prove is not None
    assert one.verdict == "valid"
    assert e.state is State.ALIVE
    assert "at the end openai accepts what leaked" in one.faults


@dataclass
class KillAt:
    """Ends the process at the first call of this kind once it is armed."""

    call: str
    happened: bool = False

    def __call__(self, _passed: int, _service: str, call: str) -> None:
        if call == self.call and not self.happened:
            self.happened = True
            raise Crash


@pytest.mark.parametrize(
    "call",
    ["after create", "after mint", "before promote", "after promote", "before revoke", "after revoke", "before delete"],
)
def test_what_a_killed_drill_leaves_the_next_removes(tmp_path: Path, call: str) -> None:
    """Wherever it was killed: its canary is found by its tag, every key dies, and the next drill passes."""
    s = site(tmp_path)
    s.fault = KillAt(call)
    with pytest.raises(Crash):
        drill(s)
    s.fault = None
    assert f"test/{CANARY}" in entries(s)
    files = Files(tmp_path / "drills")
    assert [one.state for one in files.all()] == [State.RUNNING]
    s.clock.sleep(20 * 60)  # past the life of an attempt: what an interrupted mint has left can be told then
    assert clear(s, known=[ID]) == [CANARY]
    assert entries(s) == ["test/chat-api"]
    assert s.live() == 1
    assert drill(s, identity=LATER).evidence.state is State.PASSED
    assert s.live() == 1


def test_another_machines_drill_is_not_disturbed(tmp_path: Path) -> None:
    """A young canary of a drill that did not run here is left alone, until it must be over, or somebody says so."""
    s = site(tmp_path)
    s.fault = KillAt("before revoke")
    with pytest.raises(Crash):
        drill(s)
    s.fault = None
    with pytest.raises(drills.Busy, match="--take-over"):
        clear(s)
    assert f"test/{CANARY}" in entries(s)
    assert clear(s, take_over=True) == [CANARY]


def test_a_named_secret_is_replaced_for_good(tmp_path: Path) -> None:
    """No canary is made; what leaked is dead, and the secret stays with what has replaced it."""
    s = site(tmp_path)
    s.process().engine.rotate(s.target("chat-api"))
    leaked = s.value("chat-api")
    done = drill(s, chosen=[s.policies[0]])
    assert done.evidence.all_faults == []
    assert done.evidence.state is State.PASSED
    assert done.evidence.subjects[0].cleaned is None
    assert not s.accepted(leaked)
    assert s.accepted(s.value("chat-api"))
    assert entries(s) == ["test/chat-api"]
    assert s.live() == 1


def test_what_does_not_work_before_it_leaks_is_not_drilled(tmp_path: Path) -> None:
    """A credential that its issuer refuses says nothing about an emergency: failed, and nothing was changed."""
    s = site(tmp_path)
    for key in s.vendors["openai"].keys:
        key.revoked = True
    e = drill(s, chosen=[s.policies[0]]).evidence
    assert e.state is State.FAILED
    assert "was not accepted before it leaked" in e.subjects[0].faults[0]
    assert not s.files.ids()


def test_a_replica_that_is_stuck_fails_the_drill(tmp_path: Path) -> None:
    """Who reads the stale copy is cut off, and the evidence has it: by whom, and for how long."""
    s = Site(
        [policy("chat-api", replicas=("mirror",), contain_after=timedelta(seconds=30))],
        tmp_path,
        {"vault": VAULT, "mirror": VAULT},
    )
    s.vendors["openai"].prefix = "value-of-the-vendor-"
    s.process().engine.rotate(s.target("chat-api"))
    s.clock.sleep(3600)

    def no_writes(_: int, service: str, call: str) -> None:
        if service == "mirror" and call in ("before stage", "before promote"):
            raise Trouble(Code.DENIED, service, "may not be written to")

    s.fault = no_writes
    e = drill(s, chosen=[s.policies[0]], patience=timedelta(minutes=5)).evidence
    assert e.state is not State.PASSED
    assert any("was not accepted again" in fault for fault in e.subjects[0].faults)
    stale = next(seen for seen in e.subjects[0].consumers if seen.store == "mirror")
    assert stale.new_value_seconds is None
    assert stale.refused > 0


def test_where_a_canary_would_hurt_there_is_none(tmp_path: Path) -> None:
    """Issuers with places, with one key, or with a person behind them; stores without compare-and-set: each with its reason."""
    for model in (Model.SLOTS, Model.REPLACE, Model.MANUAL):
        s = site(tmp_path / model.value, models={"openai": model})
        made, notes = drills.canaries(s.process(), ID)
        assert made == []
        assert len(notes) == 1
    s = site(tmp_path / "unfenced")
    assembly = s.process()
    unfenced = MemoryStore("vault", s.vaults["vault"], s.clock.now, fenced=False)
    made, notes = drills.canaries(replace(assembly, stores={"vault": unfenced}), ID)
    assert made == []
    assert "no compare-and-set" in notes[0]
    slow, _ = drills.canaries(replace(assembly, stores={"vault": unfenced}), ID, slow=True)
    assert [one.name for one in slow] == [CANARY]


def test_times_are_held_against_the_last_that_passed(tmp_path: Path) -> None:
    """Of the same secrets; better or worse beyond the tolerance, the same within it."""
    s = site(tmp_path)
    first = drill(s)
    s.clock.sleep(60)
    second = drill(s, identity=LATER)
    last = second.files.last_like(second.evidence)
    assert last is not None
    assert last.id == ID
    last.times = replace(last.times, replace=30.0, prove=0.1, match=second.evidence.times.match)
    second.evidence.times = replace(second.evidence.times, replace=3.0, prove=9.0)
    second.evidence.compare(last)
    verdicts = {one.name: one.verdict for one in second.evidence.differences}
    assert (verdicts["replace"], verdicts["prove"], verdicts["match"]) == ("better", "worse", "same")
    first.evidence.state = State.FAILED
    first.files.save(first.evidence)
    assert second.files.last_like(second.evidence) is None


def test_evidence_is_read_as_it_was_written(tmp_path: Path) -> None:
    """For scripts, and for the next comparison; of another version it is refused."""
    done = drill(site(tmp_path))
    text = done.files.path(ID).read_text()
    assert evidences.as_json(evidences.from_json(text)) == json.loads(text)
    with pytest.raises(ValueError, match="of version"):
        evidences.from_json(text.replace("keyturn.drill/1", "keyturn.drill/9"))
    with pytest.raises(ValueError, match="not the evidence"):
        evidences.from_json("[]")
    assert (done.files.path(ID).stat().st_mode & 0o777) == 0o600
    page = done.files.path(ID).with_suffix(".md").read_text()
    assert page.startswith(f"# Drill {ID}: passed")
    assert "## Consumers" in page


def test_names_of_canaries_never_meet() -> None:
    """Whatever stores and issuers are called."""
    pairs = [("a", "b-c"), ("a-b", "c"), ("x" * 32, "y" * 32), ("vault", "openai"), ("vault", "a-journal")]
    names = {drills.canary_name(*pair) for pair in pairs}
    assert len(names) == len(pairs)
    assert all(len(name) <= 64 for name in names)
