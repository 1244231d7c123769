"""Which model a cascade's second stage builds on: in training, selection and prediction the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from segplug.errors import UsageError
from segplug.model import ComponentRef
from segplug.protocols import PredictionSettings
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.plan_codec import read_plan, write_plan
from segplug.runtime.prediction_engine import Engine
from segplug.runtime.project import Project
from segplug.stages.run import Planning, Training, run
from segplug.stages.train import train
from segplug.stages.validation_probabilities import Computing, validation_probabilities

NAME, PLANS = "Dataset611_Cascade", "tinyPlans"
LOW, CASCADE = "3d_lowres", "3d_cascade_fullres"
BATCH_NORM = ("trainer.norm=batch",)
MakeProject = Callable[..., Project]


def folder(project: Project, trainer: str, configuration: str) -> Path:
    return project.workspace.model_folder(NAME, trainer, PLANS, configuration)


def built_on(project: Project, model: Path, folds: list[int] | None = None) -> Path:
    engine = Engine(project, model, folds=folds, settings=PredictionSettings(device="cpu", precision="fp32"))
    assert engine.previous is not None
    return engine.previous.model.folder


def recorded(model: Path, fold: int = 0) -> str:
    return str(read_checkpoint(model / f"fold_{fold}" / "checkpoint_final.pth").extension["previous_model"])


def test_settings_that_name_the_folder_hold_for_both_stages(make_project: MakeProject, chain: Path) -> None:
    project = make_project(chain)
    training = Training(overrides=BATCH_NORM)
    planning = Planning(plans_name=PLANS)
    run(project, NAME, configurations=[CASCADE], folds=[0], planning=planning, training=training)
    low, cascade = (folder(project, "nnUNetTrainerBN", c) for c in (LOW, CASCADE))
    assert recorded(cascade) == low.name
    assert built_on(project, cascade) == low
    # the same call trains nothing anew, and a fold that goes on keeps to what it began with
    again = run(project, NAME, configurations=[CASCADE], folds=[0], planning=planning, training=training)
    assert all(fold.kept for fold in again.folds)
    train(project, NAME, CASCADE, 0, plans_name=PLANS, overrides=BATCH_NORM, continue_=True, epochs=3)
    assert recorded(cascade) == low.name


def test_what_a_model_was_trained_on_is_what_it_predicts_with(make_project: MakeProject, chain: Path) -> None:
    project = make_project(chain)
    for fold in range(4):
        train(project, NAME, LOW, fold, plans_name=PLANS)
    usual = folder(project, "nnUNetTrainer", LOW)
    train(project, NAME, CASCADE, 0, plans_name=PLANS, overrides=BATCH_NORM)
    cascade = folder(project, "nnUNetTrainerBN", CASCADE)
    assert recorded(cascade) == usual.name
    # a model with the second stage's own name comes later, and is not the one that it was trained with
    for fold in range(4):
        train(project, NAME, LOW, fold, plans_name=PLANS, overrides=BATCH_NORM)
    assert built_on(project, cascade) == usual
    train(project, NAME, CASCADE, 0, plans_name=PLANS, overrides=BATCH_NORM, continue_=True, epochs=3)
    assert recorded(cascade) == usual.name
    probabilities = validation_probabilities(project, cascade, [0], Computing("cpu", "fp32"))
    assert all(file.is_file() for file in probabilities.values())
    train(project, NAME, CASCADE, 1, plans_name=PLANS, overrides=BATCH_NORM)
    assert recorded(cascade, 1) == folder(project, "nnUNetTrainerBN", LOW).name
    with pytest.raises(UsageError, match="its folds were trained on predictions of different models"):
        built_on(project, cascade)
    assert built_on(project, cascade, [0]) == usual


def test_stages_with_networks_of_different_kinds(make_project: MakeProject, chain: Path, tmp_path: Path) -> None:
    data = shutil.copytree(chain, tmp_path / "data")
    file = data / "preprocessed" / NAME / f"{PLANS}.json"
    plan = read_plan(file)
    primus = ComponentRef("primus", {"size": "S"})
    low = replace(plan.configurations[LOW], architecture=primus)
    write_plan(file, replace(plan, configurations={**plan.configurations, LOW: low}))
    project = make_project(data)
    short = ("trainer.deep_supervision=false",)
    for fold in range(4):
        train(project, NAME, LOW, fold, plans_name=PLANS, overrides=short, epochs=1)
    train(project, NAME, CASCADE, 0, plans_name=PLANS, epochs=1)
    cascade = folder(project, "nnUNetTrainer", CASCADE)
    first = project.workspace.model_folder(NAME, recorded(cascade).split("__")[0], PLANS, LOW)
    assert first.name != folder(project, "nnUNetTrainer", LOW).name
    assert built_on(project, cascade) == first
    without = make_project(data)
    shutil.rmtree(first)
    with pytest.raises(
        UsageError, match=f"takes the predictions of {LOW}, whose model is not at .*{recorded(cascade)}"
    ):
        built_on(without, cascade)
