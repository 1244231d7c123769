"""What the preparation of a case takes, by what its headers say: verifying, measuring, preprocessing.

The numbers are upper bounds in bytes: only voxels tell whether a case is cropped or has holes to be filled. They follow
what `case_inspection`, `intensities`, `preprocessing` and the built-in components hold at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from segplug.errors import DataError, UsageError
from segplug.kernel import Registry
from segplug.model import Case, ComponentRef
from segplug.protocols import ImageSize, RegionReader, SizedReader, SizedResampler
from segplug.runtime.intensities import MOST_DISTINCT
from segplug.runtime.preprocessing import Preprocessing, resampled_shape

SLACK = 1 << 25
"""Bytes that stay free: small things that are left out here, and what allocators round up."""

STRANGE_RESAMPLER = 1 << 29
"""Bytes for a resampler that does not tell, and may import anything."""


@dataclass(frozen=True)
class CaseSize:
    """The sizes of a case's image and label map.

    Args:
        counted: voxels of its foreground, if somebody has looked.
    """

    image: ImageSize
    labels: ImageSize
    counted: int | None = None

    @property
    def voxels(self) -> int:
        return prod(self.image.shape[1:])

    @property
    def channels(self) -> int:
        return self.image.shape[0]

    @property
    def foreground(self) -> int:
        """At most."""
        return self.voxels if self.counted is None else self.counted

    @property
    def label_bytes(self) -> int:
        """Of one label in memory: see `case_reading.whole_numbers`."""
        return 2 if self.labels.distinct is not None and self.labels.distinct <= 256 else 4

    @property
    def reading(self) -> int:
        """The label map is read first, and made smaller, then the image."""
        kept = self.label_bytes * self.voxels
        return kept + max(self.labels.reading, self.image.reading)


def case_sizes(registry: Registry, reader: ComponentRef | str, cases: Mapping[str, Case]) -> dict[str, CaseSize | None]:
    """The sizes of cases that have a label map, from their headers; None for one whose headers are damaged.

    Raises:
        UsageError: the reader does not tell sizes, so that no limit of memory can be kept.
    """
    ref = ComponentRef(reader) if isinstance(reader, str) else reader
    found: Any = registry.load(registry.resolve("readers", ref.name))
    if not isinstance(found, (SizedReader, RegionReader)):
        raise UsageError(
            f"--max-memory cannot be kept: reader {ref.name!r} does not tell how large an image is before it is read "
            "(segplug.protocols.SizedReader). Leave the option out, and use fewer --workers"
        )
    sizes: dict[str, CaseSize | None] = {}
    for name, case in cases.items():
        try:
            image = _size(found, case.images, ref.options)
            sizes[name] = None if case.label is None else CaseSize(image, _size(found, [case.label], ref.options))
        except DataError:
            sizes[name] = None
    return sizes


def _size(reader: Any, paths: Sequence[Any], options: Mapping[str, Any]) -> ImageSize:
    if not isinstance(reader, SizedReader):
        image = reader.open(paths, **options)
        return ImageSize(tuple(image.shape), image.geometry.spacing, 3 * 4 * prod(image.shape))
    size = reader.size(paths, **options)
    if size is None:
        files = ", ".join(map(str, paths))
        raise UsageError(
            f"--max-memory cannot be kept: {files}: the header does not tell how large the image is. Leave the option "
            "out, and use fewer --workers"
        )
    return size


def to_inspect(size: CaseSize, draws: int | None) -> int:
    """To verify a case, and to measure it in the same go if `draws` are to be made from each of its channels."""
    voxels = size.voxels
    held = (size.label_bytes + 4 * size.channels) * voxels
    return max(size.reading + SLACK, held + 2 * voxels + SLACK, 0 if draws is None else to_measure(size, draws))


def to_measure(size: CaseSize, draws: int) -> int:
    """To measure a case: its foreground decides."""
    voxels, foreground, drawn = size.voxels, size.foreground, min(draws, size.foreground)
    held = (size.label_bytes + 4 * size.channels) * voxels
    # the mask; a channel's foreground; its counts or draws; these with their values, to be sorted; the results, twice
    tallied = 2 * voxels + 4 * foreground + 4 * drawn + 8 * drawn
    return max(size.reading, held + tallied + 16 * size.channels * _distinct(size, draws)) + SLACK


def to_count(size: CaseSize) -> int:
    """To count a case's foreground."""
    return size.labels.reading + (size.label_bytes + 1) * size.voxels + SLACK


def to_merge(sizes: Sequence[CaseSize], draws: int) -> int:
    """To put what was drawn from the cases together, where they are collected."""
    if not sizes:
        return 0
    parts = [size.channels * _distinct(size, draws) for size in sizes]
    # while they are sorted each is there twice
    return 16 * min(sum(parts), 2 * MOST_DISTINCT * sizes[0].channels + max(parts))


def to_preprocess(size: CaseSize, targets: Sequence[Preprocessing]) -> int:
    """To crop, normalise and resample a case for several configurations."""
    voxels, channels = size.voxels, size.channels
    data, target = 4 * channels * voxels, 2 * voxels
    most = max(
        size.reading,
        # the mask and what filling its holes takes; labels that are not int16 are copied
        data + size.label_bytes * voxels + (target if size.label_bytes > 2 else 0) + 9 * voxels,
    )
    transposed = targets[0].transpose != tuple(range(len(targets[0].transpose)))
    apart = any(not t.normalises_as(targets[0]) for t in targets)
    masked = any(any(t.use_mask) for t in targets)
    # a second copy where axes change places, or there are several ways to normalise; a channel's mask and values
    copies = data * (1 + max(transposed, apart)) + target
    most = max(most, copies + (9 if masked else 5) * voxels)
    for steps in targets:
        most = max(most, copies + _to_resample(size, steps))
    return most + SLACK


def _to_resample(size: CaseSize, steps: Preprocessing) -> int:
    shape = tuple(size.image.shape[1 + axis] for axis in steps.transpose)
    spacing = tuple(size.image.spacing[axis] for axis in steps.transpose)
    wanted = resampled_shape(shape, spacing, steps.target_spacing(spacing))
    new = prod(wanted)
    if shape == wanted:
        return 4 * new
    taken = max(
        _taken(resampler, (size.channels, *shape), wanted) for resampler in (steps.resample_data, steps.resample_seg)
    )
    return (4 * size.channels + 2) * new + taken


def _taken(resampler: Any, shape: Sequence[int], wanted: Sequence[int]) -> int:
    options = dict(resampler.keywords) if isinstance(resampler, partial) else {}
    function = resampler.func if isinstance(resampler, partial) else resampler
    if isinstance(function, SizedResampler):
        return function.taken(shape, wanted, **options)
    largest = prod(max(pair) for pair in zip(shape[1:], wanted, strict=True))
    return STRANGE_RESAMPLER + 4 * 4 * shape[0] * largest


def _distinct(size: CaseSize, draws: int) -> int:
    drawn = min(draws, size.foreground)
    return drawn if size.image.distinct is None else min(drawn, size.image.distinct)
