"""The same training with either augmentation, nnU-Net's in torch and the chain of batchgenerators transforms.

    nox -s bench -- augmentations

Needs the data set in the folder that SEGPLUG_SHARED names (default ../shared). To reach: mean foreground Dice of the
validation cases within 0.02 of each other.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import report
from hippocampus import Hippocampus

DIFFERENCE = 0.02
EPOCHS = 10
"""500 steps on compact plans: about 0.85 on Hippocampus."""


def main() -> int:
    """Run it; 1 if the aim is missed."""
    figures = {}
    with tempfile.TemporaryDirectory() as name:
        data = Hippocampus(Path(name))
        data.prepare()
        for augmentation in ("nnunet", "batchgenerators"):
            options = ["--epochs", str(EPOCHS), "--set", f"trainer.augmentation={augmentation}"]
            dice, minutes = data.train(augmentation, options)
            figures[augmentation] = {"mean_foreground_dice": dice, "minutes": minutes}
            sys.stdout.write(f"{augmentation:16} mean foreground Dice {dice:.4f}, {minutes:.1f} min\n")
    path = report.write("augmentations", figures)
    first, second = (each["mean_foreground_dice"] for each in figures.values())
    reached = abs(first - second) <= DIFFERENCE
    sys.stdout.write(
        f"difference {abs(first - second):.4f} (at most {DIFFERENCE}): {'reached' if reached else 'MISSED'}; {path}\n"
    )
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
