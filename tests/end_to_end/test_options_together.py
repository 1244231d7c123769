"""A training with two dozen options at once: they combine freely, are kept, and can be repeated by a command."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from segplug.cli.main import app
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.plan_codec import write_plan
from segplug.runtime.train_command import train_command
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.preprocess import preprocess
from segplug.testing import Phantom, write_phantom_dataset

NAME, PLANS = "Dataset641_Phantom", "handMade"
OPTIONS = (
    "epochs=4",
    "iterations_per_epoch=3",
    "val_iterations_per_epoch=1",
    "lr=2e-3",
    "weight_decay=1e-4",
    "batch_size=3",
    "accumulate=2",
    "oversample_foreground=0.5",
    "probabilistic_oversampling=true",
    "deep_supervision=false",
    "norm=batch",
    "gradient_clip=1",
    "weight_averaging=0.9",
    "patience=3",
    "freeze=encoder.stages.0",
    "lr_factors.decoder=0.5",
    "loss=dice_topk",
    "loss.k=20",
    "loss.class_weights=[1, 2, 2]",
    "optimizer=adan",
    "schedule=cosine",
    "schedule.warmup_epochs=1",
    "augmentation=stronger",
    "augmentation.mirror=[0, 2]",
    "augmentation.labels=nearest",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory, open_small, shrink) -> Path:
    folder = tmp_path_factory.mktemp("options")
    write_phantom_dataset(folder / "raw" / NAME, Phantom((16, 24, 22), (1.0, 1.0, 1.0)), cases=5, test_cases=1)
    with open_small(folder) as project:
        fingerprint(project, NAME)
        made = plan(project, NAME, planner="compact", plans_name=PLANS)
        small = shrink(made.configurations["3d_fullres"], (16, 16, 16), (4, 8), 2)
        write_plan(project.workspace.plans_file(NAME, PLANS), replace(made, configurations={"3d_fullres": small}))
        preprocess(project, NAME, plans_name=PLANS)
    return folder


def segplug(root: Path, *words: str) -> str:
    places = [f"--{part}={root / part}" for part in ("raw", "preprocessed", "results")]
    done = CliRunner().invoke(app, [*places, *words])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_options_combine_and_a_further_fold_is_trained_alike(root: Path, open_small, read) -> None:
    computing = ["--device", "cpu", "--precision", "fp32", "--workers", "0"]
    sets = [word for option in OPTIONS for word in ("--set", f"trainer.{option}")]
    segplug(
        root, "train", NAME, "3d_fullres", "0", "-p", PLANS, "--trainer", "nnunet", "--seed", "9", *sets, *computing
    )
    (model,) = (root / "results" / NAME).glob("*__3d_fullres")
    assert model.name == f"nnUNetTrainerBN__{PLANS}__3d_fullres"  # the class by which nnunetv2 builds this network
    first = read_checkpoint(model / "fold_0" / "checkpoint_final.pth")
    settings = first.extension["trainer"]["settings"]
    assert settings["loss"] == {"name": "dice_topk", "options": {"k": 20, "class_weights": [1, 2, 2]}}
    assert settings["schedule"] == {"name": "cosine", "options": {"warmup_epochs": 1}}
    assert settings["lr_factors"] == {"decoder": 0.5}
    assert (settings["accumulate"], settings["batch_size"], settings["patience"]) == (2, 3, 3)
    assert first.mirror_axes == (0, 2)
    assert any(name.endswith("norm.running_mean") for name in first.weights)
    assert all(torch.isfinite(weight).all() for weight in first.weights.values() if weight.is_floating_point())
    assert all(map(json.dumps, first.state["logging"]["train_losses"]))

    # what an error would suggest for a fold that is missing: the same training
    with open_small(root) as project:
        command = shlex.split(train_command(project.kernel, model, 1))
    assert command[0] == "segplug"
    segplug(root, *command[1:], *computing)
    second = read_checkpoint(model / "fold_1" / "checkpoint_final.pth")
    assert second.extension["trainer"] == first.extension["trainer"]
    assert second.extension["seed"] == 9

    # finished folds are kept; a network with these options predicts
    segplug(root, *command[1:], *computing)
    images = str(root / "raw" / NAME / "imagesTs")
    segplug(root, "predict", "-i", images, "-o", str(root / "out"), "-m", str(model), *computing)
    reference = read(root / "raw" / NAME / "labelsTs" / "phantom_005.nii.gz")
    assert read(root / "out" / "phantom_005.nii.gz").shape == reference.shape
