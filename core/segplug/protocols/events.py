"""Events: what plugins are told of. `segplug.kernel.hookspecs` has the other hooks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from segplug.kernel.component import hookspec

if TYPE_CHECKING:
    from segplug.model import Choice, EpochReport, Evaluation, Prediction, TrainingStart


@hookspec
def segplug_stage_started(stage: str, subject: str, total: int) -> None:
    """A stage begins. `subject` is its data set or folder, `total` its number of steps (cases, epochs; 0: unknown)."""


@hookspec
def segplug_stage_progress(stage: str, item: str, done: int, total: int) -> None:
    """One step of a stage (a case, an epoch) is done: `done` of `total`."""


@hookspec
def segplug_stage_finished(stage: str, subject: str, seconds: float, error: str) -> None:
    """A stage ended after `seconds`; `error` is empty if it succeeded, else what went wrong."""


@hookspec
def segplug_epoch_finished(folder: Path, report: EpochReport) -> None:
    """An epoch of the training in `folder` ended with these losses, Dice values and learning rate."""


@hookspec
def segplug_checkpoint_written(path: Path, epoch: int) -> None:
    """A checkpoint is on disk, whole, at `path`; `epoch` epochs are in it."""


@hookspec
def segplug_case_predicted(case: str, prediction: Prediction, path: Path | None) -> None:
    """A case was predicted; `path` is the file written, None where the prediction stayed in memory."""


@hookspec
def segplug_training_started(training: TrainingStart) -> None:
    """A fold is about to be trained, continued, or (all epochs done) validated; plans.json, dataset.json and the
    fingerprint are beside its folder."""


@hookspec
def segplug_training_finished(folder: Path, error: str) -> None:
    """The training that started in `folder` is over, its validation included; `error` is empty if all went well."""


@hookspec
def segplug_evaluated(folder: Path, evaluation: Evaluation) -> None:
    """The label maps of `folder` were evaluated: a fold's (`fold_X/validation`), a cross-validation's or others."""


@hookspec
def segplug_model_chosen(choice: Choice, scores: Mapping[str, float]) -> None:
    """`select` has chosen; `scores` is the mean foreground Dice of each model or pair compared."""
