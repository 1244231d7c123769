"""Which files make which case, in data sets and in folders to predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from segplug import Component, hookimpl
from segplug.errors import DataError, PluginError
from segplug.kernel import Kernel
from segplug.runtime.case_reading import read_image, read_labels
from segplug.runtime.raw_dataset import choose_reader, find_cases, load_dataset, scan_cases, survey_dataset
from segplug_builtin.readers import read_natural_image


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def make(folder: Path, images: list[str], label_maps: list[str], **description: Any) -> Path:
    touch(folder / "imagesTr", *images)
    touch(folder / "labelsTr", *label_maps)
    raw = {
        "channel_names": {"0": "a", "1": "b"},
        "labels": {"background": 0, "x": 1},
        "numTraining": 2,
        "file_ending": ".mha",
    }
    (folder / "dataset.json").write_text(json.dumps({**raw, **description}))
    return folder


def test_cases_have_their_channels_in_order(tmp_path: Path) -> None:
    images = ["b_1_0001.mha", "b_1_0000.mha", "a_0000_0000.mha", "a_0000_0001.mha"]
    dataset = load_dataset(make(tmp_path / "Dataset001_X", images, ["a_0000.mha", "b_1.mha"]))
    assert list(dataset.cases) == ["a_0000", "b_1"]
    case = dataset.cases["b_1"]
    assert [p.name for p in case.images] == ["b_1_0000.mha", "b_1_0001.mha"]
    assert case.label == tmp_path / "Dataset001_X/labelsTr/b_1.mha"
    assert dataset.name == "Dataset001_X"


def test_everything_missing_is_told_at_once(tmp_path: Path) -> None:
    images = [
        "a_0000.mha",
        "a_0001.mha",
        "b_0001.mha",
        "c_0000.mha",
        "c_0001.mha",
        "c_0002.mha",
        "d.mha",
        "e_0000.nrrd",
    ]
    folder = make(tmp_path / "Dataset001_X", images, ["b.mha", "c.mha", "z.mha"])
    dataset, findings = survey_dataset(folder)
    assert dataset is not None
    assert not dataset.cases
    told = {(f.kind, f.case, f.severity) for f in findings}
    assert told == {
        ("missing label", "a", "error"),
        ("missing channel", "b", "error"),
        ("too many channels", "c", "error"),
        ("wrong file name", "d", "error"),
        ("unused file", "e", "warning"),
        ("missing image", "z", "warning"),
    }
    with pytest.raises(DataError, match="4 problems") as caught:
        load_dataset(folder)
    for name in ("a.mha", "b_0000.mha", "c_0002.mha", "d.mha"):
        assert name in str(caught.value)


def test_one_name_with_two_endings_is_a_duplicate(tmp_path: Path) -> None:
    folder = make(tmp_path / "D", ["a_0000.mha", "a_0001.mha", "a_0000.nrrd"], ["a.mha", "a.nii.gz"])
    _, findings = survey_dataset(folder)
    assert [(f.kind, f.case, f.file and f.file.name) for f in findings] == [
        ("duplicate case", "a", "a_0000.nrrd"),
        ("duplicate case", "a", "a.nii.gz"),
    ]
    assert list(load_dataset(folder).cases) == ["a"]


def test_what_lies_about_is_passed_over(tmp_path: Path) -> None:
    """What macOS, editors and interrupted writes leave, spacing files, and folders."""
    folder = make(
        tmp_path / "D", ["a_0000.mha", "a_0001.mha", "._a_0000.mha", "a.json", "notes.txt"], ["a.mha", ".DS_Store"]
    )
    (folder / "imagesTr" / "old_0000.mha").mkdir()
    dataset, findings = survey_dataset(folder)
    assert dataset is not None
    assert list(dataset.cases) == ["a"]
    assert not findings


def test_cases_may_be_folders_where_the_format_is_none_of_files(tmp_path: Path) -> None:
    folder = make(tmp_path / "D", ["b_0000.ome.zarr"], ["a.ome.zarr", "b.ome.zarr"], file_ending=".ome.zarr")
    for name in ("a_0000.ome.zarr", "notes", ".a_0000.ome.zarr"):
        (folder / "imagesTr" / name / "0").mkdir(parents=True)
    cases = load_dataset(folder).cases
    assert [case.images[0].name for case in cases.values()] == ["a_0000.ome.zarr", "b_0000.ome.zarr"]
    assert cases["a"].label == folder / "labelsTr" / "a.ome.zarr"


def test_listed_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELSEWHERE", str(tmp_path / "elsewhere"))
    touch(tmp_path / "elsewhere", "x.mha", "y.mha")
    listed = {
        "b": {"images": ["$ELSEWHERE/x.mha", "${ELSEWHERE}/y.mha"], "label": str(tmp_path / "elsewhere/y.mha")},
        "a": {"images": ["../elsewhere/x.mha"], "label": "labelsTr/a.mha"},
    }
    dataset = load_dataset(make(tmp_path / "D", [], ["a.mha"], dataset=listed))
    assert list(dataset.cases) == ["a", "b"]
    assert dataset.cases["a"].images == (tmp_path / "elsewhere/x.mha",)
    assert dataset.cases["b"].images == (tmp_path / "elsewhere/x.mha", tmp_path / "elsewhere/y.mha")


def test_mistakes_in_listed_cases(tmp_path: Path) -> None:
    listed = {
        "a": {"images": ["$NOT_SET/x.mha"], "label": "labelsTr/a.mha"},
        "b": {"images": [], "label": "labelsTr/a.mha"},
        "c": "x",
        "d/e": {"images": ["imagesTr/a_0000.mha"], "label": "labelsTr/a.mha"},
        "f": {"images": ["imagesTr/a_0000.mha"], "label": "labelsTr/none.mha"},
    }
    folder = make(tmp_path / "D", ["a_0000.mha"], ["a.mha"], dataset=listed)
    dataset, findings = survey_dataset(folder)
    assert dataset is not None
    assert not dataset.cases
    assert [(f.case, f.kind) for f in findings] == [
        ("a", "missing image"),
        ("b", "dataset.json"),
        ("c", "dataset.json"),
        ("d/e", "dataset.json"),
        ("f", "missing label"),
    ]
    assert "environment variable not set" in findings[0].found
    _, findings = survey_dataset(make(tmp_path / "D", [], [], dataset=["a"]))
    assert findings[0].kind == "dataset.json"


def test_gaps_stop_labels_but_not_regions(tmp_path: Path) -> None:
    """nnU-Net trains regions on labels 1, 2, 4; only its verification objects."""
    files = (["a_0000.mha"], ["a.mha"])
    folder = make(tmp_path / "D", *files, labels={"background": 0, "x": 1, "y": 3})
    with pytest.raises(DataError, match=r"non-consecutive labels.*\[2\] are left out"):
        load_dataset(folder)
    folder = make(
        tmp_path / "E", *files, labels={"background": 0, "x": [1, 2, 4], "y": [4]}, regions_class_order=[1, 4]
    )
    assert load_dataset(folder).cases
    assert [f.kind for f in survey_dataset(folder)[1]] == ["non-consecutive labels"]


@pytest.mark.parametrize("missing", ["imagesTr", "labelsTr", "dataset.json", ""])
def test_missing_parts_of_a_data_set(missing: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "D", ["a_0000.mha"], ["a.mha"])
    target = folder / missing
    target.rename(tmp_path / "gone")
    with pytest.raises(DataError, match=f"{missing or 'D'}.*no such"):
        load_dataset(folder)


def test_an_empty_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no training cases in .*imagesTr; expected files named CASE_0000.mha"):
        load_dataset(make(tmp_path / "D", [], []))


def test_folders_to_predict(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", "b_0000.png", "a_0000.png", "c.png", "d_0001.png")
    cases, findings = scan_cases(folder, ".png", 1)
    assert list(cases) == ["a", "b"]
    assert {(f.case, f.kind) for f in findings} == {("c", "wrong file name"), ("d", "too many channels")}
    with pytest.raises(DataError, match="2 problems"):
        find_cases(folder, ".png", 1)
    assert list(find_cases(touch(tmp_path / "good", "a_0000.png"), ".png")) == ["a"]
    with pytest.raises(DataError, match=r"no images; expected files named CASE_0000.png"):
        find_cases(touch(tmp_path / "empty"), ".png")
    with pytest.raises(DataError, match="no such folder"):
        find_cases(tmp_path / "nowhere", ".png")


class TestChoiceOfReader:
    def dataset(self, folder: Path, **description: Any) -> Any:
        make(folder, [], [], **{"file_ending": ".png", "channel_names": {"0": "grey"}, **description})
        picture = PillowImage.fromarray(np.zeros((8, 9), np.uint8))
        picture.save(folder / "imagesTr/a_0000.png")
        picture.save(folder / "labelsTr/a.png")
        return load_dataset(folder)

    def test_by_reading(self, tmp_path: Path) -> None:
        assert choose_reader(self.dataset(tmp_path / "D"), Kernel(discover=False)) == "NaturalImage2DIO"

    @pytest.mark.parametrize("name", ["nibabel", "NibabelIO", "segplug:nibabel"])
    def test_by_name(self, name: str, tmp_path: Path) -> None:
        kernel = Kernel(discover=False)
        qualified = next(p.qualified_name for p in kernel.registry.all("readers") if p.component.name == "nibabel")
        name = qualified if ":" in name else name
        dataset = self.dataset(tmp_path / "D", overwrite_image_reader_writer=name)
        assert choose_reader(dataset, kernel) == (qualified if ":" in name else "NibabelIO")

    def test_an_unknown_name_is_an_error(self, tmp_path: Path) -> None:
        dataset = self.dataset(tmp_path / "D", overwrite_image_reader_writer="NibabelOI")
        with pytest.raises(PluginError, match="Did you mean 'NibabelIO'"):
            choose_reader(dataset, Kernel(discover=False))

    def test_nothing_reads_it(self, tmp_path: Path) -> None:
        dataset = self.dataset(tmp_path / "D")
        (tmp_path / "D/imagesTr/a_0000.png").write_bytes(b"rubbish")
        with pytest.raises(DataError, match=r"case a: .*a_0000.png: no reader can read this file"):
            choose_reader(dataset, Kernel(discover=False))

    def test_a_plugin_may_choose(self, tmp_path: Path) -> None:
        class Plugin:
            @hookimpl
            def segplug_readers(self) -> list[Component[Any]]:
                return [Component("mine", read_natural_image, "x")]

            @hookimpl
            def segplug_choose_reader(self, path: Path) -> str | None:
                return "mine" if path.name == "a_0000.png" else None

        kernel = Kernel(discover=False)
        kernel.register(Plugin(), "mine")
        assert choose_reader(self.dataset(tmp_path / "D"), kernel) == "mine"


def test_reading_a_case_counts_channels(tmp_path: Path) -> None:
    touch(tmp_path)
    PillowImage.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "a_0000.png")
    case = find_cases(tmp_path, ".png")["a"]
    assert read_image(read_natural_image, case, 3).array.shape == (3, 1, 8, 9)
    with pytest.raises(DataError, match=r"case a: .*a_0000.png: found 3 channels, expected 1"):
        read_image(read_natural_image, case, 1)
    with pytest.raises(DataError, match="a label map with 3 channels"):
        read_labels(read_natural_image, tmp_path / "a_0000.png")


@pytest.mark.parametrize(("highest", "kind"), [(3, np.int16), (32767, np.int16), (65535, np.int32)])
def test_label_maps_are_integers(highest: int, kind: type, tmp_path: Path) -> None:
    array = np.zeros((8, 9), np.uint16)
    array[0, 0] = highest
    PillowImage.fromarray(array).save(tmp_path / "a.png")
    labels = read_labels(read_natural_image, tmp_path / "a.png")
    assert labels.array.dtype == kind
    np.testing.assert_array_equal(labels.array[0], array)


def test_real_data_sets(shared: Path) -> None:
    counts = {folder.name: len(load_dataset(folder).cases) for folder in sorted((shared / "datasets").glob("Dataset*"))}
    expected = {
        "Dataset004_Hippocampus": 200, "Dataset027_ACDC": 40, "Dataset028_ACDCscribbles": 40,
        "Dataset042_BraTS2015": 4, "Dataset120_Nuclei": 54, "Dataset130_DrosophilaVNC": 4,
    }  # fmt: skip
    assert {name: counts[name] for name in expected} == expected


def test_label_maps_with_a_channel_number_are_told_to_be_renamed(tmp_path: Path) -> None:
    images = ["a_0000.mha", "b_0000.mha", "b_0000_0000.mha"]
    folder = make(tmp_path / "D", images, ["a_0000.mha", "b_0000.mha"], channel_names={"0": "a"})
    _, findings = survey_dataset(folder)
    assert [(f.kind, f.case) for f in findings] == [("missing label", "a"), ("missing label", "b")]
    assert "Rename it to a.mha" in str(findings[0])
    assert "Add the label map" in str(findings[1])  # b_0000 is a case of its own


def test_an_ending_in_capitals_is_told_as_it_stands(tmp_path: Path) -> None:
    _, findings = survey_dataset(
        make(tmp_path / "D", ["a_0000.mha", "b_0000.MHA"], ["a.mha"], channel_names={"0": "a"})
    )
    assert [str(f) for f in findings if "found the ending .MHA; expected files ending in .mha" in str(f)]
