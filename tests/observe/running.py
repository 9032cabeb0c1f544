"""`keyturn run` as a process, an OTLP collector, and scrapes: what the tests of observability look through."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import requests
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.cli.project import Project

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_PATIENCE = 30.0


def until(is_so: Callable[[], Any], what: str) -> Any:
    """Asks until the answer is true, and gives it. A poll of what another process does, not a wait for time to pass."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if found := is_so():
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come to be within {_PATIENCE:.0f} s")


@dataclass
class Scrape:
    """A scrape, parsed by Prometheus' own parser."""

    text: str
    samples: dict[str, list[tuple[dict[str, str], float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for family in text_string_to_metric_families(self.text):  # type: ignore[no-untyped-call]
            for sample in family.samples:
                self.samples.setdefault(sample.name, []).append((sample.labels, sample.value))

    def one(self, name: str, **labels: str) -> float | None:
        """The sum of all series with these labels; None when there is none."""
        found = [
            value for has, value in self.samples.get(name, []) if all(has.get(k) == text for k, text in labels.items())
        ]
        return sum(found) if found else None


class Running:
    """`keyturn run` on a free port, as long as the `with` block lasts; killed when it has not ended by then."""

    def __init__(self, project: Project, *arguments: str, **env: str) -> None:
        self.project, self._arguments, self._env = project, arguments, env
        self._log = project.root / "run.log"

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self.process = self.project.start(
                "run",
                "--listen",
                "127.0.0.1:0",
                *self._arguments,
                env={"PYTHONFAULTHANDLER": "1", **self._env},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if self.process.poll() is None:
            # Where a test has failed the process says in its log where it was.
            self.process.send_signal(signal.SIGABRT if failed else signal.SIGKILL)
        self.process.wait()
        if failed:
            print(self.log, file=sys.stderr)

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def url(self) -> str:
        found = until(lambda: re.search(r"listening on (http://[\d.:]+);", self.log), f"an address in {self.log}")
        return str(found[1])

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, headers=headers, timeout=10)

    def scrape(self) -> Scrape:
        answer = self.get("/metrics", Accept=OPENMETRICS)
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        return Scrape(answer.text)

    def ready(self) -> None:
        until(lambda: self.get("/readyz").status_code == 200, "readiness")


@dataclass
class Collector:
    """What an OTLP collector was sent."""

    endpoint: str
    traces: list[ExportTraceServiceRequest] = field(default_factory=list)
    metrics: list[ExportMetricsServiceRequest] = field(default_factory=list)

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def points(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """By metric: the labels and numbers of the last export; of histograms, how often."""
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for resource in self.metrics[-1].resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    points = getattr(metric, kind).data_points
                    found[metric.name] = [(labels(p.attributes), _number(p, kind)) for p in points]
        return found


def _number(point: Any, kind: str) -> float:
    return float(point.count if kind == "histogram" else point.as_double or point.as_int)


def labels(attributes: Any) -> dict[str, str]:
    return {one.key: one.value.string_value for one in attributes}


@contextlib.contextmanager
def collector() -> Iterator[Collector]:
    """A server that takes OTLP over HTTP and keeps it."""
    kept: dict[str, tuple[type[Any], str]] = {
        "/v1/traces": (ExportTraceServiceRequest, "traces"),
        "/v1/metrics": (ExportMetricsServiceRequest, "metrics"),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kind, where = kept[self.path]
            getattr(found, where).append(kind.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        found = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def otel(collector: Collector) -> Mapping[str, str]:
    """What makes a process export to it, often enough for a test."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
