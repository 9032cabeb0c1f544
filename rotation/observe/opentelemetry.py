"""OpenTelemetry: a span for each run of a secret with a child for each call, and the same metrics as for Prometheus.

The SDK reads its standard variables by itself, OTEL_EXPORTER_OTLP_ENDPOINT, _HEADERS, OTEL_SERVICE_NAME and their like:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/

Importing this module needs the packages of the extra `keyturn[otel]`; rotation.observe.environment imports it only
where an exporter is configured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from rotation.observe.board import GAUGES
from rotation.observe.instruments import TOLD, Instrument, Measure, labels_of, measures
from rotation.telemetry import EFFECTS, Call, Run, Sweep

SCOPE: Final = "keyturn"


class OpenTelemetry:
    """Watches, and exports over OTLP/HTTP.

    Parameters:
        env: for the name of the service alone; all else the SDK reads from the process' own environment.
        traces, metrics: which of the two to export.
        read: gives the gauges' readings; nothing where no host keeps any.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        *,
        traces: bool = True,
        metrics: bool = True,
        read: Callable[[], Iterable[Measure]] | None = None,
    ) -> None:
        named = "service.name" in env.get("OTEL_RESOURCE_ATTRIBUTES", "") or "OTEL_SERVICE_NAME" in env
        about = {SERVICE_VERSION: version("keyturn")} | ({} if named else {SERVICE_NAME: "keyturn"})
        resource = Resource.create(about)
        self._traces = TracerProvider(resource=resource) if traces else None
        self._tracer: Tracer | None = None
        if self._traces is not None:
            self._traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
            self._tracer = self._traces.get_tracer(SCOPE)
        self._told: dict[str, Counter | Histogram] = {}
        self._meters: MeterProvider | None = None
        if metrics:
            self._meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource)
            self._measure(self._meters, read)

    def _measure(self, meters: MeterProvider, read: Callable[[], Iterable[Measure]] | None) -> None:
        meter = meters.get_meter(SCOPE)
        for i in TOLD:
            if i.kind == "histogram":
                self._told[i.name] = meter.create_histogram(
                    i.dotted, i.unit, i.help, explicit_bucket_boundaries_advisory=list(i.buckets)
                )
            else:
                self._told[i.name] = meter.create_counter(i.dotted, i.unit, i.help)
        if read is not None:
            for i in GAUGES:
                meter.create_observable_gauge(i.dotted, [_reader(i, read)], i.unit, i.help)

    @contextmanager
    def watch(self, what: Call | Run | Sweep) -> Iterator[None]:
        match what:
            case _ if self._tracer is None:
                yield
            case Call():
                # Not made current: nothing is its child, and a listing stays open while other calls are made.
                span = self._tracer.start_span(f"{what.service}.{what.operation}", kind=SpanKind.CLIENT)
                try:
                    yield
                finally:
                    _end_call(span, what)
                    span.end()
            case Run():
                with self._tracer.start_as_current_span(f"keyturn.{what.kind}") as span:
                    yield
                    _end_run(span, what)
            case Sweep():
                with self._tracer.start_as_current_span("keyturn.look_round") as span:
                    yield
                    span.set_attributes({"keyturn.environment": what.environment, "keyturn.result": what.result})
        for instrument, labels, value in measures(what) if self._meters else ():
            match self._told[instrument.name]:
                case Counter() as counter:
                    counter.add(value, dict(labels))
                case Histogram() as histogram:
                    histogram.record(value, dict(labels))

    def close(self) -> None:
        """Exports what is left, and ends."""
        if self._traces is not None:
            self._traces.shutdown()
        if self._meters is not None:
            self._meters.shutdown()


def _reader(
    gauge: Instrument, read: Callable[[], Iterable[Measure]]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, dict(labels)) for i, labels, value in read() if i is gauge]

    return observe


def _end_call(span: Span, call: Call) -> None:
    span.set_attributes(
        {
            "keyturn.service": call.service,
            "keyturn.operation": call.operation,
            "keyturn.outcome": call.outcome,
            **({"keyturn.request_id": call.request_id} if call.request_id else {}),
        }
    )
    if call.outcome != "ok":
        span.set_status(Status(StatusCode.ERROR, call.outcome))


def _end_run(span: Span, run: Run) -> None:
    span.set_attributes({f"keyturn.{name}": text for name, text in labels_of(run.policy).items()})
    span.set_attributes({"keyturn.kind": run.kind, "keyturn.result": run.result})
    if run.code:
        span.set_attribute("keyturn.code", run.code)
    if run.result in ("failed", "fault"):
        span.set_status(Status(StatusCode.ERROR, run.code or run.result))
    for record in run.records:
        if record.event in EFFECTS:
            about = {"keyturn.key_id": record.key_id, "keyturn.store": record.store}
            span.add_event(EFFECTS[record.event], {name: text for name, text in about.items() if text})
