"""How Secrets Manager lists: filters, orders, and pages that deletions between them do not upset."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, TypeVar

from moto.secretsmanager.list_secrets.filters import split_words

from sandbox.aws.wire import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.aws.records import Entry

Item = TypeVar("Item")


def matches(entry: Entry, filters: list[dict[str, Any]]) -> bool:
    return all(_applies(entry, item["Key"], item["Values"]) for item in filters)


def _applies(entry: Entry, key: str, values: list[str]) -> bool:
    """Whether one of the values applies; a value that starts with "!" applies when none of the attributes match it."""
    attributes = list(_attributes(entry, key))
    return any(
        not any(_found(key, value[1:], text) for text in attributes)
        if value.startswith("!")
        else any(_found(key, value, text) for text in attributes)
        for value in values
    )


def _attributes(entry: Entry, key: str) -> Iterator[str]:
    secret = entry.primary
    if key in {"name", "all"}:
        yield secret.name
    if key in {"description", "all"} and secret.description:
        yield secret.description
    if key in {"tag-key", "all"}:
        yield from secret.tags
    if key in {"tag-value", "all"}:
        yield from secret.tags.values()
    if key == "primary-region" and secret.replicas:
        yield secret.region


def _found(key: str, value: str, text: str) -> bool:
    # Documented (Filter): prefixes, case-sensitive save for descriptions; "all" looks for the words of the value.
    if key == "all":
        words = [word.lower() for word in split_words(text)]
        return any(word.startswith(wanted.lower()) for wanted in split_words(value) for word in words)
    if key == "description":
        return text.lower().startswith(value.lower())
    return text.startswith(value)


def by_creation(entry: Entry) -> tuple[Any, str]:
    return entry.primary.created, entry.name


ORDERS: dict[str, Callable[[Entry], tuple[Any, str]]] = {
    "created-date": by_creation,
    "last-changed-date": lambda entry: (entry.primary.changed, entry.name),
    "last-accessed-date": lambda entry: (entry.primary.accessed or 0.0, entry.name),
    "name": lambda entry: (entry.name, entry.name),
}


def page(
    items: list[Item],
    size: int,
    token: str | None,
    order: Callable[[Item], tuple[Any, str]],
    *,
    descending: bool = False,
) -> tuple[list[Item], str | None]:
    """One page, and the token of the next: where this page ended, so that deletions between pages skip nothing."""
    ordered = sorted(items, key=order, reverse=descending)
    if token is not None:
        after = _read_token(token)
        ordered = [item for item in ordered if (order(item) < after if descending else order(item) > after)]
    page = ordered[:size]
    more = len(ordered) > size
    return page, base64.urlsafe_b64encode(json.dumps(order(page[-1])).encode()).decode() if more else None


def _read_token(token: str) -> tuple[Any, str]:
    try:
        key, name = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        raise ServiceError("InvalidNextTokenException", "The NextToken value is invalid.") from None
    return key, name
