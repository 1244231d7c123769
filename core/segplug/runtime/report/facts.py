"""What a report says, as values: the data set's cases, the trained models, how they scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import CheckpointError, DataError
from segplug.model import Case, CaseEvaluation, DatasetDescription, Evaluation, TrainedFold
from segplug.model.evaluation import Class
from segplug.protocols import Reader
from segplug.runtime.case_reading import read_image, read_labels
from segplug.runtime.confusion import as_labels
from segplug.runtime.evaluation import SUMMARY, read_summary, summarise
from segplug.runtime.label_counts import count_labels
from segplug.runtime.model_names import ModelName
from segplug.runtime.training_log import EpochHistory

SAMPLE = 4000
"""Intensities that a case gives to a histogram, per channel: evenly spread, the same ones every time."""

NO_SPACING = 999.0
"""Spacing between the slices of a 2D image (nnU-Net's)."""


@dataclass(frozen=True)
class CaseFacts:
    """A training case.

    Args:
        shape, spacing: (z, y, x).
        sizes: class -> mm³ (2D: mm², as pixels have a spacing of 1 where the format tells none).
        foreground, everything: per channel, a sample of the intensities in labelled and in all voxels.
    """

    name: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    sizes: Mapping[Class, float]
    foreground: tuple[NDArray[np.float32], ...]
    everything: tuple[NDArray[np.float32], ...]

    @property
    def is_2d(self) -> bool:
        return self.shape[0] == 1 and self.spacing[0] == NO_SPACING


def look_at_case(case: Case, reader: Reader, description: DatasetDescription) -> CaseFacts:
    """Read a case; what a worker does.

    Raises:
        DataError: a file is missing or damaged, or image and labels differ in shape.
    """
    image = read_image(reader, case, description.num_channels)
    if case.label is None:
        raise DataError(f"case {case.name}: no label map")
    labels = read_labels(reader, case.label)
    if labels.shape != image.shape:
        raise DataError(f"case {case.name}: image {image.shape} and labels {labels.shape} differ in shape")
    counts = count_labels(labels.array)
    voxel = math.prod(s for s in image.spacing if s != NO_SPACING)
    label_set = description.labels
    inside = np.isin(labels.array, label_set.foreground_labels)
    return CaseFacts(
        name=case.name,
        shape=tuple(image.shape),
        spacing=tuple(image.spacing),
        sizes={c: voxel * sum(counts.get(v, 0) for v in as_labels(c)) for c in label_set.classes},
        foreground=tuple(_sample(channel[inside]) for channel in image.array),
        everything=tuple(_sample(channel.ravel()) for channel in image.array),
    )


def _sample(values: NDArray[np.float32]) -> NDArray[np.float32]:
    finite = values[:: max(1, values.size // SAMPLE)]
    return finite[np.isfinite(finite)].copy()


@dataclass(frozen=True)
class FoldFacts:
    """A fold: what its newest checkpoint tells of the training, and its validation where it is done."""

    fold: str
    logging: Mapping[str, list[Any]]
    evaluation: Evaluation | None
    problem: str = ""

    @property
    def epochs(self) -> int:
        return min(map(len, self.logging.values()), default=0)

    @property
    def hours(self) -> float:
        """Time spent in epochs."""
        ends, starts = (self.logging.get(f"epoch_{which}_timestamps", ()) for which in ("end", "start"))
        return float(sum(end - start for end, start in zip(ends, starts, strict=False))) / 3600


@dataclass(frozen=True)
class ModelFacts:
    """A model and its folds."""

    name: ModelName
    folds: tuple[FoldFacts, ...]

    @property
    def evaluation(self) -> Evaluation | None:
        """All validation cases of the folds together, but not of `all`, which trained on them; None without any."""
        folds = [f for f in self.folds if f.evaluation is not None and f.fold != "all"]
        cases: list[CaseEvaluation] = [c for f in folds if f.evaluation is not None for c in f.evaluation.cases]
        return summarise(cases) if cases else None


def read_model(root: Path, name: ModelName) -> ModelFacts:
    """Everything about a model in a data set's folder of results. What cannot be read is told, not raised."""
    folds = sorted((root / str(name)).glob("fold_*"), key=lambda f: (len(f.name), f.name))
    trained = [f for f in folds if f.is_dir() and _newest_checkpoint(f) is not None]
    return ModelFacts(name, tuple(_read_fold(folder) for folder in trained))


def _newest_checkpoint(folder: Path) -> Path | None:
    files = (folder / f"checkpoint_{which}.pth" for which in ("final", "latest", "best"))
    return next((file for file in files if file.is_file()), None)


def _read_fold(folder: Path) -> FoldFacts:
    from segplug.runtime.checkpoint import read_checkpoint

    name = folder.name.removeprefix("fold_")
    file = _newest_checkpoint(folder)
    assert file is not None
    logging: dict[str, list[Any]] = {}
    evaluation, problem = None, ""
    try:
        # nnU-Net notes the best pseudo-Dice and more in the same place
        logging = EpochHistory(read_checkpoint(file, mapped=True).state.get("logging")).as_logging()
        summary = TrainedFold(folder, name).validation_folder / SUMMARY
        evaluation = read_summary(summary) if summary.is_file() else None
    except (CheckpointError, DataError) as error:
        problem = str(error)
    return FoldFacts(name, logging, evaluation, problem)


def case_score(case: CaseEvaluation) -> float:
    """Mean Dice over the classes that the case or its prediction has; NaN without any."""
    scores = [values["Dice"] for values in case.metrics.values() if not math.isnan(values["Dice"])]
    return sum(scores) / len(scores) if scores else math.nan


def worst_cases(cases: Sequence[CaseEvaluation], most: int) -> list[CaseEvaluation]:
    """The cases with the lowest scores, the lowest first."""
    scored = [case for case in cases if not math.isnan(case_score(case))]
    return sorted(scored, key=case_score)[:most]
