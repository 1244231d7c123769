"""After prediction, in memory: metrics, ensembles, postprocessing, and which model is best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.arrays.images import LabelValues, label_set, usual_project
from segplug.errors import DataError, UsageError
from segplug.model import Evaluation, Labels, LabelSet, Prediction
from segplug.model.evaluation import Class
from segplug.protocols import Decision, Postprocessor
from segplug.runtime.postprocessing_file import DEFAULT_POSTPROCESSOR
from segplug.runtime.project import Project
from segplug.stages.evaluate import evaluate_arrays

Pair = tuple[Labels, Labels]
"""Reference and prediction."""


@dataclass(frozen=True)
class Selection:
    """What was compared, and what is best.

    Args:
        members: names of the best model, or of the two whose probabilities are averaged.
        mean_dice: of the best, mean over foreground classes.
        postprocessed_dice: the same after postprocessing.
        decision: which postprocessing helps; for `apply_postprocessing`.
        scores: mean Dice of everything that was compared.
    """

    members: tuple[str, ...]
    mean_dice: float
    postprocessed_dice: float
    decision: Decision
    scores: Mapping[tuple[str, ...], float]


def evaluate_pair(
    reference: Labels,
    prediction: Labels,
    labels: LabelValues,
    *,
    metrics: Sequence[str] = (),
    project: Project | None = None,
) -> Mapping[Class, Mapping[str, float]]:
    """Dice, IoU and voxel counts of each class of one case; see `evaluate`.

    Returns:
        Class (label, or labels of a region) -> metric -> value; NaN where a metric is not defined.
    """
    return evaluate([(reference, prediction)], labels, metrics=metrics, project=project).cases[0].metrics


def evaluate(
    pairs: Sequence[Pair],
    labels: LabelValues,
    *,
    metrics: Sequence[str] = (),
    project: Project | None = None,
) -> Evaluation:
    """Compare predictions with references, by nnU-Net's rules.

    Args:
        pairs: (reference, prediction) of each case.
        labels: see `label_set`.
        metrics: names of further ones, such as `hd95` or `surface_dice,tolerance=2`.

    Raises:
        DataError: there are no pairs, or shapes or places of a pair differ.
        UsageError: there is no such metric.
    """
    named = {f"case {number}": pair for number, pair in enumerate(pairs)}
    return evaluate_arrays(project or usual_project(), named, label_set(labels), metrics=metrics)


def ensemble(predictions: Sequence[Prediction], labels: LabelValues) -> Prediction:
    """Average the probabilities of several models for one image, and make the label map that they say.

    Args:
        predictions: with probabilities, of one image and the same classes.

    Raises:
        UsageError: there is none, or one is without probabilities.
        DataError: the shapes differ, or do not fit the labels.
    """
    parts = [p.probabilities for p in predictions if p.probabilities is not None]
    if not parts or len(parts) < len(predictions):
        raise UsageError("ensemble: expected predictions with probabilities: predict(..., probabilities=True)")
    known, shapes = label_set(labels), [part.shape for part in parts]
    if len(set(shapes)) > 1 or shapes[0][0] != len(known.output_values):
        raise DataError(
            f"ensemble: probabilities of shape {', '.join(map(str, shapes))}; expected one shape, with "
            f"{len(known.output_values)} channels first"
        )
    mean = parts[0].astype(np.float32)
    for part in parts[1:]:
        mean += part
    mean /= len(parts)
    return Prediction(Labels(_as_labels(mean, known), predictions[0].labels.geometry), mean)


def fit_postprocessing(
    pairs: Sequence[Pair],
    labels: LabelValues,
    *,
    postprocessor: str = DEFAULT_POSTPROCESSOR,
    project: Project | None = None,
) -> Decision:
    """Decide on pairs of (reference, prediction) what clean-up helps: the content of postprocessing.json.

    Raises:
        DataError: there are no pairs, or shapes differ.
        PluginError: there is no such postprocessor.
    """
    return _postprocessor(postprocessor, project).fit(pairs, label_set(labels))


def apply_postprocessing(
    prediction: Labels,
    decision: Decision,
    labels: LabelValues,
    *,
    postprocessor: str = DEFAULT_POSTPROCESSOR,
    project: Project | None = None,
) -> Labels:
    """The prediction cleaned up as was decided; the one given stays as it is.

    Raises:
        DataError: the decision is not one of this postprocessor.
    """
    return _postprocessor(postprocessor, project).apply(prediction, decision, label_set(labels))


def select(
    references: Sequence[Labels],
    predictions: Mapping[str, Sequence[Prediction]],
    labels: LabelValues,
    *,
    ensembles: bool = True,
    postprocessor: str = DEFAULT_POSTPROCESSOR,
    project: Project | None = None,
) -> Selection:
    """Find the best model, or pair of models, and the postprocessing that goes with it.

    nnU-Net's rule: the highest mean foreground Dice wins, of equals the first, single models before pairs.

    Args:
        references: one of each case.
        predictions: name of a model -> its predictions of the same cases, made by networks that were not trained on
            them; with probabilities if pairs are to be compared.
        ensembles: compare pairs of models too.

    Raises:
        UsageError: there is no model, or a model has another number of predictions than there are references, or
            probabilities are missing.
        DataError: shapes differ.
    """
    wrong = [name for name, found in predictions.items() if len(found) != len(references)]
    if wrong or not predictions:
        raise UsageError(
            f"select: {', '.join(wrong) or 'no model'}; expected models with {len(references)} predictions each, one "
            "for every reference"
        )
    known = label_set(labels)
    candidates: list[tuple[str, ...]] = [(name,) for name in predictions]
    candidates += combinations(predictions, 2) if ensembles else ()

    def pairs(members: Sequence[str]) -> list[Pair]:
        if len(members) == 1:
            return [(r, p.labels) for r, p in zip(references, predictions[members[0]], strict=True)]
        of_cases = zip(*(predictions[name] for name in members), strict=True)
        return [(r, ensemble(parts, known).labels) for r, parts in zip(references, of_cases, strict=True)]

    scores = {members: evaluate(pairs(members), known, project=project).mean_dice for members in candidates}
    best = max(scores, key=lambda members: -math.inf if math.isnan(scores[members]) else scores[members])
    chosen = pairs(best)
    made = _postprocessor(postprocessor, project)
    decision = made.fit(chosen, known)
    cleaned = [(reference, made.apply(prediction, decision, known)) for reference, prediction in chosen]
    return Selection(best, scores[best], evaluate(cleaned, known, project=project).mean_dice, decision, scores)


def _postprocessor(name: str, project: Project | None) -> Postprocessor:
    built: Postprocessor = (project or usual_project()).kernel.registry.build("postprocessors", name)
    return built


def _as_labels(probabilities: NDArray[np.float32], labels: LabelSet) -> NDArray[Any]:
    """The most probable label, the first of equals; with regions, each above 0.5 painted in `regions_class_order`."""
    if not labels.has_regions:
        best: NDArray[Any] = np.asarray(labels.output_values, labels.output_dtype)[probabilities.argmax(0)]
        return best
    found: NDArray[Any] = np.zeros(probabilities.shape[1:], labels.output_dtype)
    for region, value in zip(probabilities, labels.output_values, strict=True):
        found[region > 0.5] = value
    return found
