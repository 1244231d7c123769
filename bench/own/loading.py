"""Make training batches with segplug: python loading.py RAW PREPROCESSED RESULTS DATASET BATCHES."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from figures import write

from segplug.protocols import BatchRequest
from segplug.runtime.fold_work import find_work
from segplug.runtime.project import open_project
from segplug.stages.bench_train import open_task


def main(raw: str, preprocessed: str, results: str, dataset: str, batches: str) -> None:
    torch.set_num_threads(1)
    with open_project(raw, preprocessed, results, workers=0) as project:
        work = find_work(
            project,
            dataset,
            "3d_fullres",
            0,
            plans_name="nnUNetPlans",
            trainer="nnunet",
            overrides=[],
            epochs=None,
            device="cpu",
            precision="fp32",
            seed=time.time_ns() % 2**31,  # other draws in each run
            continue_=False,
        )
        task = open_task(project, work, Path(results), True)
        size, count = work.configuration.batch_size, int(batches)
        request = BatchRequest(work.chosen.trainer.augmentation, size, 1, count + 2, 0)
        with task, task.batches(request) as made:
            for _ in range(2):
                next(made)
            start, cpu_start = time.perf_counter(), time.process_time()
            for _ in range(count):
                next(made)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    samples = count * size
    write({"sample_seconds": seconds / samples, "cpu_sample_seconds": cpu / samples})


if __name__ == "__main__":
    main(*sys.argv[1:])
