"""One case, against what nnunetv2 2.8.1 makes of the same phantoms (`make_golden.py`)."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segplug.errors import DataError
from segplug.kernel import Kernel
from segplug.model import DatasetDescription, Geometry, Image, Labels, Plan
from segplug.runtime.class_locations import class_locations
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.plan_codec import decode_plan
from segplug.runtime.preprocessing import (
    Preprocessing,
    geometry_from_json,
    geometry_to_json,
    preprocess_image,
    resampled_shape,
)

FOLDER = Path(__file__).parent / "data"
TEXTS: dict[str, Any] = json.loads((FOLDER / "golden.json").read_text())
REGISTRY = Kernel(discover=False).registry


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "golden.npz") as file:
        return dict(file)


def loaded(name: str, arrays: dict[str, np.ndarray]) -> tuple[Image, Labels, Plan, DatasetDescription]:
    text = TEXTS[name]
    geometry = Geometry(tuple(text["properties"]["spacing"]))
    image = Image(arrays[f"{name}/image"].astype(np.float32), geometry)
    description = parse_description(text["dataset"], "Dataset900_Phantom", Path("dataset.json"))
    plan = decode_plan(text["plan"], Path("plans.json"))
    return image, Labels(arrays[f"{name}/labels"], geometry), plan, description


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("name", TEXTS)
def test_it_is_nnunets(name: str, labelled: bool, arrays: dict[str, np.ndarray]) -> None:
    image, labels, plan, description = loaded(name, arrays)
    kept = image.array.copy(), labels.array.copy()
    found = preprocess_image(image, labels if labelled else None, plan, plan.configurations["test"], REGISTRY)
    data, target, properties = found
    expected = arrays[f"{name}/data"]
    if not labelled:
        expected = arrays.get(f"{name}/data_without_labels", expected)
    assert data.dtype == np.float32
    assert data.shape == expected.shape
    assert np.abs(data - expected).max() <= 1e-5 * np.ptp(expected)
    wanted = TEXTS[name]["properties"]
    assert {key: properties[key] for key in wanted} == wanted
    assert json.loads(json.dumps(properties)) == properties
    assert np.array_equal(image.array, kept[0])
    assert np.array_equal(labels.array, kept[1])
    if not labelled:
        assert target is None
        return
    assert target is not None
    assert target.dtype == np.int16
    assert np.mean(target == arrays[f"{name}/target"]) >= 0.9999
    counts = {str(k): len(v) for k, v in class_locations(target, description.labels).items()}
    assert counts == TEXTS[name]["locations"]


def test_results_do_not_share_memory_with_the_case(arrays: dict[str, np.ndarray]) -> None:
    image, labels, plan, _ = loaded("nothing_to_do", arrays)
    steps = Preprocessing.of(plan, plan.configurations["test"], REGISTRY)
    case = steps.crop(image, labels)
    first, second = steps.finish(case), steps.finish(case)
    assert first[1] is not None
    first[0][:], first[1][:] = 99, 9
    assert second[1] is not None
    assert second[0].max() < 99
    assert second[1].max() < 9
    assert case.target is not None
    assert case.target.max() < 9


def test_steps_travel_to_workers(arrays: dict[str, np.ndarray]) -> None:
    image, labels, plan, _ = loaded("masked_two_channels_transposed", arrays)
    steps = Preprocessing.of(plan, plan.configurations["test"], REGISTRY)
    there: Preprocessing = pickle.loads(pickle.dumps(steps))
    assert np.array_equal(there.finish(there.crop(image, labels))[0], steps.finish(steps.crop(image, labels))[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float, arrays: dict[str, np.ndarray]) -> None:
    image, labels, plan, _ = loaded("masked_two_channels_transposed", arrays)
    image.array[1, 2, 3, 4] = value
    with pytest.raises(DataError, match=r"channel 1 has 1 values that are not finite.*\(2, 3, 4\)"):
        preprocess_image(image, labels, plan, plan.configurations["test"], REGISTRY)


def test_what_does_not_fit_is_refused(arrays: dict[str, np.ndarray]) -> None:
    image, labels, plan, _ = loaded("ct_coarse_axis_alone", arrays)
    configuration = plan.configurations["test"]
    with pytest.raises(DataError, match="label map has shape"):
        preprocess_image(image, Labels(labels.array[1:], labels.geometry), plan, configuration, REGISTRY)
    with pytest.raises(DataError, match="2 channels, the plan 1"):
        preprocess_image(Image(np.repeat(image.array, 2, 0), image.geometry), None, plan, configuration, REGISTRY)


def test_shapes_are_rounded_half_to_even_and_never_empty() -> None:
    assert resampled_shape((5, 7, 100), (1, 1, 0.001), (2, 2, 1)) == (2, 4, 1)


def test_geometry_survives_json() -> None:
    geometry = Geometry((3.0, 1.0, 1.0), (1.5, 0.0, -2.0), (1.0, 0.0, 0.0), {"affine": np.eye(2), "name": "a"})
    back = geometry_from_json(json.loads(json.dumps(geometry_to_json(geometry))))
    assert back == Geometry(
        geometry.spacing, geometry.origin, geometry.direction, {"affine": [[1, 0], [0, 1]], "name": "a"}
    )
