"""Threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from segplug import Component, hookimpl
from segplug.protocols import Executor, Outcome

T = TypeVar("T")
R = TypeVar("R")


class Threads:
    """Runs cases in threads of this process, which suits readers that wait for the network."""

    def __init__(self, workers: int) -> None:
        self.pool = ThreadPoolExecutor(max_workers=max(1, workers))

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[Outcome[R]]:
        index_of = {self.pool.submit(function, item): index for index, item in enumerate(items)}
        for future in as_completed(index_of):
            error = future.exception()
            value = None if error is not None else future.result()
            yield Outcome(index_of[future], value, error)

    def close(self) -> None:
        self.pool.shutdown()


@hookimpl
def segplug_executors() -> Iterator[Component[Executor]]:
    yield Component("threads", f"{__name__}:Threads", "threads of this process")
