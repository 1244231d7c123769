"""MONAI's losses, told what segplug tells a loss.

Labels go by softmax, regions by sigmoid. The losses of overlap and of distances leave the background of labels out, as
segplug's own do. Voxels that nobody annotated come to them as certain background, which adds nothing to any of their
sums; the focal loss, a mean over voxels, leaves them out itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from monai.losses.dice import DiceLoss, GeneralizedDiceLoss
from monai.losses.focal_loss import FocalLoss
from monai.losses.hausdorff_loss import HausdorffDTLoss, LogHausdorffDTLoss
from monai.losses.tversky import TverskyLoss
from torch import Tensor, nn


def tversky(
    batch_dice: bool = False, regions: bool = False, alpha: float = 0.3, beta: float = 0.7, smooth: float = 1e-5
) -> nn.Module:
    """MONAI's `TverskyLoss`.

    Args:
        batch_dice: sums over the batch rather than per sample.
        regions: channels are regions rather than labels.
        alpha, beta: weights of false positives and false negatives; 0.3 and 0.7 are the paper's best, 0.5 each is Dice.
        smooth: added to numerator and denominator.

    Raises:
        ValueError: a number is negative.
    """
    _not_negative(alpha=alpha, beta=beta, smooth=smooth)
    return TverskyLoss(alpha=alpha, beta=beta, smooth_nr=smooth, smooth_dr=smooth, **_common(batch_dice, regions))


def generalized_dice(
    batch_dice: bool = False,
    regions: bool = False,
    weighting: Literal["square", "simple", "uniform"] = "square",
    smooth: float = 1e-5,
) -> nn.Module:
    """MONAI's `GeneralizedDiceLoss`.

    Args:
        batch_dice, regions, smooth: see `tversky`.
        weighting: of classes by their volume in the truth: 1/volume^2 (the paper's), 1/volume, or all alike.

    Raises:
        ValueError: an option is not what it should be.
    """
    _not_negative(smooth=smooth)
    if weighting not in ("square", "simple", "uniform"):
        raise ValueError(f"weighting {weighting!r}; expected square, simple or uniform")
    common = _common(batch_dice, regions)
    return GeneralizedDiceLoss(w_type=weighting, smooth_nr=smooth, smooth_dr=smooth, **common)


class MaskedFocal(nn.Module):
    """MONAI's `FocalLoss`, averaged over annotated voxels and channels.

    Args:
        regions: channels are regions rather than labels.
        classes: channels of the logits, to check `class_weights`.
        gamma: exponent that makes voxels count less the more they are right; 0, or from 1 on: between them the
            derivative at certainty is infinite.
        class_weights: one per channel, background of labels included.

    Raises:
        ValueError: an option is not what it should be.
    """

    def __init__(
        self,
        regions: bool = False,
        classes: int | None = None,
        gamma: float = 2.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not (gamma == 0 or gamma >= 1):
            raise ValueError(f"gamma {gamma}; expected 0, or a number from 1 on")
        if class_weights is not None:
            unlike = classes is not None and len(class_weights) != classes
            if unlike or not all(weight > 0 for weight in class_weights):
                raise ValueError(
                    f"class_weights {list(class_weights)}; expected {classes or 'as many'} numbers above 0"
                )
        self.focal = FocalLoss(
            include_background=True,
            to_onehot_y=not regions,
            use_softmax=not regions,
            gamma=gamma,
            weight=None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32),
            reduction="none",
        )

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of logits (batch, classes, *spatial); see `segplug.protocols.Loss`."""
        each: Tensor = self.focal(logits, target)
        if mask is None:
            return each.mean()
        # not a product: 0 * inf would be NaN where a network is certain of a voxel that nobody annotated
        return torch.where(mask, each, 0.0).sum() / (mask.sum() * each.shape[1]).clamp_min(1)


class DiceHausdorff(nn.Module):
    """MONAI's `DiceLoss` plus its `HausdorffDTLoss`, the square of the error times powers of distances.

    Args:
        batch_dice, regions: see `tversky`.
        alpha: exponent of distances; 2 is the paper's.
        log: log(1 + loss), MONAI's `LogHausdorffDTLoss`: without it the term grows with the square of the patch, and
            nothing else counts at the beginning of a training.
        weight_dice, weight_hausdorff: factors of the two terms.

    Raises:
        ValueError: a number is negative.
    """

    def __init__(
        self,
        batch_dice: bool = False,
        regions: bool = False,
        alpha: float = 2.0,
        log: bool = True,
        weight_dice: float = 1.0,
        weight_hausdorff: float = 1.0,
    ) -> None:
        super().__init__()
        _not_negative(alpha=alpha, weight_dice=weight_dice, weight_hausdorff=weight_hausdorff)
        common = _common(batch_dice, regions)
        self.dice = DiceLoss(**common)
        self.hausdorff = (LogHausdorffDTLoss if log else HausdorffDTLoss)(alpha=alpha, **common)
        self.weight_dice = weight_dice
        self.weight_hausdorff = weight_hausdorff

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of logits (batch, classes, *spatial); see `segplug.protocols.Loss`."""
        total: Tensor = self.weight_dice * self.dice(logits, target)
        if self.weight_hausdorff:
            total = total + self.weight_hausdorff * self.hausdorff(logits, target)
        return total


def _common(batch_dice: bool, regions: bool) -> dict[str, Any]:
    """What all of MONAI's losses are told alike."""
    return {
        "include_background": regions,
        "to_onehot_y": not regions,
        "softmax": not regions,
        "sigmoid": regions,
        "batch": batch_dice,
    }


def _not_negative(**numbers: float) -> None:
    for name, value in numbers.items():
        if not value >= 0:
            raise ValueError(f"{name} {value}; expected 0 or more")
