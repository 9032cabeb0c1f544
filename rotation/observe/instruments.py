"""Every metric: its name, what it counts, its labels. One table for Prometheus, OpenTelemetry and the documentation.

Names follow Prometheus' conventions: base units, a suffix for the unit, `_total` on counters.
https://prometheus.io/docs/practices/naming/

No label ever holds a value, or a key id: ids are many, and each would begin a series of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from rotation.model import Policy
from rotation.telemetry import LEFT_ALONE, Call, Run, Sweep

SECRET: Final = ("environment", "secret", "owner", "issuer", "store")
"""Labels of what is told of one secret. The store is its primary one."""
PLACE: Final = ("environment", "issuer", "store")
"""Labels of histograms, which have many series each."""

QUICK: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bounds of buckets in seconds, for one call."""
MINUTES: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""For what is done while one waits."""
DAYS: Final = (60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 2 * 86400.0, 4 * 86400.0, 7 * 86400.0, 14 * 86400.0)
"""For what lasts as long as consumers take."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()
    """Upper bounds in the unit of the metric."""

    @property
    def unit(self) -> str:
        return "s" if "seconds" in self.name else "1"

    @property
    def dotted(self) -> str:
        """The name as OpenTelemetry has it: no unit, no `_total`."""
        return self.name.removesuffix("_total").removesuffix("_seconds").replace("_", ".")


Measure = tuple[Instrument, Mapping[str, str], float]
"""What an instrument is told: its labels, and how many or how much."""

CALLS = Instrument(
    "keyturn_calls_total",
    "counter",
    "Requests to stores and issuers, each repetition included.",
    ("service", "operation", "outcome"),
)
CALL_DURATION = Instrument(
    "keyturn_call_duration_seconds",
    "histogram",
    "How long a request took that was sent.",
    ("service", "operation"),
    QUICK,
)
RUNS = Instrument("keyturn_runs_total", "counter", "Runs of a secret, by how they ended.", (*SECRET, "kind", "result"))
RUN_DURATION = Instrument(
    "keyturn_run_duration_seconds", "histogram", "How long one run of a secret took.", ("environment", "kind"), MINUTES
)
EFFECTS = Instrument(
    "keyturn_effects_total",
    "counter",
    "What was done to credentials: minted, promoted, condemned, revoked, proven, discarded.",
    (*SECRET, "effect"),
)
FAILURES = Instrument(
    "keyturn_failures_total",
    "counter",
    "Failures of a run, by what was tried (`look`: before anything was) and the code of the error.",
    (*SECRET, "action", "code"),
)
ROTATION = Instrument(
    "keyturn_rotation_duration_seconds",
    "histogram",
    "From the intent to make a new credential until every store hands it out.",
    PLACE,
    MINUTES,
)
RETIREMENT = Instrument(
    "keyturn_retirement_duration_seconds",
    "histogram",
    "From the moment that no store hands out a credential any more until it is shown dead; grace period included.",
    PLACE,
    DAYS,
)
EMERGENCY = Instrument(
    "keyturn_emergency_duration_seconds",
    "histogram",
    "From the condemnation of a leaked credential until it is shown dead.",
    PLACE,
    MINUTES,
)
PROOF = Instrument(
    "keyturn_proof_duration_seconds",
    "histogram",
    "From a revocation until the issuer was seen to refuse the credential.",
    PLACE,
    MINUTES,
)
SWEEPS = Instrument("keyturn_sweeps_total", "counter", "Sweeps, by how they ended.", ("environment", "result"))
SWEEP_DURATION = Instrument(
    "keyturn_sweep_duration_seconds", "histogram", "How long a sweep took.", ("environment",), MINUTES
)

TOLD: Final = (
    CALLS,
    CALL_DURATION,
    RUNS,
    RUN_DURATION,
    EFFECTS,
    FAILURES,
    ROTATION,
    RETIREMENT,
    EMERGENCY,
    PROOF,
    SWEEPS,
    SWEEP_DURATION,
)
"""What a process tells of what it did."""

_DURATIONS: Final = {"rotation": ROTATION, "retirement": RETIREMENT, "emergency": EMERGENCY, "proof": PROOF}


def labels_of(policy: Policy) -> dict[str, str]:
    """The labels SECRET of one secret."""
    return {
        "environment": policy.environment,
        "secret": policy.name,
        "owner": policy.owner,
        "issuer": policy.issuer,
        "store": policy.store,
    }


def measures(what: Call | Run | Sweep) -> Iterator[Measure]:
    """What one thing that happened adds to counters and histograms."""
    match what:
        case Call():
            service = {"service": what.service, "operation": what.operation}
            yield CALLS, {**service, "outcome": what.outcome}, 1
            if what.outcome != LEFT_ALONE:
                yield CALL_DURATION, service, what.seconds
        case Run():
            yield from _of_run(what)
        case Sweep():
            yield SWEEPS, {"environment": what.environment, "result": what.result}, 1
            yield SWEEP_DURATION, {"environment": what.environment}, what.seconds


def _of_run(run: Run) -> Iterator[Measure]:
    secret = labels_of(run.policy)
    place = {name: secret[name] for name in PLACE}
    yield RUNS, {**secret, "kind": run.kind, "result": run.result}, 1
    yield RUN_DURATION, {"environment": run.policy.environment, "kind": run.kind}, run.seconds
    for effect in run.effects():
        yield EFFECTS, {**secret, "effect": effect}, 1
    failures = run.failures()
    if not failures and run.code is not None:
        failures = [("look", run.code)]
    for action, code in failures:
        yield FAILURES, {**secret, "action": action, "code": code}, 1
    for name, seconds in run.durations():
        yield _DURATIONS[name], place, seconds
