"""Changes of intensity at places: gradients, local gamma, blanked boxes, sharpening, median filters; in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from segplug.runtime.device import sent

EPSILON = 1e-8
"""nnU-Net's smallest divisor in local changes."""

VALUES_AT_ONCE = 1 << 26
"""Neighbours that a median is taken of at a time on a GPU: 256 MB."""


@dataclass(frozen=True)
class Bump:
    """A Gaussian over a patch.

    Args:
        centre: per axis, in voxels from the patch's first corner; may lie outside.
        width: per axis, standard deviation in voxels.
        strength: what is done by it: added at its highest place, or the exponent there.
    """

    centre: tuple[float, ...]
    width: tuple[float, ...]
    strength: float


def profile(bump: Bump, shape: Sequence[int], device: torch.device) -> Tensor:
    """The Gaussian, integrated over each voxel, scaled to 0..1 over the patch: float32 of `shape`."""
    whole = torch.ones((), device=device)
    for centre, width, extent in zip(bump.centre, bump.width, shape, strict=True):
        edges = torch.arange(extent + 1, dtype=torch.float64) - 0.5
        part = torch.special.ndtr((edges - centre) / width).diff().float()
        whole = whole[..., None] * sent(part, device)
    whole = whole - whole.min()
    highest = whole.max()
    return torch.where(highest > 0, whole / highest, whole)


def add_gradient(channel: Tensor, bump: Bump) -> None:
    """Add a Gaussian whose largest value is the bump's strength."""
    shape = profile(bump, channel.shape, channel.device)
    highest = shape.max()
    channel.add_(torch.where(highest >= EPSILON, shape / highest * bump.strength, 0))


def apply_local_gamma(channel: Tensor, bump: Bump) -> None:
    """Raise intensities, scaled to 0..1, to the bump's strength where it is high, less so where it is low."""
    low, high = channel.aminmax()
    span = (high - low).clamp(min=EPSILON)
    scaled = (channel - low) / span
    mixed = scaled.lerp(scaled.pow(bump.strength), profile(bump, channel.shape, channel.device))
    channel.copy_(mixed * span + low)


def blank(channel: Tensor, box: Sequence[tuple[int, int]]) -> None:
    """Put the mean of a box, (first, behind last) per axis, into all of it."""
    part = channel[tuple(slice(first, stop) for first, stop in box)]
    part.fill_(part.mean())


def sharpen(rows: Tensor, strength: Tensor) -> None:
    """Add `strength` (rows,) times the difference from the neighbours along each axis; edges are repeated."""
    axes = rows.ndim - 1
    padded = F.pad(rows[:, None], (1, 1) * axes, mode="replicate")[:, 0]
    laplacian = 2 * axes * rows
    for axis in range(1, rows.ndim):
        inner = padded
        for other in range(1, rows.ndim):
            if other != axis:
                inner = inner.narrow(other, 1, rows.shape[other])
        size = rows.shape[axis]
        laplacian = laplacian - inner.narrow(axis, 0, size) - inner.narrow(axis, 2, size)
    rows.add_(laplacian * strength.view(-1, *(1,) * axes))


def median(rows: Tensor, sizes: NDArray[np.float64]) -> Tensor:
    """Filter each row by the median of a cube of `sizes` (rows,) voxels; reflected at the edges."""
    if rows.device.type != "cpu":
        return torch.stack([median_of_cubes(row, int(size)) for row, size in zip(rows, sizes.flatten(), strict=True)])
    from scipy.ndimage import median_filter

    filtered = [
        median_filter(row, size=int(size)) for row, size in zip(rows.cpu().numpy(), sizes.flatten(), strict=True)
    ]
    return torch.from_numpy(np.stack(filtered))


def median_of_cubes(image: Tensor, size: int) -> Tensor:
    """What SciPy's filter computes on a CPU, faster, where the image is on another device: the upper of two medians."""
    before = size // 2
    for axis, extent in enumerate(image.shape):
        places = torch.arange(-before, extent + size - before - 1) % (2 * extent)
        image = image.index_select(axis, sent(places.minimum(2 * extent - 1 - places), image.device))
    for axis in range(image.ndim):
        image = image.unfold(axis, size, 1)
    axes = image.ndim // 2
    planes = max(1, VALUES_AT_ONCE // image[0].numel())
    middle = size**axes // 2 + 1
    return torch.cat([part.flatten(axes).kthvalue(middle, -1).values for part in torch.split(image, planes)])
