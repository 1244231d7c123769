"""Soft Dice and cross-entropy from sums of each sample: the part that both losses stand on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Overlap(nn.Module):
    """Probabilities, and soft Dice and cross-entropy with the options of segplug's own `dice_ce`.

    Args:
        batch_dice: Dice over the whole batch rather than per sample.
        regions: channels are regions (sigmoid) rather than exclusive labels (softmax).
        classes: channels of the logits, to check `class_weights`.
        smooth: added to numerator and denominator of Dice.
        class_weights: one per channel, background included; both terms become weighted means over the classes.

    Raises:
        ValueError: `smooth` is negative, or `class_weights` are not one positive number per channel.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        batch_dice: bool,
        regions: bool,
        classes: int | None,
        smooth: float,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        not_negative(smooth=smooth)
        if class_weights is not None:
            unlike = classes is not None and len(class_weights) != classes
            if unlike or not all(weight > 0 for weight in class_weights):
                expected = "" if classes is None else f" ({classes})"
                raise ValueError(
                    f"class_weights {list(class_weights)}; expected one number above 0 per channel of the logits, "
                    f"background included{expected}"
                )
        self.batch_dice = batch_dice
        self.regions = regions
        self.smooth = smooth
        self.register_buffer("class_weights", None if class_weights is None else torch.tensor(class_weights).float())

    def scored(self, logits: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Probabilities and truth of the classes that count, (batch, scored, *spatial), 0 outside the mask.

        Of exclusive labels these are all but the background; of regions, all.
        """
        if self.regions:
            probability, truth = logits.sigmoid(), target
        else:
            probability = logits.softmax(1)[:, 1:]
            truth = torch.zeros_like(logits).scatter_(1, target, 1.0)[:, 1:]
        return (probability, truth) if mask is None else (probability * mask, truth * mask)

    def sums(self, logits: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        """Sums of overlap, prediction and truth (batch, scored), of the entropy and of its weights (batch,)."""
        probability, truth = self.scored(logits, target, mask)
        return *overlaps(probability, truth), *self._entropies(logits, target, mask)

    def dice(self, overlap: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        """Mean soft Dice, between 0 and 1, from sums of all samples."""
        if self.batch_dice:
            overlap, predicted, true = overlap.sum(0), predicted.sum(0), true.sum(0)
        return self.over_classes((2 * overlap + self.smooth) / (predicted + true + self.smooth).clamp_min(1e-8))

    def over_classes(self, scores: Tensor) -> Tensor:
        """Mean of scores (..., scored), weighted by class."""
        if self.class_weights is None:
            return scores.mean()
        weights = self.class_weights[-scores.shape[-1] :]
        return (scores * weights).sum(-1).mean() / weights.sum()

    def _entropies(self, logits: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        counted = torch.ones_like(logits[:, :1]) if mask is None else mask.to(logits.dtype)
        if self.regions:
            each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            if self.class_weights is not None:
                weights = self.class_weights / self.class_weights.mean()
                each = each * weights.view(1, -1, *(1,) * (each.ndim - 2))
            # mean over regions, and over them their sum under a mask: what segplug's dice_ce does, and nnU-Net
            counted = counted.expand_as(each) if mask is None else counted
        else:
            each = F.cross_entropy(logits, target[:, 0], self.class_weights, reduction="none")[:, None]
            if self.class_weights is not None:
                counted = counted * self.class_weights[target]
        if mask is not None:
            # not a product: 0 * inf would be NaN where a network is certain of a voxel that nobody annotated
            each = torch.where(mask, each, 0.0)
        return each.flatten(1).sum(1), counted.flatten(1).sum(1)


def overlaps(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of the product, of the one and of the other over space: (batch, channels) each."""
    axes = tuple(range(2, one.ndim))
    return (one * other).sum(axes), one.sum(axes), other.sum(axes)


def entropy(total: Tensor, weight: Tensor) -> Tensor:
    """Mean cross-entropy from sums of all samples; 0 where no voxel counts."""
    return total.sum() / weight.sum().clamp_min(1e-8)


def not_negative(**numbers: float) -> None:
    """Raise ValueError where a number, given by its name, is less than 0."""
    for name, value in numbers.items():
        if not value >= 0:
            raise ValueError(f"{name} {value}; expected 0 or more")
