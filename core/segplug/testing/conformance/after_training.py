"""Postprocessors, metrics and inference engines."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.model import Geometry, Labels, LabelSet
from segplug.protocols import Comparison, Postprocessor
from segplug.testing.conformance.small_training import predict_small, train_small
from segplug.testing.conformance.suite import Subject, check, expect

SPACING = (2.0, 1.0, 1.0)
LABELS = LabelSet({"background": 0, "organ": 1, "lesion": 2})


def _pairs() -> list[tuple[Labels, Labels]]:
    """References, and predictions with specks beside the organ, a hole in it, and in one case nothing."""
    pairs = []
    for number in range(4):
        reference = np.zeros((6, 16, 14), np.uint8)
        reference[1:5, 3 + number : 10, 4:11] = 1
        reference[2:4, 5:8, 6:9] = 2
        prediction = reference.copy()
        prediction[0, 0, : 1 + number], prediction[5, 15, 12:], prediction[3, 6, 7] = 1, 2, 0
        if number == 3:
            prediction[:] = 0
        pairs.append((Labels(reference, Geometry(SPACING)), Labels(prediction, Geometry(SPACING))))
    return pairs


class _Unkept(Sequence[tuple[Labels, Labels]]):
    """Pairs that are made when they are indexed, as the framework's are read."""

    def __len__(self) -> int:
        return len(_pairs())

    def __getitem__(self, index: Any) -> Any:
        return _pairs()[index]


@check("postprocessors", "what it decides is JSON, and the same for the same pairs")
def _decides(subject: Subject) -> None:
    postprocessor: Postprocessor = subject.build()
    first, second = postprocessor.fit(_Unkept(), LABELS), postprocessor.fit(_Unkept(), LABELS)
    try:
        text = json.dumps(first, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"the decision is not JSON: {error}; keys must be texts, numbers plain") from error
    expect(json.loads(text) == first, f"read again as JSON the decision is another: {json.loads(text)}")
    expect(first == second, "the same pairs led to two decisions")


@check("postprocessors", "applied, it keeps shape, type and geometry, adds no label, and leaves its argument alone")
def _applies(subject: Subject) -> None:
    postprocessor: Postprocessor = subject.build()
    decision = json.loads(json.dumps(postprocessor.fit(_Unkept(), LABELS)))
    for (_, prediction), (_, before) in zip(_pairs(), _pairs(), strict=True):
        found = postprocessor.apply(prediction, decision, LABELS)
        expect(found.array.shape == before.array.shape, f"shape {found.array.shape}; expected {before.array.shape}")
        expect(found.array.dtype == before.array.dtype, f"{found.array.dtype}; expected {before.array.dtype}")
        expect(found.geometry == prediction.geometry, "the geometry was changed")
        expect(bool((prediction.array == before.array).all()), "the prediction given was changed in place")
        new = set(np.unique(found.array)) - set(LABELS.all_labels)
        expect(not new, f"labels {sorted(new)} came up")


def _compared(reference: NDArray[Any], prediction: NDArray[Any]) -> Comparison:
    true, found = reference == 1, prediction == 1
    tp, fp, fn, tn = (int(each.sum()) for each in (true & found, ~true & found, true & ~found, ~true & ~found))
    return Comparison(tp, fp, fn, tn, reference, prediction, (1,), SPACING)


@check("metrics", "it is a float, finite where class and prediction overlap, and the same each time")
def _measures(subject: Subject) -> None:
    reference, prediction = (each.array for each in _pairs()[0])
    metric = subject.build()
    value, again = (metric(_compared(reference, prediction)) for _ in range(2))
    expect(isinstance(value, float), f"it returns a {type(value).__name__}; expected a float (JSON keeps it)")
    expect(math.isfinite(value) and value == again, f"{value}, then {again}")


@check("metrics", "where neither has the class it is NaN; where one has, it is a number or NaN, and nothing is raised")
def _is_undefined(subject: Subject) -> None:
    reference, _ = (each.array for each in _pairs()[0])
    nothing, metric = np.zeros_like(reference), subject.build()
    value = metric(_compared(nothing, nothing))
    expect(math.isnan(value), f"{value} without the class in either; expected NaN, which means leave it out")
    for pair in ((reference, nothing), (nothing, reference)):
        expect(isinstance(metric(_compared(*pair)), float), "it is no float where one of the two is empty")


@check("predictors", "it predicts what the built-in engine predicts from the same weights, voxel for voxel but few")
def _predicts(subject: Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = train_small(subject.kernel, Path(folder))
        wanted, _ = predict_small(subject.kernel, model, "builtin:torch")
        found, image = predict_small(subject.kernel, model, subject.ref.name)
    expect(found.shape == image.shape, f"labels of shape {found.shape} for an image of {image.shape}")
    agreement = float(np.mean(found == wanted))
    expect(agreement >= 0.999, f"{agreement:.4%} of the voxels agree with the built-in engine; expected 99.9 %")
