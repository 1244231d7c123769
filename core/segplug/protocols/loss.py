"""Losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

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
    """

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor: ...
