"""Postprocessing: keep the largest component, where cross-validation says that it helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.model import CaseEvaluation, Evaluation, Labels, LabelSet
from segplug.model.evaluation import Class
from segplug.protocols import Decision
from segplug.runtime.confusion import as_labels
from segplug.runtime.evaluation import class_key, evaluate_case, summarise
from segplug.runtime.label_pairs import map_pairs
from segplug_builtin.metrics import dice, iou

_FUNCTION = "remove_all_but_largest_component_from_segmentation"
"""nnU-Net's word in postprocessing.json for the one thing that it does there."""

Step = tuple[int, ...]
"""Labels whose union is reduced to its largest component."""


class LargestComponent:
    """nnU-Net's rule: remove all but the largest component, first of all foreground, then of each class.

    A decision is what nnU-Net writes to postprocessing.json, and one that nnU-Net wrote can be applied.
    """

    def fit(self, pairs: Sequence[tuple[Labels, Labels]], labels: LabelSet) -> Decision:
        """Decide from pairs of (reference, prediction).

        For all foreground together: if the mean Dice over classes rises and that of no class falls. Then class by
        class, in dataset.json's order and on top of what is decided already: if the Dice of that class rises. With a
        single class there is nothing left to do per class. Dice is the mean over cases; see `runtime.evaluation`.

        Takes two passes over the pairs; with regions, which share voxels, one more for each.

        Raises:
            DataError: there are no pairs, or those of a case differ in shape.
        """
        foreground = labels.foreground_labels
        before, candidate = _scores(pairs, labels, [[], [foreground]])
        best, decided = before, list[Class]()
        if candidate.mean_dice > before.mean_dice and not any(
            candidate.mean[target]["Dice"] < before.mean[target]["Dice"] for target in before.mean
        ):
            best, decided = candidate, [foreground]
        targets = labels.classes if len(labels.classes) > 1 else ()
        alone: list[Evaluation] = []
        if (
            targets and not labels.has_regions
        ):  # labels share no voxels: what is done to one leaves the others as they are
            alone = _scores(pairs, labels, [[*map(as_labels, decided), as_labels(target)] for target in targets])
        for number, target in enumerate(targets):
            if alone:
                candidate = _with_class(best, alone[number], target)
            else:
                (candidate,) = _scores(pairs, labels, [[*map(as_labels, decided), as_labels(target)]])
            if candidate.mean[target]["Dice"] > best.mean[target]["Dice"]:
                best, decided = candidate, [*decided, target]
        return {
            "input_folder": _means(before),
            "postprocessed": _means(best),
            "postprocessing_fns": [_FUNCTION] * len(decided),
            "postprocessing_kwargs": [
                {"labels_or_regions": list(target) if isinstance(target, tuple) else target} for target in decided
            ],
        }

    def apply(self, prediction: Labels, decision: Decision, labels: LabelSet) -> Labels:
        """Return the prediction with what was decided; what is removed becomes background.

        Raises:
            DataError: the decision is not one of this postprocessor or of nnU-Net.
        """
        return Labels(reduce(_keep_largest, _steps(decision), prediction.array), prediction.geometry)


def _with_class(evaluation: Evaluation, other: Evaluation, target: Class) -> Evaluation:
    """An evaluation with the metrics of one class from another one of the same pairs."""
    return summarise(
        [
            replace(case, metrics={**case.metrics, target: changed.metrics[target]})
            for case, changed in zip(evaluation.cases, other.cases, strict=True)
        ]
    )


def _steps(decision: Decision) -> list[Step]:
    try:
        functions, options = decision["postprocessing_fns"], decision["postprocessing_kwargs"]
        steps = []
        for function, option in zip(functions, options, strict=True):
            if function != _FUNCTION or set(option) - {"background_label"} != {"labels_or_regions"}:
                raise DataError(
                    f"postprocessing.json: found {function}({option}); expected {_FUNCTION} with 'labels_or_regions'. "
                    "Fit the postprocessing again, or apply it with the program that wrote it"
                )
            if option.get("background_label", 0) != 0:
                raise DataError(f"postprocessing.json: background_label {option['background_label']}; expected 0")
            steps.append(_flat(option["labels_or_regions"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"postprocessing.json: not a decision about components ({type(error).__name__}: {error}). "
            "Fit the postprocessing again"
        ) from None
    return steps


def _flat(target: Any) -> Step:
    """Labels of a label, of a region, or of a list of them: their union is what counts."""
    if isinstance(target, (list, tuple)):
        return tuple(label for part in target for label in _flat(part))
    return (int(target),)


def _scores(
    pairs: Sequence[tuple[Labels, Labels]], labels: LabelSet, variants: Sequence[Sequence[Step]]
) -> list[Evaluation]:
    """Evaluate several lists of steps in one pass over the pairs."""
    found = map_pairs(pairs, partial(_score, labels=labels, variants=[list(steps) for steps in variants]))
    return [summarise([of_pair[number] for of_pair in found]) for number, _ in enumerate(variants)]


def _score(
    pair: tuple[Labels, Labels], *, labels: LabelSet, variants: Sequence[Sequence[Step]]
) -> list[CaseEvaluation]:
    """Evaluate one pair after each list of steps; may run in a worker."""
    reference, prediction = pair
    found = []
    for steps in variants:
        cleaned = Labels(reduce(_keep_largest, steps, prediction.array), prediction.geometry)
        nowhere = Path()
        found.append(
            evaluate_case(
                reference, cleaned, labels, {"Dice": dice, "IoU": iou}, reference_file=nowhere, prediction_file=nowhere
            )
        )
    return found


def _means(evaluation: Evaluation) -> dict[str, Any]:
    mean = {class_key(target): dict(values) for target, values in evaluation.mean.items()}
    return {"foreground_mean": dict(evaluation.foreground_mean), "mean": mean}


def _keep_largest(labels: NDArray[Any], step: Step) -> NDArray[Any]:
    """Set all but the largest component of the step's labels to 0; several of the same size are all kept.

    Voxels are connected if they share a corner (nnU-Net's rule).
    """
    from scipy import ndimage

    mask = np.isin(labels, step)
    if not mask.any():
        return labels
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    components, count = ndimage.label(mask[box], structure=np.ones((3,) * labels.ndim))
    if count == 1:
        return labels
    del mask
    sizes = np.zeros(count + 1, np.int64)
    for plane in components:  # bincount makes a copy eight times as large as a label map
        found = np.bincount(plane.reshape(-1))
        sizes[: len(found)] += found
    sizes[0] = sizes[1:].max()  # what is no component stays as it is
    cleaned = labels.copy()
    cleaned[box][(sizes < sizes[0])[components]] = 0
    return cleaned
