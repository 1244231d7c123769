"""ACDC, with patients in one fold each: what a few scribbles teach, beside what full annotation does.

The scribbles are real ones (Valvano et al., IEEE TMI 2021); everything else is ignored. Slices are cut to 72 x 72
pixels around the heart, so that a small network learns in seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from segplug.cli.main import app
from segplug.runtime.plan_codec import write_plan
from segplug.runtime.raw_dataset import load_dataset
from segplug.runtime.splits import read_splits
from segplug.stages.evaluate import evaluate
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.preprocess import preprocess
from segplug.stages.train import train

pytestmark = pytest.mark.slow

FULL, SCRIBBLES = "Dataset027_ACDC", "Dataset028_ACDCscribbles"
PATIENT = r"patient\d+"
PLANS, HALF, ITERATIONS = "handMade", 36, 480
SEED = 0


@pytest.fixture(scope="module")
def root(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both data sets, cut out alike."""
    folder = tmp_path_factory.mktemp("acdc")
    whole = load_dataset(shared / "datasets" / FULL)
    for name in (FULL, SCRIBBLES):
        raw = folder / "raw" / name
        (raw / "imagesTr").mkdir(parents=True)
        (raw / "labelsTr").mkdir()
        for case in whole.cases.values():
            heart = sitk.GetArrayFromImage(sitk.ReadImage(str(case.label))).any(axis=0)
            used = [np.flatnonzero(heart.any(axis=1)), np.flatnonzero(heart.any(axis=0))]
            first = [
                int(np.clip((at[0] + at[-1]) // 2 - HALF, 0, size - 2 * HALF))
                for at, size in zip(used, heart.shape, strict=True)
            ]
            y, x = (slice(start, start + 2 * HALF) for start in first)
            labels = shared / "datasets" / name / "labelsTr" / f"{case.name}.nii.gz"
            sitk.WriteImage(
                sitk.ReadImage(str(case.images[0]))[x, y, :], str(raw / "imagesTr" / f"{case.name}_0000.nii.gz")
            )
            sitk.WriteImage(sitk.ReadImage(str(labels))[x, y, :], str(raw / "labelsTr" / labels.name))
        description = json.loads((shared / "datasets" / name / "dataset.json").read_text())
        description.pop("dataset", None)  # images that lie elsewhere
        (raw / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="module")
def dice(root: Path, open_small, shrink, recipe) -> Callable[[str], dict[int, float]]:
    """Trains fold 0 of a data set and scores its validation against the full annotation, per class."""

    def run(name: str) -> dict[int, float]:
        with open_small(root) as project:
            fingerprint(project, name)
            made = plan(project, name, planner="compact", plans_name=PLANS)
            small = shrink(made.configurations["2d"], (48, 48), (8, 16, 32, 64), 8, spacing=(2.5, 2.5))
            write_plan(project.workspace.plans_file(name, PLANS), replace(made, configurations={"2d": small}))
            preprocess(project, name, plans_name=PLANS)
            split(root, name)
            settings = ("trainer.augmentation=none", "trainer.oversample_foreground=0.67")
            training = recipe(ITERATIONS, *settings, lr=5e-3, seed=SEED)
            fold = train(
                project,
                name,
                "2d",
                0,
                plans_name=PLANS,
                overrides=training.overrides,
                device=training.device,
                precision=training.precision,
                seed=training.seed,
            )
            whole = load_dataset(root / "raw" / FULL)
            found = {file.name.removesuffix(".nii.gz") for file in fold.validation_folder.glob("*.nii.gz")}
            assert found == set(read_splits(project.workspace.splits_file(name))[0].val)
            references = {case: whole.cases[case].label for case in found}
            scores = evaluate(
                project, references, fold.validation_folder, whole.description, output=root / f"{name}.json"
            )
        return {target: values["Dice"] for target, values in scores.mean.items()}

    return run


def split(root: Path, name: str) -> str:
    roots = [f"--{part}={root / part}" for part in ("raw", "preprocessed", "results")]
    done = CliRunner().invoke(app, [*roots, "splits", name, "--group", PATIENT])
    assert done.exit_code == 0, done.output
    return done.output


def test_no_patient_is_in_two_folds(root: Path) -> None:
    split(root, FULL)
    splits = read_splits(root / "preprocessed" / FULL / "splits_final.json")
    patients = [{re.search(PATIENT, case).group() for case in fold.val} for fold in splits]
    assert [len(of_fold) for of_fold in patients] == [4] * 5
    assert len(set.union(*patients)) == 20
    for fold, of_fold in zip(splits, patients, strict=True):
        assert len(fold.val) == 2 * len(of_fold)
        assert not of_fold & {re.search(PATIENT, case).group() for case in fold.train}


def test_scribbles_are_few(root: Path, read) -> None:
    annotated = [(read(file) != 4).mean() for file in (root / "raw" / SCRIBBLES / "labelsTr").iterdir()]
    assert len(annotated) == 40
    assert np.mean(annotated) < 0.1


def test_scribbles_teach_nine_tenths_of_what_full_annotation_does(dice) -> None:
    full, scribbles = dice(FULL), dice(SCRIBBLES)
    assert np.mean(list(full.values())) > 0.65, full
    assert np.mean(list(scribbles.values())) >= 0.9 * np.mean(list(full.values())), (full, scribbles)
