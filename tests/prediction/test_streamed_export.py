"""The streamed export, beside a plain one on whole arrays, and the memory that it takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from segplug.model import LabelSet
from segplug.runtime import slab_resampling
from segplug.runtime.sliding_window import Slab
from segplug.runtime.streamed_export import Export, Placement, StreamedExport, WholeExport, label_dtype
from segplug_builtin.resamplers import separable

PLAIN = LabelSet({"background": 0, "a": 1, "b": 2})
REGIONS = LabelSet({"background": 0, "whole": (1, 2, 3), "core": (2, 3), "inner": 3}, (1, 2, 3))
GAPS = LabelSet({"background": 0, "a": 3, "b": 300, "ignore": 301})


def slabs_of(logits: NDArray[np.float32], order: Sequence[int], thickness: Sequence[int]) -> Iterator[Slab]:
    """Logits (classes, *shape) cut along the first axis of `order`; the memory is overwritten, as the window does."""
    ordered = torch.from_numpy(np.ascontiguousarray(logits.transpose(0, *(a + 1 for a in order))))
    start, turn = 0, 0
    while start < ordered.shape[1]:
        stop = min(start + thickness[turn % len(thickness)], ordered.shape[1])
        memory = ordered[:, start:stop].clone()
        yield Slab(start, memory)
        memory.fill_(float("nan"))
        start, turn = stop, turn + 1


def exported(export: Export, slabs: Iterator[Slab]) -> NDArray[Any]:
    for slab in slabs:
        export.push(slab)
    return export.result()


def expected(
    logits: NDArray[np.float32], placement: Placement, labels: LabelSet, spacing: Sequence[float]
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """What nnU-Net does: resample all of it, activate, reduce, un-crop, un-transpose."""
    resampled = separable(logits, placement.region_shape, spacing, (1.0, 1.0, 1.0), order=1, force_separate_z=None)
    box = tuple(slice(*side) for side in placement.box)
    result = np.zeros(placement.shape, np.int64)
    probabilities = np.zeros((len(logits), *placement.shape), np.float32)
    if labels.has_regions:
        region = np.zeros(resampled.shape[1:], np.int64)
        chances = 1 / (1 + np.exp(-resampled))
        for chance, value in zip(chances, labels.regions_class_order, strict=True):
            region[chance > 0.5] = value
    else:
        region = np.array(labels.all_labels)[resampled.argmax(0)]
        grown = np.exp(resampled - resampled.max(0))
        chances = grown / grown.sum(0)
        probabilities[0] = 1
    result[box] = region
    probabilities[(slice(None), *box)] = chances
    back = np.argsort(placement.transpose)
    return result.transpose(back), probabilities.transpose(0, *(back + 1))


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    box = [tuple(sorted(draw(st.lists(st.integers(0, 12), min_size=2, max_size=2, unique=True)))) for _ in range(3)]
    shape = [side[1] + draw(st.integers(0, 3)) for side in box]
    return Placement(tuple(shape), tuple((a, b) for a, b in box), draw(st.sampled_from(list(permutations(range(3))))))


@given(
    placement=placements(),
    shape=st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(1, 14)),
    labels=st.sampled_from((PLAIN, REGIONS, GAPS)),
    order=st.sampled_from(((0, 1, 2), (1, 0, 2), (2, 0, 1))),
    thickness=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    spacing=st.sampled_from(((1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (1.0, 1.0, 4.0))),
    at_once=st.sampled_from((1, 500, 1 << 23)),
    whole=st.booleans(),
)
def test_any_crop_transposition_and_resampling(
    placement: Placement,
    shape: tuple[int, ...],
    labels: LabelSet,
    order: tuple[int, ...],
    thickness: list[int],
    spacing: tuple[float, ...],
    at_once: int,
    whole: bool,
) -> None:
    logits = np.random.default_rng(0).normal(size=(labels.output_channels, *shape)).astype(np.float32)
    probabilities = np.zeros((labels.output_channels, *placement.original_shape), np.float32)
    slabs = slabs_of(logits, order, thickness)
    options: dict[str, Any] = {"order": 1, "force_separate_z": None}
    arguments = (placement.region_shape, spacing, (1.0, 1.0, 1.0))
    if whole:
        export: Export = WholeExport(
            order,
            placement,
            labels,
            shape=shape,
            resample=lambda a: separable(a, *arguments, **options),
            probabilities=probabilities,
        )
        found = exported(export, slabs)
    else:
        matrices = separable.axis_matrices(shape, *arguments, **options)
        assert matrices is not None
        before = slab_resampling.VALUES_AT_ONCE
        slab_resampling.VALUES_AT_ONCE = at_once
        try:
            export = StreamedExport(order, placement, labels, matrices=matrices, probabilities=probabilities)
            found = exported(export, slabs)
        finally:
            slab_resampling.VALUES_AT_ONCE = before
    wanted, chances = expected(logits, placement, labels, spacing)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(probabilities, chances, atol=1e-5)
    assert found.dtype == label_dtype(labels)


def test_types_of_label_maps() -> None:
    assert label_dtype(PLAIN) is np.uint8
    assert label_dtype(GAPS) is np.uint16
    assert label_dtype(LabelSet({"background": 0, "a": 255})) is np.uint8
    assert label_dtype(LabelSet({"background": 0, "a": 256})) is np.uint16


def test_later_regions_are_painted_over_earlier_ones() -> None:
    logits = np.full((3, 1, 1, 4), -1, np.float32)
    logits[0, ..., :3] = logits[1, ..., 1:3] = logits[2, ..., 2] = 1
    placement = Placement((1, 1, 4), ((0, 1), (0, 1), (0, 4)), (0, 1, 2))
    export = StreamedExport((0, 1, 2), placement, REGIONS, matrices=[None] * 3)
    found = exported(export, slabs_of(logits, (0, 1, 2), [1]))
    assert found.ravel().tolist() == [1, 2, 3, 0]


MEASURED = """
import resource, sys
import numpy as np, torch
from segplug.model import LabelSet
from segplug.runtime.sliding_window import Slab
from segplug.runtime.streamed_export import Placement, StreamedExport
from segplug.runtime.probability_file import scratch_array
from segplug_builtin.resamplers import separable

classes, old, new = 30, (40, 96, 96), (80, 240, 240)
labels = LabelSet({"background": 0, **{str(i): i for i in range(1, classes)}})
placement = Placement(new, tuple((0, n) for n in new), (0, 1, 2))
matrices = separable.axis_matrices(old, new, (2.0, 2.5, 2.5), (1.0, 1.0, 1.0), order=1)
slab = torch.randn(classes, 8, *old[1:])
def slabs():
    for start in range(0, old[0], 8):
        yield Slab(start, slab)
def run(probabilities=None):
    export = StreamedExport((0, 1, 2), placement, labels, matrices=matrices, probabilities=probabilities)
    for piece in slabs():
        export.push(piece)
    return export.result()
matrices_small = separable.axis_matrices((8, 8, 8), (16, 16, 16), (2.0, 2.0, 2.0), (1.0, 1.0, 1.0), order=1)
small = Placement((16,) * 3, ((0, 16),) * 3, (0, 1, 2))
StreamedExport((0, 1, 2), small, labels, matrices=matrices_small).push(Slab(0, slab[:, :8, :8, :8].contiguous()))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_memory_stays_far_below_classes_times_shape() -> None:
    """30 classes of 80 x 240 x 240 are 553 MB; the export may take a fifth of it."""
    run = subprocess.run([sys.executable, "-c", MEASURED], check=True, capture_output=True, text=True)
    taken, whole = int(run.stdout), 30 * 80 * 240 * 240 * 4
    assert taken < whole / 5, f"{taken / 1e6:.0f} MB of {whole / 1e6:.0f} MB"


def test_the_original_shape_undoes_the_transposition() -> None:
    placement = Placement((5, 6, 7), ((1, 3), (0, 6), (2, 7)), (2, 0, 1))
    assert placement.original_shape == (6, 7, 5)
    assert placement.region_shape == (2, 6, 5)
    array = np.zeros(placement.original_shape, int)
    placement.region(array, (0, 1, 2))[:] = 1
    assert array.transpose(2, 0, 1)[1:3, :, 2:7].all()
    assert array.sum() == 2 * 6 * 5


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_one_voxel(order: tuple[int, ...]) -> None:
    logits = np.array([0.0, 1.0, 0.5], np.float32).reshape(3, 1, 1, 1)
    placement = Placement((1, 1, 1), ((0, 1),) * 3, (0, 1, 2))
    found = exported(StreamedExport(order, placement, PLAIN, matrices=[None] * 3), slabs_of(logits, order, [1]))
    assert found.tolist() == [[[1]]]
