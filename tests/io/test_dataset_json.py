"""dataset.json: what is accepted, and that every mistake in it is told at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segplug.errors import DataError
from segplug.model import LabelSet
from segplug.runtime.dataset_json import check_description, label_gaps, parse_description, read_strict_json

GOOD: dict[str, Any] = {
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "a": 1, "b": 2},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
FILE = Path("Dataset001_X/dataset.json")


def parse(**changes: Any) -> Any:
    raw = {k: v for k, v in {**GOOD, **changes}.items() if v is not ...}
    return parse_description(raw, "Dataset001_X", FILE)


def test_a_plain_file() -> None:
    description = parse(description="x", overwrite_image_reader_writer="NibabelIO")
    assert description.name == "Dataset001_X"
    assert description.channel_names == ("T1", "T2")
    assert description.labels.all_labels == (0, 1, 2)
    assert (description.num_training, description.file_ending, description.reader) == (3, ".nii.gz", "NibabelIO")
    assert description.raw["description"] == "x"


def test_the_older_word_for_channels() -> None:
    assert parse(channel_names=..., modality={"0": "CT"}).channel_names == ("CT",)


def test_channels_go_by_their_numbers() -> None:
    raw = {**GOOD, "channel_names": {"1": "T2", "0": "T1"}}
    description, findings = check_description(raw, "x", FILE)
    assert description is not None
    assert description.channel_names == ("T1", "T2")
    assert [f.severity for f in findings] == ["warning"]


@pytest.mark.parametrize("value", [None, "None"])
def test_no_reader_is_named(value: str | None) -> None:
    assert parse(overwrite_image_reader_writer=value).reader is None


def test_regions_and_ignore() -> None:
    labels = parse(
        labels={"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": 3, "ignore": 4},
        regions_class_order=[1, 2, 3],
    ).labels
    assert labels.has_regions
    assert labels.regions == ((1, 2, 3), (2, 3), 3)
    assert (labels.ignore_label, labels.regions_class_order) == (4, (1, 2, 3))


def test_numbers_that_nnunet_takes_as_labels() -> None:
    assert parse(labels={"background": "0", "a": 1.0, "b": "2"}).labels.all_labels == (0, 1, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_names": ...}, "no channel_names"),
        ({"channel_names": ["CT"]}, "channel_names"),
        ({"channel_names": {}}, "channel_names"),
        ({"channel_names": {"0": "a", "2": "b"}}, "numbers 0 to 1"),
        ({"channel_names": {"1": "a", "2": "b"}}, "numbers 0 to 1"),
        ({"channel_names": {"0": 3}}, "names that are strings"),
        ({"labels": ...}, "no labels"),
        ({"labels": [0, 1]}, "labels"),
        ({"labels": {"0": "background", "1": "a"}}, "Swap names and numbers"),
        ({"labels": {"a": 1}}, "no label 'background'"),
        ({"labels": {"background": 1, "a": 2}}, "label 'background': 1"),
        ({"labels": {"background": [0], "a": 1}}, "label 'background'"),
        ({"labels": {"background": 0}}, "at least one foreground label"),
        ({"labels": {"background": 0, "a": 1.5}}, "label 'a': 1.5"),
        ({"labels": {"background": 0, "a": -1}}, "label 'a': -1"),
        ({"labels": {"background": 0, "a": True}}, "label 'a': true"),
        ({"labels": {"background": 0, "a": 40000}}, "label 40000; expected labels up to 32766"),
        ({"labels": {"background": 0, "a": [1, 2**31 - 1]}}, "labels up to 32766"),
        ({"labels": {"background": 0, "a": None}}, "label 'a': null"),
        ({"labels": {"background": 0, "a": []}}, r"label 'a': \[\]"),
        ({"labels": {"background": 0, "a": float("nan")}}, "label 'a': NaN"),
        ({"labels": {"background": 0, "a": 1, "ignore": 1}}, "expected 2, one above"),
        ({"labels": {"background": 0, "a": 1, "ignore": 3}}, "expected 2, one above"),
        ({"labels": {"background": 0, "a": 1, "ignore": [2]}}, "no region"),
        ({"labels": {"background": 0, "a": [1, 2]}}, "regions without regions_class_order"),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2}, "regions_class_order": [1]}, "2 labels, one for each"),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2}, "regions_class_order": [1, 3]}, r"with \[3\]"),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2}, "regions_class_order": [1, 1]}, "more than once"),
        ({"regions_class_order": "12"}, "regions_class_order"),
        ({"file_ending": ...}, "no file_ending"),
        ({"file_ending": "nii.gz"}, "an ending with its dot"),
        ({"file_ending": 3}, "an ending with its dot"),
        ({"numTraining": ...}, "no numTraining"),
        ({"numTraining": "many"}, "numTraining"),
        ({"overwrite_image_reader_writer": 3}, "the name of a reader"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse(**changes)
    assert "Dataset001_X/dataset.json" in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "order", "hidden"),
    [
        ({"core": 2, "whole": [1, 2]}, [2, 1], "'core' before 'whole'"),
        ({"whole": [1, 2, 3], "enhancing": 3, "core": [2, 3]}, [1, 3, 2], "'enhancing' before 'core'"),
        ({"whole": [1, 2], "core": 2}, [1, 2], None),
        ({"left": [1, 2], "right": [2, 3]}, [1, 3], None),
    ],
)
def test_a_region_that_another_is_painted_over_is_told(labels: Any, order: list[int], hidden: str | None) -> None:
    changes = {"labels": {"background": 0, **labels}, "regions_class_order": order}
    description, findings = check_description({**GOOD, **changes}, "Dataset001_X", FILE)
    assert description is not None
    told = [str(f) for f in findings]
    assert [hidden in text and "outermost region first" in text for text in told] == ([True] if hidden else [])


def test_all_mistakes_come_at_once() -> None:
    with pytest.raises(DataError, match="4 problems") as caught:
        parse(channel_names=..., labels={"background": 0, "a": -1}, file_ending="x", numTraining=None)
    assert len(str(caught.value).splitlines()) == 5


@pytest.mark.parametrize("raw", [None, [], "x", 3])
def test_no_object(raw: Any) -> None:
    description, findings = check_description(raw, "x", FILE)
    assert description is None
    assert findings


def test_gaps() -> None:
    assert label_gaps(LabelSet({"background": 0, "a": 1, "b": 3})) == [2]
    assert label_gaps(LabelSet({"background": 0, "a": (1, 2, 4), "b": 4})) == [3]
    assert label_gaps(LabelSet({"background": 0, "a": 1, "ignore": 2})) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no valid JSON"),
        (b"{", "no valid JSON"),
        (b"\xff\xfe\x00", "no valid JSON"),
        (b"[" * 100_000, "nested too deeply|no valid JSON"),
        (b'{"labels": {"a": 1, "a": 2}}', "a more than once"),
        (None, "no such file"),
    ],
)
def test_unreadable_json(content: bytes | None, message: str, tmp_path: Path) -> None:
    import re

    file = tmp_path / "dataset.json"
    if content is not None:
        file.write_bytes(content)
    _, findings = read_strict_json(file)
    assert any(re.search(message, f.found) for f in findings), findings


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert read_strict_json(tmp_path / "dataset.json") == (GOOD, [])
