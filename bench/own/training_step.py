"""Train with segplug on random data: python training_step.py RAW PREPROCESSED RESULTS DATASET STEPS PRECISION."""

from __future__ import annotations

import resource
import sys

from figures import write

from segplug.runtime.project import open_project
from segplug.stages.bench_train import bench_training


def main(raw: str, preprocessed: str, results: str, dataset: str, steps: str, precision: str) -> None:
    with open_project(raw, preprocessed, results, workers=0) as project:
        result = bench_training(
            project,
            dataset,
            "3d_fullres",
            repetitions=2,
            iterations=int(steps),
            data_loading=False,
            plans_name="nnUNetPlans",
            trainer="nnunet",
            device="cpu",
            precision=precision,
        )
    medians = result.medians
    write(
        {
            "step_seconds": medians["seconds_per_iteration"],
            "cpu_step_seconds": medians["cpu_seconds"] / int(steps),
            "batch_size": result.settings["batch_size"],
            "precision": result.settings["precision"],
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        }
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
