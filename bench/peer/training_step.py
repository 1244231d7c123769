"""Run by the Python of nnunetv2's environment: python training_step.py DATASET STEPS.

The batch is made up as nnUNetTrainerBenchmark_5epochs_noDataLoading does, which runs on a GPU alone.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parent.parent / "own"))


def main(dataset: str, steps: str) -> None:
    from figures import write

    from loading import open_trainer

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    trainer = open_trainer(dataset)
    patch, labels = trainer.configuration_manager.patch_size, max(trainer.label_manager.all_labels)
    shapes = [
        [int(n * s) for n, s in zip(patch, scales, strict=True)] for scales in trainer._get_deep_supervision_scales()
    ]
    batch = {
        "data": torch.randn((trainer.batch_size, trainer.num_input_channels, *patch)),
        "target": [torch.round(torch.rand((trainer.batch_size, 1, *shape)) * labels) for shape in shapes],
    }
    trainer.network.train()
    trainer.train_step(batch)
    start, cpu_start, count = time.perf_counter(), time.process_time(), 2 * int(steps)
    for _ in range(count):
        trainer.train_step(batch)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    write({"step_seconds": seconds / count, "cpu_step_seconds": cpu / count})


if __name__ == "__main__":
    main(*sys.argv[1:])
