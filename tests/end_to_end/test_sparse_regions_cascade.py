"""Regions, sparse annotation and a cascade at once: trained by `run` on some slices, judged on whole new images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segplug.protocols import PredictionSettings
from segplug.runtime.evaluation import SUMMARY, read_summary
from segplug.runtime.plan_codec import write_plan
from segplug.runtime.raw_dataset import load_dataset
from segplug.stages.evaluate import evaluate
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.predict_choice import predict_choice
from segplug.stages.run import Planning, run
from segplug.stages.split_folds import split_folds
from segplug.testing import Phantom, write_phantom_dataset
from segplug.testing.phantoms import make_case, write_volumes

pytestmark = pytest.mark.slow

NAME, PLANS = "Dataset631_SparseRegions", "handMade"
LOW, CASCADE = "3d_lowres", "3d_cascade_fullres"
PHANTOM = Phantom(shape=(24, 30, 28), spacing=(1.0, 1.0, 1.0), channels=("CT",), regions=True, ignored=0.5)
BOTH, SECOND, UNSEEN = (1, 2), (2,), 3
CASES, ITERATIONS = 4, 160


def test_whole_regions_are_learnt_from_half_of_the_slices(tmp_path: Path, open_small, shrink, recipe, read) -> None:
    raw = write_phantom_dataset(tmp_path / "raw" / NAME, PHANTOM, cases=CASES, test_cases=1)
    new = f"phantom_{CASES:03d}.nii.gz"
    _, whole, spacing = make_case(replace(PHANTOM, ignored=0.0), number=CASES)
    assert (read(raw / "labelsTs" / new) == UNSEEN).any()
    write_volumes({raw / "labelsTs" / new: whole}, spacing)  # every slice of the new image is judged
    with open_small(tmp_path) as project:
        fingerprint(project, NAME)
        made = plan(project, NAME, planner="compact", plans_name=PLANS)
        full = shrink(made.configurations["3d_fullres"], (16, 16, 16), (16, 32), 2)
        low = replace(
            full,
            name=LOW,
            data_identifier=f"{PLANS}_{LOW}",
            spacing=tuple(1.5 * s for s in full.spacing),
            median_shape=tuple(n / 1.5 for n in full.median_shape),
            next_stage=(CASCADE,),
        )
        second = replace(full, name=CASCADE, inherits_from="3d_fullres", previous_stage=LOW)
        configurations = {c.name: c for c in (low, full, second)}
        write_plan(project.workspace.plans_file(NAME, PLANS), replace(made, configurations=configurations))
        split_folds(project, NAME, folds=2)
        result = run(
            project,
            NAME,
            configurations=[CASCADE],
            planning=Planning(plans_name=PLANS),
            training=recipe(ITERATIONS, "trainer.augmentation=none", "trainer.oversample_foreground=0.5", lr=2e-2),
        )
        folders = {f.configuration: f.trained.model_folder for f in result.folds}
        assert list(folders) == [LOW, CASCADE]
        scores = {
            name: read_summary(folder / "crossval_results_folds_0_1" / SUMMARY) for name, folder in folders.items()
        }
        assert result.selection is not None
        predict_choice(
            project,
            raw / "imagesTs",
            tmp_path / "out",
            result.selection.choice,
            settings=PredictionSettings(device="cpu", step_size=0.75),
        )
        judged = evaluate(project, raw / "labelsTs", tmp_path / "out", load_dataset(raw).description)
    found = {name: {target: values["Dice"] for target, values in s.mean.items()} for name, s in scores.items()}
    found["new image"] = {target: values["Dice"] for target, values in judged.mean.items()}
    assert all(list(dice) == [BOTH, SECOND] for dice in found.values()), found
    assert min(found[CASCADE].values()) > 0.75, found
    assert min(found["new image"].values()) > 0.75, found
    assert np.mean(list(found[CASCADE].values())) > np.mean(list(found[LOW].values())), found
    # voxels without annotation are counted nowhere
    for case in scores[CASCADE].cases:
        annotated = int((read(case.reference) != UNSEEN).sum())
        assert annotated < read(case.reference).size
        assert all(sum(m[k] for k in ("TP", "FP", "FN", "TN")) == annotated for m in case.metrics.values())
    assert set(np.unique(read(tmp_path / "out" / new))) <= {0, 1, 2}
