"""Results of made-up trainings: real checkpoints of a network that nobody runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch import nn

from segplug.kernel import Kernel
from segplug.runtime.checkpoint import checkpoint_content
from segplug.runtime.checkpoint_writer import write_checkpoint
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.testing import Phantom, write_phantom_dataset

NAME = "Dataset503_Shared"
MODELS = [f"nnUNetTrainer__nnUNetPlans__{c}" for c in ("2d", "3d_fullres")]


def open_project(root: Path) -> Project:
    return Project(
        Workspace(*(root / p for p in ("raw", "preprocessed", "results"))), Kernel(discover=False), workers=0
    )


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project with two models of two folds each."""
    with open_project(tmp_path / "here") as opened:
        write_phantom_dataset(
            opened.workspace.raw_folder(f"{opened.workspace.raw}/{NAME}"), Phantom((8, 20, 18)), cases=3
        )
        fingerprint(opened, NAME)
        plan(opened, NAME)
        for model in MODELS:
            write_model(opened, model)
        yield opened


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Project]:
    """A project without anything."""
    with open_project(tmp_path / "there") as opened:
        yield opened


@pytest.fixture
def project_of() -> Iterator[Callable[[Path], Project]]:
    """Makes a project with this folder of results, and nothing else."""
    with ExitStack() as opened:
        yield lambda results: opened.enter_context(
            Project(Workspace(results=results), Kernel(discover=False), workers=0)
        )


def write_model(project: Project, model: str) -> None:
    workspace = project.workspace
    folder = workspace.results_folder(NAME) / model
    plans = json.loads(workspace.plans_file(NAME, "nnUNetPlans").read_text())
    dataset = json.loads((workspace.raw_folder(NAME) / "dataset.json").read_text())
    for fold in (0, 1):
        content = checkpoint_content(
            nn.Linear(2, 3),
            plans=plans,
            configuration=model.split("__")[2],
            fold=fold,
            dataset_json=dataset,
            trainer="nnUNetTrainer",
            mirror_axes=(0, 1),
            state={
                "optimizer_state": {"momentum": torch.rand(2000)},
                "current_epoch": 1,
                "logging": {},
                "_best_ema": None,
            },
            extension={"provenance": []},
        )
        (folder / f"fold_{fold}" / "validation").mkdir(parents=True)
        write_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pth", content)
        (folder / f"fold_{fold}" / "progress.png").write_bytes(b"picture")
        (folder / f"fold_{fold}" / "validation" / "phantom_000.nii.gz").write_bytes(b"label map")
        write_summary(folder / f"fold_{fold}" / "validation" / "summary.json", 0.8 + fold / 10)
    (folder / "crossval_results_folds_0_1").mkdir()
    write_summary(folder / "crossval_results_folds_0_1" / "summary.json", 0.85)
    (folder / "crossval_results_folds_0_1" / "postprocessing.json").write_text(
        '{"postprocessing_fns": [], "postprocessing_kwargs": []}'
    )
    (folder / "crossval_results_folds_0_1" / "postprocessing.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (folder / "dataset_fingerprint.json").write_text("{}")


def write_summary(path: Path, dice: float) -> None:
    mean = {"1": {"Dice": dice}, "2": {"Dice": dice}}
    path.write_text(json.dumps({"metric_per_case": [], "mean": mean, "foreground_mean": {"Dice": dice}}))
