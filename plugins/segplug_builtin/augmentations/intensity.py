"""Changes of intensity, noise and resolution, on rows: (rows, *spatial), a row being a channel of a sample.

Each function changes its rows in place, each row by its own parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EPSILON = 1e-7
"""nnU-Net's smallest divisor in the gamma transform."""


def scale_brightness(rows: Tensor, factor: Tensor) -> None:
    """Multiply."""
    rows.mul_(_per_row(factor, rows))


def stretch_contrast(rows: Tensor, factor: Tensor) -> None:
    """Stretch about the mean, clipped to the row's former range."""
    flat = rows.flatten(1)
    low, high = torch.aminmax(flat, dim=1)
    mean = flat.mean(1)
    flat.sub_(mean[:, None]).mul_(factor[:, None]).add_(mean[:, None])
    torch.clamp(flat, low[:, None], high[:, None], out=flat)


def apply_gamma(rows: Tensor, exponent: Tensor, inverted: bool) -> None:
    """Raise the intensities, scaled to 0..1, to a power; range, then mean and standard deviation are restored."""
    flat = rows.flatten(1)
    if inverted:
        flat.neg_()
    deviation, mean = torch.std_mean(flat, dim=1, keepdim=True)
    low, high = torch.aminmax(flat, dim=1, keepdim=True)
    span = high - low
    flat.sub_(low).div_(span.clamp(min=EPSILON)).pow_(exponent[:, None]).mul_(span)
    new_deviation, new_mean = torch.std_mean(flat, dim=1, keepdim=True)
    flat.sub_(new_mean).mul_(deviation / new_deviation.clamp(min=EPSILON)).add_(mean)
    if inverted:
        flat.neg_()


def add_noise(sample: Tensor, deviation: float, seed: int) -> None:
    """Add Gaussian noise, independent per voxel and channel."""
    random = torch.Generator(sample.device).manual_seed(seed)
    sample.add_(torch.empty_like(sample).normal_(0, deviation, generator=random))


def apply_matrices(rows: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """Multiply every row along every axis by a matrix (rows, size, size); None leaves an axis as it is."""
    out = rows
    for axis, matrix in enumerate(matrices):
        if matrix is not None:
            size = rows.shape[axis + 1]
            before = rows.shape[1 : axis + 1].numel()
            after = rows.shape[axis + 2 :].numel()
            if after == 1:
                out = out.reshape(len(rows), before, size) @ matrix.transpose(1, 2)
            else:
                out = matrix[:, None] @ out.reshape(len(rows), before, size, after)
    return out.reshape(rows.shape)


def blur_matrix(size: int, sigmas: NDArray[np.float64]) -> Tensor:
    """Gaussian filters along an axis, reflected at the ends, cut to nnU-Net's width: (sigmas, size, size)."""
    matrices = torch.zeros((len(sigmas), size, size))
    for matrix, sigma in zip(matrices, sigmas, strict=True):
        half = blur_width(float(sigma)) // 2
        taps = np.exp(-0.5 * (np.arange(-half, half + 1) / max(sigma, 1e-6)) ** 2)
        for offset, weight in zip(range(-half, half + 1), taps / taps.sum(), strict=True):
            columns = torch.from_numpy(reflect(np.arange(size) + offset, size))
            matrix[torch.arange(size), columns] += float(weight)
    return matrices


def blur_width(sigma: float) -> int:
    """Odd number of voxels nearest to 6 sigma + 0.5: nnU-Net's rule."""
    width = sigma * 6 + 0.5
    rounded = round(width)
    if rounded % 2:
        return rounded
    return rounded + 1 if width >= rounded else rounded - 1


def reflect(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Fold indices into 0..size-1 by reflection at the outermost voxels' centres."""
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    folded = np.abs(index) % period
    return np.where(folded >= size, period - folded, folded)


def low_resolution_matrix(size: int, zooms: NDArray[np.float64]) -> Tensor:
    """Down to round(size x zoom) voxels by the nearest, up again linearly: (zooms, size, size)."""
    matrices = torch.zeros((len(zooms), size, size))
    rows = torch.arange(size)
    for matrix, zoom in zip(matrices, zooms, strict=True):
        small = max(1, round(size * float(np.float32(zoom))))
        nearest = np.minimum(np.floor((np.arange(small) + 0.5) * (size / small)).astype(np.int64), size - 1)
        place = np.clip((np.arange(size) + 0.5) * (small / size) - 0.5, 0, small - 1)
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, small - 1)
        fraction = torch.from_numpy(place - low).float()
        matrix[rows, torch.from_numpy(nearest[low])] += 1 - fraction
        matrix[rows, torch.from_numpy(nearest[high])] += fraction
    return matrices


def _per_row(values: Tensor, rows: Tensor) -> Tensor:
    return values.view(-1, *[1] * (rows.ndim - 1))
