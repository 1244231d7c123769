"""Names of model folders, and of what is made of several folds or models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segplug.errors import UsageError

_BETWEEN = "__"
_BETWEEN_MODELS = "___"
_ENSEMBLE = "ensemble"
CROSSVAL = "crossval_results_folds_"
"""Begins the name of a cross-validation's folder; its folds follow."""


@dataclass(frozen=True)
class ModelName:
    """`<Trainer>__<Plans>__<Configuration>`, the name of a model folder."""

    trainer: str
    plans: str
    configuration: str

    def __str__(self) -> str:
        return _BETWEEN.join((self.trainer, self.plans, self.configuration))


def parse_model_name(name: str) -> ModelName:
    """Take a model folder's name apart.

    Raises:
        UsageError: it has no three parts.
    """
    parts = name.split(_BETWEEN)
    if len(parts) != 3 or not all(parts):
        raise UsageError(f"{name}: no name of a model; expected <Trainer>__<Plans>__<Configuration>")
    return ModelName(*parts)


def trained_models(folder: Path) -> list[ModelName]:
    """Names of the model folders in a data set's folder of results, sorted; it need not exist."""
    there = sorted(f.name for f in folder.glob(f"*{_BETWEEN}*{_BETWEEN}*") if f.is_dir()) if folder.is_dir() else []
    return [ModelName(*parts) for parts in (name.split(_BETWEEN) for name in there) if len(parts) == 3 and all(parts)]


def folds_text(folds: Sequence[int | str]) -> str:
    """`0_1_2_3_4`."""
    return "_".join(map(str, folds))


def fold_of(text: str) -> int | str:
    """A number, or a name such as `all`."""
    return int(text) if text.isdecimal() else text


def folds_of(text: str) -> list[int | str]:
    """The folds of `folds_text`."""
    return [fold_of(fold) for fold in text.split("_")]


def crossval_name(folds: Sequence[int | str]) -> str:
    """Folder of the cross-validation in a model folder."""
    return f"{CROSSVAL}{folds_text(folds)}"


def ensemble_name(members: Sequence[ModelName], folds: Sequence[int | str]) -> str:
    """Folder of an ensemble's cross-validation."""
    return _BETWEEN_MODELS.join((_ENSEMBLE, *map(str, members), folds_text(folds)))


def ensemble_parts(name: str) -> tuple[list[str], list[int | str]]:
    """Names of the members, and folds, of `ensemble_name`."""
    _, *members, folds = name.split(_BETWEEN_MODELS)
    return members, folds_of(folds)
