"""Brightness alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from segplug import Component, hookimpl
from segplug.protocols import Augmentation, AugmentationContext, Batch, Parameters


class Brightness:
    """Multiplies every image by a factor of its own."""

    def __init__(self, context: AugmentationContext, spread: float = 0.25) -> None:
        self.patch_size, self.spread = context.patch_size, 0.0 if context.validation else spread

    def source_size(self) -> tuple[int, ...]:
        return self.patch_size

    def draw(self, random: np.random.Generator) -> Parameters:
        return {"factor": random.uniform(1 - self.spread, 1 + self.spread)}

    def needed_size(self, parameters: Parameters) -> tuple[int, ...]:
        return self.patch_size

    def __call__(self, batch: Batch, parameters: Sequence[Parameters]) -> Batch:
        factors = batch.data.new_tensor([p["factor"] for p in parameters])
        return dataclasses.replace(batch, data=batch.data * factors.view(-1, *[1] * (batch.data.ndim - 1)))


@hookimpl
def segplug_augmentations() -> Iterator[Component[Augmentation]]:
    yield Component("brightness", f"{__name__}:Brightness", "brightness alone")
