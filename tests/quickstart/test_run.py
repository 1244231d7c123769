"""`run`: every stage in turn, and what a second call keeps."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import SimpleITK as sitk

from segplug.cli.shell import several
from segplug.errors import DataError, UsageError
from segplug.model import Split, TrainedFold
from segplug.protocols import PredictionSettings
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.choice_codec import read_choice
from segplug.runtime.run_record import RunRecord, what_changed
from segplug.runtime.splits import random_split, write_splits
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.predict_choice import predict_choice
from segplug.stages.run import Planning, Training, run
from segplug.stages.select import select

NAME = "Dataset501_Phantom"
COMPACT = Planning(planner="compact")


@pytest.fixture
def short():
    settings = ("epochs=1", "iterations_per_epoch=2", "val_iterations_per_epoch=1", "batch_size=2", "augmentation=none")
    return Training(overrides=tuple(f"trainer.{s}" for s in settings), device="cpu")


def weights(result):
    return [f.trained.checkpoint().read_bytes() for f in result.folds]


@pytest.mark.slow
def test_everything_is_made_once_and_kept_after(project, listener, short):
    first = run(project, 501, folds=[0, 1], planning=COMPACT, training=short)
    made = [(f.configuration, f.trained.fold) for f in first.folds]
    assert made == [(c, f) for c in first.plan.configurations for f in (0, 1)]
    assert {"2d", "3d_fullres"} <= {c for c, _ in made}
    assert not any(f.kept for f in first.folds)
    assert all(len(f.evaluation.cases) == 2 for f in first.folds)
    before = weights(first)

    listener.subjects.clear(), listener.items.clear()
    again = run(project, 501, folds=[0, 1], planning=COMPACT, training=short)
    assert all(f.kept for f in again.folds)
    assert weights(again) == before
    assert again.plan == first.plan
    told = "\n".join(listener.subjects + listener.items)
    for words in (
        "verify Dataset501_Phantom (files unchanged since they were verified, kept)",
        "fingerprint unchanged, kept",
        "plan Dataset501_Phantom segplugCompactPlans (unchanged, kept)",
        "preprocess 10 cases kept",
        "fold 1 (finished already, nothing to do)",
    ):
        assert words in told


@pytest.mark.slow
def test_it_ends_with_the_choice_and_predicts_with_it(project, short, tmp_path):
    few = [{"train": [f"phantom_{n:03d}" for n in train], "val": [f"phantom_{n:03d}" for n in val]}
           for train, val in (([0, 1], [2]), ([2, 3], [0]))]  # fmt: skip
    raw = project.workspace.raw_folder(501)
    project.workspace.preprocessed_folder(NAME).mkdir(parents=True)
    project.workspace.splits_file(NAME).write_text(json.dumps(few))
    with pytest.warns(UserWarning, match="cases are in no fold"):
        done = run(project, 501, configurations=["2d", "3d_fullres"], planning=COMPACT, training=short)
    selection = done.selection
    assert [len(c.members) for c in selection.candidates] == [1, 1, 2]
    assert list(project.workspace.results_folder(NAME).glob("*/fold_*/validation/*.npz"))
    assert selection.choice == read_choice(project.workspace.choice_file(NAME))
    with pytest.warns(UserWarning, match="cases are in no fold"):
        again = run(project, 501, configurations=["2d", "3d_fullres"], planning=COMPACT, training=short)
    assert all(f.kept for f in again.folds)
    assert again.selection == selection

    # probabilities that somebody removed to save space come back, and the same labels with them
    for file in project.workspace.results_folder(NAME).glob("*/fold_*/validation/*.npz"):
        file.unlink()
    assert select(project, NAME, folds=[0, 1]).choice == selection.choice

    images = tmp_path / "images"
    images.mkdir()
    (images / "new_0000.nii.gz").write_bytes((raw / "imagesTr" / "phantom_004_0000.nii.gz").read_bytes())
    settings = PredictionSettings(device="cpu", mirroring=False)
    predicted = predict_choice(project, images, tmp_path / "out", selection.choice, settings=settings)
    assert predicted.predicted == ("new",)
    assert (tmp_path / "out" / "new.nii.gz").is_file()


@pytest.mark.slow
def test_only_what_is_missing_or_changed_is_made_again(project, listener, short):
    one = {"configurations": ["3d_fullres"], "planning": COMPACT, "training": short}
    first = run(project, 501, folds=[0], **one)
    (fold,) = first.folds
    more = run(project, 501, folds=[0, 1], **one)
    assert [f.kept for f in more.folds] == [True, False]

    # a label map of a case of fold 0 is corrected: everything that depends on it is made anew
    file = project.workspace.raw_folder(501) / "labelsTr" / f"{fold.split.train[0]}.nii.gz"
    image = sitk.ReadImage(str(file))
    image[0:3, 0:3, 0] = 1
    sitk.WriteImage(image, str(file))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        changed = run(project, 501, folds=[0], **one)
    assert [f.kept for f in changed.folds] == [False]
    told = [str(w.message) for w in caught]
    assert any("trained anew, because" in t and "the training data" in t and "previous_fold_0" in t for t in told)
    kept = list(fold.trained.model_folder.glob("previous_fold_0_*/checkpoint_final.pth"))
    assert len(kept) == 1

    # settings that cannot be cost nothing
    wrong = replace(short, overrides=(*short.overrides, "trainer.freeze=encodr"))
    with pytest.raises(UsageError, match="no weights in 'encodr'"):
        run(project, 501, folds=[0], configurations=["3d_fullres"], planning=COMPACT, training=wrong)
    assert list(fold.trained.model_folder.glob("previous_fold_0_*/checkpoint_final.pth")) == kept
    assert changed.folds[0].trained.checkpoint().is_file()

    # other settings
    longer = replace(short, overrides=(*short.overrides, "trainer.epochs=2"))
    with pytest.warns(UserWarning, match="because the trainer's settings changed"):
        again = run(project, 501, folds=[0], configurations=["3d_fullres"], planning=COMPACT, training=longer)
    assert read_checkpoint(again.folds[0].trained.checkpoint()).epochs_done == 2


@pytest.mark.slow
def test_a_plan_edited_by_hand_is_kept_and_trained_by(project, listener, short):
    one = {"configurations": ["3d_fullres"], "folds": [0], "planning": COMPACT, "training": short}
    first = run(project, 501, **one)
    file = project.workspace.plans_file(NAME, first.plan.plans_name)
    content = json.loads(file.read_text())
    content["configurations"]["3d_fullres"]["patch_size"] = [8, 16, 16]
    file.write_text(json.dumps(content))
    listener.subjects.clear()
    with pytest.warns(UserWarning, match="because the plan changed"):
        again = run(project, 501, **one)
    assert "plan Dataset501_Phantom segplugCompactPlans (edited since it was planned, kept)" in listener.subjects
    assert again.plan.configurations["3d_fullres"].patch_size == (8, 16, 16)
    assert not again.folds[0].kept


def test_the_only_plans_there_are_are_used(project, short):
    raw = project.workspace.raw_folder(501)
    fingerprint(project, raw)
    plan(project, raw, planner="compact")
    assert run(project, 501, folds=[], training=short).plan.plans_name == "segplugCompactPlans"
    assert not project.workspace.plans_file(NAME, "nnUNetPlans").exists()


def test_data_with_errors_stop_it_before_anything_is_made(project, short):
    (project.workspace.raw_folder(501) / "imagesTr" / "phantom_003_0000.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match="phantom_003"):
        run(project, 501, planning=COMPACT, training=short)
    assert not project.workspace.fingerprint_file(NAME).exists()


def test_wrong_names_are_usage_errors(project, short):
    with pytest.raises(UsageError, match="fold 'x'"):
        run(project, 501, folds=["x"], training=short)
    with pytest.raises(UsageError, match=r"no configuration '3d_fulres'.*3d_fullres"):
        run(project, 501, configurations=["3d_fulres"], planning=COMPACT, training=short)


@pytest.mark.slow
def test_other_names_of_labels_change_nothing_but_other_meanings_do(project, listener, short):
    one = {"configurations": ["3d_fullres"], "folds": [0], "planning": COMPACT, "training": short}
    run(project, 501, **one)
    file = project.workspace.raw_folder(501) / "dataset.json"
    content = json.loads(file.read_text())
    content["labels"] = {"background": 0, "liver": 1, "spleen": 2}
    file.write_text(json.dumps(content))
    listener.subjects.clear()
    assert run(project, 501, **one).folds[0].kept
    assert "verify Dataset501_Phantom" in listener.subjects  # not kept: what its files mean has changed
    content |= {"labels": {"background": 0, "both": [1, 2], "spleen": 2}, "regions_class_order": [1, 2]}
    file.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="what the labels mean"):
        again = run(project, 501, **one)
    assert not again.folds[0].kept
    assert list(again.folds[0].evaluation.mean) == [(1, 2), 2]


@pytest.mark.slow
def test_new_cases_that_no_fold_has_are_told(project, short):
    write_splits(project.workspace.splits_file(NAME), [Split(("phantom_000", "phantom_001"), ("phantom_002",))])
    with pytest.warns(UserWarning, match=r"7 cases are in no fold of .*: phantom_003, .*phantom_009\. To use them"):
        done = run(project, 501, configurations=["3d_fullres"], planning=COMPACT, training=short)
    assert [f.trained.fold for f in done.folds] == [0]
    assert [c.name for c in done.folds[0].evaluation.cases] == ["phantom_002"]


@pytest.mark.slow
def test_folds_that_are_named_past_the_file_and_all(project, short):
    """What is named is trained, each once, in its order; what is not named is for the folds of the file alone."""
    names = [f"phantom_{n:03d}" for n in range(10)]
    halves = [Split(tuple(names[:5]), tuple(names[5:])), Split(tuple(names[5:]), tuple(names[:5]))]
    write_splits(project.workspace.splits_file(NAME), halves)
    one = {"configurations": ["3d_fullres"], "planning": COMPACT, "training": short}
    with pytest.warns(UserWarning, match=r"fold 7 is past those of .* \(0 to 1\): it gets a random split"):
        done = run(project, 501, folds=["7", "all", 1, "1"], **one)
    assert [f.trained.fold for f in done.folds] == [7, "all", 1]
    past, every, second = (f.split for f in done.folds)
    assert past == random_split(names, 7)
    assert (len(past.train), len(past.val)) == (8, 2)
    assert set(every.train) == set(every.val) == set(names)
    assert second == halves[1]
    assert [len(f.evaluation.cases) for f in done.folds] == [2, 10, 5]
    assert done.selection is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert all(f.kept for f in run(project, 501, folds=["7", "all", 1], **one).folds)
    rest = run(project, 501, **one)
    assert [(f.trained.fold, f.kept) for f in rest.folds] == [(0, False), (1, True)]
    assert rest.selection.choice.folds == (0, 1)


def test_folds_of_the_command_line():
    assert several(None) is None
    assert several(["0", "1,2", "all"]) == ["0", "1", "2", "all"]
    for wrong in ("", "1,,2", ","):
        with pytest.raises(UsageError, match="expected a fold, or several with commas between them"):
            several([wrong])


def test_damaged_notes_are_as_good_as_none(tmp_path):
    for text in ("{", "[1]", '"x"', "3"):
        (tmp_path / ".segplug-run.json").write_text(text)
        record = RunRecord(tmp_path)
        assert record.verified is None
        assert record.planned({"planner": "x"}) == {}
    record.note_planned({"planner": "x"}, plans_name="P")
    record.note_verified("state")
    assert RunRecord(tmp_path).planned({"planner": "x"}) == {"plans_name": "P"}
    assert RunRecord(tmp_path).verified == "state"
    (tmp_path / "made_from.json").write_text("[]")
    assert what_changed(TrainedFold(tmp_path, 0), {"the plan": "1"}) == ["the plan"]


@pytest.mark.slow
def test_the_command_prints_a_row_per_fold(project, short, tmp_path):
    code = "from segplug.cli.main import main; main()"
    roots = [f"--{part}={tmp_path / part}" for part in ("raw", "preprocessed", "results")]
    settings = [part for setting in short.overrides for part in ("--set", setting)]
    command = [
        sys.executable,
        "-c",
        code,
        *roots,
        "run",
        "501",
        "-c",
        "3d_fullres",
        "--folds",
        "0",
        "--planner",
        "compact",
    ]
    command += ["--workers", "0", "--device", "cpu", "--format", "json", *settings]
    for state in ("trained", "kept"):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)
        assert (row["configuration"], row["fold"], row["state"]) == ("3d_fullres", 0, state)
        assert 0 <= row["mean Dice"] <= 1
        assert "nnUNetTrainer__segplugCompactPlans__3d_fullres" in done.stderr
