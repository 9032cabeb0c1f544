"""Which watcher the environment asks for. OpenTelemetry's packages are imported only where an exporter is configured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from rotation.observe.instruments import Measure
from rotation.telemetry import NONE, Telemetry

_log = logging.getLogger(__name__)

_EVERYTHING: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"


def watcher(env: Mapping[str, str], read: Callable[[], Iterable[Measure]] | None = None) -> Telemetry:
    """OpenTelemetry where one of its endpoints is set, otherwise nobody.

    What is wrong with it is logged, and no reason not to rotate.

    Parameters:
        env: as in os.environ.
        read: gives the gauges' readings, where the host keeps any.
    """
    traces, metrics = _exports(env, "TRACES"), _exports(env, "METRICS")
    if not (traces or metrics):
        return NONE
    try:
        from rotation.observe.opentelemetry import OpenTelemetry  # noqa: PLC0415 - an extra, and slow to load
    except ImportError:
        _log.warning("an OTLP endpoint is set, but OpenTelemetry is not installed; install keyturn[otel]")
        return NONE
    return OpenTelemetry(env, traces=traces, metrics=metrics, read=read)


def _exports(env: Mapping[str, str], signal: str) -> bool:
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if env.get(f"OTEL_{signal}_EXPORTER", "otlp") != "otlp":
        return False
    return bool(env.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or env.get(_EVERYTHING))
