"""Label maps at another shape: each label's indicator is interpolated, and the largest wins.

Ties go to the label of the nearest voxel, or to the smallest of those that tie if that label is not among them. For
linear interpolation only the voxels whose neighbours differ are computed, for all labels at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug_builtin.spline_bands import apply_axes, axis_band

_TIE = 1e-7
"""Spline-interpolated indicators that differ by less tie; rounding decides nothing."""

_CHUNK = 1 << 16
"""Voxels decided on at once; keeps the work arrays within the cache."""


_AT_ONCE = 1 << 22
"""Voxels for which what is near is looked up at once."""


def resample_labels(labels: NDArray[Any], new_shape: Sequence[int], orders: Sequence[int]) -> NDArray[Any]:
    """Resample one label map.

    Args:
        labels: integers, three or any other number of axes.
        orders: of the spline, per axis; an axis of order 0 selects the nearest voxels.
    """
    axes = [a for a, (old, new) in enumerate(zip(labels.shape, new_shape, strict=True)) if old != new]
    for axis in [a for a in axes if orders[a] == 0]:
        labels = np.take(labels, axis_band(labels.shape[axis], new_shape[axis], 0).first, axis=axis)
    axes = [a for a in axes if orders[a] > 0]
    if not axes:
        return labels
    if all(orders[a] == 1 for a in axes):
        return _linear_labels(np.ascontiguousarray(labels), new_shape, axes)
    return _spline_labels(labels, new_shape, axes, orders)


def _linear_labels(labels: NDArray[Any], new_shape: Sequence[int], axes: Sequence[int]) -> NDArray[Any]:
    """The largest linearly interpolated indicator, computed only where a voxel's neighbours differ."""
    sides: list[tuple[NDArray[np.intp], NDArray[np.float64]] | None] = [None] * labels.ndim
    nearest: list[NDArray[np.intp]] = [np.arange(n) for n in labels.shape]
    cells = list(nearest)
    for axis in axes:
        n_old, n_new = labels.shape[axis], new_shape[axis]
        band = axis_band(n_old, n_new, 1)
        corners = np.clip(np.stack([band.first, band.first + 1]), 0, n_old - 1)
        sides[axis] = (corners, band.weights.T)
        nearest[axis] = axis_band(n_old, n_new, 0).first
        cells[axis] = np.clip(band.first, 0, max(0, n_old - 2))
    result = np.empty(tuple(new_shape), labels.dtype)
    along = next((axis for axis, n in enumerate(new_shape) if n > 1), 0)
    thickness = max(1, _AT_ONCE * new_shape[along] // result.size)
    for start in range(0, new_shape[along], thickness):
        rows = slice(start, start + thickness)
        slab = _taken(labels, nearest, along, nearest[along][rows])
        low, high = int(cells[along][rows].min()), int(cells[along][rows].max())
        near = labels[(slice(None),) * along + (slice(low, high + 1 + (along in axes)),)]
        unsure = _taken(_mixed_cells(near, axes), cells, along, cells[along][rows] - low)
        values = slab.reshape(-1)
        flat = np.flatnonzero(unsure)
        for first in range(0, len(flat), _CHUNK):
            part = flat[first : first + _CHUNK]
            at = list(np.unravel_index(part, slab.shape))
            at[along] = at[along] + start
            values[part] = _vote(labels, tuple(at), sides, values[part])
        result[(slice(None),) * along + (rows,)] = slab
    return result


def _taken(array: NDArray[Any], places: Sequence[NDArray[np.intp]], along: int, here: NDArray[np.intp]) -> NDArray[Any]:
    """The array at these places of each axis, of the axis `along` only `here`; a new one in C order."""
    array = np.take(array, here, axis=along)
    for axis, place in enumerate(places):
        if axis != along and (len(place) != array.shape[axis] or place[-1] != len(place) - 1):
            array = np.take(array, place, axis=axis)
    return array


def _mixed_cells(labels: NDArray[Any], axes: Sequence[int]) -> NDArray[np.bool_]:
    """Whether the corners of the cell that begins at a voxel and spans `axes` have several labels."""
    spanned = [axis for axis in axes if labels.shape[axis] > 1]
    mixed = np.zeros([n - 1 if axis in spanned else n for axis, n in enumerate(labels.shape)], np.bool_)
    for axis in spanned:
        before = (slice(None),) * axis
        differs = labels[(*before, slice(None, -1))] != labels[(*before, slice(1, None))]
        for other in spanned:
            if other != axis:
                before = (slice(None),) * other
                differs = differs[(*before, slice(None, -1))] | differs[(*before, slice(1, None))]
        mixed |= differs
    return mixed


def _vote(
    labels: NDArray[Any],
    at: tuple[NDArray[np.intp], ...],
    sides: Sequence[tuple[NDArray[np.intp], NDArray[np.float64]] | None],
    nearest: NDArray[Any],
) -> NDArray[Any]:
    """Labels with the largest interpolated indicator at the new voxels `at`.

    Products and sums stand in scipy's order, edge voxels counted twice as there, so that what ties there ties here.

    Args:
        sides: per axis, both old samples around each new one and their weights, (2, n_new) each; None: the axis stays.
        nearest: label of the nearest voxel.
    """
    offsets, shares = [np.zeros(len(nearest), np.intp)], [np.ones(len(nearest))]
    for axis, side in enumerate(sides):
        stride = int(np.prod(labels.shape[axis + 1 :]))
        if side is None:
            offsets = [o + at[axis] * stride for o in offsets]
        else:
            places = [np.take(place * stride, at[axis]) for place in side[0]]
            weights = [np.take(weight, at[axis]) for weight in side[1]]
            offsets = [o + p for o in offsets for p in places]
            shares = [s * w for s in shares for w in weights]
    flat = labels.reshape(-1)
    corners = [np.take(flat, o) for o in offsets]
    score = _score(corners, shares, nearest)
    best = nearest.copy()
    open_ = np.flatnonzero(score <= 0.5)  # more than half cannot be beaten
    if open_.size:
        best[open_] = _contest([c[open_] for c in corners], [s[open_] for s in shares], nearest[open_], score[open_])
    return best


def _contest(
    corners: Sequence[NDArray[Any]], shares: Sequence[NDArray[np.float64]], nearest: NDArray[Any], score: NDArray[Any]
) -> NDArray[Any]:
    """The winner where the nearest voxel's label, with this score, may lose."""
    low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
    rival = low + high - nearest  # the other of two labels; the nearest voxel is one of the corners
    best = np.where(_score(corners, shares, rival) > score, rival, nearest)
    crowded = np.zeros(len(best), np.bool_)
    for corner in corners:
        crowded |= (corner != low) & (corner != high)
    at = np.flatnonzero(crowded)
    corners, shares = [c[at] for c in corners], [s[at] for s in shares]
    winner, score = nearest[at], score[at]
    undefeated = np.ones(len(at), np.bool_)  # the nearest voxel's label still has the largest score
    for corner in corners:
        rival_score = _score(corners, shares, corner)
        better = (rival_score > score) | (~undefeated & (rival_score == score) & (corner < winner))
        score = np.where(better, rival_score, score)
        winner = np.where(better, corner, winner)
        undefeated &= ~better
    best[at] = winner
    return best


def _score(corners: Sequence[NDArray[Any]], shares: Sequence[NDArray[np.float64]], label: NDArray[Any]) -> Any:
    total = np.zeros(len(label))
    for corner, share in zip(corners, shares, strict=True):
        total += share * (corner == label)
    return total


def _spline_labels(
    labels: NDArray[Any], new_shape: Sequence[int], axes: Sequence[int], orders: Sequence[int]
) -> NDArray[Any]:
    """The largest spline-interpolated indicator, one label at a time."""
    nearest = labels
    for axis in axes:
        nearest = np.take(nearest, axis_band(labels.shape[axis], new_shape[axis], 0).first, axis=axis)
    best, best_score = np.empty_like(nearest), np.full(nearest.shape, -np.inf)
    score = np.empty(nearest.shape)
    for label in np.unique(labels):
        apply_axes((labels == label).astype(np.float64), score, axes, orders)
        np.clip(score, 0, 1, out=score)
        lead = score - best_score
        wins = (lead > _TIE) | ((lead >= -_TIE) & (nearest == label))
        best[wins] = label
        np.maximum(best_score, score, out=best_score)
    return best
