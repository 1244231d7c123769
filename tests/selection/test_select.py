"""Choosing the best model or pair of models by cross-validation."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from segplug.errors import DataError, UsageError
from segplug.runtime.choice_codec import instructions, read_choice
from segplug.runtime.evaluation import read_summary
from segplug.runtime.project import Project
from segplug.stages.crossval import gather_folds
from segplug.stages.select import select

NAME = "Dataset502_MadeUp"


def mtimes(folder):
    return {f: f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file() and f.suffix in (".gz", ".npz")}


def test_the_best_is_found_and_what_is_unchanged_is_kept(project, made_up):
    models = made_up("labels", configurations=("2d", "3d_fullres"))
    selection = select(project, NAME, folds=[0, 1])
    names = [str(c) for candidate in selection.candidates for c in candidate.members]
    assert [len(c.members) for c in selection.candidates] == [1, 1, 2]
    assert names == [m.name for m in models] * 2
    assert selection.best.mean_dice == max(c.mean_dice for c in selection.candidates)
    assert selection.choice == read_choice(project.workspace.choice_file(NAME))
    assert selection.choice.postprocessed_dice >= selection.choice.mean_dice

    results = project.workspace.results_folder(NAME)
    before = mtimes(results)
    assert select(project, NAME, folds=[0, 1]) == selection
    assert mtimes(results) == before

    # a fold validated anew changes what depends on it
    file = next((models[0] / "fold_0" / "validation").glob("*.nii.gz"))
    other = next((models[1] / "fold_0" / "validation").glob(file.name))
    shutil.copy(other, file)
    shutil.copy(other.with_suffix("").with_suffix(".npz"), file.with_suffix("").with_suffix(".npz"))
    again = select(project, NAME, folds=[0, 1])
    assert again.candidates[0].mean_dice != selection.candidates[0].mean_dice
    assert again.candidates[1].mean_dice == selection.candidates[1].mean_dice
    assert again.candidates[2].mean_dice != selection.candidates[2].mean_dice


def test_the_model_of_all_cases_is_no_candidate(project, made_up):
    made_up("labels")
    with pytest.raises(UsageError, match=r"--fold all: .*Select by the other folds"):
        select(project, NAME, folds=["all"])
    assert not project.workspace.choice_file(NAME).exists()


def test_a_class_that_is_nowhere_is_no_reason_to_stop(project, made_up):
    """nnunetv2 fails here: its maximum of NaN is equal to nothing."""
    models = made_up("labels", islands=0.0)
    for model in models:
        for file in (project.workspace.reference_folder(NAME)).glob("*.nii.gz"):
            remove_label(file, 3)
        for file in model.rglob("fold_*/validation/*.nii.gz"):
            remove_label(file, 3)
    selection = select(project, NAME, folds=[0, 1], ensembles=False)
    assert all(np.isnan(c.mean_dice) for c in selection.candidates)
    assert selection.best is selection.candidates[0]


def remove_label(file, label):
    import SimpleITK as sitk

    image = sitk.ReadImage(str(file))
    array = sitk.GetArrayFromImage(image)
    array[array == label] = 0
    changed = sitk.GetImageFromArray(array)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(file))


def test_without_ensembles_no_probabilities_are_needed(project, made_up):
    made_up("labels")
    for file in project.workspace.results_folder(NAME).rglob("*.npz"):
        file.unlink()
    assert len(select(project, NAME, folds=[0, 1], ensembles=False).candidates) == 2
    with pytest.raises(DataError, match=r"no probabilities .*checkpoint_final.pth is not there. Run: segplug train"):
        select(project, NAME, folds=[0, 1])


def test_what_is_not_trained_is_left_out_and_told(project, made_up):
    models = made_up("labels", configurations=("2d", "3d_fullres"))
    (models[0] / "fold_1" / "validation" / "summary.json").unlink()
    with pytest.warns(UserWarning, match=r"not compared: .*__2d: folds 1 .*\n  segplug train Dataset502_MadeUp 2d 1"):
        selection = select(project, NAME, folds=[0, 1])
    assert [len(c.members) for c in selection.candidates] == [1]
    with pytest.raises(UsageError, match="folds 1 are not trained"):
        select(project, NAME, configurations=["2d"], folds=[0, 1])
    with pytest.raises(UsageError, match=r"__3d_lowres: no such model. There are: .*3d_fullres"):
        select(project, NAME, configurations=["3d_lowres"], folds=[0, 1])
    with pytest.raises(UsageError, match="no model has all of folds 0, 1, 2"), pytest.warns(UserWarning, match="not"):
        select(project, NAME, folds=[0, 1, 2])
    shutil.rmtree(project.workspace.results_folder(NAME))
    with pytest.raises(UsageError, match=r"no data set|no trained models"):
        select(project, NAME)


def test_a_case_in_two_folds_and_missing_files_are_errors(project, made_up):
    model = made_up("labels")[0]
    zero, one = (model / f"fold_{n}" / "validation" for n in (0, 1))
    case = next(zero.glob("*.nii.gz"))
    summary = json.loads((one / "summary.json").read_text())
    shutil.copy(case, one)
    added = {**summary["metric_per_case"][0], "prediction_file": str(one / case.name)}
    (one / "summary.json").write_text(json.dumps({**summary, "metric_per_case": [*summary["metric_per_case"], added]}))
    with pytest.raises(DataError, match="expected each case in one fold"):
        gather_folds(project, model, [0, 1])
    (one / "summary.json").write_text(json.dumps(summary))
    case.unlink()
    with pytest.raises(DataError, match=r"no such prediction, though summary.json .*--continue"):
        gather_folds(project, model, [0, 1])


def test_gathering_follows_the_folds(project, made_up):
    model = made_up("labels")[0]
    folder = gather_folds(project, model, [0, 1]).folder
    assert folder.name == "crossval_results_folds_0_1"
    assert {"summary.json", "plans.json", "dataset.json"} <= {f.name for f in folder.iterdir()}
    summary = json.loads((model / "fold_1" / "validation" / "summary.json").read_text())
    gone = summary["metric_per_case"].pop()
    (model / "fold_1" / "validation" / "summary.json").write_text(json.dumps(summary))
    found = gather_folds(project, model, [0, 1])
    assert len(found.evaluation.cases) == 2
    assert not (folder / gone["prediction_file"].split("/")[-1]).exists()
    assert read_summary(folder / "summary.json") == found.evaluation
    shutil.rmtree(project.workspace.reference_folder(NAME))  # the raw data have them too
    assert gather_folds(project, model, [0, 1]).evaluation.mean_dice == found.evaluation.mean_dice
    shutil.rmtree(project.workspace.raw_folder(NAME))
    with pytest.raises(DataError, match="no reference for 2 cases"):
        gather_folds(project, model, [0, 1])


def test_gathering_removes_no_strangers(project, made_up, tmp_path):
    model = made_up("labels")[0]
    strange = tmp_path / "mine" / "scan.nii.gz"
    strange.parent.mkdir()
    strange.write_bytes(b"years of work")
    with pytest.raises(UsageError, match=r"mine: holds label maps that are no validation predictions.*scan\.nii\.gz"):
        gather_folds(project, model, [0, 1], output=strange.parent)
    assert [file.name for file in strange.parent.iterdir() if file.is_file()] == ["scan.nii.gz"]
    assert strange.read_bytes() == b"years of work"


def test_pairs_need_the_same_cases(project, made_up):
    models = made_up("labels")
    file = models[1] / "fold_1" / "validation" / "summary.json"
    summary = json.loads(file.read_text())
    summary["metric_per_case"].pop()
    file.write_text(json.dumps(summary))
    with pytest.raises(DataError, match=r"did not validate 1 cases that those of .*__2d did"):
        select(project, NAME, folds=[0, 1])
    with pytest.warns(UserWarning, match="validated on other cases"):
        select(project, NAME, folds=[0, 1], ensembles=False)


def test_the_choice_moves_with_the_results(project, made_up, tmp_path):
    made_up("labels")
    choice = select(project, NAME, folds=[0, 1]).choice
    file = project.workspace.choice_file(NAME)
    moved = tmp_path / "elsewhere" / NAME
    shutil.move(file.parent, moved)
    found = read_choice(moved / file.name)
    assert found.members == tuple(moved / m.name for m in choice.members)
    assert found.postprocessing.is_file()
    text = instructions(found)
    assert f"segplug predict -i INPUT -o OUTPUT -d {NAME} --choice" in text
    assert ("segplug ensemble" in text) == (len(found.members) > 1)
    assert all(str(member) in text for member in found.members)
    found.postprocessing.unlink()
    with pytest.raises(DataError, match="Run: segplug select"):
        read_choice(moved / file.name)
    content = json.loads((moved / file.name).read_text())
    content["best_model_or_ensemble"]["selected_model_or_models"][0]["trainer"] = "../outside"
    (moved / file.name).write_text(json.dumps(content))
    with pytest.raises(DataError, match="names no models"):
        read_choice(moved / file.name)
    with pytest.raises(UsageError, match="nothing is chosen"):
        read_choice(tmp_path / "nowhere.json")


def test_the_command(project, made_up):
    from segplug.cli.main import app

    made_up("labels")
    roots = [
        t for part in ("raw", "preprocessed", "results") for t in (f"--{part}", str(getattr(project.workspace, part)))
    ]
    done = CliRunner().invoke(
        app, [*roots, "select", "502", "-f", "0", "-f", "1", "--workers", "0", "--format", "json"]
    )
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["candidate"].count(" + ") for row in rows] == [0, 0, 1]
    assert [row["choice"] for row in rows].count("best") == 1
    assert f"segplug predict -i INPUT -o OUTPUT -d {NAME} --choice" in done.stderr


@pytest.mark.slow
def test_workers_find_the_same(project, made_up):
    made_up("labels")
    alone = select(project, NAME, folds=[0, 1])
    for model in project.workspace.results_folder(NAME).glob("*__*__*"):
        shutil.rmtree(model / "crossval_results_folds_0_1")
    shutil.rmtree(project.workspace.results_folder(NAME) / "ensembles")
    with Project(project.workspace, project.kernel, workers=2) as other:
        assert select(other, NAME, folds=[0, 1]) == alone
