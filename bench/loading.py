"""Loading and augmenting training patches, samples per second and core.

    nox -s bench -- loading

To reach: >= 3x at 40x56x40 (Hippocampus) and >= 5x at 128x128x128 (phantoms), with the same distributions (the parity
tests see to that). Both programs make batches in one process with one thread.
"""

from __future__ import annotations

from pathlib import Path

import side_by_side as bench
import training_data
from training_data import TrainingData


def main() -> int:
    """Run it; 1 if an aim is missed."""
    benchmark = bench.Benchmark("loading", bench.arguments(__doc__))
    with benchmark.folder() as folder:
        small = training_data.hippocampus(folder / "small", benchmark.peer, 5 if benchmark.quick else 20)
        _compare(benchmark, small, "40x56x40, Hippocampus", at_least=3, batches=2 if benchmark.quick else 6)
        size = (40, 32, 2) if benchmark.quick else (192, 128, 32)
        large = training_data.cubes(folder / "large", benchmark.peer, *size)
        sizes = "x".join([str(size[1])] * 3)
        _compare(benchmark, large, f"{sizes}, phantoms", at_least=5, batches=2 if benchmark.quick else 20)
    return benchmark.finish()


def _compare(benchmark: bench.Benchmark, data: TrainingData, what: str, *, at_least: float, batches: int) -> None:
    theirs: list[str | Path] = [benchmark.peer or "", bench.PEER_SCRIPTS / "loading.py", data.dataset, str(batches)]
    programs = {
        bench.SEGPLUG: bench.Program([data.own_script("loading.py", str(batches))]),
        bench.NNUNET: bench.Program([theirs], data.variables),
    }
    runs = benchmark.alternate(what, programs, cores=1)
    benchmark.compare(f"loading + augmentation, {what}", runs, "sample_seconds", "s/sample", at_least=at_least)


if __name__ == "__main__":
    raise SystemExit(main())
