"""Resampling one image and one label map, one thread.

    nox -s bench -- resampling

To reach: images (order 3) >= 20x faster with an error of at most 1e-5 of the range; labels (10 classes, order 1)
>= 10x with agreement of at least 0.9999.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import side_by_side as bench
from segplug.testing.phantoms import Phantom, make_case

SHAPE, NEW_SHAPE, CLASSES = (120, 160, 160), (150, 200, 200), 10
QUICK_SHAPE, QUICK_NEW_SHAPE = (24, 32, 32), (30, 40, 40)
ERROR, AGREEMENT = 1e-5, 0.9999


def main() -> int:
    """Run it; 1 if an aim is missed."""
    benchmark = bench.Benchmark("resampling", bench.arguments(__doc__))
    shape, new_shape = (QUICK_SHAPE, QUICK_NEW_SHAPE) if benchmark.quick else (SHAPE, NEW_SHAPE)
    sizes = "x".join(map(str, shape)) + " to " + "x".join(map(str, new_shape))
    with benchmark.folder() as folder:
        image, labels, _ = make_case(Phantom(shape=shape, classes=CLASSES))
        np.save(folder / "image.npy", image)
        np.save(folder / "labels.npy", labels[None])
        for what in ("image", "labels"):
            programs = {
                name: bench.Program([[python, script, folder / f"{what}.npy", folder / f"{what}_{name}.npy", *new]])
                for name, python, script in (
                    (bench.SEGPLUG, sys.executable, bench.OWN / "resampling.py"),
                    (bench.NNUNET, benchmark.peer or "", bench.PEER_SCRIPTS / "resampling.py"),
                )
                for new in [[what, *map(str, new_shape)]]
            }
            runs = benchmark.alternate(what, programs, cores=1)
            words = "resampling one image, order 3" if what == "image" else "resampling labels, 10 classes, order 1"
            benchmark.compare(words, runs, "inner_seconds", "s", at_least=20 if what == "image" else 10, remark=sizes)
            if benchmark.peer:
                _judge(benchmark, folder, what)
    return benchmark.finish()


def _judge(benchmark: bench.Benchmark, folder: Path, what: str) -> None:
    mine, theirs = (np.load(folder / f"{what}_{name}.npy") for name in (bench.SEGPLUG, bench.NNUNET))
    if what == "image":
        error = float(np.abs(mine - theirs).max() / np.ptp(np.load(folder / "image.npy")))
        benchmark.below("largest difference, of the range", error, "", "", limit=ERROR)
    else:
        benchmark.below("labels that differ", float((mine != theirs).mean()), "", "", limit=round(1 - AGREEMENT, 9))


if __name__ == "__main__":
    raise SystemExit(main())
