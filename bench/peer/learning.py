"""Run by the Python of nnunetv2's environment: what `bench/learning.py` asks of nnunetv2.

    python learning.py prepare DATASET PLANS SETTINGS    fingerprint, plan, shrink the plan, preprocess
    python learning.py train DATASET PLANS SETTINGS SEED [NETWORK_SEED]    fold 0, and its validation cases

SETTINGS is JSON: see `bench/learning.py`. The nnUNet_* variables name the folders.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

CONFIGURATION = "3d_fullres"


def shrink(plans: dict[str, Any], name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The plan with its full-resolution configuration alone, in the size that is asked for."""
    configuration = plans["configurations"][CONFIGURATION]
    options = configuration["architecture"]["arch_kwargs"]
    stages = options["n_stages"]
    options["features_per_stage"] = [settings["features"] * 2**stage for stage in range(stages)]
    for key in ("spacing", "patch_size", "batch_size"):
        configuration[key] = settings[key]
    configuration["data_identifier"] = f"{name}_{CONFIGURATION}"
    return {**plans, "plans_name": name, "configurations": {CONFIGURATION: configuration}}


def prepare(dataset: str, name: str, settings: dict[str, Any]) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )

    number = int(dataset[7:10])
    extract_fingerprints([number], num_processes=1, check_dataset_integrity=False)
    plan_experiments([number])
    folder = Path(os.environ["nnUNet_preprocessed"]) / dataset  # noqa: SIM112
    plans = json.loads((folder / "nnUNetPlans.json").read_text(encoding="utf-8"))
    (folder / f"{name}.json").write_text(json.dumps(shrink(plans, name, settings)), encoding="utf-8")
    preprocess([number], name, [CONFIGURATION], [1])


def train(dataset: str, name: str, settings: dict[str, Any], seed: int, network_seed: int | None = None) -> None:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class Short(nnUNetTrainer):  # type: ignore[misc]
        """nnunetv2's trainer with another length and learning rate."""

        def __init__(self, plans: Any, configuration: str, fold: int, dataset_json: Any, device: torch.device) -> None:
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.initial_lr = settings["lr"]
            self.num_epochs = settings["epochs"]
            self.num_iterations_per_epoch = settings["iterations"]
            self.num_val_iterations_per_epoch = settings["val_iterations"]

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    folder = Path(os.environ["nnUNet_preprocessed"]) / dataset  # noqa: SIM112
    plans = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    described = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    trainer = Short({**plans, "continue_training": False}, CONFIGURATION, 0, described, torch.device("cpu"))
    if network_seed is not None:
        torch.manual_seed(network_seed)
        trainer.initialize()
        torch.manual_seed(seed)
    trainer.run_training()
    trainer.perform_actual_validation()


if __name__ == "__main__":
    what, dataset, name, settings, *seeds = sys.argv[1:]
    if what == "prepare":
        prepare(dataset, name, json.loads(settings))
    else:
        train(dataset, name, json.loads(settings), *map(int, seeds))
