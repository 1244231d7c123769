"""Soft Dice with cross-entropy, nnU-Net's loss (Isensee et al. 2021, supplementary note 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DiceCrossEntropy(nn.Module):
    """Soft Dice plus cross-entropy (labels) or binary cross-entropy (regions), nnU-Net's rule.

    With labels, Dice leaves out the background (channel 0) and stands beside the mean cross-entropy of the voxels in
    the mask. With regions, Dice is over all of them; the binary cross-entropy is the mean over voxels and regions or,
    under a mask, the sum over regions of the mean over the voxels in the mask (nnU-Net's normalisation).

    Args:
        batch_dice: Dice over the whole batch rather than per sample.
        regions: channels are regions (sigmoid) rather than exclusive labels (softmax).
        smooth: added to numerator and denominator of Dice; nnU-Net's 1e-5.
        weight_dice, weight_ce: factors of the two terms.
    """

    def __init__(
        self,
        batch_dice: bool = False,
        regions: bool = False,
        smooth: float = 1e-5,
        weight_dice: float = 1.0,
        weight_ce: float = 1.0,
    ) -> None:
        super().__init__()
        self.batch_dice = batch_dice
        self.regions = regions
        self.smooth = smooth
        self.weight_dice = weight_dice
        self.weight_ce = weight_ce

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of float32 logits (batch, classes, *spatial).

        Args:
            target: (batch, 1, *spatial) int64 labels, or (batch, classes, *spatial) float32 regions.
            mask: (batch, 1, *spatial) bool, False where nothing is annotated.
        """
        if self.regions:
            overlap, predicted, true = _region_sums(torch.sigmoid(logits), target, mask)
            entropy = self._binary_cross_entropy(logits, target, mask)
        else:
            log_probabilities = torch.log_softmax(logits, 1)
            of_target = log_probabilities.gather(1, target)
            overlap, predicted, true = _label_sums(log_probabilities.exp(), of_target.exp(), target, mask)
            entropy = -of_target.mean() if mask is None else -_masked_sum(of_target, mask) / mask.sum().clamp_min(1)
        return self.weight_ce * entropy - self.weight_dice * self._dice(overlap, predicted, true)

    def _dice(self, overlap: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        """Mean soft Dice from sums per sample and class."""
        if self.batch_dice:
            overlap, predicted, true = overlap.sum(0), predicted.sum(0), true.sum(0)
        denominator = (true + predicted + self.smooth).clamp_min(1e-8)
        return ((2 * overlap + self.smooth) / denominator).mean()

    @staticmethod
    def _binary_cross_entropy(logits: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return F.binary_cross_entropy_with_logits(logits, target)
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return _masked_sum(each, mask) / mask.sum().clamp_min(1e-8)


def _masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    # not a product: 0 * inf would be NaN where a network is certain of a voxel that nobody annotated
    return torch.where(mask, values, 0.0).sum()


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
