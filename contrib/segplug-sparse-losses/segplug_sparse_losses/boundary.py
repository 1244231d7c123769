"""Boundary loss: Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segplug_sparse_losses.overlap import Overlap, entropy, not_negative


class DiceCrossEntropyBoundary(nn.Module):
    """Soft Dice plus cross-entropy, as segplug's `dice_ce`, plus the boundary loss.

    The boundary loss is the mean over voxels and scored classes of the probability times the signed distance to the
    boundary of the truth (equation 5 of the paper): negative inside, so that its minimum is below 0. With labels the
    background is not scored. Distances are in voxels of the resolution that is supervised.

    Args:
        batch_dice, regions, classes, smooth, class_weights: see `Overlap`.
        weight_dice, weight_ce: factors of the two terms; `weight_boundary` 0 is segplug's `dice_ce`.
        weight_boundary: factor of the boundary loss. The paper begins with 0.01 and adds as much every epoch; a loss is
            not told the epoch, and this one stays.

    Raises:
        ValueError: a number is negative, or `class_weights` are not one positive number per channel.
    """

    def __init__(
        self,
        batch_dice: bool = False,
        regions: bool = False,
        classes: int | None = None,
        smooth: float = 1e-5,
        weight_dice: float = 1.0,
        weight_ce: float = 1.0,
        weight_boundary: float = 0.01,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        not_negative(weight_dice=weight_dice, weight_ce=weight_ce, weight_boundary=weight_boundary)
        self.overlap = Overlap(batch_dice, regions, classes, smooth, class_weights)
        self.weight_dice = weight_dice
        self.weight_ce = weight_ce
        self.weight_boundary = weight_boundary

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of float32 logits (batch, classes, *spatial).

        Args:
            target: (batch, 1, *spatial) int64 labels, or (batch, classes, *spatial) float32 regions.
            mask: (batch, 1, *spatial) bool, False where nothing is annotated.
        """
        return self.of_batch(*self.of_samples(logits, target, mask))

    def of_samples(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Sums per sample: those of `Overlap.sums`, and of probability times distance (batch, scored), of voxels."""
        sums = self.overlap.sums(logits, target, mask)
        probability, truth = self.overlap.scored(logits, target, mask)
        distance = signed_distances(truth, mask) if self.weight_boundary else torch.zeros_like(truth)
        voxels = (torch.ones_like(target[:, :1]) if mask is None else mask).flatten(1).sum(1).to(probability.dtype)
        return *sums, (probability * distance).flatten(2).sum(2), voxels

    def of_batch(self, *parts: Tensor) -> Tensor:
        """The loss from what `of_samples` returns, of all samples."""
        overlap, predicted, true, entropies, weights, distances, voxels = parts
        boundary = self.overlap.over_classes(distances.sum(0) / voxels.sum().clamp_min(1))
        return (
            self.weight_ce * entropy(entropies, weights)
            - self.weight_dice * self.overlap.dice(overlap, predicted, true)
            + self.weight_boundary * boundary
        )


def signed_distances(truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Distance of every voxel to the boundary of each object, in voxels, negative inside: like `truth`.

    As the paper's authors compute it: a voxel outside has its distance to the nearest voxel inside; one inside has its
    distance to the nearest one outside, less 1, so that the outermost voxels of the object have 0. Without an object,
    or without anything but the object, there is no boundary: all 0.

    Args:
        truth: (batch, channels, *spatial), 1 inside, 0 outside.
        mask: (batch, 1, *spatial) bool, False where nothing is known: such voxels have 0, and bound no object.
    """
    objects: NDArray[np.bool_] = truth.detach().cpu().numpy() > 0.5
    known = np.ones((len(objects), 1, *objects.shape[2:]), bool) if mask is None else mask.cpu().numpy()
    result = np.zeros(objects.shape, np.float32)
    for sample, channel in np.ndindex(*objects.shape[:2]):
        inside, annotated = objects[sample, channel], known[sample, 0]
        result[sample, channel] = _signed_distance(inside & annotated, ~inside & annotated)
    return torch.from_numpy(result).to(truth.device)


def _signed_distance(inside: NDArray[np.bool_], outside: NDArray[np.bool_]) -> NDArray[np.float32]:
    from scipy.ndimage import distance_transform_edt

    if not inside.any() or not outside.any():
        return np.zeros(inside.shape, np.float32)
    result = np.where(outside, distance_transform_edt(~inside), 0)
    return np.where(inside, 1 - distance_transform_edt(~outside), result).astype(np.float32)
