"""The completions usage report: counted calls, put into time buckets and groups."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from sandbox.openai.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.openai.state import Usage
    from sandbox.openai.wire import Json

WIDTHS = {"1m": 60, "1h": 3_600, "1d": 86_400}
"""Bucket widths in seconds."""
LIMITS = {"1m": (60, 1_440), "1h": (24, 168), "1d": (7, 31)}
"""Buckets in a page: default and most."""
GROUPS = ("project_id", "user_id", "api_key_id", "model", "batch", "service_tier")


def report(
    calls: Sequence[Usage], *, start: int, end: int, width: str, limit: int, group_by: Sequence[str], page: str | None
) -> Json:
    """One page of buckets over [start, end), oldest first, empty ones included; buckets begin at whole widths in UTC."""
    seconds = WIDTHS[width]
    first = _opened(page) if page is not None else start // seconds * seconds
    starts = list(range(first, end, seconds))[: limit + 1]
    more = starts[limit:]
    return {
        "object": "page",
        "data": [
            {
                "object": "bucket",
                "start_time": begin,
                "end_time": begin + seconds,
                "results": _results([call for call in calls if begin <= call.at < begin + seconds], group_by),
            }
            for begin in starts[:limit]
        ],
        "has_more": bool(more),
        "next_page": _cursor(more[0]) if more else None,
    }


def _results(calls: Sequence[Usage], group_by: Sequence[str]) -> list[Json]:
    groups: dict[tuple[object, ...], list[Usage]] = {}
    for call in calls:
        groups.setdefault(tuple(_labels(call)[name] for name in group_by), []).append(call)
    return [
        {
            "object": "organization.usage.completions.result",
            "input_tokens": sum(call.input_tokens for call in group),
            "output_tokens": sum(call.output_tokens for call in group),
            "num_model_requests": sum(call.requests for call in group),
            **dict.fromkeys(GROUPS),
            **dict(zip(group_by, labels, strict=True)),
        }
        for labels, group in groups.items()
    ]


def _labels(call: Usage) -> Json:
    return {
        "project_id": call.project_id,
        "user_id": None,
        "api_key_id": call.api_key_id,
        "model": call.model,
        "batch": False,
        "service_tier": "default",
    }


def _cursor(begin: int) -> str:
    return "page_" + base64.urlsafe_b64encode(str(begin).encode()).decode()


def _opened(page: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(page.removeprefix("page_")))
    except (binascii.Error, ValueError):
        raise ApiError(400, f"Invalid cursor: {page}", param="page", code="invalid_value") from None
