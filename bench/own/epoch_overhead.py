"""Train epochs of one iteration: python epoch_overhead.py RAW PREPROCESSED RESULTS DATASET EPOCHS."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from figures import write

from segplug import hookimpl
from segplug.model import EpochReport
from segplug.runtime.project import open_project
from segplug.stages.train import train
from segplug_builtin.trainers.loop import TrainingLoop

ITERATIONS, VAL_ITERATIONS = 250, 50
"""Of an epoch by nnU-Net's rule."""


class Clock:
    """When epochs began and ended, and how long each iteration took."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.steps: dict[str, list[float]] = {"_train_step": [], "_validation_step": []}
        for name in self.steps:
            self._watch(name)

    def _watch(self, name: str) -> None:
        inner = getattr(TrainingLoop, name)

        def timed(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = inner(*args, **options)
            self.steps[name].append(time.perf_counter() - start)
            return result

        setattr(TrainingLoop, name, timed)

    @hookimpl
    def segplug_epoch_finished(self, folder: Path, report: EpochReport) -> None:
        """Called by segplug."""
        self.ends.append(time.perf_counter())


def main(raw: str, preprocessed: str, results: str, dataset: str, epochs: str) -> None:
    clock = Clock()
    overrides = ["trainer.iterations_per_epoch=1", "trainer.val_iterations_per_epoch=1"]
    with open_project(raw, preprocessed, results, workers=0) as project:
        project.kernel.register(clock, "bench-clock")
        train(
            project,
            dataset,
            "3d_fullres",
            0,
            plans_name="nnUNetPlans",
            trainer="nnunet",
            overrides=overrides,
            epochs=int(epochs) + 1,
            device="cpu",
        )
    # the shortest step had no company
    step, val_step = min(clock.steps["_train_step"]), min(clock.steps["_validation_step"])
    periods = [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)]
    overhead = max(0.0, statistics.median(periods) - step - val_step)
    epoch = ITERATIONS * step + VAL_ITERATIONS * val_step + overhead
    write({"overhead_percent": 100 * overhead / epoch, "overhead_s": overhead, "epoch_s": epoch, "step_s": step})


if __name__ == "__main__":
    main(*sys.argv[1:])
