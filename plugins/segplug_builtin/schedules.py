"""Learning rate schedules: pure functions of the place in the training."""

from __future__ import annotations

import math


def poly(
    lr: float,
    *,
    epoch: int,
    epochs: int,
    iteration: int = 0,
    iterations: int = 1,
    exponent: float = 0.9,
    warmup_epochs: int = 0,
) -> float:
    """``lr (1 - epoch/epochs)^0.9``, once an epoch (nnU-Net's rule).

    Args:
        warmup_epochs: epochs of a linear rise before it; see `warmed_up`.
    """
    rise = warmed_up(lr, epoch, warmup_epochs)
    if rise is not None:
        return rise
    return float(lr * (1 - _share(epoch, epochs, warmup_epochs)) ** exponent)


def cosine(
    lr: float,
    *,
    epoch: int,
    epochs: int,
    iteration: int = 0,
    iterations: int = 1,
    end: float = 0.0,
    warmup_epochs: int = 0,
) -> float:
    """Fall from `lr` to ``end * lr`` along a cosine, once an epoch (Loshchilov and Hutter 2017, without restarts).

    Args:
        end: what is approached at the end, relative to `lr`.
        warmup_epochs: epochs of a linear rise before it; see `warmed_up`.
    """
    rise = warmed_up(lr, epoch, warmup_epochs)
    if rise is not None:
        return rise
    return lr * _cosine(1.0, end, _share(epoch, epochs, warmup_epochs))


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


def constant(
    lr: float, *, epoch: int, epochs: int, iteration: int = 0, iterations: int = 1, warmup_epochs: int = 0
) -> float:
    """`lr` all the time, after a linear rise of so many epochs; see `warmed_up`."""
    rise = warmed_up(lr, epoch, warmup_epochs)
    return lr if rise is None else rise


def warmed_up(lr: float, epoch: int, warmup_epochs: int) -> float | None:
    """``lr (epoch + 1) / warmup_epochs`` during the first epochs (nnU-Net's rule), then None.

    Raises:
        ValueError: there are less than no such epochs.
    """
    if warmup_epochs < 0:
        raise ValueError(f"warmup_epochs {warmup_epochs}; expected 0 or more")
    return lr * (epoch + 1) / warmup_epochs if epoch < warmup_epochs else None


def _share(epoch: int, epochs: int, warmup_epochs: int) -> float:
    """How much of what follows the warm-up is done."""
    return (epoch - warmup_epochs) / max(1, epochs - warmup_epochs)


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
