"""Cosine decay."""

from __future__ import annotations

import math
from collections.abc import Iterator

from segplug import Component, hookimpl
from segplug.protocols import Schedule


def cosine(lr: float, *, epoch: int, epochs: int, iteration: int, iterations: int) -> float:
    """From `lr` to 0 along half a cosine, iteration by iteration."""
    done = (epoch + iteration / iterations) / epochs
    return lr * 0.5 * (1 + math.cos(math.pi * done))


@hookimpl
def segplug_schedules() -> Iterator[Component[Schedule]]:
    yield Component("cosine", f"{__name__}:cosine", "half a cosine")
