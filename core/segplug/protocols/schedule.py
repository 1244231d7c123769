"""Learning rate schedules."""

from __future__ import annotations

from typing import Protocol


class Schedule(Protocol):
    """A pure function from the place in the training to the learning rate.

    Args:
        lr: the trainer's initial (or largest) learning rate.
        epoch, epochs: current epoch from 0, and how many there are.
        iteration, iterations: the same within the epoch; a schedule per epoch ignores them.
    """

    def __call__(self, lr: float, *, epoch: int, epochs: int, iteration: int, iterations: int) -> float: ...
