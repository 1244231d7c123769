"""How well predictions match references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Class = int | tuple[int, ...]


@dataclass(frozen=True)
class CaseEvaluation:
    """Metrics of one case: class -> metric name -> value (NaN where undefined)."""

    reference: Path
    prediction: Path
    metrics: Mapping[Class, Mapping[str, float]]

    @property
    def name(self) -> str:
        """The case: the prediction file's name without its ending (`.nii.gz` is one)."""
        stem = self.prediction.name.removesuffix(".gz")
        return stem.rpartition(".")[0] or stem


@dataclass(frozen=True)
class Evaluation:
    """summary.json: per case, the mean over cases per class, and the mean of those over foreground classes.

    Args:
        missing: cases with a reference and no prediction, which are in none of the numbers.
        unexpected: predictions without a reference.
    """

    cases: tuple[CaseEvaluation, ...]
    mean: Mapping[Class, Mapping[str, float]]
    foreground_mean: Mapping[str, float]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    @property
    def mean_dice(self) -> float:
        return self.foreground_mean["Dice"]


@dataclass(frozen=True)
class Choice:
    """The best configuration or ensemble of a data set, and the postprocessing decided with it.

    `members` are model folders; more than one is an ensemble. `postprocessing` is a postprocessing.json, or None.
    """

    members: tuple[Path, ...]
    folds: tuple[int | str, ...]
    mean_dice: float
    postprocessing: Path | None = None
