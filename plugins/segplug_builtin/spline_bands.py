"""Spline interpolation along one axis as a banded matrix, and its product with arrays.

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

_BLOCK = 64
"""New samples computed by one matrix product; the band makes small blocks cheap, BLAS wants them large."""


_PLANES = 32
"""New planes computed at once where arrays are large: what they are made of has to be in memory."""

_LARGE = 1 << 21
"""Voxels from which on an array is not worth having a second time."""


@dataclass(frozen=True, eq=False)
class AxisBand:
    """The banded matrix of one axis: new sample i is the sum over k of weights[i, k] * old[first[i] + k].

    Places before the first old sample stand for the first, those behind the last for the last (edge extension).
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


def apply_band(array: NDArray[Any], band: AxisBand, axis: int, out: NDArray[Any]) -> None:
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


def apply_axes(array: NDArray[Any], out: NDArray[Any], axes: Sequence[int], orders: Sequence[int]) -> None:
    """Apply the axes' bands, those that shrink the array most first."""
    if not axes:
        out[...] = array
    ordered = sorted(axes, key=lambda a: out.shape[a] / array.shape[a])
    if len(ordered) > 1 and max(array.size, out.size) > _LARGE and array.shape[0] > 1:
        growth = {a: out.shape[a] / array.shape[a] for a in ordered}
        if 0 not in ordered:
            planes = max(1, _LARGE * len(array) // max(array.size, out.size))
            for start in range(0, len(array), planes):
                piece = slice(start, start + planes)
                _apply_whole(array[piece], out[piece], ordered, orders)
            return
        if growth[0] * 1.5 > growth[ordered[-1]]:  # else it comes early, and leaves little to the others
            _apply_first_axis_last(array, out, [a for a in ordered if a != 0], orders)
            return
    _apply_whole(array, out, ordered, orders)


def _apply_whole(array: NDArray[Any], out: NDArray[Any], ordered: Sequence[int], orders: Sequence[int]) -> None:
    """Apply the axes one after the other."""
    for place, axis in enumerate(ordered):
        shape = list(array.shape)
        shape[axis] = out.shape[axis]
        target = out if place == len(ordered) - 1 else np.empty(shape, array.dtype)
        apply_band(
            np.ascontiguousarray(array), axis_band(array.shape[axis], out.shape[axis], orders[axis]), axis, target
        )
        array = target


def _apply_first_axis_last(
    array: NDArray[Any], out: NDArray[Any], others: Sequence[int], orders: Sequence[int]
) -> None:
    """Apply the other axes to some planes, then the first axis as soon as there are planes enough.

    Those that are still needed are all that lies between `array` and `out`.
    """
    n_old, n_new = len(array), len(out)
    band = axis_band(n_old, n_new, orders[0])
    starts = range(0, n_new, _PLANES)
    ends = [min(start + _PLANES, n_new) for start in starts]
    needed = [band.block(start, stop) for start, stop in zip(starts, ends, strict=True)]
    window = np.empty((max(high - low for low, high, _ in needed), *out.shape[1:]), array.dtype)
    origin = done = 0  # planes that the window holds
    for start, stop, (low, high, dense) in zip(starts, ends, needed, strict=True):
        done = max(low, done)
        for plane in range(low, done):  # forward, over what is needed no longer
            window[plane - low] = window[plane - origin]
        origin = low
        if high > done:
            _apply_whole(array[done:high], window[done - origin : high - origin], others, orders)
            done = high
        here = window[: high - origin]
        if band.is_selection:
            np.take(here, band.first[start:stop] - origin, axis=0, out=out[start:stop], mode="clip")
        else:
            made = out[start:stop].reshape(stop - start, -1)
            np.matmul(dense.astype(array.dtype), here.reshape(len(here), -1), out=made)
