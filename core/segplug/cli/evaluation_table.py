"""An evaluation as a table for people and programs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from segplug.cli.shell import Format, show
from segplug.model import Evaluation, LabelSet
from segplug.runtime.evaluation import class_key

_WIDEST = 12
"""Columns of numbers that a terminal holds; with more classes and metrics there is a row per class instead."""

_COUNTS = frozenset({"FP", "TP", "FN", "TN", "n_pred", "n_ref", "IoU"})
"""In summary.json for whoever wants them; not in the table."""


def show_evaluation(evaluation: Evaluation, labels: LabelSet, output: Format = Format.TABLE) -> None:
    """Print a row per case with the metrics of each class, and their means; NaN is an empty cell or null.

    With very many classes: a row per class with the means over cases.
    """
    metrics = [name for name in evaluation.foreground_mean if name not in _COUNTS]
    names = {target: named_class(labels, target) for target in evaluation.mean}
    if len(names) * len(metrics) > _WIDEST:
        rows = [[names[t], *_numbers(values, metrics)] for t, values in evaluation.mean.items()]
        show(["class", *metrics], [*rows, ["mean", *_numbers(evaluation.foreground_mean, metrics)]], output)
        return
    per_class = [f"{names[t]} {m}" for t in names for m in metrics]
    columns = ["case", *per_class, *(f"mean {m}" for m in metrics)]
    rows = []
    for case in evaluation.cases:
        values = [_numbers(case.metrics[t], metrics) for t in names]
        rows.append([case.name, *(v for of_class in values for v in of_class), *_means(values)])
    mean = [v for t in names for v in _numbers(evaluation.mean[t], metrics)]
    show(columns, [*rows, ["mean", *mean, *_numbers(evaluation.foreground_mean, metrics)]], output)


def named_class(labels: LabelSet, target: Any) -> str:
    """The name that dataset.json gives a class, else its number."""
    name = labels.name_of(target)
    return f"class {class_key(target)}" if name == class_key(target) else name


def _numbers(values: Mapping[str, float], metrics: list[str]) -> list[float | None]:
    return [None if math.isnan(values[m]) else float(values[m]) for m in metrics]


def _means(values: list[list[float | None]]) -> list[float | None]:
    """Mean over classes, metric by metric, of what is defined."""
    defined = [[v for v in column if v is not None] for column in zip(*values, strict=True)]
    return [sum(column) / len(column) if column else None for column in defined]
