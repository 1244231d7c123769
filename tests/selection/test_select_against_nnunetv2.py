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

    folder = selection.best.folder.relative_to(ours)
    decisions = read(ours / folder / "postprocessing.json"), read(theirs / folder / "postprocessing.json")
    steps = [[d["postprocessing_fns"], d["postprocessing_kwargs"]] for d in decisions]
    parity("postprocessing decisions that differ", 1, float(steps[0] != steps[1]), 0, section=SECTION)
    parity("postprocessing.json", 1, difference(*decisions), 0, section=SECTION)
    summaries = [read(root / folder / "postprocessed" / "summary.json") for root in (ours, theirs)]
    parity("summary after postprocessing", 1, difference(*summaries), 0, section=SECTION)


def run_peer(peer: Path, root: Path, *arguments: str) -> None:
    roots = {f"nnUNet_{part}": str(root / part) for part in ("raw", "preprocessed", "results")}
    done = subprocess.run(
        [peer, Path(__file__).with_name("peer_find_best.py"), NAME, "nnUNetPlans", *arguments],
        env={**os.environ, **roots},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
