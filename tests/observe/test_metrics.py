"""Scrapes, the table of metrics in the documentation, and the alerts on them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as plain_families

from rotation.actions import Cause, Hold
from rotation.model import Policy
from rotation.observe.board import GAUGES, Board, Look, readings
from rotation.observe.instruments import SECRET, TOLD, Instrument, measures
from rotation.observe.prometheus import Prometheus, text
from rotation.status import Phase
from rotation.telemetry import Call, Run, Sweep
from tests.cli.project import CHAT, HOOK, Project
from tests.observe.running import OPENMETRICS, Scrape
from tests.test_decisions import ROWS
from tests.world import START, World

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = REPOSITORY / "docs" / "observability.md"
RULES = REPOSITORY / "deploy" / "prometheus" / "keyturn.rules.yaml"
INSTRUMENTS = (*GAUGES, *TOLD)
SELDOM = {"keyturn_secret_held", "keyturn_secret_suspect_keys"}
"""Of which there is nothing to tell where nothing is held, and no issuer is watched."""


# --- the table -------------------------------------------------------------------------------------


def table() -> str:
    """The table of metrics as the documentation has it."""
    rows = [f"| `{i.name}` ({i.kind}) | {_labels(i)} | {i.help} |" for i in INSTRUMENTS]
    return "\n".join(["| metric | labels | |", "|---|---|---|", *rows])


def _labels(i: Instrument) -> str:
    whose = i.labels[: len(SECRET)] == SECRET
    left = i.labels[len(SECRET) :] if whose else i.labels
    named = (["*secret*"] if whose else []) + [f"`{label}`" for label in left]
    return ", ".join(named) or "none"


def written() -> str:
    """The documentation with the table that the code gives."""
    secret = ", ".join(f"`{label}`" for label in SECRET)
    said = f"\n*secret* stands for the labels {secret}, where the store is the primary one.\n\n{table()}\n\n"
    before, rest = DOCUMENT.read_text().split("<!-- metrics -->\n", 1)
    return f"{before}<!-- metrics -->\n{said}<!-- end -->{rest.split('<!-- end -->', 1)[1]}"


def test_the_documentation_names_every_metric() -> None:
    """With its kind, labels and meaning."""
    assert DOCUMENT.read_text() == written(), "run `python -m tests.observe.test_metrics`"


def test_the_documentation_names_every_cause_phase_and_code() -> None:
    """Whoever gets an alert with one finds it there."""
    told = DOCUMENT.read_text()
    for word in (*Cause, *Phase):
        assert f"`{word.value}`" in told, word


def test_names_follow_the_conventions() -> None:
    """Of Prometheus: a prefix, a base unit, `_total` on counters and nothing else; labels that say whose it is, no ids."""
    for i in INSTRUMENTS:
        assert re.fullmatch(r"keyturn(_[a-z]+)+", i.name)
        assert i.name.endswith("_total") == (i.kind == "counter"), i.name
        assert i.name.endswith("_seconds") or i.kind != "histogram", i.name
        assert bool(i.buckets) == (i.kind == "histogram"), i.name
        assert list(i.buckets) == sorted(set(i.buckets))
        assert not any(part in label for label in i.labels for part in ("id", "key", "token", "value")), i.name
    assert len({i.name for i in INSTRUMENTS}) == len(INSTRUMENTS)
    assert len({i.dotted for i in INSTRUMENTS}) == len(INSTRUMENTS)


# --- readings --------------------------------------------------------------------------------------


def told() -> Iterator[Call | Run | Sweep]:
    """One thing of each kind."""
    world = World()
    yield Call("vault", "observe", "denied", 0.3)
    yield Call("vault", "observe", "left-alone")
    yield Sweep("test", "failed", 3, 2.5)
    outcome = world.run()
    yield Run("sweep", world.policy, "failed", "unavailable", outcome.records)
    yield Run("sweep", world.policy, "failed", "unavailable")


def test_everything_told_has_the_labels_that_are_declared() -> None:
    """Or a scrape would fail when it happens."""
    given = [*readings([Look(World().policy, Phase.HELD, START, START, held="limit")], START)]
    given += [measure for what in told() for measure in measures(what)]
    for instrument, labels, _ in given:
        assert set(labels) == set(instrument.labels), instrument.name
    assert {i.name for i, _, _ in given} >= {"keyturn_failures_total", "keyturn_rotation_duration_seconds"}


def test_a_scrape_is_read_by_both_of_prometheus_parsers() -> None:
    """In either format, with every kind of metric in it."""
    board = Board()
    watcher = Prometheus(lambda: board.read(START))
    for what in told():
        with watcher.watch(what):
            pass
    board.end((), {"vault": True}, START)
    body, kind = watcher.scrape(OPENMETRICS)
    assert kind.startswith("application/openmetrics-text")
    scrape = Scrape(body.decode())
    assert scrape.one("keyturn_calls_total", service="vault", operation="observe", outcome="denied") == 1
    assert scrape.one("keyturn_call_duration_seconds_sum", operation="observe") == pytest.approx(0.3)
    assert scrape.one("keyturn_call_duration_seconds_count", operation="observe") == 1  # what was not sent took no time
    assert scrape.one("keyturn_failures_total", action="look", code="unavailable") == 2
    assert scrape.one("keyturn_effects_total", effect="promoted") == 1
    assert scrape.one("keyturn_sweeps_total", result="failed") == 1
    assert scrape.one("keyturn_store_reached", store="vault") == 1
    body, kind = watcher.scrape("")
    assert kind.startswith("text/plain")
    assert {family.name for family in plain_families(body.decode())} >= {"keyturn_calls", "keyturn_store_reached"}


def test_names_that_would_break_the_format_are_escaped() -> None:
    """An owner is any text."""
    policy = Policy(**{**_fields(World().policy), "owner": 'a "b"\nc\\d'})
    scrape = Scrape(text(readings([Look(policy, Phase.STEADY)], START), "openmetrics"))
    assert scrape.samples["keyturn_secret_phase"][0][0]["owner"] == 'a "b"\nc\\d'


def _fields(policy: Policy) -> dict[str, Any]:
    return {name: getattr(policy, name) for name in policy.__dataclass_fields__}


def test_every_hold_in_the_table_of_decisions_has_a_cause_of_its_own_kind() -> None:
    """Each cause is some row's, but for those that follow from a refused call, a full issuer, a schedule or a request."""
    rows = [row for group in ROWS.values() for row in group if row.action is Hold]
    causes = {decision.cause for row in rows if isinstance(decision := row.decide(), Hold)}
    assert {*Cause} - causes <= {Cause.FAILED, Cause.IMPOSSIBLE, Cause.LIMIT, Cause.SCHEDULE}, {*Cause} - causes


# --- the command -----------------------------------------------------------------------------------


def test_the_command_prints_what_is_seen(project: Project) -> None:
    """Three formats, one look, nothing changed; due dates, drains and what is not applied."""
    project.apply(CHAT)
    assert project.run("rotate", CHAT).code == 0
    values = {project.value(CHAT), project.services.openai.admin_key, project.services.role[1]}
    before = project.everything()
    ran = project.run("metrics")
    assert ran.code == 0, ran.text
    scrape = Scrape(ran.out)
    assert scrape.one("keyturn_secret_draining_keys", secret=CHAT) == 1
    assert scrape.one("keyturn_secret_phase", secret=CHAT, phase="draining") == 1
    assert scrape.one("keyturn_secret_phase", secret=HOOK, phase="not applied") == 1
    assert scrape.one("keyturn_secret_unproven_keys", secret=CHAT) == 0
    assert scrape.one("keyturn_secret_age_seconds", secret=HOOK) is None
    due = scrape.one("keyturn_secret_due_timestamp_seconds", secret=CHAT) or 0
    assert due == pytest.approx((project.services.time.now() + timedelta(days=30)).timestamp(), abs=6 * 3600)
    labels = {"environment": "sandbox", "owner": "support-platform", "issuer": "openai", "store": "vault"}
    assert scrape.one("keyturn_secret_age_seconds", secret=CHAT, **labels) is not None
    plain = project.run("metrics", "--format", "prometheus")
    assert {family.name for family in plain_families(plain.out)} == {g.name for g in GAUGES} - SELDOM
    as_json = project.run("metrics", "--format", "json")
    assert project.run("metrics", "--json").json.keys() == as_json.json.keys()
    assert {m["name"] for m in as_json.json["metrics"]} == {g.name for g in GAUGES} - SELDOM
    assert project.everything() == before
    assert not [value for value in values if value in ran.text + plain.text + as_json.text]


def test_an_emergency_that_is_not_over_shows(project: Project) -> None:
    """Condemned and not replaced: unproven keys, and the phase."""
    project.apply(CHAT)
    project.services.openai.control.fault(
        "POST", "/v1/organization/projects/*/service_accounts", times=10_000, status=503
    )
    assert project.run("emergency", CHAT, "--yes", "--contain-after", "2h").code == 3
    scrape = Scrape(project.run("metrics").out)
    assert scrape.one("keyturn_secret_unproven_keys", secret=CHAT) == 1
    assert scrape.one("keyturn_secret_phase", secret=CHAT, phase="condemned") == 1


def test_a_store_that_is_away_is_exit_code_1_and_the_rest_is_printed(project: Project) -> None:
    """So that whoever writes a file of it does not replace what was known by half of it unknowingly."""
    project.apply()
    project.change("stores.vault.address", "https://127.0.0.1:9")
    ran = project.run("metrics")
    assert ran.code == 1
    assert "vault: " in ran.err
    scrape = Scrape(ran.out)
    assert scrape.one("keyturn_store_reached", store="vault") == 0
    assert scrape.one("keyturn_secret_phase", secret=CHAT, phase="unreachable") == 1


# --- alerts ----------------------------------------------------------------------------------------


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_asks_for_metrics_that_there_are(alert: dict[str, Any]) -> None:
    """Parsed as PromQL; by names and labels of the table, and its words use labels that its answer has."""
    promql_parser.parse(alert["expr"])
    known = {i.name: i for i in INSTRUMENTS}
    asked = re.findall(r"keyturn_\w+", alert["expr"])
    assert asked
    labels = set.intersection(*({*known[name].labels} for name in asked))
    for matched in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", alert["expr"]):
        assert matched in labels, matched
    grouped = re.findall(r"by \((\w+)\)", alert["expr"])
    shown = set(grouped) if grouped else labels
    words = " ".join(alert["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", words)) <= shown
    assert alert["labels"]["severity"] in ("warning", "critical")


def test_values_in_alerts_exist() -> None:
    """A phase or an outcome that is misspelt would never fire."""
    told = RULES.read_text()
    for phase in re.findall(r'phase="([^"]+)"', told):
        assert phase in {one.value for one in Phase}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus' promtool is not on this machine")
def test_alerts_fire_when_they_should() -> None:
    """By Prometheus' own engine, over the series in keyturn.test.yaml: a day on which nothing is wrong, and one on which all is."""
    done = subprocess.run(
        ["promtool", "test", "rules", str(RULES.with_name("keyturn.test.yaml"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    DOCUMENT.write_text(written())
