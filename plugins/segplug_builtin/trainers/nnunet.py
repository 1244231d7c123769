"""nnU-Net's training as settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from segplug.model import ComponentRef
from segplug.protocols import TrainingTask


@dataclass(frozen=True)
class NNUNetTrainer:
    """Trains a network epoch by epoch; the defaults are nnU-Net's (Isensee et al. 2021, and its trainer's settings).

    Args:
        epochs: how many; each has `iterations_per_epoch` training and `val_iterations_per_epoch` validation batches.
        lr: initial (or largest) learning rate; `schedule` says how it goes on.
        weight_decay: given to the optimiser.
        batch_size: samples per batch; None takes the plan's.
        oversample_foreground: share of a batch's samples that must hold foreground.
        probabilistic_oversampling: draw for each sample whether it must, instead of fixing which ones.
        gradient_clip: largest norm of all gradients together; None does not clip.
        deep_supervision: compare the lower resolutions of the network too.
    """

    epochs: int = 1000
    iterations_per_epoch: int = 250
    val_iterations_per_epoch: int = 50
    lr: float = 1e-2
    weight_decay: float = 3e-5
    batch_size: int | None = None
    oversample_foreground: float = 0.33
    probabilistic_oversampling: bool = False
    gradient_clip: float | None = 12.0
    deep_supervision: bool = True
    loss: ComponentRef = field(default=ComponentRef("dice_ce"))
    optimizer: ComponentRef = field(default=ComponentRef("sgd"))
    schedule: ComponentRef = field(default=ComponentRef("poly"))
    augmentation: ComponentRef = field(default=ComponentRef("nnunet"))

    def __post_init__(self) -> None:
        least = {"epochs": 1, "iterations_per_epoch": 1, "val_iterations_per_epoch": 0, "batch_size": 1}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ValueError(f"{name} is {value}; expected {smallest} or more")
        for name in ("lr", "gradient_clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; expected more than 0")
        if not 0 <= self.oversample_foreground <= 1:
            raise ValueError(f"oversample_foreground is {self.oversample_foreground}; expected 0 to 1")

    def train(self, task: TrainingTask) -> None:
        """Train from the beginning, or from what the task has saved."""
        from segplug_builtin.trainers.loop import TrainingLoop  # torch is needed from here on

        TrainingLoop(self, task).run()
