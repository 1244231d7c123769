"""Losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Protocol):
    """A callable (usually an `nn.Module`) from logits and target to a scalar.

    Args of the call:
        logits: (batch, classes, *spatial), before any softmax or sigmoid; float32.
        target: with labels, (batch, 1, *spatial) int64 class numbers; with regions, (batch, classes, *spatial) float32,
            1 inside a region. Voxels with the ignore label hold background.
        mask: only for losses that name this parameter: (batch, 1, *spatial) bool, False where the ignore label stands;
            None without one. For a loss without it, ignored voxels are given to it as certain, correct background
            without gradient.

    The factory gets the options of `--set trainer.loss.<option>` and, if its signature names them: `batch_dice: bool`
    (the plan's), `regions: bool` (sigmoid rather than softmax), `classes: int` (channels of the logits).

    Deep supervision, ignore label, regions, mixed precision and data-parallel training are added around it.

    On several processes, a loss gets the logits and targets of the whole batch, which are gathered from all of them: it
    need not know. One that is a `SampleWiseLoss` spares that.
    """

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor: ...


@runtime_checkable
class SampleWiseLoss(Protocol):
    """What a loss may be besides: one that needs but a few numbers of each sample to tell the loss of a batch.

    `loss(logits, target)` then is ``of_batch(*of_samples(logits, target))``. In data-parallel training each process
    calls `of_samples` with its samples, and `of_batch` with the numbers of all: sums over voxels travel between GPUs,
    not logits, and nothing is computed twice.
    """

    def of_samples(self, logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Tensors (batch, ...) whose row i depends on sample i alone, differentiable. Arguments as of `Loss`."""
        ...

    def of_batch(self, *parts: Tensor) -> Tensor:
        """The scalar loss from these tensors, of any number of samples."""
        ...
