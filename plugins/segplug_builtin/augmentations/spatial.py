"""From source regions to patches: cropped, or turned and scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segplug.protocols import Parameters
from segplug.runtime.device import sent
from segplug_builtin.augmentations.blocks import Turned, turn
from segplug_builtin.augmentations.finishing import OUTSIDE
from segplug_builtin.augmentations.geometry import Geometry
from segplug_builtin.augmentations.grids import turn_batch
from segplug_builtin.augmentations.linear import interpolate_all, taps_at
from segplug_builtin.augmentations.nearest import turn_nearest

ImageOrder = Literal["linear", "nearest"]
LabelOrder = Literal["vote", "nearest"]


@dataclass(frozen=True)
class Order:
    """How what is turned or scaled is read between voxels.

    Args:
        labels: `vote` takes the label with the largest interpolated indicator, `nearest` the nearest voxel's.
        images: `linear`, or the `nearest` voxel's value.

    Raises:
        ValueError: one is something else.
    """

    labels: LabelOrder = "vote"
    images: ImageOrder = "linear"

    def __post_init__(self) -> None:
        for name, known in (("labels", LabelOrder), ("images", ImageOrder)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"{name} {getattr(self, name)!r}; expected one of {', '.join(get_args(known))}")


def crop(source: Tensor, size: Sequence[int]) -> Tensor:
    """View of the centre of (samples, channels, *spatial), begun at ``whole // 2 - size // 2``."""
    slices = [
        slice(whole // 2 - part // 2, whole // 2 - part // 2 + part)
        for whole, part in zip(source.shape[2:], size, strict=True)
    ]
    return source[(slice(None), slice(None), *slices)]


def move(
    data: Tensor, maps: Tensor, parameters: Sequence[Parameters], geometry: Geometry, order: Order | None = None
) -> tuple[Tensor, Tensor]:
    """Turn and scale each sample, or crop it, to the patch size; images are 0 outside the region, labels -1.

    Args:
        data: float32 (samples, channels, *region).
        maps: int16 (samples, maps, *region), labels.
        parameters: of each sample, see `drawing.draw_sample`.
        order: None interpolates images and lets labels vote.

    Returns:
        The same of patch size, in memory of their own.
    """
    out = _new_patches(data, geometry), _new_patches(maps, geometry)
    moved = [sample for sample, drawn in enumerate(parameters) if "affine" in drawn]
    for sample in range(len(parameters)):
        if sample not in moved:
            for part, part_out in zip((data, maps), out, strict=True):
                part_out[sample] = crop(part[sample : sample + 1], geometry.patch_size)[0]
    if not moved:
        return out
    axes = geometry.turned_axes
    region, source, size = data.shape[-axes:], geometry.source_size[-axes:], geometry.patch_size[-axes:]
    centre = [(total - 1) / 2 - (total // 2 - part // 2) for total, part in zip(source, region, strict=True)]
    images, labels, images_out, labels_out = (_in_plane(part, geometry) for part in (data, maps, *out))
    order = order or Order()
    linear, voting = order.images == "linear", order.labels == "vote"
    for sample in moved:
        matrix = parameters[sample]["affine"]
        if not linear:
            images_out[sample] = turn_nearest(images[sample], matrix, size, centre, 0)
        if not voting:
            labels_out[sample] = turn_nearest(labels[sample], matrix, size, centre, OUTSIDE)
    if data.device.type != "cpu" and (linear or voting):
        index = sent(torch.tensor(moved), data.device)
        matrices = np.stack([parameters[sample]["affine"] for sample in moved])
        turned_images, voted = turn_batch(images[index], labels[index], matrices, size, centre)
        if linear:
            images_out[index] = turned_images
        if voting:
            labels_out[index] = voted
        return out
    for sample in moved:
        matrix = parameters[sample]["affine"]
        scaled_only = not np.count_nonzero(matrix - np.diag(np.diag(matrix)))
        if scaled_only and linear:
            images_out[sample] = _scale(images[sample], np.diag(matrix), size, centre)
        image = images[sample] if linear and not scaled_only else None
        by_vote = labels[sample] if voting else None
        turn(image, by_vote, Turned(matrix, size, region, centre), images_out[sample], labels_out[sample])
    return out


def _new_patches(part: Tensor, geometry: Geometry) -> Tensor:
    return part.new_empty((*part.shape[:2], *geometry.patch_size))


def _in_plane(part: Tensor, geometry: Geometry) -> Tensor:
    """With dummy-2D, slices count as channels."""
    return part.flatten(1, 2) if geometry.dummy_2d else part


def _scale(image: Tensor, scales: NDArray[np.float64], size: Sequence[int], centre: Sequence[float]) -> Tensor:
    """An image (channels, *region) that is scaled and not turned: then linear interpolation goes axis by axis."""
    taps = []
    for scale, extent, middle, voxels in zip(scales, size, centre, image.shape[1:], strict=True):
        places = middle + scale * (torch.arange(extent, dtype=torch.float64) - (extent - 1) / 2)
        taps.append(taps_at(places[None], voxels, outside=True))
    return interpolate_all(image[None], [None, *taps])[0]
