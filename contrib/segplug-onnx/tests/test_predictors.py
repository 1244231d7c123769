"""Both engines predict what torch predicts, and say what is wrong where they cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from segplug_onnx.stage import export_model

import segplug
from segplug import PredictionSettings, Project
from segplug.errors import DataError, SegplugError, UsageError
from segplug.model import Prediction

from .models import Recipe

ENGINES = ("onnxruntime", "openvino")
REGIONS = Recipe(
    folds=(0, 1),
    mirror_axes=(0, 1, 2),
    normalization=("ZScoreNormalization", "NoNormalization"),
    labels={"background": 0, "a": (1, 2), "b": 2},
    regions_class_order=(1, 2),
    spacing=(1.0, 0.8, 1.3),
)
FLAT = Recipe(patch=(16, 16), spacing=(1.0, 0.8), transpose=(2, 0, 1), mirror_axes=(1,))


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with segplug.open_project(None, None, None, workers=0) as opened:
        yield opened


def an_image(channels: int) -> np.ndarray:
    random = np.random.default_rng(5)
    coarse = np.kron(random.normal(1, 1, (channels, 5, 6, 5)), np.ones((1, 4, 3, 4)))
    return (coarse + random.normal(0, 0.05, coarse.shape)).astype(np.float32)


def predicted(
    project: Project, model: Path, predictor: str, precision: str = "fp32", folds: list[int] | None = None
) -> Prediction:
    settings = PredictionSettings(device="cpu", precision=precision)
    loaded = segplug.load_model(model, folds=folds, settings=settings, predictor=predictor, project=project)
    channels = len(loaded.channels)
    return loaded.predict(an_image(channels), (1.0, 1.0, 1.0), probabilities=True)


@pytest.mark.parametrize("recipe", [REGIONS, FLAT], ids=["two folds, mirrored, regions, resampled", "2D, transposed"])
def test_they_predict_what_torch_does(recipe: Recipe, project: Project, tmp_path: Path) -> None:
    model = recipe.write(tmp_path)
    wanted = predicted(project, model, "torch")
    assert len(np.unique(wanted.labels.array)) > 1
    assert wanted.probabilities is not None
    for engine in ENGINES:
        found = predicted(project, model, engine)
        assert np.mean(found.labels.array == wanted.labels.array) >= 0.9999
        assert found.probabilities is not None
        np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-3)
    alone = predicted(project, model, "onnxruntime", folds=[recipe.folds[0]])  # type: ignore[list-item]
    told = np.abs(np.asarray(alone.probabilities) - wanted.probabilities).max()
    assert (told > 0.01) == (len(recipe.folds) > 1)


def test_a_later_stage_of_a_cascade(project: Project, tmp_path: Path) -> None:
    """Its network sees the labels of the stage before, one channel each."""
    model = Recipe(previous_stage="3d_lowres").write(tmp_path)
    image = segplug.arrays.image(an_image(1), (1.0, 1.0, 1.0))
    previous = segplug.arrays.labels(np.indices(image.shape).sum(0) % 3, (1.0, 1.0, 1.0))
    settings = PredictionSettings(device="cpu", precision="fp32")
    found = {
        engine: next(
            segplug.predict_images(project, [image], model, settings=settings, predictor=engine, previous=[previous])
        ).labels.array
        for engine in ("torch", *ENGINES)
    }
    assert len(np.unique(found["torch"])) > 1
    for engine in ENGINES:
        assert np.mean(found[engine] == found["torch"]) >= 0.9999


@pytest.mark.parametrize("engine", ENGINES)
def test_the_second_run_exports_nothing(engine: str, project: Project, tmp_path: Path) -> None:
    model = FLAT.write(tmp_path)
    first = predicted(project, model, engine)
    files = {file: file.stat().st_mtime_ns for file in (model / "onnx").iterdir()}
    assert len(files) == 6
    second = predicted(project, model, engine)
    assert {file: file.stat().st_mtime_ns for file in (model / "onnx").iterdir()} == files
    np.testing.assert_array_equal(first.labels.array, second.labels.array)


def test_a_model_folder_that_cannot_be_written_to(project: Project, tmp_path: Path) -> None:
    model = FLAT.write(tmp_path)
    (model / "onnx").touch()
    np.testing.assert_array_equal(
        predicted(project, model, "onnxruntime").labels.array, predicted(project, model, "torch").labels.array
    )


def test_damaged_and_foreign_files_are_refused(project: Project, tmp_path: Path) -> None:
    model = FLAT.write(tmp_path)
    with segplug.open_project(None, None, None, workers=0) as other:
        export_model(other, segplug.load_model(model, project=other).trained)
    file, recipe = model / "onnx" / "fold_0.onnx", model / "onnx" / "recipe.json"
    whole, told = file.read_bytes(), recipe.read_text()

    def refused(kind: type[SegplugError], *messages: str) -> None:
        for engine in ENGINES:
            with pytest.raises(kind) as raised:
                predicted(project, model, engine)
            assert all(message in str(raised.value) for message in messages), raised.value

    file.write_bytes(whole[:-100])
    refused(DataError, str(file), "not the file that was exported: SHA-256", "made anew")
    file.unlink()
    refused(DataError, "no such file")
    file.write_bytes(whole)
    # of the right hash, but no ONNX at all: what someone wrote into both
    import hashlib

    file.write_bytes(b"something else")
    recipe.write_text(told.replace(hashlib.sha256(whole).hexdigest(), hashlib.sha256(b"something else").hexdigest()))
    refused(SegplugError, str(file), "does not take it")
    for content in (
        "{",
        "{}",
        json.dumps({**json.loads(told), "format": "other"}),
        told.replace("fold_0.onnx", "../x"),
    ):
        recipe.write_text(content)
        refused(DataError, str(recipe), "not a recipe of segplug-onnx 1", f"Remove {model / 'onnx'}")


def test_a_network_of_another_shape_is_refused(project: Project, tmp_path: Path) -> None:
    """A file whose hash is in the recipe, but which is a network of other images."""
    import hashlib

    model, other = FLAT.write(tmp_path / "a"), Recipe().write(tmp_path / "b")
    for each in (model, other):
        export_model(project, segplug.load_model(each, project=project).trained)
    ours, theirs = (each / "onnx" / "fold_0.onnx" for each in (model, other))
    recipe = model / "onnx" / "recipe.json"
    before, after = (hashlib.sha256(file.read_bytes()).hexdigest() for file in (ours, theirs))
    ours.write_bytes(theirs.read_bytes())
    recipe.write_text(recipe.read_text().replace(before, after))
    for engine in ENGINES:
        with pytest.raises(DataError, match=r"takes .*16.*16.*16.*; expected .*batch"):
            predicted(project, model, engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (PredictionSettings(device="cuda"), "--device cuda: predictor .* works on the CPU"),
        (PredictionSettings(device="cpu", precision="fp16"), "--precision fp16: predictor .* takes auto, fp32"),
        (
            PredictionSettings(device="cpu", precision="int8"),
            "--precision int8: .*segplug onnx export .* --calibration",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(
    engine: str, settings: PredictionSettings, told: str, project: Project, tmp_path: Path
) -> None:
    loaded = segplug.load_model(FLAT.write(tmp_path), settings=settings, predictor=engine, project=project)
    with pytest.raises(UsageError, match=told):
        loaded.predict(an_image(1), (1.0, 1.0, 1.0))
