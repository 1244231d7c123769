"""Fold 0 of the Hippocampus data set on compact plans: how good, and how long, from raw images to validation.

    nox -s bench -- hippocampus_fold

Needs the data set in the folder that SEGPLUG_SHARED names (default ../shared). To reach on two CPU cores: a mean
foreground Dice of 0.86 within 30 minutes of training.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import report
from hippocampus import Hippocampus

DICE, MINUTES = 0.86, 30.0


def main() -> int:
    """Run it; 1 if the aim is missed."""
    with tempfile.TemporaryDirectory() as name:
        data = Hippocampus(Path(name))
        before = data.prepare()
        dice, minutes = data.train("fold_0")
    figures = {"mean_foreground_dice": dice, "minutes": {"before": before, "train": minutes}}
    path = report.write("hippocampus_fold", figures)
    reached = dice >= DICE and minutes <= MINUTES
    sys.stdout.write(
        f"mean foreground Dice {dice:.4f} (to reach: {DICE})\n"
        f"training {minutes:.1f} min (at most {MINUTES:.0f}), steps before it {before:.1f} min\n"
        f"{'reached' if reached else 'MISSED'}; {path}\n"
    )
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
