"""Cross-validation, ensembles, the choice and postprocessing equal those of nnunetv2 itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from segplug.errors import UsageError
from segplug.runtime.choice_codec import read_choice
from segplug.stages.ensemble import ensemble_folders
from segplug.stages.postprocess import apply_postprocessing
from segplug.stages.select import select

pytestmark = pytest.mark.parity

NAME = "Dataset502_MadeUp"
FOLDS = [0, 1]
SECTION = "After prediction"


def numbers(content: Any) -> dict[str, float]:
    """Every number of a JSON value by its place; file names and what segplug adds left out."""
    found = {}
    if isinstance(content, dict):
        for key, value in content.items():
            if key != "segplug":
                found |= {f"{key}.{place}": number for place, number in numbers(value).items()}
    elif isinstance(content, list):
        for index, value in enumerate(content):
            found |= {f"{index}.{place}": number for place, number in numbers(value).items()}
    elif isinstance(content, (int, float)):
        found[""] = float(content)
    return found


def difference(one: Any, other: Any) -> float:
    """Largest difference of two summaries; infinite where one says what the other does not."""
    ours, theirs = numbers(one), numbers(other)
    if set(ours) != set(theirs):
        return np.inf
    apart = [abs(ours[k] - theirs[k]) for k in ours if not (np.isnan(ours[k]) and np.isnan(theirs[k]))]
    return float(np.max(apart, initial=0.0))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize(("kind", "islands", "seed"), [
    ("labels", 1.5, 1), ("labels", 0.0, 2), ("single", 1.0, 3), ("regions", 1.0, 4), ("ignore", 1.0, 5)
])  # fmt: skip
def test_find_best(kind, islands, seed, project, made_up, peer, parity, tmp_path):
    configurations = ["2d", "3d_fullres", "3d_lowres"] if kind == "labels" else ["2d", "3d_fullres"]
    made_up(kind, configurations=configurations, folds=len(FOLDS), seed=seed, islands=islands)
    theirs = tmp_path / "theirs"
    for part in ("preprocessed", "results"):
        shutil.copytree(tmp_path / part, theirs / part)
    run_peer(peer, theirs, ",".join(map(str, FOLDS)), *configurations)
    compare_averages(project, configurations, tmp_path / "averaged", theirs / "results" / "averaged", parity)
    selection = select(project, NAME, folds=FOLDS)

    ours = project.workspace.results_folder(NAME)
    theirs = theirs / "results" / NAME
    information, of_peer = read(ours / "inference_information.json"), read(theirs / "inference_information.json")
    for candidate in selection.candidates:
        folder = candidate.folder.relative_to(ours)
        what = "cross-validation" if len(candidate.members) == 1 else "ensembles"
        summaries = read(ours / folder / "summary.json"), read(theirs / folder / "summary.json")
        parity(f"{what}: summary.json", 1, difference(*summaries), 0, section=SECTION)
        for file in (ours / folder).glob("*.nii.gz"):
            voxels = [sitk.GetArrayFromImage(sitk.ReadImage(str(root / folder / file.name))) for root in (ours, theirs)]
            parity(
                f"{what}: label maps (share of voxels that differ)",
                1,
                np.mean(voxels[0] != voxels[1]),
                0,
                section=SECTION,
            )
    assert information.keys() - {"segplug"} == of_peer.keys()
    parity(
        "find-best table",
        len(selection.candidates),
        difference(information["all_results"], of_peer["all_results"]),
        0,
        section=SECTION,
    )
    keys = ("folds", "dataset_name_or_id", "considered_models", "ensembling_allowed")
    same = all(information[key] == of_peer[key] for key in keys)
    best, best_of_peer = information["best_model_or_ensemble"], of_peer["best_model_or_ensemble"]
    same &= best["selected_model_or_models"] == best_of_peer["selected_model_or_models"]
    parity("find-best choice (models that differ)", 1, float(not same), 0, section=SECTION)
    scores = [[b["result_on_crossval_pre_pp"], b["result_on_crossval_post_pp"]] for b in (best, best_of_peer)]
    parity("find-best Dice before and after postprocessing", 1, difference(*scores), 0, section=SECTION)

    read_here = read_choice(theirs / "inference_information.json")  # nnunetv2's, with its postprocessing.pkl
    assert [member.name for member in read_here.members] == [member.name for member in selection.choice.members]
    assert read_here.postprocessing == theirs / selection.best.folder.relative_to(ours) / "postprocessing.json"

    folder = selection.best.folder.relative_to(ours)
    decisions = read(ours / folder / "postprocessing.json"), read(theirs / folder / "postprocessing.json")
    steps = [[d["postprocessing_fns"], d["postprocessing_kwargs"]] for d in decisions]
    parity("postprocessing decisions that differ", 1, float(steps[0] != steps[1]), 0, section=SECTION)
    parity("postprocessing.json", 1, difference(*decisions), 0, section=SECTION)
    summaries = [read(root / folder / "postprocessed" / "summary.json") for root in (ours, theirs)]
    parity("summary after postprocessing", 1, difference(*summaries), 0, section=SECTION)


def compare_averages(project, configurations, ours: Path, theirs: Path, parity) -> None:
    models = [project.workspace.model_folder(NAME, "nnUNetTrainer", "nnUNetPlans", c) for c in configurations]
    beside = {"dataset_json": models[0] / "dataset.json", "plans": models[0] / "plans.json"}
    folders = [model / "fold_0" / "validation" for model in models]
    made = ensemble_folders(project, folders, ours, save_probabilities=True, **beside).made
    voxels, values = [], []
    for case in made:
        labels = [sitk.GetArrayFromImage(sitk.ReadImage(str(f / f"{case}.nii.gz"))) for f in (ours, theirs)]
        means = [np.load(f / f"{case}.npz")["probabilities"] for f in (ours, theirs)]
        voxels.append(float(np.mean(labels[0] != labels[1])))
        values.append(float(np.abs(means[0] - means[1]).max()))
    parity("ensemble of two or three: voxels that differ", len(made), max(voxels), 0, section=SECTION)
    parity("ensemble of two or three: probabilities", len(made), max(values), 0, section=SECTION)


def run_peer(peer: Path, root: Path, *arguments: str) -> None:
    done = call_peer(peer, root, *arguments)
    assert done.returncode == 0, done.stderr


def call_peer(peer: Path, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    roots = {f"nnUNet_{part}": str(root / part) for part in ("raw", "preprocessed", "results")}
    return subprocess.run(
        [peer, Path(__file__).with_name("peer_find_best.py"), NAME, "nnUNetPlans", *arguments],
        env={**os.environ, **roots},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_class_that_nobody_has(project, made_up, peer, tmp_path):
    """nnunetv2 fails, as a maximum of NaN equals nothing; segplug takes the first."""
    made_up("labels", cases=4, islands=0.0)
    for file in [*project.workspace.reference_folder(NAME).glob("*.nii.gz"), *(tmp_path / "results").rglob("*.nii.gz")]:
        image = sitk.ReadImage(str(file))
        array = sitk.GetArrayFromImage(image)
        array[array == 3] = 0
        changed = sitk.GetImageFromArray(array)
        changed.CopyInformation(image)
        sitk.WriteImage(changed, str(file))
    for file in (tmp_path / "results").rglob("*.npz"):
        probabilities = np.load(file)["probabilities"]
        probabilities[3] = 0
        np.savez(file, probabilities=probabilities)
    theirs = tmp_path / "theirs"
    for part in ("preprocessed", "results"):
        shutil.copytree(tmp_path / part, theirs / part)
    done = call_peer(peer, theirs, "0,1", "2d", "3d_fullres")
    assert done.returncode != 0
    assert "IndexError: list index out of range" in done.stderr
    selection = select(project, NAME, folds=FOLDS)
    assert np.isnan(selection.choice.mean_dice)
    assert selection.best is selection.candidates[0]


def test_a_decision_that_runs_code(project, made_up, peer, tmp_path):
    """nnunetv2 unpickles postprocessing.pkl, whatever is in it; segplug refuses the file."""
    model = made_up("single", cases=3)[0]
    predictions = model / "fold_0" / "validation"
    for name in ("plans.json", "dataset.json"):
        shutil.copy(model / name, predictions)
    touched, decision = tmp_path / "touched", tmp_path / "postprocessing.pkl"
    decision.write_bytes(f"cos\nmkdir\n(S'{touched}'\ntR.".encode())
    program = (
        "from nnunetv2.postprocessing.remove_connected_components import entry_point_apply_postprocessing as m; m()"
    )
    arguments = ["-i", predictions, "-o", tmp_path / "out", "-pp_pkl_file", decision, "-np", "1"]
    roots = {f"nnUNet_{part}": str(tmp_path) for part in ("raw", "preprocessed", "results")}
    subprocess.run([peer, "-c", program, *arguments], env={**os.environ, **roots}, capture_output=True, timeout=300)
    assert touched.is_dir()
    touched.rmdir()
    with pytest.raises(UsageError, match="a pickle can run code"):
        apply_postprocessing(project, predictions, tmp_path / "clean", decision)
    assert not touched.exists()
