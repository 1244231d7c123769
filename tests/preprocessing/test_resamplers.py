"""The separable resampler against scipy's spline zoom, which nnU-Net uses."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from segplug import ComponentRef
from segplug.kernel import Kernel
from segplug.protocols import SeparableResampler
from segplug_builtin.resamplers import separable, separate_axis
from segplug_builtin.spline_bands import axis_band

SPACINGS = [(1, 1, 1), (5, 1, 1), (1, 1, 7.0), (1, 8, 1), (999, 1, 1), (1, 0.9, 3.5), (4, 4, 1)]


@st.composite
def jobs(draw: st.DrawFn) -> tuple[Any, ...]:
    """Random generator, old shape, new shape, spacings, force_separate_z."""
    old = draw(st.tuples(*[st.integers(1, 24)] * 3))
    if draw(st.booleans()):
        new = tuple(max(1, n * draw(st.integers(1, 4)) // draw(st.integers(1, 4))) for n in old)
    else:
        new = draw(st.tuples(*[st.integers(1, 30)] * 3))
    spacing, new_spacing = draw(st.sampled_from(SPACINGS)), draw(st.sampled_from(SPACINGS[:3]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return random, old, new, spacing, new_spacing, draw(st.sampled_from([None, True, False]))


def zoom(array: np.ndarray, new: tuple[int, ...], order: int) -> np.ndarray:
    """scipy's zoom in grid mode with edge extension, clipped to the input's range."""
    factors = [n / o for n, o in zip(new, array.shape, strict=True)]
    out = ndimage.zoom(array, factors, order=order, mode="nearest", grid_mode=True)
    assert out.shape == tuple(new)
    return np.clip(out, array.min(), array.max())


def along(array: np.ndarray, axis: int, n: int, order: int) -> np.ndarray:
    """Interpolation along one axis alone, as nnU-Net does it: `map_coordinates`, not clipped."""
    if array.shape[axis] == n:
        return array
    place = [np.arange(m, dtype=float) for m in array.shape]
    place[axis] = (np.arange(n) + 0.5) * (array.shape[axis] / n) - 0.5
    return ndimage.map_coordinates(array, np.meshgrid(*place, indexing="ij"), order=order, mode="nearest")


def reference(array: np.ndarray, new: tuple[int, ...], alone: int | None, order: int, order_z: int) -> np.ndarray:
    if array.shape == new:
        return array
    if alone is None:
        return zoom(array, new, order)
    flat = tuple(n for axis, n in enumerate(new) if axis != alone)
    planes = np.stack([zoom(plane, flat, order) for plane in np.moveaxis(array, alone, 0)], axis=alone)
    return along(planes, alone, new[alone], order_z)


@given(jobs(), st.integers(0, 5), st.sampled_from([0, 0, 1, 3]))
def test_images_are_scipys(job: tuple[Any, ...], order: int, order_z: int) -> None:
    random, old, new, spacing, new_spacing, force = job
    array = random.standard_normal((2, *old)).astype(np.float32)
    kept = array.copy()
    options = {"order": order, "order_z": order_z, "force_separate_z": force}
    found = separable(array, new, spacing, new_spacing, **options)
    alone = separate_axis(spacing, new_spacing, force)
    assert found.dtype == np.float32
    assert found.shape == (2, *new)
    assert np.array_equal(array, kept)
    for channel, result in zip(array, found, strict=True):
        expected = reference(channel.astype(float), new, alone, order, order_z)
        assert np.abs(result - expected).max() <= 1e-5 * max(np.ptp(channel), 1e-3)
        if alone is None or order_z < 2:
            assert channel.min() <= result.min()
            assert result.max() <= channel.max()


@given(jobs(), st.booleans())
def test_labels_are_the_largest_interpolated_indicator(job: tuple[Any, ...], blocky: bool) -> None:
    random, old, new, spacing, new_spacing, force = job
    labels = random.integers(-1, 4, old).astype(np.int16)
    if blocky:
        labels = np.kron(labels[tuple(slice(-(-n // 3)) for n in old)], np.ones((3, 3, 3), np.int16))
        labels = labels[tuple(slice(n) for n in old)]
    found = separable(labels[None], new, spacing, new_spacing, is_seg=True, order=1, force_separate_z=force)[0]
    alone = separate_axis(spacing, new_spacing, force)
    assert found.dtype == np.int16
    values = np.unique(labels)
    scores = np.stack([reference((labels == v).astype(float), new, alone, 1, 0) for v in values])
    nearest = labels
    for axis, n in enumerate(new):
        nearest = np.take(nearest, axis_band(old[axis], n, 0).first, axis=axis)
    best = scores.max(axis=0)
    tied = np.abs(scores - best) < 1e-12
    won = np.take_along_axis(tied, np.searchsorted(values, found)[None], axis=0)[0]
    assert won.all()
    nearest_tied = np.take_along_axis(tied, np.searchsorted(values, nearest)[None], axis=0)[0]
    exact = (scores == best).sum(axis=0) == tied.sum(axis=0)  # rounding has not broken a tie in the reference
    assert np.array_equal(found[nearest_tied & exact], nearest[nearest_tied & exact])


def test_ties_go_to_the_nearest_label_else_to_the_smallest() -> None:
    doubled = separable(np.array([[[[1, 2]]]], np.int16), (1, 1, 3), (1,) * 3, (1,) * 3, is_seg=True, order=1)
    assert doubled.tolist() == [[[[1, 2, 2]]]]  # the middle one lies between both: 0.5 is rounded up
    corner = np.array([[[[3, 1], [1, 1]], [[2, 2], [2, 3]]]], np.int16)  # 1 and 2 tie at the centre, 3 is nearest
    assert separable(corner, (1, 1, 1), (1,) * 3, (1,) * 3, is_seg=True, order=1).item() == 1


@pytest.mark.parametrize("order", [2, 3])
def test_labels_by_splines_hold_only_labels(order: int) -> None:
    labels = np.random.default_rng(0).choice([0, 2, 7], (1, 9, 8, 7)).astype(np.int16)
    found = separable(labels, (13, 8, 11), (1,) * 3, (1,) * 3, is_seg=True, order=order)
    assert set(np.unique(found)) <= {0, 2, 7}
    scores = np.stack([zoom((labels[0] == v).astype(float), (13, 8, 11), order) for v in (0, 2, 7)])
    assert np.mean(np.array([0, 2, 7])[scores.argmax(axis=0)] == found[0]) > 0.999


@pytest.mark.parametrize("n", [(1, 1), (1, 40), (40, 1), (300, 200), (200, 333), (512, 511)])
def test_long_axes_are_exact_too(n: tuple[int, int]) -> None:
    array = np.random.default_rng(0).standard_normal((1, 3, n[0], 2)).astype(np.float32)
    found = separable(array, (3, n[1], 2), (1,) * 3, (1,) * 3)
    assert np.abs(found[0] - zoom(array[0].astype(float), (3, n[1], 2), 3)).max() < 1e-5


def test_nothing_to_do_gives_the_array_back() -> None:
    array = np.ones((1, 2, 3, 4), np.float32)
    assert separable(array, (2, 3, 4), (5, 1, 1), (1, 1, 1)) is array


@pytest.mark.parametrize(
    ("spacing", "new", "force", "axis"),
    [
        ((5, 1, 1), (1, 1, 1), None, 0),
        ((1, 1, 1), (1, 4, 1), None, 1),
        ((5, 1, 1), (1, 1, 4), None, 0),  # what the image is decides first
        ((3, 1, 1), (3, 1, 1), None, None),  # more than three times, not just three
        ((5, 5, 1), (1, 1, 1), None, None),  # two coarse axes: no single one
        ((1.2, 1, 1), (5, 1, 1), True, 0),
        ((5, 1, 1), (5, 1, 1), False, None),
        ((1, 1, 1), (5, 1, 1), True, None),
    ],
)
def test_separate_axis(spacing: Any, new: Any, force: bool | None, axis: int | None) -> None:
    assert separate_axis(spacing, new, force) == axis


def test_axis_matrices_do_what_the_call_does() -> None:
    registry = Kernel(discover=False).registry
    assert isinstance(registry.build("resamplers", "separable"), SeparableResampler)
    options = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    resample = registry.build("resamplers", ComponentRef("resample_data_or_seg_to_shape", options))
    old, new, spacing, new_spacing = (4, 9, 8), (6, 9, 13), (5, 1, 1), (3, 1, 0.6)
    matrices = separable.axis_matrices(old, new, spacing, new_spacing, **options)
    assert matrices is not None
    assert [None if m is None else (m.shape, m.dtype) for m in matrices] == [((6, 4), "f4"), None, ((13, 8), "f4")]
    array = np.random.default_rng(0).standard_normal((2, *old)).astype(np.float32)
    by_hand = np.einsum("zi,xk,cijk->czjx", matrices[0], matrices[2], array)
    assert np.abs(by_hand - resample(array, new, spacing, new_spacing)).max() < 1e-6
    assert separable.axis_matrices(old, new, spacing, new_spacing, is_seg=True) is None


def test_it_travels_to_workers_by_name() -> None:
    assert pickle.loads(pickle.dumps(separable)) is separable


def test_wrong_calls_say_so() -> None:
    with pytest.raises(ValueError, match="spline order 6"):
        separable(np.ones((1, 2, 2, 2), np.float32), (3, 2, 2), (1,) * 3, (1,) * 3, order=6)
    with pytest.raises(ValueError, match="3 spatial axes"):
        separable(np.ones((1, 2, 2, 2), np.float32), (3, 2), (1,) * 3, (1,) * 3)
