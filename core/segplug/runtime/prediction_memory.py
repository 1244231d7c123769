"""How the prediction of an image keeps to a limit of memory: what each step takes, and what goes to disk for it.

What a network and its surroundings take for one patch is measured once, on the smallest image there is. What grows with
an image follows from its shape. The sums of overlapping tiles go to a file where memory has no room for them; an image
for which the limit cannot be kept is refused before the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import torch

from segplug.errors import DataError
from segplug.model import LabelSet
from segplug.runtime.memory_limit import MemoryLimit, memory_taken_by
from segplug.runtime.probability_file import forget_pages, scratch_array
from segplug.runtime.sliding_window import Sums, Window, sums_in_memory, sums_shape
from segplug.runtime.streamed_export import Placement

FLOAT = 4
"""Bytes of a float32."""

SLACK = 1 << 26
"""Bytes that stay free: estimates leave out small things, and allocators round up."""

BYTES_HANDED_ON = 1 << 25
"""Of finished rows, or of one tile's classes, where sums are on disk: few enough to be in memory together."""

_UNKNOWN = 512 << 20
"""What a patch is taken to need where the system does not tell: nnU-Net's default network at 64^3 in fp32 or so."""


class PredictionMemory:
    """What is left of the limit for each step, for one model.

    Args:
        limit: of the whole process tree.
        scratch: folder on whose disk sums are kept; None for the system's temporary folder.
    """

    def __init__(self, limit: MemoryLimit, scratch: Path | None) -> None:
        self.limit = limit
        self.sums: Callable[[Sequence[int], torch.device], Sums] = sums_in_memory
        self._scratch = scratch
        self._patch = _UNKNOWN
        self._measuring = False

    def measure(self, work: Callable[[], object]) -> None:
        """Measure what predicting an image of one patch takes; without a limit nothing is done.

        Raises:
            UsageError: the limit cannot be kept even for that.
        """
        if not self.limit:
            return
        self.limit.require_start(0, "the program with this model")
        self._patch, self._measuring = 0, True  # nothing is to be refused yet, and sums count by themselves
        try:
            taken = memory_taken_by(work)
        except DataError:  # the network's output is not finite: every image will say so
            taken = None
        self._measuring = False
        self._patch = _UNKNOWN if taken is None else taken
        self.limit.require_start(self._patch + SLACK, "the program with this model and an image of one patch")

    def has_room_for(self, shape: Sequence[int]) -> bool:
        """Whether an image (channels, z, y, x) can be in memory, with a copy for its preprocessing and its labels."""
        voxels = prod(shape[1:])
        return 2 * shape[0] * voxels * FLOAT + 2 * voxels + self._patch + SLACK <= self.limit.left()

    def require_to_prepare(
        self, shape: Sequence[int], new_shape: Sequence[int], channels: int, *, copied: bool, further: int
    ) -> None:
        """Refuse an image, which is in memory, whose preprocessing would break the limit.

        Args:
            shape, new_shape: before and after resampling.
            copied: whether normalising makes a copy of it.
            further: channels that the network sees beside those of the image (a cascade's).

        Raises:
            DataError: it would.
        """
        needed = copied * channels * prod(shape) * FLOAT
        if tuple(shape) != tuple(new_shape):
            # axis by axis: two arrays between, each at most as large as the larger size of every axis
            between = prod(max(sizes) for sizes in zip(shape, new_shape, strict=True))
            needed += (channels * prod(new_shape) + 2 * between) * FLOAT
        if further:
            needed += (channels + further) * prod(new_shape) * FLOAT
        self.limit.require(needed + SLACK, f"preprocessing from {tuple(shape)} to {tuple(new_shape)} voxels")

    def choose_sums(
        self,
        window: Window,
        placement: Placement,
        labels: LabelSet,
        *,
        streamed: bool,
        probabilities: bool = False,
        on_disk: bool = False,
    ) -> None:
        """Decide where tiles of an image are added up, so that all that is left to do keeps to the limit.

        Args:
            streamed: whether logits are exported slab by slab.
            probabilities: whether they are written, to an array on disk.
            on_disk: whether image and label map are, too.

        Raises:
            DataError: the limit cannot be kept whatever is on disk.
        """
        self.sums = sums_in_memory
        if not self.limit:
            return
        classes = labels.output_channels
        plane = prod(window.padded_shape[a] for a in window.order[1:])
        needed = self._patch + SLACK
        if not on_disk:
            needed += prod(placement.original_shape) * np.dtype(labels.output_dtype).itemsize
        # slices that resampling waits with, and those that it makes of them
        shrinks = window.shape[window.axis] / placement.region_shape[window.axis]
        needed += int(classes * plane * FLOAT * (4 + 4 * shrinks))
        if not streamed:  # all logits, then one class and the best so far at the image's own shape, with two between
            region = prod(max(pair) for pair in zip(window.shape, placement.region_shape, strict=True))
            needed += (classes * prod(window.shape) + 4 * region) * FLOAT
        shape = sums_shape(window, classes)
        in_memory = prod(shape) * FLOAT
        rows = min(shape[1], max(1, BYTES_HANDED_ON // (classes * plane * FLOAT)))
        if probabilities:  # those of the rows at hand, and what is computed from them
            grown = prod(placement.region_shape) / prod(window.shape)
            needed += int(2 * classes * rows * plane * FLOAT * grown)
        if needed + in_memory <= self.limit.left() and not self._measuring:
            self.sums = partial(_sums_by_rows, rows=rows)
            return
        first, second, third = (window.patch[a] for a in window.order)
        # a page holds many neighbours of a tile along the last axis
        tile = first * second * max(third, min(window.padded_shape[window.order[2]], 1024)) * FLOAT
        together = min(classes, max(1, BYTES_HANDED_ON // tile))
        handed_on = classes * rows * plane * FLOAT
        one_class = in_memory // classes
        at_once = max(together * tile, handed_on, one_class)
        self.limit.require(needed + at_once, f"predicting {tuple(window.shape)} voxels")
        self.sums = partial(_sums_on_disk, folder=self._scratch, rows=rows, classes=together)


def _sums_by_rows(shape: Sequence[int], device: torch.device, *, rows: int) -> Sums:
    """In memory; few rows are handed on together, so that little of the probabilities is worked on at a time."""
    return replace(sums_in_memory(shape, device), rows=rows)


def _sums_on_disk(shape: Sequence[int], device: torch.device, *, folder: Path | None, rows: int, classes: int) -> Sums:
    values = scratch_array(shape, folder, "the sums of overlapping tiles", "--max-memory")
    return Sums(torch.from_numpy(values), rows, classes, partial(forget_pages, values))
