"""Many secrets side by side, while a person watches how far it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rotation import fleet
from rotation.cli import show
from rotation.cli.ending import left_at_once
from rotation.model import Policy

T = TypeVar("T")


def watched(doing: str, policies: Sequence[Policy], work: Callable[[Policy], T]) -> list[T]:
    """Works on every secret, a bar on standard error meanwhile; gives the results in the order of the secrets.

    Parameters:
        doing: what the bar says, as in `looking`.
    """
    results: dict[Policy, T] = {}
    with left_at_once(), show.progress() as bar:
        task = bar.add_task(doing, total=len(policies))
        for policy, result in fleet.each(policies, work):
            results[policy] = result
            bar.advance(task)
    return [results[policy] for policy in policies]
