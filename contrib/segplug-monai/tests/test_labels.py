"""Every loss on regions and on partly annotated data, with deep supervision, as a training calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import segplug
from segplug.testing import KINDS

LOSSES = ("monai_tversky", "monai_focal", "monai_generalized_dice", "monai_hausdorff")
SHORT = ("trainer.epochs=1", "trainer.iterations_per_epoch=1", "trainer.val_iterations_per_epoch=1")
CHEAP = ("trainer.augmentation.mirror=false", "trainer.batch_size=2")


@pytest.mark.parametrize("kind", ["regions", "ignore label"])
def test_losses_train_on(kind: str, tmp_path: Path) -> None:
    KINDS[kind].write(tmp_path / "raw" / "Dataset901_Phantom", seed=1)
    with segplug.open_project(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results", workers=0) as project:
        segplug.fingerprint(project, 901)
        plan = segplug.plan(project, 901, planner="monai_dynunet")
        segplug.preprocess(project, 901, configurations=["2d"])
        for loss in LOSSES:
            trained = segplug.train(
                project,
                901,
                "2d",
                0,
                plans_name=plan.plans_name,
                overrides=[*SHORT, *CHEAP, f"trainer.loss={loss}"],
                device="cpu",
                precision="fp32",
            )
            log = json.loads((trained.folder / "validation" / "summary.json").read_text(encoding="utf-8"))
            assert log["metric_per_case"], loss
