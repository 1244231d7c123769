"""Spline interpolation, one matrix per axis.

The B-spline zoom of `scipy.ndimage.zoom` in grid mode with edge extension, which nnU-Net uses, is linear and works
axis by axis: for each axis there is a banded matrix from old to new samples. Multiplying by these in BLAS is exact and
many times faster than evaluating (order + 1)^3 taps per voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb, factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

ANISOTROPY = 3.0
"""Spacing ratio above which the coarsest axis is resampled on its own (nnU-Net's rule)."""

_BLOCK = 64
"""New samples computed by one matrix product; the band makes small blocks cheap, BLAS wants them large."""


_TIE = 1e-7
"""Spline-interpolated indicators that differ by less tie; rounding decides nothing."""


class SeparableSpline:
    """Resamples (channels, *spatial) as nnU-Net's `resample_data_or_seg_to_shape` does."""

    def __call__(
        self,
        array: NDArray[Any],
        new_shape: Sequence[int],
        spacing: Sequence[float],
        new_spacing: Sequence[float],
        *,
        is_seg: bool = False,
        order: int = 3,
        order_z: int = 0,
        force_separate_z: bool | None = False,
        separate_z_anisotropy_threshold: float = ANISOTROPY,
    ) -> NDArray[Any]:
        """Bring an array to `new_shape`.

        Args:
            array: (channels, *spatial), float, or integers with `is_seg`.
            new_shape: spatial shape of the result.
            spacing, new_spacing: before and after; they decide whether the coarse axis is resampled on its own.
            is_seg: the values are labels: each label's indicator is interpolated, the largest wins, ties go to the
                label of the nearest voxel (or, if that lost, to the smallest).
            order: of the spline, 0 to 5. The result keeps within the range of the input (of each slice, if separate).
            order_z: of the spline along an axis resampled on its own.
            force_separate_z: True or False, whether to resample the coarse axis on its own; None: if it is more than
                `separate_z_anisotropy_threshold` times coarser than the finest, before or else after.

        Returns:
            float32 (channels, *new_shape), or the integer type of the labels. The array itself if the shape is right.
        """
        shape, new_shape = array.shape[1:], tuple(int(n) for n in new_shape)
        if len(shape) != len(new_shape):
            raise ValueError(f"array of {len(shape)} spatial axes cannot be resampled to shape {new_shape}")
        if shape == new_shape:
            return array
        alone = separate_axis(spacing, new_spacing, force_separate_z, separate_z_anisotropy_threshold)
        orders = [order_z if axis == alone else order for axis in range(len(shape))]
        if is_seg:
            return np.stack([_resample_labels(channel, new_shape, orders) for channel in array])
        result = np.empty((len(array), *new_shape), np.float32)
        for channel, out in zip(array, result, strict=True):
            _resample_channel(np.asarray(channel, np.float32), out, orders, alone)
        return result

    def axis_matrices(
        self,
        shape: Sequence[int],
        new_shape: Sequence[int],
        spacing: Sequence[float],
        new_spacing: Sequence[float],
        *,
        is_seg: bool = False,
        order: int = 3,
        order_z: int = 0,
        force_separate_z: bool | None = False,
        separate_z_anisotropy_threshold: float = ANISOTROPY,
    ) -> list[NDArray[np.float32] | None] | None:
        """The (n_new, n_old) matrix of each axis, None for an axis that stays; None if `is_seg`.

        The clipping to the input's range, which orders above 1 need, is left to the caller.
        """
        if is_seg:
            return None
        alone = separate_axis(spacing, new_spacing, force_separate_z, separate_z_anisotropy_threshold)
        orders = [order_z if axis == alone else order for axis in range(len(shape))]
        return [
            None if old == new else axis_band(old, new, o).dense()
            for old, new, o in zip(shape, new_shape, orders, strict=True)
        ]

    def __reduce__(self) -> str:
        return "separable"


separable = SeparableSpline()


def separate_axis(
    spacing: Sequence[float], new_spacing: Sequence[float], force: bool | None, threshold: float = ANISOTROPY
) -> int | None:
    """The axis to resample on its own, or None: the coarsest, unless several tie (nnU-Net's rule)."""
    deciding: Sequence[float] | None
    if force is None:
        deciding = next((s for s in (spacing, new_spacing) if max(s) / min(s) > threshold), None)
    else:
        deciding = spacing if force else None
    if deciding is None:
        return None
    coarsest = [axis for axis, s in enumerate(deciding) if s == max(deciding)]
    return coarsest[0] if len(coarsest) == 1 else None


# --- what happens along one axis -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class AxisBand:
    """The banded matrix of one axis: new sample i is the sum over k of weights[i, k] * old[first[i] + k].

    Columns that would lie outside the old samples have been added to the first or the last (edge extension).
    """

    n_old: int
    first: NDArray[np.intp]
    weights: NDArray[np.float64]

    def block(self, start: int, stop: int) -> tuple[int, int, NDArray[np.float64]]:
        """Rows start..stop as a dense matrix over the old samples low..high."""
        columns = self.first[start:stop, None] + np.arange(self.weights.shape[1])
        np.clip(columns, 0, self.n_old - 1, out=columns)
        low, high = int(columns.min()), int(columns.max()) + 1
        rows, width = stop - start, high - low
        flat = (columns - low + np.arange(rows)[:, None] * width).ravel()
        dense = np.bincount(flat, self.weights[start:stop].ravel(), rows * width)
        return low, high, dense.astype(np.float64, copy=False).reshape(rows, width)

    def dense(self) -> NDArray[np.float32]:
        matrix = np.zeros((len(self.first), self.n_old), np.float32)
        low, high, block = self.block(0, len(self.first))
        matrix[:, low:high] = block
        return matrix

    @property
    def is_selection(self) -> bool:
        """Whether each new sample is one old sample."""
        return bool(self.weights.shape[1] == 1)


@lru_cache(maxsize=256)
def axis_band(n_old: int, n_new: int, order: int) -> AxisBand:
    """Interpolation from `n_old` to `n_new` samples by a spline of order 0 to 5, in grid mode with edge extension.

    New sample i lies at (i + 0.5) n_old / n_new - 0.5 between the old ones. From order 2 on, scipy extends the samples
    by 12 edge values, filters them into spline coefficients and sums these by the B-spline's weights; the filter's
    impulse response decays fast enough to be cut off where it is below float32's resolution.
    """
    if order not in range(6):
        raise ValueError(f"spline order {order}: expected 0 to 5")
    place = (np.arange(n_new) + 0.5) * (n_old / n_new) - 0.5
    if order == 0:
        nearest = np.clip(np.floor(place + 0.5), 0, n_old - 1).astype(np.intp)
        return AxisBand(n_old, nearest, np.ones((n_new, 1)))
    first = (np.floor(place + 0.5) if order % 2 == 0 else np.floor(place)).astype(np.intp) - order // 2
    if order == 1:
        below = 1 - (place - first)
        return AxisBand(n_old, first, np.stack([below, 1 - below], axis=1))
    taps = np.stack([_b_spline(place - (first + k), order) for k in range(order + 1)], axis=1)
    response = _prefilter_response(order)
    reach = len(response) // 2
    spread = np.zeros((order + 1, order + len(response)))
    for k in range(order + 1):
        spread[k, k : k + len(response)] = response
    return AxisBand(n_old, first - reach, taps @ spread)


def _b_spline(x: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """The centred B-spline of an order (truncated-power form)."""
    value = np.zeros_like(x)
    for k in range(order + 2):
        value += (-1) ** k * comb(order + 1, k) * np.maximum(x + (order + 1) / 2 - k, 0) ** order
    return value / factorial(order)


@lru_cache
def _prefilter_response(order: int) -> NDArray[np.float64]:
    """Spline coefficients of an impulse, symmetric, as far as they exceed 1e-9 of the largest."""
    reach = 64
    samples = _b_spline(np.arange(-(order // 2), order // 2 + 1, dtype=np.float64), order)
    size = 2 * reach + 1
    matrix = np.zeros((size, size))
    for offset, value in zip(range(-(order // 2), order // 2 + 1), samples, strict=True):
        matrix += value * np.eye(size, k=offset)
    response = np.linalg.solve(matrix, np.eye(size)[reach])
    keep = int(np.flatnonzero(np.abs(response) > 1e-9 * np.abs(response).max()).max()) - reach
    kept: NDArray[np.float64] = response[reach - keep : reach + keep + 1]
    kept /= kept.sum() * samples.sum()  # constants stay constant
    return kept


def _apply_band(array: NDArray[Any], band: AxisBand, axis: int, out: NDArray[Any]) -> None:
    """Write the band's product with one axis of `array` (C order) to `out`; both float32 or both float64."""
    if band.is_selection:
        np.take(array, band.first, axis=axis, out=out, mode="clip")
        return
    n_new = len(band.first)
    step = n_new if n_new <= 2 * _BLOCK else _BLOCK
    inner = int(np.prod(array.shape[axis + 1 :]))
    outer = int(np.prod(array.shape[:axis]))
    old = array.reshape(outer, band.n_old, inner)
    new = out.reshape(outer, n_new, inner)
    for start in range(0, n_new, step):
        stop = min(start + step, n_new)
        low, high, dense = band.block(start, stop)
        matrix = dense.astype(array.dtype)
        if inner == 1:
            np.matmul(old[:, low:high, 0], matrix.T, out=new[:, start:stop, 0])
        else:
            np.matmul(matrix, old[:, low:high], out=new[:, start:stop])


# --- images ----------------------------------------------------------------------------------------------------------


def _resample_channel(array: NDArray[Any], out: NDArray[Any], orders: Sequence[int], alone: int | None) -> None:
    """Resample one channel into `out`, clipped to the range of `array`, or of its slices along the axis `alone`.

    The axis that is resampled on its own comes last and is not clipped, as in nnU-Net; where it selects slices it
    comes first if that leaves less to do, which gives the same.
    """
    axes = [a for a in range(array.ndim) if array.shape[a] != out.shape[a]]
    if alone in axes:
        axes.remove(alone)
        band = axis_band(array.shape[alone], out.shape[alone], orders[alone])
        if band.is_selection and out.shape[alone] < array.shape[alone]:
            array = np.take(array, band.first, axis=alone)
        elif axes:
            between = np.empty([array.shape[a] if a == alone else n for a, n in enumerate(out.shape)], array.dtype)
            _resample_axes(array, between, axes, orders, alone)
            return _apply_band(between, band, alone, out)
        else:
            return _apply_band(array, band, alone, out)
    return _resample_axes(array, out, axes, orders, alone)


def _resample_axes(
    array: NDArray[Any], out: NDArray[Any], axes: Sequence[int], orders: Sequence[int], alone: int | None
) -> None:
    """Apply the axes' bands and clip to the range of `array`, or of its slices along `alone`."""
    _apply_axes(array, out, axes, orders)
    if any(orders[a] > 1 for a in axes):  # lower orders do not leave the range
        within = None if alone is None else tuple(a for a in range(array.ndim) if a != alone)
        low, high = array.min(axis=within, keepdims=True), array.max(axis=within, keepdims=True)
        np.clip(out, low, high, out=out)


def _apply_axes(array: NDArray[Any], out: NDArray[Any], axes: Sequence[int], orders: Sequence[int]) -> None:
    """Apply the axes' bands, those that shrink the array most first."""
    if not axes:
        out[...] = array
    ordered = sorted(axes, key=lambda a: out.shape[a] / array.shape[a])
    for place, axis in enumerate(ordered):
        shape = list(array.shape)
        shape[axis] = out.shape[axis]
        last = place == len(ordered) - 1
        target = out if last else np.empty(shape, array.dtype)
        _apply_band(
            np.ascontiguousarray(array), axis_band(array.shape[axis], out.shape[axis], orders[axis]), axis, target
        )
        array = target


# --- labels ----------------------------------------------------------------------------------------------------------


def _resample_labels(labels: NDArray[Any], new_shape: Sequence[int], orders: Sequence[int]) -> NDArray[Any]:
    """Resample one label map."""
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
    result = labels
    mixed = _mixed_cells(labels, axes)
    sides: list[tuple[NDArray[np.intp], NDArray[np.float64]] | None] = [None] * labels.ndim
    for axis in axes:
        n_old, n_new = labels.shape[axis], new_shape[axis]
        band = axis_band(n_old, n_new, 1)
        corners = np.clip(np.stack([band.first, band.first + 1]), 0, n_old - 1)
        sides[axis] = (corners, band.weights.T)
        result = np.take(result, axis_band(n_old, n_new, 0).first, axis=axis)
        mixed = np.take(mixed, np.clip(band.first, 0, max(0, n_old - 2)), axis=axis)
    flat = np.flatnonzero(mixed)
    del mixed
    result = np.ascontiguousarray(result)
    values = result.reshape(-1)
    chunk = 1 << 16  # keeps the work arrays within the cache
    for start in range(0, len(flat), chunk):
        part = flat[start : start + chunk]
        values[part] = _vote(labels, np.unravel_index(part, tuple(new_shape)), sides, values[part])
    return result


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
        _apply_axes((labels == label).astype(np.float64), score, axes, orders)
        np.clip(score, 0, 1, out=score)
        lead = score - best_score
        wins = (lead > _TIE) | ((lead >= -_TIE) & (nearest == label))
        best[wins] = label
        np.maximum(best_score, score, out=best_score)
    return best
