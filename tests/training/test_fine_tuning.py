"""Fine-tuning a real model to other labels beats training from scratch with as many iterations."""

from __future__ import annotations

import json
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
CASES = 6


@pytest.fixture
def workspace(shared: Path, tmp_path: Path) -> Workspace:
    """Hippocampus with one label instead of two, and the plans that the model was trained with."""
    source, raw = shared / "datasets" / "Dataset004_Hippocampus", tmp_path / "raw" / NAME
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    # some of these cases the model has seen, with its two labels; both trainings are compared on the same ones
    for file in sorted((source / "labelsTr").glob("*.nii.gz"))[:CASES]:
        case = file.name.removesuffix(".nii.gz")
        (raw / "imagesTr" / f"{case}_0000.nii.gz").symlink_to(source / "imagesTr" / f"{case}_0000.nii.gz")
        labels = sitk.ReadImage(str(file))
        sitk.WriteImage(sitk.Cast(labels > 0, labels.GetPixelID()), str(raw / "labelsTr" / file.name))
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "Hippocampus": 1}}
    write_json(raw / "dataset.json", {**description, "numTraining": CASES, "file_ending": ".nii.gz"})
    found = Workspace(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results")
    plans = dict(read_json(model(shared) / "plans.json"))
    plans["dataset_name"] = NAME
    file = found.plans_file(NAME, PLANS)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(plans))
    return found


def model(shared: Path) -> Path:
    models = shared / "reference" / "models" / "Dataset004_Hippocampus"
    return models / f"nnUNetTrainer__{PLANS}__3d_fullres"


@pytest.mark.slow
def test_fine_tuning_beats_scratch(shared: Path, workspace: Workspace, tmp_path: Path) -> None:
    checkpoint = model(shared) / "fold_0" / "checkpoint_final.pth"
    dice = {}
    variants = {
        "scratch": (None, ()),
        "fine-tuned": (checkpoint, ()),
        "frozen encoder": (checkpoint, ("trainer.freeze=encoder",)),
        "slow encoder": (checkpoint, ("trainer.lr_factors.encoder=0.1",)),
    }
    for begun, (pretrained, settings) in variants.items():
        results = Workspace(workspace.raw, workspace.preprocessed, tmp_path / begun)
        with Project(results, Kernel(discover=False), workers=0) as project:
            fingerprint(project, NAME)
            preprocess(project, NAME, configurations=["3d_fullres"], plans_name=PLANS)
            options = ["trainer.iterations_per_epoch=10", "trainer.val_iterations_per_epoch=1", "trainer.lr=3e-3"]
            options += ["trainer.optimizer=adamw", "trainer.schedule=one_cycle", *settings]
            arguments = {"plans_name": PLANS, "overrides": options, "epochs": 2, "precision": "auto"}
            if pretrained is None:
                fold = train(project, NAME, "3d_fullres", 0, **arguments)
            else:
                with pytest.warns(UserWarning, match="begins anew: decoder.seg_layers: the labels are others"):
                    fold = train(project, NAME, "3d_fullres", 0, pretrained=pretrained, **arguments)
        dice[begun] = read_summary(fold.validation_folder / SUMMARY).mean_dice
    for begun in ("fine-tuned", "frozen encoder", "slow encoder"):
        assert dice[begun] > dice["scratch"] + 0.1, dice
        assert dice[begun] > 0.6, dice
