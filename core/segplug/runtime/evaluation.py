"""From label maps to metrics: one case, the mean over cases, and nnU-Net's summary.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segplug.errors import DataError, PluginError
from segplug.model import CaseEvaluation, Evaluation, Labels, LabelSet
from segplug.model.evaluation import Class
from segplug.protocols import Comparison, Metric
from segplug.runtime.component_text import component_of_user
from segplug.runtime.confusion import as_labels, confusion_matrix
from segplug.runtime.files import read_json, write_json

if TYPE_CHECKING:
    from segplug.kernel.registry import Registry

SUMMARY = "summary.json"
STANDARD = ("Dice", "IoU")
"""Metrics of every summary.json beside the voxel counts."""


def build_metrics(registry: Registry, names: Sequence[str] = ()) -> dict[str, Metric]:
    """The standard metrics and those named, each under the name that it has in summary.json.

    A component's first alias is that name, if it has one: `hd95` is written as `HD95`. Options stand behind the name
    and are part of it, as they were given: `surface_dice,tolerance=2` is written as `SurfaceDice(tolerance=2)`.

    Raises:
        UsageError: a metric does not exist or does not take an option or its value.
        PluginError: a metric cannot be loaded.
    """
    metrics: dict[str, Metric] = {}
    for text in (*STANDARD, *names):
        reference = component_of_user(registry, "metrics", text, f"metric {text}")
        component = registry.resolve("metrics", reference.name).component
        shown = component.aliases[0] if component.aliases else component.name
        options = text.partition(",")[2] if reference.options else ""
        metrics[f"{shown}({options})" if options else shown] = registry.build("metrics", reference)
    return metrics


def evaluate_case(
    reference: Labels,
    prediction: Labels,
    labels: LabelSet,
    metrics: Mapping[str, Metric],
    *,
    reference_file: Path,
    prediction_file: Path,
) -> CaseEvaluation:
    """Metrics of every class (`labels.classes`) of one case.

    Beside `metrics` each class has the voxel counts `TP FP FN TN n_pred n_ref`, as in nnU-Net. Voxels with the ignore
    label in the reference count nowhere.

    Args:
        metrics: from `build_metrics`.
        reference_file, prediction_file: what summary.json names; for arrays in memory, the case's name.

    Raises:
        DataError: the shapes differ, or an array holds no integers; the message names both files.
        PluginError: a metric gives something else than a number.
    """
    classes, ignore = labels.classes, labels.ignore_label
    known = sorted({v for target in classes for v in as_labels(target)})
    try:
        matrix = confusion_matrix(reference.array, prediction.array, known, ignore)
    except DataError as error:
        raise DataError(f"{prediction_file} cannot be compared with {reference_file}: {error}") from None
    valid = None if ignore is None else reference.array != ignore
    found: dict[Class, dict[str, float]] = {}
    for target in classes:
        n = matrix.of(target)
        comparison = Comparison(
            **vars(n),
            reference_labels=reference.array,
            predicted_labels=prediction.array,
            values=as_labels(target),
            spacing=reference.spacing,
            valid=valid,
        )
        found[target] = {name: _number(name, metric(comparison)) for name, metric in metrics.items()}
        found[target] |= {"FP": n.fp, "TP": n.tp, "FN": n.fn, "TN": n.tn, "n_pred": n.tp + n.fp, "n_ref": n.tp + n.fn}
    return CaseEvaluation(reference_file, prediction_file, found)


def summarise(
    cases: Sequence[CaseEvaluation], *, missing: Sequence[str] = (), unexpected: Sequence[str] = ()
) -> Evaluation:
    """Means over cases and classes, by nnU-Net's rules.

    Per class and metric the mean over the cases in which it is defined, NaN if it is in none; `foreground_mean` is the
    plain mean of those over the classes, so NaN if a class has no value at all.

    Raises:
        DataError: there are no cases.
    """
    if not cases:
        raise DataError("nothing to evaluate: there are no cases")
    mean = {
        target: {name: _defined_mean([case.metrics[target][name] for case in cases]) for name in values}
        for target, values in cases[0].metrics.items()
    }
    names = next(iter(mean.values()), {})
    foreground = {name: float(np.mean([mean[target][name] for target in mean])) for name in names}
    return Evaluation(tuple(cases), mean, foreground, tuple(missing), tuple(unexpected))


def write_summary(path: Path, evaluation: Evaluation) -> None:
    """Write summary.json as nnU-Net does (undefined values as NaN); what it has no word for under `segplug`."""
    content: dict[str, Any] = {
        "foreground_mean": dict(evaluation.foreground_mean),
        "mean": _by_text(evaluation.mean),
        "metric_per_case": [
            {
                "metrics": _by_text(case.metrics),
                "prediction_file": str(case.prediction),
                "reference_file": str(case.reference),
            }
            for case in evaluation.cases
        ],
    }
    left_out = {"missing_predictions": evaluation.missing, "unexpected_predictions": evaluation.unexpected}
    if any(left_out.values()):
        content["segplug"] = {key: list(cases) for key, cases in left_out.items()}
    write_json(path, content, sort_keys=True)


def read_summary(path: Path) -> Evaluation:
    """Read a summary.json of segplug or nnU-Net.

    Raises:
        DataError: the file is missing or is not a summary.
    """
    content = read_json(path)
    try:
        cases = tuple(
            CaseEvaluation(Path(c["reference_file"]), Path(c["prediction_file"]), _by_class(c["metrics"]))
            for c in content["metric_per_case"]
        )
        extra = content.get("segplug", {})
        return Evaluation(
            cases,
            _by_class(content["mean"]),
            dict(content["foreground_mean"]),
            tuple(extra.get("missing_predictions", ())),
            tuple(extra.get("unexpected_predictions", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: not a summary.json of an evaluation ({type(error).__name__}: {error}). "
            "Make it anew with 'segplug evaluate'"
        ) from None


def class_key(target: Class) -> str:
    """How summary.json writes a class: `1` for a label, `(1, 2)` or `(4,)` for a region."""
    return str(target)


def class_of_key(key: str) -> Class:
    """The class that a key of summary.json stands for."""
    if not key.startswith("("):
        return int(key)
    return tuple(int(part) for part in key.strip("()").split(",") if part.strip())


def _number(metric: str, value: Any) -> float:
    try:
        if not isinstance(value, (str, bytes)):  # which float would read
            return float(value)
    except (TypeError, ValueError):
        pass
    raise PluginError(f"metrics: {metric!r} returned a {type(value).__name__}; expected a number")


def _defined_mean(values: Sequence[float]) -> float:
    return math.nan if all(math.isnan(v) for v in values) else float(np.nanmean(values))


def _by_text(of_classes: Mapping[Class, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {class_key(target): dict(values) for target, values in of_classes.items()}


def _by_class(of_keys: Mapping[str, Mapping[str, float]]) -> dict[Class, dict[str, float]]:
    return {class_of_key(key): dict(values) for key, values in of_keys.items()}
