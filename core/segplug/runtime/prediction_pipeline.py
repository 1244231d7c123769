"""What surrounds a network at prediction: preprocessing before it, the window over it, the export after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segplug.errors import DataError
from segplug.kernel import Registry
from segplug.model import Geometry, Image, Labels, LabelSet, Prediction
from segplug.protocols import Model, OpenImage, PredictionSettings, SeparableResampler
from segplug.runtime.kept_memory import give_back_freed_memory
from segplug.runtime.large_images import prepare_on_disk
from segplug.runtime.memory_limit import MemoryLimit
from segplug.runtime.network import count_input_channels
from segplug.runtime.prediction_memory import PredictionMemory
from segplug.runtime.preprocessing import CroppedCase, Preprocessing, resampled_shape
from segplug.runtime.probability_file import forget_pages, scratch_array
from segplug.runtime.sliding_window import Slab, Window, slide
from segplug.runtime.streamed_export import Export, Placement, StreamedExport, WholeExport, label_dtype

SLICES_AT_ONCE = 8
"""Slices of a volume that a 2D network works on together."""

VOXELS_ON_GPU = 1 << 22
"""Voxels of the tiles that a GPU gets at once: two patches of 128^3."""


@dataclass(frozen=True)
class PreparedImage(Image):
    """An image whose preprocessing is done already, so that it could be done while another was predicted.

    Args:
        data: float32 (channels, z, y, x): transposed, cropped, normalised, resampled; with the previous stage's labels
            as further channels in a cascade.
        properties: as in `PreprocessedCase`.
        next_shapes: configuration of a further stage -> shape of the case there, for which labels are wanted too.
        on_disk: the data are mapped from a file, and so is the label map to be.
    """

    data: NDArray[np.float32] = field(kw_only=True)
    properties: Mapping[str, Any] = field(kw_only=True)
    next_shapes: Mapping[str, tuple[int, ...]] = field(kw_only=True, default_factory=dict)
    on_disk: bool = field(kw_only=True, default=False)


def with_previous(data: NDArray[np.float32], previous: NDArray[Any], labels: LabelSet) -> NDArray[np.float32]:
    """What the network of a cascade sees: the image, and each foreground label of the previous stage as a channel.

    Args:
        data: (channels, z, y, x), preprocessed.
        previous: labels (z, y, x) on the same grid.
    """
    return np.concatenate([data, *(previous[None] == label for label in labels.foreground_labels)], dtype=np.float32)


class PredictionPipeline:
    """What `segplug.protocols.Pipeline` describes, for one model and its settings.

    Args:
        registry: for the plan's normalizers and resamplers.
        scratch: folder on whose disk probabilities are kept meanwhile; None for the system's temporary folder.
        progress: called with (tiles done along the window's axis, all of them) as an image comes along.

    Raises:
        PluginError: a component of the plan is missing.
    """

    def __init__(
        self,
        registry: Registry,
        model: Model,
        settings: PredictionSettings,
        *,
        scratch: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._registry = registry
        self._model = model
        self._settings = settings
        self._scratch = scratch
        self._progress = progress
        self._preprocessing = Preprocessing.of(model.plan, model.configuration, registry)
        self._memory = PredictionMemory(MemoryLimit(settings.max_memory_gb), scratch)

    def prepare(self, image: Image, previous: Labels | None = None, *, consumed: bool = False) -> PreparedImage:
        """Preprocess an image; with a cascade, add the labels that the previous stage predicted, one channel each.

        Args:
            consumed: the image's array is not needed any more: it may be written over, and is NaN in the result.

        Raises:
            DataError: the image has other channels than the model wants, or values that are not finite; a cascade has
                no previous prediction, or one of another shape; a limit of memory cannot be kept.
        """
        name = self._model.configuration.previous_stage
        if name is not None and previous is None:
            raise DataError(f"configuration {self._model.configuration.name} needs the prediction of {name} as input")
        steps = self._preprocessing
        cropped = steps.crop(image, previous if name is not None else None)
        self._require_room(cropped, consumed)
        data, target, properties = steps.finish(cropped, consumed=consumed)
        if name is not None and target is not None:
            data = with_previous(data, target[0], self._model.dataset.labels)
        array = np.broadcast_to(np.float32(np.nan), image.array.shape) if consumed else image.array
        return PreparedImage(array, image.geometry, data=data, properties=properties)

    def prepare_large(self, image: OpenImage) -> PreparedImage | None:
        """Preprocess an image part by part onto the disk if it is too large for the limit of memory; None if it is not.

        Raises:
            DataError: see `segplug.runtime.large_images.prepare_on_disk`.
        """
        if self._memory.has_room_for(image.shape):
            return None
        data, properties = prepare_on_disk(
            image, self._model.plan, self._model.configuration, self._registry, self._scratch
        )
        array = np.broadcast_to(np.float32(np.nan), image.shape)
        return PreparedImage(array, image.geometry, data=data, properties=properties, on_disk=True)

    def trial_image(self) -> PreparedImage:
        """An image of zeros as large as the network's patch, as if preprocessed: what every other image takes too."""
        patch = self._model.configuration.patch_size
        shape = (1,) * (3 - len(patch)) + tuple(patch)
        channels = count_input_channels(
            self._model.configuration, self._model.dataset.num_channels, self._model.dataset.labels
        )
        in_order = self._preprocessing.target_spacing((1.0,) * 3)
        spacing = tuple(in_order[self._model.plan.transpose_forward.index(axis)] for axis in range(3))
        properties = {
            "spacing": list(spacing),
            "shape_before_cropping": list(shape),
            "bbox_used_for_cropping": [[0, size] for size in shape],
        }
        data = np.zeros((channels, *shape), np.float32)
        return PreparedImage(data, Geometry(spacing), data=data, properties=properties)

    def measure(self, predict: Callable[[PreparedImage], Prediction]) -> None:
        """With a limit of memory: see what predicting the smallest image takes, before there is a large one.

        Args:
            predict: has this pipeline run an image.

        Raises:
            UsageError: the limit cannot be kept for any image.
        """
        self._memory.measure(lambda: predict(self.trial_image()))

    def _require_room(self, cropped: CroppedCase, consumed: bool) -> None:
        """Refuse before the work what would break the limit in the course of it."""
        if not self._memory.limit:
            return
        shape = cropped.data.shape[1:]
        new_shape = resampled_shape(shape, cropped.spacing, self._preprocessing.target_spacing(cropped.spacing))
        channels = count_input_channels(
            self._model.configuration, self._model.dataset.num_channels, self._model.dataset.labels
        )
        in_place = consumed and cropped.data.flags.c_contiguous
        self._memory.require_to_prepare(
            shape, new_shape, len(cropped.data), copied=not in_place, further=channels - len(cropped.data)
        )

    def run(
        self,
        image: Image,
        forward: Sequence[Callable[[Tensor], Tensor]],
        device: torch.device,
        previous: Labels | None = None,
    ) -> Prediction:
        """Predict one image; see `segplug.protocols.Pipeline`. A `PreparedImage` is not preprocessed again.

        Raises:
            DataError: see `prepare`; also if the logits are not finite, or the disk is too small for the probabilities.
            PluginError: the network returned another shape than it must.
        """
        prepared = image if isinstance(image, PreparedImage) else self.prepare(image, previous)
        labels, shape = self._model.dataset.labels, prepared.data.shape[1:]
        wanted = count_input_channels(self._model.configuration, self._model.dataset.num_channels, labels)
        if len(prepared.data) != wanted:
            raise DataError(f"the preprocessed image has {len(prepared.data)} channels, the network {wanted}")
        placement = self._placement(prepared)
        window = Window.plan(shape, self._model.configuration.patch_size, self._settings.step_size, self._slices)
        probabilities = None
        if self._settings.save_probabilities:
            probabilities = scratch_array((labels.output_channels, *placement.original_shape), self._scratch)
        spacing = tuple(float(prepared.properties["spacing"][axis]) for axis in placement.transpose)
        here = self._preprocessing.target_spacing(spacing)
        into = None
        if prepared.on_disk:
            kind = label_dtype(labels)
            into = scratch_array(placement.original_shape, self._scratch, "labels", "--max-memory, in memory", kind)
        original = self._export(window, placement, here, spacing, probabilities, into)
        # nnU-Net's rule: for the next stage the spacing is said to stay, whatever the shape
        further = {
            name: self._export(window, Placement.whole(size), here, here) for name, size in prepared.next_shapes.items()
        }
        self._memory.choose_sums(
            window,
            placement,
            labels,
            streamed=isinstance(original, StreamedExport),
            probabilities=probabilities is not None,
            on_disk=prepared.on_disk,
        )
        for slab in self._reported(self._slide(prepared.data, forward, window, device), window):
            for export in (original, *further.values()):
                export.push(slab)
            for array in (probabilities, into) if self._memory.limit else ():
                forget_pages(array)
        next_stage = {name: export.result() for name, export in further.items()}
        return Prediction(Labels(original.result(), prepared.geometry), probabilities, next_stage)

    def _slide(
        self,
        data: NDArray[np.float32],
        forward: Sequence[Callable[[Tensor], Tensor]],
        window: Window,
        device: torch.device,
    ) -> Iterator[Slab]:
        # measured on CPUs: one 3D tile at a time is fastest there, the slices of a 2D network several at a time
        batch = window.depth if device.type == "cpu" else max(1, VOXELS_ON_GPU // int(np.prod(window.patch)))
        mirror_axes = self._model.mirror_axes if self._settings.mirroring else ()
        return slide(
            torch.from_numpy(data),
            forward,
            window,
            classes=self._model.dataset.labels.output_channels,
            device=device,
            mirror_axes=mirror_axes,
            batch_size=batch,
            sums_in=self._memory.sums,
            settle=partial(self._settle, data),
        )

    def _settle(self, data: NDArray[np.float32]) -> None:
        """Between tiles of an image on disk nothing is kept: over thousands of them the heap would grow by its gaps."""
        if getattr(data, "_mmap", None) is not None:
            forget_pages(data)
            give_back_freed_memory()

    @cached_property
    def _slices(self) -> int:
        return 1 if self._memory.limit else SLICES_AT_ONCE

    def _reported(self, slabs: Iterator[Slab], window: Window) -> Iterator[Slab]:
        total = window.shape[window.axis]
        for slab in slabs:
            yield slab
            if self._progress is not None:
                self._progress(slab.start + slab.logits.shape[1], total)

    def _placement(self, prepared: PreparedImage) -> Placement:
        properties = prepared.properties
        return Placement(
            tuple(properties["shape_before_cropping"]),
            tuple((int(start), int(stop)) for start, stop in properties["bbox_used_for_cropping"]),
            tuple(self._model.plan.transpose_forward),
        )

    def _export(
        self,
        window: Window,
        placement: Placement,
        spacing: tuple[float, ...],
        new_spacing: tuple[float, ...],
        probabilities: NDArray[np.float32] | None = None,
        into: NDArray[Any] | None = None,
    ) -> Export:
        """How logits get the shape of the region: by a matrix per axis, or by a function where that does not do."""
        ref = self._model.configuration.resample_probabilities
        arguments: dict[str, Any] = {
            "new_shape": placement.region_shape,
            "spacing": spacing,
            "new_spacing": new_spacing,
        }
        labels = self._model.dataset.labels
        resampler: Any = self._registry.load(self._registry.resolve("resamplers", ref.name))
        if isinstance(resampler, SeparableResampler):
            matrices = resampler.axis_matrices(window.shape, **arguments, **ref.options)
            # splines that overshoot are clipped to the range of the whole image
            if matrices is not None and not any(m is not None and m.min() < 0 for m in matrices):
                return StreamedExport(
                    window.order, placement, labels, matrices=matrices, probabilities=probabilities, into=into
                )
        return WholeExport(
            window.order,
            placement,
            labels,
            shape=window.shape,
            resample=partial(self._registry.build("resamplers", ref), **arguments),
            probabilities=probabilities,
        )
