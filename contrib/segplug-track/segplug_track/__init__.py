"""What segplug tells segplug-track. Nothing heavy is imported here, and nothing is kept before the first event."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug import hookimpl

if TYPE_CHECKING:
    from segplug.model import Choice, EpochReport, Evaluation, TrainingStart
    from segplug_track.tracking import Tracking


@cache
def current() -> Tracking:
    """The tracking of this process."""
    from segplug_track.tracking import Tracking

    return Tracking()


@hookimpl
def segplug_configured(options: Mapping[str, Any]) -> None:
    from segplug_track.options import Options

    current().options = Options.of(options)


@hookimpl
def segplug_training_started(training: TrainingStart) -> None:
    current().training_started(training)


@hookimpl
def segplug_epoch_finished(folder: Path, report: EpochReport) -> None:
    current().epoch_finished(folder, report)


@hookimpl
def segplug_checkpoint_written(path: Path, epoch: int) -> None:
    current().checkpoint_written(path.parent, epoch)


@hookimpl
def segplug_training_finished(folder: Path, error: str) -> None:
    current().training_finished(folder, error)


@hookimpl
def segplug_evaluated(folder: Path, evaluation: Evaluation) -> None:
    current().evaluated(folder, evaluation)


@hookimpl
def segplug_model_chosen(choice: Choice, scores: Mapping[str, float]) -> None:
    current().model_chosen(choice, scores)
