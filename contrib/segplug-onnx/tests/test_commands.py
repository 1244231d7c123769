"""The commands, as a user calls them, on the bundled sample and on trained models."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from segplug import PredictionSettings, open_project, predict_folder
from segplug.sample import DATASET, sample_root

from .models import Recipe
from .shared import reference_model, shared

SAMPLE = sample_root() / DATASET / "imagesTr"
ENGINES = ("onnxruntime", "openvino")


def segplug(*arguments: str | Path, code: int = 0, python: str | Path = sys.executable) -> str:
    """Run the program; returns what it printed, errors last."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("nnUNet", "SEGPLUG"))}
    done = subprocess.run(
        [python, "-m", "segplug", *map(str, arguments)],
        env=clean,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def predict(model: Path, images: Path, out: Path, *more: str) -> dict[str, np.ndarray]:
    """Label maps by file name."""
    segplug("predict", "-i", images, "-o", out, "-m", model, "--device", "cpu", "--workers", "0", *more)
    return {file.name: sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in sorted(out.glob("*.nii.gz"))}


def agreement(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    """Share of voxels that are alike, over all cases."""
    assert found.keys() == wanted.keys()
    alike = [found[name] == wanted[name] for name in wanted]
    return float(sum(each.sum() for each in alike) / sum(each.size for each in alike))


def test_export_then_predict_on_the_sample(tmp_path: Path) -> None:
    model = Recipe(patch=(32, 48, 32), mirror_axes=(0,), folds=(0, 1)).write(tmp_path)
    images = tmp_path / "images"
    images.mkdir()
    for file in sorted(SAMPLE.iterdir())[:2]:
        shutil.copy(file, images)
    said = segplug(
        "onnx", "export", model, "--precision", "int8", "--calibration", images, "--patches", "2", "-f", "0,1"
    )
    files = [f"fold_{fold}{kind}" for fold in (0, 1) for kind in (".onnx", "_int8.onnx", "_int8.xml")]
    assert sorted(said.split()) == sorted(str(model / "onnx" / file) for file in files)
    wanted = predict(model, images, tmp_path / "torch", "--precision", "fp32")
    assert len(wanted) == 2
    for engine in ENGINES:
        found = predict(model, images, tmp_path / engine, "--precision", "fp32", "--predictor", engine)
        assert agreement(found, wanted) >= 0.9999
    coarse = predict(model, images, tmp_path / "int8", "--precision", "int8", "--predictor", "onnxruntime")
    assert 0.8 < agreement(coarse, wanted) < 1


@pytest.mark.parametrize(
    ("name", "folds"),
    [("Small__3d_fullres", "0,1"), ("Small__2d", "0"), ("Tiny__3d_fullres", "0")],
)
def test_trained_models_predict_what_nnunet_does(name: str, folds: str, tmp_path: Path) -> None:
    model = reference_model(f"nnUNetTrainer__nnUNetPlans{name}", tmp_path)
    references = sorted((shared() / "reference" / "predictions" / f"nnUNetPlans{name}").glob("*.nii.gz"))[:2]
    (tmp_path / "images").mkdir()
    for file in references:
        image = shared() / "datasets" / DATASET / "imagesTr" / file.name.replace(".nii.gz", "_0000.nii.gz")
        shutil.copy(image, tmp_path / "images")
    wanted = {file.name: sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in references}
    for engine in ENGINES:
        with open_project(None, None, None, workers=0) as project:
            settings = PredictionSettings(device="cpu", precision="fp32")
            numbers = [int(fold) for fold in folds.split(",")]
            out = tmp_path / engine
            predict_folder(project, tmp_path / "images", out, model, folds=numbers, settings=settings, predictor=engine)
        found = {file.name: sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in out.glob("*.nii.gz")}
        assert agreement(found, wanted) >= 0.9999


def test_wrong_calls_are_told(tmp_path: Path) -> None:
    said = segplug("onnx", "export", tmp_path, "--precision", "int8", code=2)
    assert "--precision int8 goes with --calibration IMAGES" in said
    assert "no plans.json, so it is no model folder" in segplug("onnx", "export", tmp_path, code=2)


def test_without_the_engines_the_program_says_what_to_install(tmp_path: Path) -> None:
    """In an environment that has this plugin and neither ONNX Runtime nor OpenVINO."""
    python = environment_without(tmp_path / "env", ("onnxruntime", "openvino", "nncf"))
    model = Recipe().write(tmp_path)
    for engine in ENGINES:
        out = tmp_path / engine
        said = segplug(
            "predict", "-i", SAMPLE, "-o", out, "-m", model, "--predictor", engine, code=1, python=python
        )  # fmt: skip
        assert f"predictor {engine}: {engine} is not installed: pip install 'segplug-onnx[{engine}]'" in said
    assert "fold_0.onnx" in segplug("onnx", "export", model, python=python)
    said = segplug(
        "onnx", "export", model, "--precision", "int8", "--calibration", SAMPLE, code=1, python=python
    )  # fmt: skip
    assert "pip install 'segplug-onnx[int8]'" in said


def environment_without(folder: Path, left_out: tuple[str, ...]) -> Path:
    """The Python of an environment that has, by links, what this one has but for some packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    target = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for root in (Path(entry) for entry in sys.path if Path(entry).name == "site-packages"):
        for entry in root.iterdir():
            name = entry.name.partition("-")[0].partition(".")[0]
            if name not in left_out and not (target / entry.name).exists():
                (target / entry.name).symlink_to(entry)
    return folder / "bin" / "python"
