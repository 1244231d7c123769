"""What is done around every loss: deep supervision, regions, the ignore label, float32, and several processes."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from segplug.errors import PluginError, SegplugError
from segplug.model import LabelSet
from segplug.protocols import Loss, SampleWiseLoss
from segplug.runtime.data_parallel import times_gradient
from segplug.runtime.training_targets import downsample, encode_regions, valid_voxels

Gather = Callable[[Tensor], Tensor]

CERTAIN = 30.0
"""Logit of a class that is sure: softmax and sigmoid of it differ from 1 by less than float32 can tell."""


class SupervisedLoss:
    """A loss of (network output, batch target) around any `segplug.protocols.Loss`.

    The output is one tensor (batch, classes, *spatial) of any floating type, or a list from full to lowest resolution;
    the target (batch, 1, *spatial) integer labels, of the full resolution.

    Args:
        loss: the component.
        labels: what the numbers in targets mean.
        name: of the component, for messages; `plugin:name`.
        deep_supervision: False takes the full resolution alone.
        gather: on several processes, makes the samples of all out of this one's (batch, ...). The loss is that of all
            samples then, the same in every process.
        processes: how many those are. Their gradients are going to be averaged; they are made such that the average is
            the gradient of the loss of all samples.
    """

    def __init__(
        self,
        loss: Loss,
        labels: LabelSet,
        *,
        name: str = "loss",
        deep_supervision: bool = True,
        gather: Gather | None = None,
        processes: int = 1,
    ) -> None:
        self._loss = loss
        self._labels = labels
        self._name = name
        self._deep_supervision = deep_supervision
        self._gather = gather
        self._processes = processes
        self._takes_mask = _takes_mask(loss)

    @property
    def module(self) -> Any:
        """The component itself, which a trainer may compile."""
        return self._loss

    def weights(self, resolutions: int) -> list[float]:
        """Weight of each output of a network, from the full resolution down."""
        return scale_weights(resolutions) if self._deep_supervision else [1.0] + [0.0] * (resolutions - 1)

    def __call__(self, output: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """The weighted sum over resolutions.

        Raises:
            PluginError: the loss failed, or returned something other than a scalar.
        """
        outputs = [output] if isinstance(output, Tensor) else list(output)
        weights = self.weights(len(outputs))
        outputs = [logits for logits, weight in zip(outputs, weights, strict=True) if weight > 0]
        with torch.autocast(target.device.type, enabled=False):
            if self._gather is None:
                values = self._values(outputs, target)
            elif isinstance(self._loss, SampleWiseLoss):
                values = self._values_of_samples(self._loss, outputs, target, self._gather)
            else:
                values = self._values([self._gather(logits) for logits in outputs], self._gather(target))
            whole = torch.stack([w * v for w, v in zip(filter(None, weights), values, strict=True)]).sum()
        return whole if self._gather is None else times_gradient(whole, self._processes)

    def _values(self, outputs: Sequence[Tensor], target: Tensor) -> list[Tensor]:
        """The loss at each resolution."""
        prepared = [self._prepared(logits, target) for logits in outputs]
        found = []
        for logits, wanted, mask in prepared:
            with self._named(logits, wanted, mask):
                found.append(self._loss(logits, wanted, **mask))
        return [self._checked(value) for value in found]

    def _values_of_samples(
        self, loss: SampleWiseLoss, outputs: Sequence[Tensor], target: Tensor, gather: Gather
    ) -> list[Tensor]:
        """The same, when it is enough to gather numbers of each sample; those of all resolutions at once."""
        prepared = [self._prepared(logits, target) for logits in outputs]
        parts = []
        for logits, wanted, mask in prepared:
            with self._named(logits, wanted, mask):
                parts.append([_float32_at_least(part) for part in loss.of_samples(logits, wanted, **mask)])
        flat = [part.reshape(len(part), -1) for scale in parts for part in scale]
        whole = iter(torch.split(gather(torch.cat(flat, 1)), [part.shape[1] for part in flat], 1))
        return [
            self._checked(loss.of_batch(*(next(whole).reshape(-1, *part.shape[1:]) for part in scale)))
            for scale in parts
        ]

    def _prepared(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Logits, target and perhaps a mask of one resolution, as a loss takes them."""
        logits, target = _float32_at_least(logits), downsample(target, logits.shape[2:])
        valid = valid_voxels(target, self._labels)
        if valid is not None:
            target = torch.where(valid, target, 0)
        wanted = encode_regions(target, self._labels) if self._labels.has_regions else target.long()
        if self._takes_mask:
            return logits, wanted, {"mask": valid}
        if valid is not None:
            logits = torch.where(valid, logits, self._certain_background(logits))
        return logits, wanted, {}

    @contextmanager
    def _named(self, logits: Tensor, wanted: Tensor, mask: dict[str, Any]) -> Iterator[None]:
        """Say which loss it was that failed, where, and what it was given. Want of memory is not the loss's fault."""
        try:
            yield
        except (SegplugError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            given = {"logits": logits, "target": wanted, **mask}
            told = ", ".join(f"{name} {_described(value)}" for name, value in given.items())
            kind = "each of the regions, 0 or 1" if self._labels.has_regions else "class numbers"
            raise PluginError(
                f"loss {self._name!r} failed: {type(error).__name__}: {error} ({place.filename}, line {place.lineno}). "
                f"It was given {told}; the target holds {kind}. Correct the loss or its options, or choose another "
                "with --set trainer.loss=NAME"
            ) from error

    def _checked(self, value: Any) -> Tensor:
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


def _float32_at_least(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    return f"{str(value.dtype).removeprefix('torch.')} ({', '.join(map(str, value.shape))})"


def _takes_mask(loss: Loss) -> bool:
    function = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        return "mask" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a callable without a readable signature
        return False
