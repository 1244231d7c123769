"""Patches are placed by nnU-Net's rules, with its frequencies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from segplug.runtime.patch_sampling import PatchRules, annotated_key, place_patch, wants_foreground
from segplug.runtime.randomness import generator

Size = tuple[int, int, int]

# smallest and largest first voxels that nnunetv2 2.8.1 drew in 20000 draws each
NNUNET_BOUNDS = [
    ((20, 30, 25), (24, 40, 33), (16, 24, 20), (-4, -8, -7), (0, -2, -1)),
    ((10, 30, 25), (24, 40, 33), (16, 24, 20), (-7, -8, -7), (-7, -2, -1)),
    ((3, 300, 301), (1, 58, 58), (1, 50, 40), (0, -4, -9), (2, 246, 252)),
    ((35, 50, 35), (73, 80, 64), (40, 56, 40), (-19, -15, -15), (-19, -15, -14)),
    ((128, 128, 128), (205, 205, 205), (128, 128, 128), (-39, -39, -39), (-38, -38, -38)),
    ((15, 23, 21), (16, 24, 20), (16, 24, 20), (-1, -1, 0), (0, 0, 1)),
    ((400, 11, 12), (31, 32, 33), (20, 20, 20), (-6, -11, -11), (375, -10, -10)),
]


@pytest.mark.parametrize(("shape", "source", "patch", "lowest", "highest"), NNUNET_BOUNDS)
def test_other_patches_begin_uniformly_between_nnunets_bounds(
    shape: Size, source: Size, patch: Size, lowest: Size, highest: Size
) -> None:
    rules = PatchRules(source, patch)
    starts = np.array([place_patch(shape, {}, rules, False, generator(0, i)) for i in range(6000)])
    for axis, (low, high) in enumerate(zip(lowest, highest, strict=True)):
        counts = np.bincount(starts[:, axis] - low, minlength=high - low + 1)
        assert len(counts) == high - low + 1
        assert len(counts) == 1 or chisquare(counts).pvalue > 1e-4


def test_foreground_patches_are_centred_and_clamped_below_only() -> None:
    rules = PatchRules((9, 10, 8), (7, 8, 8))
    voxel = np.array([[3, 29, 0]], np.int32)
    # centre - size // 2 is (-1, 24, -4); the bounds are (-1, -1, 0) and (12, 21, 12)
    assert place_patch((20, 30, 20), {1: voxel}, rules, True, generator(0)) == (-1, 24, 0)


def test_classes_count_alike_and_their_voxels_too() -> None:
    rules = PatchRules((1, 1, 1), (1, 1, 1))
    locations = {
        1: np.array([[0, 0, 0]], np.int32),
        (1, 2): np.array([[1, 0, at] for at in range(8)], np.int32),
        3: np.empty((0, 3), np.int32),
        7: np.array([[2, at, 0] for at in range(4)], np.int32),
    }
    drawn = [place_patch((3, 9, 9), locations, rules, True, generator(1, i)) for i in range(6000)]
    starts, counts = np.unique(drawn, axis=0, return_counts=True)
    expected = [{0: 6000 / 3, 1: 6000 / 3 / 8, 2: 6000 / 3 / 4}[start[0]] for start in starts.tolist()]
    assert len(counts) == 1 + 8 + 4
    assert chisquare(counts, expected).pvalue > 1e-4


def test_order_of_classes_in_the_store_does_not_matter() -> None:
    rules = PatchRules((4, 4, 4), (4, 4, 4))
    locations = {key: np.array([[key, key, key]], np.int32) for key in (1, 2, 3)}
    turned = dict(reversed(locations.items()))
    for i in range(30):
        starts = [place_patch((9, 9, 9), each, rules, True, generator(2, i)) for each in (locations, turned)]
        assert starts[0] == starts[1]


@pytest.mark.parametrize("locations", [{}, {1: np.empty((0, 3), np.int32)}])
def test_without_foreground_anywhere(locations: dict[int, np.ndarray]) -> None:
    rules = PatchRules((2, 2, 2), (2, 2, 2), annotated_key((0, 1)))
    for foreground in (False, True):
        starts = {place_patch((3, 3, 3), locations, rules, foreground, generator(3, i)) for i in range(200)}
        assert len(starts) == 8


def test_with_an_ignore_label_patches_hold_annotated_voxels() -> None:
    key = annotated_key((0, 1, 2))
    assert key == (-1, 0, 1, 2)
    rules = PatchRules((3, 3, 3), (3, 3, 3), key)
    locations = {1: np.array([[5, 5, 5]], np.int32), key: np.array([[1, 1, 1], [8, 8, 8]], np.int32)}
    others = {place_patch((20, 20, 20), locations, rules, False, generator(4, i)) for i in range(60)}
    assert others == {(0, 0, 0), (7, 7, 7)}
    foreground = {place_patch((20, 20, 20), locations, rules, True, generator(4, i)) for i in range(60)}
    assert foreground == {(4, 4, 4)}  # what is merely annotated is no class beside others ...
    locations[1] = np.empty((0, 3), np.int32)
    foreground = {place_patch((20, 20, 20), locations, rules, True, generator(4, i)) for i in range(60)}
    assert foreground == others  # ... but stands in where there are none


def test_a_2d_patch_takes_the_slice_of_its_voxel() -> None:
    rules = PatchRules((1, 12, 12), (1, 10, 10))
    locations = {1: np.array([[4, 8, 9]], np.int32)}
    assert place_patch((7, 30, 30), locations, rules, True, generator(5)) == (4, 2, 3)


@given(st.tuples(*[st.integers(1, 60)] * 3), st.tuples(*[st.integers(1, 40)] * 3), st.data())
def test_every_patch_meets_the_image(shape: Size, patch: Size, data: st.DataObject) -> None:
    source = tuple(size + data.draw(st.integers(0, 20)) for size in patch)
    voxel = np.array([[data.draw(st.integers(0, extent - 1)) for extent in shape]], np.int32)
    rules = PatchRules(source, patch)
    for foreground in (False, True):
        start = place_patch(shape, {1: voxel}, rules, foreground, generator(data.draw(st.integers(0, 99))))
        for axis in range(3):
            assert start[axis] < shape[axis]
            assert start[axis] + source[axis] > 0
            inside = source[axis] // 2 - patch[axis] // 2  # of the source, where the patch begins
            if not foreground:  # it reaches at most half of what the source has more beyond the image
                assert start[axis] + inside >= min(0, shape[axis] - patch[axis]) - 1
                assert start[axis] + inside + patch[axis] <= max(shape[axis], patch[axis]) + 1
            else:
                assert start[axis] <= voxel[0, axis] < start[axis] + source[axis]


@pytest.mark.parametrize(
    ("batch", "share", "forced"), [(2, 0.33, 1), (3, 0.33, 1), (4, 0.33, 1), (9, 0.33, 3), (12, 0.33, 4), (5, 0.5, 3)]
)
def test_the_last_samples_of_a_batch_hold_foreground(batch: int, share: float, forced: int) -> None:
    wanted = [wants_foreground(i, batch, share, False, generator(0)) for i in range(batch)]
    assert wanted == [False] * (batch - forced) + [True] * forced


def test_probabilistic_oversampling() -> None:
    wanted = [wants_foreground(i % 2, 2, 0.33, True, generator(7, i)) for i in range(4000)]
    assert abs(np.mean(wanted) - 0.33) < 4 * (0.33 * 0.67 / 4000) ** 0.5
