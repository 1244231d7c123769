"""`segplug quickstart` with a handful of iterations; that it reaches its Dice is for `nox -s quickstart`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image as Picture

from segplug.runtime.evaluation import read_summary
from segplug.runtime.raw_dataset import load_dataset
from segplug.runtime.splits import read_splits
from segplug.sample import DATASET, sample_root

FEW = ("trainer.epochs=1", "trainer.iterations_per_epoch=4", "trainer.val_iterations_per_epoch=1")
SETTINGS = [part for setting in FEW for part in ("--set", setting)]


def quickstart(folder: Path) -> subprocess.CompletedProcess[str]:
    """As a user calls it: in a folder of theirs, with nothing configured."""
    command = [sys.executable, "-c", "from segplug.cli.main import main; main()", "quickstart"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("nnUNet", "SEGPLUG"))}
    return subprocess.run(
        [*command, "--device", "cpu", *SETTINGS], cwd=folder, env=clean, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    done = quickstart(folder)
    assert done.returncode == 0, done.stderr
    return folder / "segplug-quickstart", done


@pytest.mark.slow
def test_cases_are_scored_that_were_not_trained_on(finished):
    out, _ = finished
    (split, *_) = read_splits(out / "preprocessed" / DATASET / "splits_final.json")
    evaluation = read_summary(out / "summary.json")
    assert {case.name for case in evaluation.cases} == set(split.val)
    assert not set(split.train) & set(split.val)
    assert len(split.train) + len(split.val) == 24
    for folder, ending in (("images", "_0000.nii.gz"), ("predictions", ".nii.gz"), ("overlays", ".png")):
        found = {file.name for file in (out / folder).iterdir() if file.name.endswith(ending)}
        assert found == {f"{case}{ending}" for case in split.val}


@pytest.mark.slow
def test_the_numbers_printed_are_those_of_the_files(finished):
    out, done = finished
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    table = {line[0]: line[1:] for line in lines if len(line) > 1}
    assert table.pop("case") == ["Anterior Dice", "Posterior Dice", "mean Dice"]
    mean = float(table.pop("mean")[-1])
    references = {name: case.label for name, case in load_dataset(sample_root() / DATASET).cases.items()}
    scores = []
    for name, printed in table.items():
        reference, prediction = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
            for file in (references[name], out / "predictions" / f"{name}.nii.gz")
        )
        dice = [
            2 * np.sum((reference == c) & (prediction == c)) / (np.sum(reference == c) + np.sum(prediction == c))
            for c in (1, 2)
        ]
        assert [float(v) for v in printed] == pytest.approx([*dice, np.mean(dice)], abs=6e-5)
        scores.append(dice)
    assert mean == pytest.approx(np.mean(scores), abs=6e-5)
    assert f"not trained on: {mean:.4f}" in done.stdout


@pytest.mark.slow
def test_predictions_lie_where_their_images_lie(finished):
    out, _ = finished
    for file in (out / "predictions").glob("*.nii.gz"):
        here, there = (sitk.ReadImage(str(f)) for f in (file, out / "images" / file.name.replace(".nii", "_0000.nii")))
        for of in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(here, of)() == getattr(there, of)()
        assert set(np.unique(sitk.GetArrayFromImage(here)).tolist()) <= {0, 1, 2}


@pytest.mark.slow
def test_overlays_can_be_looked_at_and_their_place_is_told(finished):
    out, done = finished
    assert f"{Path('segplug-quickstart') / 'overlays'}/*.png" in done.stdout
    for file in (out / "overlays").iterdir():
        with Picture.open(file) as picture:
            assert min(picture.size) > 600
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 100


@pytest.mark.slow
def test_called_again_it_keeps_what_is_finished(finished):
    out, first = finished
    files = [out / "summary.json", *out.glob("results/**/checkpoint_*.pth"), *(out / "predictions").glob("*.nii.gz")]
    before = {file: file.read_bytes() for file in files}
    changed = (out / "predictions" / files[-1].name).stat().st_mtime_ns
    (damaged := files[-2]).write_bytes(b"damaged")
    done = quickstart(out.parent)
    assert done.returncode == 0, done.stderr
    assert {file: file.read_bytes() for file in files} == before
    assert files[-1].stat().st_mtime_ns == changed
    assert damaged.stat().st_size > 100
    assert "(finished already, nothing to do)" in done.stderr
    assert "before, kept" in done.stderr
    assert [x for x in first.stdout.splitlines() if "\t" in x] == [x for x in done.stdout.splitlines() if "\t" in x]


@pytest.mark.slow
def test_nothing_is_written_beside_out_or_into_the_sample(finished):
    out, _ = finished
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert {path.name for path in out.iterdir()} == {
        *("images", "overlays", "predictions", "preprocessed", "results", "summary.json"),
    }
    assert {path.name for path in (sample_root() / DATASET).iterdir()} == {
        *("ATTRIBUTION.md", "dataset.json", "imagesTr", "labelsTr"),
    }
    arguments = json.loads((out / "predictions" / "predict_from_raw_data_args.json").read_text())
    assert arguments["segplug"]["folds"] == [0]
