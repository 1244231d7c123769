"""Predictors (inference engines)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from segplug.model import Configuration, DatasetDescription, Image, Plan, Prediction

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class PredictionSettings:
    """How to predict.

    Args:
        step_size: step of the sliding window as a share of the patch.
        mirroring: average over the mirror axes that training allowed.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `auto`, `fp32`, `bf16`, `fp16`, or a name of the engine's own, such as `int8`.
        save_probabilities: keep the class probabilities of the whole image, on disk.
        max_memory_gb: GB (10^9 bytes) that the process tree stays below; None for no limit. The pipeline then works in
            small steps, keeps on disk what does not fit, and gives up raw images once they are preprocessed: what an
            engine is asked to predict is for `Pipeline.run` alone, its array NaN.
        allow_provider_change: accept other plugins than those the model was made with.
    """

    step_size: float = 0.5
    mirroring: bool = True
    device: str = "auto"
    precision: str = "auto"
    save_probabilities: bool = False
    max_memory_gb: float | None = None
    allow_provider_change: bool = False


class Model(Protocol):
    """A trained model as an engine sees it; the framework makes it from a model folder."""

    @property
    def folder(self) -> Path: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def configuration(self) -> Configuration: ...
    @property
    def dataset(self) -> DatasetDescription: ...
    @property
    def folds(self) -> Sequence[int | str]: ...
    @property
    def mirror_axes(self) -> tuple[int, ...]:
        """Spatial axes that training mirrored along."""
        ...

    def networks(self, device: torch.device) -> list[torch.nn.Module]:
        """One network per fold in evaluation mode, on the device, returning one tensor."""
        ...


Forward = Callable[[Any], Any]
"""Maps a float32 tensor (batch, channels, *patch) to logits (batch, classes, *patch) on the same device."""


class Pipeline(Protocol):
    """What surrounds the network at prediction: preprocessing, sliding window, mirroring, streamed export."""

    def run(
        self, image: Image, forward: Sequence[Callable[[Tensor], Tensor]], device: torch.device, previous: Any = None
    ) -> Prediction:
        """Predict one image with one forward function per fold (their logits are averaged).

        Raises:
            segplug.errors.DataError: the logits are not finite.
        """
        ...


class Predictor(Protocol):
    """Turns images into predictions with a trained model.

    The factory gets, by name, `model: Model`, `settings: PredictionSettings` and `pipeline: Pipeline`, so that an
    engine for another runtime has only to bring its own forward function.
    """

    def predict(self, image: Image, previous: Any = None) -> Prediction:
        """Predict one raw image (not preprocessed). `previous`: Labels of the previous stage, for a cascade."""
        ...
