"""Plans that a hand has spoilt are refused in words that name the entry, all of them at once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segplug.errors import DataError
from segplug.runtime.files import read_json
from segplug.runtime.plan_codec import decode_plan

SOURCE = Path("nnUNetPlans.json")
NAME = "3d_fullres"


@pytest.fixture(scope="module")
def whole(shared: Path) -> dict[str, Any]:
    """What nnunetv2 planned for Hippocampus."""
    found: dict[str, Any] = read_json(next((shared / "reference/Dataset004_Hippocampus").glob("nnUNetPlans.json")))
    return found


@pytest.mark.parametrize(
    ("entry", "value", "told"),
    [
        ("data_identifier", "../../elsewhere", "data_identifier is '../../elsewhere'; expected a plain folder name"),
        ("data_identifier", "..", "data_identifier is '..'; expected a plain"),
        ("data_identifier", 5, "data_identifier is 5"),
        ("batch_size", 0, "batch_size is 0; expected a whole number from 1 on"),
        ("batch_size", "2", "batch_size is '2'"),
        pytest.param(
            "batch_size",
            10**5000,
            "batch_size is a number of thousands of digits; expected at most 100000",
            id="digits",
        ),
        ("patch_size", [10**9] * 3, r"patch_size is \[1000000000, .*; expected at most 2147483648 voxels together"),
        ("batch_size", True, "batch_size is True"),
        ("patch_size", "big", "patch_size is"),
        ("patch_size", [0, 16, 16], r"patch_size is \[0, 16, 16\]; expected two or three whole numbers from 1 on"),
        ("patch_size", [16.5, 16, 16], "patch_size is"),
        ("patch_size", [16, 16, 16, 16], "patch_size is"),
        ("patch_size", [13, 17, 19], r"patch_size is \[13, 17, 19\]; expected multiples of \[8, 8, 8\], by which"),
        ("spacing", [0, 1, 1], r"spacing is \[0, 1, 1\]; expected 3 numbers above 0"),
        ("spacing", ["a", 1, 1], "spacing is"),
        ("spacing", [1, 1], r"spacing is \[1, 1\]; expected 3 numbers"),
        ("spacing", [1, 1, float("nan")], "spacing is"),
        ("use_mask_for_norm", "no", "use_mask_for_norm is"),
        ("use_mask_for_norm", [], r"use_mask_for_norm is \[\]; expected true or false for each of"),
        ("batch_dice", "yes", "batch_dice is 'yes'; expected true or false"),
        ("resampling_fn_data_kwargs", [1], r"options of resampling_fn_data is \[1\]"),
        ("resampling_fn_data", 7, "resampling_fn_data is 7; expected the name of a component"),
    ],
)
def test_an_entry_of_a_configuration(whole: dict[str, Any], entry: str, value: Any, told: str) -> None:
    raw = copy.deepcopy(whole)
    raw["configurations"][NAME][entry] = value
    with pytest.raises(DataError, match=rf"^nnUNetPlans\.json: (.*\n  )?configuration '{NAME}': {told}"):
        decode_plan(raw, SOURCE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"transpose_forward": [0, 0, 1]}, r"transpose_forward is \[0, 0, 1\]; expected the axes 0, 1 and 2"),
        ({"transpose_forward": ["a", 1, 2]}, "transpose_forward is"),
        ({"transpose_backward": [0, 1]}, "transpose_backward is"),
        ({"image_reader_writer": None}, "image_reader_writer is None; expected the name of a component"),
        ({"dataset_name": 4}, "dataset_name is 4; expected a text"),
        ({"segplug": {"training": {"*": {"name": "short", "options": 7}}}}, r"options of segplug.training of \* is 7"),
        ({"segplug": {"training": {"2d": {"name": 7}}}}, "segplug.training of 2d is 7"),
    ],
)
def test_an_entry_of_the_whole(whole: dict[str, Any], change: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=rf"^nnUNetPlans\.json: {told}"):
        decode_plan({**whole, **change}, SOURCE)


def test_all_of_them_are_told(whole: dict[str, Any]) -> None:
    raw: dict[str, Any] = {**copy.deepcopy(whole), "plans_name": ""}
    raw["configurations"][NAME]["batch_size"] = -1
    raw["configurations"]["2d"]["batch_dice"] = 1
    with pytest.raises(DataError) as caught:
        decode_plan(raw, SOURCE)
    lines = str(caught.value).splitlines()
    assert lines[0] == "nnUNetPlans.json: 3 entries cannot be:"
    assert len(lines) == 5


@pytest.mark.parametrize("use", [lambda raw: raw, lambda raw: {**raw, "transpose_forward": [2, 0, 1]}])
def test_sound_plans_pass(whole: dict[str, Any], use: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    assert decode_plan(use(whole), SOURCE).configurations[NAME].name == NAME


def test_features_that_no_memory_holds(whole: dict[str, Any]) -> None:
    raw = copy.deepcopy(whole)
    raw["configurations"][NAME]["architecture"]["arch_kwargs"]["features_per_stage"][-1] = 10**7
    with pytest.raises(DataError, match=r"features_per_stage is \[.*10000000\]; expected at most 65536 in a stage"):
        decode_plan(raw, SOURCE)
