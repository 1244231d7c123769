"""Preprocessed data for both programs by one plan: what the benchmarks of training begin with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import models
import side_by_side as bench
from segplug.model import Plan
from segplug.runtime.files import write_json
from segplug.runtime.plan_codec import encode_plan
from segplug.testing.phantoms import Phantom, write_phantom_dataset

HIPPOCAMPUS, CUBES = "Dataset004_Hippocampus", "Dataset501_Cubes"
PLANS, CONFIGURATION = "nnUNetPlans", "3d_fullres"


@dataclass(frozen=True)
class TrainingData:
    """Folders `raw`, `mine` and `theirs` (preprocessed) and `results` in one folder."""

    folder: Path
    dataset: str

    @property
    def number(self) -> str:
        return str(int(self.dataset[7:10]))

    @property
    def variables(self) -> dict[str, str]:
        """Of nnunetv2, whose loader works in the process that asks for batches."""
        return {
            "nnUNet_raw": str(self.folder / "raw"),
            "nnUNet_preprocessed": str(self.folder / "theirs"),
            "nnUNet_results": str(self.folder / "results"),
            "nnUNet_n_proc_DA": "0",
            "nnUNet_compile": "f",
        }

    def own_script(self, name: str, *options: str) -> list[str | Path]:
        """A script of bench/own that is told where things are."""
        folders = [self.folder / part for part in ("raw", "mine", "results")]
        return [sys.executable, bench.OWN / name, *folders, self.dataset, *options]


def hippocampus(folder: Path, peer: str | None, cases: int = 20, features: int | None = None) -> TrainingData:
    """Some cases of the real data set, by the default plan of all of them.

    Args:
        features: of every stage of the network; None for the plan's.
    """
    from preprocessing import link_cases

    source = bench.shared_datasets()
    link_cases(source / HIPPOCAMPUS, folder / "raw" / HIPPOCAMPUS, cases)
    plan = models.plan_of(source.parent / "reference" / HIPPOCAMPUS / f"{PLANS}.json", features)
    return _preprocess(TrainingData(folder, HIPPOCAMPUS), plan, peer)


def cubes(
    folder: Path,
    peer: str | None,
    size: int = 192,
    patch: int = 128,
    features: int = 32,
    most_features: int | None = None,
) -> TrainingData:
    """Phantoms of about `size` voxels an axis, by a plan with cubic patches and a small network."""
    write_phantom_dataset(folder / "raw" / CUBES, Phantom(shape=(size,) * 3, spacing=(1.0, 1.0, 1.0)), cases=5)
    plan = models.small_plan((patch,) * 3, features, 6, most_features)
    return _preprocess(TrainingData(folder, CUBES), plan, peer)


def _preprocess(data: TrainingData, plan: Plan, peer: str | None) -> TrainingData:
    raw = encode_plan(plan)
    raw["dataset_name"] = data.dataset
    for part in ("mine", "theirs"):
        write_json(data.folder / part / data.dataset / f"{PLANS}.json", raw)
        described = json.loads((data.folder / "raw" / data.dataset / "dataset.json").read_text(encoding="utf-8"))
        write_json(data.folder / part / data.dataset / "dataset.json", described)
    roots = ["--raw", data.folder / "raw", "--preprocessed", data.folder / "mine"]
    segplug = [Path(sys.executable).parent / "segplug", *roots, "preprocess", data.number, "-c", CONFIGURATION]
    _call([*segplug, "-p", PLANS], {})
    if peer:
        program = Path(peer).parent / "nnUNetv2_preprocess"
        _call([program, "-d", data.number, "-plans_name", PLANS, "-c", CONFIGURATION, "-np", "2"], data.variables)
    return data


def _call(command: list[str | Path], variables: dict[str, str]) -> None:
    done = subprocess.run(
        list(map(str, command)), env={**os.environ, **variables}, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
