"""Largest-component postprocessing; against nnunetv2 itself in test_against_nnunetv2.py."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segplug.errors import DataError
from segplug.model import Geometry, Labels, LabelSet
from segplug_builtin.postprocessors import LargestComponent

TWO = LabelSet({"background": 0, "a": 1, "b": 2})
REGIONS = LabelSet({"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))


def maps(*rows):
    return Labels(np.array([rows], dtype=np.uint8), Geometry((1.0, 1.0, 1.0)))


def decision(*targets):
    function = "remove_all_but_largest_component_from_segmentation"
    return {
        "postprocessing_fns": [function] * len(targets),
        "postprocessing_kwargs": [{"labels_or_regions": t} for t in targets],
    }


def targets_of(found):
    return [k["labels_or_regions"] for k in found["postprocessing_kwargs"]]


@settings(max_examples=100, deadline=None)
@given(
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=5).flatmap(
        lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, 2]))
    ),
    st.sampled_from([(1,), (1, 2)]),
)
def test_components_equal_those_of_a_flood_fill(array, step):
    todo = {tuple(v) for v in np.argwhere(np.isin(array, step)).tolist()}
    components = []
    while todo:
        front, component = [todo.pop()], set()
        while front:
            voxel = front.pop()
            component.add(voxel)
            for offset in itertools.product((-1, 0, 1), repeat=3):
                neighbour = tuple(np.add(voxel, offset).tolist())
                if neighbour in todo:
                    todo.remove(neighbour)
                    front.append(neighbour)
        components.append(component)
    expected = array.copy()
    largest = max(map(len, components), default=0)
    for voxel in itertools.chain.from_iterable(c for c in components if len(c) < largest):
        expected[voxel] = 0
    before = array.copy()
    cleaned = LargestComponent().apply(Labels(array, Geometry((1.0, 1.0, 1.0))), decision(list(step)), TWO)
    np.testing.assert_array_equal(cleaned.array, expected)
    np.testing.assert_array_equal(array, before)  # the prediction given stays as it is


def test_a_stray_island_of_foreground_is_removed():
    reference = maps([1, 1, 2, 0, 0, 0], [1, 1, 2, 0, 0, 0])
    prediction = maps([1, 1, 2, 0, 0, 2], [1, 1, 2, 0, 0, 0])
    found = LargestComponent().fit([(reference, prediction)], TWO)
    assert targets_of(found) == [[1, 2]]
    assert found["input_folder"]["mean"]["2"]["Dice"] == pytest.approx(0.8)
    assert found["postprocessed"]["foreground_mean"]["Dice"] == 1
    np.testing.assert_array_equal(LargestComponent().apply(prediction, found, TWO).array, reference.array)


def test_foreground_stays_if_one_class_would_get_worse_but_classes_are_decided_alone():
    # class 2 truly has two parts; class 1 has an island of its own that touches class 2
    reference = maps([1, 1, 1, 0, 2, 2], [1, 1, 1, 0, 0, 0])
    prediction = maps([1, 1, 1, 0, 2, 2], [1, 1, 1, 0, 0, 1])
    found = LargestComponent().fit([(reference, prediction)], TWO)
    assert targets_of(found) == [1]
    np.testing.assert_array_equal(LargestComponent().apply(prediction, found, TWO).array, reference.array)


def test_nothing_is_decided_where_nothing_helps():
    reference = maps([1, 0, 1, 0, 2])
    found = LargestComponent().fit([(reference, reference)], TWO)
    assert targets_of(found) == []
    assert LargestComponent().apply(reference, found, TWO).array is reference.array


def test_a_single_class_is_decided_once():
    one = LabelSet({"background": 0, "a": 1})
    found = LargestComponent().fit([(maps([1, 1, 0, 0]), maps([1, 1, 0, 1]))], one)
    assert targets_of(found) == [[1]]


def test_regions_are_components_of_unions():
    reference = maps([1, 2, 2, 0, 0, 0, 0])
    prediction = maps([1, 2, 2, 0, 1, 0, 2])
    found = LargestComponent().fit([(reference, prediction)], REGIONS)
    assert targets_of(found) == [[1, 2]]
    assert list(found["postprocessed"]["mean"]) == ["(1, 2)", "(2,)"]


def test_a_decision_is_json_and_means_the_same_after_reading_it():
    pairs = [(maps([1, 2, 2, 0, 0]), maps([1, 2, 2, 0, 2]))]
    found = LargestComponent().fit(pairs, REGIONS)
    again = json.loads(json.dumps(found))
    assert again == found
    applied = [LargestComponent().apply(pairs[0][1], d, REGIONS).array for d in (found, again)]
    np.testing.assert_array_equal(*applied)


@pytest.mark.parametrize(("labels", "passes"), [(TWO, 2), (REGIONS, 1 + len(REGIONS.classes))])
def test_pairs_are_read_one_at_a_time_in_few_passes(labels, passes):
    class Pairs(list):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            return super().__getitem__(index)

    pairs = Pairs([(maps([1, 2]), maps([1, 2]))] * 3)
    LargestComponent().fit(pairs, labels)
    assert pairs.reads == 3 * passes


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_decision_is_that_of_one_class_after_the_other(data):
    """The scores that were put together from one pass are those of the predictions cleaned up."""
    arrays = hnp.arrays(np.uint8, (1, 4, 5), elements=st.sampled_from([0, 0, 1, 2, 3]))
    labels = LabelSet({"background": 0, "a": 1, "b": 2, "c": 3})
    pairs = [tuple(Labels(data.draw(arrays), Geometry((1.0, 1.0, 1.0))) for _ in range(2)) for _ in range(2)]
    pairs.append((maps([1, 2, 3, 0, 0]), maps([1, 2, 3, 0, 0])))  # every class has a score
    found = LargestComponent().fit(pairs, labels)
    cleaned = [(reference, LargestComponent().apply(prediction, found, labels)) for reference, prediction in pairs]
    again = LargestComponent().fit(cleaned, labels)["input_folder"]
    for target, metrics in found["postprocessed"]["mean"].items():
        assert metrics == pytest.approx(again["mean"][target], nan_ok=True)
    assert found["postprocessed"]["foreground_mean"] == pytest.approx(again["foreground_mean"], nan_ok=True)
    decided = targets_of(found)
    for target in (1, 2, 3):
        without = [t for t in decided if t != target]
        dice = [
            LargestComponent().fit(
                [(r, LargestComponent().apply(p, decision(*steps), labels)) for r, p in pairs], labels
            )["input_folder"]["mean"][str(target)]["Dice"]
            for steps in (without, [*without, target])
        ]
        assert (dice[1] > dice[0]) == (target in decided)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "not a decision"),
        (decision() | {"postprocessing_fns": ["x"]}, "not a decision"),
        (decision(1) | {"postprocessing_fns": ["os.system"]}, r"os\.system"),
        (decision("everything"), "not a decision"),
        ({**decision(1), "postprocessing_kwargs": [{"labels_or_regions": 1, "background_label": 7}]}, "expected 0"),
    ],
)
def test_foreign_decisions_are_refused(wrong, message):
    with pytest.raises(DataError, match=message):
        LargestComponent().apply(maps([1]), wrong, TWO)
