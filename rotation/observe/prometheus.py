"""Prometheus and OpenMetrics: counters and histograms of what this process does, gauges from a board, and their text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from rotation.observe.board import GAUGES
from rotation.observe.instruments import TOLD, Measure, measures
from rotation.telemetry import Call, Run, Sweep

Format = Literal["openmetrics", "prometheus"]
CONTENT_TYPES: Final[dict[Format, str]] = {
    "openmetrics": CONTENT_TYPE_LATEST,
    "prometheus": CONTENT_TYPE_PLAIN_0_0_4,
}


class Gauges(Collector):
    """Reads the gauges afresh at every scrape.

    Parameters:
        read: gives their readings.
    """

    def __init__(self, read: Callable[[], Iterable[Measure]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Their names, for the registry's check against doubles; no reading."""
        return [GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels) for gauge in GAUGES]

    def collect(self) -> Iterator[Metric]:
        families = {g: GaugeMetricFamily(g.name, g.help, labels=g.labels) for g in GAUGES}
        for gauge, labels, value in self._read():
            families[gauge].add_metric([labels[name] for name in gauge.labels], value)
        yield from (family for family in families.values() if family.samples)


class Prometheus:
    """Watches, and has it scraped.

    Parameters:
        read: gives the gauges' readings at every scrape.
    """

    def __init__(self, read: Callable[[], Iterable[Measure]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(Gauges(read))
        self._told: dict[str, Counter | Histogram] = {
            i.name: Histogram(i.name, i.help, i.labels, buckets=i.buckets, registry=self._registry)
            if i.kind == "histogram"
            else Counter(i.name, i.help, i.labels, registry=self._registry)
            for i in TOLD
        }

    @contextmanager
    def watch(self, what: Call | Run | Sweep) -> Iterator[None]:
        yield
        for instrument, labels, value in measures(what):
            match self._told[instrument.name].labels(**labels):
                case Counter() as counter:
                    counter.inc(value)
                case Histogram() as histogram:
                    histogram.observe(value)

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """The text in the format that the Accept header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


def text(readings: Iterable[Measure], form: Format) -> str:
    """One scrape of gauges alone."""
    registry = CollectorRegistry()
    found = list(readings)
    registry.register(Gauges(lambda: found))
    encode = generate_openmetrics if form == "openmetrics" else generate_latest
    return encode(registry).decode()
