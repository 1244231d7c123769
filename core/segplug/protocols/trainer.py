"""Trainers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from segplug.model import ComponentRef, Configuration, DatasetDescription, EpochReport, Plan, Split
from segplug.protocols.augmentation import Batch

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class BatchRequest:
    """The batches a training wants, in a fixed order: per epoch, `iterations` for training, then `val_iterations`.

    Args:
        augmentation: component that augments training batches.
        batch_size: samples per batch, of all processes together.
        first_epoch: where to begin; batches are a pure function of (seed, fold, epoch, iteration, sample), so a resumed
            training gets those that it would have got.
        oversample_foreground: share of a batch's samples that must hold foreground (the last ones of the batch), or
            with `probabilistic_oversampling` the probability for each.
    """

    augmentation: ComponentRef
    batch_size: int
    epochs: int
    iterations: int
    val_iterations: int
    first_epoch: int = 0
    oversample_foreground: float = 0.33
    probabilistic_oversampling: bool = False


Checkpoint = Literal["latest", "best", "final"]


class TrainingTask(Protocol):
    """One fold to train: made by the train stage, given to a trainer. Nothing else is needed or read.

    Several processes may train together (torchrun), each with a task of its own. Then `batches` gives each its samples
    of every batch, `loss` is that of the whole batch, the network's `backward` leaves the gradient of that, and `save`,
    `report` and `log` work in the first process alone: a trainer that does the same in every process trains as one
    process does. What it computes from its own samples otherwise, such as scores, it adds up by `total`.

    `network` is built, initialised from the seed (or from pretrained weights) and on `device`. `precision` is one of
    `fp32`, `bf16`, `fp16`. `folder` is the fold's folder and exists.
    """

    @property
    def plan(self) -> Plan: ...
    @property
    def configuration(self) -> Configuration: ...
    @property
    def dataset(self) -> DatasetDescription: ...
    @property
    def fold(self) -> int | str: ...
    @property
    def split(self) -> Split: ...
    @property
    def folder(self) -> Path: ...
    @property
    def network(self) -> nn.Module: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def precision(self) -> str: ...
    @property
    def seed(self) -> int: ...

    @property
    def rank(self) -> int:
        """Number of this process among those that train together, 0 for one alone: for randomness of its own."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the processes that train together; the tensor itself for one alone."""
        ...

    def build(self, kind: str, ref: ComponentRef, **offered: Any) -> Any:
        """Make another component (optimiser, schedule, ...)."""
        ...

    def loss(self, ref: ComponentRef, deep_supervision: bool) -> Callable[[Any, Tensor], Tensor]:
        """A loss of (network output, batch target) with deep supervision, regions and ignore label taken care of."""
        ...

    def batches(self, request: BatchRequest) -> AbstractContextManager[Iterator[Batch]]:
        """Loaded and augmented batches on the device, in the order of the request."""
        ...

    def saved_state(self) -> Mapping[str, Any] | None:
        """What `save` kept last, if this run continues an interrupted one; `network` then has its weights already."""
        ...

    def save(self, which: Checkpoint, state: Mapping[str, Any], *, wait: bool = False) -> None:
        """Write a checkpoint, whole or not at all, in the background unless `wait`.

        `state` has `optimizer_state`, `current_epoch` (epochs done), `_best_ema` and, with fp16, `grad_scaler_state`.
        Weights, what describes the training, and nnU-Net's `logging` of the epochs that were reported are added. It is
        copied before this returns.
        """
        ...

    def report(self, report: EpochReport) -> None:
        """Tell the event hooks, the log and progress.png of a finished epoch."""
        ...

    def log(self, text: str) -> None:
        """A line for the training log."""
        ...


class Trainer(Protocol):
    """A training loop. Its settings are the fields of a frozen dataclass: `--set trainer.<field>=<value>` sets them.

    The factory is called without arguments, for the defaults; the framework then replaces the fields that the plan's
    recipe and the user set. A field of type `ComponentRef` is set by a name (`trainer.loss=dice_focal`) and gets
    options by further parts (`trainer.loss.gamma=2`); a field that is a mapping gets keys by them
    (`trainer.lr_factors.encoder=0.1`). A trainer without a field `epochs` has no `--epochs`.

    What a trainer may have besides: a method `adapt(configuration) -> Configuration`, for settings that change the
    network (it raises ValueError where they do not go with it); a method `check_network(network)`, called before
    anything is begun with the network that is to be trained, which raises ValueError where settings do not go with
    that; an attribute `nnunet_class`, name of the one class of nnunetv2 that builds that network, or None; a field
    `patience`, if it may end a training early, which it then notes as `stopped_early` in the state of `final`.
    """

    def train(self, task: TrainingTask) -> None:
        """Train from the beginning, or from `task.saved_state()`, and save `final` at the end."""
        ...
