"""nnU-Net's training as settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from segplug.model import ComponentRef, Configuration
from segplug.protocols import TrainingTask

if TYPE_CHECKING:
    from torch import nn

NORMS = {
    "batch": ("torch.nn.BatchNorm{}d", {"eps": 1e-5, "affine": True}),
    "instance": ("torch.nn.InstanceNorm{}d", {"eps": 1e-5, "affine": True}),
}
"""Per norm its class, for two or three dimensions, and nnU-Net's arguments."""

MOST_SAMPLES = 100_000
"""Of a batch: more is a slip of the pen."""

MOST_ITERATIONS = 1_000_000
"""Of an epoch, after which alone checkpoints are written and scores told: at 0.1 s each, more than a day."""

LIMITS = {
    "epochs": (1, math.inf),
    "iterations_per_epoch": (1, MOST_ITERATIONS),
    "val_iterations_per_epoch": (0, MOST_ITERATIONS),
    "batch_size": (1, MOST_SAMPLES),
    "accumulate": (1, MOST_SAMPLES),
    "patience": (1, math.inf),
}
"""Least and most of whole numbers."""


@dataclass(frozen=True)
class NNUNetTrainer:
    """Trains a network epoch by epoch; the defaults are nnU-Net's (Isensee et al. 2021, and its trainer's settings).

    Args:
        epochs: how many; each has `iterations_per_epoch` steps and `val_iterations_per_epoch` validation batches.
        lr: initial (or largest) learning rate; `schedule` says how it goes on.
        lr_factors: module of the network -> factor of its learning rate: ``{"encoder": 0.1}``.
        freeze: modules of the network that keep their weights: ``["encoder"]``.
        weight_decay: given to the optimiser.
        batch_size: samples per batch; None takes the plan's.
        accumulate: batches per step, whose gradients are averaged: for a batch that does not fit the memory at once.
            Dice over the batch is still of each batch by itself.
        oversample_foreground: share of a batch's samples that must hold foreground.
        probabilistic_oversampling: draw for each sample whether it must, instead of fixing which ones; `as_fixed` with
            the share that fixed ones have in a batch of whole samples (a half of two, where 0.33 is asked for).
        gradient_clip: largest norm of all gradients together; None does not clip.
        deep_supervision: compare the lower resolutions of the network too.
        network: architecture in place of the plan's.
        patch_size: voxels that the network sees; None takes the plan's.
        norm: `batch` or `instance` in place of the plan's normalisation layers.
        weight_averaging: weight of the past, such as 0.999, in a moving average of the weights, which is what is
            validated and saved; None does not average.
        compile: have torch compile network and loss; `auto` does for long trainings in one process on a GPU.
        cuda_graphs: of what is compiled, replay CUDA graphs; `auto` does for small batches. See `compiling.Compiler`.
        deterministic: on a GPU, kernels that compute the same bits each time rather than the fastest ones. On a CPU
            they always do.
        patience: end the training after so many epochs without a better moving average of the pseudo-Dice.
    """

    epochs: int = 1000
    iterations_per_epoch: int = 250
    val_iterations_per_epoch: int = 50
    lr: float = 1e-2
    lr_factors: Mapping[str, float] = field(default_factory=dict)
    freeze: tuple[str, ...] = ()
    weight_decay: float = 3e-5
    batch_size: int | None = None
    accumulate: int = 1
    oversample_foreground: float = 0.33
    probabilistic_oversampling: bool | Literal["as_fixed"] = False
    gradient_clip: float | None = 12.0
    deep_supervision: bool = True
    network: ComponentRef | None = None
    patch_size: tuple[int, ...] | None = None
    norm: Literal["batch", "instance"] | None = None
    weight_averaging: float | None = None
    patience: int | None = None
    compile: bool | Literal["auto"] = "auto"
    cuda_graphs: bool | Literal["auto"] = "auto"
    deterministic: bool = False
    loss: ComponentRef = field(default=ComponentRef("dice_ce"))
    optimizer: ComponentRef = field(default=ComponentRef("sgd"))
    schedule: ComponentRef = field(default=ComponentRef("poly"))
    augmentation: ComponentRef = field(default=ComponentRef("nnunet"))

    def __post_init__(self) -> None:
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                expected = f"{least} or more" if value < least else f"at most {most}"
                raise ValueError(f"{name} is {value}; expected {expected}")
        if self.patch_size is not None and not all(side >= 1 for side in self.patch_size):
            raise ValueError(f"patch_size is {self.patch_size}; expected whole numbers from 1 on")
        for name in ("lr", "gradient_clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; expected more than 0")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay is {self.weight_decay}; expected 0 or more")
        if not 0 <= self.oversample_foreground <= 1:
            raise ValueError(f"oversample_foreground is {self.oversample_foreground}; expected 0 to 1")
        if self.weight_averaging is not None and not 0 <= self.weight_averaging < 1:
            raise ValueError(f"weight_averaging is {self.weight_averaging}; expected 0 or more, and less than 1")
        for name, factor in self.lr_factors.items():
            if not (isinstance(factor, (int, float)) and 0 <= factor < math.inf):
                raise ValueError(f"lr_factors: {name} is {factor!r}; expected a number from 0 on")
        if self.patience is not None and not self.val_iterations_per_epoch:
            raise ValueError("patience needs validation; val_iterations_per_epoch is 0")

    @property
    def nnunet_class(self) -> str | None:
        """The class by whose name nnunetv2 builds this network from unchanged plans; None if any of its classes do."""
        return "nnUNetTrainerBN" if self.norm == "batch" else None

    def adapt(self, configuration: Configuration) -> Configuration:
        """The configuration with what these settings change in its network.

        Raises:
            ValueError: its network has no normalisation layers to be replaced, or its patch another number of axes.
        """
        if self.patch_size is not None:
            if len(self.patch_size) != configuration.dimensions:
                raise ValueError(f"patch_size is {self.patch_size}; expected {configuration.dimensions} numbers")
            configuration = replace(configuration, patch_size=self.patch_size)
        if self.network is not None:
            configuration = replace(configuration, architecture=self.network, architecture_imports=())
        if self.norm is None:
            return configuration
        architecture = configuration.architecture
        if "norm_op" not in architecture.options:
            raise ValueError(f"norm is {self.norm!r}, but architecture {architecture.name!r} takes no norm_op")
        name, arguments = NORMS[self.norm]
        options = {"norm_op": name.format(configuration.dimensions), "norm_op_kwargs": arguments}
        return replace(configuration, architecture=ComponentRef(architecture.name, {**architecture.options, **options}))

    def check_network(self, network: nn.Module) -> None:
        """Refuse names in `freeze` and `lr_factors` that are no parts of the network.

        Raises:
            UsageError: naming the parts that there are.
        """
        if self.freeze or self.lr_factors:
            from segplug_builtin.trainers.layers import check_parts

            check_parts(network, self.freeze, self.lr_factors)

    def train(self, task: TrainingTask) -> None:
        """Train from the beginning, or from what the task has saved."""
        from segplug_builtin.trainers.loop import TrainingLoop  # torch is needed from here on

        TrainingLoop(self, task).run()
