"""Regions on BraTS: whole tumour, core and enhancing tumour, each scored on patients that were not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segplug.model import Split
from segplug.runtime.plan_codec import write_plan
from segplug.runtime.raw_dataset import load_dataset
from segplug.stages.crossval import gather_folds
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.preprocess import preprocess
from segplug.stages.split_folds import split_folds
from segplug.stages.train import train

pytestmark = pytest.mark.slow

NAME, PLANS, ITERATIONS = "Dataset042_BraTS2015", "handMade", 100
WHOLE, CORE, ENHANCING = (1, 2, 3, 4), (2, 3, 4), (4,)
SEED = 0


Thresholds = Mapping[tuple[int, float], float]
"""(channel, percentile of the brain) -> Dice of all voxels above it."""


def every_threshold(images: np.ndarray, mask: np.ndarray) -> Thresholds:
    return {
        (channel, float(share)): 2 * (found & mask).sum() / (found.sum() + mask.sum())
        for channel, image in enumerate(images)
        for share in np.linspace(50, 99.5, 40)
        for found in [image > np.percentile(image[image > 0], share)]
    }


def best_threshold(splits: Sequence[Split], cases: Mapping[str, Thresholds]) -> float:
    """Mean Dice over new patients of the channel and threshold that are best for the patients trained on."""
    found = []
    for split in splits:
        best = max(cases[split.train[0]], key=lambda way: sum(cases[case][way] for case in split.train))
        found += [cases[case][best] for case in split.val]
    return float(np.mean(found))


def test_regions_of_new_patients_are_found(shared: Path, tmp_path: Path, open_small, shrink, recipe, read) -> None:
    with open_small(tmp_path, raw=shared / "datasets") as project:
        fingerprint(project, NAME)
        made = plan(project, NAME, planner="compact", plans_name=PLANS)
        full = made.configurations["3d_fullres"]
        small = shrink(full, (32, 40, 32), (8, 16, 32), 2, spacing=(3.0, 3.0, 3.0), data_identifier=PLANS)
        write_plan(project.workspace.plans_file(NAME, PLANS), replace(made, configurations={"3d_fullres": small}))
        preprocess(project, NAME, plans_name=PLANS)
        folds = split_folds(project, NAME, folds=2)
        training = recipe(ITERATIONS, "trainer.augmentation.mirror=false", lr=5e-3, seed=SEED)
        for fold in (0, 1):
            trained = train(
                project,
                NAME,
                "3d_fullres",
                fold,
                plans_name=PLANS,
                overrides=training.overrides,
                device="cpu",
                precision="fp32",
                seed=SEED,
            )
        scores = gather_folds(project, trained.model_folder, [0, 1]).evaluation
    assert len(scores.cases) == 4
    dice = {target: values["Dice"] for target, values in scores.mean.items()}
    assert list(dice) == [WHOLE, CORE, ENHANCING]
    raw = load_dataset(shared / "datasets" / NAME)
    thresholds: dict[tuple[int, ...], dict[str, Thresholds]] = {target: {} for target in dice}
    for case in raw.cases.values():
        images, labels = np.stack([read(file)[::3, ::3, ::3] for file in case.images]), read(case.label)[::3, ::3, ::3]
        for target in dice:
            thresholds[target][case.name] = every_threshold(images, np.isin(labels, target))
    found = {target: (dice[target], best_threshold(folds.splits, thresholds[target])) for target in dice}
    assert all(ours > baseline for ours, baseline in found.values()), found
    assert np.mean([ours - baseline for ours, baseline in found.values()]) > 0.1, found
    assert dice[WHOLE] > 0.55, found
    for case in scores.cases:
        written = set(np.unique(read(case.prediction)).tolist())
        assert written <= {0, 1, 2, 4}  # regions_class_order: 3 is within the core and has no name of its own
