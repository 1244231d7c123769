"""Keeps what a training was started with."""

from __future__ import annotations

import json

from segplug import hookimpl
from segplug.model import TrainingStart


@hookimpl
def segplug_training_started(training: TrainingStart) -> None:
    """Write trainer, seed and versions to `started.json` in the fold's folder."""
    told = {"trainer": training.trainer, "seed": training.seed, "versions": dict(training.versions)}
    (training.folder / "started.json").write_text(json.dumps(told))
