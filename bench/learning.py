"""Does segplug learn what nnunetv2 learns? Both train fold 0 of Hippocampus by the same small plan, seed by seed.

    nox -s bench -- learning
    python bench/learning.py --seeds 5 --folder DIR    keeps what it makes, and goes on with what is there

Needs the data set in the folder that SEGPLUG_SHARED names (default ../shared), and in SEGPLUG_PEER the Python of an
environment with nnunetv2 (`nox -s parity` makes one). Both compute in float32 on the CPU, with the same cases, plan,
length and settings; their random numbers are their own, so that what is compared are distributions over seeds: mean
foreground Dice of the validation cases and, more sensitive, the losses of each epoch, by Welch's t-test (two-sided).
With --same-weights nnunetv2's networks begin with segplug's weights, and the tests are paired: most of what seeds
differ by is where they begin.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.stats import ttest_ind, ttest_rel

import report
from segplug.runtime.randomness import torch_seed

DATASET, PLANS, CONFIGURATION = "Dataset004_Hippocampus", "smallPlans", "3d_fullres"
# At 2 mm a patch holds a whole image, which the two halves of the hippocampus are told apart by. nnU-Net's learning
# rate of 0.01 is for networks twice as wide: a few hundred iterations with it find the background and no more.
SETTINGS: dict[str, Any] = {
    "spacing": [2.0, 2.0, 2.0],
    "patch_size": [24, 32, 24],
    "batch_size": 4,
    "features": 16,
    "lr": 0.1,
    "epochs": 24,
    "iterations": 25,
    "val_iterations": 5,
}
LEVEL = 0.05
"""Differences that chance alone makes more often than this count as seed noise."""

PEER_SCRIPT = Path(__file__).resolve().parent / "peer" / "learning.py"
Curves = dict[str, Any]


class Programs:
    """Both programs over one folder: `preprocessed_<program>`, `results_<program>_<seed>`, `log_*.txt`."""

    def __init__(self, folder: Path, raw: Path, peer: str, same_weights: bool) -> None:
        self._folder, self._raw, self._peer, self._same_weights = folder, raw, peer, same_weights

    def prepare(self) -> None:
        """nnunetv2 plans and preprocesses; segplug takes over the plan and preprocesses for itself."""
        done = self._folder / "prepared"
        settings = json.dumps({**SETTINGS, "same_weights": self._same_weights})
        if done.exists():
            if done.read_text(encoding="utf-8") != settings:
                raise SystemExit(f"{self._folder} was made with other settings than {settings}; name another folder")
            return
        self._run_peer("prepare", "all")
        mine, theirs = self._preprocessed("segplug") / DATASET, self._preprocessed("nnunetv2") / DATASET
        mine.mkdir(parents=True)
        for file in (f"{PLANS}.json", "dataset_fingerprint.json"):
            shutil.copyfile(theirs / file, mine / file)
        self._run_segplug(["preprocess", "4", "-p", PLANS, "-c", CONFIGURATION], "all")
        done.write_text(settings, encoding="utf-8")

    def train(self, program: str, seed: int) -> Curves:
        """Train with one of them, unless that was done before."""
        if not any(self._results(program, str(seed)).glob(f"{DATASET}/*/fold_0/validation/summary.json")):
            if program == "segplug":
                self._train_segplug(seed)
            else:
                same = [str(torch_seed(seed, "network", 0))] if self._same_weights else []
                self._run_peer("train", str(seed), *same)
        return self._outcome(program, seed)

    def _train_segplug(self, seed: int) -> None:
        settings = {
            "lr": SETTINGS["lr"],
            "epochs": SETTINGS["epochs"],
            "iterations_per_epoch": SETTINGS["iterations"],
            "val_iterations_per_epoch": SETTINGS["val_iterations"],
        }
        command = ["train", "4", CONFIGURATION, "0", "-p", PLANS, "--trainer", "nnunet", "--seed", str(seed)]
        command += ["--device", "cpu", "--precision", "fp32", "--workers", "0"]
        command += [part for key, value in settings.items() for part in ("--set", f"trainer.{key}={value}")]
        self._run_segplug(command, str(seed))

    def same_split(self) -> bool:
        """Whether both made the same fold 0."""
        mine, theirs = (
            json.loads((self._preprocessed(name) / DATASET / "splits_final.json").read_text(encoding="utf-8"))[0]
            for name in ("segplug", "nnunetv2")
        )
        return all(sorted(mine[part]) == sorted(theirs[part]) for part in ("train", "val"))

    def _preprocessed(self, program: str) -> Path:
        return self._folder / f"preprocessed_{program}"

    def _results(self, program: str, seed: str) -> Path:
        return self._folder / f"results_{program}_{seed}"

    def _run_segplug(self, command: Sequence[str], seed: str) -> None:
        roots = {
            "raw": self._raw,
            "preprocessed": self._preprocessed("segplug"),
            "results": self._results("segplug", seed),
        }
        options = [part for name, path in roots.items() for part in (f"--{name}", str(path))]
        self._call(["segplug", *options, *command], {}, f"segplug_{command[0]}_{seed}")

    def _run_peer(self, what: str, seed: str, *network_seed: str) -> None:
        variables = {
            "nnUNet_raw": str(self._raw),
            "nnUNet_preprocessed": str(self._preprocessed("nnunetv2")),
            "nnUNet_results": str(self._results("nnunetv2", seed)),
            "nnUNet_n_proc_DA": "1" if what == "prepare" else "0",
            "nnUNet_def_n_proc": "1",
            "nnUNet_compile": "f",
        }
        command = [self._peer, str(PEER_SCRIPT), what, DATASET, PLANS, json.dumps(SETTINGS), seed, *network_seed]
        self._call(command, variables, f"nnunetv2_{what}_{seed}")

    def _call(self, command: Sequence[str], variables: Mapping[str, str], name: str) -> None:
        log = self._folder / f"log_{name}.txt"
        with log.open("w", encoding="utf-8") as stream:
            environment = {**os.environ, **variables}
            done = subprocess.run(command, env=environment, stdout=stream, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{log.read_text(encoding='utf-8')[-4000:]}")

    def _outcome(self, program: str, seed: int) -> Curves:
        (fold,) = self._results(program, str(seed)).glob(f"{DATASET}/*/fold_0")
        summary = json.loads((fold / "validation" / "summary.json").read_text(encoding="utf-8"))
        # nnunetv2 pickles NumPy scalars into its checkpoints; these were made here and now
        logged = torch.load(fold / "checkpoint_final.pth", weights_only=False)["logging"]
        curves = {key: [float(each) for each in logged[key]] for key in ("train_losses", "val_losses", "mean_fg_dice")}
        return {"seed": seed, "dice": summary["foreground_mean"]["Dice"], **curves}


def compare(mine: Sequence[float], theirs: Sequence[float], paired: bool) -> dict[str, float]:
    """Means, standard deviations over seeds, and Welch's test, or the paired one."""
    test = ttest_rel(mine, theirs) if paired else ttest_ind(mine, theirs, equal_var=False)
    interval = test.confidence_interval(1 - LEVEL)
    return {
        "segplug_mean": statistics.mean(mine),
        "segplug_std": statistics.stdev(mine),
        "nnunetv2_mean": statistics.mean(theirs),
        "nnunetv2_std": statistics.stdev(theirs),
        "difference_low": float(interval.low),
        "difference_high": float(interval.high),
        "p": float(test.pvalue),
    }


def train_all(programs: Programs, seeds: int) -> dict[str, list[Curves]]:
    """Every seed with both programs, told line by line."""
    runs: dict[str, list[Curves]] = {"segplug": [], "nnunetv2": []}
    programs.prepare()
    for seed in range(seeds):
        for program, curves in runs.items():
            start = time.perf_counter()
            curves.append(programs.train(program, seed))
            seconds = time.perf_counter() - start
            sys.stdout.write(f"{program:9} seed {seed}: Dice {curves[-1]['dice']:.4f}, {seconds:.0f} s\n")
            sys.stdout.flush()
    if not programs.same_split():
        raise SystemExit("the two programs split the cases differently")
    return runs


def main() -> int:
    """Run it; 1 if the final Dice differs by more than seed noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="trainings of each program, at least 3")
    parser.add_argument("--same-weights", action="store_true", help="begin in pairs, and compare in pairs")
    parser.add_argument("--folder", type=Path, help="where to keep what is made [default: nowhere]")
    arguments = parser.parse_args()
    raw = (report.FOLDER.parent / os.environ.get("SEGPLUG_SHARED", "../shared")).resolve() / "datasets"
    peer = os.environ.get("SEGPLUG_PEER")
    if not (raw / DATASET).is_dir() or not peer:
        sys.stderr.write(f"this needs {raw / DATASET} (set SEGPLUG_SHARED) and nnunetv2's Python (set SEGPLUG_PEER)\n")
        return 1
    with tempfile.TemporaryDirectory() as name:
        runs = train_all(Programs(arguments.folder or Path(name), raw, peer, arguments.same_weights), arguments.seeds)

    def values(program: str, get: Callable[[Curves], float]) -> list[float]:
        return [get(each) for each in runs[program]]

    def both(get: Callable[[Curves], float]) -> dict[str, float]:
        return compare(values("segplug", get), values("nnunetv2", get), arguments.same_weights)

    late = SETTINGS["epochs"] // 3  # mean of the last third: less noise than the last epoch
    figures = {
        "validation Dice": both(lambda run: run["dice"]),
        "training loss, first epoch": both(lambda run: run["train_losses"][0]),
        "training loss, last third": both(lambda run: statistics.mean(run["train_losses"][-late:])),
        "validation loss, last third": both(lambda run: statistics.mean(run["val_losses"][-late:])),
        "pseudo-Dice, last third": both(lambda run: statistics.mean(run["mean_fg_dice"][-late:])),
    }
    sys.stdout.write(f"{'':30}{'segplug':>18}{'nnunetv2':>18}{'difference, 95 %':>22}{'p':>8}\n")
    for what, found in figures.items():
        sys.stdout.write(
            f"{what:30}{found['segplug_mean']:>9.4f} ± {found['segplug_std']:.4f}"
            f"{found['nnunetv2_mean']:>9.4f} ± {found['nnunetv2_std']:.4f}"
            f"{found['difference_low']:>+11.4f}..{found['difference_high']:+.4f}{found['p']:>10.3f}\n"
        )
    path = report.write("learning", {"settings": SETTINGS, "compared": figures, "runs": runs})
    agree = figures["validation Dice"]["p"] > LEVEL
    sys.stdout.write(f"{'within' if agree else 'BEYOND'} seed noise (level {LEVEL}); {path}\n")
    return 0 if agree else 1


if __name__ == "__main__":
    raise SystemExit(main())
