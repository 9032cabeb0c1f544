"""A vendor's description that was checked when a function's package was built: the same parts, without the checker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

from providers.issuers.language import NO_HEADERS, Expression, Statuses, Template, auth_templates, judges, read_time
from rotation.errors import Code
from rotation.model import Verdict
from rotation.packed import Kinds, Record, decode

if TYPE_CHECKING:
    from providers.issuers.description import Description


class _Time(Record):
    def read(self, body: Any) -> datetime | None:
        return read_time(self.path.find(body), self.format)


class _Auth(Record):
    def templates(self) -> Iterator[tuple[str, Template]]:
        return auth_templates(self)


class _Judged(Record):
    def matches(self, status: int, body: Any, headers: Mapping[str, str] = NO_HEADERS) -> bool:
        return judges(self, status, body, headers)


class _Whole(Record):
    def faults_in(self, _variables: Mapping[str, object]) -> list[Any]:
        """None: the variables were checked together with the description."""
        return []


_KINDS: Final[Kinds] = {
    "Template": lambda parts: Template.parse(parts["text"]),
    "Expression": lambda parts: Expression.parse(parts["text"]),
    "Statuses": lambda parts: Statuses(parts["members"]),
    "Code": lambda parts: Code(parts["value"]),
    "Verdict": lambda parts: Verdict(parts["value"]),
    "Auth": lambda parts: _Auth(**parts),
    "Time": lambda parts: _Time(**parts),
    "Rule": lambda parts: _Judged(**parts),
    "Refusal": lambda parts: _Judged(**parts),
    "Description": lambda parts: _Whole(**parts),
}


def description(packed: Any) -> Description:
    """The description that `rotation.packed.encode` was given.

    Parameters:
        packed: parsed JSON.
    """
    return cast("Description", decode(packed, _KINDS))
