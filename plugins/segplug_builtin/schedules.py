"""Learning rate schedules: pure functions of the place in the training."""

from __future__ import annotations

import math


def poly(
    lr: float, *, epoch: int, epochs: int, iteration: int = 0, iterations: int = 1, exponent: float = 0.9
) -> float:
    """``lr (1 - epoch/epochs)^0.9``, once an epoch (nnU-Net's rule)."""
    return float(lr * (1 - epoch / epochs) ** exponent)


def one_cycle(
    lr: float,
    *,
    epoch: int,
    epochs: int,
    iteration: int,
    iterations: int,
    warmup: float = 0.15,
    start: float = 0.04,
    end: float = 1e-4,
) -> float:
    """Rise from ``start * lr`` to `lr`, then fall to ``end * lr``, both along a cosine (Smith and Topin 2018).

    Args:
        warmup: share of the training that the rise takes.
        start, end: first and last learning rate, relative to `lr`.
    """
    done = (epoch * iterations + iteration) / max(1, epochs * iterations - 1)
    if done < warmup:
        return lr * _cosine(start, 1.0, done / warmup)
    return lr * _cosine(1.0, end, (done - warmup) / (1 - warmup))


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
