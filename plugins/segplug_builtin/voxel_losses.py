"""Losses that are means over voxels: cross-entropy, of all or of the hardest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segplug_builtin.class_weights import weights_of


class CrossEntropy(nn.Module):
    """Cross-entropy (labels) or binary cross-entropy (regions).

    With labels, the mean over the voxels in the mask, weighted by the weights of their labels (torch's rule); with
    regions, the mean over voxels and regions. nnU-Net's rule is NaN where a mask is empty; here it is 0.

    Args:
        regions: channels are regions (sigmoid) rather than exclusive labels (softmax).
        classes: channels of the logits, to check `class_weights`.
        label_smoothing: share of the probability that is spread over all labels; labels only.
        class_weights: one per channel, background included.

    Raises:
        ValueError: an option is not what it should be.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        regions: bool = False,
        classes: int | None = None,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing {label_smoothing}; expected 0 or more, and less than 1")
        self.regions = regions
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weights", weights_of(class_weights, classes))

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of float32 logits (batch, classes, *spatial).

        Args:
            target: (batch, 1, *spatial) int64 labels, or (batch, classes, *spatial) float32 regions.
            mask: (batch, 1, *spatial) bool, False where nothing is annotated.
        """
        return self.of_batch(*self.of_samples(logits, target, mask))

    def of_samples(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Sums of the entropies, and of the weights of what is summed up (batch,)."""
        each = self.of_voxels(logits, target, mask)
        counted = torch.ones_like(target[:, :1], dtype=each.dtype) if mask is None else mask.to(each.dtype)
        if self.regions:
            counted = counted * each.shape[1]
        elif self.class_weights is not None:
            counted = counted * self.class_weights[target]
        return each.flatten(1).sum(1), counted.flatten(1).sum(1)

    def of_batch(self, *parts: Tensor) -> Tensor:
        """The loss from what `of_samples` returns, of all samples."""
        entropy, weight = parts
        return entropy.sum() / weight.sum().clamp_min(1e-8)

    def of_voxels(self, logits: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Cross-entropy of every voxel: (batch, 1, *spatial), of regions (batch, classes, *spatial); 0 off the mask."""
        if self.regions:
            each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            if self.class_weights is not None:
                relative = self.class_weights / self.class_weights.mean()
                each = each * relative.view(1, -1, *(1,) * (each.ndim - 2))
        else:
            each = F.cross_entropy(
                logits, target[:, 0], self.class_weights, reduction="none", label_smoothing=self.label_smoothing
            )[:, None]
        # not a product: 0 * inf would be NaN where a network is certain of a voxel that nobody annotated
        return each if mask is None else torch.where(mask, each, 0.0)


class TopK(CrossEntropy):
    """Mean of the largest cross-entropies of voxels.

    Args:
        regions, classes, label_smoothing, class_weights: see `CrossEntropy`.
        k: percentage of all voxels of the batch, those without annotation included (nnU-Net's rule); at least one.

    Raises:
        ValueError: an option is not what it should be.
    """

    def __init__(
        self,
        regions: bool = False,
        classes: int | None = None,
        k: float = 10.0,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(regions, classes, label_smoothing, class_weights)
        if not 0 < k <= 100:
            raise ValueError(f"k {k}; expected a percentage above 0 and up to 100")
        self.k = k

    def of_samples(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """The entropies of all voxels (batch, voxels): the largest of a batch may all be one sample's."""
        return (self.of_voxels(logits, target, mask).flatten(1),)

    def of_batch(self, *parts: Tensor) -> Tensor:
        """The loss from what `of_samples` returns, of all samples."""
        each = parts[0].flatten()
        # nnU-Net's rule cuts to whole voxels, and fails where that leaves none
        return each.topk(max(1, int(each.numel() * self.k / 100)), sorted=False).values.mean()
