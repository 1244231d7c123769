"""Blur and lower resolution of rows, (rows, *spatial), a row being a channel of a sample, each by its own value."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segplug.runtime.device import sent
from segplug_builtin.augmentations.linear import interpolate, pick, taps_at


def blur(rows: Tensor, sigmas: NDArray[np.float64]) -> Tensor:
    """Filter by Gaussians of `sigmas` (rows, axes) voxels along the axes, reflected at the ends."""
    for axis in range(rows.ndim - 1):
        taps = gaussian_taps(sigmas[:, axis])
        half, size = taps.shape[1] // 2, rows.shape[axis + 1]
        weights = sent(torch.from_numpy(taps), rows.device)
        shape = (len(rows), *[1] * (rows.ndim - 1))
        extended = _reflected(rows, axis + 1, half)
        rows = extended.narrow(axis + 1, 0, size) * weights[:, 0].view(shape)
        for offset in range(1, 2 * half + 1):
            rows.addcmul_(extended.narrow(axis + 1, offset, size), weights[:, offset].view(shape))
    return rows


def gaussian_taps(sigmas: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weights of the filters, (sigmas, widest), each as wide as nnU-Net makes it and centred."""
    widths = [blur_width(float(sigma)) for sigma in sigmas]
    offsets = np.arange(max(widths)) - max(widths) // 2
    taps = np.exp(-0.5 * (offsets / sigmas[:, None]) ** 2)
    taps[np.abs(offsets) > np.asarray(widths)[:, None] // 2] = 0
    weights: NDArray[np.float32] = (taps / taps.sum(1, keepdims=True)).astype(np.float32)
    return weights


def blur_width(sigma: float) -> int:
    """Odd number of voxels nearest to 6 sigma + 0.5: nnU-Net's rule."""
    width = sigma * 6 + 0.5
    rounded = round(width)
    if rounded % 2:
        return rounded
    return rounded + 1 if width >= rounded else rounded - 1


def lower_resolution(rows: Tensor, zooms: NDArray[np.float64], fixed_axes: int = 0) -> Tensor:
    """Reduce each axis (but the first `fixed_axes`) to round(size x zoom) voxels by the nearest, and back linearly.

    Args:
        zooms: (rows,), the same for all axes of a row.
    """
    shape = rows.shape[1:]
    axes = range(fixed_axes, len(shape))
    small = {axis: _reduced_sizes(shape[axis], zooms) for axis in axes}
    for axis in axes:
        rows = pick(rows, axis, sent(_nearest(small[axis], shape[axis]), rows.device))
    for axis in reversed(axes):
        size, reduced = shape[axis], small[axis]
        places = (torch.arange(size, dtype=torch.float64) + 0.5) * (reduced / size) - 0.5
        rows = interpolate(rows, axis, taps_at(places, reduced, outside=False))
    return rows


def _reduced_sizes(size: int, zooms: NDArray[np.float64]) -> Tensor:
    """(rows, 1) int64."""
    sizes = [[max(1, round(size * float(zoom)))] for zoom in zooms.astype(np.float32)]
    return torch.tensor(sizes)


def _nearest(reduced: Tensor, size: int) -> Tensor:
    """Which voxels of `size` are taken: (rows, places) int64; rows with fewer places than others repeat their last."""
    places = torch.arange(int(reduced.max())).minimum(reduced - 1)
    # in float32, as torch's "nearest-exact": where a place falls between two voxels, rounding decides
    return ((places.float() + 0.5) * (size / reduced.double()).float()).long().clamp(max=size - 1)


def _reflected(rows: Tensor, axis: int, half: int) -> Tensor:
    """Extend an axis at both ends by reflection at the outermost voxels' centres, as often as it takes."""
    size = rows.shape[axis]
    period = max(1, 2 * (size - 1))
    index = np.abs(np.arange(-half, size + half)) % period
    index = np.where(index >= size, period - index, index)
    before, after = index[:half].tolist(), index[size + half :].tolist()
    parts = [rows.narrow(axis, at, 1) for at in before], [rows.narrow(axis, at, 1) for at in after]
    return torch.cat([*parts[0], rows, *parts[1]], axis)
