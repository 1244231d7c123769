"""A cascade, trained: the second stage keeps what only the first can see, and has the borders that only it can see.

The phantom is a vessel whose lumen looks nearly like the tissue around it. A patch of full resolution within it cannot
tell the two apart; the whole image at a third of the resolution can, but the wall is thinner than its voxels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from segplug.model import DatasetDescription
from segplug.protocols import PredictionSettings
from segplug.runtime.evaluation import SUMMARY, read_summary
from segplug.runtime.plan_codec import write_plan
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import load_dataset
from segplug.stages.evaluate import evaluate
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.predict import predict_folder
from segplug.stages.predict_choice import predict_choice
from segplug.stages.run import Planning, RunResult, run
from segplug.stages.split_folds import split_folds

pytestmark = pytest.mark.slow

NAME, PLANS = "Dataset630_Vessel", "handMade"
LOW, CASCADE = "3d_lowres", "3d_cascade_fullres"
CASES, ITERATIONS = 6, 80
SEED = 0
LUMEN, WALL = 1, 2
SETTINGS = PredictionSettings(device="cpu", step_size=0.75)


def make_vessel(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (z, y, x) in Hounsfield units and labels; a function of the number alone."""
    random = np.random.default_rng([7, number])
    shape = tuple(round(n * f) for n, f in zip((40, 44, 44), random.uniform(0.95, 1.05, 3), strict=True))
    places: Any = np.indices(shape, np.float32)
    middle = [(n - 1) / 2 for n in shape]
    body = sum(((p - m) / (0.49 * n)) ** 2 for p, m, n in zip(places, middle, shape, strict=True)) <= 1
    centre, radii = [m + random.uniform(-3, 3) for m in middle], 12 * random.uniform(0.85, 1.1, 3)
    depth = (1 - np.sqrt(sum(((p - c) / r) ** 2 for p, c, r in zip(places, centre, radii, strict=True)))) * radii.mean()
    labels = np.zeros(shape, np.uint8)
    labels[depth >= 0] = WALL
    labels[depth >= 2] = LUMEN
    image = np.select([labels == WALL, labels == LUMEN, body], [150.0, 50.0, 40.0], -1000.0)
    return (image + 15 * random.standard_normal(shape)).round().astype(np.float32), labels


@dataclass(frozen=True)
class Trained:
    project: Project
    result: RunResult
    images: Path
    references: Path

    def folder(self, configuration: str) -> Path:
        (found,) = {f.trained.model_folder for f in self.result.folds if f.configuration == configuration}
        return found

    @property
    def dataset(self) -> DatasetDescription:
        return load_dataset(self.images.parent).description


@pytest.fixture(scope="module")
def trained(tmp_path_factory, open_small, shrink, recipe) -> Iterator[Trained]:
    """Both stages in two folds, by `run`; a seventh case is held out."""
    root = tmp_path_factory.mktemp("cascade")
    raw = root / "raw" / NAME
    for number in range(CASES + 1):
        part = "Tr" if number < CASES else "Ts"
        for kind, ending, array in zip(("images", "labels"), ("_0000", ""), make_vessel(number), strict=True):
            (raw / f"{kind}{part}").mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(
                sitk.GetImageFromArray(array), str(raw / f"{kind}{part}" / f"vessel_{number}{ending}.nii.gz")
            )
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "lumen": LUMEN, "wall": WALL}}
    (raw / "dataset.json").write_text(json.dumps({**description, "numTraining": CASES, "file_ending": ".nii.gz"}))
    with open_small(root) as project:
        fingerprint(project, NAME)
        made = plan(project, NAME, planner="compact", plans_name=PLANS)
        full = shrink(made.configurations["3d_fullres"], (24, 24, 24), (8, 16), 2)
        low = shrink(
            full,
            (16, 16, 16),
            (8, 16, 32),
            2,
            name=LOW,
            data_identifier=f"{PLANS}_{LOW}",
            spacing=tuple(3 * s for s in full.spacing),
            median_shape=tuple(n / 3 for n in full.median_shape),
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
            training=recipe(ITERATIONS, seed=SEED),
        )
        yield Trained(project, result, raw / "imagesTs", raw / "labelsTs")


def dice_of(evaluation) -> dict[int, float]:
    return {target: values["Dice"] for target, values in evaluation.mean.items()}


def test_out_of_fold_the_second_stage_beats_the_first(trained: Trained) -> None:
    low, second = (
        dice_of(read_summary(trained.folder(c) / "crossval_results_folds_0_1" / SUMMARY)) for c in (LOW, CASCADE)
    )
    assert second[LUMEN] > low[LUMEN] + 0.02, (low, second)
    assert second[WALL] > low[WALL] + 0.15, (low, second)
    assert min(second.values()) > 0.8, (low, second)


def test_in_every_fold_the_second_stage_beats_the_first(trained: Trained) -> None:
    dice = {(f.configuration, f.trained.fold): f.evaluation.mean_dice for f in trained.result.folds}
    assert set(dice) == {(configuration, fold) for configuration in (LOW, CASCADE) for fold in (0, 1)}
    for fold in (0, 1):
        assert dice[CASCADE, fold] > dice[LOW, fold] + 0.05, dice


def test_selection_compares_both_stages_and_their_ensemble(trained: Trained) -> None:
    selection = trained.result.selection
    assert selection is not None
    found = {candidate.name: candidate.mean_dice for candidate in selection.candidates}
    names = [trained.folder(c).name for c in (LOW, CASCADE)]
    assert list(found) == [*names, f"ensemble___{names[0]}___{names[1]}___0_1"]
    assert selection.best.mean_dice == max(found.values())
    assert selection.best.name != names[0]
    assert selection.choice.postprocessed_dice >= selection.choice.mean_dice


def test_a_new_image_goes_through_both_stages(trained: Trained, tmp_path: Path, read) -> None:
    project, second = trained.project, trained.folder(CASCADE)
    predict_folder(
        project, trained.images, tmp_path / "chain", second, settings=SETTINGS, keep_previous=tmp_path / "kept"
    )
    predict_folder(project, trained.images, tmp_path / "low", trained.folder(LOW), settings=SETTINGS)
    predict_folder(
        project, trained.images, tmp_path / "given", second, settings=SETTINGS, previous_stage=tmp_path / "low"
    )
    name = f"vessel_{CASES}.nii.gz"
    np.testing.assert_array_equal(read(tmp_path / "chain" / name), read(tmp_path / "given" / name))
    np.testing.assert_array_equal(read(tmp_path / "kept" / LOW / name), read(tmp_path / "low" / name))
    scores = {
        folder: dice_of(evaluate(project, trained.references, tmp_path / folder, trained.dataset))
        for folder in ("low", "chain")
    }
    assert scores["chain"][WALL] > scores["low"][WALL] + 0.15, scores
    assert min(scores["chain"].values()) > 0.8, scores


def test_the_second_stage_needs_what_the_first_saw(trained: Trained, tmp_path: Path, read) -> None:
    """Told that nothing is there, it finds nothing to be a lumen; so the first stage's labels are what it goes by."""
    (tmp_path / "empty").mkdir()
    name = f"vessel_{CASES}.nii.gz"
    nothing = sitk.ReadImage(str(trained.references / name)) * 0
    sitk.WriteImage(nothing, str(tmp_path / "empty" / name))
    predict_folder(
        trained.project,
        trained.images,
        tmp_path / "out",
        trained.folder(CASCADE),
        settings=SETTINGS,
        previous_stage=tmp_path / "empty",
    )
    found, reference = read(tmp_path / "out" / name), read(trained.references / name)
    overlap = (
        2 * ((found == LUMEN) & (reference == LUMEN)).sum() / ((found == LUMEN).sum() + (reference == LUMEN).sum())
    )
    assert overlap < 0.7, overlap  # 0.9 and more with the first stage's labels


def test_the_choice_predicts_a_new_image(trained: Trained, tmp_path: Path) -> None:
    selection = trained.result.selection
    assert selection is not None
    predict_choice(trained.project, trained.images, tmp_path / "out", selection.choice, settings=SETTINGS)
    assert evaluate(trained.project, trained.references, tmp_path / "out", trained.dataset).mean_dice > 0.8
