"""Metrics against slow, obvious implementations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segplug.errors import UsageError
from segplug.protocols import Comparison
from segplug.runtime.confusion import confusion_matrix
from segplug_builtin.metrics import dice, hd95, iou, surface_dice


def comparison(reference, prediction, spacing=(1.0, 1.0, 1.0), values=(1,), ignore=None):
    counts = confusion_matrix(reference, prediction, values, ignore).of(values)
    valid = None if ignore is None else reference != ignore
    return Comparison(**vars(counts), reference_labels=reference, predicted_labels=prediction, values=values,
                      spacing=spacing, valid=valid)  # fmt: skip


def slow_surface(mask):
    """Voxels with a face neighbour outside the mask, one by one."""
    found = []
    for voxel in itertools.product(*map(range, mask.shape)):
        if not mask[voxel]:
            continue
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            if mask.shape[axis] == 1 and mask.size > 1:
                continue
            neighbour = list(voxel)
            neighbour[axis] += step
            if not 0 <= neighbour[axis] < mask.shape[axis] or not mask[tuple(neighbour)]:
                found.append(voxel)
                break
    return found


def slow_distances(first, second, spacing):
    return [min(math.dist(np.multiply(a, spacing), np.multiply(b, spacing)) for b in second) for a in first]


pairs = hnp.array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 1, 2]))] * 2)
)
spacings = st.tuples(*[st.sampled_from([0.3, 1.0, 2.5])] * 3)


@settings(max_examples=150, deadline=None)
@given(pairs, spacings, st.sampled_from([0.0, 0.3, 0.9, 1.0, 2.5]), st.booleans())
def test_surface_metrics_equal_the_obvious_implementation(pair, spacing, tolerance, with_ignore):
    reference, prediction = pair
    ignore = 2 if with_ignore else None
    case = comparison(reference, prediction, spacing, ignore=ignore)
    masks = [(reference == 1), (prediction == 1)]
    if with_ignore:
        masks[1] = masks[1] & (reference != 2)
    if not masks[0].any() and not masks[1].any():
        assert math.isnan(hd95(case))
        assert math.isnan(surface_dice(case, tolerance))
        return
    if not masks[0].any() or not masks[1].any():
        corner = [n - 1 for n in reference.shape]
        assert hd95(case) == pytest.approx(math.dist([0, 0, 0], np.multiply(corner, spacing)))
        assert surface_dice(case, tolerance) == 0
        return
    a, b = (slow_surface(m) for m in masks)
    there, back = slow_distances(a, b, spacing), slow_distances(b, a, spacing)
    assert hd95(case) == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-9)
    assert hd95(case, percentile=100) == pytest.approx(max(*there, *back), abs=1e-9)
    within = sum(d <= tolerance + 1e-9 for d in there + back)
    assert surface_dice(case, tolerance) == pytest.approx(within / len(there + back))


@settings(max_examples=100, deadline=None)
@given(pairs, st.sampled_from([(1,), (1, 2)]), st.sampled_from([None, 2, 5]))
def test_overlap_metrics_equal_sets_of_voxels(pair, values, ignore):
    reference, prediction = pair
    counted = [tuple(v) for v in np.argwhere(np.ones(reference.shape))]
    counted = [v for v in counted if ignore is None or reference[v] != ignore]
    a = {v for v in counted if reference[v] in values}
    b = {v for v in counted if prediction[v] in values}
    case = comparison(reference, prediction, values=values, ignore=ignore)
    assert (case.tp, case.fp, case.fn, case.tn) == (len(a & b), len(b - a), len(a - b), len(counted) - len(a | b))
    if a | b:
        assert dice(case) == pytest.approx(2 * len(a & b) / (len(a) + len(b)))
        assert iou(case) == pytest.approx(len(a & b) / len(a | b))
    else:
        assert math.isnan(dice(case))
        assert math.isnan(iou(case))


def test_two_boxes_one_voxel_apart_in_mm():
    reference, prediction = np.zeros((2, 1, 20, 20), dtype=np.uint8)
    reference[0, 5:15, 5:15] = 1
    prediction[0, 5:15, 7:17] = 1
    case = comparison(reference, prediction, (999.0, 1.0, 0.5))
    assert hd95(case) == pytest.approx(1.0)  # two pixels of half a millimetre; the slice thickness plays no part
    assert surface_dice(case, tolerance=1.0) == 1
    assert surface_dice(case, tolerance=0.5) < 1


def test_a_full_mask_has_a_surface_at_the_border_of_the_image():
    full = np.ones((4, 5, 6), dtype=np.uint8)
    case = comparison(full, full)
    assert hd95(case) == 0
    assert surface_dice(case) == 1


@pytest.mark.parametrize("metric", [lambda c: hd95(c, percentile=101), lambda c: surface_dice(c, tolerance=-1)])
def test_senseless_options_are_refused(metric):
    ones = np.ones((1, 2, 2), dtype=np.uint8)
    with pytest.raises(UsageError, match="expected a"):
        metric(comparison(ones, ones))
