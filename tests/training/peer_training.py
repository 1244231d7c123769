"""Run by the Python of nnunetv2's environment: trains tiny networks on given batches by nnunetv2's own trainer.

    python peer_training.py FOLDER

`FOLDER/jobs.json` lists trainings: `name`, `plans`, `dataset`, `deep_supervision`; `<name>.npz` holds their batches,
one for training and one for validation per epoch. `<name>_done.npz` gets what came of it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

CONFIGURATION = "tiny"


def make_trainer(folder: Path, job: dict[str, Any], epochs: int) -> Any:
    """nnunetv2's trainer, ready for its first epoch."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans = job["plans"]
    cases = folder / "preprocessed" / plans["dataset_name"]
    cases /= plans["configurations"][CONFIGURATION]["data_identifier"]
    cases.mkdir(parents=True, exist_ok=True)
    (cases / "case.b2nd").touch()  # the trainer looks at the names of files to learn their kind
    torch.manual_seed(0)
    arguments = (CONFIGURATION, 0, job["dataset"], torch.device("cpu"))
    trainer = nnUNetTrainer({**plans, "continue_training": False}, *arguments)
    trainer.enable_deep_supervision = job["deep_supervision"]
    trainer.num_epochs = epochs
    trainer.initialize()
    return trainer


def to_batch(trainer: Any, data: Any, labels: Any) -> dict[str, Any]:
    """A batch as nnunetv2's loader makes it of patches: regions, deep supervision."""
    manager = trainer.label_manager
    transforms = trainer.get_validation_transforms(
        trainer._get_deep_supervision_scales(),
        foreground_labels=manager.foreground_labels,
        regions=manager.foreground_regions if manager.has_regions else None,
        ignore_label=manager.ignore_label,
    )
    samples = []
    for image, target in zip(torch.from_numpy(data), torch.from_numpy(labels), strict=True):
        done = transforms(image=image.clone(), segmentation=target.clone())
        maps = done["segmentation"]
        samples.append(maps if isinstance(maps, list) else [maps])
    targets = [torch.stack(scale) for scale in zip(*samples, strict=True)]
    return {
        "data": torch.from_numpy(data).double(),
        "target": targets if trainer.enable_deep_supervision else targets[0],
    }


def one_epoch(trainer: Any, training: dict[str, Any], validation: dict[str, Any]) -> None:
    """What `nnUNetTrainer.run_training` does, less files and figures."""
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    trainer.on_train_epoch_end([trainer.train_step(training)])
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        trainer.on_validation_epoch_end([trainer.validation_step(validation)])
    trainer.current_epoch += 1


def run(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    given = np.load(folder / f"{job['name']}.npz")
    epochs = len(given["data"])
    trainer = make_trainer(folder, job, epochs)
    made: dict[str, Any] = {f"fresh:{key}": value.numpy().copy() for key, value in trainer.network.state_dict().items()}
    trainer.network.double()  # float32 differs from processor to processor, and twenty steps make much of little
    with torch.no_grad():
        for module in trainer.network.decoder.seg_layers:
            module.weight.mul_(job["sharpness"])
    made |= {f"initial:{key}": value.numpy().copy() for key, value in trainer.network.state_dict().items()}
    norms, clip = [], torch.nn.utils.clip_grad_norm_

    def noted(*args: Any) -> Any:
        norms.append(clip(*args))
        return norms[-1]

    with patch.object(torch.nn.utils, "clip_grad_norm_", noted):
        for epoch in range(epochs):
            images, labels = given["data"][epoch], given["labels"][epoch]
            training, validation = (to_batch(trainer, *each) for each in zip(images, labels, strict=True))
            if epoch == 0:
                targets = training["target"] if trainer.enable_deep_supervision else [training["target"]]
                made |= {f"target:{scale}": target.numpy().copy() for scale, target in enumerate(targets)}
            one_epoch(trainer, training, validation)
    made["norms"] = np.array([float(norm) for norm in norms])
    made |= {f"final:{key}": value.numpy() for key, value in trainer.network.state_dict().items()}
    for key in ("train_losses", "val_losses", "dice_per_class_or_region", "ema_fg_dice", "lrs"):
        made[key] = np.array([trainer.logger.get_value(key, step=epoch) for epoch in range(epochs)], float)
    return made


def main(where: str) -> None:
    folder = Path(where)
    torch.set_num_threads(1)
    for job in json.loads((folder / "jobs.json").read_text(encoding="utf-8")):
        np.savez(folder / f"{job['name']}_done.npz", **run(folder, job))


if __name__ == "__main__":
    root = sys.argv[1]
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = f"{root}/{name}"
    os.environ["nnUNet_compile"] = "f"  # noqa: SIM112
    main(root)
