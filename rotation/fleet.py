"""Many secrets side by side: threads over one engine, results as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS: Final = 8
"""Secrets worked on at a time. Nearly all of the time is spent waiting for answers."""
MANY: Final = 32
"""The same in a sweep, which may have thousands to do. What services allow is kept elsewhere (rotation.pacing)."""
_AHEAD: Final = 2
"""Items in line for each worker: none waits for the next, and no more than these are held."""


def each(
    items: Iterable[Item], work: Callable[[Item], Result], workers: int = WORKERS
) -> Iterator[tuple[Item, Result]]:
    """Applies work to every item and yields (item, result) in the order in which they finish.

    Takes items as there is room for them, so that there may be any number. An exception of one item is raised when its
    turn comes; those that have been taken by then are ended.
    """
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="keyturn") as pool:
        coming = iter(items)
        futures: dict[Future[Result], Item] = {}
        while True:
            for item in islice(coming, workers * _AHEAD - len(futures)):
                futures[pool.submit(work, item)] = item
            if not futures:
                return
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                yield futures.pop(future), future.result()
