"""Planners beside nnU-Net's usual ones, from raw data to evaluated predictions; one of them a plugin of 30 lines."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from segplug.kernel import Kernel
from segplug.runtime.preprocessed_cases import open_store
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages import fingerprint as fingerprint_module
from segplug.stages.run import Planning, RunResult, Training, run
from segplug.testing import KINDS

EXAMPLES = Path(__file__).resolve().parents[2] / "core" / "segplug" / "testing" / "examples"
NAME = "Dataset601_Phantom"
SHORT = Training(
    trainer="nnUNetTrainer_1epoch",
    overrides=(
        "trainer.iterations_per_epoch=1",
        "trainer.val_iterations_per_epoch=1",
        "trainer.augmentation.mirror=false",  # nor does prediction
    ),
    device="cpu",
    precision="fp32",
)


@pytest.fixture
def whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function: plan by a planner, preprocess, train one fold for a moment, predict its validation cases."""
    monkeypatch.setattr(fingerprint_module, "TOTAL_DRAWS", 1e4)

    def go(kind: str, planner: str, configurations: list[str], kernel: Kernel | None = None, **planning: Any) -> Any:
        KINDS[kind].write(tmp_path / "raw" / NAME)
        workspace = Workspace(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results")
        with Project(workspace, kernel or Kernel(discover=False), workers=0) as project:
            wanted = Planning(planner=planner, memory_gb=0.05, **planning)
            return run(project, NAME, configurations=configurations, folds=[0], planning=wanted, training=SHORT)

    return go


def evaluated(done: RunResult) -> dict[str, int]:
    """Evaluated validation cases per configuration."""
    return {fold.configuration: len(fold.evaluation.cases) for fold in done.folds}


def test_a_planner_is_a_plugin_of_30_lines(whole_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    kernel = Kernel(discover=False)
    kernel.register(import_module("example_planners"), "example")
    assert len((EXAMPLES / "example_planners.py").read_text().splitlines()) <= 30
    done = whole_path("coarse first axis", "isotropic", ["3d_fullres"], kernel)
    assert (done.plan.plans_name, done.plan.planner) == ("isotropicPlans", "isotropic")
    coarse, fine, same = done.plan.configurations["3d_fullres"].spacing
    assert coarse == fine == same < 1
    assert evaluated(done) == {"3d_fullres": 1}


@pytest.mark.parametrize("planner", ["default_torchres", "nnUNetPlannerResEncL_torchres_sepz"])
def test_torch_resampling(whole_path: Any, planner: str) -> None:
    done = whole_path("coarse first axis", planner, ["3d_fullres"], spacing=(3.0, 1.1, 1.1))
    assert done.plan.configurations["3d_fullres"].resample_seg.name == "resample_torch_fornnunet"
    assert evaluated(done) == {"3d_fullres": 1}


def test_no_resampling(whole_path: Any, tmp_path: Path) -> None:
    """The network sees the images as they are, whatever spacing the plan has for it."""
    done = whole_path("coarse first axis", "resenc_l_noresampling", ["3d_fullres"], spacing=(3.0, 1.1, 1.1))
    assert evaluated(done) == {"3d_fullres": 1}
    with Project(Workspace(tmp_path / "raw", tmp_path / "preprocessed"), Kernel(discover=False), workers=0) as project:
        store = open_store(project, NAME, done.plan.configurations["3d_fullres"])
        found = {name: store.open(name).properties for name in store.cases()}
        shapes = {name: store.open(name).shape for name in store.cases()}
    assert {n: tuple(p["shape_after_cropping_and_before_resampling"]) for n, p in found.items()} == shapes
