"""Fold 0 of the Hippocampus data set on compact plans: how good, and how long, from raw images to validation.

    nox -s bench -- hippocampus_fold

Needs the data set in the folder that SEGPLUG_SHARED names (default ../shared). To reach on two CPU cores: a mean
foreground Dice of 0.86 within 30 minutes of training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import report

DATASET = "Dataset004_Hippocampus"
DICE, MINUTES = 0.86, 30.0


def main() -> int:
    """Run it; 1 if the aim is missed."""
    root = Path(__file__).resolve().parent.parent
    raw = (root / os.environ.get("SEGPLUG_SHARED", "../shared")).resolve() / "datasets"
    if not (raw / DATASET).is_dir():
        sys.stderr.write(f"{raw / DATASET} is not there; set SEGPLUG_SHARED\n")
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder, minutes = Path(name), {}
        roots = [
            "--raw",
            str(raw),
            "--preprocessed",
            str(folder / "preprocessed"),
            "--results",
            str(folder / "results"),
        ]
        for command in (
            ["fingerprint", "4"],
            ["plan", "4", "--planner", "compact", "-p", "compactPlans"],
            ["preprocess", "4", "-p", "compactPlans", "-c", "3d_fullres"],
            ["train", "4", "3d_fullres", "0", "-p", "compactPlans"],
        ):
            start = time.perf_counter()
            subprocess.run(["segplug", *roots, *command], check=True)
            minutes[command[0]] = (time.perf_counter() - start) / 60
        (summary,) = (folder / "results").glob(f"{DATASET}/*/fold_0/validation/summary.json")
        dice = json.loads(summary.read_text(encoding="utf-8"))["foreground_mean"]["Dice"]
    path = report.write("hippocampus_fold", {"mean_foreground_dice": dice, "minutes": minutes})
    reached = dice >= DICE and minutes["train"] <= MINUTES
    before = sum(minutes.values()) - minutes["train"]
    sys.stdout.write(
        f"mean foreground Dice {dice:.4f} (to reach: {DICE})\n"
        f"training {minutes['train']:.1f} min (at most {MINUTES:.0f}), steps before it {before:.1f} min\n"
        f"{'reached' if reached else 'MISSED'}; {path}\n"
    )
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
