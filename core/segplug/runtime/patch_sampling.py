"""Where training patches are taken from: nnU-Net's rules as a pure function of a random generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LabelKey = int | tuple[int, ...]
Locations = Mapping[LabelKey, NDArray[np.int32]]


@dataclass(frozen=True)
class PatchRules:
    """How patches are placed in every case of a training.

    Args:
        source_size: the region to place, three axes (a 2D patch is one voxel thick along the first).
        patch_size: what the network sees of it, three axes. Source regions may begin so far outside of the image that a
            patch still reaches its border: the image is thought extended by `source_size - patch_size` in all.
        annotated: key of the locations of all annotated voxels, for data sets with an ignore label; else None.
    """

    source_size: tuple[int, ...]
    patch_size: tuple[int, ...]
    annotated: LabelKey | None = None


def annotated_key(all_labels: Sequence[int]) -> tuple[int, ...]:
    """Key under which the locations of annotated voxels are kept: nnU-Net's, -1 and every label but ignore."""
    return (-1, *all_labels)


def wants_foreground(
    sample: int, batch_size: int, share: float, probabilistic: bool, random: np.random.Generator
) -> bool:
    """Whether a sample of a batch must hold foreground.

    Fixed: sample i of a batch iff i >= round(batch_size * (1 - share)), so the last ones of each batch (nnU-Net's
    rule, with Python's rounding of halves to even). Probabilistic: each sample with probability `share`.
    """
    if probabilistic:
        return bool(random.random() < share)
    return sample >= round(batch_size * (1 - share))


def place_patch(
    shape: Sequence[int], locations: Locations, rules: PatchRules, foreground: bool, random: np.random.Generator
) -> tuple[int, ...]:
    """First voxel of a source region, which may lie outside of the image (then it is to be padded).

    nnU-Net's rule: a foreground region is centred on a uniform voxel of a class drawn uniformly from those present,
    clamped below but not above. Others begin uniformly between the bounds; with an ignore label they are centred on any
    annotated voxel instead. A case without the locations asked for is treated like the others without ignore label.

    Args:
        shape: spatial shape of the case, three axes.
        locations: per class, voxels (n, 3) of it.
        foreground: whether the sample must hold foreground.
    """
    voxels = _candidates(locations, rules.annotated, foreground, random)
    lower, upper = _bounds(shape, rules)
    if voxels is None:
        return tuple(int(random.integers(low, high + 1)) for low, high in zip(lower, upper, strict=True))
    centre = voxels[random.integers(len(voxels))]
    return tuple(max(low, int(at) - size // 2) for low, at, size in zip(lower, centre, rules.source_size, strict=True))


def _candidates(
    locations: Locations, annotated: LabelKey | None, foreground: bool, random: np.random.Generator
) -> NDArray[np.int32] | None:
    if not foreground:
        voxels = locations.get(annotated) if annotated is not None else None
        return voxels if voxels is not None and len(voxels) else None
    present = sorted(
        (key for key, voxels in locations.items() if len(voxels)), key=repr
    )  # whatever order they were kept in
    if len(present) > 1 and annotated in present:  # only where nothing else is there does it count as a class
        present.remove(annotated)
    return locations[present[random.integers(len(present))]] if present else None


def _bounds(shape: Sequence[int], rules: PatchRules) -> tuple[list[int], list[int]]:
    """Smallest and largest first voxel per axis."""
    lower, upper = [], []
    for extent, source, patch in zip(shape, rules.source_size, rules.patch_size, strict=True):
        margin = max(source - patch, source - extent)  # an image smaller than the region is extended to its size
        half = -(-margin // 2)
        lower.append(-half)
        upper.append(extent + half - source)
    return lower, upper
