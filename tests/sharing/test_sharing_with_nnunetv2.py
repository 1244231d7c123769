"""Archives of nnunetv2 install here, those of segplug install there, and predict the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from segplug.protocols import PredictionSettings
from segplug.stages.export_model import export_model
from segplug.stages.import_model import import_model
from segplug.stages.predict import predict_folder

pytestmark = pytest.mark.parity

DATASET, CONFIGURATION, PLANS = "Dataset004_Hippocampus", "3d_fullres", "nnUNetPlansSmall"
MODEL = f"nnUNetTrainer__{PLANS}__{CONFIGURATION}"
CASES = ("hippocampus_038", "hippocampus_040")


@pytest.fixture
def results(shared, tmp_path):
    """A folder of results with a trained model, with all that nnunetv2 wants to export."""
    folder = tmp_path / "results"
    model = folder / DATASET / MODEL
    shutil.copytree(shared / "reference" / "models" / DATASET / MODEL, model)
    shutil.rmtree(model / "fold_1")
    (model / "fold_0" / "validation").mkdir()
    (model / "fold_0" / "validation" / "summary.json").write_text(
        '{"metric_per_case": [], "mean": {}, "foreground_mean": {"Dice": 0.8}}'
    )
    (model / "fold_0" / "progress.png").write_bytes(b"picture")
    return folder


@pytest.fixture
def images(shared, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for case in CASES:
        shutil.copy(shared / "datasets" / DATASET / "imagesTr" / f"{case}_0000.nii.gz", folder)
    return folder


def run_peer(peer: Path, results: Path, *arguments: str) -> None:
    roots = {f"nnUNet_{name}": str(results) for name in ("raw", "preprocessed", "results")}
    done = subprocess.run(
        [peer, Path(__file__).with_name("peer_sharing.py"), *map(str, arguments)],
        env={**os.environ, **roots},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def read(path: Path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def predict(project, images, target, results):
    settings = PredictionSettings(device="cpu", precision="fp32")
    predict_folder(project, images, target, results / DATASET / MODEL, folds=[0], settings=settings)


def share_that_differs(one: Path, other: Path) -> float:
    return max(float(np.mean(read(one / f"{c}.nii.gz") != read(other / f"{c}.nii.gz"))) for c in CASES)


def test_archives_go_both_ways(results, project_of, images, peer, parity, tmp_path):
    here = project_of(results)
    predict(here, images, tmp_path / "before", results)

    # nnunetv2's archive installs here
    theirs = tmp_path / "theirs.zip"
    run_peer(peer, results, "export", DATASET, CONFIGURATION, PLANS, theirs)
    imported = project_of(tmp_path / "imported")
    done = import_model(imported, theirs)
    assert (done.checked, done.left_out) == (False, ())
    predict(imported, images, tmp_path / "after_import", tmp_path / "imported")
    apart = share_that_differs(tmp_path / "before", tmp_path / "after_import")
    parity("archive of nnunetv2 imported: voxels that differ", len(CASES), apart, 0, section="Sharing")

    # segplug's installs there, and holds all that nnunetv2's does
    ours = tmp_path / "ours.zip"
    export_model(here, DATASET, ours, configurations=[CONFIGURATION], plans_name=PLANS, folds=[0])
    with zipfile.ZipFile(ours) as one, zipfile.ZipFile(theirs) as other:
        missing = set(other.namelist()) - set(one.namelist())
        differing = [name for name in set(other.namelist()) - missing if one.read(name) != other.read(name)]
    parity("files of nnunetv2's archive that segplug's lacks", 1, len(missing), 0, section="Sharing")
    parity("files that differ", 1, len(differing), 0, section="Sharing")
    installed = tmp_path / "installed"
    installed.mkdir()
    run_peer(peer, installed, "install", ours, DATASET, CONFIGURATION, PLANS, images, tmp_path / "of_peer")
    apart = share_that_differs(tmp_path / "before", tmp_path / "of_peer")
    what = "archive of segplug installed by nnunetv2, predicted there: voxels that differ"
    parity(what, len(CASES), apart, 1e-4, section="Sharing")
