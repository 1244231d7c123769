"""Turning of many samples at once, without a loop over them and without waiting for the device: for GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from segplug.runtime.device import sent
from segplug_builtin.augmentations.finishing import OUTSIDE
from segplug_builtin.augmentations.voting import winner


def turn_batch(
    images: Tensor, labels: Tensor, matrices: NDArray[np.float64], size: Sequence[int], centre: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Resample samples, each by its own matrix.

    Args:
        images: float32 (samples, channels, *region), interpolated linearly; 0 outside.
        labels: int16 (samples, maps, *region), by vote; -1 outside.
        matrices: (samples, k, k), from patch to source, both from their centres.
        size: of the patch, k axes.
        centre: of the source in the region, in voxel indices.

    Returns:
        Both, with k last axes of `size`.
    """
    grid = places(matrices, size, centre, images.device)
    region = sent(torch.tensor(images.shape[-len(size) :], dtype=grid.dtype), grid.device)
    normalised = ((2 * grid + 1) / region - 1).flip(-1)
    turned = F.grid_sample(images, normalised, mode="bilinear", padding_mode="zeros", align_corners=False)
    return turned, vote(labels, grid)


def places(matrices: NDArray[np.float64], size: Sequence[int], centre: Sequence[float], device: torch.device) -> Tensor:
    """Where each voxel of the patches comes from, in voxel indices: float32 (samples, *size, k)."""
    grid = sent(torch.tensor(centre, dtype=torch.float32), device)
    steps = sent(torch.from_numpy(np.asarray(matrices, np.float32)), device)
    for axis, extent in enumerate(size):
        line = torch.arange(extent, device=device) - (extent - 1) / 2
        shape = [1] * len(size)
        shape[axis] = extent
        grid = grid + line.view(1, *shape, 1) * steps[:, :, axis].view(len(steps), *[1] * len(size), len(size))
    return grid


def vote(labels: Tensor, grid: Tensor) -> Tensor:
    """The label with the largest interpolated indicator at each place: (samples, maps, *size)."""
    axes = grid.shape[-1]
    padded = F.pad(labels, (1, 2) * axes, value=OUTSIDE)
    extents = padded.shape[-axes:]
    index = torch.zeros(grid.shape[:-1], dtype=torch.int64, device=grid.device)
    fractions = []
    for axis, extent in enumerate(extents):
        place = (grid[..., axis] + 1).clamp(0, extent - 2)
        low = place.floor()
        fractions.append(place - low)
        index = index * extent + low.long()
    strides = [int(np.prod(extents[axis + 1 :])) for axis in range(axes)]
    flat = padded.flatten(2)
    shape = (*labels.shape[:2], index[0].numel())
    index = index.flatten(1)[:, None].expand(shape)
    corners = [flat.gather(2, index + sum(steps)).flatten() for steps in product(*((0, stride) for stride in strides))]
    found = winner(torch.stack(corners), [part.flatten(1)[:, None].expand(shape).flatten() for part in fractions])
    return found.view(*labels.shape[:2], *grid.shape[1:-1])
