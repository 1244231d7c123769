"""clDice: Shit et al., "clDice - a novel topology-preserving loss function for tubular structures", CVPR 2021."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segplug_sparse_losses.overlap import Overlap, entropy, not_negative, overlaps

NEIGHBOURS = {2: ((3, 1), (1, 3)), 3: ((3, 1, 1), (1, 3, 1), (1, 1, 3))}
"""Neighbourhoods whose minima together erode: a cross, as in the authors' implementation."""


class DiceClDice(nn.Module):
    """Soft Dice plus soft clDice, which is the Dice of centre lines, plus cross-entropy.

    ``(1 - alpha) * (1 - Dice) + alpha * (1 - clDice) + weight_ce * cross-entropy``: the paper's loss (equation 4), and
    segplug's usual second term. With labels, background is not scored.

    Args:
        batch_dice, regions, classes, smooth: see `Overlap`. `batch_dice` holds for both scores.
        alpha: share of clDice, 0 to 1; the paper tried up to 0.5.
        iterations: of thinning. As many as the radius of the thickest structure, in voxels of the resolution that is
            supervised (the paper's k).
        weight_ce: factor of the cross-entropy; 0 is the paper's loss.

    Raises:
        ValueError: an option is not what it should be.
    """

    SMOOTH_LINES = 1.0
    """Added to numerator and denominator of sensitivity and precision of lines (the authors' implementation)."""

    def __init__(
        self,
        batch_dice: bool = False,
        regions: bool = False,
        classes: int | None = None,
        alpha: float = 0.5,
        iterations: int = 3,
        smooth: float = 1e-5,
        weight_ce: float = 1.0,
    ) -> None:
        super().__init__()
        not_negative(weight_ce=weight_ce)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha {alpha}; expected 0 to 1")
        if not (isinstance(iterations, int) and iterations >= 1):
            raise ValueError(f"iterations {iterations}; expected a whole number from 1 on")
        self.overlap = Overlap(batch_dice, regions, classes, smooth)
        self.alpha = alpha
        self.iterations = iterations
        self.weight_ce = weight_ce

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of float32 logits (batch, classes, *spatial).

        Args:
            target: (batch, 1, *spatial) int64 labels, or (batch, classes, *spatial) float32 regions.
            mask: (batch, 1, *spatial) bool, False where nothing is annotated. Prediction and truth end there alike.
        """
        return self.of_batch(*self.of_samples(logits, target, mask))

    def of_samples(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Sums per sample: those of `Overlap.sums`, and for either skeleton its part in the other's body, and all."""
        sums = self.overlap.sums(logits, target, mask)
        probability, truth = self.overlap.scored(logits, target, mask)
        line_found, found, _ = overlaps(soft_skeleton(probability, self.iterations), truth)
        line_true, true, _ = overlaps(soft_skeleton(truth, self.iterations), probability)
        return *sums, line_found, found, line_true, true

    def of_batch(self, *parts: Tensor) -> Tensor:
        """The loss from what `of_samples` returns, of all samples."""
        overlap, predicted, truth, entropies, weights, *lines = parts
        in_truth, found, in_prediction, true = [each.sum(0) for each in lines] if self.overlap.batch_dice else lines
        precision = (in_truth + self.SMOOTH_LINES) / (found + self.SMOOTH_LINES)
        sensitivity = (in_prediction + self.SMOOTH_LINES) / (true + self.SMOOTH_LINES)
        of_lines = (2 * precision * sensitivity / (precision + sensitivity)).mean()
        dice = self.overlap.dice(overlap, predicted, truth)
        scores = (1 - self.alpha) * (1 - dice) + self.alpha * (1 - of_lines)
        return scores + self.weight_ce * entropy(entropies, weights)


def soft_skeleton(image: Tensor, iterations: int) -> Tensor:
    """Centre lines of (batch, channels, *spatial) values between 0 and 1 (algorithm 1 of the paper)."""
    skeleton = F.relu(image - soft_open(image))
    for _ in range(iterations):
        image = soft_erode(image)
        more = F.relu(image - soft_open(image))
        skeleton = skeleton + F.relu(more - skeleton * more)
    return skeleton


def soft_erode(image: Tensor) -> Tensor:
    """Minimum over each voxel and its neighbours along the axes."""
    minima = [-_largest(-image, size) for size in NEIGHBOURS[image.ndim - 2]]
    return torch.stack(minima).amin(0)


def soft_open(image: Tensor) -> Tensor:
    """Erosion, then the maximum over all neighbours."""
    return _largest(soft_erode(image), (3,) * (image.ndim - 2))


def _largest(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maximum over neighbourhoods of odd sizes; what lies outside the image does not count."""
    pool = F.max_pool2d if image.ndim == 4 else F.max_pool3d
    return pool(image, size, stride=1, padding=tuple(n // 2 for n in size))
