"""Quotas are kept, refusals slow down, answers speed up again: over any sequence of calls, by a clock that tests move."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers import quotas
from rotation.errors import Code, Trouble
from rotation.pacing import AGAIN_AFTER, LEAST, Bucket, Pace, Paces, Quota
from rotation.resilience import Service
from rotation.sections import GeneratedConfig, SecretsManagerConfig, VaultConfig
from tests.world import FakeClock

rates = st.floats(0.5, 2_000)


@given(
    rate=rates,
    burst=st.floats(1, 500),
    calls=st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 4)), min_size=1, max_size=80),
)
@settings(max_examples=200, deadline=None)
def test_no_stretch_of_time_sees_more_than_the_quota(
    rate: float, burst: float, calls: list[tuple[float, float]]
) -> None:
    """Between any two calls goes out at most a burst and what is earned meanwhile; a call may be paid while it waits."""
    clock = FakeClock()
    pace = Pace([Bucket(Quota("q", rate, burst, {"w": 1.0}), clock)], clock)
    out: list[tuple[float, float]] = []
    for pause, _ in calls:
        clock.sleep(pause)
        pace.take("w")
        out.append((clock.monotonic(), 1.0))
    for first in range(len(out)):
        total = 0.0
        for at, cost in out[first:]:
            total += cost
            assert total <= burst + (at - out[first][0]) * rate + 1 + 1e-3 * rate


@given(rate=rates, refusals=st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_refusals_halve_and_answers_bring_back_no_more_than_the_quota(rate: float, refusals: int) -> None:
    """Multiplicative down to a floor, additive up to the quota and never above."""
    clock = FakeClock()
    bucket = Bucket(Quota("q", rate, 1.0), clock)
    for number in range(refusals):
        before = bucket.rate
        clock.sleep(AGAIN_AFTER + 0.1)
        bucket.refused()
        assert bucket.rate == pytest.approx(max(before / 2, rate * LEAST)), number
    rising = [bucket.rate]
    for _ in range(120):
        clock.sleep(0.5)
        bucket.answered()
        rising.append(bucket.rate)
    assert rising == sorted(rising)
    assert rising[-1] == pytest.approx(rate, rel=1e-6)
    assert max(rising) <= rate


def test_the_refusals_of_calls_that_were_under_way_count_once() -> None:
    """Thirty-two at a time would otherwise stop everything at the first sign."""
    clock = FakeClock()
    bucket = Bucket(Quota("q", 64.0, 1.0), clock)
    for _ in range(32):
        bucket.refused()
    assert bucket.rate == 32.0


def test_a_rest_earns_a_burst_and_no_more() -> None:
    clock = FakeClock()
    pace = Pace([Bucket(Quota("q", 10.0, 5.0), clock)], clock)
    clock.sleep(3_600)
    began = clock.monotonic()
    for _ in range(5):
        pace.take("any")
    assert clock.monotonic() == began
    pace.take("any")
    assert clock.monotonic() - began == pytest.approx(0.1)


def test_operations_draw_from_what_they_use_alone() -> None:
    """A full stop of writes does not hold up a look."""
    clock = FakeClock()
    paces = Paces(clock)
    pace = paces.of(
        "place", (Quota("writes", 1.0, 1.0, {"stage": 1.0}), Quota("reads", 100.0, 100.0, {"observe": 1.0}))
    )
    for _ in range(3):
        pace.take("stage")
    written = clock.monotonic()
    assert written == pytest.approx(2.0)
    pace.take("observe")
    pace.take("listing")
    assert clock.monotonic() == written


def test_stores_of_one_place_share_its_quota() -> None:
    """Two names of one vault are one vault."""
    clock = FakeClock()
    paces = Paces(clock)
    one, two, other = (paces.of(place, (Quota("q", 1.0, 1.0),)) for place in ("a", "a", "b"))
    one.take("x")
    other.take("x")
    assert clock.monotonic() == 0
    two.take("x")
    assert clock.monotonic() == pytest.approx(1.0)


def test_a_service_that_throttles_is_called_half_as_often() -> None:
    """THROTTLED is what both 429 and ThrottlingException come to; other failures change nothing."""
    clock = FakeClock()
    bucket = Bucket(Quota("q", 8.0, 1.0), clock)
    service = Service("vault", clock, lambda: 0.5, pace=Pace([bucket], clock))
    answers = iter([Trouble(Code.UNAVAILABLE, "vault", "away"), Trouble(Code.THROTTLED, "vault", "too many"), None])

    def work() -> str:
        if (trouble := next(answers)) is not None:
            raise trouble
        return "done"

    assert service.call("observe", work, repeatable=True) == "done"
    assert 4.0 <= bucket.rate < 4.5


def test_threads_together_keep_one_quota() -> None:
    """By reservations: each waits for its own turn, and no turn is given twice."""
    clock = FakeClock()
    bucket = Bucket(Quota("q", 10.0, 1.0), clock)
    waits: list[float] = []
    threads = [threading.Thread(target=lambda: waits.append(bucket.reserve(1.0))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == pytest.approx([number / 10 for number in range(20)])


def test_the_documented_quotas_of_key_vault_and_secrets_manager_are_kept() -> None:
    """A rotation's worth of writes, many times over, in ten seconds."""
    for place, limit, wanted in ((quotas.KEY_VAULT, 300, "stage"), (quotas.SECRETS_MANAGER, 500, "record")):
        clock = FakeClock()
        pace = Paces(clock).of("place", place)
        clock.sleep(60)
        began, count = clock.monotonic(), 0
        while clock.monotonic() < began + 10:
            pace.take(wanted)
            count += 1
        assert limit / 2 < count <= limit


def test_a_stack_file_may_take_less_of_a_service() -> None:
    """All its calls together, in a bucket that stores of one place share; who is never called needs none."""
    vault = VaultConfig.model_validate(
        {"kind": "hashicorp-vault", "address": "https://vault.example", "callsPerSecond": 2}
    )
    clock = FakeClock()
    paces = Paces(clock)
    one, two = paces.of(*quotas.of_store(vault)), paces.of(*quotas.of_store(vault))
    for pace, operation in ((one, "observe"), (two, "stage"), (one, "listing")):
        pace.take(operation)
    assert clock.monotonic() == pytest.approx(0.5)
    one.take("observe")
    assert clock.monotonic() == pytest.approx(1.0)
    aws = SecretsManagerConfig.model_validate(
        {"kind": "aws-secrets-manager", "region": "eu-west-1", "callsPerSecond": 0.5}
    )
    assert quotas.of_store(aws)[1][:-1] == quotas.SECRETS_MANAGER
    assert quotas.of_issuer("made", GeneratedConfig.model_validate({"kind": "generated"}))[1] == ()
