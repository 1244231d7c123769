"""Weights of classes in losses, and of their terms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def weights_of(given: Sequence[float] | None, classes: int | None) -> Tensor | None:
    """Weights (classes,) as float32.

    Args:
        given: one per channel of the logits, or None for none.
        classes: how many channels there are; None where that is not known.

    Raises:
        ValueError: they are not one number above 0 per channel.
    """
    if given is None:
        return None
    weights = [float(weight) for weight in given]
    if not weights or not all(weight > 0 for weight in weights) or len(weights) != (classes or len(weights)):
        expected = "one number above 0 per output of the network (each class, background included; or each region)"
        expected += f": {classes}" if classes else ""
        raise ValueError(f"class_weights {list(given)}; expected {expected}")
    return torch.tensor(weights)


def not_negative(**numbers: float) -> None:
    """Raise ValueError where a number, given by its name, is less than 0."""
    for name, value in numbers.items():
        if not value >= 0:
            raise ValueError(f"{name} {value}; expected 0 or more")


def mean_over_classes(scores: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of scores (..., classes scored); with weights per channel the last of them count, background's does not."""
    if weights is None:
        return scores.mean()
    weights = weights[-scores.shape[-1] :]
    return (scores * weights).sum(-1).mean() / weights.sum()
