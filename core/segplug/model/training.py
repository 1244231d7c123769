"""What training leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segplug.model.dataset import DatasetDescription
from segplug.model.plan import Plan


@dataclass(frozen=True)
class Split:
    """Case names of one fold."""

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True)
class TrainingStart:
    """What is about to be trained, with what, and where it comes from.

    Args:
        folder: of the fold; what a plugin keeps there goes with it when the fold is trained anew or moved.
        trainer: the component's qualified name; `settings` are its fields as JSON values.
        epochs: of the whole training, None where the trainer does not say; `epochs_done` are in the checkpoint.
        continued: whether the user asked to go on (`--continue`); else what was there before was set aside.
        processes: that train together.
        fingerprint: SHA-256 of dataset_fingerprint.json in hexadecimal digits; empty if there is none.
        provenance: plugin, distribution and version of the components of plan and trainer.
        versions: of `segplug`, `torch` and `python`.
    """

    folder: Path
    fold: int | str
    dataset: DatasetDescription
    plan: Plan
    configuration: str
    split: Split
    trainer: str
    settings: Mapping[str, Any]
    epochs: int | None
    epochs_done: int
    continued: bool
    device: str
    precision: str
    seed: int
    processes: int = 1
    fingerprint: str = ""
    provenance: tuple[Mapping[str, str], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochReport:
    """What one epoch came to.

    Args:
        epoch: its number, from 0; `epochs` of them make the training.
        dice: online pseudo-Dice per class on random validation patches; `mean_dice` over classes (NaN left out).
        ema_dice: moving average 0.9/0.1 of `mean_dice`, which decides the best checkpoint.
        seconds: wall time.
    """

    epoch: int
    epochs: int
    train_loss: float
    val_loss: float
    dice: tuple[float, ...]
    mean_dice: float
    ema_dice: float
    learning_rate: float
    seconds: float
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainedFold:
    """A fold folder of a trained model: `<results>/<Dataset>/<Trainer>__<Plans>__<Config>/fold_X`."""

    folder: Path
    fold: int | str

    def checkpoint(self, which: str = "final") -> Path:
        """Path of `final`, `best` or `latest`."""
        return self.folder / f"checkpoint_{which}.pth"

    @property
    def model_folder(self) -> Path:
        return self.folder.parent

    @property
    def validation_folder(self) -> Path:
        return self.folder / "validation"
