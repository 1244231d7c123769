"""nnU-Net's default augmentation on whole batches, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segplug.protocols import AugmentationContext, Batch, Parameters
from segplug_builtin.augmentations.drawing import Effects, draw_sample
from segplug_builtin.augmentations.finishing import finished, label_maps, mask_outside
from segplug_builtin.augmentations.geometry import geometry_of
from segplug_builtin.augmentations.intensity import add_noise, apply_gamma, scale_brightness, stretch_contrast
from segplug_builtin.augmentations.resolution import blur, lower_resolution
from segplug_builtin.augmentations.spatial import crop, move

Change = Callable[[Tensor, NDArray[np.float64]], Tensor | None]
"""Of rows (rows, *spatial) by a value per row: the changed rows, or None if they were changed in place."""


class NNUNetAugmentation:
    """nnU-Net's default augmentation: one call for all samples, each by its own parameters.

    Args:
        context: of the training.
        mirror: False leaves mirroring out.
    """

    def __init__(self, context: AugmentationContext, mirror: bool = True) -> None:
        self._context = context
        self._geometry = geometry_of(context.patch_size)
        self.mirror_axes = self._geometry.mirror_axes if mirror else ()
        self._effects = Effects()

    def source_size(self) -> tuple[int, ...]:
        """nnU-Net's initial patch size; in validation the patch."""
        return self._geometry.patch_size if self._context.validation else self._geometry.source_size

    def draw(self, random: np.random.Generator) -> Parameters:
        """Draw one sample's parameters; see `drawing.draw_sample`."""
        if self._context.validation:
            return {}
        return draw_sample(random, self._geometry, self._context.channels, self.mirror_axes, self._effects)

    def needed_size(self, parameters: Parameters) -> tuple[int, ...]:
        """The patch, or the region that a turned or scaled one reads."""
        return tuple(parameters.get("needed", self._geometry.patch_size))

    def __call__(self, batch: Batch, parameters: Sequence[Parameters]) -> Batch:
        """Augment; the batch given is left as it was."""
        maps = label_maps(batch)
        if self._context.validation:
            return finished(batch, *(crop(part, self._geometry.patch_size) for part in (batch.data, maps)))
        data, maps = move(batch.data, maps, parameters, self._geometry)
        for sample, drawn in enumerate(parameters):
            if "noise" in drawn:
                add_noise(data[sample], *drawn["noise"])
        flat_axes = 1 if self._geometry.dummy_2d else 0
        gammas = [
            ("inverted_gamma", partial(apply_gamma, inverted=True)),
            ("gamma", partial(apply_gamma, inverted=False)),
        ]
        _change_rows(data, parameters, "blur", 0, blur)
        _change_rows(data, parameters, "brightness", 1, _by_tensor(scale_brightness))
        _change_rows(data, parameters, "contrast", 1, _by_tensor(stretch_contrast))
        _change_rows(data, parameters, "low_resolution", 1, partial(lower_resolution, fixed_axes=flat_axes))
        for name, gamma in gammas:
            _change_rows(data, parameters, name, 1, _by_tensor(gamma))
        _mirror(data, maps, parameters)
        mask_outside(data, maps, self._context.use_mask_for_norm)
        return finished(batch, data, maps)


def _change_rows(data: Tensor, parameters: Sequence[Parameters], name: str, neutral: float, change: Change) -> None:
    """Change the channels of `data` whose drawn value is not `neutral`, all at once."""
    channels = data.shape[1]
    rows, values = [], []
    for sample, drawn in enumerate(parameters):
        if name in drawn:
            for channel in np.flatnonzero(np.any(np.reshape(drawn[name], (channels, -1)) != neutral, axis=1)):
                rows.append(sample * channels + int(channel))
                values.append(drawn[name][channel])
    if not rows:
        return
    flat = data.flatten(0, 1)
    adjoining = rows[-1] - rows[0] == len(rows) - 1
    chosen: Any = slice(rows[0], rows[-1] + 1) if adjoining else torch.tensor(rows, device=data.device)
    part = flat[chosen]
    changed = change(part, np.asarray(values))
    if changed is not None or not adjoining:
        flat[chosen] = part if changed is None else changed


def _by_tensor(change: Callable[[Tensor, Tensor], None]) -> Change:
    return lambda rows, values: change(rows, torch.from_numpy(values.astype(np.float32)).to(rows.device))


def _mirror(data: Tensor, maps: Tensor, parameters: Sequence[Parameters]) -> None:
    for sample, drawn in enumerate(parameters):
        axes = [axis + 1 for axis, mirrored in enumerate(drawn.get("mirror", ())) if mirrored]
        if axes:
            data[sample] = data[sample].flip(axes)
            maps[sample] = maps[sample].flip(axes)
