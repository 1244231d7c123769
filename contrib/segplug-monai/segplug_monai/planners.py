"""Plans for MONAI's networks. torch is not imported.

Axis order, spacings, normalisation and the set of configurations are nnU-Net's (`segplug_builtin.planners`), so that
preprocessed data serve both. Each network gets patch and batch by nnU-Net's rule: as large a patch as the memory allows
for two samples, beginning with one that is as long in mm along every axis and no larger than the median image; then as
many samples as fit, but no more than 5 % of the data set's voxels. What differs is what a patch must be a multiple of
and what it costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from segplug.errors import DataError, UsageError
from segplug.model import Budget, ComponentRef, Configuration, DatasetDescription, Fingerprint, Plan
from segplug_builtin.planners import plan_default
from segplug_monai.patches import (
    SWINUNETR,
    UNETR,
    Patches,
    kept_by_segresnet,
    kept_by_swinunetr,
    kept_by_unetr,
    patches_of_segresnet,
)

MEMORY_GB = 8.0
"""Memory to plan for where nothing is said: nnU-Net's."""

USABLE = 0.9
"""Share of the memory to be filled; the rest is for what a device's libraries keep."""

FIRST_VOXELS = {2: 2048**2, 3: 256**3}
"""Volume of the patch to begin with (nnU-Net)."""

DATASET_SHARE = 0.05
LEAST_BATCH = 2
"""nnU-Net's bounds of the batch."""

BYTES_PER_WEIGHT = 16
"""float32 weight, gradient, and the two moments of Adam."""

COPIES_OF_LOGITS = 8
"""float32 arrays of the logits' size at once: logits, their gradient, and what a loss makes of them."""

ADAMW = {"name": "adamw", "options": {}}
TRANSFORMER_RECIPE = ComponentRef(
    "nnunet",
    {
        "lr": 1e-4,
        "weight_decay": 1e-5,
        "optimizer": ADAMW,
        "schedule": {"name": "cosine", "options": {"warmup_epochs": 50}},
        "deep_supervision": False,
    },
)
"""AdamW at 1e-4 (the UNETR paper), with warm-up and cosine decay as MONAI's code trains SwinUNETR."""

SEGRESNET_RECIPE = ComponentRef(
    "nnunet",
    {
        "lr": 1e-4,
        "weight_decay": 1e-5,
        "optimizer": {"name": "adam", "options": {}},
        "deep_supervision": False,
    },
)
"""Adam at 1e-4, weight decay 1e-5, polynomial decay of exponent 0.9 (Myronenko 2018)."""


@dataclass(frozen=True)
class Network:
    """What the planner knows of a network.

    Args:
        component: its architecture, and the planner's name.
        title: in the name of the plans.
        patches: which it takes, for 2 and 3 axes.
        features: at full resolution.
        kept: values kept for the backward pass of one sample, from patch and features.
        weights: per number of axes, factors of the square of the features and of 1.
        arguments: of the architecture, that the plan tells.
        recipe: how it is trained.
        boxes_per_axis: of the patch's divisor that a planned patch has in the mean; features at the bottom are
            normalised over as many voxels.
    """

    component: str
    title: str
    patches: Mapping[int, Patches]
    features: int
    kept: Callable[[Sequence[int], int], float]
    weights: Mapping[int, tuple[float, float]]
    recipe: ComponentRef
    arguments: Mapping[str, Any] = field(default_factory=dict)
    boxes_per_axis: int = 1

    def bytes_of_weights(self, axes: int) -> float:
        """What weights, their gradients and the optimiser's state take."""
        quadratic, constant = self.weights[axes]
        return BYTES_PER_WEIGHT * (quadratic * self.features**2 + constant)

    def bytes_of_sample(self, patch: Sequence[int], outputs: int) -> float:
        """What one sample of a batch takes."""
        return 4 * (self.kept(patch, self.features) + COPIES_OF_LOGITS * outputs * math.prod(patch))


SEGRESNET_NETWORK = Network(
    "monai_segresnet",
    "SegResNet",
    {axes: patches_of_segresnet(axes) for axes in (2, 3)},
    32,
    kept_by_segresnet,
    {2: (6200.0, 0.0), 3: (18400.0, 0.0)},
    SEGRESNET_RECIPE,
    {"init_filters": 32},
)
UNETR_NETWORK = Network(
    "monai_unetr",
    "UNETR",
    UNETR,
    16,
    kept_by_unetr,
    {2: (6000.0, 86e6), 3: (12000.0, 90e6)},
    TRANSFORMER_RECIPE,
    {"feature_size": 16},
)
SWINUNETR_NETWORK = Network(
    "monai_swinunetr",
    "SwinUNETR",
    SWINUNETR,
    24,
    kept_by_swinunetr,
    {2: (11200.0, 0.0), 3: (28500.0, 0.0)},
    TRANSFORMER_RECIPE,
    {"feature_size": 24},
    boxes_per_axis=2,
)


def plan_segresnet(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
    """Plan for `monai_segresnet`.

    Raises:
        DataError: no patch fits into the memory, or no plan is possible at all.
        UsageError: the budget is not usable.
    """
    return _plan(fingerprint, dataset, budget, SEGRESNET_NETWORK)


def plan_unetr(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
    """Plan for `monai_unetr`; raises as `plan_segresnet`."""
    return _plan(fingerprint, dataset, budget, UNETR_NETWORK)


def plan_swinunetr(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
    """Plan for `monai_swinunetr`; raises as `plan_segresnet`."""
    return _plan(fingerprint, dataset, budget, SWINUNETR_NETWORK)


def plan_dynunet(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
    """Plan for `monai_dynunet`: nnU-Net's own topology, patch and batch, which this network can have as they are.

    Raises:
        DataError: the images are too small for its three stages, or no plan is possible at all.
    """
    plan = _full_size(fingerprint, dataset, budget)
    configurations = {name: replace(c, architecture=_dynunet(c)) for name, c in plan.configurations.items()}
    return replace(
        plan,
        plans_name=budget.plans_name or "segplugMonaiDynUNetPlans",
        planner="monai_dynunet",
        configurations={n: replace(c, architecture_imports=()) for n, c in configurations.items()},
    )


def _dynunet(configuration: Configuration) -> ComponentRef:
    options = configuration.architecture.options
    if len(options["strides"]) < 3:
        raise DataError(
            f"planner monai_dynunet, configuration {configuration.name}: a patch of {configuration.patch_size} is "
            "halved less than twice, and DynUNet takes three stages. Use another planner"
        )
    arguments = {new: options[old] for new, old in (("kernel_size", "kernel_sizes"), ("strides", "strides"))}
    return ComponentRef("monai_dynunet", {**arguments, "filters": options["features_per_stage"]})


def _full_size(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
    """nnU-Net's plan. With another spacing its data are others, and so is their folder's name."""
    return plan_default(fingerprint, dataset, replace(budget, plans_name=budget.plans_name if budget.spacing else None))


def _plan(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget, network: Network) -> Plan:
    memory = MEMORY_GB if budget.memory_gb is None else budget.memory_gb
    if not 0 < memory < math.inf:
        raise UsageError(f"memory of {memory} GB: expected a positive number")
    name = budget.plans_name or f"segplugMonai{network.title}Plans"
    # which configurations there are is a matter of the images, as for nnU-Net's plan for its usual memory
    plan = _full_size(fingerprint, dataset, replace(budget, memory_gb=None, plans_name=name))
    return replace(
        plan,
        plans_name=name,
        planner=network.component,
        configurations={n: _planned(c, plan, dataset, memory, network) for n, c in plan.configurations.items()},
        training={"": network.recipe},
    )


def _planned(
    configuration: Configuration, plan: Plan, dataset: DatasetDescription, memory_gb: float, network: Network
) -> Configuration:
    """The same images, with the patch and batch that the network can have."""
    axes, outputs = configuration.dimensions, dataset.labels.output_channels
    room = USABLE * memory_gb * 2**30 - network.bytes_of_weights(axes)
    patch = first_patch(configuration, network)
    while LEAST_BATCH * network.bytes_of_sample(patch, outputs) > room:
        patch = _smaller(patch, configuration, network, memory_gb)
    volume = configuration if axes == 3 else plan.configurations.get("3d_fullres", configuration)
    voxels = math.prod(volume.median_shape) * dataset.num_training
    share = round(DATASET_SHARE * voxels / math.prod(patch))
    batch = min(int(room / network.bytes_of_sample(patch, outputs)), max(share, LEAST_BATCH))
    return replace(
        configuration,
        patch_size=tuple(patch),
        batch_size=batch,
        architecture=ComponentRef(network.component, dict(network.arguments)),
        architecture_imports=(),
    )


def first_patch(configuration: Configuration, network: Network) -> list[int]:
    """A patch as long in mm along every axis, no larger than the median image, of the nearest multiples."""
    axes = configuration.dimensions
    scale = (FIRST_VOXELS[axes] * math.prod(configuration.spacing)) ** (1 / axes)
    wanted = [min(scale / s, n) for s, n in zip(configuration.spacing, configuration.median_shape, strict=True)]
    divisor = network.patches[axes].divisor
    patch = [max(1, math.floor(n / d + 0.5)) * d for n, d in zip(wanted, divisor, strict=True)]
    while _boxes(patch, divisor) < network.boxes_per_axis**axes:
        axis = min(range(axes), key=lambda a: patch[a] / configuration.median_shape[a])
        patch[axis] += divisor[axis]
    return patch


def _smaller(patch: list[int], configuration: Configuration, network: Network, memory_gb: float) -> list[int]:
    """One step less along the axis that is largest relative to the median image, of those that can be shorter."""
    divisor = network.patches[len(patch)].divisor
    shorter = [a for a in range(len(patch)) if patch[a] > divisor[a]]
    if not shorter or _boxes(patch, divisor) <= network.boxes_per_axis ** len(patch):
        raise DataError(
            f"configuration {configuration.name}: no patch fits into {memory_gb:g} GB: {LEAST_BATCH} samples of "
            f"{network.component} with the least patch, {tuple(patch)}, take more. Allow more memory (--memory-gb)"
        )
    axis = max(shorter, key=lambda a: (patch[a] / configuration.median_shape[a], a))
    return [n - divisor[a] if a == axis else n for a, n in enumerate(patch)]


def _boxes(patch: Sequence[int], divisor: Sequence[int]) -> int:
    return math.prod(n // d for n, d in zip(patch, divisor, strict=True))
