"""How well predictions match references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Class = int | tuple[int, ...]


@dataclass(frozen=True)
class CaseEvaluation:
    """Metrics of one case: class -> metric name -> value (NaN where undefined).

    `unknown_labels` are labels of the prediction that the data set does not have, each with its number of voxels.
    """

    reference: Path
    prediction: Path
    metrics: Mapping[Class, Mapping[str, float]]
    unknown_labels: Mapping[int, int] = field(default_factory=dict)

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
    def absent(self) -> tuple[Class, ...]:
        """Classes of which no reference and no prediction has a voxel: they have no score."""
        sizes = {t: sum(c.metrics[t]["n_ref"] + c.metrics[t]["n_pred"] for c in self.cases) for t in self.mean}
        return tuple(target for target, size in sizes.items() if not size)

    @property
    def mean_dice(self) -> float:
        return self.foreground_mean["Dice"]


@dataclass(frozen=True)
class Choice:
    """The best model or ensemble of a data set, and the postprocessing decided with it.

    Args:
        dataset: the data set's name.
        members: model folders; more than one is an ensemble, whose probabilities are averaged.
        folds: whose networks are averaged within each member.
        mean_dice: of the cross-validation, mean over foreground classes.
        postprocessed_dice: the same after postprocessing.
        postprocessing: postprocessing.json.
    """

    dataset: str
    members: tuple[Path, ...]
    folds: tuple[int | str, ...]
    mean_dice: float
    postprocessed_dice: float
    postprocessing: Path
