"""Run by the Python of nnunetv2's environment: python loading.py DATASET BATCHES; nnUNet_* variables name folders."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parent.parent / "own"))


def open_trainer(dataset: str) -> Any:
    """nnunetv2's default trainer of fold 0 on the CPU, initialised."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    folder = Path(os.environ["nnUNet_preprocessed"]) / dataset  # noqa: SIM112
    plans = json.loads((folder / "nnUNetPlans.json").read_text(encoding="utf-8"))
    described = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    plans = {**plans, "continue_training": False}
    trainer = nnUNetTrainer(plans, "3d_fullres", 0, described, torch.device("cpu"))
    trainer.initialize()
    return trainer


def main(dataset: str, batches: str) -> None:
    from figures import write

    torch.set_num_threads(1)
    trainer = open_trainer(dataset)
    loader, _ = trainer.get_dataloaders()
    count = int(batches)
    for _ in range(2):
        next(loader)
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(loader)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    samples = count * trainer.batch_size
    write({"sample_seconds": seconds / samples, "cpu_sample_seconds": cpu / samples})


if __name__ == "__main__":
    main(*sys.argv[1:])
