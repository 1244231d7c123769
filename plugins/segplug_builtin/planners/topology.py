"""Where a U-Net pools and which kernels it uses: from voxel spacing and patch size alone.

nnU-Net's rule (Isensee et al. 2021, supplementary note 2): axes are halved while they are long enough, coarse axes wait
until the others have caught up with their spacing, and convolutions do not reach along an axis before that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SMALLEST_EDGE = 4
"""Shortest edge of a feature map, in voxels (nnU-Net)."""

Sizes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Topology:
    """Stages of a U-Net, from full resolution to the bottleneck.

    Args:
        patch_size: the patch asked for, rounded up to what the pooling can divide.
        strides: per stage, how much its first convolution shrinks each axis; all ones for the first stage.
        kernel_sizes: per stage and axis, 1 or 3.
        divisor: per axis, what the patch size must be a multiple of.
    """

    patch_size: tuple[int, ...]
    strides: Sizes
    kernel_sizes: Sizes
    divisor: tuple[int, ...]

    @property
    def stages(self) -> int:
        return len(self.strides)


def plan_topology(spacing: Sequence[float], patch_size: Sequence[float]) -> Topology:
    """The stages for a patch of this spacing; sizes may be fractional (medians of an even number of cases are)."""
    axes = range(len(spacing))
    spacing, size = [float(s) for s in spacing], [float(n) for n in patch_size]
    kernel = [1] * len(spacing)
    poolings = [0] * len(spacing)
    strides: list[tuple[int, ...]] = [(1,) * len(spacing)]
    kernels: list[tuple[int, ...]] = []
    while pooled := _axes_to_pool(spacing, size):
        finest = min(spacing)
        kernel = [3 if k == 3 or s / finest < 2 else 1 for k, s in zip(kernel, spacing, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in pooled else 1 for axis in axes))
        for axis in pooled:
            poolings[axis] += 1
            spacing[axis] *= 2
            size[axis] = math.ceil(size[axis] / 2)
    kernels.append((3,) * len(spacing))  # the bottleneck sees every axis
    divisor = tuple(2**n for n in poolings)
    padded = tuple(math.ceil(n / d) * d for n, d in zip(patch_size, divisor, strict=True))
    return Topology(padded, tuple(strides), tuple(kernels), divisor)


def _axes_to_pool(spacing: Sequence[float], size: Sequence[float]) -> list[int]:
    """Axes that the next stage halves; none ends the encoder."""
    long_enough = [axis for axis, n in enumerate(size) if n >= 2 * SMALLEST_EDGE]
    if not long_enough:
        return []
    finest = min(spacing[axis] for axis in long_enough)
    pooled = [axis for axis in long_enough if spacing[axis] / finest < 2]
    # halving one axis alone must be worth a stage
    return [] if len(pooled) == 1 and size[pooled[0]] < 3 * SMALLEST_EDGE else pooled
