"""Target spacing, axis order and the shapes that images get by resampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segplug.model import Fingerprint

ANISOTROPY = 3
"""An axis this many times coarser than the others is treated apart (nnU-Net)."""

LOWRES_STEP = 1.03
"""Factor by which 3d_lowres' spacing grows until its patch sees enough of the image (nnU-Net)."""

Vector = NDArray[np.float64]


def target_spacing(fingerprint: Fingerprint) -> Vector:
    """The spacing to resample to, in the images' axis order.

    The median; but if one axis is more than 3 times coarser than the others and has 3 times fewer voxels, that axis
    gets its 10th percentile (no finer than the others), because interpolating thick slices to thicker ones loses
    much (nnU-Net's rule).
    """
    spacings = np.array(fingerprint.spacings, dtype=np.float64)
    target: Vector = np.percentile(spacings, 50, axis=0)
    shape = np.percentile(np.array(fingerprint.shapes_after_crop), 50, axis=0)
    coarse = int(np.argmax(target))
    others = [axis for axis in range(len(target)) if axis != coarse]
    finest_allowed = max(target[others])
    if target[coarse] > ANISOTROPY * finest_allowed and shape[coarse] * ANISOTROPY < min(shape[others]):
        finer = np.percentile(spacings[:, coarse], 10)
        target[coarse] = finest_allowed + 1e-5 if finer < finest_allowed else finer
    return target


def axis_order(spacing: Sequence[float] | Vector) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Transposition that puts the coarsest axis first, and the one that undoes it."""
    coarse = int(np.argmax(spacing))
    forward = (coarse, *(axis for axis in range(len(spacing)) if axis != coarse))
    return forward, tuple(forward.index(axis) for axis in range(len(spacing)))


def median_resampled_shape(fingerprint: Fingerprint, spacing: Vector) -> Vector:
    """Median over cases of the shape after resampling to `spacing`; halves occur with an even number of cases."""
    old = np.array(fingerprint.spacings, dtype=np.float64)
    shapes = np.array(fingerprint.shapes_after_crop)
    resampled: Vector = np.median(np.rint(old / spacing * shapes), axis=0)
    return resampled


def coarser(spacing: Vector) -> Vector:
    """The next spacing to try for 3d_lowres: axes more than twice as fine as the coarsest first, else all."""
    fine = max(spacing) / spacing > 2
    result: Vector = np.where(fine if fine.any() else True, spacing * LOWRES_STEP, spacing)
    return result
