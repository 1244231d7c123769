"""Run with nnunetv2's Python: what its trainer classes are. Arguments: plans.json, dataset.json, found.json.

Without files: prints the modules of all classes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peer_classes import trainer_class, trainer_modules
from torch import nn

sys.path.append(str(Path(__file__).resolve().parents[1] / "networks"))
EPOCHS = (0, 1, 30, 49, 50, 200, 700)


def described(name: str, plans: dict[str, Any], dataset: dict[str, Any], configuration: str) -> dict[str, Any]:
    """Settings of a class for a configuration."""
    own = {**json.loads(json.dumps(plans)), "continue_training": False}
    made = trainer_class(name)(own, configuration, 0, dataset, torch.device("cpu"))
    _, _, source, mirror = made.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    made.network = nn.Linear(1, 1)
    try:
        optimizer, schedule = made.configure_optimizers()
    except RuntimeError:  # Adan, which is not installed
        kind, rates, group = "Adan", None, {}
    else:
        kind, group = type(optimizer).__name__, dict(optimizer.param_groups[0])
        rates = []
        for epoch in EPOCHS:
            made.current_epoch = epoch
            if hasattr(made, "training_stage") and epoch >= made.warmup_duration_whole_net:
                made.optimizer, made.lr_scheduler = optimizer, schedule
                optimizer, schedule = made.configure_optimizers("train")
            if epoch < made.num_epochs:
                schedule.step(epoch)
                rates.append(optimizer.param_groups[0]["lr"])
    made._set_batch_size_and_oversample()
    return {
        "epochs": made.num_epochs,
        "iterations": [made.num_iterations_per_epoch, made.num_val_iterations_per_epoch],
        "lr": made.initial_lr,
        "weight_decay": made.weight_decay,
        "batch_size": made.batch_size,
        "oversample": made.oversample_foreground_percent,
        "probabilistic": made.probabilistic_oversampling,
        "deep_supervision": made.enable_deep_supervision,
        "mirror": list(mirror or ()),
        "mirror_at_prediction": list(made.inference_allowed_mirroring_axes or ()),
        "source": [int(extent) for extent in source],
        "optimizer": kind,
        "momentum": group.get("momentum"),
        "nesterov": group.get("nesterov"),
        "amsgrad": group.get("amsgrad"),
        "betas": group.get("betas"),
        "rates": rates,
    }


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.stdout.write(json.dumps(trainer_modules()))
        raise SystemExit
    with open(sys.argv[1]) as file:
        plans = json.load(file)
    with open(sys.argv[2]) as file:
        dataset = json.load(file)
    with open(sys.argv[3]) as file:
        names = json.load(file)
    from without_torchvision import use_no_torchvision

    use_no_torchvision()
    found = {
        configuration: {
            name: described(name, plans, dataset, configuration)
            for name in names
            if configuration != "2d" or "Primus" not in name
        }
        for configuration in ("2d", "3d_fullres")
    }
    with open(sys.argv[4], "w") as file:
        json.dump(found, file)
