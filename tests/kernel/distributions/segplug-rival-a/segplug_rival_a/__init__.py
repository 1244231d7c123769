"""Claims the same new name as another distribution."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from segplug import Component, hookimpl


def middle(lr: float, *, epoch: int, epochs: int, iteration: int, iterations: int) -> float:
    return lr / 2


@hookimpl
def segplug_schedules() -> Iterable[Component[Any]]:
    yield Component("middle", f"{__name__}:middle", "a share of the learning rate")
