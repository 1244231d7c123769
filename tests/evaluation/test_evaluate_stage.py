"""Folders of predictions against references: the stage and the command."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

import segplug.runtime.project
from segplug import Component, hookimpl
from segplug.cli.evaluate import parse_labels
from segplug.errors import DataError, PluginError, UsageError
from segplug.kernel import Kernel
from segplug.model import DatasetDescription, Geometry, Labels, LabelSet
from segplug.runtime.evaluation import read_summary
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.evaluate import evaluate, evaluate_arrays

MAIN = "from segplug.cli.main import main; main()"
TWO = LabelSet({"background": 0, "a": 1, "b": 2})
DESCRIPTION = DatasetDescription("Dataset001_X", ("MRI",), TWO, ".nii.gz", 3)
DATASET_JSON = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "a": 1, "b": 2},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}


@pytest.fixture
def project(kernel):
    with Project(Workspace(), kernel, workers=0) as opened:
        yield opened


@pytest.fixture
def folders(tmp_path):
    """Three references, and predictions that miss a layer of each; dataset.json beside both."""
    rng = np.random.default_rng(0)
    for name in ("one", "two-b", "two"):
        reference = np.zeros((6, 9, 8), np.uint8)
        reference[1:5, 2:7, 2:6] = 1
        reference[2:4, 3:5, int(rng.integers(2, 4)) : 5] = 2
        prediction = reference.copy()
        prediction[1] = 0
        for folder, array in (("reference", reference), ("prediction", prediction)):
            write(tmp_path / folder / f"{name}.nii.gz", array)
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return tmp_path / "reference", tmp_path / "prediction"


def write(file, array, spacing=(1.0, 1.0, 2.0), origin=(5.0, -3.0, 7.5)):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(file))


def run(*arguments):
    return subprocess.run([sys.executable, "-c", MAIN, "evaluate", *map(str, arguments)],
                          capture_output=True, text=True, timeout=120)  # fmt: skip


def test_a_folder_is_evaluated_and_its_summary_written(project, folders):
    evaluation = evaluate(project, *folders, DESCRIPTION, metrics=["hd95"])
    assert [case.name for case in evaluation.cases] == ["one", "two-b", "two"]  # by file name, as nnU-Net
    assert evaluation.mean[2]["Dice"] == 1
    assert 0 < evaluation.mean[1]["Dice"] < 1
    assert 2 <= evaluation.mean[1]["HD95"] <= 5**0.5  # the missing layer is 2 mm thick, with a hole of class 2 below
    written = read_summary(folders[1] / "summary.json")
    assert written.mean == evaluation.mean
    assert written.cases[0].reference == folders[0] / "one.nii.gz"
    assert "segplug" not in json.loads((folders[1] / "summary.json").read_text())


def test_workers_change_nothing(kernel, project, folders, monkeypatch):
    monkeypatch.setattr(segplug.runtime.project, "WORTH_WORKERS", 0)
    with Project(Workspace(), kernel, workers=2) as parallel:
        assert evaluate(parallel, *folders, DESCRIPTION) == evaluate(project, *folders, DESCRIPTION)


def test_labels_alone_are_enough(project, folders):
    assert evaluate(project, *folders, TWO).mean == evaluate(project, *folders, DESCRIPTION).mean


def test_references_may_be_named_one_by_one(project, folders):
    references = {"two": folders[0] / "two.nii.gz"}
    evaluation = evaluate(project, references, folders[1], DESCRIPTION, output=folders[1].parent / "two.json")
    assert [case.name for case in evaluation.cases] == ["two"]
    assert evaluation.unexpected == ("one", "two-b")
    assert not (folders[1] / "summary.json").exists()


def test_missing_predictions_are_an_error_that_names_them_all(project, folders):
    (folders[1] / "two.nii.gz").unlink()
    (folders[1] / "one.nii.gz").rename(folders[1] / "other.nii.gz")
    with pytest.raises(
        DataError, match=r"no prediction .* for 2 of .*: one, two\. Predictions without a reference: other\."
    ):
        evaluate(project, *folders, DESCRIPTION)
    assert not (folders[1] / "summary.json").exists()
    evaluation = evaluate(project, *folders, DESCRIPTION, allow_missing=True)
    assert (evaluation.missing, evaluation.unexpected) == (("one", "two"), ("other",))
    assert read_summary(folders[1] / "summary.json").missing == ("one", "two")


def test_no_prediction_at_all_is_an_error_even_if_missing_ones_are_allowed(project, folders):
    for file in folders[1].iterdir():
        file.unlink()
    with pytest.raises(DataError, match="for 3 of the references: one, two, two-b"):
        evaluate(project, *folders, DESCRIPTION, allow_missing=True)


def test_predictions_of_other_cases_than_the_references_are_told(project, folders):
    with pytest.raises(DataError, match=r"no reference for any of its label maps \(one, two, two-b\)"):
        evaluate(project, {}, folders[1], DESCRIPTION)
    for file in folders[1].iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"no label maps named CASE\.nii\.gz"):
        evaluate(project, {}, folders[1], DESCRIPTION)


def test_every_bad_case_is_told_at_once(project, folders):
    array = np.zeros((6, 9, 8), np.uint8)
    write(folders[1] / "one.nii.gz", array, origin=(6.0, -3.0, 7.5))
    write(folders[1] / "two.nii.gz", array[1:])
    with pytest.raises(DataError) as raised:
        evaluate(project, *folders, DESCRIPTION)
    text = str(raised.value)
    assert text.startswith("2 of 3 cases cannot be evaluated:")
    assert re.search(r"one: .*one\.nii\.gz: origin .*expected .*\(5, -3, 7.5\)", text)
    assert re.search(r"two: .*two\.nii\.gz: shape \(5, 9, 8\); expected \(6, 9, 8\)", text)


def test_a_damaged_file_is_named(project, folders):
    file = folders[1] / "two-b.nii.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"two-b: .*two-b\.nii\.gz"):
        evaluate(project, *folders, DESCRIPTION)


def test_file_endings_are_found_or_asked_for(project, folders, tmp_path):
    (folders[0] / "other.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"\.nii\.gz, \.png; say which .*--file-ending"):
        evaluate(project, *folders, TWO)
    assert len(evaluate(project, *folders, TWO, file_ending=".nii.gz").cases) == 3
    with pytest.raises(DataError, match="no such folder"):
        evaluate(project, tmp_path / "nowhere", folders[1], TWO)


def test_arrays_in_memory(project):
    flat, deep = np.array([[0, 1], [2, 2]]), np.array([[[0, 1], [2, 0]]])
    pairs = {"plain": (flat, deep), "with spacing": (Labels(deep, Geometry((2.0, 1.0, 1.0))),) * 2}
    evaluation = evaluate_arrays(project, pairs, TWO, metrics=["hd95"])
    assert [case.name for case in evaluation.cases] == ["plain", "with spacing"]
    assert evaluation.cases[0].metrics[2]["Dice"] == pytest.approx(2 / 3)
    assert evaluation.mean[1]["HD95"] == 0
    with pytest.raises(DataError, match=r"wrong: shape \(1, 2, 2\); expected \(2, 2\)|shape"):
        evaluate_arrays(project, {"wrong": (np.zeros((3, 3), int), flat)}, TWO)


def test_command_prints_a_table_and_uses_the_dataset_json_beside(folders):
    done = run(*folders)
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0] == ["case", "a Dice", "b Dice", "mean Dice"]
    assert [line[0] for line in lines[1:]] == ["one", "two-b", "two", "mean"]
    mean = read_summary(folders[1] / "summary.json").mean_dice
    assert lines[-1][-1] == f"{mean:.4f}"
    assert str(folders[1] / "summary.json") in done.stderr


def test_command_with_labels_and_metrics_as_json(folders):
    arguments = ("--labels", "1,2", "-l", "1+2", "--metric", "surface_dice,tolerance=3", "--format", "json")
    done = run(*folders, *arguments, "-o", folders[1].parent / "out.json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert rows[0]["class 2 Dice"] == 1
    assert rows[-1]["1+2 SurfaceDice(tolerance=3)"] == 1
    assert (folders[1].parent / "out.json").is_file()


def test_command_says_what_is_left_out(folders):
    (folders[1] / "two.nii.gz").rename(folders[1] / "extra.nii.gz")
    done = run(*folders)
    assert (done.returncode, done.stdout) == (1, "")
    assert "for 1 of the references: two." in done.stderr
    assert "--allow-missing" in done.stderr
    assert "Traceback" not in done.stderr
    done = run(*folders, "--allow-missing")
    assert done.returncode == 0
    assert "1 of 3 cases have no prediction and are not scored: two" in done.stderr
    assert "without a reference, not scored: extra" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--labels", "0"), "above 0"),
        (("--labels", "x"), "above 0"),
        (("--labels", "1", "--dataset-json", "d"), "either"),
        (("--ignore", "3"), "goes with --labels"),
        (("--metric", "hd96"), "hd95"),
    ],
)
def test_wrong_usage(folders, arguments, message):
    done = run(*folders, *arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_labels_of_the_command_line():
    labels = parse_labels(["1, 2", "2+3"], ignore=4)
    assert labels.classes == (1, 2, (2, 3))
    assert labels.ignore_label == 4


def test_undefined_means_are_empty_cells(folders, tmp_path):
    done = run(*folders, "--labels", "1,7", "--format", "json", "-o", tmp_path / "s.json")
    rows = json.loads(done.stdout)
    assert rows[-1]["class 7 Dice"] is None
    assert rows[0]["mean Dice"] == rows[0]["class 1 Dice"]
    assert math.isnan(read_summary(tmp_path / "s.json").mean[7]["Dice"])


@pytest.mark.parametrize("ignore", [0, 2, 3])
def test_a_label_is_not_both_scored_and_ignored(ignore):
    with pytest.raises(UsageError, match=f"--ignore {ignore}"):
        parse_labels(["1, 2", "2+3"], ignore=ignore)


def test_labels_that_the_data_set_does_not_have_are_told_case_by_case(folders):
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(folders[1] / "two.nii.gz")))
    array[0, 0, :3] = 9
    array[0, 1, 0] = 5
    write(folders[1] / "two.nii.gz", array)
    done = run(*folders)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    told = "the prediction has labels that dataset.json does not have, not scored: 5 (1 voxel), 9 (3 voxels)"
    assert lines == [f"warning: two: {told}"]
    assert "warning" not in run(*folders, "--labels", "1,2").stderr  # then the other labels are left out on purpose


def test_a_label_that_occurs_nowhere_is_told(folders):
    done = run(*folders, "--labels", "7")
    assert done.returncode == 0
    assert "warning: in no reference and no prediction, so without a score: class 7\n" in done.stderr
    assert "without a score" not in run(*folders).stderr


class Metrics:
    @hookimpl
    def segplug_metrics(self):
        yield Component("wordy", wordy, "a text")
        yield Component("shares", shares, "with options that are no numbers")


@pytest.fixture
def with_metrics():
    with Project(Workspace(), Kernel(discover=False), workers=0) as opened:
        opened.kernel.register(Metrics(), "metrics")
        yield opened


def wordy(comparison):
    return "0.5"


def shares(comparison, weights=(1.0,), of="all"):
    return sum(weights) if of == "all" else 0.0


def test_a_metric_that_gives_no_number_is_named_once(with_metrics, folders):
    with pytest.raises(PluginError, match=r"^metrics: 'wordy' returned a str; expected a number$"):
        evaluate(with_metrics, *folders, DESCRIPTION, metrics=["wordy"])
    assert not (folders[1] / "summary.json").exists()


def test_options_of_metrics_are_json(with_metrics, folders):
    found = evaluate(
        with_metrics, *folders, DESCRIPTION, metrics=["shares,weights=[1,2]", "shares,weights=[1],of=some"]
    )
    assert found.foreground_mean["shares(weights=[1,2])"] == 3
    assert found.foreground_mean["shares(weights=[1],of=some)"] == 0
    with pytest.raises(UsageError, match="option tolerance is 'wide', which is no number"):
        evaluate(with_metrics, *folders, DESCRIPTION, metrics=["surface_dice,tolerance=wide"])
    with pytest.raises(UsageError, match=r"'tol'\. It takes: tolerance$"):
        evaluate(with_metrics, *folders, DESCRIPTION, metrics=["surface_dice,tol=2"])
