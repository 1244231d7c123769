"""What is done piece by piece where arrays are large gives what is done at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segplug_builtin import blosc, label_resampling, spline_bands
from segplug_builtin.resamplers import separable

Shape = st.tuples(st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
ONES = (1.0, 1.0, 1.0)


@given(shape=Shape, new=Shape, order=st.integers(0, 3), planes=st.integers(1, 9), seed=st.integers(0, 9))
def test_images_some_planes_at_a_time(
    shape: tuple[int, int, int], new: tuple[int, int, int], order: int, planes: int, seed: int
) -> None:
    array = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    whole = separable(array, new, ONES, ONES, order=order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spline_bands, "_LARGE", 0)
        patch.setattr(spline_bands, "_PLANES", planes)
        np.testing.assert_allclose(separable(array, new, ONES, ONES, order=order), whole, atol=3e-6)


@given(shape=Shape, new=Shape, at_once=st.integers(1, 500), seed=st.integers(0, 9))
def test_labels_some_planes_at_a_time(
    shape: tuple[int, int, int], new: tuple[int, int, int], at_once: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, 3, (1, *shape)).astype(np.int16)
    whole = separable(labels, new, ONES, ONES, is_seg=True, order=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_resampling, "_AT_ONCE", at_once)
        np.testing.assert_array_equal(separable(labels, new, ONES, ONES, is_seg=True, order=1), whole)


@pytest.mark.parametrize("kind", [np.float32, np.int16, np.int64])
def test_library_and_package_unpack_each_other(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    array = (np.random.default_rng(0).random((3, 40, 50)) * 100).astype(kind)
    by_library = blosc.compress(array, "LZ4", 5)
    from_package = np.empty_like(array)
    blosc.decompress(blosc._compress_by_package(array, "ZSTD", 5), from_package)
    np.testing.assert_array_equal(from_package, array)
    monkeypatch.setattr(blosc, "_library", lambda: None)
    from_library = np.empty_like(array)
    blosc.decompress(by_library, from_library)
    np.testing.assert_array_equal(from_library, array)
    assert len(blosc.compress(array, "LZ4", 5)) == len(by_library)
