"""From label maps to summary.json."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segplug.errors import DataError, UsageError
from segplug.model import Geometry, Labels, LabelSet
from segplug.runtime import confusion
from segplug.runtime.confusion import confusion_matrix
from segplug.runtime.evaluation import (
    build_metrics,
    class_key,
    class_of_key,
    evaluate_case,
    read_summary,
    summarise,
    write_summary,
)

TWO = LabelSet({"background": 0, "a": 1, "b": 2})


def labels(array, spacing=(1.0, 1.0, 1.0)):
    return Labels(np.asarray(array, dtype=np.uint8).reshape(1, 1, -1), Geometry(spacing))


def evaluated(kernel, reference, prediction, label_set=TWO, name="case"):
    file = Path(f"{name}.nii.gz")
    return evaluate_case(labels(reference), labels(prediction), label_set, build_metrics(kernel.registry),
                         reference_file=file, prediction_file=file)  # fmt: skip


@given(
    st.sampled_from(["uint8", "int8", "int16", "uint16", "int32", "uint64", "bool"]).flatmap(
        lambda d: st.tuples(*[hnp.arrays(d, (3, 7))] * 2)
    ),
    st.lists(st.sampled_from([0, 1, 2, 5, 300, 65535]), unique=True),
    st.sampled_from([None, 0, 3, 6]),
)
def test_confusion_matrix_counts_every_pair(pair, values, ignore):
    reference, prediction = pair
    matrix = confusion_matrix(reference, prediction, values, ignore)
    expected = np.zeros_like(matrix.counts)
    place = {value: position for position, value in enumerate(sorted(values))}
    for r, p in zip(reference.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if r != ignore:
            expected[place.get(r, len(values)), place.get(p, len(values))] += 1
    assert matrix.values == tuple(sorted(values))
    np.testing.assert_array_equal(matrix.counts, expected)


def test_confusion_matrix_is_the_same_in_chunks_and_for_any_memory_order(monkeypatch):
    rng = np.random.default_rng(0)
    reference, prediction = rng.integers(0, 4, (2, 9, 11, 13)).astype(np.int16)
    whole = confusion_matrix(reference, prediction, (0, 1, 2), 3).counts
    monkeypatch.setattr(confusion, "_CHUNK", 100)
    np.testing.assert_array_equal(confusion_matrix(reference, prediction, (0, 1, 2), 3).counts, whole)
    turned = np.asfortranarray(reference), prediction[::-1][::-1]
    np.testing.assert_array_equal(confusion_matrix(*turned, (0, 1, 2), 3).counts, whole)


def test_confusion_matrix_refuses_what_it_cannot_compare():
    ones = np.ones((2, 3), dtype=np.uint8)
    with pytest.raises(DataError, match=r"reference \(2, 3\), prediction \(3, 2\)"):
        confusion_matrix(ones, ones.T, (1,))
    with pytest.raises(DataError, match="prediction: a label map holds integers; found float32"):
        confusion_matrix(ones, ones.astype(np.float32), (1,))
    with pytest.raises(UsageError, match="0 to 65535"):
        confusion_matrix(ones, ones, (1, 70000))


def test_case_metrics_by_hand(kernel):
    case = evaluated(kernel, [0, 1, 1, 2, 2, 2, 0, 0], [0, 1, 2, 2, 2, 0, 0, 1])
    assert case.metrics[1] == {"Dice": 0.5, "IoU": 1 / 3, "FP": 1, "TP": 1, "FN": 1, "TN": 5, "n_pred": 2, "n_ref": 2}
    assert case.metrics[2]["Dice"] == pytest.approx(4 / 6)
    assert list(case.metrics) == [1, 2]


def test_ignored_voxels_count_nowhere(kernel):
    sparse = LabelSet({"background": 0, "a": 1, "ignore": 2})
    case = evaluated(kernel, [1, 1, 2, 2, 0], [1, 0, 1, 1, 0], sparse)
    assert case.metrics == {
        1: {"Dice": 2 / 3, "IoU": 0.5, "FP": 0, "TP": 1, "FN": 1, "TN": 1, "n_pred": 1, "n_ref": 2},
    }


def test_regions_are_scored_as_unions(kernel):
    regions = LabelSet({"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
    case = evaluated(kernel, [1, 2, 0, 0], [2, 2, 0, 1], regions)
    assert case.metrics[(1, 2)]["Dice"] == pytest.approx(4 / 5)
    assert case.metrics[(2,)]["Dice"] == pytest.approx(2 / 3)


def test_means_leave_out_undefined_values_and_only_those(kernel):
    cases = [
        evaluated(kernel, [1, 1, 0], [1, 0, 0], name="one"),
        evaluated(kernel, [0, 0, 0], [0, 0, 0], name="two"),  # no class at all: NaN
        evaluated(kernel, [0, 0, 0], [1, 0, 0], name="three"),  # only predicted: 0
    ]
    evaluation = summarise(cases)
    assert evaluation.mean[1]["Dice"] == pytest.approx((2 / 3 + 0) / 2)
    assert math.isnan(evaluation.mean[2]["Dice"])
    assert math.isnan(evaluation.mean_dice)  # as in nnU-Net: a class that is nowhere makes the mean undefined
    assert evaluation.mean[1]["n_ref"] == pytest.approx(2 / 3)


def test_no_cases_is_an_error():
    with pytest.raises(DataError, match="no cases"):
        summarise([])


def test_summary_survives_the_round_trip(kernel, tmp_path):
    regions = LabelSet({"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
    cases = [evaluated(kernel, [1, 0, 0], [1, 1, 0], regions), evaluated(kernel, [1, 2, 0], [1, 2, 0], regions)]
    evaluation = summarise(cases, missing=("lost",))
    write_summary(tmp_path / "summary.json", evaluation)
    text = (tmp_path / "summary.json").read_text()
    assert list(json.loads(text)) == ["foreground_mean", "mean", "metric_per_case", "segplug"]
    assert list(json.loads(text)["mean"]) == ["(1, 2)", "(2,)"]
    again = read_summary(tmp_path / "summary.json")
    assert repr(again) == repr(evaluation) or again.missing == ("lost",)
    write_summary(tmp_path / "again.json", again)
    assert (tmp_path / "again.json").read_text() == text


def test_a_file_that_is_no_summary_is_named(tmp_path):
    (tmp_path / "summary.json").write_text('{"mean": {}}')
    with pytest.raises(DataError, match=r"summary\.json: not a summary.json .*metric_per_case"):
        read_summary(tmp_path / "summary.json")


@pytest.mark.parametrize(("target", "key"), [(3, "3"), ((1, 2), "(1, 2)"), ((4,), "(4,)")])
def test_class_keys_are_nnunets(target, key):
    assert class_key(target) == key
    assert class_of_key(key) == target


def test_metrics_are_named_as_in_summaries(kernel, ball):
    metrics = build_metrics(kernel.registry, ["hd95", "surface_dice,tolerance=2"])
    assert list(metrics) == ["Dice", "IoU", "HD95", "SurfaceDice(tolerance=2)"]
    case = evaluate_case(ball, ball, TWO, metrics, reference_file=Path("a"), prediction_file=Path("a"))
    assert case.metrics[1]["HD95"] == 0
    assert case.metrics[2]["SurfaceDice(tolerance=2)"] == 1


def test_wrong_metrics_are_told(kernel):
    with pytest.raises(UsageError, match="hd95"):
        build_metrics(kernel.registry, ["hd96"])
    with pytest.raises(UsageError, match=r"percentile is .high., which is no number"):
        build_metrics(kernel.registry, ["hd95,percentile=high"])
    with pytest.raises(UsageError, match="percent"):
        build_metrics(kernel.registry, ["hd95,percent=5"])


@pytest.mark.parametrize(("file", "name"), [("a.b.nii.gz", "a.b"), ("x.png", "x"), ("plain", "plain")])
def test_case_names(kernel, file, name):
    case = evaluate_case(labels([1]), labels([1]), TWO, {}, reference_file=Path("r"), prediction_file=Path(file))
    assert case.name == name
