"""Patch and batch size: as large a patch as the budget allows, then as large a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segplug.errors import DataError
from segplug_builtin.planners.feature_maps import UNetShape, feature_map_cost
from segplug_builtin.planners.rules import Rules
from segplug_builtin.planners.topology import Topology, plan_topology

FIRST_VOXELS = {2: 2048**2, 3: 256**3}
"""Volume of the patch to begin with, before it is clipped to the image (nnU-Net)."""


@dataclass(frozen=True)
class NetworkPlan:
    """What one configuration trains."""

    topology: Topology
    unet: UNetShape
    batch_size: int

    @property
    def patch_size(self) -> tuple[int, ...]:
        return self.topology.patch_size


@dataclass(frozen=True)
class Task:
    """What the network has to do.

    Args:
        spacing, median_shape: of the resampled images, two axes for 2D.
        inputs, outputs: channels; nnU-Net counts every entry of `labels` as an output, also regions and ignore.
        dataset_voxels: about as many as all resampled training images have.
    """

    spacing: Sequence[float]
    median_shape: Sequence[float]
    inputs: int
    outputs: int
    dataset_voxels: float


def plan_network(task: Task, rules: Rules, memory_gb: float) -> NetworkPlan:
    """Shrink the patch until the least batch fits into the memory, then fill the memory with samples.

    Raises:
        DataError: no patch of this data set fits.
    """
    reference = rules.reference(len(task.spacing))
    budget = reference.cost * (memory_gb / rules.memory_gb)
    topology = plan_topology(task.spacing, first_patch_size(task.spacing, task.median_shape))
    unet = rules.unet(topology, task.inputs, task.outputs)
    cost = feature_map_cost(unet, topology.patch_size)
    while (cost / reference.batch_size * 2 if rules.weigh_minimum_batch else cost) > budget:
        topology = _shrink(topology, task)
        unet = rules.unet(topology, task.inputs, task.outputs)
        cost = feature_map_cost(unet, topology.patch_size)
    fitting = round((budget / cost) * reference.batch_size)
    share = round(task.dataset_voxels * rules.dataset_share / np.prod(topology.patch_size, dtype=np.float64))
    most = min(fitting, share, rules.max_batch_size or fitting)
    return NetworkPlan(topology, unet, max(most, rules.min_batch_size))


def first_patch_size(spacing: Sequence[float], median_shape: Sequence[float]) -> list[float]:
    """A patch as long in mm along every axis, of a given volume in voxels, and no larger than the median image."""
    resolution = 1 / np.array(spacing)
    axes = len(spacing)
    scale = (FIRST_VOXELS[axes] / np.prod(resolution)) ** (1 / axes)
    return [min(round(n), limit) for n, limit in zip(resolution * scale, median_shape, strict=True)]


def _shrink(topology: Topology, task: Task) -> Topology:
    """One step less along the axis that is largest relative to the median image (the last of several)."""
    size = list(topology.patch_size)
    axis = max(range(len(size)), key=lambda a: (size[a] / task.median_shape[a], a))
    # A shorter axis may be pooled less often and so have finer steps: 256 in steps of 64 becomes 224, not 192.
    probe = list(size)
    probe[axis] -= topology.divisor[axis]
    size[axis] -= plan_topology(task.spacing, probe).divisor[axis]
    if size[axis] < 1:
        spacing = tuple(map(float, task.spacing))
        raise DataError(
            f"no patch fits into the memory: at spacing {spacing} even {topology.patch_size} costs too much. "
            "Allow more memory (--memory-gb)"
        )
    return plan_topology(task.spacing, size)
