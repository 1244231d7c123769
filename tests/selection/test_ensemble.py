"""Averages of probabilities, from files in pieces."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from segplug.errors import DataError, UsageError
from segplug.model import LabelSet
from segplug.runtime import probability_file
from segplug.runtime.kept_memory import give_back_freed_memory
from segplug.runtime.probability_average import average_to_labels
from segplug.runtime.probability_file import ProbabilityFile, scratch_array, write_probabilities
from segplug.stages.ensemble import ensemble_folders

LABELS = LabelSet({"background": 0, "a": 1, "b": 2})
REGIONS = LabelSet({"background": 0, "whole": (1, 2), "core": 2, "tip": 3}, (1, 2, 3))
APART = LabelSet({"background": 0, "a": 2, "b": 300})


def expected(arrays, labels):
    mean = arrays[0].astype(np.float32)
    for array in arrays[1:]:
        mean = mean + array
    mean = (mean / len(arrays)).astype(np.float32)
    if not labels.has_regions:
        return np.array(labels.all_labels)[mean.argmax(0)], mean
    result = np.zeros(mean.shape[1:], int)
    for channel, value in zip(mean, labels.regions_class_order, strict=True):
        result[channel > 0.5] = value
    return result, mean


@settings(max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    labels=st.sampled_from([LABELS, REGIONS, APART]),
    dtypes=st.lists(st.sampled_from([np.float16, np.float32]), min_size=1, max_size=3),
    order=st.sampled_from("CF"),
    at_once=st.sampled_from([1, 50, 1 << 20]),
    seed=st.integers(0, 99),
)
def test_the_mean_of_the_whole_arrays(shape, labels, dtypes, order, at_once, seed):
    random = np.random.default_rng(seed)
    # few different values, so that there are ties
    arrays = [(random.integers(0, 5, (3, *shape)) / 4).astype(d).copy(order) for d in dtypes]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        files = [Path(folder) / f"{number}.npz" for number, _ in enumerate(arrays)]
        for file, array in zip(files, arrays, strict=True):
            np.savez_compressed(file, probabilities=array)
        patched.setattr(probability_file, "_BYTES_AT_ONCE", at_once)
        into = np.zeros((3, *shape), np.float32)
        found = average_to_labels(files, labels, expected=shape, into=into)
    wanted, mean = expected(arrays, labels)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(into, mean)
    assert found.dtype == (np.uint16 if labels is APART else np.uint8)


def test_memory_is_that_of_a_label_map(tmp_path):
    import tracemalloc

    random = np.random.default_rng(0)
    shape = (12, 64, 128, 128)
    files = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for file in files:
        write_probabilities(file, random.integers(0, 9, shape).astype(np.float32))
    labels = LabelSet({"background": 0, **{str(i): i for i in range(1, 12)}})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(probability_file, "_BYTES_AT_ONCE", 1 << 18)
        tracemalloc.start()
        average_to_labels(files, labels, expected=shape[1:])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    one_class = 4 * np.prod(shape[1:])
    assert peak < 2 * one_class  # 12 classes of two models would be 24 times as much
    status = Path("/proc/self/status")
    if not status.is_file():
        return

    def resident() -> int:
        give_back_freed_memory()  # of whatever ran before
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmRSS"))

    before = resident()
    mean = scratch_array(shape, tmp_path)
    average_to_labels(files, labels, expected=shape[1:], into=mean)
    assert resident() - before < 4 * one_class  # the mean lies on the disk: 12 times as much
    assert mean[11].any()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: f.unlink(), "no such file"),
        (lambda f: f.write_bytes(b"no archive"), "cannot be read"),
        (lambda f: f.write_bytes(f.read_bytes()[:200]), "cannot be read"),
        (lambda f: np.savez(f, other=np.zeros(3)), "holds no 'probabilities'"),
        (lambda f: np.savez(f, probabilities=np.zeros((2, 3, 4))), "expected probabilities"),
        (lambda f: np.savez(f, probabilities=np.zeros((1, 2, 3, 4), int)), "expected probabilities"),
        (lambda f: np.savez(f, probabilities=np.zeros((3, 2, 2, 3))), "in the folders must|same images"),
        (lambda f: np.savez(f, probabilities=np.full((3, 2, 2, 2), np.nan)), "not finite"),
    ],
)
def test_wrong_files_are_told(tmp_path, spoil, told):
    files = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for file in files:
        np.savez(file, probabilities=np.zeros((3, 2, 2, 2), np.float32))
    spoil(files[1])
    with pytest.raises(DataError, match=told) as raised:
        average_to_labels(files, LABELS, expected=(2, 2, 2))
    assert "b.npz" in str(raised.value)


def test_an_archive_that_ends_too_soon(tmp_path):
    import zipfile

    whole = tmp_path / "whole.npz"
    np.savez(whole, probabilities=np.zeros((3, 2, 2, 2), np.float32))
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "short.npz", "w") as target:
        target.writestr("probabilities.npy", source.read("probabilities.npy")[:-5])
    with ProbabilityFile(tmp_path / "short.npz") as file, pytest.raises(DataError, match="ends too soon"):
        list(file.pieces())


def test_whatever_bytes_are_wrong_it_is_told_or_harmless(tmp_path):
    import random

    whole = tmp_path / "whole.npz"
    write_probabilities(whole, np.random.default_rng(0).random((3, 4, 5, 6)).astype(np.float32))
    draw, refused = random.Random(1), 0
    for _ in range(600):
        damaged = bytearray(whole.read_bytes())
        for _ in range(draw.choice((1, 2, 5))):
            # where the headers are, or anywhere
            place = draw.choice((draw.randrange(200), draw.randrange(len(damaged)), -1 - draw.randrange(120)))
            damaged[place] = draw.randrange(256)
        (tmp_path / "a.npz").write_bytes(damaged)
        try:
            average_to_labels([tmp_path / "a.npz"], LABELS, expected=(4, 5, 6))
        except DataError:
            refused += 1
    assert refused > 200


def test_wrong_shapes_and_channels(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, probabilities=np.zeros((2, 2, 2, 2), np.float32))
    with pytest.raises(DataError, match="2 channels; expected 3"):
        average_to_labels([file], LABELS, expected=(2, 2, 2))
    with pytest.raises(DataError, match="shape of the label map"):
        average_to_labels([file], LABELS, expected=(2, 2, 3))


@pytest.fixture
def folders(made_up, tmp_path):
    """Two folders of predictions of the same cases."""
    found = []
    for number, model in enumerate(made_up("labels")):
        folder = tmp_path / f"predictions_{number}"
        shutil.copytree(model / "fold_0" / "validation", folder)
        for name in ("plans.json", "dataset.json"):
            shutil.copy(model / name, folder)
        (folder / "summary.json").unlink()
        found.append(folder)
    return found


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_folders_are_averaged_once(project, folders, tmp_path):
    target = tmp_path / "ensemble"
    first = ensemble_folders(project, folders, target, save_probabilities=True)
    assert first.made == ("phantom_003", "phantom_005")
    assert (target / "plans.json").is_file()
    assert (target / "dataset.json").is_file()
    for case in first.made:
        arrays = [np.load(folder / f"{case}.npz")["probabilities"] for folder in folders]
        wanted, mean = expected(arrays, LabelSet({"background": 0, "a": 1, "b": 2, "c": 3}))
        np.testing.assert_array_equal(read(target / f"{case}.nii.gz"), wanted)
        np.testing.assert_array_equal(np.load(target / f"{case}.npz")["probabilities"], mean)
        image, reference = (sitk.ReadImage(str(f / f"{case}.nii.gz")) for f in (target, folders[0]))
        assert image.GetOrigin() == reference.GetOrigin()
    again = ensemble_folders(project, folders, target, save_probabilities=True, continue_=True)
    assert (again.made, again.kept) == ((), first.made)
    (target / "phantom_003.nii.gz").write_bytes(b"half")
    np.savez(folders[1] / "phantom_005.npz", probabilities=np.zeros((4, 10, 22, 20), np.float32)[..., :3])
    with pytest.raises(DataError, match=r"1 of 2 cases not ensembled:\n  phantom_005: .*shape"):
        ensemble_folders(project, folders, target, save_probabilities=True, continue_=True)
    assert read(target / "phantom_003.nii.gz").any()


def test_missing_cases_and_other_labels_are_told(project, folders, tmp_path):
    (folders[1] / "phantom_005.npz").unlink()
    with pytest.raises(DataError, match=r"Missing:\n  .*predictions_1: phantom_005"):
        ensemble_folders(project, folders, tmp_path / "out")
    shutil.copy(folders[0] / "phantom_005.npz", folders[1])
    content = json.loads((folders[1] / "dataset.json").read_text())
    content["labels"] = {"background": 0, "x": 1, "y": 2}
    (folders[1] / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="Only models of the same classes"):
        ensemble_folders(project, folders, tmp_path / "out")
    ensemble_folders(project, folders, tmp_path / "out", dataset_json=folders[0] / "dataset.json")
    (folders[0] / "phantom_003.nii.gz").unlink()  # the other folder has it still
    ensemble_folders(project, folders, tmp_path / "out", dataset_json=folders[0] / "dataset.json")
    (folders[1] / "phantom_003.nii.gz").unlink()
    with pytest.raises(DataError, match=r"phantom_003.nii.gz: no such label map"):
        ensemble_folders(project, folders, tmp_path / "out", dataset_json=folders[0] / "dataset.json")


def test_wrong_usage(project, folders, tmp_path):
    with pytest.raises(UsageError, match="expected two or more"):
        ensemble_folders(project, folders[:1], tmp_path / "out")
    with pytest.raises(UsageError, match="given twice"):
        ensemble_folders(project, [folders[0], folders[0].parent / "." / folders[0].name], tmp_path / "out")
    with pytest.raises(UsageError, match="no such folder"):
        ensemble_folders(project, [folders[0], tmp_path / "nowhere"], tmp_path / "out")
    with pytest.raises(UsageError, match="one of the folders"):
        ensemble_folders(project, folders, folders[1])
    with pytest.raises(DataError, match="no probabilities"):
        ensemble_folders(
            project,
            [tmp_path / "raw", tmp_path / "preprocessed"],
            tmp_path / "out",
            dataset_json=folders[0] / "dataset.json",
            plans=folders[0] / "plans.json",
        )


def test_the_command(folders, tmp_path):
    from segplug.cli.main import app

    inputs = [text for folder in folders for text in ("-i", str(folder))]
    done = CliRunner().invoke(app, ["ensemble", *inputs, "-o", str(tmp_path / "out"), "--workers", "0"])
    assert done.exit_code == 0, done.output
    assert "averaged 2 cases of 2 folders" in done.output
    assert (tmp_path / "out" / "phantom_003.nii.gz").is_file()


def test_an_interrupted_run_goes_on(project, folders, tmp_path, monkeypatch):
    from segplug.runtime.prediction_output import PredictionOutput

    write, written = PredictionOutput.write, []

    def interrupted(self, case, *arguments):
        if written:
            raise KeyboardInterrupt
        written.append(case)
        return write(self, case, *arguments)

    monkeypatch.setattr(PredictionOutput, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensemble_folders(project, folders, tmp_path / "out")
    monkeypatch.undo()
    done = ensemble_folders(project, folders, tmp_path / "out", continue_=True)
    assert list(done.kept) == written
    assert len(done.made) == 1
