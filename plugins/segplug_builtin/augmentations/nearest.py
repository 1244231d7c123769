"""Turning with the nearest voxel instead of interpolation (order 0)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segplug_builtin.augmentations.grids import places


def turn_nearest(
    source: Tensor, matrix: NDArray[np.float64], size: Sequence[int], centre: Sequence[float], outside: int
) -> Tensor:
    """What stands at the voxel nearest to each place: (channels, *size) of (channels, *region).

    Args:
        matrix: (k, k), from patch to source, both from their centres.
        size: of the patch, k axes.
        centre: of the source in the region, in voxel indices.
        outside: value of places that are more than half a voxel outside the region.
    """
    grid = places(matrix[None], size, centre, source.device)[0].round()  # half to even, as torch's `grid_sample`
    index = torch.zeros(grid.shape[:-1], dtype=torch.int64, device=source.device)
    inside = torch.ones_like(index, dtype=torch.bool)
    for axis, extent in enumerate(source.shape[1:]):
        place = grid[..., axis].long()
        inside &= (place >= 0) & (place < extent)
        index = index * extent + place.clamp_(0, extent - 1)
    found = source.flatten(1)[:, index.flatten()].view(len(source), *size)
    return torch.where(inside, found, outside)
