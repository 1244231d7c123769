"""The page of a report: what it says, arranged for people, in one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any

import segplug
from segplug.model import Configuration, Evaluation, LabelSet, Plan
from segplug.runtime.report.facts import CaseFacts, ModelFacts, case_score

SECTIONS = (
    ("data", "Data set"),
    ("plans", "Plans and networks"),
    ("training", "Training"),
    ("metrics", "Metrics"),
    ("worst", "Worst cases"),
    ("choice", "The choice"),
)


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    is_number: bool = False


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and by what its column is sorted, where that is something else."""

    text: str
    sort: str | None = None


@dataclass(frozen=True)
class Table:
    """A table whose columns can be sorted by a click."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def render(name: str, **content: Any) -> str:
    """The page of a data set.

    Args:
        content: what `page.html` beside this file names.
    """
    from jinja2 import Environment, StrictUndefined

    # everything is escaped but what is marked: names in dataset.json are strangers' text
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    date = f"{datetime.now():%Y-%m-%d %H:%M}"
    return template.render(name=name, sections=SECTIONS, version=segplug.__version__, date=date, **content)


def case_table(cases: Sequence[CaseFacts], labels: LabelSet) -> Table:
    """Every training case: shape, spacing, size of each class."""
    unit = "mm²" if all(case.is_2d for case in cases) else "mm³"
    columns = [Column("case"), Column("shape"), Column("spacing")]
    columns += [Column(f"{labels.name_of(target)} ({unit})", is_number=True) for target in labels.classes]
    rows = []
    for case in cases:
        size = (
            Cell(_shape(case.shape), str(math.prod(case.shape))),
            Cell(_shape(case.spacing), str(max(case.spacing))),
        )
        rows.append((Cell(case.name), *size, *(_number(case.sizes[target], 0) for target in labels.classes)))
    return Table(tuple(columns), tuple(rows))


def plan_table(plan: Plan, parameters: Mapping[str, int | None]) -> Table:
    """Every configuration of a plan.

    Args:
        parameters: of each configuration's network; None where it cannot be built here.
    """
    described = [_described(c, parameters.get(c.name)) for c in plan.configurations.values()]
    told = [title for title in (described[0] if described else ()) if any(each[title] for each in described)]
    columns = (Column("configuration"), *map(Column, told))
    rows = [
        (Cell(name), *(Cell(each[title]) for title in told))
        for name, each in zip(plan.configurations, described, strict=True)
    ]
    return Table(columns, tuple(rows))


def _described(configuration: Configuration, parameters: int | None) -> dict[str, str]:
    options = configuration.architecture.options
    strides = options.get("strides")
    return {
        "patch size": _shape(configuration.patch_size),
        "batch size": str(configuration.batch_size),
        "median shape": _shape(configuration.median_shape),
        "spacing": _shape(configuration.spacing),
        "normalization": ", ".join(dict.fromkeys(ref.name for ref in configuration.normalization)),
        "network": configuration.architecture.name.rpartition(".")[2],
        "features": " ".join(map(str, options.get("features_per_stage") or [])),
        "strides": ", ".join(_shape(s) if isinstance(s, (list, tuple)) else str(s) for s in strides or []),
        "parameters": "" if parameters is None else f"{parameters / 1e6:.2f} million",
        "builds on": configuration.previous_stage or "",
    }


def fold_table(model: ModelFacts) -> Table:
    """Every fold of a model: how long it was trained, and how it scored."""
    columns = (
        Column("fold"),
        Column("epochs", is_number=True),
        Column("hours", is_number=True),
        Column("pseudo-Dice", is_number=True),
        Column("validation cases", is_number=True),
        Column("mean Dice", is_number=True),
    )
    rows = []
    for fold in model.folds:
        pseudo = fold.logging.get("ema_fg_dice") or [math.nan]
        evaluated = fold.evaluation
        rows.append(
            (
                Cell(fold.fold),
                Cell(str(fold.epochs)),
                _number(fold.hours, 2),
                _number(float(pseudo[-1]), 4),
                Cell("" if evaluated is None else str(len(evaluated.cases))),
                _number(math.nan if evaluated is None else evaluated.mean_dice, 4),
            )
        )
    return Table(columns, tuple(rows))


def comparison_table(evaluations: Mapping[str, Evaluation], labels: LabelSet) -> Table:
    """Mean Dice of every model, over all classes and of each."""
    columns = [Column("model"), Column("cases", is_number=True), Column("mean Dice", is_number=True)]
    columns += [Column(f"{labels.name_of(target)} Dice", is_number=True) for target in labels.classes]
    rows = [
        (
            Cell(name),
            Cell(str(len(found.cases))),
            _number(found.mean_dice, 4),
            *(_number(found.mean.get(target, {}).get("Dice", math.nan), 4) for target in labels.classes),
        )
        for name, found in evaluations.items()
    ]
    return Table(tuple(columns), tuple(rows))


def score_table(evaluation: Evaluation, labels: LabelSet) -> Table:
    """Every metric of each case and class; voxel counts are left to summary.json."""
    counts = {"TP", "FP", "FN", "TN", "n_pred", "n_ref"}
    names = [name for name in next(iter(evaluation.mean.values()), {}) if name not in counts]
    names.sort(key=lambda name: name != "Dice")
    wanted = [(target, name) for target in evaluation.mean for name in names]
    columns = [Column("case"), Column("mean Dice", is_number=True)]
    columns += [Column(f"{labels.name_of(target)} {name}", is_number=True) for target, name in wanted]
    rows = [
        (
            Cell(case.name),
            _number(case_score(case), 4),
            *(_number(case.metrics[target].get(name, math.nan), 4) for target, name in wanted),
        )
        for case in evaluation.cases
    ]
    return Table(tuple(columns), tuple(rows))


def result_table(results: Mapping[str, float]) -> Table:
    """Mean Dice of everything that a choice was made from, the best first."""
    ranked = sorted(results.items(), key=lambda item: -math.inf if math.isnan(item[1]) else item[1], reverse=True)
    columns = (Column("candidate"), Column("mean Dice", is_number=True))
    return Table(columns, tuple((Cell(name), _number(value, 4)) for name, value in ranked))


def _number(value: float, digits: int) -> Cell:
    if math.isnan(value):
        return Cell("", "")
    return Cell(f"{value:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}"), repr(float(value)))


def _shape(values: Sequence[float]) -> str:
    texts = (f"{value:.4g}" if isinstance(value, float) and value % 1 else f"{value:.0f}" for value in values)
    return "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}".join(texts)
