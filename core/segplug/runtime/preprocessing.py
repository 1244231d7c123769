"""One case: transpose, crop to nonzero, normalise, resample; the same before training and before prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.kernel.registry import Registry
from segplug.model import ChannelStatistics, Configuration, Geometry, Image, Labels, Plan
from segplug.protocols import Normalizer, Resampler
from segplug.runtime.cropping import crop_to_nonzero, nonzero_box, slices
from segplug.runtime.wording import counted


@dataclass(frozen=True)
class CroppedCase:
    """A case before anything that depends on a configuration.

    Args:
        data: float32 (c, z, y, x), transposed and cropped; never written to, so that configurations can share it.
        target: int16 (1, z, y, x), -1 outside the nonzero region; None if neither labels nor mask were asked for.
        has_labels: False if the target is only the mask.
        spacing: in the transposed order.
        properties: as `PreprocessedCase.properties`.
    """

    data: NDArray[np.float32]
    target: NDArray[np.int16] | None
    has_labels: bool
    spacing: tuple[float, ...]
    properties: Mapping[str, Any]


@dataclass(frozen=True)
class Preprocessing:
    """What a plan does to each case of one configuration, all components found. Can be sent to other processes."""

    transpose: tuple[int, ...]
    spacing: tuple[float, ...]
    normalizers: tuple[Normalizer, ...]
    use_mask: tuple[bool, ...]
    statistics: tuple[ChannelStatistics | None, ...]
    resample_data: Resampler
    resample_seg: Resampler

    @classmethod
    def of(cls, plan: Plan, configuration: Configuration, registry: Registry) -> Preprocessing:
        """Find the plan's components.

        Raises:
            PluginError: one is missing.
        """
        count = len(configuration.normalization)
        statistics: list[ChannelStatistics | None] = [*plan.channels[:count]]
        statistics += [None] * (count - len(statistics))
        return cls(
            tuple(plan.transpose_forward),
            tuple(configuration.spacing),
            tuple(registry.build("normalizers", ref) for ref in configuration.normalization),
            tuple(configuration.use_mask_for_norm),
            tuple(statistics),
            registry.build("resamplers", configuration.resample_data),
            registry.build("resamplers", configuration.resample_seg),
        )

    def crop(self, image: Image, labels: Labels | None, *, consumed: bool = False) -> CroppedCase:
        """The steps that every configuration of a plan has in common.

        Args:
            consumed: the label map is not needed any more and may be written over.

        Raises:
            DataError: the image has a value that is not finite, or the label map another shape.
        """
        require_finite(image.array)
        if len(image.array) != len(self.normalizers):
            raise DataError(f"the image has {counted(len(image.array), 'channel')}, the plan {len(self.normalizers)}")
        if labels is not None and labels.shape != image.shape:
            raise DataError(f"the label map has shape {labels.shape}, the image {image.shape}")
        if labels is None and not any(self.use_mask):
            box, target = nonzero_box(image.array), None
        else:
            _, target, box = crop_to_nonzero(image.array, None if labels is None else labels.array, consumed=consumed)
            target = np.ascontiguousarray(target.transpose(0, *(a + 1 for a in self.transpose)))
        cropped = image.array[(slice(None), *slices(box))].transpose(0, *(a + 1 for a in self.transpose))
        return CroppedCase(
            cropped,
            target,
            labels is not None,
            self._ordered(image.spacing),
            {
                "spacing": list(image.spacing),
                "shape_before_cropping": list(self._ordered(image.shape)),
                "bbox_used_for_cropping": [list(side) for side in self._ordered(box)],
                "shape_after_cropping_and_before_resampling": list(cropped.shape[1:]),
                "geometry": geometry_to_json(image.geometry),
            },
        )

    def finish(
        self, case: CroppedCase, *, consumed: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.int16] | None, dict[str, Any]]:
        """Normalise and resample a cropped case; returns what `preprocess_image` does.

        Args:
            consumed: the case is not needed any more: its data may be written over, which saves a copy.
        """
        return self.resample(self.normalise(case, consumed=consumed))

    def normalises_as(self, other: Preprocessing) -> bool:
        """Whether both normalise alike, so that one normalised case does for both."""
        mine, others = ((s.transpose, s.normalizers, s.use_mask, s.statistics) for s in (self, other))
        return mine == others

    def normalise(self, case: CroppedCase, *, consumed: bool = False) -> CroppedCase:
        """The case, each channel normalised.

        Args:
            consumed: the case is not needed any more: its data may be written over, which saves a copy.
        """
        data = compacted(case.data) if consumed else None
        in_place = data is not None
        if data is None:
            data = np.empty(case.data.shape, np.float32)
        mask = None if case.target is None or not any(self.use_mask) else case.target[0] >= 0
        for index, (normalize, use_mask) in enumerate(zip(self.normalizers, self.use_mask, strict=True)):
            channel = data[index]
            if not in_place:
                channel[:] = case.data[index]
            normalised = normalize(channel, mask if use_mask else None, self.statistics[index])
            if normalised is not channel:  # it did not work in place
                channel[:] = normalised
        return replace(case, data=data)

    def resample(self, case: CroppedCase) -> tuple[NDArray[np.float32], NDArray[np.int16] | None, dict[str, Any]]:
        """Resample a normalised case; returns what `preprocess_image` does. The data may be the case's own."""
        return self.resampled_image(case), self.resampled_target(case), dict(case.properties)

    def resampled_image(self, case: CroppedCase) -> NDArray[np.float32]:
        """The image of a normalised case, resampled; it may be the case's own."""
        spacing = self.target_spacing(case.spacing)
        shape = resampled_shape(case.data.shape[1:], case.spacing, spacing)
        return np.asarray(self.resample_data(case.data, shape, case.spacing, spacing), np.float32)

    def resampled_target(self, case: CroppedCase) -> NDArray[np.int16] | None:
        """The labels of a case, resampled, a new array; None without labels. The image is not looked at."""
        if not case.has_labels or case.target is None:
            return None
        spacing = self.target_spacing(case.spacing)
        shape = resampled_shape(case.target.shape[1:], case.spacing, spacing)
        target = np.asarray(self.resample_seg(case.target, shape, case.spacing, spacing), np.int16)
        return target.copy() if target is case.target else target

    def target_spacing(self, spacing: Sequence[float]) -> tuple[float, ...]:
        """Spacing after resampling for an image of this spacing; a 2D configuration keeps that between slices."""
        return (*spacing[: len(spacing) - len(self.spacing)], *self.spacing)

    def _ordered(self, values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[axis] for axis in self.transpose)


def preprocess_image(
    image: Image, labels: Labels | None, plan: Plan, configuration: Configuration, registry: Registry
) -> tuple[NDArray[np.float32], NDArray[np.int16] | None, dict[str, Any]]:
    """Preprocess one case by nnU-Net's steps. For many cases make a `Preprocessing` once.

    Returns:
        Data, float32 (c, z, y, x) in the plan's axis order; target, int16 (1, z, y, x) with -1 for background outside
        the nonzero region, None without labels; properties (JSON values, nnU-Net's names): `spacing` in the image's own
        axis order, `shape_before_cropping`, `bbox_used_for_cropping` and `shape_after_cropping_and_before_resampling`
        in the plan's order, and `geometry` of the image.

    Raises:
        DataError: the image has a value that is not finite, or other channels than the plan, or the label map has
            another shape.
    """
    steps = Preprocessing.of(plan, configuration, registry)
    return steps.finish(steps.crop(image, labels))


def compacted(array: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """A part of an array moved together at the front of its memory, the rest of which is lost; None if it cannot be.

    Each plane moves forward, over what is there no longer: no second array is needed.

    Args:
        array: (c, z, y, x), axes in the order of the memory.
    """
    whole: Any = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    steps = array.strides
    if not (whole.flags.c_contiguous and whole.flags.writeable and whole.dtype == array.dtype):
        return None
    if array.flags.c_contiguous:
        return array if array.flags.writeable else None
    if any(step < following for step, following in pairwise(steps)) or steps[-1] != array.itemsize:
        return None
    moved: NDArray[np.float32] = whole.reshape(-1)[: array.size].reshape(array.shape)
    for index in np.ndindex(array.shape[:2]):
        moved[index] = array[index]
    return moved


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]) -> tuple[int, ...]:
    """Shape at a new spacing, rounded half to even as nnU-Net does; at least one voxel per axis."""
    return tuple(max(1, round(old / new * n)) for old, new, n in zip(spacing, new_spacing, shape, strict=True))


class NotFiniteError(DataError):
    """An image has NaN or infinity; `channel` tells where to look for its file."""

    def __init__(self, text: str, channel: int) -> None:
        super().__init__(text)
        self.channel = channel


def require_finite(array: NDArray[np.float32]) -> None:
    """Refuse NaN and infinity: one such voxel would make the whole normalised image so.

    Args:
        array: (c, z, y, x).

    Raises:
        NotFiniteError: naming how many there are and where the first is.
    """
    for index, channel in enumerate(array):
        if channel.size and not (np.isfinite(channel.min()) and np.isfinite(channel.max())):  # both pass NaN on
            wrong = np.argwhere(~np.isfinite(channel))
            first = tuple(int(i) for i in wrong[0])
            text = (
                f"channel {index} has {len(wrong)} values that are not finite, the first ({channel[first]}) at voxel "
            )
            raise NotFiniteError(f"{text}{first} (z, y, x). Mend the image: every value has to be a number", index)


def geometry_to_json(geometry: Geometry) -> dict[str, Any]:
    """JSON values; arrays become lists."""
    extra = {key: value.tolist() if hasattr(value, "tolist") else value for key, value in geometry.extra.items()}
    return {
        "spacing": list(geometry.spacing),
        "origin": list(geometry.origin),
        "direction": list(geometry.direction),
        "extra": extra,
    }


def geometry_from_json(raw: Mapping[str, Any]) -> Geometry:
    """The geometry again; arrays in `extra` stay lists."""
    return Geometry(tuple(raw["spacing"]), tuple(raw["origin"]), tuple(raw["direction"]), dict(raw["extra"]))
