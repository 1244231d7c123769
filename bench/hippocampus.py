"""Training fold 0 of the Hippocampus data set on compact plans: what several benchmarks do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

DATASET, PLANS = "Dataset004_Hippocampus", "compactPlans"


class Hippocampus:
    """The data set, preprocessed into a folder.

    Args:
        folder: for the preprocessed data and the results.
    """

    def __init__(self, folder: Path) -> None:
        root = Path(__file__).resolve().parent.parent
        self._raw = (root / os.environ.get("SEGPLUG_SHARED", "../shared")).resolve() / "datasets"
        self._folder = folder
        if not (self._raw / DATASET).is_dir():
            sys.exit(f"{self._raw / DATASET} is not there; set SEGPLUG_SHARED")

    def prepare(self) -> float:
        """Fingerprint, plan and preprocess; returns minutes."""
        start = time.perf_counter()
        self._run(["fingerprint", "4"], "none")
        self._run(["plan", "4", "--planner", "compact", "-p", PLANS], "none")
        self._run(["preprocess", "4", "-p", PLANS, "-c", "3d_fullres"], "none")
        return (time.perf_counter() - start) / 60

    def train(self, name: str, options: Sequence[str] = ()) -> tuple[float, float]:
        """Train and validate; returns mean foreground Dice of the validation cases, and minutes.

        Args:
            name: of this training.
            options: further ones of `segplug train`.
        """
        start = time.perf_counter()
        self._run(["train", "4", "3d_fullres", "0", "-p", PLANS, *options], name)
        minutes = (time.perf_counter() - start) / 60
        (summary,) = (self._folder / name).glob(f"{DATASET}/*/fold_0/validation/summary.json")
        return json.loads(summary.read_text(encoding="utf-8"))["foreground_mean"]["Dice"], minutes

    def _run(self, command: Sequence[str], results: str) -> None:
        roots = {"raw": self._raw, "preprocessed": self._folder / "preprocessed", "results": self._folder / results}
        options = [part for key, path in roots.items() for part in (f"--{key}", str(path))]
        subprocess.run(["segplug", *options, *command], check=True)
