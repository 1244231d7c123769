"""Turning, scaling and cropping of samples and their labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

OUTSIDE = -1
"""Label of what lies outside the source region."""


def crop(source: Tensor, size: Sequence[int]) -> Tensor:
    """View of the centre of (samples, channels, *spatial), begun at ``whole // 2 - size // 2``."""
    slices = [
        slice(whole // 2 - part // 2, whole // 2 - part // 2 + part)
        for whole, part in zip(source.shape[2:], size, strict=True)
    ]
    return source[(slice(None), slice(None), *slices)]


def place_grid(matrices: Tensor, size: Sequence[int], region: Sequence[int], source: Sequence[int]) -> Tensor:
    """Where each voxel of the patches comes from, in voxel indices of the regions.

    Args:
        matrices: (samples, k, k), from patch to source, both from their centres.
        size: of the patch, k axes.
        region: size of what was read of the source, concentric by whole voxels.
        source: size of the source region.

    Returns:
        float32 (samples, *size, k).
    """
    axes = [torch.arange(extent, dtype=torch.float64) - (extent - 1) / 2 for extent in size]
    grid = torch.zeros((len(matrices), *size, len(size)), dtype=torch.float32, device=matrices.device)
    shape = [1] * len(size)
    for axis, places in enumerate(axes):
        along = shape.copy()
        along[axis] = -1
        step = matrices[:, :, axis].double().view(len(matrices), *shape, len(size))
        grid += (places.to(matrices.device).view(1, *along, 1) * step).float()
    centre = [(whole - 1) / 2 - (whole // 2 - part // 2) for whole, part in zip(source, region, strict=True)]
    return grid + torch.tensor(centre, dtype=torch.float32, device=grid.device)


def sample_linear(source: Tensor, grid: Tensor) -> Tensor:
    """Linear interpolation of (samples, channels, *region) at voxel indices (samples, *size, k); 0 outside."""
    extent = torch.tensor(source.shape[2:], dtype=grid.dtype, device=grid.device)
    normalised = ((2 * grid + 1) / extent - 1).flip(-1)
    return F.grid_sample(source, normalised, mode="bilinear", padding_mode="zeros", align_corners=False)


def sample_labels(source: Tensor, grid: Tensor) -> Tensor:
    """The label whose linearly interpolated indicator is largest; ties go to the nearest voxel's label, else the lowest.

    Args:
        source: int16 (samples, channels, *region); outside of it every label is -1.
        grid: voxel indices (samples, *size, k).

    Returns:
        int16 (samples, channels, *size).
    """
    padded = F.pad(source, (1, 1) * (source.ndim - 2), value=OUTSIDE)
    return torch.stack([_vote(labels, places) for labels, places in zip(padded, grid, strict=True)])


def _vote(labels: Tensor, grid: Tensor) -> Tensor:
    """One sample; `labels` has a border of one voxel more than the grid's indices count."""
    axes = grid.shape[-1]
    extents = labels.shape[1:]
    limit = torch.tensor([extent - 1 for extent in extents], dtype=grid.dtype, device=grid.device)
    places = (grid.reshape(-1, axes) + 1).clamp_(min=0).minimum(limit - 1e-3)
    low = places.floor()
    fraction = places - low
    strides = [1]
    for extent in reversed(extents[1:]):
        strides.insert(0, strides[0] * extent)
    index = (low.long() * torch.tensor(strides, device=grid.device)).sum(1)
    corners = [0]
    for stride in strides:
        corners = [corner + step for corner in corners for step in (0, stride)]
    weight = torch.ones((1, len(index)), dtype=grid.dtype, device=grid.device)
    for axis in range(axes):
        part = fraction[:, axis]
        weight = torch.stack((weight * (1 - part), weight * part), 1).flatten(0, 1)
    out = []
    for channel in labels.flatten(1):
        first = channel[index]
        mixed = _mixed(channel.view(extents)).flatten()[index].nonzero()[:, 0]
        if len(mixed):
            found = torch.stack([channel[index[mixed] + corner] for corner in corners])
            first[mixed] = _winner(found, weight[:, mixed])
        out.append(first.view(grid.shape[:-1]))
    return torch.stack(out)


def _mixed(labels: Tensor) -> Tensor:
    """Whether the cell that begins at each voxel (its 2 x 2 (x 2) corners) holds more than one label."""
    low, high = labels, labels
    for axis in range(labels.ndim):
        count = low.shape[axis] - 1
        low, high = (
            torch.minimum(low.narrow(axis, 0, count), low.narrow(axis, 1, count)),
            torch.maximum(high.narrow(axis, 0, count), high.narrow(axis, 1, count)),
        )
    return F.pad(low != high, (0, 1) * labels.ndim)


def _winner(labels: Tensor, weights: Tensor) -> Tensor:
    """Label with the largest sum of weights among (corners, voxels), by nnU-Net's rule for ties.

    Scores are compared as half-precision thousandths, as nnU-Net does, so that sums that differ by rounding are ties.
    """
    same = labels[:, None] == labels[None]
    score = ((same * weights[None]).sum(1) * 1000).half()
    best = score.max(0).values
    nearest = weights.argmax(0, keepdim=True)
    top = torch.where(score == best, labels, torch.iinfo(labels.dtype).max).min(0).values
    near = labels.gather(0, nearest)[0]
    return torch.where(score.gather(0, nearest)[0] == best, near, top)
