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
        each = self.of_voxels(logits, target, mask)
        if self.regions:
            return each.mean() if mask is None else each.sum() / (mask.sum() * each.shape[1]).clamp_min(1)
        if self.class_weights is None:
            return each.mean() if mask is None else each.sum() / mask.sum().clamp_min(1)
        weights = self.class_weights[target]
        return each.sum() / (weights if mask is None else weights * mask).sum().clamp_min(1e-8)

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

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """See `CrossEntropy`."""
        each = self.of_voxels(logits, target, mask).flatten()
        # nnU-Net's rule cuts to whole voxels, and fails where that leaves none
        return each.topk(max(1, int(each.numel() * self.k / 100)), sorted=False).values.mean()
