"""Linear interpolation along the axes of rows, each row with places of its own.

Rows are (rows, *spatial). Nothing loops over rows: along every axis but the last, whole lines are fetched by number;
along the last, where that would mean voxel by voxel, the same weights stand in a matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segplug.runtime.device import sent

_MATRIX_SIZE = 384
"""Longest last axis for which multiplying by a matrix is quicker than fetching voxels (measured on AVX-512)."""


@dataclass(frozen=True)
class Taps:
    """Along one axis, for each row and place: two voxels and their weights.

    Args:
        low, high: int64 (rows, places), indices of voxels.
        low_weight, high_weight: float32 (rows, places).
    """

    low: Tensor
    high: Tensor
    low_weight: Tensor
    high_weight: Tensor

    def to(self, device: torch.device) -> Taps:
        """The same on a device."""
        return Taps(*(sent(part, device) for part in (self.low, self.high, self.low_weight, self.high_weight)))


def taps_at(places: Tensor, size: Tensor | int, *, outside: bool) -> Taps:
    """Taps for fractional voxel indices.

    Args:
        places: float64 (rows, places).
        size: of the axis, or one size per row (rows, 1).
        outside: True takes 0 for what lies outside, False the outermost voxel.
    """
    last = torch.as_tensor(size) - 1
    if not outside:
        places = places.clamp(min=0).minimum(last.to(places.dtype))
    low = places.floor()
    fraction = (places - low).float()
    low = low.long()
    high = low + 1
    low_weight, high_weight = 1 - fraction, fraction
    if outside:
        low_weight = low_weight * ((low >= 0) & (low <= last))
        high_weight = high_weight * ((high >= 0) & (high <= last))
    return Taps(low.clamp(min=0).minimum(last), high.clamp(min=0).minimum(last), low_weight, high_weight)


def pick(rows: Tensor, axis: int, index: Tensor) -> Tensor:
    """Voxels of an axis (counted from 0 without rows) by number, (rows, places) int64, for each row."""
    size = rows.shape[axis + 1]
    if axis == rows.ndim - 2:
        shape = (len(rows), *[1] * (rows.ndim - 2), index.shape[1])
        return rows.gather(axis + 1, index.view(shape).expand(*rows.shape[:-1], index.shape[1]))
    lines = rows.shape[: axis + 1].numel()
    first = torch.arange(0, lines * size, size, device=rows.device).view(len(rows), -1, 1)
    flat = rows.reshape(lines * size, *rows.shape[axis + 2 :])
    picked = flat.index_select(0, (first + index[:, None]).flatten())
    return picked.view(*rows.shape[: axis + 1], index.shape[1], *rows.shape[axis + 2 :])


def interpolate(rows: Tensor, axis: int, taps: Taps) -> Tensor:
    """Interpolate along one axis; the result has as many places there as the taps."""
    taps = taps.to(rows.device)
    if axis == rows.ndim - 2 and rows.shape[-1] <= _MATRIX_SIZE:
        matrix = torch.zeros((len(rows), rows.shape[-1], taps.low.shape[1]), device=rows.device)
        matrix.scatter_add_(1, taps.low[:, None], taps.low_weight[:, None])
        matrix.scatter_add_(1, taps.high[:, None], taps.high_weight[:, None])
        return (rows.reshape(len(rows), -1, rows.shape[-1]) @ matrix).view(*rows.shape[:-1], -1)
    shape = (len(rows), *[1] * axis, -1, *[1] * (rows.ndim - axis - 2))
    out = pick(rows, axis, taps.low).mul_(taps.low_weight.view(shape))
    return out.addcmul_(pick(rows, axis, taps.high), taps.high_weight.view(shape))


def interpolate_all(rows: Tensor, taps: Sequence[Taps | None]) -> Tensor:
    """Interpolate along every axis (None leaves one as it is), those first that lose most voxels."""
    growth = [1.0 if t is None else t.low.shape[1] / rows.shape[axis + 1] for axis, t in enumerate(taps)]
    for axis in sorted(range(len(taps)), key=growth.__getitem__):
        along = taps[axis]
        if along is not None:
            rows = interpolate(rows, axis, along)
    return rows
