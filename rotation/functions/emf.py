"""Measures as CloudWatch's embedded metric format: lines of a function's log that CloudWatch makes metrics of.

Written by hand: it is JSON with one extra member, and a library would be loaded at every cold start. Facts from
"Specification: Embedded metric format" of the CloudWatch user guide: at most 30 dimensions, 100 metrics and 100 values
of one metric to a line.

Names, labels and units are those of `rotation.observe`: one table for every backend. A dimension holds names from the
configuration, codes and kinds; never a value, never a key id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from rotation.observe.instruments import Instrument, Measure

NAMESPACE: Final = "Keyturn"
_MOST_METRICS: Final = 100
_MOST_VALUES: Final = 100


def lines(measures: Iterable[Measure], at: datetime) -> Iterator[str]:
    """One line for each set of labels, with every metric of it: counters added up, gauges as last seen, the rest listed.

    Parameters:
        at: the time of all of them.
    """
    grouped: dict[tuple[tuple[str, str], ...], dict[Instrument, list[float]]] = {}
    for instrument, labels, value in measures:
        values = grouped.setdefault(tuple(sorted(labels.items())), {}).setdefault(instrument, [])
        if instrument.kind == "counter" and values:
            values[0] += value
        elif instrument.kind == "gauge" and values:
            values[0] = value
        else:
            values.append(value)
    for pairs, metrics in sorted(grouped.items(), key=lambda item: item[0]):
        for part in _parts(metrics):
            yield _line(dict(pairs), part, at)


def _parts(metrics: Mapping[Instrument, list[float]]) -> Iterator[dict[Instrument, list[float]]]:
    """The metrics in portions that one line holds."""
    part: dict[Instrument, list[float]] = {}
    for instrument, values in metrics.items():
        for start in range(0, len(values), _MOST_VALUES):
            if instrument in part or len(part) == _MOST_METRICS:
                yield part
                part = {}
            part[instrument] = values[start : start + _MOST_VALUES]
    if part:
        yield part


def _line(labels: Mapping[str, str], metrics: Mapping[Instrument, list[float]], at: datetime) -> str:
    about = {
        "Namespace": NAMESPACE,
        "Dimensions": [list(labels)],
        "Metrics": [{"Name": metric.name, "Unit": "Seconds" if metric.unit == "s" else "Count"} for metric in metrics],
    }
    whole: dict[str, Any] = {
        "_aws": {"Timestamp": round(at.timestamp() * 1000), "CloudWatchMetrics": [about]},
        **labels,
        **{metric.name: values[0] if len(values) == 1 else values for metric, values in metrics.items()},
    }
    return json.dumps(whole, separators=(",", ":"))
