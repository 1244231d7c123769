"""Executors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """What became of one item: its value, or the exception that it raised."""

    index: int
    value: R | None = None
    error: BaseException | None = None


class Executor(Protocol):
    """Runs a function over items; started once for a whole run and used by every stage.

    The factory gets, by name, `workers: int` (0: everything in this process), and as its options what the settings have
    under `[executors.<name>]`, the name being that by which it was asked for.
    """

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[Outcome[R]]:
        """Yield one `Outcome` per item, as they end. Never hangs and never drops an item: a worker that dies gives its
        item an error that says so. Function, items and values must be picklable; the function is importable by name
        or a `functools.partial` of such a one."""
        ...

    def close(self) -> None:
        """End the workers. Called once; also on errors."""
        ...


@runtime_checkable
class StartsEarly(Protocol):
    """An executor whose workers can start while the program itself still gets ready."""

    def start(self, *modules: str) -> None:
        """Start workers, and have them import modules that the work will take. `map` may never be called."""
        ...
