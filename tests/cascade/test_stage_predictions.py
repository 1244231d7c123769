"""Files of predictions for the next stage: ours, and the forms that nnU-Net has had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segplug.errors import DataError
from segplug.runtime.stage_predictions import StagePredictions


@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    patch=st.lists(st.integers(1, 64), min_size=2, max_size=3),
    seed=st.integers(0, 9),
)
def test_any_box_comes_back(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int, int], patch: list[int], seed: int
) -> None:
    predictions = StagePredictions.of(tmp_path_factory.mktemp("model"), "next")
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, shape).astype(np.uint8)
    predictions.write("a", labels, patch, {"fold": 3})
    low = [int(random.integers(n)) for n in shape]
    high = [int(random.integers(a, n)) + 1 for a, n in zip(low, shape, strict=True)]
    found = predictions.read("a", low, high)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, labels[tuple(map(slice, low, high))])
    assert predictions.fits("a", shape)
    assert not predictions.fits("a", (*shape[:2], shape[2] + 1))
    assert predictions.fold("a") == 3


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_forms_of_nnunets_older_store(tmp_path: Path, suffix: str) -> None:
    labels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    if suffix == ".npy":
        np.save(tmp_path / "a.npy", labels)
    else:
        np.savez_compressed(tmp_path / "a.npz", seg=labels)
    predictions = StagePredictions(tmp_path)
    assert predictions.fits("a", (3, 4, 5))
    assert predictions.fold("a") is None
    np.testing.assert_array_equal(predictions.read("a", (1, 0, 2), (3, 3, 5)), labels[1:3, 0:3, 2:5])


def test_what_is_whole(tmp_path: Path) -> None:
    predictions = StagePredictions(tmp_path)
    assert not predictions.is_whole("a", {"x": 1})
    predictions.write("a", np.ones((4, 4, 4), np.uint8), (2, 2, 2), {"x": 1})
    assert predictions.is_whole("a", {"x": 1})
    assert not predictions.is_whole("a", {"x": 2})
    predictions.file("a").write_bytes(predictions.file("a").read_bytes()[:-9])
    assert not predictions.is_whole("a", {"x": 1})
    predictions.discard("a")
    assert predictions.find("a") is None
    assert not predictions.manifest_file("a").exists()


def test_damage_is_told(tmp_path: Path) -> None:
    predictions = StagePredictions(tmp_path)
    with pytest.raises(DataError, match="no such prediction"):
        predictions.read("a", (0, 0, 0), (1, 1, 1))
    predictions.file("a").write_bytes(b"nothing of the kind")
    assert not predictions.fits("a", (1, 1, 1))
    with pytest.raises(DataError, match=r"prediction of case a is damaged: .* --continue"):
        predictions.read("a", (0, 0, 0), (1, 1, 1))
    np.save(tmp_path / "b.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="damaged"):
        predictions.read("b", (0,), (1,))
