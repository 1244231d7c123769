"""Which turns and mirrorings suit a patch size, and how large a region they need: nnU-Net's rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DUMMY_2D_ASPECT = 3.0
"""A 3D patch more than this much shorter along its first axis is turned and scaled slice by slice (nnU-Net's rule)."""
SQUARE_2D_ASPECT = 1.5
"""A 2D patch longer than this is turned by 15 degrees at most instead of 180 (nnU-Net's rule)."""
PLANNED_SHRINK = 0.85
"""Smallest scale that the source region is planned for. Stronger ones (scales differ) meet padding: nnU-Net's rule."""


@dataclass(frozen=True)
class Geometry:
    """What follows from the patch size.

    Args:
        patch_size: two or three axes.
        rotation: largest angle in either direction, radians.
        dummy_2d: turn and scale in the plane of the last two axes only.
        source_size: region that patches are cut from.
        mirror_axes: spatial axes that may be mirrored.
    """

    patch_size: tuple[int, ...]
    rotation: float
    dummy_2d: bool
    source_size: tuple[int, ...]
    mirror_axes: tuple[int, ...]

    @property
    def turned_axes(self) -> int:
        """How many of the last axes are turned and scaled."""
        return 2 if self.dummy_2d else len(self.patch_size)


def geometry_of(
    patch_size: Sequence[int], dummy_2d: bool | None = None, planned_shrink: float = PLANNED_SHRINK
) -> Geometry:
    """nnU-Net's choice for a patch size of two or three axes.

    Args:
        dummy_2d: None for nnU-Net's choice; no matter with two axes.
        planned_shrink: smallest scale that the source region is large enough for.
    """
    size = tuple(int(extent) for extent in patch_size)
    wanted = max(size) / size[0] > DUMMY_2D_ASPECT if dummy_2d is None else dummy_2d
    dummy_2d = len(size) == 3 and wanted
    degrees = 180 if dummy_2d else 30
    if len(size) == 2:
        degrees = 15 if max(size) / min(size) > SQUARE_2D_ASPECT else 180
    rotation = math.radians(degrees)
    source = initial_patch_size(size, rotation, planned_shrink)
    if dummy_2d:
        source = (size[0], *source[1:])
    return Geometry(size, rotation, dummy_2d, source, tuple(range(len(size))))


Mirror = bool | str | Sequence[int]
"""Along which axes an augmentation mirrors: all (True), none (False), `all_but_last`, or these."""


def mirrored_axes(possible: Sequence[int], mirror: Mirror) -> tuple[int, ...]:
    """Axes to mirror along.

    Args:
        possible: all that there are.

    Raises:
        ValueError: `mirror` is none of what it may be, or names an axis that is not there.
    """
    if isinstance(mirror, bool):
        return tuple(possible) if mirror else ()
    if mirror == "all_but_last":
        return tuple(possible[:-1])
    if isinstance(mirror, str) or not all(type(axis) is int and axis in possible for axis in mirror):
        axes = ", ".join(map(str, possible))
        raise ValueError(f"mirror {mirror!r}; expected true, false, 'all_but_last' or a list of axes among {axes}")
    return tuple(sorted(set(mirror)))


def initial_patch_size(
    patch_size: Sequence[int], rotation: float, planned_shrink: float = PLANNED_SHRINK
) -> tuple[int, ...]:
    """Region that a patch is cut from.

    Per axis the patch's extent, or how far its corner gets by a rotation (at most 90 degrees) about one axis if that is
    further; divided by `planned_shrink` and cut to whole voxels.
    """
    angle = min(math.pi / 2, rotation)
    cos, sin = math.cos(angle), math.sin(angle)
    extent = [float(size) for size in patch_size]
    planes = ((0, 1),) if len(extent) == 2 else ((1, 2), (2, 0), (0, 1))
    largest = list(extent)
    for first, second in planes:
        a, b = patch_size[first], patch_size[second]
        largest[first] = max(largest[first], abs(a * cos + b * sin))
        largest[second] = max(largest[second], abs(b * cos - a * sin))
    return tuple(int(size / planned_shrink) for size in largest)


def affine_matrix(angles: Sequence[float], scale: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix that takes a voxel's place in the patch to its place in the source, both from their centres.

    Args:
        angles: one for a turn in the plane, or three, about the axes in turn, the first axis first.
        scale: above 1 for smaller objects; one, or one per axis, before the turn.
    """
    if len(angles) == 1:
        return scale * _turn(2, 0, 1, angles[0])
    return scale * _turn(3, 0, 1, angles[2]) @ _turn(3, 2, 0, angles[1]) @ _turn(3, 1, 2, angles[0])


def _turn(axes: int, first: int, second: int, angle: float) -> NDArray[np.float64]:
    matrix = np.eye(axes)
    matrix[first, first] = matrix[second, second] = math.cos(angle)
    matrix[first, second], matrix[second, first] = -math.sin(angle), math.sin(angle)
    return matrix


def needed_region(
    patch_size: Sequence[int], source_size: Sequence[int], matrix: NDArray[np.float64]
) -> tuple[int, ...]:
    """Size of the region that linear interpolation of the patch reads; it begins at `source // 2 - size // 2`."""
    reach = np.abs(matrix) @ ((np.asarray(patch_size) - 1) / 2) + 1e-3  # coordinates are rounded to float32
    needed = []
    for source, extent in zip(source_size, reach, strict=True):
        first = math.floor((source - 1) / 2 - extent)
        last = math.floor((source - 1) / 2 + extent) + 1
        needed.append(min(source, 2 * max(source // 2 - first, last + 1 - source // 2)))
    return tuple(needed)
