"""Metrics of one class of a prediction against the reference.

Dice and IoU come from voxel counts alone. The surface metrics follow Metrics Reloaded (Maier-Hein, Reinke et al.,
Nature Methods 2024): the surface of a mask is the set of its voxels that have a face neighbour outside the mask, where
outside the image counts as outside the mask and axes of one voxel have no neighbours (but for an image of one voxel,
which is its own surface); distances are Euclidean, between voxel centres, in the unit of the spacing (mm as a rule). A
voxel with the ignore label is outside both masks.

Every metric is NaN if neither reference nor prediction has the class.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from segplug.errors import UsageError
from segplug.protocols import Comparison

_ROUNDING = 1e-6
"""A distance of exactly the tolerance is within it, although 3 * 0.3 > 0.9 in floating point."""


def dice(comparison: Comparison) -> float:
    """Dice similarity coefficient, 2 TP / (2 TP + FP + FN); 0 if only one of the two has the class.

    Source: Dice, Ecology 1945; nnU-Net's rule for the empty case.
    """
    disagree = comparison.fp + comparison.fn
    if comparison.tp + disagree == 0:
        return math.nan
    return 2 * comparison.tp / (2 * comparison.tp + disagree)


def iou(comparison: Comparison) -> float:
    """Intersection over union (Jaccard index), TP / (TP + FP + FN); 0 if only one of the two has the class."""
    union = comparison.tp + comparison.fp + comparison.fn
    return comparison.tp / union if union else math.nan


def hd95(comparison: Comparison, percentile: float = 95.0) -> float:
    """Hausdorff distance at a percentile, in the unit of the spacing.

    The larger of two values: the percentile (linear interpolation, as `numpy.percentile`) of the distances from each
    reference surface voxel to the predicted surface, and the same the other way round (Metrics Reloaded; Huttenlocher
    et al., 1993). With `percentile=100` it is the Hausdorff distance.

    If only one of the two has the class, the distance between opposite corners of the image, the largest that any
    prediction in it could have: a missed structure makes the mean worse, but not infinite.

    Raises:
        UsageError: `percentile` is not in 0..100.
    """
    if not 0 <= percentile <= 100:
        raise UsageError(f"hd95: percentile={percentile!r}; expected a number from 0 to 100")
    if _absent(comparison):
        return math.nan
    if _one_sided(comparison):
        return _diagonal(comparison)
    distances = _surface_distances(comparison)
    return float(max(np.percentile(d, percentile) for d in distances))


def surface_dice(comparison: Comparison, tolerance: float = 1.0) -> float:
    """Normalised surface distance (surface Dice): the share of both surfaces that lies within `tolerance` of the other.

    (|S_ref within tolerance of S_pred| + |S_pred within tolerance of S_ref|) / (|S_ref| + |S_pred|), counted in surface
    voxels (Nikolov et al., JMIR 2021; voxel form of Metrics Reloaded). 0 if only one of the two has the class.

    Args:
        tolerance: in the unit of the spacing, inclusive.

    Raises:
        UsageError: `tolerance` is negative or not finite.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UsageError(f"surface_dice: tolerance={tolerance!r}; expected a distance >= 0 in the unit of the spacing")
    if _absent(comparison):
        return math.nan
    if _one_sided(comparison):
        return 0.0
    distances = _surface_distances(comparison)
    within = sum(int(np.count_nonzero(d <= tolerance * (1 + _ROUNDING))) for d in distances)
    return within / sum(len(d) for d in distances)


def _absent(comparison: Comparison) -> bool:
    return comparison.tp + comparison.fp + comparison.fn == 0


def _one_sided(comparison: Comparison) -> bool:
    return comparison.tp + comparison.fn == 0 or comparison.tp + comparison.fp == 0


def _diagonal(comparison: Comparison) -> float:
    shape = comparison.reference_labels.shape
    return math.hypot(*((n - 1) * s for n, s in zip(shape, comparison.spacing, strict=True)))


def _surface_distances(comparison: Comparison) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance of each reference surface voxel to the predicted surface, and the reverse. Both masks hold voxels."""
    from scipy.spatial import KDTree

    spacing = np.asarray(comparison.spacing, dtype=np.float64)
    reference = _surface(comparison.reference) * spacing
    prediction = _surface(comparison.prediction) * spacing
    to_prediction, _ = KDTree(prediction).query(reference)
    to_reference, _ = KDTree(reference).query(prediction)
    return to_prediction, to_reference


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Coordinates (n, axes) of the surface voxels of a mask that holds voxels."""
    box = tuple(slice(int(where.min()), int(where.max()) + 1) for where in _occupied(mask))
    inside = mask[box]
    interior = inside.copy()
    for axis in [a for a in range(mask.ndim) if mask.shape[a] > 1 or mask.size == 1]:
        values, kept = np.moveaxis(inside, axis, 0), np.moveaxis(interior, axis, 0)
        kept[1:] &= values[:-1]
        kept[:-1] &= values[1:]
        kept[0] = kept[-1] = False  # what lies outside the box lies outside the mask too
    return np.argwhere(inside & ~interior) + np.array([s.start for s in box], dtype=np.intp)


def _occupied(mask: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Per axis, the indices at which the mask has voxels."""
    axes = range(mask.ndim)
    return [np.flatnonzero(mask.any(axis=tuple(a for a in axes if a != axis))) for axis in axes]
