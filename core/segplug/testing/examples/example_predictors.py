"""Another way to run the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from segplug import Component, hookimpl
from segplug.model import Image, Prediction
from segplug.protocols import Model, Pipeline, PredictionSettings, Predictor

if TYPE_CHECKING:
    from torch import Tensor


class Plain:
    """Runs the networks as they are, one per fold; sliding window, mirroring and export are segplug's."""

    def __init__(self, model: Model, settings: PredictionSettings, pipeline: Pipeline) -> None:
        self.model, self.pipeline = model, pipeline

    def predict(self, image: Image, previous: Any = None) -> Prediction:
        import torch

        device = torch.device("cpu")
        networks = self.model.networks(device)

        def forward(network: torch.nn.Module) -> Any:
            def run(patches: Tensor) -> Tensor:
                with torch.inference_mode():
                    return network(patches)  # type: ignore[no-any-return]

            return run

        return self.pipeline.run(image, [forward(network) for network in networks], device, previous)


@hookimpl
def segplug_predictors() -> Iterator[Component[Predictor]]:
    yield Component("plain", f"{__name__}:Plain", "the network as it is, in full precision")
