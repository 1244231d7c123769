"""How far two images of one case lie apart in the world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from segplug.model import Geometry

ASSUMED = "assumed"
"""Key under `Geometry.extra`: names of what a reader had to assume because the files do not tell, as ["spacing"]."""

DOUBTS = "doubts"
"""Key under `Geometry.extra`: what in a file's header contradicts itself, one [kind, found, expected, remedy] each;
`dataset verify` warns of them."""

SPACING_TOLERANCE = 1e-5
"""Relative; that of nnU-Net, which refuses what differs by more."""

SHIFT_TOLERANCE = 0.1
"""Voxels that a corner may be displaced by origin and direction before images no longer show the same place. nnU-Net
only warns, whatever the shift; headers of aligned images differ by rounding, far below this."""

SHIFT_NOTICE = 1e-3
"""Voxels of displacement from which it is worth a word; single-precision headers stay below."""


@dataclass(frozen=True)
class Difference:
    """One way in which two geometries differ. `aligned` tells that it is a matter of rounding and stops nothing."""

    what: str
    found: str
    expected: str
    aligned: bool = False


def differences(
    found: Geometry, found_shape: Sequence[int], expected: Geometry, expected_shape: Sequence[int]
) -> list[Difference]:
    """Everything in which `found` is not `expected`: shape, spacing, origin, direction. Shapes are spatial (z, y, x).

    Origin and direction are judged by the largest displacement of a corner of the image, in voxels.
    """
    result = []
    if tuple(found_shape) != tuple(expected_shape):
        result.append(Difference("shape", _numbers(found_shape), _numbers(expected_shape)))
    if found.spacing != expected.spacing and not np.allclose(
        found.spacing, expected.spacing, rtol=SPACING_TOLERANCE, atol=1e-8
    ):
        result.append(Difference("spacing", _numbers(found.spacing), _numbers(expected.spacing)))
    if len(found.origin) != len(expected.origin) or len(found.direction) != len(expected.direction):
        axes = "{} axes placed in the world"
        result.append(Difference("dimensions", axes.format(len(found.origin)), axes.format(len(expected.origin))))
        return result
    if found.origin == expected.origin and found.direction == expected.direction:  # of label maps nearly always
        return result
    origin_shift = displacement(Geometry(expected.spacing, found.origin, expected.direction), expected, expected_shape)
    if origin_shift > SHIFT_NOTICE:
        apart = f" ({origin_shift:.3g} voxels apart)"
        aligned = origin_shift <= SHIFT_TOLERANCE
        result.append(Difference("origin", _numbers(found.origin) + apart, _numbers(expected.origin), aligned))
    turned = displacement(Geometry(expected.spacing, expected.origin, found.direction), expected, expected_shape)
    if turned > SHIFT_NOTICE:
        apart = f" (a corner {turned:.3g} voxels away)"
        aligned = turned <= SHIFT_TOLERANCE
        result.append(Difference("direction", _numbers(found.direction) + apart, _numbers(expected.direction), aligned))
    return result


def displacement(one: Geometry, other: Geometry, shape: Sequence[int]) -> float:
    """Largest distance between where the two put a corner of an image, in voxels (the smaller one of each axis).

    0 for formats that place nothing in the world.
    """
    axes = len(other.origin)
    if not axes or len(other.direction) != axes * axes:
        return 0.0
    corners = np.array(list(product(*((0, n - 1) for n in reversed(tuple(shape)[-axes:])))), dtype=float)
    apart = corners @ (_matrix(one, axes) - _matrix(other, axes)).T + np.subtract(one.origin, other.origin)
    voxel = min(min(abs(s) for s in g.spacing[-axes:]) for g in (one, other))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nan_to_num(np.linalg.norm(apart, axis=1).max() / voxel, nan=np.inf))


def _matrix(geometry: Geometry, axes: int) -> NDArray[np.float64]:
    """From voxel indices in the file's order (x, y, z) to the world, without the origin."""
    directions = np.reshape(np.asarray(geometry.direction, dtype=float), (axes, axes))
    spacing = np.asarray(tuple(reversed(geometry.spacing[-axes:])), dtype=float)
    return np.asarray(directions * spacing)


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:.6g}" for v in values) + ")"
