"""Deciding on clean-up and applying it, as folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from segplug import Component, hookimpl
from segplug.errors import DataError, PluginError, UsageError
from segplug.runtime.postprocessing_file import read_decision
from segplug.stages.crossval import gather_folds
from segplug.stages.postprocess import apply_postprocessing, fit_postprocessing
from segplug.stages.select import select


@pytest.fixture
def crossval(made_up, project):
    model = made_up("single", islands=4.0, seed=3)[0]
    return gather_folds(project, model, [0, 1]).folder


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_what_is_decided_is_applied(project, crossval, tmp_path):
    references = project.workspace.reference_folder("Dataset502_MadeUp")
    fitted = fit_postprocessing(project, crossval, references)
    assert fitted.after.mean_dice > fitted.before.mean_dice
    assert fitted.decision["postprocessing_kwargs"] == [{"labels_or_regions": [1]}]
    written = json.loads(fitted.file.read_text())
    assert written["input_folder"]["foreground_mean"]["Dice"] == fitted.before.mean_dice
    assert written["postprocessed"]["foreground_mean"]["Dice"] == fitted.after.mean_dice

    first = apply_postprocessing(project, crossval, tmp_path / "clean", fitted.file)
    assert len(first.made) == 3
    again = apply_postprocessing(project, crossval, tmp_path / "clean", crossval, continue_=True)  # by its folder
    assert (again.made, again.kept) == ((), first.made)
    for case in first.made:
        one, other = (read(f / f"{case}.nii.gz") for f in (tmp_path / "clean", crossval / "postprocessed"))
        assert (one == other).all()
    assert any((read(crossval / f"{c}.nii.gz") != read(tmp_path / "clean" / f"{c}.nii.gz")).any() for c in first.made)


def test_a_validation_folder_is_described_by_its_model(project, made_up):
    model = made_up("single", islands=4.0, seed=3)[0]
    references = project.workspace.reference_folder("Dataset502_MadeUp")
    fitted = fit_postprocessing(project, model / "fold_0" / "validation", references)
    assert fitted.after.mean_dice >= fitted.before.mean_dice
    assert len(fitted.before.cases) == 2


def test_a_decision_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"postprocessing\.json: no such file\. .*segplug postprocess fit"):
        read_decision(tmp_path)


def test_what_to_install_is_said_where_the_postprocessor_is_not(project, crossval, tmp_path):
    fitted = fit_postprocessing(project, crossval, project.workspace.reference_folder("Dataset502_MadeUp"))
    written = json.loads(fitted.file.read_text())
    (by,) = written["segplug"]["provenance"]
    assert (by["kind"], by["distribution"]) == ("postprocessors", "segplug")
    strange = {**by, "name": "strange:peel", "plugin": "strange", "distribution": "segplug-elsewhere", "version": "2.1"}
    written["segplug"] |= {"postprocessor": "strange:peel", "provenance": [strange]}
    fitted.file.write_text(json.dumps(written))
    with pytest.raises(
        PluginError, match=r"(?s)postprocessing\.json was decided.*pip install segplug-elsewhere==2\.1"
    ) as told:
        apply_postprocessing(project, crossval, tmp_path / "clean", fitted.file)
    assert not (tmp_path / "clean").exists()
    assert "'strange:peel' was provided by plugin 'strange'" in str(told.value)
    del written["segplug"]["provenance"]
    fitted.file.write_text(json.dumps(written))
    with pytest.raises(PluginError, match="strange:peel"):
        apply_postprocessing(project, crossval, tmp_path / "clean", fitted.file)


def test_without_plans_the_files_tell_their_reader(project, crossval, tmp_path):
    """As in the folder that nnUNetv2_ensemble writes."""
    decision = tmp_path / "postprocessing.json"
    decision.write_text('{"postprocessing_fns": [], "postprocessing_kwargs": []}')
    (crossval / "plans.json").unlink()
    assert len(apply_postprocessing(project, crossval, tmp_path / "clean", decision).made) == 3


def test_a_changed_label_map_is_cleaned_again(project, crossval, tmp_path):
    fitted = fit_postprocessing(project, crossval, project.workspace.reference_folder("Dataset502_MadeUp"))
    first = apply_postprocessing(project, crossval, tmp_path / "clean", fitted.file)
    shutil.copy(crossval / f"{first.made[0]}.nii.gz", tmp_path / "other.nii.gz")
    shutil.copy(crossval / f"{first.made[1]}.nii.gz", crossval / f"{first.made[0]}.nii.gz")
    again = apply_postprocessing(project, crossval, tmp_path / "clean", fitted.file, continue_=True)
    assert again.made == first.made[:1]


def test_nnunets_decision_is_taken_and_its_pickle_is_not(project, crossval, tmp_path):
    decision = tmp_path / "postprocessing.json"
    steps = {"postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"]}
    decision.write_text(json.dumps({**steps, "postprocessing_kwargs": [{"labels_or_regions": [1]}]}))
    assert read_decision(decision)[1].name == "largest_component"
    assert apply_postprocessing(project, crossval, tmp_path / "clean", decision).made
    (tmp_path / "postprocessing.pkl").write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    with pytest.raises(UsageError, match=r"a pickle can run code.*postprocessing.json"):
        apply_postprocessing(project, crossval, tmp_path / "clean", tmp_path / "postprocessing.pkl")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not a JSON file"),
        ("[]", "a list; expected"),
        ('{"segplug": {"postprocessor": 3}}', "names no postprocessor"),
        ('{"postprocessing_fns": ["os.system"], "postprocessing_kwargs": [{}]}', "os.system"),
    ],
)
def test_wrong_decisions_are_told(project, crossval, tmp_path, content, told):
    decision = tmp_path / "postprocessing.json"
    decision.write_text(content)
    with pytest.raises(DataError, match=told) as raised:
        apply_postprocessing(project, crossval, tmp_path / "clean", decision)
    assert "postprocessing.json" in str(raised.value)


def test_wrong_usage(project, crossval, tmp_path):
    decision = tmp_path / "postprocessing.json"
    decision.write_text('{"segplug": {"postprocessor": "nobodys"}}')
    with pytest.raises(PluginError, match="nobodys"):
        apply_postprocessing(project, crossval, tmp_path / "clean", decision)
    with pytest.raises(UsageError, match="another folder"):
        apply_postprocessing(project, crossval, crossval, decision)
    with pytest.raises(UsageError, match="no such folder"):
        apply_postprocessing(project, tmp_path / "nowhere", tmp_path / "clean", decision)
    with pytest.raises(DataError, match="--dataset-json"):
        apply_postprocessing(project, tmp_path / "raw", tmp_path / "clean", decision)
    with pytest.raises(DataError, match="no such file"):
        apply_postprocessing(project, crossval, tmp_path / "clean", tmp_path / "nowhere.json")


def test_the_commands(project, crossval, tmp_path):
    from segplug.cli.main import app

    references = project.workspace.reference_folder("Dataset502_MadeUp")
    fit = ["postprocess", "fit", "-i", str(crossval), "-r", str(references), "--workers", "0"]
    done = CliRunner().invoke(app, fit)
    assert done.exit_code == 0, done.output
    assert "after postprocessing" in done.output
    apply = ["postprocess", "apply", "-i", str(crossval), "-o", str(tmp_path / "clean"), "--decision", str(crossval)]
    done = CliRunner().invoke(app, [*apply, "--workers", "0"])
    assert done.exit_code == 0, done.output
    assert "postprocessed 3 cases" in done.output
    assert len(list(Path(tmp_path / "clean").glob("*.nii.gz"))) == 3


class Plugin:
    @hookimpl
    def segplug_postprocessors(self):
        yield Component("drop", Drop, "drops a label")
        yield Component("odd", Odd, "decides on no JSON")


class Drop:
    def __init__(self, labels=()):
        self.labels = labels

    def fit(self, pairs, labels):
        return {}

    def apply(self, prediction, decision, labels):
        array = prediction.array.copy()
        array[np.isin(array, self.labels)] = 0
        return replace(prediction, array=array)


class Odd(Drop):
    def fit(self, pairs, labels):
        return {"set": {1}, "number": {1: 2}, "list": [3]}[self.labels]


def test_options_travel_with_the_decision(project, crossval, tmp_path):
    project.kernel.register(Plugin(), "plugin")
    references = project.workspace.reference_folder("Dataset502_MadeUp")
    fitted = fit_postprocessing(project, crossval, references, postprocessor="drop,labels=[1]")
    written = json.loads(fitted.file.read_text())["segplug"]
    assert (written["postprocessor"], written["options"]) == ("plugin:drop", {"labels": [1]})
    done = apply_postprocessing(project, crossval, tmp_path / "clean", fitted.file)
    assert not any((read(tmp_path / "clean" / f"{case}.nii.gz") == 1).any() for case in done.made)
    other = fit_postprocessing(project, crossval, references, postprocessor="drop")  # other options: none is kept
    assert "options" not in json.loads(other.file.read_text())["segplug"]
    again = apply_postprocessing(project, crossval, tmp_path / "clean", other.file, continue_=True)
    assert again.made == done.made
    assert any((read(tmp_path / "clean" / f"{case}.nii.gz") == 1).any() for case in done.made)


@pytest.mark.parametrize("what", ["set", "number", "list"])
def test_a_decision_that_is_no_json_is_its_postprocessors_fault(project, crossval, what):
    project.kernel.register(Plugin(), "plugin")
    references = project.workspace.reference_folder("Dataset502_MadeUp")
    with pytest.raises(PluginError, match=r"^postprocessors: 'odd' of .* that is not JSON: .*; expected a dict"):
        fit_postprocessing(project, crossval, references, postprocessor=f"odd,labels={what}")
    assert not (crossval / "postprocessing.json").exists()


@pytest.mark.parametrize("name", ["nobodys", "largest_component,x=1"])
def test_a_postprocessor_that_the_user_misnames_is_wrong_usage(project, crossval, name):
    with pytest.raises(UsageError, match=r"^postprocessor: "):
        fit_postprocessing(project, crossval, crossval, postprocessor=name)
    with pytest.raises(UsageError, match=r"^postprocessor: "):
        select(project, "Dataset502_MadeUp", folds=[0], postprocessor=name)
