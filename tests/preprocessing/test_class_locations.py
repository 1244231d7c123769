"""Voxels kept per class for foreground sampling."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from segplug.model import LabelSet
from segplug.runtime import class_locations as module
from segplug.runtime.class_locations import class_locations
from segplug.runtime.patch_sampling import annotated_key

PLAIN = LabelSet({"background": 0, "a": 1, "b": 2, "absent": 3})
MIXED = LabelSet({"background": 0, "whole": (1, 2), "core": (2,), "single": 3, "ignore": 4}, (1, 2, 3))


def targets(seed: int, shape: tuple[int, ...], high: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, high, (1, *shape)).astype(np.int16)


@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 8)] * 3))
def test_small_classes_are_kept_whole(seed: int, shape: tuple[int, ...]) -> None:
    target = targets(seed, shape, 5)
    found = class_locations(target, MIXED)
    assert list(found) == [(1, 2), (2,), 3, (-1, 0, 1, 2, 3)]
    assert annotated_key(MIXED.all_labels) in found
    for key, voxels in found.items():
        assert voxels.dtype == np.int32
        assert np.array_equal(voxels, np.argwhere(np.isin(target[0], key)))


def test_labels_without_ignore() -> None:
    found = class_locations(targets(0, (4, 5, 6), 3), PLAIN)
    assert list(found) == [1, 2, 3]
    assert found[3].shape == (0, 3)


def test_large_classes_are_sampled_without_repetition() -> None:
    target = targets(1, (20, 300, 300), 3)
    target[0, 5] = 1
    found = class_locations(target, PLAIN)
    for label in (1, 2):
        total = int((target == label).sum())
        assert len(found[label]) == max(10_000, -(-total // 100))
        assert (target[0][tuple(found[label].T)] == label).all()
        assert len(np.unique(found[label], axis=0)) == len(found[label])
    assert np.array_equal(found[1], class_locations(target, PLAIN)[1])


def test_at_least_one_percent() -> None:
    target = np.ones((1, 11, 400, 300), np.int16)
    assert len(class_locations(target, PLAIN)[1]) == 13_200


def test_draws_are_uniform() -> None:
    """Each eighth of the image gets its share of 10 000 draws, to within five standard deviations."""
    target = np.ones((1, 8, 200, 300), np.int16)
    planes = np.bincount(class_locations(target, PLAIN)[1][:, 0], minlength=8)
    assert planes.sum() == module.MIN_VOXELS
    assert np.abs(planes - 1250).max() < 5 * np.sqrt(1250)
