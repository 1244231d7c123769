"""The inference engine: PyTorch on a CPU or GPU."""

from __future__ import annotations

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

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchPredictor:
    """Runs a model's networks with torch. They stay on the device, one per fold, for all images.

    With less than single precision, convolutions and matrix products are computed in it (autocast); `auto` takes bf16
    on a CPU that has it, and on a GPU fp16, as nnU-Net does.

    Raises:
        UsageError: the device or the precision is not to be had.
    """

    def __init__(self, model: Model, settings: PredictionSettings, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.device = resolve_device(settings.device)
        self.precision = prediction_precision(settings.precision, self.device)
        self._networks = model.networks(self.device)

    def predict(self, image: Image, previous: Any = None) -> Prediction:
        """Predict one raw image, see `segplug.protocols.Predictor`."""
        forward = [partial(self._forward, network) for network in self._networks]
        with keeping_freed_memory(), prediction_compute(self.device):
            return self._pipeline.run(image, forward, self.device, previous)

    def _forward(self, network: nn.Module, x: Tensor) -> Tensor:
        dtype = _DTYPES.get(self.precision)
        with torch.autocast(self.device.type, dtype) if dtype is not None else nullcontext():
            logits: Tensor = network(x)
        return logits


def prediction_precision(name: str, device: torch.device) -> str:
    """`fp32`, `bf16` or `fp16`."""
    if name == "auto" and device.type == "cuda":
        return "fp16"
    return resolve_precision(name, device)
