"""`keyturn run` as a process: probes, rotation when it is due, a graceful end, a second signal, a store that is away."""

from __future__ import annotations

import signal
import threading
from datetime import timedelta

from sandbox.loopback import Answer, Asked
from tests.cli.project import CHAT, HOOK, Project
from tests.cli.relay import Relay
from tests.observe.running import Running, collector, labels, otel, until


def test_it_rotates_what_comes_due_and_is_watched_doing_so(project: Project) -> None:
    """Ready after one sweep. When the clock moves, both secrets are replaced without anybody asking. Counters agree with what
    the issuer counted, spans tell the runs and their calls, and no value is in any of it."""
    project.apply()
    values = {name: project.value(name) for name in (CHAT, HOOK)}
    issued, counted = len(project.keys()), len(project.services.openai.control.requests())
    with collector() as collected, Running(project, "--every", "10m", **otel(collected)) as running:
        running.ready()
        assert running.get("/healthz").status_code == 200
        assert running.get("/").status_code == 404
        first = running.scrape()
        assert first.one("keyturn_secret_phase", secret=CHAT, phase="steady") == 1
        assert 0 < (first.one("keyturn_secret_age_seconds", secret=CHAT) or 0) < 3600
        assert first.one("keyturn_secret_overdue_seconds", secret=CHAT) == 0

        project.services.time.move(timedelta(days=31))
        until(lambda: running.scrape().one("keyturn_effects_total", effect="promoted") == 2, "two promotions")
        until(lambda: running.scrape().one("keyturn_secret_draining_keys", secret=CHAT) == 1, "the drain")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=20) == 0, running.log
    assert all(project.value(name) != value for name, value in values.items())
    assert len(project.keys()) == issued + 1

    sent = project.services.openai.control.requests()[counted:]
    points = collected.points()  # of the last export, when all was over
    calls = {(at["service"], at["operation"], at["outcome"]): n for at, n in points["keyturn.calls"]}
    assert calls["openai", "mint", "ok"] == len([one for one in sent if one["method"] == "POST"])
    assert calls["openai", "verify", "ok"] == len([one for one in sent if one["path"] == "/v1/models"])
    assert not [outcome for _, _, outcome in calls if outcome != "ok"]
    assert [at for at, _ in points["keyturn.sweeps"]] == [{"environment": "sandbox", "result": "done"}]

    spans = collected.spans()
    runs = [s for s in spans if s.name == "keyturn.sweep" and labels(s.attributes)["keyturn.secret"] == CHAT]
    (rotation,) = (s for s in runs if s.events)
    assert [e.name for e in rotation.events] == ["minted", "promoted"]
    assert labels(rotation.attributes)["keyturn.owner"] == "support-platform"
    children = [s for s in spans if s.parent_span_id == rotation.span_id]
    assert {"openai.mint", "vault.stage", "openai.verify", "vault.promote"} <= {s.name for s in children}
    assert {s.trace_id for s in children} == {rotation.trace_id}
    mint = next(s for s in children if s.name == "openai.mint")
    assert labels(mint.attributes)["keyturn.request_id"] in {one["request_id"] for one in sent}

    secrets = {*values.values(), *map(project.value, values), *project.services.role, project.services.openai.admin_key}
    shown = [first.text, running.log, *(str(request) for request in (*collected.traces, *collected.metrics))]
    assert not [text for secret in secrets for text in shown if secret in text]


def test_it_ends_between_two_effects(project: Project) -> None:
    """SIGTERM while a mint is under way: the credential is stored, nothing more is begun, exit code 0. Consumers keep what they
    have, and the next sweep goes on with the same credential instead of minting another."""
    minting, go_on = threading.Event(), threading.Event()

    def hold(asked: Asked) -> Answer | None:
        if asked.method == "POST" and asked.path.endswith("/service_accounts"):
            minting.set()
            assert go_on.wait(20)
        return None

    base = project.services.openai.base_url.removesuffix("/v1")
    with Relay(base) as relay:
        project.change("issuers.openai.baseUrl", f"{relay.url}/v1")
        project.apply(CHAT)
        before, minted = project.value(CHAT), len(project.keys())
        relay.instead = hold
        project.services.time.move(timedelta(days=31))
        with Running(project) as running:
            assert minting.wait(20), running.log
            running.process.send_signal(signal.SIGTERM)
            until(lambda: running.get("/readyz").text == "stopping\n", "the stop")
            assert running.get("/healthz").status_code == 200
            go_on.set()
            assert running.process.wait(timeout=20) == 0, running.log
            assert "stopped" in running.log
        assert project.value(CHAT) == before
        assert len(project.keys()) == minted + 1
        assert [record["event"] for record in project.audit()][-2:] == ["mint.done", "stage"]
        ran = project.run("sweep", "--json")
        assert (ran.code, len(project.keys())) == (0, minted + 1)
        assert project.value(CHAT) != before
        project.services.time.move(timedelta(days=2))
        assert project.run("sweep").code == 0
        assert len(project.alive()) == 1


def test_it_is_cut_off_when_a_call_hangs(project: Project) -> None:
    """--stop-within is kept to even when a service never answers, still with exit code 0; a second signal does not wait."""
    project.apply(CHAT)
    hanging, over = threading.Event(), threading.Event()

    def hang(asked: Asked) -> Answer | None:
        hanging.set()
        over.wait(20)
        return None

    with Relay(project.services.openai.base_url.removesuffix("/v1")) as relay:
        relay.instead = hang
        project.change("issuers.openai.baseUrl", f"{relay.url}/v1")
        with Running(project, "--stop-within", "1s") as running:
            assert hanging.wait(20), running.log
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(timeout=10) == 0
            assert "cut off after 1 s" in running.log
        hanging.clear()
        with Running(project, "--stop-within", "1h") as running:
            assert hanging.wait(20), running.log
            running.process.send_signal(signal.SIGINT)
            until(lambda: running.get("/readyz").text == "stopping\n", "the stop")
            running.process.send_signal(signal.SIGINT)
            assert running.process.wait(timeout=10) == 130
        over.set()


def test_a_store_that_is_away_makes_it_unready_and_is_asked_again_soon(project: Project) -> None:
    """Metrics keep the secrets of a store that does not answer, as unreachable; when it is back, so is readiness."""
    project.apply()
    away = threading.Event()
    with Relay(project.services.bao.address, str(project.services.bao.ca)) as relay:
        relay.instead = lambda _: Answer(503, b"{}") if away.is_set() else None
        project.change("stores.vault.address", relay.url)
        project.change("stores.mirror.address", relay.url)
        with Running(project, "--every", "2s") as running:
            running.ready()
            away.set()
            until(lambda: running.get("/readyz").status_code == 503, "a sweep without the store")
            assert "vault" in running.get("/readyz").text
            scrape = running.scrape()
            assert scrape.one("keyturn_store_reached", store="vault") == 0
            assert scrape.one("keyturn_secret_phase", secret=CHAT, phase="unreachable") == 1
            assert scrape.one("keyturn_secret_due_timestamp_seconds", secret=CHAT)
            assert running.get("/healthz").status_code == 200
            away.clear()
            running.ready()
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(timeout=20) == 0


def test_what_can_not_be_used_is_said_before_anything_runs(project: Project) -> None:
    """Exit code 2 and one sentence."""
    for arguments, told in (
        (("--every", "soon"), "--every: 'soon' is not a duration"),
        (("--every", "0s"), "--every: 0s is less than 1s"),
        (("--listen", "9464"), "--listen: '9464' is not HOST:PORT"),
        (("--listen", "192.0.2.1:9464"), "--listen 192.0.2.1:9464: "),
    ):
        ran = project.run("run", *arguments)
        assert ran.code == 2, ran.text
        assert told in ran.err
    del project.environ["OPENAI_ADMIN_KEY"]
    ran = project.run("run", "--listen", "127.0.0.1:0")
    assert ran.code == 2
    assert "OPENAI_ADMIN_KEY" in ran.err
    assert project.audit() == []
