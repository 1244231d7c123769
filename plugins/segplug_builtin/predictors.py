"""The inference engine: PyTorch on a CPU or GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from segplug.model import Image, Prediction
from segplug.protocols import Model, Pipeline, PredictionSettings
from segplug.runtime.compute_settings import prediction_compute
from segplug.runtime.device import resolve_device, resolve_precision
from segplug.runtime.kept_memory import keeping_freed_memory
from segplug_builtin.packed_networks import packed

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchPredictor:
    """Runs a model's networks with torch. They stay on the device, one per fold, for all images.

    With less than single precision, convolutions and matrix products are computed in it (autocast); `auto` takes bf16
    on a CPU that has it, and on a GPU fp16, as nnU-Net does. On a CPU, U-Nets are laid out anew, see `packed_networks`.

    Raises:
        UsageError: the device or the precision is not to be had.
    """

    def __init__(self, model: Model, settings: PredictionSettings, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.device = resolve_device(settings.device)
        self.precision = prediction_precision(settings.precision, self.device)
        self._forward = [self._forward_of(network) for network in model.networks(self.device)]

    def predict(self, image: Image, previous: Any = None) -> Prediction:
        """Predict one raw image, see `segplug.protocols.Predictor`."""
        with keeping_freed_memory(), prediction_compute(self.device):
            return self._pipeline.run(image, self._forward, self.device, previous)

    def _forward_of(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        dtype = _DTYPES.get(self.precision)
        if self.device.type == "cpu":
            faster = packed(network, dtype or torch.float32)
            if faster is not None:
                return faster
        return partial(_computed_in, network, self.device, dtype)


def _computed_in(network: nn.Module, device: torch.device, dtype: torch.dtype | None, x: Tensor) -> Tensor:
    with torch.autocast(device.type, dtype) if dtype is not None else nullcontext():
        logits: Tensor = network(x)
    return logits


def prediction_precision(name: str, device: torch.device) -> str:
    """`fp32`, `bf16` or `fp16`."""
    if name == "auto" and device.type == "cuda":
        return "fp16"
    return resolve_precision(name, device)
