"""A model that predicts arrays predicts what it predicts from files of these arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import segplug
from segplug import arrays
from segplug.errors import DataError, UsageError
from segplug.protocols import PredictionSettings
from segplug.runtime.case_reading import read_image, read_labels
from segplug.runtime.probability_file import ProbabilityFile
from segplug.runtime.raw_dataset import find_cases


@pytest.mark.parametrize(
    "changes",
    [
        {"folds": (0, 1), "mirror_axes": (0, 1, 2), "spacing": (1.3, 1.0, 0.9)},
        {"patch_size": (16, 16), "transpose": (1, 0, 2)},
        {"labels": (("background", 0), ("a", (1, 2)), ("b", 2)), "regions_class_order": (1, 2)},
    ],
    ids=["3D, two folds", "2D, transposed", "regions"],
)
def test_arrays_are_segmented_like_files(
    changes: dict, project, make_model: Callable[..., Path], make_image: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_model(**changes)
    for number in range(2):
        make_image(tmp_path / "in" / f"c{number}_0000.nii.gz", (12, 20 + number, 18), number, (1.5, 1.0, 1.2))
    settings = PredictionSettings(save_probabilities=True)
    segplug.predict_folder(project, tmp_path / "in", tmp_path / "out", folder, settings=settings)
    model = segplug.load_model(str(folder), project=project)
    reader = project.kernel.registry.build("readers", "SimpleITKIO")
    for name, case in find_cases(tmp_path / "in", ".nii.gz", 1).items():
        image = read_image(reader, case, 1)
        plain = model.predict(image.array, image.spacing)
        full = model.predict(image, probabilities=True)
        expected = read_labels(reader, tmp_path / "out" / f"{name}.nii.gz")
        np.testing.assert_array_equal(plain.labels.array, expected.array)
        np.testing.assert_array_equal(full.labels.array, expected.array)
        assert full.labels.geometry == image.geometry
        assert plain.probabilities is None
        assert full.probabilities is not None
        with ProbabilityFile(tmp_path / "out" / f"{name}.npz") as saved:
            pieces = np.concatenate([piece.reshape(-1) for piece in saved.pieces()])
        np.testing.assert_array_equal(np.asarray(full.probabilities, pieces.dtype).reshape(-1), pieces)


def test_what_a_model_tells(project, make_model: Callable[..., Path]) -> None:
    model = arrays.load_model(make_model(folds=(0, 1), channels=2), folds=[1], project=project)
    assert (model.folds, model.channels, model.labels.classes) == ((1,), ("MRI", "MRI"), (1, 2))
    assert model.configuration.name == "3d"
    assert model.plan.configurations["3d"] == model.configuration
    assert "folds=[1]" in repr(model)


def test_its_networks_are_those_that_predict(project, make_model: Callable[..., Path]) -> None:
    model = segplug.load_model(make_model(folds=(0, 1), mirror_axes=(0, 2)), project=project)
    device = torch.device("cpu")
    networks = model.trained.networks(device)
    assert len(networks) == 2
    assert model.trained.mirror_axes == (0, 2)
    array = np.random.default_rng(0).normal(size=(9, 17, 16))
    before = model.predict(array, (1, 1, 1), probabilities=True).probabilities
    for network in networks:
        for weights in network.parameters():
            weights.zero_()
    after = model.predict(array, (1, 1, 1), probabilities=True).probabilities
    assert before is not None
    assert after is not None
    assert np.ptp(after) == 0 < np.ptp(before)


def test_weights_are_read_once(project, make_model: Callable[..., Path]) -> None:
    folder = make_model()
    model = segplug.load_model(folder, project=project)
    array = np.random.default_rng(0).normal(size=(9, 17, 16))
    first = model.predict(array, (1, 1, 1))
    for file in folder.rglob("*.pth"):
        file.unlink()
    images = [arrays.image(array, (1, 1, 1))] * 2
    for again in model.predict_each(images, probabilities=True):
        np.testing.assert_array_equal(again.labels.array, first.labels.array)


def test_what_cannot_be_predicted_is_told(project, make_model: Callable[..., Path], tmp_path: Path) -> None:
    model = segplug.load_model(make_model(), project=project)
    array = np.zeros((9, 17, 16), np.float32)
    with pytest.raises(UsageError, match="without spacing"):
        model.predict(array)
    with pytest.raises(UsageError, match="its own spacing"):
        model.predict(arrays.image(array, (1, 1, 1)), (1, 1, 1))
    with pytest.raises(DataError, match="2 channels"):
        model.predict(np.stack([array, array]), (1, 1, 1))
    array[3, 4, 5] = np.nan
    with pytest.raises(DataError, match=r"not finite, the first \(nan\) at voxel \(3, 4, 5\)"):
        model.predict(array, (1, 1, 1))
    with pytest.raises(UsageError, match="no such model folder"):
        segplug.load_model(tmp_path / "nothing")


def test_a_cascade_predicts_its_first_stage_itself(project, make_model: Callable[..., Path]) -> None:
    low = make_model("nnUNetTrainer__plans__3d_lowres")
    full = make_model("nnUNetTrainer__plans__3d", previous_stage="3d_lowres")
    model = segplug.load_model(full, project=project)
    image = arrays.image(np.random.default_rng(3).normal(size=(9, 18, 16)), (1, 1, 1))
    alone = model.predict(image, probabilities=True)
    previous = segplug.load_model(low, project=project).predict(image).labels
    given = model.predict(image, previous=previous)
    np.testing.assert_array_equal(alone.labels.array, given.labels.array)
    other = replace(previous, array=(previous.array + 1) % 3)
    assert (model.predict(image, previous=other).labels.array != given.labels.array).any()
