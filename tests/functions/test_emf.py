"""CloudWatch's embedded metric format: what is added up, what is listed, and what one line may hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from rotation.functions import emf
from rotation.observe.instruments import Instrument

AT = datetime(2026, 1, 1, tzinfo=UTC)
CALLS = Instrument("calls_total", "counter", "", ("service",))
SECONDS = Instrument("call_seconds", "histogram", "", ("service",))
AGE = Instrument("age_seconds", "gauge", "", ("service",))
A, B = {"service": "a"}, {"service": "b"}


def test_labels_that_are_the_same_share_a_line() -> None:
    """Counters are added up, of gauges the last counts, durations stand one beside the other."""
    told = [(CALLS, A, 1.0), (CALLS, A, 2.0), (SECONDS, A, 0.5), (SECONDS, A, 0.7), (AGE, A, 1.0), (AGE, A, 9.0)]
    first, second = (json.loads(line) for line in emf.lines([*told, (CALLS, B, 1.0)], AT))
    assert first["_aws"]["Timestamp"] == 1767225600000
    assert (first["service"], first["calls_total"], first["call_seconds"], first["age_seconds"]) == (
        "a", 3.0, [0.5, 0.7], 9.0,
    )  # fmt: skip
    about = first["_aws"]["CloudWatchMetrics"][0]
    assert about["Dimensions"] == [["service"]]
    assert {metric["Name"]: metric["Unit"] for metric in about["Metrics"]} == {
        "calls_total": "Count",
        "call_seconds": "Seconds",
        "age_seconds": "Seconds",
    }
    assert (second["service"], second["calls_total"]) == ("b", 1.0)


def test_no_line_holds_more_than_cloudwatch_reads() -> None:
    """At most 100 values of a metric and 100 metrics; the rest goes on in another line, nothing is lost."""
    many = [Instrument(f"m{number}", "counter", "", ()) for number in range(130)]
    told = [(SECONDS, A, float(number)) for number in range(250)] + [(metric, {}, 1.0) for metric in many]
    lines = [json.loads(line) for line in emf.lines(told, AT)]
    listed = [line["call_seconds"] for line in lines if "call_seconds" in line]
    assert [len(values) for values in listed] == [100, 100, 50]
    assert [value for values in listed for value in values] == [float(number) for number in range(250)]
    counts = [len(line["_aws"]["CloudWatchMetrics"][0]["Metrics"]) for line in lines if "service" not in line]
    assert sorted(counts) == [30, 100]
