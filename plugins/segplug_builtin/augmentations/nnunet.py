"""nnU-Net's default augmentation on whole batches, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from segplug.protocols import AugmentationContext, Batch, Parameters
from segplug_builtin.augmentations.cascade import CascadeEffects, draw_cascade, spoil
from segplug_builtin.augmentations.drawing import Effects, draw_sample
from segplug_builtin.augmentations.finishing import finished, label_maps, mask_outside
from segplug_builtin.augmentations.geometry import Mirror, geometry_of, mirrored_axes
from segplug_builtin.augmentations.intensity import add_noise, apply_gamma, scale_brightness, stretch_contrast
from segplug_builtin.augmentations.resolution import blur, lower_resolution
from segplug_builtin.augmentations.rows import by_tensor, change_rows, mirror
from segplug_builtin.augmentations.spatial import LabelOrder, Order, crop, move


class NNUNetAugmentation:
    """nnU-Net's default augmentation: one call for all samples, each by its own parameters.

    Args:
        context: of the training.
        mirror: True mirrors along all axes, False along none, `all_but_last` along all but the last one; or the axes.
        labels: `vote` for the label with the largest interpolated indicator, `nearest` for the nearest voxel's.
        dummy_2d: turn and scale in the plane of the last two axes only; None decides by the patch (nnU-Net's rule).

    Raises:
        ValueError: an option is not what it should be.
    """

    def __init__(
        self,
        context: AugmentationContext,
        mirror: Mirror = True,
        labels: LabelOrder = "vote",
        dummy_2d: bool | None = None,
    ) -> None:
        self._context = context
        self._geometry = geometry_of(context.patch_size, dummy_2d)
        self.mirror_axes = mirrored_axes(self._geometry.mirror_axes, mirror)
        self._order = Order(labels=labels)
        self._effects = Effects()
        self._cascade = CascadeEffects()

    def source_size(self) -> tuple[int, ...]:
        """nnU-Net's initial patch size; in validation the patch."""
        return self._geometry.patch_size if self._context.validation else self._geometry.source_size

    def draw(self, random: np.random.Generator) -> Parameters:
        """Draw one sample's parameters; see `drawing.draw_sample` and `cascade.draw_cascade`."""
        if self._context.validation:
            return {}
        drawn = draw_sample(random, self._geometry, self._context.channels, self.mirror_axes, self._effects)
        return {**drawn, **draw_cascade(random, self._context.labels, self._cascade)}

    def needed_size(self, parameters: Parameters) -> tuple[int, ...]:
        """The patch, or the region that a turned or scaled one reads."""
        return tuple(parameters.get("needed", self._geometry.patch_size))

    def __call__(self, batch: Batch, parameters: Sequence[Parameters]) -> Batch:
        """Augment; the batch given is left as it was."""
        maps = label_maps(batch)
        if self._context.validation:
            return finished(batch, *(crop(part, self._geometry.patch_size) for part in (batch.data, maps)))
        data, maps = move(batch.data, maps, parameters, self._geometry, self._order)
        for sample, drawn in enumerate(parameters):
            if "noise" in drawn:
                add_noise(data[sample], *drawn["noise"])
        flat_axes = 1 if self._geometry.dummy_2d else 0
        gammas = [
            ("inverted_gamma", partial(apply_gamma, inverted=True)),
            ("gamma", partial(apply_gamma, inverted=False)),
        ]
        change_rows(data, parameters, "blur", 0, blur)
        change_rows(data, parameters, "brightness", 1, by_tensor(scale_brightness))
        change_rows(data, parameters, "contrast", 1, by_tensor(stretch_contrast))
        change_rows(data, parameters, "low_resolution", 1, partial(lower_resolution, fixed_axes=flat_axes))
        for name, gamma in gammas:
            change_rows(data, parameters, name, 1, by_tensor(gamma))
        mirror(data, maps, parameters)
        mask_outside(data, maps, self._context.use_mask_for_norm)
        done = finished(batch, data, maps)
        if done.previous is not None:
            spoil(done.previous, parameters, self._cascade)
        return done
