"""Which label a place between voxels has: nnU-Net's rule."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_THOUSANDTHS = 1000.0
"""nnU-Net compares scores as half-precision thousandths, so that sums that differ by rounding are ties."""


def winner(labels: Tensor, fractions: Sequence[Tensor]) -> Tensor:
    """The label with the largest sum of interpolation weights.

    Ties go to the label of the nearest corner if it is among the best, else to the lowest of them.

    Args:
        labels: (corners, voxels), at the corners of each voxel's cell; the last axis changes fastest.
        fractions: per axis (voxels,), place within the cell.
    """
    weights = corner_weights(fractions)
    near = labels.gather(0, _nearest(fractions)[None])
    own = _score(weights, labels == near)
    out = near[0].clone()
    if labels.device.type == "cpu":  # most are decided by a majority; the rest is worth picking out
        open_ = (own <= _THOUSANDTHS / 2).nonzero()[:, 0]
        if len(open_):
            picked, weight = labels.index_select(1, open_), weights.index_select(1, open_)
            out[open_] = _contest(picked, weight, near[0].index_select(0, open_), own.index_select(0, open_))
        return out
    return _contest(labels, weights, near[0], own)


def _nearest(fractions: Sequence[Tensor]) -> Tensor:
    """Number of the nearest corner."""
    number = torch.zeros_like(fractions[0], dtype=torch.int64)
    for fraction in fractions:
        number.mul_(2).add_(fraction > 0.5)
    return number


def corner_weights(fractions: Sequence[Tensor]) -> Tensor:
    """Weights of a cell's corners in linear interpolation, (corners, voxels)."""
    weights = torch.ones((1, len(fractions[0])), device=fractions[0].device)
    for fraction in fractions:
        high = weights * fraction
        weights = torch.stack((weights - high, high), 1).flatten(0, 1)
    return weights


def _score(weights: Tensor, same: Tensor) -> Tensor:
    return ((weights * same).sum(0) * _THOUSANDTHS).half()


def _contest(labels: Tensor, weights: Tensor, near: Tensor, near_score: Tensor) -> Tensor:
    best, score = labels[0], _score(weights, labels == labels[0])
    for label in labels[1:]:
        other = _score(weights, labels == label)
        better = (other > score) | ((other == score) & (label < best))
        best, score = torch.where(better, label, best), torch.where(better, other, score)
    return torch.where(near_score == score, near, best)
