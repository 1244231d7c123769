"""How long until something happens: `--help`, and `predict` from the command to the first call of the network.

    nox -s bench -- startup

To reach: help within 0.15 s; the first network call in half of nnunetv2's time.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

import models
import side_by_side as bench
from segplug.testing.phantoms import write_volumes

HELP_SECONDS, SHARE = 0.15, 0.5


def main() -> int:
    """Run it; 1 if an aim is missed."""
    benchmark = bench.Benchmark("startup", bench.arguments(__doc__))
    programs = Path(sys.executable).parent
    peers = Path(benchmark.peer or "").parent
    with benchmark.folder() as folder:
        runs = benchmark.alternate(
            "help",
            {
                bench.SEGPLUG: bench.Program([[programs / "segplug", "--help"]]),
                bench.NNUNET: bench.Program([[peers / "nnUNetv2_train", "--help"]]),
            },
        )
        benchmark.below("segplug --help", runs[bench.SEGPLUG], "seconds", "s", limit=HELP_SECONDS)
        if benchmark.peer:
            benchmark.compare("the same beside nnUNetv2_train --help", runs, "seconds", "s", at_least=1, aim="")
        model, images = folder / "nnUNetTrainer__nnUNetPlans__3d_fullres", folder / "images"
        models.write_model(model, models.small_plan(), folds=[0])
        array = np.random.default_rng(0).normal(100, 20, (40, 56, 40)).astype(np.float32)
        images.mkdir()
        write_volumes({images / "case_0000.nii.gz": array}, (1.0, 1.0, 1.0))
        runs = benchmark.alternate("first network call", _first_calls(benchmark, folder, images, model))
        benchmark.compare(
            "predict, from command to first network call",
            runs,
            "first_call_seconds",
            "s",
            at_least=1 / SHARE,
            aim=f"≤ {SHARE:g}x of the time",
        )
    return benchmark.finish()


def _first_calls(benchmark: bench.Benchmark, folder: Path, images: Path, model: Path) -> dict[str, bench.Program]:
    script, out = bench.OWN / "until_first_call.py", folder / "out"
    mine = [sys.executable, script, "segplug.cli.main", "predict", "-i", images, "-o", out, "-m", model]
    theirs = [benchmark.peer or "", script, "nnunetv2.inference.predict_from_raw_data:predict_entry_point_modelfolder"]
    theirs += ["-i", images, "-o", out, "-m", model, "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1"]

    def clear() -> None:
        shutil.rmtree(out, ignore_errors=True)

    return {
        bench.SEGPLUG: bench.Program([[*mine, "--device", "cpu"]], before=clear),
        bench.NNUNET: bench.Program([theirs], before=clear),
    }


if __name__ == "__main__":
    raise SystemExit(main())
