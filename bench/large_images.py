"""Very large images within 4 GB: one of 12000 x 12000 pixels, and one of 600 x 600 x 600 voxels.

    nox -s bench -- large_images

To reach: preprocess and predict (small network, no mirroring) finish under --max-memory 4, and the process tree never
has more than 4 GB in memory. segplug alone: nnunetv2 has no such limit.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import models
import side_by_side as bench
from segplug.model import Plan
from segplug.runtime.files import write_json
from segplug.runtime.plan_codec import encode_plan

LIMIT_GB = 4
DATASET = "Dataset503_Large"


def main() -> int:
    """Run it; 1 if an aim is missed."""
    benchmark = bench.Benchmark("large_images", bench.arguments(__doc__, repetitions=1))
    sizes = ((400, 400), (60, 60, 60)) if benchmark.quick else ((12000, 12000), (600, 600, 600))
    with benchmark.folder() as folder:
        for size in sizes:
            told = "x".join(map(str, size))
            patch = (512, 512) if len(size) == 2 else (128, 128, 128)
            plan = models.small_plan(tuple(min(p, s // 2) for p, s in zip(patch, size, strict=True)), features=4)
            here = folder / f"{len(size)}d"
            # in a process of its own: this one is to stay small
            bench.run(
                bench.Program([[sys.executable, bench.OWN / "large_image.py", here, DATASET, *map(str, size)]]), [0], 1
            )
            for what, program in _programs(here, plan, "2d" if len(size) == 2 else "3d_fullres").items():
                runs = benchmark.alternate(f"{what} {told}", {bench.SEGPLUG: program})[bench.SEGPLUG]
                seconds = f"--max-memory {LIMIT_GB}, {runs[0].seconds:.0f} s"
                benchmark.below(
                    f"{what} one image of {told}: peak memory",
                    runs,
                    "peak_memory_mb",
                    "MB",
                    limit=LIMIT_GB * 1000,
                    remark=seconds,
                )
            shutil.rmtree(here)
    return benchmark.finish()


def _programs(folder: Path, plan: Plan, configuration: str) -> dict[str, bench.Program]:
    raw = {**encode_plan(plan), "dataset_name": DATASET}
    write_json(folder / "preprocessed" / DATASET / "nnUNetPlans.json", raw)
    model = models.write_model(folder / f"nnUNetTrainer__nnUNetPlans__{configuration}", plan, folds=[0], mirror=False)
    segplug = [Path(sys.executable).parent / "segplug"]
    roots = ["--raw", folder / "raw", "--preprocessed", folder / "preprocessed"]
    images, out = folder / "raw" / DATASET / "imagesTr", folder / "out"
    limit = {what: ["--max-memory", str(LIMIT_GB)] if _takes_limit(what) else [] for what in ("preprocess", "predict")}
    predict = ["predict", "-i", images, "-o", out, "-m", model, "--no-mirroring", "--device", "cpu"]
    return {
        "preprocess": bench.Program(
            [[*segplug, *roots, "preprocess", "503", *limit["preprocess"]]],
            before=lambda: shutil.rmtree(folder / "preprocessed" / DATASET / "bench", ignore_errors=True),
        ),
        "predict": bench.Program(
            [[*segplug, *predict, *limit["predict"]]], before=lambda: shutil.rmtree(out, ignore_errors=True)
        ),
    }


def _takes_limit(command: str) -> bool:
    program = [str(Path(sys.executable).parent / "segplug"), command, "--help"]
    return "--max-memory" in subprocess.run(program, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    raise SystemExit(main())
