"""OpenTelemetry: asked for by the environment, exported by every command, and harmless when it does not work."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from rotation.errors import Code, Trouble
from rotation.observe.environment import watcher
from rotation.observe.opentelemetry import OpenTelemetry
from rotation.telemetry import NONE, calling, running
from tests.cli.project import CHAT, Project
from tests.observe.running import collector, labels, otel
from tests.world import World

HERE = "http://127.0.0.1:9"  # nobody listens on the discard port


def test_a_command_exports_its_run_at_its_end(project: Project) -> None:
    """A rotation asked for by a person: the run, and its calls below it, with the service's own request ids; its metrics too."""
    project.apply(CHAT)
    with collector() as collected:
        ran = project.execute("rotate", CHAT, env=otel(collected))
        assert ran.code == 0, ran.text
        spans, points = collected.spans(), collected.points()
    assert [span.name for span in spans if not span.parent_span_id] == ["keyturn.rotate"]
    run = next(span for span in spans if span.name == "keyturn.rotate")
    told = labels(run.attributes)
    assert told["keyturn.secret"] == CHAT
    assert told["keyturn.result"] == "waiting"
    calls = [span for span in spans if span.parent_span_id == run.span_id]
    assert all(run.start_time_unix_nano <= c.start_time_unix_nano <= c.end_time_unix_nano for c in calls)
    named = {span.name: labels(span.attributes) for span in calls}
    assert named["openai.mint"]["keyturn.request_id"].startswith("req_")
    assert len(named["vault.observe"]["keyturn.request_id"]) == 36
    assert {at["effect"]: n for at, n in points["keyturn.effects"]} == {"minted": 1, "promoted": 1}
    assert points["keyturn.rotation.duration"][0][1] == 1
    resources = [labels(r.resource.attributes) for request in collected.traces for r in request.resource_spans]
    assert {about["service.name"] for about in resources} == {"keyturn"}
    values = {project.value(CHAT), project.services.openai.admin_key, project.services.role[1]}
    shown = "".join(str(request) for request in (*collected.traces, *collected.metrics))
    assert not [value for value in values if value in shown]


def test_a_sweep_from_cron_is_told_as_one(project: Project) -> None:
    """What it looks round for has a span of its own, and each secret's run its trace; the sweep is counted."""
    project.apply(CHAT)
    project.services.time.move(timedelta(days=31))
    with collector() as collected:
        assert project.execute("sweep", env=otel(collected)).code == 0
        spans, points = collected.spans(), collected.points()
    assert sorted(span.name for span in spans if not span.parent_span_id) == ["keyturn.look_round", "keyturn.sweep"]
    look_round = next(span for span in spans if span.name == "keyturn.look_round")
    below = {span.name for span in spans if span.parent_span_id == look_round.span_id}
    assert below == {"vault.listing", "mirror.listing", "openai.keys"}
    assert points["keyturn.sweeps"] == [({"environment": "sandbox", "result": "done"}, 1)]


def test_a_failed_run_is_an_error_in_its_trace() -> None:
    """With the code, on the run and on the call that failed; a watcher of metrics alone opens no span."""
    world = World(stores=("vault", "mirror"))
    world.denied = ("mirror", ("stage",))
    with collector() as collected, pytest.MonkeyPatch.context() as patch:
        for name, value in otel(collected).items():
            patch.setenv(name, value)
        patch.setenv("OTEL_SERVICE_NAME", "rotations")
        both, numbers = OpenTelemetry({"OTEL_SERVICE_NAME": "rotations"}), OpenTelemetry({}, traces=False)
        running(both, world.clock, "sweep", world.policy, world.run)
        running(numbers, world.clock, "sweep", world.policy, world.run)
        with pytest.raises(Trouble), calling(both, world.clock, "mirror", "stage"):
            raise Trouble(Code.DENIED, "mirror", "no")
        both.close()
        numbers.close()
    spans = collected.spans()
    assert [span.name for span in spans] == ["keyturn.sweep", "mirror.stage"]
    assert (spans[1].status.code, spans[1].status.message) == (2, "denied")
    assert labels(spans[0].attributes)["keyturn.code"] == "denied"
    assert (spans[0].status.code, spans[0].status.message) == (2, "denied")
    assert labels(collected.traces[0].resource_spans[0].resource.attributes)["service.name"] == "rotations"


def test_a_collector_that_is_away_costs_little(project: Project) -> None:
    """The rotation is done, its exit code its own, and the end waits for no more than the time that an export may take."""
    project.apply(CHAT)
    before = project.value(CHAT)
    began = time.monotonic()
    ran = project.execute("rotate", CHAT, env={"OTEL_EXPORTER_OTLP_ENDPOINT": HERE, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"})
    assert ran.code == 0, ran.text
    assert project.value(CHAT) != before
    assert time.monotonic() - began < 15
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("env", "watches"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "keyturn"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": HERE}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": HERE}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": HERE, "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": HERE, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": HERE, "OTEL_METRICS_EXPORTER": "none"}, False),
    ],
)
def test_the_environment_says_whether(env: dict[str, str], watches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint does; either signal can be left out, and all of it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    found = watcher(env)
    assert (found is not NONE) == watches
    if isinstance(found, OpenTelemetry):
        found.close()


def test_nothing_of_it_is_loaded_unless_asked_for(tmp_path: Path) -> None:
    """Nor Prometheus' client by commands that have no use for it. Where it is asked for and not installed, a sentence says
    so and the command goes on."""
    plain = (
        "import sys, rotation.cli.main; from rotation.observe.environment import watcher; watcher({});"
        "print([m for m in sys.modules if m.split('.')[0] in ('opentelemetry', 'prometheus_client')])"
    )
    assert _python(plain) == "[]\n"
    blocked = (
        "import sys; sys.modules['opentelemetry'] = None; from rotation.observe.environment import watcher;"
        f"print(type(watcher({{'OTEL_EXPORTER_OTLP_ENDPOINT': '{HERE}'}})).__name__)"
    )
    assert _python(blocked) == "Several\n"


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
