"""Preprocessing of an image that is larger than memory: part by part, from its reader into an array on disk.

Nothing but a part is in memory at a time. What comes out is what `Preprocessing` makes of the whole image, but for the
rounding of statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.kernel import Registry
from segplug.model import Case, ChannelStatistics, ComponentRef, Configuration, Plan
from segplug.protocols import OpenImage, RegionNormalizer, RegionReader
from segplug.runtime.cropping import Box
from segplug.runtime.preprocessing import (
    NotFiniteError,
    Preprocessing,
    geometry_to_json,
    require_finite,
    resampled_shape,
)
from segplug.runtime.probability_file import forget_pages, scratch_array

BYTES_OF_A_PART = 1 << 24
"""In float32, of all channels together; a chunk of the file may be larger, and is read whole."""

Normalize = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def open_image(registry: Registry, reader: ComponentRef, case: Case) -> OpenImage | None:
    """A case whose regions can be read; None if its reader cannot do that.

    Raises:
        DataError: a file is missing or damaged.
    """
    found: Any = registry.load(registry.resolve("readers", reader.name))
    return found.open(case.images, **reader.options) if isinstance(found, RegionReader) else None


def prepare_on_disk(
    image: OpenImage, plan: Plan, configuration: Configuration, registry: Registry, folder: Path | None
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Preprocess an image that is open.

    Args:
        folder: on whose disk the result lies.

    Returns:
        Data, float32 (c, z, y, x) in the plan's axis order, mapped from a file that vanishes with it, and properties;
        both as of `segplug.runtime.preprocessing.preprocess_image`.

    Raises:
        DataError: a value is not finite or a part of the file damaged; a step of the plan needs the whole image at
            once; the disk has no room.
    """
    steps = Preprocessing.of(plan, configuration, registry)
    if image.shape[0] != len(steps.normalizers):
        raise DataError(f"the image has {image.shape[0]} channels, the plan {len(steps.normalizers)}")
    if any(steps.use_mask):
        raise _too_large("intensities are normalised within the mask of nonzero voxels (use_mask_for_norm)")
    box = _nonzero_box(image)
    transpose = steps.transpose
    size = [stop - start for start, stop in box]
    shape = tuple(size[axis] for axis in transpose)
    spacing = tuple(image.geometry.spacing[axis] for axis in transpose)
    target = steps.target_spacing(spacing)
    if resampled_shape(shape, spacing, target) != shape:
        raise _too_large(f"it is resampled from a spacing of {spacing} to {target}")
    normalize = [_by_region(image, box, index, steps, configuration, registry) for index in range(image.shape[0])]
    data = scratch_array((image.shape[0], *shape), folder, "the preprocessed image", "--max-memory, in memory")
    straight = data.transpose(0, *(1 + transpose.index(axis) for axis in range(3)))
    for start, stop in parts(box, image.chunks, image.shape[0]):
        part = image.read(start, stop)
        place = tuple(slice(a - low, b - low) for a, b, (low, _) in zip(start, stop, box, strict=True))
        for channel, out, work in zip(part, straight, normalize, strict=True):
            out[place] = work(channel)
        forget_pages(data)
    return data, {
        "spacing": list(image.geometry.spacing),
        "shape_before_cropping": [image.shape[1 + axis] for axis in transpose],
        "bbox_used_for_cropping": [list(box[axis]) for axis in transpose],
        "shape_after_cropping_and_before_resampling": list(shape),
        "geometry": geometry_to_json(image.geometry),
    }


def parts(
    box: Box, chunks: Sequence[int], channels: int = 1
) -> Iterator[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """Cut a box into parts, (start, stop) each, that consist of whole chunks where they lie within.

    Args:
        box: (start, stop) per axis.
        chunks: of the file, which begin at 0.
        channels: that are read together.
    """
    step = list(chunks)
    for axis in (2, 1, 0):
        extent = box[axis][1] - box[axis][0]
        room = BYTES_OF_A_PART // (4 * channels * prod(step))
        step[axis] *= max(1, min(room, -(-extent // step[axis])))
    edges = []
    for (low, high), size in zip(box, step, strict=True):
        first = low // size * size
        cuts = [max(low, first), *range(first + size, high, size), high]
        edges.append(list(pairwise(cuts)))
    for sides in product(*edges):
        start, stop = zip(*sides, strict=True)
        yield start, stop


def _nonzero_box(image: OpenImage) -> Box:
    """The box that `nonzero_box` finds, with the check that every value is finite."""
    low, high = list(image.shape[1:]), [0, 0, 0]
    for start, stop in parts(tuple((0, n) for n in image.shape[1:]), image.chunks, image.shape[0]):
        part = image.read(start, stop)
        try:
            require_finite(part)
        except NotFiniteError as error:
            told = f"in the region from {start} to {stop} (z, y, x), {error}"
            raise NotFiniteError(told, error.channel) from None
        nonzero = (part != 0).any(axis=0)
        for axis in range(3):
            hit = np.flatnonzero(nonzero.any(axis=tuple(a for a in range(3) if a != axis)))
            if hit.size:
                low[axis] = min(low[axis], start[axis] + int(hit[0]))
                high[axis] = max(high[axis], start[axis] + int(hit[-1]) + 1)
    if not all(high):  # nothing but zeros: all of it, as for other images
        return tuple((0, n) for n in image.shape[1:])
    return tuple(zip(low, high, strict=True))


def _by_region(
    image: OpenImage, box: Box, index: int, steps: Preprocessing, configuration: Configuration, registry: Registry
) -> Normalize:
    ref = configuration.normalization[index]
    found: Any = registry.load(registry.resolve("normalizers", ref.name))
    if not isinstance(found, RegionNormalizer):
        raise _too_large(f"normalizer {ref.name!r} of channel {index} cannot work part by part")
    statistics: ChannelStatistics | None = steps.statistics[index]
    whole = (image.read(start, stop)[index] for start, stop in parts(box, image.chunks, image.shape[0]))
    return found.by_region(whole, statistics, **ref.options)


def _too_large(why: str) -> DataError:
    return DataError(
        f"the image is too large for --max-memory, and {why}, for which it has to be in memory. Give more memory"
    )
