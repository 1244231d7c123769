"""Plans for `timm_unet`: a topology that is fixed, which patch and batch have to suit.

nnU-Net's planner shapes the network to the images. Here the network is given: its stages and strides are those of an
encoder of timm. So only patch and batch are left to plan: a patch that the encoder can halve as often as it does, as
large as the memory allows for two samples, beginning with one as long in mm along both axes and no larger than the
median image; then as many samples as fit, but no more than 5 % of the data set's voxels (nnU-Net's rules). Axis order,
spacing and normalisation are nnU-Net's too, so that preprocessed data serve both.

What a sample costs is measured rather than known by a formula, since there are hundreds of encoders: the network is
built on torch's meta device, which takes neither memory nor time for values. So this planner imports torch.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from segplug.errors import DataError, UsageError
from segplug.model import Budget, ComponentRef, Configuration, DatasetDescription, Fingerprint, Plan
from segplug_builtin.planners import plan_default
from segplug_foundation import NAME
from segplug_foundation.encoders import DEFAULT_ENCODER
from segplug_foundation.rates import check_decay, stage_factors

if TYPE_CHECKING:
    from torch import nn

MEMORY_GB = 8.0
"""Memory to plan for where nothing is said: nnU-Net's."""

USABLE = 0.9
"""Share of the memory to be filled; the rest is for what a device's libraries keep."""

FIRST_PIXELS = 2048**2
"""Of the patch to begin with (nnU-Net)."""

DATASET_SHARE = 0.05
LEAST_BATCH = 2
"""nnU-Net's bounds of the batch."""

RECIPE: Mapping[str, Any] = {
    "lr": 5e-4,
    "weight_decay": 1e-2,
    "optimizer": {"name": "adamw", "options": {}},
    "schedule": {"name": "cosine", "options": {"warmup_epochs": 5}},
}
"""AdamW with warm-up and cosine decay, as transformers need and convolutional encoders take: not tuned."""

NO_3D = (
    "2d alone is planned: timm's encoders are made of 2D layers, and their weights fit no others. Volumes are trained "
    "on and predicted slice by slice; nnU-Net's plans have the 3D configurations"
)
"""Stands in the plans of volumes, for who looks for 3d_fullres."""


def plan_timm_unet(
    fingerprint: Fingerprint,
    dataset: DatasetDescription,
    budget: Budget,
    *,
    encoder: str = DEFAULT_ENCODER,
    encoder_options: Mapping[str, Any] | None = None,
    layer_decay: float = 1.0,
) -> Plan:
    """Plan the 2d configuration with an encoder of timm.

    Args:
        encoder: name of a model of timm.
        encoder_options: further arguments of it.
        layer_decay: factor of the learning rate from one stage of the encoder to the one before it, for fine-tuning:
            see `segplug_foundation.rates`. 1: all learn alike.

    Raises:
        DataError: no patch fits into the memory, there is no such encoder, or no plan is possible at all.
        UsageError: the budget is not usable.
    """
    memory = MEMORY_GB if budget.memory_gb is None else budget.memory_gb
    if not 0 < memory < math.inf:
        raise UsageError(f"memory of {memory} GB: expected a positive number")
    check_decay(layer_decay)
    name = budget.plans_name or plans_name(encoder)
    # with another spacing the data are not those of nnU-Net's plans
    shared = replace(budget, memory_gb=None, plans_name=name if budget.spacing else None)
    plan = plan_default(fingerprint, dataset, shared)
    options = {"encoder": encoder, **({"encoder_options": dict(encoder_options)} if encoder_options else {})}
    planned, factors = _planned(plan, dataset, memory, ComponentRef(NAME, options), layer_decay)
    recipe = {**RECIPE, **({"lr_factors": factors} if factors else {})}
    volumes = len(plan.configurations) > 1
    return replace(
        plan,
        plans_name=name,
        planner=NAME,
        configurations={planned.name: planned},
        training={"": ComponentRef("nnunet", recipe)},
        segplug_extra={**plan.segplug_extra, "note": NO_3D} if volumes else plan.segplug_extra,
    )


def plans_name(encoder: str) -> str:
    """Of plans for which the user gives no name: those of different encoders stand beside each other."""
    return f"segplugTimmPlans_{encoder}"


def _planned(
    plan: Plan, dataset: DatasetDescription, memory_gb: float, architecture: ComponentRef, layer_decay: float
) -> tuple[Configuration, dict[str, float]]:
    """The 2d configuration with this network, and factors of the learning rates of its encoder's stages."""
    from segplug_foundation.memory import bytes_of_weights

    flat = plan.configurations["2d"]
    channels, outputs = dataset.num_channels, dataset.labels.output_channels
    cost = _Cost(architecture, channels, outputs)
    patches = list(_shrinking(flat, cost.stride))
    room = USABLE * memory_gb * 2**30 - bytes_of_weights(cost.network(patches[-1]))
    found = bisect_left(range(len(patches)), True, key=lambda i: LEAST_BATCH * cost.of(patches[i]) <= room)
    if found == len(patches):
        raise DataError(
            f"configuration 2d: no patch fits into {memory_gb:g} GB: {LEAST_BATCH} samples of {cost.encoder!r} with "
            f"the least patch, {patches[-1]}, take more. Allow more memory (--memory-gb), or use a smaller encoder"
        )
    patch = patches[found]
    pixels = math.prod(plan.configurations.get("3d_fullres", flat).median_shape) * dataset.num_training
    most = max(round(DATASET_SHARE * pixels / math.prod(patch)), LEAST_BATCH)
    encoder: Any = cost.network(patch).encoder
    planned = replace(
        flat,
        patch_size=patch,
        batch_size=min(int(room / cost.of(patch)), most),
        architecture=architecture,
        architecture_imports=(),
    )
    return planned, stage_factors(encoder, layer_decay, cost.encoder)


class _Cost:
    """What samples of a network cost, on the meta device."""

    def __init__(self, architecture: ComponentRef, channels: int, outputs: int) -> None:
        from segplug_foundation.encoders import build_encoder, features_of

        self._options = dict(architecture.options)
        self._channels, self._outputs = channels, outputs
        self._known: dict[tuple[int, ...], int] = {}
        self.encoder = str(self._options["encoder"])
        # what its strides are does not depend on the patch, but one has to be named: 224, for which most are made
        with _meta():
            made = build_encoder(self.encoder, channels, (224, 224), self._options.get("encoder_options"))
        self.stride = features_of(made, self.encoder).stride

    def network(self, patch: Sequence[int]) -> nn.Module:
        from segplug_foundation.networks import build_timm_unet

        with _meta():
            return build_timm_unet(
                self._channels, self._outputs, deep_supervision=True, patch_size=patch, **self._options
            ).train()

    def of(self, patch: tuple[int, ...]) -> int:
        """Bytes of one sample.

        Raises:
            DataError: the encoder fails with this patch.
        """
        import torch

        from segplug_foundation.memory import bytes_of_sample

        if patch not in self._known:
            network = self.network(patch)
            images = torch.empty(LEAST_BATCH, self._channels, *patch, device="meta")
            try:
                self._known[patch] = bytes_of_sample(network, images, self._outputs)
            except Exception as error:  # of timm's models, for sizes that they are not made for
                raise DataError(
                    f"planner {NAME}: timm's {self.encoder!r} fails with a patch of {list(patch)}: "
                    f"{type(error).__name__}: {error}. Use another encoder"
                ) from error
        return self._known[patch]


def _meta() -> Any:
    import torch

    return torch.device("meta")


def _shrinking(configuration: Configuration, stride: int) -> Sequence[tuple[int, ...]]:
    """Patches from the first to the smallest, each one step shorter along the axis that is longest in the image."""
    spacing, shape = configuration.spacing, configuration.median_shape
    scale = math.sqrt(FIRST_PIXELS * math.prod(spacing))
    wanted = [min(scale / s, n) for s, n in zip(spacing, shape, strict=True)]
    patch = [max(1, math.ceil(n / stride)) * stride for n in wanted]
    found = [tuple(patch)]
    while any(n > stride for n in patch):
        axis = max((a for a in (0, 1) if patch[a] > stride), key=lambda a: (patch[a] / shape[a], a))
        patch[axis] -= stride
        found.append(tuple(patch))
    return found
