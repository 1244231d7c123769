"""predict.py of an exported folder, without segplug and torch, segments as segplug does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from segplug_onnx.stage import export_model

import segplug

from .alone import interpreter, run_alone
from .models import Recipe


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return interpreter(tmp_path_factory.mktemp("alone") / "only")


def recipes() -> Iterator[object]:
    plain = Recipe(mirror_axes=(0, 2), folds=(0, 1))
    yield pytest.param(plain, (1.0, 1.0, 1.0), id="3D, mirrored, two folds")
    yield pytest.param(
        Recipe(
            transpose=(1, 2, 0),
            spacing=(1.5, 1.0, 0.8),
            normalization=("CTNormalization", "RescaleTo01Normalization"),
        ),
        (0.7, 1.3, 1.1),
        id="CT, transposed, resampled",
    )  # fmt: skip
    yield pytest.param(
        Recipe(spacing=(4.0, 1.0, 1.0), use_mask=True), (5.0, 0.9, 1.2), id="anisotropic, within the mask"
    )
    yield pytest.param(
        Recipe(
            patch=(16, 24),
            spacing=(1.0, 1.2),
            mirror_axes=(0,),
            labels={"background": 0, "a": (1, 2, 3), "b": (2, 3), "c": 3},
            regions_class_order=(1, 2, 3),
        ),
        (6.0, 1.0, 1.0),
        id="2D, regions",
    )


@pytest.mark.parametrize(("recipe", "spacing"), list(recipes()))
def test_it_segments_as_segplug_does(recipe: Recipe, spacing: tuple[float, ...], alone: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    coarse = random.normal(1, 1, (len(recipe.normalization), 6, 7, 6))
    image = np.kron(coarse, np.ones((1, 4, 3, 4))).astype(np.float32)
    image += random.normal(0, 0.05, image.shape).astype(np.float32)
    image[:, :3] = image[:, :, -2:] = 0
    image[:, 8:10, 8:10, 8:10] = 0
    with segplug.open_project(None, None, None, workers=0) as project:
        settings = segplug.PredictionSettings(device="cpu", precision="fp32")
        model = segplug.load_model(recipe.write(tmp_path), settings=settings, project=project)
        wanted = model.predict(image, spacing).labels.array
        export_model(project, model.trained, tmp_path / "out")
    np.save(tmp_path / "image.npy", image)
    files = (tmp_path / "image.npy", tmp_path / "labels.npy")
    done = run_alone(alone, tmp_path / "out" / "predict.py", *files, "--spacing", *map(str, spacing))
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "labels.npy")
    assert len(np.unique(wanted)) > 1
    assert found.shape == wanted.shape
    assert np.mean(found == wanted) >= 0.9999


def test_segplug_is_not_there(alone: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    for name in ("segplug", "torch", "onnx"):
        program.write_text(f"import {name}")
        assert f"No module named '{name}'" in run_alone(alone, program).stderr


def test_what_it_cannot_do_is_told(alone: Path, tmp_path: Path) -> None:
    with segplug.open_project(None, None, None, workers=0) as project:
        export_model(project, segplug.load_model(Recipe().write(tmp_path), project=project).trained, tmp_path / "out")
    np.save(tmp_path / "image.npy", np.ones((1, 16, 16, 16), np.float32))
    file = tmp_path / "out" / "recipe.json"
    told = json.loads(file.read_text())
    changes: list[tuple[dict[str, object], str]] = [
        ({"normalization": [{**told["normalization"][0], "method": None}]}, "ZScoreNormalization: not written here"),
        ({"previous_stage": "3d_lowres"}, "a cascade"),
        ({"channels": ["a", "b"]}, r"expected (c, z, y, x), finite, c = ['a', 'b']"),
        ({"networks": [{**told["networks"][0], "sha256": "0"}]}, "fold_0.onnx: not the file that was exported"),
        ({"networks": []}, "no networks of precision fp32"),
    ]
    for change, message in changes:
        file.write_text(json.dumps(told | change))
        files = (tmp_path / "image.npy", tmp_path / "labels.npy")
        done = run_alone(alone, tmp_path / "out" / "predict.py", *files, "--spacing", "1", "1", "1")
        assert done.returncode == 1
        assert message in done.stderr
