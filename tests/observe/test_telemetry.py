"""What a watcher is told: every call with its repetitions, every run with what it came to, and nothing that can harm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from rotation import actions
from rotation.engine import Engine, Outcome
from rotation.errors import Code, Trouble
from rotation.model import Credential, Verdict
from rotation.ports import Record
from rotation.resilience import Limits, PatientIssuer, PatientStore, Service
from rotation.telemetry import NONE, Call, Run, Several, Sweep, calling, heard, running, sweeping
from tests.world import ENTRY, START, FakeClock, World


class Noting:
    """Keeps what it was told, in the order of the ends."""

    def __init__(self) -> None:
        self.told: list[Call | Run | Sweep] = []
        self.open = 0

    @contextmanager
    def watch(self, what: Call | Run | Sweep) -> Iterator[None]:
        self.open += 1
        yield
        self.open -= 1
        self.told.append(what)

    @property
    def calls(self) -> list[tuple[str, str]]:
        return [(call.operation, call.outcome) for call in self.told if isinstance(call, Call)]


def watched(world: World, noting: Noting, name: str = "vault", **limits: Any) -> PatientStore:
    service = Service(name, world.clock, lambda: 0.5, Limits(**limits), noting)
    return PatientStore(world.engine().outside.stores[name], service)


def test_each_repetition_is_a_call() -> None:
    """With the outcome of its own; the time between two of them belongs to none."""
    clock, noting, answers = FakeClock(), Noting(), [Code.UNAVAILABLE, Code.THROTTLED]

    def work() -> str:
        clock.sleep(2)
        if answers:
            raise Trouble(answers.pop(0), "vault", "no")
        return "answer"

    service = Service("vault", clock, lambda: 0.5, telemetry=noting)
    assert service.call("observe", work, repeatable=True) == "answer"
    assert noting.calls == [("observe", "unavailable"), ("observe", "throttled"), ("observe", "ok")]
    assert [call.seconds for call in noting.told if isinstance(call, Call)] == pytest.approx([2, 2, 2])


def test_what_is_not_sent_to_a_broken_service_is_told_apart() -> None:
    """It is no call, but somebody will want to know."""
    clock, noting = FakeClock(), Noting()
    service = Service("vault", clock, lambda: 0.5, Limits(trips_after=2), noting)

    def down() -> None:
        raise Trouble(Code.UNAVAILABLE, "vault", "no")

    for _ in range(3):
        with pytest.raises(Trouble):
            service.call("observe", down, repeatable=False)
    assert noting.calls == [("observe", "unavailable")] * 2 + [("observe", "left-alone")]


def test_every_method_of_the_ports_is_told_by_its_name() -> None:
    """Through the wrappers that every host uses: a whole rotation, and a listing."""
    world, noting = World(), Noting()
    usual = world.engine().outside
    store = watched(world, noting)
    issuer = PatientIssuer(usual.issuers["vendor"], Service("vendor", world.clock, lambda: 0.5, telemetry=noting))
    engine = Engine({"vault": store}, {"vendor": issuer}, usual.places, usual.clock, usual.auditor, usual.tokens)
    assert engine.run(world.target).trouble is None
    assert [listed.name for listed in store.listing()] == [ENTRY]
    told = {(call.service, call.operation) for call in noting.told if isinstance(call, Call)}
    assert told >= {
        ("vault", "observe"),
        ("vault", "record"),
        ("vault", "stage"),
        ("vault", "promote"),
        ("vault", "listing"),
        ("vendor", "mint"),
        ("vendor", "verify"),
    }
    assert noting.open == 0


def test_a_listing_that_is_left_early_is_no_fault() -> None:
    """Its reader has had enough. One that fails midway is told with its code."""
    world, noting = World(), Noting()
    listing = watched(world, noting).listing()
    next(listing)
    listing.close()  # type: ignore[attr-defined]
    world.denied = ("vault", ("listing",))
    with pytest.raises(Trouble):
        list(watched(world, noting).listing())
    assert noting.calls == [("listing", "ok"), ("listing", "denied")]


def test_a_verification_that_does_not_tell_is_unknown() -> None:
    """A refusal is an answer, and as good as any."""
    world, noting = World(), Noting()
    inner = world.engine().outside.issuers["vendor"]
    issuer = PatientIssuer(inner, Service("vendor", world.clock, lambda: 0.5, telemetry=noting))
    assert issuer.verify(Credential.of(value="nobody made this")).verdict is Verdict.INVALID
    world.vendor.unreachable = True
    assert issuer.verify(Credential.of(value="nobody made this")).verdict is Verdict.UNKNOWN
    assert noting.calls == [("verify", "ok"), ("verify", "unknown")]


def test_a_watcher_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Whether on the way in or out; the others are told all the same, and the log says who failed, not with what."""

    class Late:
        @contextmanager
        def watch(self, what: object) -> Iterator[None]:
            yield
            raise RuntimeError("sk-canary")

    class Early:
        def watch(self, what: object) -> Any:
            raise RuntimeError("sk-canary")

    noting = Noting()
    with calling(Several(Early(), Late(), noting), FakeClock(), "vault", "observe"):
        pass
    assert noting.calls == [("observe", "ok")]
    assert "Early can not watch: RuntimeError" in caplog.text
    assert "Late can not watch: RuntimeError" in caplog.text
    assert "sk-canary" not in caplog.text


def test_what_fails_fails_through_every_watcher() -> None:
    """The exception is the caller's; watchers only learn how it ended."""
    noting = Noting()
    with pytest.raises(ZeroDivisionError), calling(Several(noting), FakeClock(), "vault", "observe"):
        _ = 1 / 0
    with pytest.raises(ZeroDivisionError), sweeping(noting, FakeClock(), "test"):
        _ = 1 / 0
    with pytest.raises(Trouble):
        running(noting, FakeClock(), "rotate", World().policy, _denied)
    assert noting.calls == [("observe", "fault")]
    sweep, run = noting.told[1:]
    assert isinstance(sweep, Sweep)
    assert sweep.result == "fault"
    assert isinstance(run, Run)
    assert (run.result, run.code) == ("failed", "denied")


def _denied() -> Outcome:
    raise Trouble(Code.DENIED, "vault", "no")


def test_a_request_id_is_kept_with_its_call_only() -> None:
    """And only what is one: a gateway may answer with a token in its place."""
    clock, noting, uuid = FakeClock(), Noting(), "8c2f6a1e-3b1d-4f4e-9a57-0f6f3f2b9c11"
    with calling(noting, clock, "vault", "observe"):
        heard(uuid)
        heard("hvs.CAESIJ-a-token")
        heard(None)
    with calling(noting, clock, "openai", "mint"):
        heard("req_011", checked=True)
    with calling(noting, clock, "vault", "record"):
        pass
    heard(uuid)  # nobody asked
    assert [call.request_id for call in noting.told if isinstance(call, Call)] == [uuid, "req_011", None]


def test_a_run_tells_what_was_done_and_how_long_it_took() -> None:
    """Rotation, drain, and proof, over three runs of which none saw the whole."""
    world, noting = World(create_delay=timedelta(seconds=2)), Noting()

    def run() -> Run:
        running(noting, world.clock, "sweep", world.policy, world.sweep)
        last = noting.told[-1]
        assert isinstance(last, Run)
        return last

    first = run()
    assert first.effects() == ["minted", "promoted"]
    assert [name for name, _ in first.durations()] == ["rotation"]
    assert first.durations()[0][1] >= 2
    assert first.result == "done"
    world.clock.move(timedelta(days=31))
    assert run().result == "waiting"
    world.clock.move(timedelta(hours=30))
    last = run()
    assert last.effects() == ["condemned", "revoked", "proven"]
    took = dict(last.durations())
    assert took.keys() == {"retirement", "proof"}
    assert timedelta(hours=30) <= timedelta(seconds=took["retirement"]) < timedelta(hours=31)
    assert took["proof"] < 60


def test_an_emergency_is_measured_from_the_condemnation() -> None:
    """Its proof counts once, although a key that was contained is proven before it is closed."""
    world, noting = World(allow_outage=True), Noting()
    world.run()
    engine = world.engine()
    engine.condemn(world.target, contain_after=timedelta(0))
    world.clock.move(timedelta(minutes=3))
    done: list[tuple[str, list[str], dict[str, float]]] = []

    def refused(_: int, call: str) -> None:
        if call == "before mint":
            raise Trouble(Code.LIMIT, "vendor", "full")

    for fault in (refused, None):
        world.fault = fault
        for _ in range(3):
            running(noting, world.clock, "sweep", world.policy, world.sweep)
            run = noting.told[-1]
            assert isinstance(run, Run)
            done.append((run.result, run.effects(), dict(run.durations())))
            world.clock.move(timedelta(minutes=20))
    events = [record.event for record in world.trail.records]
    assert events.count("proven") == 2
    effects = [effect for _, told, _ in done for effect in told]
    assert effects.count("proven") == 1
    emergencies = [took["emergency"] for _, _, took in done if "emergency" in took]
    assert len(emergencies) == 1
    assert emergencies[0] >= 180
    assert not any("retirement" in took for _, _, took in done)


def test_failures_are_told_with_what_was_tried() -> None:
    """The action and the code of each; the run is `failed` with the first."""
    world, noting = World(stores=("vault", "mirror")), Noting()
    world.denied = ("mirror", ("stage",))
    running(noting, world.clock, "sweep", world.policy, world.run)
    run = noting.told[-1]
    assert isinstance(run, Run)
    assert (run.result, run.code) == ("failed", "denied")
    assert ("copy", "denied") in run.failures()


def test_nothing_is_told_of_nothing() -> None:
    """Where nobody watches, a run is the run."""
    world = World()
    outcome = Outcome(world.target, actions.Done(reason="nothing is due", due_at=None), None, None, [])
    assert running(NONE, world.clock, "sweep", world.policy, lambda: outcome) is outcome


def test_clocks_that_differ_give_no_negative_durations() -> None:
    """A promotion that another runner's clock puts before its intent took no time."""
    run = Run("sweep", World().policy, started={"t": START + timedelta(seconds=5)})
    run.records = [Record(START, "promote.done", ENTRY, token="t")]
    assert run.durations() == [("rotation", 0.0)]
