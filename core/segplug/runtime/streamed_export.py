"""From logits at the network's resolution to labels in the original image, slab by slab.

Each slab is resampled, reduced to labels and put in its place at once: no array of classes x original shape exists.
Probabilities, if they are asked for, go the same way into an array mapped from disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segplug.model import LabelSet
from segplug.runtime.slab_resampling import SlabResampling
from segplug.runtime.sliding_window import Slab


@dataclass(frozen=True)
class Placement:
    """Where the resampled region lies in the original image.

    Args:
        shape: of the image before cropping, transposed as in preprocessing.
        box: (start, stop) per axis of the cropped region in it.
        transpose: axis order of preprocessing (`transpose_forward`).
    """

    shape: tuple[int, ...]
    box: tuple[tuple[int, int], ...]
    transpose: tuple[int, ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Placement:
        """An image that was neither cropped nor transposed."""
        return cls(tuple(shape), tuple((0, size) for size in shape), tuple(range(len(shape))))

    @property
    def original_shape(self) -> tuple[int, ...]:
        """Shape in the image's own order of axes."""
        return tuple(self.shape[self.transpose.index(axis)] for axis in range(len(self.shape)))

    @property
    def region_shape(self) -> tuple[int, ...]:
        """Shape of the cropped region, transposed."""
        return tuple(stop - start for start, stop in self.box)

    def region(self, array: NDArray[Any], order: Sequence[int]) -> NDArray[Any]:
        """The cropped region of an array (..., *original shape), its spatial axes as `order` has the transposed ones.

        A view: what is written to it stands in the array.
        """
        lead = array.ndim - len(self.shape)
        keep = tuple(range(lead))
        transposed = array.transpose(*keep, *(lead + a for a in self.transpose))
        inside: tuple[Any, ...] = (..., *(slice(*side) for side in self.box))
        cropped: NDArray[Any] = transposed[inside]
        return cropped.transpose(*keep, *(lead + a for a in order))


def label_dtype(labels: LabelSet) -> type[np.uint8] | type[np.uint16]:
    """The smaller type that holds every label a prediction can have."""
    return np.uint8 if max((*labels.all_labels, *labels.regions_class_order)) <= 255 else np.uint16


class Export(Protocol):
    """Makes a label map of an image as its logits come in."""

    def push(self, slab: Slab) -> None:
        """Take logits (classes, thickness, *others); they come in order and without gaps."""
        ...

    def result(self) -> NDArray[Any]:
        """The label map, uint8 or uint16 (z, y, x), in the image's own order of axes; 0 outside the region."""
        ...


class StreamedExport:
    """Resamples by matrices, slab by slab.

    Args:
        order: the transposed spatial axes in the slabs' order.
        placement: where the region lies.
        labels: how logits become labels: the largest wins; with regions, each one above 0 (a probability above 0.5) is
            painted, in `regions_class_order`.
        matrices: per transposed axis, (n_new, n_old) weights >= 0 that resample it; None for an axis that stays.
        probabilities: (classes, *original shape) to be filled, or None; outside the region background is certain.
        into: for the label map, zeros of the original shape; None for an array in memory.
    """

    def __init__(
        self,
        order: Sequence[int],
        placement: Placement,
        labels: LabelSet,
        *,
        matrices: Sequence[NDArray[np.float32] | None],
        probabilities: NDArray[np.float32] | None = None,
        into: NDArray[Any] | None = None,
    ) -> None:
        self._labels = labels
        self._result: NDArray[Any] = np.zeros(placement.original_shape, label_dtype(labels)) if into is None else into
        self._into = placement.region(self._result, order)
        self._into_probabilities = None
        if probabilities is not None:
            _fill_outside(probabilities, placement, labels)
            self._into_probabilities = placement.region(probabilities, order)
        self._stream = SlabResampling([matrices[axis] for axis in order])

    def push(self, slab: Slab) -> None:
        """See `Export`."""
        for (first, second), logits in self._stream.push(slab.logits):
            self._into[first, second] = _to_labels(logits, self._labels).cpu().numpy()
            if self._into_probabilities is not None:
                chances = _to_probabilities(logits, self._labels)
                self._into_probabilities[:, first, second] = chances.cpu().numpy()

    def result(self) -> NDArray[Any]:
        """See `Export`."""
        return self._result


class WholeExport:
    """For resamplers that need whole arrays: one class at a time is resampled, with a running maximum.

    Args:
        order, placement, labels, probabilities: as for `StreamedExport`.
        shape: of the preprocessed image, transposed.
        resample: brings (1, *shape) to (1, *region shape).
    """

    def __init__(
        self,
        order: Sequence[int],
        placement: Placement,
        labels: LabelSet,
        *,
        shape: Sequence[int],
        resample: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        probabilities: NDArray[np.float32] | None = None,
    ) -> None:
        self._order, self._placement, self._labels = tuple(order), placement, labels
        self._resample, self._probabilities = resample, probabilities
        self._logits = np.empty((labels.output_channels, *shape), np.float32)

    def push(self, slab: Slab) -> None:
        """See `Export`."""
        ordered = self._logits.transpose(0, *(1 + a for a in self._order))
        ordered[:, slab.start : slab.start + slab.logits.shape[1]] = slab.logits.cpu().numpy()

    def result(self) -> NDArray[Any]:
        """See `Export`; to be called once."""
        placement, labels = self._placement, self._labels
        result = np.zeros(placement.original_shape, label_dtype(labels))
        straight = range(self._logits.ndim - 1)
        into = placement.region(result, straight)
        into_probabilities = None
        if self._probabilities is not None:
            _fill_outside(self._probabilities, placement, labels)
            into_probabilities = placement.region(self._probabilities, straight)
        best = np.full(into.shape, -np.inf if not labels.has_regions else 0, np.float32)
        for channel, value in enumerate(_values(labels)):
            resampled = self._resample(self._logits[channel : channel + 1])[0]
            if into_probabilities is not None:
                into_probabilities[channel] = resampled
            wins = resampled > best
            into[wins] = value
            if not labels.has_regions:
                np.maximum(best, resampled, out=best)
        if into_probabilities is not None:
            for index in range(into_probabilities.shape[1]):
                logits = torch.from_numpy(np.ascontiguousarray(into_probabilities[:, index]))
                into_probabilities[:, index] = _to_probabilities(logits, labels).numpy()
        return result


def _values(labels: LabelSet) -> tuple[int, ...]:
    """The label that each channel of the logits stands for."""
    return labels.regions_class_order if labels.has_regions else labels.all_labels


def _to_labels(logits: Tensor, labels: LabelSet) -> Tensor:
    """(classes, ...) logits to labels."""
    values = _values(labels)
    kind = torch.uint8 if max(values) <= 255 else torch.int32
    if labels.has_regions:
        result = torch.zeros(logits.shape[1:], dtype=kind, device=logits.device)
        for channel, value in zip(logits, values, strict=True):
            result.masked_fill_(channel > 0, value)
        return result
    # a running maximum: three times as fast as argmax over the first axis on a CPU; the first of equals wins too
    result = torch.full(logits.shape[1:], values[0], dtype=kind, device=logits.device)
    best = logits[0].clone()
    for channel, value in zip(logits[1:], values[1:], strict=True):
        result.masked_fill_(channel > best, value)
        torch.maximum(best, channel, out=best)
    return result


def _to_probabilities(logits: Tensor, labels: LabelSet) -> Tensor:
    return torch.sigmoid(logits) if labels.has_regions else torch.softmax(logits, 0)


def _fill_outside(probabilities: NDArray[np.float32], placement: Placement, labels: LabelSet) -> None:
    """Background is certain outside the region; the array is zero when it comes, as a new file is."""
    if not labels.has_regions and placement.region_shape != placement.shape:
        probabilities[0] = 1
