"""Resamplers without torch: images by splines and labels by their interpolated indicators; or nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug_builtin.label_resampling import resample_labels
from segplug_builtin.spline_bands import apply_axes, apply_band, axis_band

ANISOTROPY = 3.0
"""Spacing ratio above which the coarsest axis is resampled on its own (nnU-Net's rule)."""


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
            maps = [resample_labels(channel, new_shape, orders) for channel in array]
            return maps[0][None] if len(maps) == 1 else np.stack(maps)
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

    def taken(
        self, shape: Sequence[int], new_shape: Sequence[int], *, is_seg: bool = False, order: int = 3, **options: Any
    ) -> int:
        """Bytes beside array and result; see `segplug.protocols.SizedResampler`."""
        if is_seg and order > 1:
            return 40 * prod(new_shape)  # scores in float64
        # axis by axis: two arrays between, each at most as large as the larger size of every axis
        between = 2 * 4 * prod(max(pair) for pair in zip(shape[1:], new_shape, strict=True))
        return 8 * prod(new_shape) if is_seg else between

    def __reduce__(self) -> str:
        return "separable"


separable = SeparableSpline()


class NoResampling:
    """Leaves every array as it is, as nnU-Net's `no_resampling_hack` does: images keep the spacing they have."""

    def __call__(
        self, array: NDArray[Any], new_shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]
    ) -> NDArray[Any]:
        """The array itself, whatever shape is wanted."""
        return array

    def axis_matrices(
        self,
        shape: Sequence[int],
        new_shape: Sequence[int],
        spacing: Sequence[float],
        new_spacing: Sequence[float],
    ) -> list[NDArray[np.float32] | None]:
        """None for every axis.

        Raises:
            DataError: another shape is needed: the plan resamples images but not probabilities.
        """
        if tuple(shape) != tuple(new_shape):
            raise DataError(
                f"logits of shape {tuple(shape)} have to be resampled to {tuple(new_shape)}, and the plan says that "
                "they are not. Where resampling_fn_data resamples, resampling_fn_probabilities has to do so too"
            )
        return [None] * len(new_shape)

    def taken(self, shape: Sequence[int], new_shape: Sequence[int]) -> int:
        """Nothing."""
        return 0

    def __reduce__(self) -> str:
        return "no_resampling"


no_resampling = NoResampling()


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
            return apply_band(between, band, alone, out)
        else:
            return apply_band(array, band, alone, out)
    return _resample_axes(array, out, axes, orders, alone)


def _resample_axes(
    array: NDArray[Any], out: NDArray[Any], axes: Sequence[int], orders: Sequence[int], alone: int | None
) -> None:
    """Apply the axes' bands and clip to the range of `array`, or of its slices along `alone`."""
    apply_axes(array, out, axes, orders)
    if any(orders[a] > 1 for a in axes):  # lower orders do not leave the range
        within = None if alone is None else tuple(a for a in range(array.ndim) if a != alone)
        low, high = array.min(axis=within, keepdims=True), array.max(axis=within, keepdims=True)
        np.clip(out, low, high, out=out)
