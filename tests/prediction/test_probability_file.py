"""Probabilities on disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from segplug.errors import DataError
from segplug.runtime import probability_file
from segplug.runtime.probability_file import scratch_array, write_probabilities


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_file_is_numpys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: type) -> None:
    monkeypatch.setattr(probability_file, "_BYTES_AT_ONCE", 100)
    array = np.random.default_rng(0).random((3, 5, 6, 7)).astype(dtype)
    write_probabilities(tmp_path / "case.npz", array.transpose(0, 3, 1, 2))
    with np.load(tmp_path / "case.npz") as file:
        assert file.files == ["probabilities"]
        found = file["probabilities"]
    np.testing.assert_array_equal(found, array.transpose(0, 3, 1, 2))
    assert found.dtype == dtype
    assert [p.name for p in tmp_path.iterdir()] == ["case.npz"]


def test_the_scratch_array_begins_at_zero_and_leaves_nothing_behind(tmp_path: Path) -> None:
    array = scratch_array((2, 3, 4, 5), tmp_path)
    assert array.shape == (2, 3, 4, 5)
    assert array.dtype == np.float32
    assert not array.any()
    array[:] = 1
    assert array.sum() == 120
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no way to reserve space here")
def test_too_small_a_disk_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"no room for probabilities of 8\.0 GB: No space left on device"):
        scratch_array((2, 1000, 1000, 1000), tmp_path)
