"""Many secrets side by side: threads over one engine, results as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = 8
"""Secrets worked on at a time. Nearly all of the time is spent waiting for answers."""


def each(
    items: Iterable[Item], work: Callable[[Item], Result], workers: int = WORKERS
) -> Iterator[tuple[Item, Result]]:
    """Applies work to every item and yields (item, result) in the order in which they finish.

    An exception of one item is raised when its turn comes; the others have been started by then.
    """
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="keyturn") as pool:
        futures = {pool.submit(work, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()
