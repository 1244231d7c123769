"""Quantised networks: made from real images, and what they cost in accuracy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import SimpleITK as sitk
from segplug_onnx.calibration import calibration_patches
from segplug_onnx.stage import export_model

import segplug
from segplug import PredictionSettings, Project
from segplug.errors import DataError, UsageError
from segplug.sample import DATASET, sample_root

from .models import Recipe
from .shared import reference_model

SAMPLE = sample_root() / DATASET / "imagesTr"
TOLERANCE = 0.01
"""Of the mean Dice against the reference labels; see the README for what was measured."""


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with segplug.open_project(None, None, None, workers=0) as opened:
        yield opened


def test_patches_are_what_the_network_sees(project: Project, tmp_path: Path) -> None:
    model = segplug.load_model(Recipe(patch=(16, 48, 16), mirror_axes=(1,)).write(tmp_path), project=project).trained
    patches = calibration_patches(project, model, SAMPLE, 6)
    assert (patches.shape, patches.dtype) == ((6, 1, 16, 48, 16), np.float32)
    assert abs(float(patches.mean())) < 0.7
    assert 0.3 < float(patches.std()) < 3  # z-scores, not raw intensities
    np.testing.assert_array_equal(calibration_patches(project, model, SAMPLE, 6), patches)


def test_what_cannot_be_calibrated_is_told(project: Project, tmp_path: Path) -> None:
    plain = segplug.load_model(Recipe().write(tmp_path / "plain"), project=project).trained
    with pytest.raises(UsageError, match=r"--calibration .*nowhere: no images; expected some named CASE_0000\.nii\.gz"):
        calibration_patches(project, plain, tmp_path / "nowhere")
    two = Recipe(normalization=("ZScoreNormalization",) * 2).write(tmp_path / "two")
    with pytest.raises(DataError, match="1 channels; expected 2: channel 0, channel 1"):
        calibration_patches(project, segplug.load_model(two, project=project).trained, SAMPLE)


def test_quantised_networks_of_2d(project: Project, tmp_path: Path) -> None:
    model = Recipe(patch=(48, 32), spacing=(1.0, 1.0)).write(tmp_path)
    export_model(project, segplug.load_model(model, project=project).trained, calibration=SAMPLE, patches=4)
    told = json.loads((model / "onnx" / "recipe.json").read_text())["networks"]
    assert [(each["file"], each["precision"], each["format"]) for each in told] == [
        ("fold_0.onnx", "fp32", "onnx"),
        ("fold_0_int8.onnx", "int8", "onnx"),
        ("fold_0_int8.xml", "int8", "openvino"),
    ]
    assert told[1]["calibration"] == {"patches": 4}
    quantised = onnx.load(model / "onnx" / "fold_0_int8.onnx")
    onnx.checker.check_model(quantised, full_check=True)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in quantised.graph.node}
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(sorted(SAMPLE.iterdir())[0])))
    for engine in ("onnxruntime", "openvino"):
        found = {}
        for precision in ("fp32", "int8"):
            settings = PredictionSettings(device="cpu", precision=precision)
            loaded = segplug.load_model(model, settings=settings, predictor=engine, project=project)
            found[precision] = np.asarray(loaded.predict(image, (1.0, 1.0, 1.0), probabilities=True).probabilities)
        difference = np.abs(found["int8"] - found["fp32"])
        assert 0 < difference.mean() < 0.05  # of a network of random weights
    # the data of OpenVINO's file lie beside it, and are checked too
    (model / "onnx" / "fold_0_int8.bin").write_bytes(b"")
    loaded = segplug.load_model(model, settings=settings, predictor="openvino", project=project)
    with pytest.raises(DataError, match=r"fold_0_int8\.bin: not the file that was exported"):
        loaded.predict(image, (1.0, 1.0, 1.0))


def test_nncf_sends_no_usage_data() -> None:
    """It does where it is imported as it is; in a process of its own, as it also keeps still under pytest."""
    code = (
        "import os; from segplug_onnx.quantising import import_nncf; import_nncf(); "
        "from nncf.telemetry import wrapper; "
        "print(isinstance(wrapper.telemetry, wrapper.NNCFTelemetry), 'NNCF_CI' in os.environ)"
    )
    clean = {name: value for name, value in os.environ.items() if name not in ("NNCF_CI", "NNCF_DEV")}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_dice_of_a_trained_model_hardly_falls(project: Project, tmp_path: Path) -> None:
    """Calibrated on some cases of the sample, measured on others."""
    model = reference_model("nnUNetTrainer__nnUNetPlansSmall__3d_fullres", tmp_path)
    cases = sorted(file.name.removesuffix(".nii.gz") for file in (sample_root() / DATASET / "labelsTr").iterdir())
    (tmp_path / "images").mkdir()
    for case in cases[:8]:
        shutil.copy(SAMPLE / f"{case}_0000.nii.gz", tmp_path / "images")
    loaded = segplug.load_model(model, folds=[0], project=project)
    export_model(project, loaded.trained, calibration=tmp_path / "images", patches=8)
    dice = {}
    for engine, precision in (("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "int8")):
        settings = PredictionSettings(device="cpu", precision=precision, mirroring=False)
        loaded = segplug.load_model(model, folds=[0], settings=settings, predictor=engine, project=project)
        scores = []
        for case in cases[8:14]:
            image = sitk.ReadImage(str(SAMPLE / f"{case}_0000.nii.gz"))
            wanted = sitk.GetArrayFromImage(
                sitk.ReadImage(str(sample_root() / DATASET / "labelsTr" / f"{case}.nii.gz"))
            )
            found = loaded.predict(sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]).labels.array
            scores += [
                2 * np.sum((found == c) & (wanted == c)) / np.sum((found == c) * 1 + (wanted == c)) for c in (1, 2)
            ]
        dice[engine, precision] = np.mean(scores)
    assert dice["onnxruntime", "fp32"] > 0.75
    assert dice["onnxruntime", "int8"] > dice["onnxruntime", "fp32"] - TOLERANCE
    assert dice["openvino", "int8"] > dice["onnxruntime", "fp32"] - TOLERANCE
