"""Counts of requests: read as the vendor gives them, asked for once for all keys, and what a drain goes by without last uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from providers.issuers.description import Description
from providers.issuers.http import HttpIssuer
from providers.issuers.reading import shipped
from providers.issuers.samples import shipped_samples
from rotation.actions import Hold, Wait
from rotation.errors import Code, Trouble
from rotation.model import SecretValue
from sandbox.vendor import Vendor
from tests.issuers.scripted import Asked, Reply, Scripted
from tests.issuers.test_described_life import DescribedWorld
from tests.world import FakeClock

HOUR = timedelta(hours=1)
AT = datetime(2026, 1, 1, 10, 20, tzinfo=UTC)


def unix(hour: int) -> int:
    return int(datetime(2026, 1, 1, hour, tzinfo=UTC).timestamp())


def bucket(hour: int, *rows: dict[str, Any]) -> dict[str, Any]:
    return {"object": "bucket", "start_time": unix(hour), "end_time": unix(hour + 1), "results": [*rows]}


def row(key: str | None, number: object) -> dict[str, Any]:
    return {"api_key_id": key, "num_model_requests": number}


def page(*buckets: dict[str, Any], then: str | None = None) -> Reply:
    return (200, {"object": "page", "data": [*buckets], "has_more": then is not None, "next_page": then})


@contextmanager
def openai(*usage: Reply) -> Iterator[tuple[HttpIssuer, list[Asked]]]:
    """OpenAI that answers so to questions of usage, and has no keys."""
    left, asked = [*usage], list[Asked]()
    none = (200, {"object": "list", "data": [], "has_more": False, "last_id": None})

    def answer(request: Asked) -> Reply:
        asked.append(request)
        return left.pop(0) if request.path.endswith("/usage/completions") else none

    with Scripted(answer) as vendor:
        given = {"project": "proj_1", "baseUrl": vendor.url}
        with HttpIssuer("openai", shipped("openai"), given, lambda: SecretValue("sk-admin-xyz"), FakeClock()) as issuer:
            yield issuer, asked


class TestReading:
    def test_counts_by_key(self) -> None:
        """Rows of a key and span are added up; other keys, and requests with no key, are nobody's; no gaps."""
        first = page(bucket(7, row("key_a", 2), row(None, 90), row("key_a", 3)), bucket(8), then="p2")
        with openai(first, page(bucket(10, row("key_b", 1), row("key_c", 8)))) as (issuer, asked):
            told = issuer.usage(["key_a", "svc_acct_1/key_b"], AT - 3 * HOUR, AT)
        assert [(s.start.hour, s.count) for s in told["key_a"].counts or ()] == [(7, 5), (8, 0), (9, 0), (10, 0)]
        assert [s.count for s in told["svc_acct_1/key_b"].counts or ()] == [0, 0, 0, 1]
        last = told["key_a"].last
        assert (last.known, last.at, last.granularity) == (True, datetime(2026, 1, 1, 7, tzinfo=UTC), 2 * HOUR)
        counts = [request.query for request in asked if request.path.endswith("/usage/completions")]
        assert len(asked) == 3, "two pages of counts and one of the list, however many keys"
        assert counts[0]["start_time"] == str(unix(7))
        assert counts[0]["end_time"] == str(int(AT.timestamp()) + 1)
        assert (counts[0]["group_by"], counts[0]["project_ids"]) == ("api_key_id", "proj_1")
        assert counts[1]["page"] == "p2"

    def test_no_requests_are_not_no_use(self) -> None:
        """They may have been of another kind, or of a time before: what is not counted is unknown."""
        with openai(page(bucket(10))) as (issuer, _):
            assert not issuer.usage(["key_a"], AT - HOUR, AT)["key_a"].last.known

    @pytest.mark.parametrize(
        "broken",
        [
            (200, {"object": "page"}),
            page(bucket(10, row("key_a", None))),
            page(bucket(10, row("key_a", "many"))),
            page(bucket(10, row("key_a", -1))),
            page({"object": "bucket", "results": []}),
            page({"object": "bucket", "start_time": unix(10)}),
            (200, {"object": "page", "data": [], "has_more": True, "next_page": None}),
            (200, {"object": "page", "data": []}),
        ],
    )
    def test_what_can_not_be_read_is_no_count(self, broken: Reply) -> None:
        """An error, rather than a key that looks idle."""
        with openai(broken) as (issuer, _), pytest.raises(Trouble) as raised:
            issuer.usage(["key_a"], AT - HOUR, AT)
        assert raised.value.code is Code.UNAVAILABLE

    def test_who_may_not_ask(self) -> None:
        """Is told so."""
        with openai((403, {"error": {"code": "missing_scope"}})) as (issuer, _), pytest.raises(Trouble) as raised:
            issuer.usage(["key_a"], AT - HOUR, AT)
        assert raised.value.code is Code.DENIED

    def test_nobody_is_asked_about_nothing(self) -> None:
        """Without keys there is no request."""
        with openai() as (issuer, asked):
            assert issuer.usage([], AT - HOUR, AT) == {}
        assert not asked


def counting_only() -> Description:
    """OpenAI, if it told no last use."""
    return shipped("openai").model_copy(update={"last_use": None})


@contextmanager
def rotated() -> Iterator[tuple[DescribedWorld, str]]:
    """A secret that was rotated just now, and its old value."""
    made = DescribedWorld()
    with Vendor(counting_only(), shipped_samples("openai"), now=made.clock.now) as vendor:
        made.at(vendor, lambda: SecretValue(vendor.admin))
        made.run()
        old = made.current()
        made.clock.move(timedelta(days=30))
        made.run()
        assert made.current() != old
        yield made, old
        if made.issuer:
            made.issuer.close()


class TestDraining:
    def test_a_drain_goes_by_the_newest_span_with_requests(self) -> None:
        """The key may have been used until its end, and the count be late: only then the quiet period begins."""
        with rotated() as (w, old):
            w.clock.move(w.policy.grace + timedelta(minutes=3))
            used_at = w.clock.now()
            assert w.asked.accepts({"value": old})
            span = used_at.replace(minute=0, second=0, microsecond=0)
            quiet_at = span + HOUR + HOUR + w.policy.drain.quiet_for
            outcome = w.run()
            assert isinstance(outcome.rest, Wait)
            assert outcome.rest.until == quiet_at
            assert quiet_at >= used_at + w.policy.drain.quiet_for
            w.clock.move(quiet_at - w.clock.now() - timedelta(minutes=1))
            w.run()
            assert w.asked.accepts({"value": old}, use=False)
            w.clock.move(timedelta(minutes=2))
            w.run()
            assert not w.asked.accepts({"value": old}, use=False)

    def test_a_key_without_requests_is_not_known_to_be_idle(self) -> None:
        """It is held, and a person is told: what counts as a request is not everything that a key is good for."""
        with rotated() as (w, old):
            w.clock.move(w.policy.drain.at_most - timedelta(minutes=1))
            outcome = w.run()
            assert isinstance(outcome.rest, Wait)
            assert "no known last use" in outcome.rest.reason
            w.clock.move(timedelta(minutes=2))
            assert isinstance(w.run().rest, Hold)
            assert w.asked.accepts({"value": old}, use=False)
