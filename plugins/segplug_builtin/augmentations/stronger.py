"""nnU-Net's stronger augmentation, "DA5", on whole batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from torch import Tensor

from segplug.protocols import AugmentationContext, Batch, Parameters
from segplug_builtin.augmentations.cascade import CascadeEffects, draw_cascade, spoil
from segplug_builtin.augmentations.drawing_stronger import StrongEffects, draw_strong_sample
from segplug_builtin.augmentations.finishing import finished, label_maps, mask_outside
from segplug_builtin.augmentations.geometry import Mirror, geometry_of, mirrored_axes
from segplug_builtin.augmentations.intensity import add_noise, apply_gamma, stretch_contrast
from segplug_builtin.augmentations.local import add_gradient, apply_local_gamma, blank, median, sharpen
from segplug_builtin.augmentations.resolution import blur, lower_resolution
from segplug_builtin.augmentations.rows import by_tensor, change_rows, mirror
from segplug_builtin.augmentations.spatial import ImageOrder, LabelOrder, Order, crop, move

PLANNED_SHRINK = 0.7
"""DA5's smallest scale, which its source region is planned for."""


class StrongerAugmentation:
    """More and stronger effects than nnU-Net's default: quarter turns, swapped axes, local changes, blanked boxes.

    Args:
        context: of the training.
        mirror: True mirrors along all axes, False along none, `all_but_last` along all but the last one; or the axes.
        labels: `vote` for the label with the largest interpolated indicator, `nearest` for the nearest voxel's.
        images: `linear`, or the `nearest` voxel's value.
        dummy_2d: turn and scale in the plane of the last two axes only; None decides by the patch (nnU-Net's rule).

    Raises:
        ValueError: an option is not what it should be.
    """

    def __init__(
        self,
        context: AugmentationContext,
        mirror: Mirror = True,
        labels: LabelOrder = "vote",
        images: ImageOrder = "linear",
        dummy_2d: bool | None = None,
    ) -> None:
        self._context = context
        self._geometry = geometry_of(context.patch_size, dummy_2d, PLANNED_SHRINK)
        self.mirror_axes = mirrored_axes(self._geometry.mirror_axes, mirror)
        self._order = Order(labels=labels, images=images)
        self._effects = StrongEffects()
        self._cascade = CascadeEffects()

    def source_size(self) -> tuple[int, ...]:
        """Large enough for turns and scales; in validation the patch."""
        return self._geometry.patch_size if self._context.validation else self._geometry.source_size

    def draw(self, random: np.random.Generator) -> Parameters:
        """Draw one sample's parameters; see `drawing_stronger.draw_strong_sample` and `cascade.draw_cascade`."""
        if self._context.validation:
            return {}
        drawn = draw_strong_sample(random, self._geometry, self._context.channels, self.mirror_axes, self._effects)
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
        _turn_axes(data, maps, parameters)
        change_rows(data, parameters, "median", 1, median)
        change_rows(data, parameters, "blur", 0, blur)
        for sample, drawn in enumerate(parameters):
            if "noise" in drawn:
                add_noise(data[sample], *drawn["noise"])
        change_rows(data, parameters, "shift", 0, by_tensor(_shift))
        change_rows(data, parameters, "contrast", 1, by_tensor(stretch_contrast))
        change_rows(data, parameters, "free_contrast", 1, by_tensor(partial(stretch_contrast, keep_range=False)))
        flat_axes = 1 if self._geometry.dummy_2d else 0
        change_rows(data, parameters, "low_resolution", 1, partial(lower_resolution, fixed_axes=flat_axes))
        for name in ("inverted_gamma", "inverted_gamma_again"):
            change_rows(data, parameters, name, 1, by_tensor(partial(apply_gamma, inverted=True)))
        mirror(data, maps, parameters)
        _change_places(data, parameters)
        change_rows(data, parameters, "sharpening", 0, by_tensor(sharpen))
        mask_outside(data, maps, self._context.use_mask_for_norm)
        done = finished(batch, data, maps)
        if done.previous is not None:
            spoil(done.previous, parameters, self._cascade)
        return done


def _turn_axes(data: Tensor, maps: Tensor, parameters: Sequence[Parameters]) -> None:
    """Quarter turns, then swapped axes; both leave the shape as it is."""
    for sample, drawn in enumerate(parameters):
        for part in (data, maps):
            if "quarter_turn" in drawn:
                times, first, second = drawn["quarter_turn"]
                part[sample] = part[sample].rot90(times, (first + 1, second + 1)).clone()
            if "axis_order" in drawn:
                part[sample] = part[sample].permute(0, *(axis + 1 for axis in drawn["axis_order"])).clone()


def _shift(rows: Tensor, value: Tensor) -> None:
    rows.flatten(1).add_(value[:, None])


def _change_places(data: Tensor, parameters: Sequence[Parameters]) -> None:
    for name, change in (("boxes", blank), ("gradient", add_gradient), ("local_gamma", apply_local_gamma)):
        for sample, drawn in enumerate(parameters):
            for channel, what in drawn.get(name, ()):
                change(data[sample, channel], what)
