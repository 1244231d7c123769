"""What is done around every loss: deep supervision, regions, the ignore label and float32."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segplug.errors import PluginError
from segplug.model import LabelSet
from segplug.protocols import Loss
from segplug.runtime.training_targets import downsample, encode_regions, valid_voxels

CERTAIN = 30.0
"""Logit of a class that is sure: softmax and sigmoid of it differ from 1 by less than float32 can tell."""


class SupervisedLoss:
    """A loss of (network output, batch target) around any `segplug.protocols.Loss`.

    The output is one tensor (batch, classes, *spatial) of any floating type, or a list from full to lowest resolution;
    the target (batch, 1, *spatial) integer labels, of the full resolution.

    Args:
        loss: the component.
        labels: what the numbers in targets mean.
        name: of the component, for messages.
        deep_supervision: False takes the full resolution alone.
    """

    def __init__(self, loss: Loss, labels: LabelSet, *, name: str = "loss", deep_supervision: bool = True) -> None:
        self._loss = loss
        self._labels = labels
        self._name = name
        self._deep_supervision = deep_supervision
        self._takes_mask = _takes_mask(loss)

    def __call__(self, output: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """The weighted sum over resolutions.

        Raises:
            PluginError: the loss returned something other than a scalar.
        """
        outputs = [output] if isinstance(output, Tensor) else list(output)
        outputs = outputs if self._deep_supervision else outputs[:1]
        with torch.autocast(target.device.type, enabled=False):
            parts = [
                weight * self._at_scale(logits.float(), downsample(target, logits.shape[2:]))
                for logits, weight in zip(outputs, scale_weights(len(outputs)), strict=True)
                if weight > 0
            ]
        return torch.stack(parts).sum()

    def _at_scale(self, logits: Tensor, target: Tensor) -> Tensor:
        valid = valid_voxels(target, self._labels)
        if valid is not None:
            target = torch.where(valid, target, 0)
        wanted = encode_regions(target, self._labels) if self._labels.has_regions else target.long()
        extra: dict[str, Any] = {}
        if self._takes_mask:
            extra["mask"] = valid
        elif valid is not None:
            logits = torch.where(valid, logits, self._certain_background(logits))
        value = self._loss(logits, wanted, **extra)
        if not isinstance(value, Tensor) or value.ndim:
            found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise PluginError(f"loss {self._name!r} returned {found}; expected a scalar tensor")
        return value

    def _certain_background(self, logits: Tensor) -> Tensor:
        certain = logits.new_full((1, logits.shape[1], *(1,) * (logits.ndim - 2)), -CERTAIN)
        if not self._labels.has_regions:
            certain[:, 0] = CERTAIN
        return certain


def scale_weights(resolutions: int) -> list[float]:
    """Weight of each resolution, from the full one down: 1/2^i, the lowest 0, together 1 (nnU-Net's rule).

    A network with a single resolution (two stages) gets 1, where nnU-Net's rule is 0/0.
    """
    if resolutions == 1:
        return [1.0]
    weights = [0.5**i for i in range(resolutions - 1)]
    return [w / sum(weights) for w in weights] + [0.0]


def _takes_mask(loss: Loss) -> bool:
    function = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        return "mask" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a callable without a readable signature
        return False
