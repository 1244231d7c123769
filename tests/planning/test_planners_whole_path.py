"""Planners beside nnU-Net's usual ones, from raw data to evaluated predictions; one of them a plugin of 30 lines."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

from segplug.kernel import Kernel
from segplug.model import Configuration
from segplug.protocols import PredictionSettings
from segplug.runtime.parts import Part
from segplug.runtime.preprocessed_cases import open_store
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages import fingerprint as fingerprint_module
from segplug.stages.predict import predict_folder
from segplug.stages.run import Planning, RunResult, Training, run
from segplug.testing import KINDS

EXAMPLES = Path(__file__).resolve().parents[2] / "core" / "segplug" / "testing" / "examples"
NAME = "Dataset601_Phantom"
LOW, CASCADE = "3d_lowres", "3d_cascade_fullres"
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
        raw = KINDS[kind].write(tmp_path / "raw" / NAME)
        cases = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
        folds = [{"train": cases[1::2], "val": cases[::2]}, {"train": cases[::2], "val": cases[1::2]}]
        (raw / "splits_final.json").write_text(json.dumps(folds))
        workspace = Workspace(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results")
        with Project(workspace, kernel or Kernel(discover=False), workers=0) as project:
            wanted = Planning(planner=planner, **{"memory_gb": 0.05, **planning})
            done = run(project, NAME, configurations=configurations, folds=[0], planning=wanted, training=SHORT)
            predict_folder(
                project,
                workspace.raw / NAME / "imagesTr",
                tmp_path / "out",
                done.folds[-1].trained.model_folder,
                folds=[0],
                settings=PredictionSettings(device="cpu", step_size=1.0, mirroring=False),
                part=Part(1, 5),
            )
            return done

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
    assert evaluated(done) == {"3d_fullres": 3}


def test_torch_resampling_of_slices_far_apart(whole_path: Any) -> None:
    planner = "nnUNetPlannerResEncL_torchres_sepz"
    done = whole_path("coarse first axis", planner, ["3d_fullres"], spacing=(3.0, 1.1, 1.1))
    assert done.plan.configurations["3d_fullres"].resample_seg.name == "resample_torch_fornnunet"
    assert evaluated(done) == {"3d_fullres": 3}


RESAMPLERS = {
    "default_torchres": "resample_torch_fornnunet",
    "resenc_l_noresampling": "no_resampling_hack",
}


@pytest.mark.slow
@pytest.mark.parametrize("planner", RESAMPLERS)
def test_cascades_of_images_resampled_otherwise_or_not_at_all(whole_path: Any, tmp_path: Path, planner: str) -> None:
    """Both stages, and a prediction by both. Without resampling, both see the images as they are."""
    fine = {"spacing": (2.0, 0.7, 0.7), "memory_gb": 0.02}
    done = whole_path("coarse first axis", planner, [CASCADE], **fine)
    assert [(fold.configuration, fold.trained.fold) for fold in done.folds] == [(LOW, 0), (LOW, 1), (CASCADE, 0)]
    assert evaluated(done)[CASCADE] == 3
    plans = done.plan.configurations
    used = {r.name for c in (LOW, CASCADE) for r in (plans[c].resample_data, plans[c].resample_probabilities)}
    assert used == {RESAMPLERS[planner]}
    before, found = shapes(tmp_path, plans[LOW]), shapes(tmp_path, plans[CASCADE])
    assert found.keys() == before.keys()
    for case, (cropped, low) in before.items():
        assert found[case][0] == cropped
        assert (low, found[case][1]) == (cropped, cropped) or planner != "resenc_l_noresampling"
        assert low != found[case][1] or planner == "resenc_l_noresampling"
    (made,) = (tmp_path / "out").glob("*.nii.gz")
    reference = sitk.ReadImage(str(tmp_path / "raw" / NAME / "labelsTr" / made.name))
    written = sitk.ReadImage(str(made))
    assert written.GetSize() == reference.GetSize()
    assert written.GetSpacing() == pytest.approx(reference.GetSpacing())


def shapes(root: Path, configuration: Configuration) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Of each case: after cropping, and as the network sees it."""
    workspace = Workspace(root / "raw", root / "preprocessed")
    with Project(workspace, Kernel(discover=False), workers=0) as project:
        store = open_store(project, NAME, configuration)
        opened = {case: store.open(case) for case in store.cases()}
        key = "shape_after_cropping_and_before_resampling"
        return {case: (tuple(image.properties[key]), tuple(image.shape)) for case, image in opened.items()}
