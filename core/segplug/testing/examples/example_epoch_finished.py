"""Keeps the losses of a training in a table."""

from __future__ import annotations

from pathlib import Path

from segplug import hookimpl
from segplug.model import EpochReport


@hookimpl
def segplug_epoch_finished(folder: Path, report: EpochReport) -> None:
    """Add a row to `losses.csv` in the fold's folder."""
    with (folder / "losses.csv").open("a") as file:
        file.write(f"{report.epoch},{report.train_loss},{report.val_loss}\n")
