"""Predicting with a choice in one go: members, ensemble and postprocessing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from segplug.errors import DataError, UsageError
from segplug.model import Choice
from segplug.protocols import PredictionSettings
from segplug.stages import predict_choice as stage
from segplug.stages.ensemble import ensemble_folders
from segplug.stages.postprocess import apply_postprocessing
from segplug.stages.predict import predict_folder
from segplug.stages.predict_choice import predict_choice

CASES = ("hippocampus_038", "hippocampus_040", "hippocampus_057")
FAST = PredictionSettings(device="cpu", precision="fp32", mirroring=False)


@pytest.fixture
def images(shared, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for case in CASES:
        shutil.copy(shared / "datasets" / "Dataset004_Hippocampus" / "imagesTr" / f"{case}_0000.nii.gz", folder)
    return folder


@pytest.fixture
def choice(shared, tmp_path):
    """Both reference models, and the largest component of label 1, then of 2."""
    root = shared / "reference" / "models" / "Dataset004_Hippocampus"
    members = tuple(root / f"nnUNetTrainer__nnUNetPlansSmall__{c}" for c in ("2d", "3d_fullres"))
    return Choice(root.name, members, (0,), 0.8, 0.8, write_decision(tmp_path / "postprocessing.json", 1, 2))


def write_decision(file, *labels):
    functions = ["remove_all_but_largest_component_from_segmentation"] * len(labels)
    options = [{"labels_or_regions": label} for label in labels]
    file.write_text(json.dumps({"postprocessing_fns": functions, "postprocessing_kwargs": options}))
    return file


def read(path: Path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.mark.slow
def test_it_is_what_the_single_steps_make(project, images, choice, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "CASES_AT_ONCE", 2)
    target = tmp_path / "out"
    done = predict_choice(project, images, target, choice, settings=FAST)
    assert sorted(done.predicted) == sorted(CASES)
    assert {f.name for f in target.iterdir()} == {".segplug", "dataset.json", "plans.json"} | {
        f"{c}.nii.gz" for c in CASES
    }
    assert not list(target.rglob("*.npz"))

    settings = PredictionSettings(device="cpu", precision="fp32", mirroring=False, save_probabilities=True)
    members = [tmp_path / "member_0", tmp_path / "member_1"]
    for model, member in zip(choice.members, members, strict=True):
        predict_folder(project, images, member, model, folds=[0], settings=settings)
    ensemble_folders(project, members, tmp_path / "ensemble")
    apply_postprocessing(project, tmp_path / "ensemble", tmp_path / "clean", choice.postprocessing)
    for case in CASES:
        np.testing.assert_array_equal(read(target / f"{case}.nii.gz"), read(tmp_path / "clean" / f"{case}.nii.gz"))

    # nothing to do
    again = predict_choice(project, images, target, choice, settings=FAST, continue_=True)
    assert (again.predicted, set(again.kept)) == ((), set(CASES))
    # another decision, a damaged result
    (target / f"{CASES[0]}.nii.gz").write_bytes(b"half")
    again = predict_choice(project, images, target, choice, settings=FAST, continue_=True)
    assert again.predicted == CASES[:1]
    write_decision(choice.postprocessing, 1)
    again = predict_choice(project, images, target, choice, settings=FAST, continue_=True)
    assert sorted(again.predicted) == sorted(CASES)


@pytest.mark.slow
def test_a_bad_image_fails_by_itself(project, images, choice, tmp_path):
    (images / f"{CASES[1]}_0000.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match=rf"1 of 3 cases not predicted(.|\n)*{CASES[1]}"):
        predict_choice(project, images, tmp_path / "out", choice, settings=FAST)
    assert (tmp_path / "out" / f"{CASES[0]}.nii.gz").is_file()
    assert (tmp_path / "out" / f"{CASES[2]}.nii.gz").is_file()


def test_one_model_without_postprocessing_is_a_plain_prediction(project, images, choice, tmp_path):
    for case in CASES[1:]:
        (images / f"{case}_0000.nii.gz").unlink()
    single = Choice(choice.dataset, choice.members[:1], (0,), 0.8, 0.8, write_decision(choice.postprocessing))
    predict_choice(project, images, tmp_path / "out", single, settings=FAST)
    assert (tmp_path / "out" / "predict_from_raw_data_args.json").is_file()


def test_wrong_usage(project, images, choice, tmp_path):
    with pytest.raises(UsageError, match="cannot share a folder"):
        predict_choice(project, images, images, choice)
    with pytest.raises(UsageError, match="no such folder"):
        predict_choice(project, tmp_path / "nowhere", tmp_path / "out", choice)
    with pytest.raises(UsageError, match="--save-probabilities"):
        predict_choice(project, images, tmp_path / "out", choice, settings=PredictionSettings(save_probabilities=True))


@pytest.mark.parity
def test_nnunets_steps_make_the_same(project, images, choice, tmp_path, peer, parity):
    write_decision(choice.postprocessing, 1)
    settings = PredictionSettings(device="cpu", precision="fp32")
    predict_choice(project, images, tmp_path / "out", choice, settings=settings)
    arguments = [str(images), str(tmp_path / "theirs"), "1", *map(str, choice.members)]
    run_peer(peer, "peer_predict_choice.py", arguments, tmp_path)
    apart = []
    for case in CASES:
        ours, theirs = (read(tmp_path / folder / f"{case}.nii.gz") for folder in ("out", "theirs/result"))
        apart.append(float(np.mean(ours != theirs)))
    what = "predict --choice: two models, ensemble, postprocessing (share of voxels that differ)"
    parity(what, len(CASES), max(apart), 1e-4, section="After prediction")

    # nnunetv2's own probabilities, ensembled here
    members = [tmp_path / "theirs" / f"member_{number}" for number in (0, 1)]
    ensemble_folders(project, members, tmp_path / "ensemble")
    apart = [
        float(
            np.mean(read(tmp_path / "ensemble" / f"{c}.nii.gz") != read(tmp_path / "theirs/ensemble" / f"{c}.nii.gz"))
        )
        for c in CASES
    ]
    what = "ensemble of nnunetv2's probabilities (share of voxels that differ)"
    parity(what, len(CASES), max(apart), 0, section="After prediction")


def run_peer(peer: Path, script: str, arguments: list[str], folder: Path) -> None:
    roots = {f"nnUNet_{name}": str(folder) for name in ("raw", "preprocessed", "results")}
    done = subprocess.run(
        [peer, Path(__file__).with_name(script), *arguments],
        env={**os.environ, **roots},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
