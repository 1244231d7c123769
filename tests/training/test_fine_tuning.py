"""Fine-tuning a real model to other labels beats training from scratch with as many iterations."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import SimpleITK as sitk

from segplug.kernel import Kernel
from segplug.runtime.evaluation import SUMMARY, read_summary
from segplug.runtime.files import read_json, write_json
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.fingerprint import fingerprint
from segplug.stages.preprocess import preprocess
from segplug.stages.train import train

NAME, PLANS = "Dataset904_WholeHippocampus", "nnUNetPlansSmall"
TRAINING, HELD_OUT = ("024", "038", "040"), ("044", "057", "105")
"""Cases that the model has not seen: all are of its fold's own held out ones."""
ITERATIONS, BATCH_SIZE, PATCH_SIZE = 15, 2, (32, 40, 32)
SEEDS = (0, 1)


@pytest.fixture
def workspace(shared: Path, tmp_path: Path) -> Workspace:
    """Hippocampus with one label instead of two, preprocessed by the plans that the model was trained with."""
    source, raw = shared / "datasets" / "Dataset004_Hippocampus", tmp_path / "raw" / NAME
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    for number in (*TRAINING, *HELD_OUT):
        case = f"hippocampus_{number}"
        (raw / "imagesTr" / f"{case}_0000.nii.gz").symlink_to(source / "imagesTr" / f"{case}_0000.nii.gz")
        labels = sitk.ReadImage(str(source / "labelsTr" / f"{case}.nii.gz"))
        sitk.WriteImage(sitk.Cast(labels > 0, labels.GetPixelID()), str(raw / "labelsTr" / f"{case}.nii.gz"))
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "Hippocampus": 1}}
    cases = len(TRAINING) + len(HELD_OUT)
    write_json(raw / "dataset.json", {**description, "numTraining": cases, "file_ending": ".nii.gz"})
    workspace = Workspace(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results")
    plans = dict(read_json(model(shared) / "plans.json"))
    plans["dataset_name"] = NAME
    plans["configurations"]["3d_fullres"] |= {"batch_size": BATCH_SIZE, "patch_size": PATCH_SIZE}
    file = workspace.plans_file(NAME, PLANS)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(plans))
    fold = {"train": [f"hippocampus_{n}" for n in TRAINING], "val": [f"hippocampus_{n}" for n in HELD_OUT]}
    write_json(file.parent / "splits_final.json", [fold])
    with Project(workspace, Kernel(discover=False), workers=0) as opened:
        fingerprint(opened, NAME)
        preprocess(opened, NAME, configurations=["3d_fullres"], plans_name=PLANS)
    return workspace


def model(shared: Path) -> Path:
    models = shared / "reference" / "models" / "Dataset004_Hippocampus"
    return models / f"nnUNetTrainer__{PLANS}__3d_fullres"


@dataclass(frozen=True)
class Recipe:
    pretrained: bool
    settings: tuple[str, ...] = ()


SCRATCH = Recipe(pretrained=False)
TUNED = {
    "fine-tuned": Recipe(pretrained=True),
    "frozen encoder": Recipe(pretrained=True, settings=("trainer.freeze=encoder",)),
    "slow encoder": Recipe(pretrained=True, settings=("trainer.lr_factors.encoder=0.1",)),
}


@pytest.mark.slow
def test_fine_tuning_beats_scratch(shared: Path, workspace: Workspace, tmp_path: Path) -> None:
    """With as many iterations of nnU-Net's own recipe, for every seed and by every way of fine-tuning, on cases that
    neither has seen. (After 50 iterations on so few cases the difference is small: 0.78 and 0.76.)"""
    checkpoint = model(shared) / "fold_0" / "checkpoint_final.pth"

    def dice(name: str, recipe: Recipe, seed: int) -> float:
        options = [f"trainer.iterations_per_epoch={ITERATIONS}", "trainer.val_iterations_per_epoch=1"]
        options += ["trainer.augmentation=nnunet", "trainer.augmentation.mirror=false", *recipe.settings]
        arguments = {"plans_name": PLANS, "overrides": options, "epochs": 2, "seed": seed, "precision": "fp32"}
        with Project(
            replace(workspace, results=tmp_path / f"{name} {seed}"), Kernel(discover=False), workers=0
        ) as project:
            if recipe.pretrained:
                with pytest.warns(UserWarning, match="begins anew: decoder.seg_layers: the labels are others"):
                    fold = train(project, NAME, "3d_fullres", 0, pretrained=checkpoint, **arguments)
            else:
                fold = train(project, NAME, "3d_fullres", 0, **arguments)
        found = read_summary(fold.validation_folder / SUMMARY)
        assert {c.name for c in found.cases} == {f"hippocampus_{n}" for n in HELD_OUT}
        return found.mean_dice

    scratch = [dice("scratch", SCRATCH, seed) for seed in SEEDS]
    for name, recipe in TUNED.items():
        seeds = SEEDS if recipe.settings == () else SEEDS[:1]
        tuned = [dice(name, recipe, seed) for seed in seeds]
        assert min(tuned) > max(scratch) + 0.3, (name, tuned, scratch)
        assert min(tuned) > 0.7, (name, tuned)
