"""Models of nnunetv2 predict what nnunetv2 predicted with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from segplug.protocols import PredictionSettings
from segplug.runtime.device import cpu_has_bf16
from segplug.runtime.project import Project
from segplug.stages.predict import predict_folder

MODELS = ("nnUNetPlansSmall__2d", "nnUNetPlansSmall__3d_fullres", "nnUNetPlansTiny__3d_fullres")
WITH_PROBABILITIES = "hippocampus_024"


def predict(project: Project, shared: Path, name: str, tmp_path: Path, precision: str) -> dict[str, float]:
    """Share of voxels that agree, per case."""
    reference = shared / "reference" / "predictions" / name
    images = shared / "datasets" / "Dataset004_Hippocampus" / "imagesTr"
    model = shared / "reference" / "models" / "Dataset004_Hippocampus" / f"nnUNetTrainer__{name}"
    (tmp_path / "in").mkdir()
    cases = sorted(p.name.removesuffix(".nii.gz") for p in reference.glob("*.nii.gz"))
    for case in cases:
        (tmp_path / "in" / f"{case}_0000.nii.gz").symlink_to(images / f"{case}_0000.nii.gz")
    settings = PredictionSettings(device="cpu", precision=precision, save_probabilities=True)
    predict_folder(project, tmp_path / "in", tmp_path / "out", model, settings=settings)
    agreement = {}
    for case in cases:
        ours = sitk.ReadImage(str(tmp_path / "out" / f"{case}.nii.gz"))
        theirs = sitk.ReadImage(str(reference / f"{case}.nii.gz"))
        assert ours.GetSize() == theirs.GetSize()
        assert (ours.GetSpacing(), ours.GetOrigin()) == (theirs.GetSpacing(), theirs.GetOrigin())
        assert ours.GetPixelID() == theirs.GetPixelID()
        agreement[case] = float(np.mean(sitk.GetArrayFromImage(ours) == sitk.GetArrayFromImage(theirs)))
    return agreement


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize("name", MODELS)
def test_single_precision(
    project: Project, shared: Path, parity: Callable[..., None], tmp_path: Path, name: str
) -> None:
    """What nnunetv2 predicted, as it is, was kept with the models."""
    agreement = predict(project, shared, name, tmp_path, "fp32")
    what = f"Hippocampus, {name}, trained by nnunetv2, which predicted as it is"
    unlike = 1 - min(agreement.values())
    parity(f"{what}: share of voxels with another label", len(agreement), unlike, 1e-4, section="Prediction")
    with (
        np.load(tmp_path / "out" / f"{WITH_PROBABILITIES}.npz") as ours,
        np.load(shared / "reference" / "predictions" / name / f"{WITH_PROBABILITIES}.npz") as theirs,
    ):
        most = float(np.abs(ours["probabilities"] - theirs["probabilities"]).max())
    parity(f"{what}: probabilities", 1, most, 3e-3, section="Prediction")


@pytest.mark.parametrize("name", MODELS)
def test_automatic_precision(project: Project, shared: Path, tmp_path: Path, name: str) -> None:
    if not cpu_has_bf16():
        pytest.skip("this CPU computes in single precision anyway")
    agreement = predict(project, shared, name, tmp_path, "auto")
    assert min(agreement.values()) >= 0.999, agreement
