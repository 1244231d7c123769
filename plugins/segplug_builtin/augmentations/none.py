"""The patch as it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segplug.protocols import AugmentationContext, Batch, Parameters
from segplug_builtin.augmentations.finishing import finished, label_maps
from segplug_builtin.augmentations.spatial import crop


class NoAugmentation:
    """Changes no voxel but the label -1 (outside), which becomes background, as nnU-Net does."""

    mirror_axes: tuple[int, ...] = ()

    def __init__(self, context: AugmentationContext) -> None:
        self._patch_size = tuple(context.patch_size)

    def source_size(self) -> tuple[int, ...]:
        """The patch."""
        return self._patch_size

    def draw(self, random: np.random.Generator) -> Parameters:
        """Nothing."""
        return {}

    def needed_size(self, parameters: Parameters) -> tuple[int, ...]:
        """The patch."""
        return self._patch_size

    def __call__(self, batch: Batch, parameters: Sequence[Parameters]) -> Batch:
        """The batch with background instead of label -1."""
        return finished(batch, *(crop(part, self._patch_size) for part in (batch.data, label_maps(batch))))
