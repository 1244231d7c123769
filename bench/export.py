"""Export: from logits at the network's resolution to labels at the image's.

    nox -s bench -- export

To reach: 25 classes, 200x256x256 -> 300x512x512, >= 8x faster with at most 0.1x of the memory beside the logits; a
prediction with 117 classes of the same size ends with less than 4 GB in all (no mirroring, small network).
nnunetv2 needs 15 GB for the first.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

import models
import side_by_side as bench
from segplug.testing.phantoms import write_volumes

SHAPE, NEW_SHAPE, CLASSES, MANY_CLASSES = (200, 256, 256), (300, 512, 512), 25, 117
QUICK_SHAPE, QUICK_NEW_SHAPE = (20, 32, 32), (30, 64, 64)
FASTER, MEMORY, LIMIT_MB, AGREEMENT = 8, 0.1, 4000, 0.999


def main() -> int:
    """Run it; 1 if an aim is missed."""
    benchmark = bench.Benchmark("export", bench.arguments(__doc__, repetitions=3))
    shape, new_shape = (QUICK_SHAPE, QUICK_NEW_SHAPE) if benchmark.quick else (SHAPE, NEW_SHAPE)
    sizes = f"{CLASSES} classes, {'x'.join(map(str, shape))} to {'x'.join(map(str, new_shape))}"
    with benchmark.folder() as folder:
        programs = {
            name: bench.Program(
                [[python, script, folder / f"{name}.npy", str(CLASSES), *map(str, (*shape, *new_shape))]]
            )
            for name, python, script in (
                (bench.SEGPLUG, sys.executable, bench.OWN / "export.py"),
                (bench.NNUNET, benchmark.peer or "", bench.PEER_SCRIPTS / "export.py"),
            )
        }
        runs = benchmark.alternate("export", programs, repetitions=min(3, benchmark.repetitions))
        benchmark.compare("export of logits", runs, "inner_seconds", "s", at_least=FASTER, remark=sizes)
        benchmark.compare(
            "export of logits: memory beside them",
            runs,
            "extra_memory_mb",
            "MB",
            at_least=1 / MEMORY,
            aim=f"≤ {MEMORY:g}x of the memory",
            remark=sizes,
        )
        if benchmark.peer:
            mine, theirs = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in programs)
            benchmark.below("labels that differ", float((mine != theirs).mean()), "", "", limit=1 - AGREEMENT)
        _many_classes(benchmark, folder, shape, new_shape)
    return benchmark.finish()


def _many_classes(benchmark: bench.Benchmark, folder: Path, shape: tuple[int, ...], new_shape: tuple[int, ...]) -> None:
    patch = (16, 16, 16) if benchmark.quick else (128, 128, 128)
    labels = {"background": 0, **{f"organ_{number}": number for number in range(1, MANY_CLASSES)}}
    spacing = [new / old for old, new in zip(shape, new_shape, strict=True)]
    plan = models.with_spacing(models.small_plan(patch, features=4), "3d_fullres", spacing)
    model = models.write_model(
        folder / "nnUNetTrainer__nnUNetPlans__3d_fullres", plan, folds=[0], labels=labels, mirror=False
    )
    (folder / "images").mkdir()
    noise = np.random.default_rng(0).normal(100, 20, new_shape).astype(np.float32)
    write_volumes({folder / "images" / "case_0000.nii.gz": noise}, (1.0, 1.0, 1.0))
    out = folder / "out"
    command = [Path(sys.executable).parent / "segplug", "predict", "-i", folder / "images", "-o", out, "-m", model]
    program = bench.Program(
        [[*command, "--device", "cpu", "--max-memory", "4"]], before=lambda: shutil.rmtree(out, ignore_errors=True)
    )
    remark = f"--max-memory 4, {'x'.join(map(str, shape))} to {'x'.join(map(str, new_shape))}"
    what = f"predict with {MANY_CLASSES} classes: peak memory of the process tree"
    try:
        runs = benchmark.alternate(f"{MANY_CLASSES} classes", {bench.SEGPLUG: program}, repetitions=1)
    except SystemExit as failure:
        bench.say(str(failure))
        benchmark.failed(what, "MB", limit=LIMIT_MB, remark=remark)
    else:
        benchmark.below(what, runs[bench.SEGPLUG], "peak_memory_mb", "MB", limit=LIMIT_MB, remark=remark)


if __name__ == "__main__":
    raise SystemExit(main())
