"""What stands beside a record, and what an emergency keeps for later."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import dataclass

import pytest

from providers.issuers.memory import MemoryIssuer
from providers.stores.aws import AwsLogin, SecretsManagerStore
from providers.stores.azure import _identity
from rotation.audit.around import Callers, Requests
from rotation.audit.besteffort import AGAIN, BestEffortAuditor
from rotation.audit.trail import ChainedAuditor, Surroundings
from rotation.audit.verify import verify
from rotation.errors import Code, Trouble
from rotation.model import SecretValue
from rotation.ports import Record
from rotation.resilience import PatientStore, Service
from rotation.telemetry import NONE, Call, Several, calling, heard
from sandbox.aws.server import REGION, AwsServer
from tests.audit.lines import ACME, Lines, auditor, record
from tests.world import FakeClock, Trail, World

UUID = "0b6a3a1e-5d0f-4f62-9d3c-6a1f0f6d7c55"


# --- who ---------------------------------------------------------------------------------------------


@dataclass
class Named:
    """A store of which only the caller matters here."""

    who: str | None
    asked: int = 0
    fails: bool = False

    def caller(self) -> str | None:
        self.asked += 1
        if self.fails:
            raise Trouble(Code.DENIED, "vault", "no")
        return self.who


def test_each_store_is_asked_once_and_only_when_it_is_used() -> None:
    """A record costs no call, but for the first after a store came into use."""
    near, far = Named("us"), Named("them")
    used = {"near": near}
    callers = Callers({"function": "rotate"})
    callers.ask(lambda: dict(used))  # type: ignore[arg-type]
    assert callers() == {"function": "rotate", "near": "us"}
    assert far.asked == 0
    used["far"] = far
    assert callers() == callers() == {"function": "rotate", "near": "us", "far": "them"}
    assert (near.asked, far.asked) == (1, 1)


@pytest.mark.parametrize("store", [Named(None), Named("us", fails=True), object()])
def test_a_store_that_does_not_say_changes_nothing(store: object) -> None:
    """Nor is it asked again."""
    callers = Callers()
    callers.ask(lambda: {"near": store})  # type: ignore[dict-item]
    assert callers() == callers() == {}


def test_a_store_that_hangs_holds_up_one_record_for_a_moment() -> None:
    """Its name stands in later lines."""
    done, began = threading.Event(), threading.Event()

    class Slow(Named):
        def caller(self) -> str | None:
            began.set()
            done.wait(30)
            return "us"

    callers = Callers()
    callers.ask(lambda: {"near": Slow(None)})  # type: ignore[dict-item]
    assert callers() == {}
    assert began.is_set()
    done.set()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.daemon:
            thread.join(1)
    assert callers() == {"near": "us"}


def test_aws_says_an_arn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the patience that wraps every store."""
    clock = FakeClock()
    with AwsServer() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        bare = SecretsManagerStore("aws", region=REGION, endpoint_url=server.endpoint, login=AwsLogin(), clock=clock)
        store = PatientStore(bare, Service("aws", clock, lambda: 0.5))
        callers = Callers()
        callers.ask(lambda: {"aws": store})
        assert callers()["aws"].startswith(f"arn:aws:iam::{server.account_id}:")
        asked = [call for call in server.control.calls() if "GetCallerIdentity" in str(call)]
    assert len(asked) == 1


def test_azure_says_the_claims_of_its_token() -> None:
    """Those that name somebody, and no others."""
    body = "eyJvaWQiOiAiNGYyYSIsICJhcHBpZCI6ICI5YzE3IiwgImF1ZCI6ICJ4In0"  # {"oid": "4f2a", "appid": "9c17", "aud": "x"}
    assert _identity(f"e30.{body}.sig") == {"oid": "4f2a", "appid": "9c17"}
    assert _identity("opaque") == _identity("a.b.c") == {}


# --- requests ----------------------------------------------------------------------------------------


def test_a_line_names_the_requests_of_its_own_thread_since_the_last_one() -> None:
    """And each once."""
    requests, clock, place = Requests(), FakeClock(), Lines()
    trail = ChainedAuditor([place], surroundings=Surroundings(requests=requests.take))

    def ask(operation: str) -> None:
        with calling(Several(requests), clock, "vault", operation):
            heard(UUID)

    ask("observe")
    other = threading.Thread(target=ask, args=("list",))
    other.start()
    other.join()
    trail.write(record(0))
    trail.write(record(1))
    said = [json.loads(line) for line in place.lines]
    assert said[0]["requests"] == [f"vault observe {UUID}"]
    assert "requests" not in said[1]


def test_a_write_that_failed_is_counted() -> None:
    """As any call to a service that failed."""
    calls: list[Call] = []

    class Counting:
        def watch(self, what: object) -> object:
            assert isinstance(what, Call)
            calls.append(what)
            return NONE.watch(what)

    trail = auditor(Lines(fails=lambda: True))
    trail.watched_by(Counting(), FakeClock())  # type: ignore[arg-type]
    with pytest.raises(Trouble):
        trail.write(record(0))
    assert [(call.service, call.operation, call.outcome) for call in calls] == [("audit trail", "write", "unavailable")]


# --- an engine without its trail ---------------------------------------------------------------------


def test_nothing_is_minted_while_any_place_refuses() -> None:
    """The other one has the intent, and nothing came of it."""
    world, good, bad = World(), Lines(), Lines(fails=lambda: True)
    chained = ChainedAuditor([good, bad])

    class Chained(Trail):
        def write(self, record: Record) -> None:
            chained.write(record)
            super().write(record)

    world.trail = Chained()
    outcome = world.engine().rotate(world.target)
    assert "memory: no space left on device" in str(outcome.trouble)
    assert "intend" in [json.loads(line)["event"] for line in good.lines]
    assert list(MemoryIssuer("vendor", world.vendor).keys()) == []


# --- the best that can be done -----------------------------------------------------------------------


def test_what_the_trail_does_not_take_is_kept_shown_and_written_late() -> None:
    """In the order in which it came, and marked; the chain is whole."""
    down = [True]
    place, clock, err = Lines(fails=lambda: down[0]), FakeClock(), io.StringIO()
    best = BestEffortAuditor(auditor(place), err, clock)
    value = SecretValue("canary-of-the-trail-4711")
    best.write(record(0))
    best.write(record(1, event=f"mint {value.reveal()}"))
    assert best.unwritten == 2
    shown = err.getvalue().splitlines()
    assert "no space left on device" in shown[0]
    assert [json.loads(line)["late"] for line in shown[1:]] == [True, True]
    assert "4711" not in err.getvalue()
    down[0] = False
    best.write(record(2))
    assert best.unwritten == 3, "a trail that failed is left alone for a while"
    clock.sleep(AGAIN)
    best.write(record(3))
    assert best.unwritten == 0
    said = [json.loads(line) for line in place.lines]
    assert [line["token"] for line in said] == ["t0", "t1", "t2", "t3"]
    assert [line.get("late", False) for line in said] == [True, True, True, False]
    assert verify(place.read(), (), ACME).good


def test_what_is_still_unwritten_at_the_end_is_counted() -> None:
    """Whoever reads the stream has it there."""
    best = BestEffortAuditor(auditor(Lines(fails=lambda: True)), io.StringIO(), FakeClock())
    best.write(record(0))
    assert best.finish() == 1


def test_a_trail_that_works_is_used_as_ever() -> None:
    """Nothing is late, and nothing is shown."""
    place, err = Lines(), io.StringIO()
    best = BestEffortAuditor(auditor(place), err, FakeClock())
    best.write(record(0))
    assert best.finish() == 0
    assert (len(place.lines), err.getvalue()) == (1, "")
