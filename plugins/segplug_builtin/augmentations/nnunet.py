"""nnU-Net's default augmentation on whole batches, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segplug.protocols import AugmentationContext, Batch, Parameters
from segplug_builtin.augmentations import intensity
from segplug_builtin.augmentations.drawing import Probabilities, draw_sample
from segplug_builtin.augmentations.finishing import without_outside
from segplug_builtin.augmentations.geometry import geometry_of
from segplug_builtin.augmentations.spatial import crop, place_grid, sample_labels, sample_linear


class NNUNetAugmentation:
    """nnU-Net's default augmentation: each sample by its own parameters, one call for all samples.

    Args:
        context: of the training.
        mirror: False leaves mirroring out.
    """

    def __init__(self, context: AugmentationContext, mirror: bool = True) -> None:
        self._context = context
        self._geometry = geometry_of(context.patch_size)
        self.mirror_axes = self._geometry.mirror_axes if mirror else ()
        self._chances = Probabilities()

    def source_size(self) -> tuple[int, ...]:
        """nnU-Net's initial patch size; the patch in validation."""
        return self._geometry.patch_size if self._context.validation else self._geometry.source_size

    def draw(self, random: np.random.Generator) -> Parameters:
        """Draw one sample's parameters; see `drawing.draw_sample`."""
        if self._context.validation:
            return {}
        return draw_sample(random, self._geometry, self._context.channels, self.mirror_axes, self._chances)

    def needed_size(self, parameters: Parameters) -> tuple[int, ...]:
        """The patch, or the region that a turned or scaled one reads."""
        return tuple(parameters.get("needed", self._geometry.patch_size))

    def __call__(self, batch: Batch, parameters: Sequence[Parameters]) -> Batch:
        """Augment; the batch is left as it was."""
        batch = self._spatial(batch, parameters)
        if self._context.validation:
            return without_outside(batch)
        data = batch.data
        for sample, drawn in enumerate(parameters):
            if "noise" in drawn:
                intensity.add_noise(data[sample], *drawn["noise"])
        self._on_rows(data, parameters, "blur", self._blur)
        self._on_rows(
            data, parameters, "brightness", lambda rows, by: intensity.scale_brightness(rows, _tensor(by, rows))
        )
        self._on_rows(
            data, parameters, "contrast", lambda rows, by: intensity.stretch_contrast(rows, _tensor(by, rows))
        )
        self._on_rows(data, parameters, "low_resolution", self._low_resolution)
        for name, inverted in (("inverted_gamma", True), ("gamma", False)):
            gamma = partial(intensity.apply_gamma, inverted=inverted)
            self._on_rows(data, parameters, name, lambda rows, by, g=gamma: g(rows, _tensor(by, rows)))
        batch = self._mirror(batch, parameters)
        self._mask(batch)
        return without_outside(batch)

    def _spatial(self, batch: Batch, parameters: Sequence[Parameters]) -> Batch:
        geometry = self._geometry
        data = crop(batch.data, geometry.patch_size).clone(memory_format=torch.contiguous_format)
        target = crop(batch.target, geometry.patch_size).clone(memory_format=torch.contiguous_format)
        moved = [i for i, drawn in enumerate(parameters) if "affine" in drawn or "scale" in drawn]
        plane = geometry.turned_axes
        for sample in moved:
            drawn = parameters[sample]
            matrix = torch.from_numpy(drawn.get("affine", drawn.get("scale", 1.0) * np.eye(plane)))[None]
            image, labels = batch.data[sample : sample + 1], batch.target[sample : sample + 1]
            if geometry.dummy_2d:
                image, labels = (t[:, :, : geometry.patch_size[0]].flatten(1, 2) for t in (image, labels))
            grid = place_grid(
                matrix.to(image.device), geometry.patch_size[-plane:], image.shape[-plane:], self.source_size()[-plane:]
            )
            data[sample] = sample_linear(image, grid).view(data[sample].shape)
            target[sample] = sample_labels(labels, grid).view(target[sample].shape)
        return replace(batch, data=data, target=target)

    def _on_rows(
        self, data: Tensor, parameters: Sequence[Parameters], name: str, change: Callable[[Tensor, Any], Any]
    ) -> None:
        chosen = [i for i, drawn in enumerate(parameters) if name in drawn]
        if not chosen:
            return
        values = np.concatenate([parameters[i][name] for i in chosen])
        rows = data[chosen].flatten(0, 1)
        changed = change(rows, values)
        data[chosen] = (rows if changed is None else changed).view(len(chosen), *data.shape[1:])

    def _blur(self, rows: Tensor, sigmas: Any) -> Tensor:
        matrices = [
            intensity.blur_matrix(size, sigmas[:, axis]).to(rows.device) for axis, size in enumerate(rows.shape[1:])
        ]
        return intensity.apply_matrices(rows, matrices)

    def _low_resolution(self, rows: Tensor, zooms: Any) -> Tensor:
        matrices: list[Tensor | None] = []
        for axis, size in enumerate(rows.shape[1:]):
            fixed = axis == 0 and self._geometry.dummy_2d
            matrices.append(None if fixed else intensity.low_resolution_matrix(size, zooms).to(rows.device))
        return intensity.apply_matrices(rows, matrices)

    def _mirror(self, batch: Batch, parameters: Sequence[Parameters]) -> Batch:
        for sample, drawn in enumerate(parameters):
            axes = [axis + 1 for axis, mirrored in enumerate(drawn.get("mirror", ())) if mirrored]
            if axes:
                batch.data[sample] = batch.data[sample].flip(axes)
                batch.target[sample] = batch.target[sample].flip(axes)
        return batch

    def _mask(self, batch: Batch) -> None:
        masked = [channel for channel, use in enumerate(self._context.use_mask_for_norm) if use]
        if masked:
            outside = batch.target < 0
            for channel in masked:
                batch.data[:, channel : channel + 1].masked_fill_(outside, 0)


def _tensor(values: Any, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(like.device)
