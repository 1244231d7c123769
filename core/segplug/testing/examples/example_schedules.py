"""Linear decay."""

from __future__ import annotations

from collections.abc import Iterator

from segplug import Component, hookimpl
from segplug.protocols import Schedule


def linear(lr: float, *, epoch: int, epochs: int, iteration: int, iterations: int) -> float:
    """From `lr` to 0 along a line, iteration by iteration."""
    done = (epoch + iteration / iterations) / epochs
    return lr * (1 - done)


@hookimpl
def segplug_schedules() -> Iterator[Component[Schedule]]:
    yield Component("linear", f"{__name__}:linear", "from the first learning rate to 0 along a line")
