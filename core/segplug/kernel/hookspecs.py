"""Every hook of segplug.

Provider hooks take no argument and return components; they are called once, when a run starts. Choice hooks stop at
the first answer that is not None and are asked only where neither the user nor the plan named a component; built-in
answers come last. Event hooks report what happened: their results are ignored, and an event hook that raises is
reported and never stops the run. No hook is called within the per-iteration loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from segplug.kernel.component import Component, hookspec

if TYPE_CHECKING:
    from segplug.model import EpochReport, Plan, Prediction
    from segplug.protocols import (
        Architecture,
        Augmentation,
        Converter,
        Executor,
        Loss,
        Metric,
        Normalizer,
        OptimizerFactory,
        Planner,
        Postprocessor,
        Predictor,
        Reader,
        Resampler,
        Schedule,
        Splitter,
        StoreFactory,
        Trainer,
        Writer,
    )

# --- provider hooks ------------------------------------------------------------------------------------------------


@hookspec
def segplug_readers() -> Iterable[Component[Reader]]:  # type: ignore[empty-body]
    """Readers: functions from the files of one case to an `Image`."""


@hookspec
def segplug_writers() -> Iterable[Component[Writer]]:  # type: ignore[empty-body]
    """Writers: functions that put `Labels` into a file other programs read."""


@hookspec
def segplug_normalizers() -> Iterable[Component[Normalizer]]:  # type: ignore[empty-body]
    """Normalizers: functions of one channel, an optional mask and the channel's statistics."""


@hookspec
def segplug_resamplers() -> Iterable[Component[Resampler]]:  # type: ignore[empty-body]
    """Resamplers: functions of an array, the shape wanted and both spacings."""


@hookspec
def segplug_planners() -> Iterable[Component[Planner]]:  # type: ignore[empty-body]
    """Planners: functions from fingerprint, data set description and budget to a `Plan`."""


@hookspec
def segplug_architectures() -> Iterable[Component[Architecture]]:  # type: ignore[empty-body]
    """Architectures: functions from channel counts and their part of the plan to a network."""


@hookspec
def segplug_losses() -> Iterable[Component[Loss]]:  # type: ignore[empty-body]
    """Losses: modules from logits and target to a scalar; deep supervision is added around them."""


@hookspec
def segplug_augmentations() -> Iterable[Component[Augmentation]]:  # type: ignore[empty-body]
    """Augmentations: draw parameters per sample, then change whole batches by them."""


@hookspec
def segplug_optimizers() -> Iterable[Component[OptimizerFactory]]:  # type: ignore[empty-body]
    """Optimisers: functions from parameters, learning rate and weight decay to a torch optimiser."""


@hookspec
def segplug_schedules() -> Iterable[Component[Schedule]]:  # type: ignore[empty-body]
    """Schedules: functions from the place in the training to the learning rate."""


@hookspec
def segplug_splitters() -> Iterable[Component[Splitter]]:  # type: ignore[empty-body]
    """Splitters: functions from case names to folds."""


@hookspec
def segplug_trainers() -> Iterable[Component[Trainer]]:  # type: ignore[empty-body]
    """Trainers: frozen dataclasses of settings with a `train` method."""


@hookspec
def segplug_postprocessors() -> Iterable[Component[Postprocessor]]:  # type: ignore[empty-body]
    """Postprocessors: pairs of `fit` (decide on validation predictions) and `apply`."""


@hookspec
def segplug_metrics() -> Iterable[Component[Metric]]:  # type: ignore[empty-body]
    """Metrics: functions comparing one class of a prediction with the reference."""


@hookspec
def segplug_predictors() -> Iterable[Component[Predictor]]:  # type: ignore[empty-body]
    """Predictors: inference engines that turn preprocessed images into logits."""


@hookspec
def segplug_stores() -> Iterable[Component[StoreFactory]]:  # type: ignore[empty-body]
    """Stores: where and how preprocessed cases are kept."""


@hookspec
def segplug_executors() -> Iterable[Component[Executor]]:  # type: ignore[empty-body]
    """Executors: run one function over many cases, in this process, in others, on other machines."""


@hookspec
def segplug_converters() -> Iterable[Component[Converter]]:  # type: ignore[empty-body]
    """Converters: make a raw data set of nnU-Net's layout from something else."""


# --- choice hooks --------------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def segplug_choose_reader(path: Path) -> str | None:
    """Name the reader for this file, or None. Asked once per data set, with the first image of its first case."""


@hookspec(firstresult=True)
def segplug_choose_writer(path: Path) -> str | None:
    """Name the writer for a file of this name, or None. Asked when the reader in use has no writer of its name."""


@hookspec(firstresult=True)
def segplug_choose_normalizer(channel_name: str) -> str | None:
    """Name the normalizer for a channel of this name, or None. Asked by planners, once per channel."""


@hookspec(firstresult=True)
def segplug_choose_trainer(plan: Plan, configuration: str) -> str | None:
    """Name the trainer for a configuration, or None. Asked when neither plan nor user names one."""


# --- event hooks ---------------------------------------------------------------------------------------------------


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
