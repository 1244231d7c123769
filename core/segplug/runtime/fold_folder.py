"""What stands in a fold's folder, and what becomes of it when training begins anew."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from segplug.model import TrainedFold
from segplug.runtime.checkpoint import Checkpoint, read_checkpoint

SUMMARY = "summary.json"


@dataclass(frozen=True)
class FoldState:
    """How far a fold has come.

    Args:
        checkpoint: the one with the most epochs in it, `final` or `latest`; None if there is none.
        validated: whether the final validation is complete.
    """

    checkpoint: Checkpoint | None = None
    validated: bool = False

    @property
    def epochs_done(self) -> int:
        return self.checkpoint.epochs_done if self.checkpoint else 0

    def trained(self, epochs: int | None, patience: int | None = None) -> bool:
        """Whether training is over: `final` is written, and not for fewer epochs than are wanted now.

        One that its trainer ended early is over as long as the same patience is asked for.
        """
        if self.checkpoint is None or self.checkpoint.path.stem != "checkpoint_final":
            return False
        stopped = self.checkpoint.state.get("stopped_early")
        return epochs is None or self.epochs_done >= epochs or (stopped is not None and stopped == patience)


def read_state(trained: TrainedFold) -> FoldState:
    """Look at a fold's folder, which need not exist.

    Raises:
        CheckpointError: a checkpoint is damaged.
    """
    found = [read_checkpoint(path) for path in map(trained.checkpoint, ("final", "latest")) if path.is_file()]
    # of equals the first: a training that was killed between writing `final` and removing `latest` is over
    most = max(found, key=lambda checkpoint: checkpoint.epochs_done, default=None)
    return FoldState(most, (trained.validation_folder / SUMMARY).is_file())


def set_aside(trained: TrainedFold) -> Path | None:
    """Rename a fold's folder that holds checkpoints, so that training anew destroys nothing.

    nnU-Net overwrites them. The new name does not begin with `fold_`, by which folds are found.

    Returns:
        Where it is now; None if there was nothing worth keeping.
    """
    if not any(trained.folder.glob("checkpoint_*.pth")):
        return None
    kept = trained.folder.with_name(f"previous_{trained.folder.name}_{datetime.now():%Y%m%d_%H%M%S_%f}")
    trained.folder.rename(kept)
    return kept


def forget_validation(trained: TrainedFold) -> None:
    """Remove the final validation's output, which is about to be outdated."""
    if trained.validation_folder.is_dir():
        # the summary first: it is what says that the rest is whole
        (trained.validation_folder / SUMMARY).unlink(missing_ok=True)
        shutil.rmtree(trained.validation_folder)
