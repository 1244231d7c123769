"""What works on arrays computes what the stages compute from files of these arrays."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import segplug
from segplug import arrays
from segplug.errors import DataError, UsageError
from segplug.kernel import Kernel
from segplug.model import Geometry, Image, Labels, Prediction
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.testing import Phantom, make_case

LABELS = {"background": 0, "first": 1, "second": 2}
NAME = "Dataset012_Arrays"


def case(number: int, look: Phantom) -> tuple[Image, Labels]:
    """With a spacing that NIfTI, which has seven digits for it, keeps as it is."""
    image, labels, size = make_case(look, number=number)
    spacing = [float(np.float32(s)) for s in size]
    return arrays.image(image, spacing), arrays.labels(labels, spacing)


class Cases(Sequence[tuple[Image, Labels]]):
    """Made as they are asked for, and counted."""

    def __init__(self, number: int, look: Phantom) -> None:
        self.number, self.look, self.asked = number, look, list[int]()

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[Image, Labels]:  # type: ignore[override]
        self.asked.append(index)
        return case(index, self.look)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    workspace = Workspace(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results")
    return Project(workspace, Kernel(discover=False), workers=0)


LOOKS = {
    "MRI": Phantom((8, 24, 20), spacing_spread=1.3),
    "CT, two channels": Phantom((8, 24, 20), channels=("CT", "CT"), spacing_spread=1.3),
    "regions": Phantom((8, 24, 20), classes=3, regions=True),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_fingerprint_plan_and_preprocessing_are_those_of_files(look: Phantom, project: Project) -> None:
    cases = Cases(3, look)
    labels = arrays.label_set(
        {"background": 0, "a": [1, 2, 3], "b": [2, 3], "c": 3} if look.regions else LABELS,
        (1, 2, 3) if look.regions else (),
    )
    folder = project.workspace.raw
    assert folder is not None
    written = arrays.write_dataset(
        folder / NAME, ((f"case_{i}", *cases[i]) for i in range(3)), channels=look.channels, labels=labels
    )
    assert segplug.verify(project, written).findings == ()

    from_files = segplug.fingerprint(project, NAME)
    cases.asked.clear()
    from_arrays = arrays.fingerprint(cases)
    assert cases.asked == [0, 1, 2]
    assert from_arrays == replace(from_files, extra={})

    planned = segplug.plan(project, NAME, memory_gb=4)
    description = arrays.describe(NAME, look.channels, labels, cases=3)
    in_memory = arrays.plan(from_arrays, description, memory_gb=4, project=project)
    assert in_memory.configurations == planned.configurations
    assert replace(in_memory, configurations={}) == replace(planned, configurations={})

    segplug.preprocess(project, NAME, configurations=["3d_fullres"])
    configuration = planned.configurations["3d_fullres"]
    store = project.kernel.registry.build("stores", "blosc2")(
        project.workspace.preprocessed_folder(NAME) / configuration.data_identifier, configuration.patch_size
    )
    image, label_map = cases[1]
    stored = store.open("case_1")
    data, target = stored.read((0, 0, 0), stored.shape)
    made = arrays.preprocess(image, in_memory, "3d_fullres", labels=label_map)
    assert made.target is not None
    np.testing.assert_array_equal(made.data, data)
    np.testing.assert_array_equal(made.target, target)
    assert arrays.preprocess(image, in_memory, "3d_fullres").target is None


def test_images_written_are_read_as_they_were(project: Project) -> None:
    """Geometry too; pictures stay pictures."""
    from segplug.runtime.case_reading import read_image, read_labels
    from segplug.runtime.raw_dataset import load_dataset

    turned = Geometry((2.0, 1.0, 0.5), (4.0, -3.0, 7.5), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    random = np.random.default_rng(0)
    volume = Image(random.normal(size=(1, 4, 6, 5)).astype(np.float32), turned)
    picture = arrays.image(random.normal(size=(6, 5)), (0.5, 0.25))
    assert (picture.array.shape, picture.spacing) == ((1, 1, 6, 5), (499.5, 0.5, 0.25))
    reader = project.kernel.registry.build("readers", "SimpleITKIO")
    for number, image in enumerate((volume, picture), start=21):
        label_map = Labels((image.array[0] > 0).astype(np.uint8), image.geometry)
        assert project.workspace.raw is not None
        folder = project.workspace.raw / f"Dataset0{number}_One"
        arrays.write_dataset(folder, [("c", image, label_map)], channels=["MRI"], labels={"background": 0, "x": 1})
        read = load_dataset(folder).cases["c"]
        assert read.label is not None
        found, found_labels = read_image(reader, read, 1), read_labels(reader, read.label)
        np.testing.assert_array_equal(found.array, image.array)
        np.testing.assert_array_equal(found_labels.array, label_map.array)
        assert found.spacing == image.spacing
        if image is volume:
            assert (found.geometry.origin, found.geometry.direction) == (turned.origin, turned.direction)


def test_evaluation_is_that_of_files(project: Project, tmp_path: Path) -> None:
    import SimpleITK as sitk

    pairs = []
    for number in range(2):
        _, reference = case(number, Phantom((8, 24, 20)))
        moved = Labels(np.roll(reference.array, 2, axis=1), reference.geometry)
        pairs.append((reference, moved))
        for folder, labels in (("references", reference), ("predictions", moved)):
            (tmp_path / folder).mkdir(exist_ok=True)
            written = sitk.GetImageFromArray(labels.array)
            written.SetSpacing([float(s) for s in reversed(labels.spacing)])
            sitk.WriteImage(written, str(tmp_path / folder / f"c{number}.nii.gz"))
    description = arrays.describe(NAME, ["MRI"], LABELS, cases=2)
    metrics = ["hd95", "surface_dice,tolerance=2"]
    files = segplug.evaluate(project, tmp_path / "references", tmp_path / "predictions", description, metrics=metrics)
    found = arrays.evaluate(pairs, LABELS, metrics=metrics)
    assert found.mean == files.mean
    assert found.foreground_mean == files.foreground_mean
    assert arrays.evaluate_pair(*pairs[1], LABELS, metrics=metrics) == files.cases[1].metrics
    assert 0 < found.mean_dice < 1


def predicted(probabilities: list[list[float]]) -> Prediction:
    values = np.asarray(probabilities, np.float32)[:, None, None]
    return Prediction(arrays.labels(values.argmax(0).astype(np.uint8), (1, 1, 1)), values)


def test_ensembles_average_probabilities() -> None:
    one, other = predicted([[0.6, 0.5, 0.1], [0.4, 0.5, 0.9]]), predicted([[0.1, 0.5, 0.3], [0.9, 0.5, 0.7]])
    both = arrays.ensemble([one, other], {"background": 0, "x": 1})
    assert both.probabilities is not None
    np.testing.assert_allclose(both.probabilities[:, 0, 0], [[0.35, 0.5, 0.2], [0.65, 0.5, 0.8]])
    np.testing.assert_array_equal(both.labels.array[0, 0], [1, 0, 1])  # of equals the first
    regions = arrays.label_set({"background": 0, "whole": [1, 2], "core": 2}, (1, 2))
    np.testing.assert_array_equal(arrays.ensemble([one, other], regions).labels.array[0, 0], [2, 0, 2])
    with pytest.raises(UsageError, match="probabilities=True"):
        arrays.ensemble([one, Prediction(one.labels)], LABELS)
    with pytest.raises(DataError, match="3 channels first"):
        arrays.ensemble([one, other], LABELS)


def test_ensembles_are_those_of_files(tmp_path: Path) -> None:
    from segplug.runtime.probability_average import average_to_labels

    random = np.random.default_rng(1)
    for labels in (
        arrays.label_set(LABELS),
        arrays.label_set({"background": 0, "w": [1, 2, 3], "v": [2, 3], "u": 3}, (1, 2, 3)),
    ):
        parts = []
        for number in range(3):
            logits = random.normal(size=(3, 5, 6, 7))
            values = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
            np.savez(tmp_path / f"{number}.npz", probabilities=values)
            parts.append(Prediction(arrays.labels(values.argmax(0), (1, 1, 1)), values))
        files = [tmp_path / f"{number}.npz" for number in range(3)]
        expected = average_to_labels(files, labels, expected=(5, 6, 7))
        np.testing.assert_array_equal(arrays.ensemble(parts, labels).labels.array, expected)


def test_selection_finds_the_pair_and_the_clean_up() -> None:
    """Each model is wrong about one half; together they are right but for a speck, which is removed."""
    reference = np.zeros((1, 8, 12), np.uint8)
    reference[0, 2:6, 1:11] = 1
    speck = np.zeros_like(reference, bool)
    speck[0, 7, 0] = True

    def model(sure: slice) -> Prediction:
        foreground = np.where(reference == 1, 0.45, 0.1)
        foreground[..., sure][reference[..., sure] == 1] = 0.9
        foreground[speck] = 0.8
        values = np.stack([1 - foreground, foreground]).astype(np.float32)
        return Prediction(arrays.labels(values.argmax(0), (1, 1, 1)), values)

    labels = {"background": 0, "organ": 1}
    references = [arrays.labels(reference, (1, 1, 1))]
    models = {"left": [model(slice(0, 6))], "right": [model(slice(6, 12))]}
    found = arrays.select(references, models, labels)
    assert found.members == ("left", "right")
    assert found.scores["left",] < found.mean_dice < found.postprocessed_dice == 1
    both = arrays.ensemble([models["left"][0], models["right"][0]], labels).labels
    np.testing.assert_array_equal(arrays.apply_postprocessing(both, found.decision, labels).array, reference)
    assert arrays.fit_postprocessing([(references[0], both)], labels) == found.decision
    assert arrays.select(references, models, labels, ensembles=False).members == ("left",)
    with pytest.raises(UsageError, match="1 predictions each"):
        arrays.select(references, {"left": []}, labels)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: arrays.image(np.zeros((4, 4)), (1, 1, 1)), r"shape \(4, 4\) with a spacing of 3"),
        (lambda: arrays.image(np.zeros((4, 4, 4)), (1, 0, 1)), "positive numbers"),
        (lambda: arrays.image(np.zeros((4, 4, 4)), 1), "positive numbers"),
        (lambda: arrays.image(np.array(["x"]), (1, 1)), "expected numbers"),
        (lambda: arrays.labels(np.zeros((4, 4, 4)), (1, 1, 1)), "expected integers"),
        (lambda: arrays.labels(np.zeros((1, 4, 4, 4), int), (1, 1, 1)), "expected 3 axes"),
        (lambda: arrays.label_set({"background": 0, "x": -1}), "-1"),
        (lambda: arrays.fingerprint([]), "no cases"),
        (lambda: arrays.write_dataset("/nowhere/liver", [], channels=["CT"], labels=LABELS), "DatasetXXX_NAME"),
    ],
)
def test_what_cannot_be_is_told(call, told: str) -> None:
    with pytest.raises((UsageError, DataError), match=told):
        call()


def test_a_data_set_that_cannot_be_leaves_nothing(tmp_path: Path) -> None:
    one = case(0, Phantom((4, 8, 8)))
    for cases, told in (
        ([("a", *one), ("a", *one)], "each once"),
        ([("../a", *one)], "letters"),
        ([("a", one[0], arrays.labels(np.zeros((2, 2, 2), int), (1, 1, 1)))], "labels of the image's shape"),
        ([], "no cases"),
    ):
        with pytest.raises(UsageError, match=told):
            arrays.write_dataset(tmp_path / NAME, cases, channels=["MRI"], labels=LABELS)
        assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_every_public_name_exists_and_is_imported_when_asked_for() -> None:
    code = """
import sys, segplug
assert not {"numpy", "torch", "pluggy"} & set(sys.modules), "importing segplug is not light"
import segplug.arrays
assert not {"torch", "scipy", "SimpleITK"} & set(sys.modules), "importing segplug.arrays is not light"
missing = [name for name in segplug.__all__ if not getattr(segplug, name).__doc__ and name != "__version__"]
assert not missing and set(segplug.__all__) <= set(dir(segplug)), missing
"""
    subprocess.run([sys.executable, "-c", code], check=True)
