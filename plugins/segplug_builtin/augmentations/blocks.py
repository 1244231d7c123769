"""Turning of samples on a CPU, block by block so that what is computed with stays in the cache.

For every voxel of a block its cell in the source (the 8 or 4 voxels about its place) is found once, and used for the
image and for all labels. Labels need no interpolation where a cell holds one label only: a map made beforehand tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from segplug_builtin.augmentations.finishing import OUTSIDE
from segplug_builtin.augmentations.voting import winner

MIXED = -2
"""Stands in the map of cells for cells with several labels."""
BLOCK = 2**18
"""Voxels of all channels computed at a time, with `LARGEST` of a channel at most: what was quickest with 1 MB of L2."""
LARGEST = 2**17
_EXACT = 2**24  # whole numbers up to here are exact in float32


@dataclass(frozen=True)
class Block:
    """A piece of the patch.

    Args:
        voxels: which ones, in the flattened patch.
        cells: int32, index of each voxel's cell (its lowest corner) in the flattened source.
        fractions: per axis, float32, place within the cell.
    """

    voxels: slice
    cells: Tensor
    fractions: tuple[Tensor, ...]


class Turned:
    """Places of a patch's voxels in a source.

    Args:
        matrix: (k, k), from patch to source, both from their centres.
        size: of the patch, k axes.
        region: size of the source array, k axes.
        centre: of the source in the array, in voxel indices.
    """

    def __init__(
        self, matrix: NDArray[np.float64], size: Sequence[int], region: Sequence[int], centre: Sequence[float]
    ) -> None:
        reach = np.abs(matrix) @ ((np.asarray(size) - 1) / 2) + 1e-3
        where, whole = np.asarray(centre), np.asarray(region)
        self._inside = bool((where - reach >= 0).all() and (where + reach < whole - 1).all())
        self._matrix, self._size, self._region = matrix, tuple(size), tuple(region)
        self._centre = where if self._inside else where + 1
        self.extents = self._region if self._inside else tuple(extent + 3 for extent in region)

    def padded(self, source: Tensor, value: int) -> Tensor:
        """The source (channels, *region), with a border where the patch reaches outside; voxels flattened."""
        if not self._inside:
            source = F.pad(source, (1, 2) * len(self._region), value=value)
        return source.contiguous().view(len(source), -1)

    def strides(self) -> list[int]:
        """Of the flattened source, per axis."""
        strides = [1]
        for extent in self.extents[:0:-1]:
            strides.insert(0, strides[0] * extent)
        return strides

    def corners(self) -> list[int]:
        """Offsets of a cell's corners in the flattened source, the last axis fastest."""
        return [sum(steps) for steps in product(*((0, stride) for stride in self.strides()))]

    def blocks(self, channels: int) -> Iterator[Block]:
        """All voxels, in order, in blocks fit for so many channels."""
        lines = [torch.arange(extent, dtype=torch.float64) - (extent - 1) / 2 for extent in self._size]
        line = int(np.prod(self._size[1:]))
        per_step = max(1, min(LARGEST, BLOCK // channels) // line)
        strides = self.strides()
        exact = int(np.prod(self.extents)) <= _EXACT
        for first in range(0, self._size[0], per_step):
            parts = [lines[0][first : first + per_step], *lines[1:]]
            cells: Tensor | None = None
            fractions = []
            for axis, stride in enumerate(strides):
                place = self._along(parts, axis)
                low = place.floor()
                fractions.append(place.sub_(low).flatten())
                low = low if exact else low.long()
                cells = low.mul_(stride) if cells is None else cells.add_(low, alpha=stride)
            assert cells is not None
            stop = min(first + per_step, self._size[0])
            yield Block(slice(first * line, stop * line), cells.flatten().int(), tuple(fractions))

    def _along(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        """Index in the source along one axis, for the product of the parts."""
        row = self._matrix[axis]
        outer = torch.tensor(float(self._centre[axis]), dtype=torch.float64)
        for number, part in enumerate(parts[:-1]):
            outer = outer[..., None] + float(row[number]) * part
        place = outer.float()[..., None] + (float(row[-1]) * parts[-1]).float()
        if not self._inside:
            place.clamp_(0, self._region[axis] + 1)
        return place


def turn(image: Tensor | None, labels: Tensor | None, turned: Turned, image_out: Tensor, labels_out: Tensor) -> None:
    """Resample one sample.

    Args:
        image: float32 (channels, *region), interpolated into `image_out` (channels, *size), 0 outside; or None.
        labels: int16 (maps, *region), by vote into `labels_out` (maps, *size), -1 outside; or None.
    """
    if labels is None:
        if image is not None:
            padded, around = turned.padded(image, 0), turned.corners()
            for block in turned.blocks(len(image)):
                image_out.flatten(1)[:, block.voxels] = _interpolated(padded, around, block)
        return
    corners = turned.corners()
    values = None if image is None else turned.padded(image, 0)
    maps = turned.padded(narrowed(labels), OUTSIDE)
    cell_map = map_of_cells(maps, turned.strides())
    image_out, labels_out = image_out.flatten(1), labels_out.flatten(1)
    mixed: list[_MixedCells] = []
    for block in turned.blocks(max(len(labels), 0 if image is None else len(image))):
        if values is not None:
            image_out[:, block.voxels] = _interpolated(values, corners, block)
        found = _fetch(cell_map, block.cells)
        labels_out[:, block.voxels] = found
        mixed.append(_mixed_cells(found, block, labels_out.shape[1], maps.shape[1]))
    put_winners(maps, corners, mixed, labels_out)


@dataclass(frozen=True)
class _MixedCells:
    """Voxels whose cell holds several labels.

    Args:
        voxels, cells: int64, indices in all maps laid end to end, of the patch and of the source.
        fractions: per axis.
    """

    voxels: Tensor
    cells: Tensor
    fractions: tuple[Tensor, ...]


def put_winners(maps: Tensor, corners: Sequence[int], mixed: Sequence[_MixedCells], out: Tensor) -> None:
    """Decide the labels of mixed cells and write them into `out` (maps, voxels)."""
    voxels = torch.cat([part.voxels for part in mixed])
    if not len(voxels):
        return
    cells = torch.cat([part.cells for part in mixed])
    fractions = [torch.cat(parts) for parts in zip(*(part.fractions for part in mixed), strict=True)]
    flat = maps.view(-1)
    labels = torch.stack([flat[corner:].index_select(0, cells) for corner in corners])
    out.view(-1).scatter_(0, voxels, winner(labels, fractions).to(out.dtype))


def map_of_cells(maps: Tensor, strides: Sequence[int]) -> Tensor:
    """For each voxel of flattened label maps, the label of the cell that begins there, or MIXED."""
    low = high = maps
    for stride in strides:
        count = low.shape[1] - stride
        low, high = (
            torch.minimum(low[:, :count], low[:, stride:]),
            torch.maximum(high[:, :count], high[:, stride:]),
        )
    several = (low != high).to(low.dtype)
    return low.bitwise_and_(several - 1).bitwise_or_(several.mul_(MIXED))  # several times quicker than torch.where


def narrowed(labels: Tensor) -> Tensor:
    """As int8 if that holds them: half the memory to go through."""
    return labels.to(torch.int8) if int(labels.max()) <= torch.iinfo(torch.int8).max else labels


def _interpolated(values: Tensor, corners: Sequence[int], block: Block) -> Tensor:
    end = values.numel() - corners[-1]
    found = [_fetch(values, block.cells, corner, end) for corner in corners]
    for fraction in reversed(block.fractions):
        found = [low.lerp_(high, fraction) for low, high in zip(found[::2], found[1::2], strict=True)]
    return found[0]


def _fetch(maps: Tensor, cells: Tensor, corner: int = 0, end: int | None = None) -> Tensor:
    """What stands at a corner of the cells in every map: (maps, cells)."""
    flat = maps.view(-1)[corner : None if end is None else corner + end]
    if len(maps) == 1:
        return flat.index_select(0, cells)[None]
    first = torch.arange(0, maps.numel(), maps.shape[1])
    if maps.numel() < 2**31:
        first = first.int()
    return flat.index_select(0, (first[:, None] + cells).view(-1)).view(len(maps), -1)


def _mixed_cells(found: Tensor, block: Block, patch: int, source: int) -> _MixedCells:
    where = torch.from_numpy(np.flatnonzero((found == MIXED).numpy()))  # much quicker than torch's nonzero
    count = found.shape[1]
    which, voxel = (where // count, where % count) if len(found) > 1 else (0, where)
    return _MixedCells(
        which * patch + block.voxels.start + voxel,
        which * source + block.cells.index_select(0, voxel).long(),
        tuple(fraction.index_select(0, voxel) for fraction in block.fractions),
    )
