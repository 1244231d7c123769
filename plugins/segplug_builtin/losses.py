"""Soft Dice, alone and with cross-entropy, nnU-Net's loss (Isensee et al. 2021, supplementary note 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segplug_builtin.class_weights import mean_over_classes, not_negative, weights_of
from segplug_builtin.voxel_losses import TopK


class DiceCrossEntropy(nn.Module):
    """Soft Dice plus cross-entropy (labels) or binary cross-entropy (regions), nnU-Net's rule.

    With labels, Dice leaves out the background (channel 0) and stands beside the mean cross-entropy of the voxels in
    the mask. With regions, Dice is over all of them; the binary cross-entropy is the mean over voxels and regions or,
    under a mask, the sum over regions of the mean over the voxels in the mask (nnU-Net's normalisation).

    Args:
        batch_dice: Dice over the whole batch rather than per sample.
        regions: channels are regions (sigmoid) rather than exclusive labels (softmax).
        classes: channels of the logits, to check `class_weights`.
        smooth: added to numerator and denominator of Dice; nnU-Net's 1e-5.
        weight_dice, weight_ce: factors of the two terms.
        class_weights: one per channel, background included; both terms become weighted means over the classes.

    Raises:
        ValueError: `class_weights` are not one positive number per channel, or another number is negative.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        batch_dice: bool = False,
        regions: bool = False,
        classes: int | None = None,
        smooth: float = 1e-5,
        weight_dice: float = 1.0,
        weight_ce: float = 1.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        not_negative(smooth=smooth, weight_dice=weight_dice, weight_ce=weight_ce)
        self.batch_dice = batch_dice
        self.regions = regions
        self.smooth = smooth
        self.weight_dice = weight_dice
        self.weight_ce = weight_ce
        self.register_buffer("class_weights", weights_of(class_weights, classes))

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of float32 logits (batch, classes, *spatial).

        Args:
            target: (batch, 1, *spatial) int64 labels, or (batch, classes, *spatial) float32 regions.
            mask: (batch, 1, *spatial) bool, False where nothing is annotated.
        """
        return self.of_batch(*self.of_samples(logits, target, mask))

    def of_samples(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Sums of overlap, prediction and target (batch, classes), of the entropy and of the weights in it (batch,)."""
        if self.regions:
            sums = _region_sums(torch.sigmoid(logits), target, mask)
            entropy = self._binary_cross_entropy(logits, target, mask)
        else:
            log_probabilities = torch.log_softmax(logits, 1)
            of_target = log_probabilities.gather(1, target)
            sums = _label_sums(log_probabilities.exp(), of_target.exp(), target, mask)
            entropy = self._cross_entropy(of_target, target, mask)
        return *sums, *entropy

    def of_batch(self, *parts: Tensor) -> Tensor:
        """The loss from what `of_samples` returns, of all samples."""
        overlap, predicted, true, entropy, weight = parts
        scores = soft_dice(overlap, predicted, true, self.batch_dice, self.smooth)
        mean_entropy = entropy.sum() / weight.sum().clamp_min(1e-8)
        return self.weight_ce * mean_entropy - self.weight_dice * mean_over_classes(scores, self.class_weights)

    def _cross_entropy(self, of_target: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sums over voxels of the label's negative log-probability times its weight, and of the weights."""
        if self.class_weights is None:
            return -_masked_sum(of_target, mask), _count(target, mask)
        weights = self.class_weights[target]
        return -_masked_sum(weights * of_target, mask), _masked_sum(weights, mask)

    def _binary_cross_entropy(self, logits: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        if self.class_weights is not None:
            relative = self.class_weights / self.class_weights.mean()
            each = each * relative.view(1, -1, *(1,) * (each.ndim - 2))
        return _masked_sum(each, mask), _count(target if mask is None else mask, mask)


class SoftDice(nn.Module):
    """Soft Dice alone: labels without background, or all regions.

    Args:
        batch_dice, regions, classes, smooth, class_weights: see `DiceCrossEntropy`.

    Raises:
        ValueError: `class_weights` are not one positive number per channel, or another number is negative.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        batch_dice: bool = False,
        regions: bool = False,
        classes: int | None = None,
        smooth: float = 1e-5,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        not_negative(smooth=smooth)
        self.batch_dice = batch_dice
        self.regions = regions
        self.smooth = smooth
        self.register_buffer("class_weights", weights_of(class_weights, classes))

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Minus the mean soft Dice; arguments as of `DiceCrossEntropy`."""
        return self.of_batch(*self.of_samples(logits, target, mask))

    def of_samples(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Sums of overlap, prediction and target (batch, classes)."""
        if self.regions:
            return _region_sums(torch.sigmoid(logits), target, mask)
        probabilities = torch.softmax(logits, 1)
        return _label_sums(probabilities, probabilities.gather(1, target), target, mask)

    def of_batch(self, *parts: Tensor) -> Tensor:
        """The loss from what `of_samples` returns, of all samples."""
        overlap, predicted, true = parts
        scores = soft_dice(overlap, predicted, true, self.batch_dice, self.smooth)
        return -mean_over_classes(scores, self.class_weights)


class DiceTopK(nn.Module):
    """Soft Dice plus the mean of the largest cross-entropies of voxels (nnU-Net's loss for hard voxels).

    Args:
        batch_dice, regions, classes, smooth, class_weights: see `DiceCrossEntropy`.
        k, label_smoothing: see `voxel_losses.TopK`.
        weight_dice, weight_ce: factors of the two terms.

    Raises:
        ValueError: an option is not what it should be.
    """

    def __init__(
        self,
        batch_dice: bool = False,
        regions: bool = False,
        classes: int | None = None,
        k: float = 10.0,
        label_smoothing: float = 0.0,
        smooth: float = 1e-5,
        weight_dice: float = 1.0,
        weight_ce: float = 1.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        not_negative(weight_dice=weight_dice, weight_ce=weight_ce)
        self.dice = SoftDice(batch_dice, regions, classes, smooth, class_weights)
        self.top = TopK(regions, classes, k, label_smoothing, class_weights)
        self.weight_dice = weight_dice
        self.weight_ce = weight_ce

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Arguments as of `DiceCrossEntropy`."""
        return self.of_batch(*self.of_samples(logits, target, mask))

    def of_samples(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """What both terms need of each sample: sums (batch, classes), and the entropies of all voxels."""
        return *self.dice.of_samples(logits, target, mask), *self.top.of_samples(logits, target, mask)

    def of_batch(self, *parts: Tensor) -> Tensor:
        """The loss from what `of_samples` returns, of all samples."""
        *sums, entropies = parts
        return self.weight_ce * self.top.of_batch(entropies) + self.weight_dice * self.dice.of_batch(*sums)


def soft_dice(overlap: Tensor, predicted: Tensor, true: Tensor, batch_dice: bool, smooth: float) -> Tensor:
    """Soft Dice per class (classes,) of the batch, or (samples, classes), from sums per sample and class."""
    if batch_dice:
        overlap, predicted, true = overlap.sum(0), predicted.sum(0), true.sum(0)
    # nnU-Net's rule: without smoothing, a class that is neither there nor predicted scores 0
    return (2 * overlap + smooth) / (true + predicted + smooth).clamp_min(1e-8)


def _masked_sum(values: Tensor, mask: Tensor | None) -> Tensor:
    """Sum per sample (batch,)."""
    # not a product: 0 * inf would be NaN where a network is certain of a voxel that nobody annotated
    return (values if mask is None else torch.where(mask, values, 0.0)).flatten(1).sum(1)


def _count(values: Tensor, mask: Tensor | None) -> Tensor:
    """How many values each sample has (batch,), or how many voxels are in its mask."""
    if mask is not None:
        return mask.flatten(1).sum(1).float()
    return torch.full(values.shape[:1], float(values[0].numel()), device=values.device)


def _region_sums(probabilities: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of p*t, p and t per sample and region."""
    if mask is not None:
        probabilities, target = probabilities * mask, target * mask
    axes = tuple(range(2, probabilities.ndim))
    return (probabilities * target).sum(axes), probabilities.sum(axes), target.sum(axes)


def _label_sums(
    probabilities: Tensor, of_target: Tensor, target: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of p*t, p and t per sample and foreground label.

    Args:
        probabilities: (batch, classes, *spatial).
        of_target: (batch, 1, *spatial), probability of the target's label.
    """
    axes = tuple(range(2, probabilities.ndim))
    foreground = probabilities[:, 1:]
    predicted = (foreground if mask is None else foreground * mask).sum(axes)
    weight = torch.ones_like(of_target, requires_grad=False) if mask is None else mask.to(of_target.dtype)
    overlap = _sum_by_label(of_target if mask is None else of_target * weight, target, probabilities.shape[1])
    with torch.no_grad():
        true = _sum_by_label(weight, target, probabilities.shape[1])
    return overlap, predicted, true


def _sum_by_label(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Sum (batch, 1, *spatial) values by label, background left out: (batch, classes - 1)."""
    if values.device.type == "cpu":
        # One pass over the voxels instead of one per class. Summed slice by slice first: a single float32 accumulator
        # would lose digits over millions of voxels.
        slices = (values.shape[0], values.shape[2], -1)
        empty = values.new_zeros(values.shape[0], values.shape[2], classes)
        return empty.scatter_add(2, labels.reshape(slices), values.reshape(slices)).sum(1)[:, 1:]
    # scattering to a few places is slow and of no fixed order on a GPU
    chosen = labels == torch.arange(1, classes, device=labels.device).view(1, -1, *(1,) * (labels.ndim - 2))
    return (values * chosen).sum(tuple(range(2, values.ndim)))
