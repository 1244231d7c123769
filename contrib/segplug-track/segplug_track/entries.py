"""What the journal keeps of events, as JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segplug.model import Choice, EpochReport, Evaluation, TrainingStart

COUNTS = frozenset({"TP", "FP", "FN", "TN", "n_pred", "n_ref"})
"""Voxel counts of summary.json, which say nothing beside another data set's."""


def started(training: TrainingStart) -> dict[str, Any]:
    """Of the start of a training."""
    configuration, labels = training.plan.configurations[training.configuration], training.dataset.labels
    return {
        "epochs_done": training.epochs_done,
        "continued": training.continued,
        "classes": [[_value(target), labels.name_of(target)] for target in labels.classes],
        "params": {
            "dataset": training.dataset.name,
            "configuration": training.configuration,
            "fold": training.fold,
            "plans": training.plan.plans_name,
            "planner": training.plan.planner,
            "patch_size": list(configuration.patch_size),
            "batch_size": configuration.batch_size,
            "spacing": list(configuration.spacing),
            "architecture": configuration.architecture.name,
            "trainer": training.trainer,
            **{f"trainer.{name}": value for name, value in training.settings.items()},
            "epochs": training.epochs,
            "device": training.device,
            "precision": training.precision,
            "seed": training.seed,
            "processes": training.processes,
            "training_cases": len(training.split.train),
            "validation_cases": len(training.split.val),
        },
        "versions": dict(training.versions),
        "fingerprint": training.fingerprint,
        "provenance": [dict(entry) for entry in training.provenance],
        "split": {"train": list(training.split.train), "val": list(training.split.val)},
    }


def epoch(report: EpochReport) -> dict[str, Any]:
    """Of an epoch."""
    return {name: value for name, value in asdict(report).items() if name != "epochs"}


def evaluated(evaluation: Evaluation, place: str) -> dict[str, Any]:
    """Of an evaluation; `place` is the folder `validation` within the run's, or empty for the run's own."""
    return {
        "place": place,
        "cases": len(evaluation.cases),
        "missing": len(evaluation.missing),
        "mean": _metrics(evaluation.foreground_mean),
        "scores": [[_value(target), _metrics(metrics)] for target, metrics in evaluation.mean.items()],
    }


def chosen(choice: Choice, scores: Mapping[str, float]) -> dict[str, Any]:
    """Of a choice."""
    return {
        "dataset": choice.dataset,
        "members": [member.name for member in choice.members],
        "folds": list(choice.folds),
        "mean_dice": choice.mean_dice,
        "postprocessed_dice": choice.postprocessed_dice,
        "scores": dict(scores),
    }


def _value(target: int | tuple[int, ...]) -> int | list[int]:
    return list(target) if isinstance(target, tuple) else target


def _metrics(values: Mapping[str, float]) -> dict[str, float]:
    """Those that are defined, without counts of voxels."""
    return {name: float(value) for name, value in values.items() if name not in COUNTS and math.isfinite(value)}
