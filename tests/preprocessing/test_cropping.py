"""Cropping to the nonzero region."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from segplug.runtime.cropping import bounding_box, crop_to_nonzero, nonzero_box, nonzero_mask, slices


@st.composite
def images(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    channels = draw(st.integers(1, 2))
    share = draw(st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return (random.random((channels, *shape)) < share).astype(np.float32)


@given(images())
def test_mask_is_scipys(data: np.ndarray) -> None:
    expected = ndimage.binary_fill_holes((data != 0).any(axis=0))
    assert np.array_equal(nonzero_mask(data), expected)
    assert bounding_box(expected) == nonzero_box(data)


def test_a_winding_way_out_is_no_hole() -> None:
    wall = np.ones((1, 5, 5), np.float32)
    wall[0, 1, 1:4] = wall[0, 1:4, 3] = wall[0, 3, 1:4] = 0  # a hook, closed
    data = np.stack([np.ones_like(wall[0]), wall[0], np.ones_like(wall[0])])[None]
    assert nonzero_mask(data).all()
    data[0, 1, 3, 0] = 0  # now it leads to the border round two corners
    assert np.array_equal(nonzero_mask(data), data[0] != 0)


def test_crop_marks_background_outside_only() -> None:
    data = np.zeros((1, 6, 6, 6), np.float32)
    data[0, 1:5, 1:5, 1:5] = 3
    data[0, 1, 1, 1] = 0  # a notch in the corner: outside
    data[0, 2, 2, 2] = 0  # a hole: inside
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[1, 1, 1] = 2  # labelled though outside
    cropped, target, box = crop_to_nonzero(data, labels)
    assert box == ((1, 5),) * 3
    assert cropped.shape == (1, 4, 4, 4)
    assert target.dtype == np.int16
    assert target.shape == (1, 4, 4, 4)
    assert target[0, 0, 0, 0] == 2
    assert (target >= 0).all()
    _, mask, _ = crop_to_nonzero(data)
    assert mask[0, 0, 0, 0] == -1
    assert (mask == -1).sum() == 1


@pytest.mark.parametrize("labelled", [True, False])
def test_an_empty_image_is_kept_whole(labelled: bool) -> None:
    labels = np.zeros((2, 3, 4), np.int16) if labelled else None
    cropped, target, box = crop_to_nonzero(np.zeros((1, 2, 3, 4), np.float32), labels)
    assert box == ((0, 2), (0, 3), (0, 4))
    assert cropped.shape == (1, 2, 3, 4)
    assert (target == -1).all()


def test_slices() -> None:
    assert slices(((1, 3), (0, 2))) == (slice(1, 3), slice(0, 2))
