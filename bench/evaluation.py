"""Scoring 200 predictions against their references, command to summary.json.

    nox -s bench -- evaluation

To reach: >= 5x faster. nnunetv2 works with two processes, as many as cores; segplug chooses for itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

import side_by_side as bench

FASTER, DATASET = 5, "Dataset004_Hippocampus"


def main() -> int:
    """Run it; 1 if the aim is missed."""
    benchmark = bench.Benchmark("evaluation", bench.arguments(__doc__))
    source = bench.shared_datasets() / DATASET
    labels = sorted((source / "labelsTr").iterdir())[: 6 if benchmark.quick else 200]
    with benchmark.folder() as folder:
        references, predictions = folder / "references", folder / "predictions"
        references.mkdir()
        predictions.mkdir()
        for label in labels:
            (references / label.name).symlink_to(label)
            image = sitk.ReadImage(str(label))
            moved = sitk.GetImageFromArray(np.roll(sitk.GetArrayFromImage(image), 1, axis=1))
            moved.CopyInformation(image)
            sitk.WriteImage(moved, str(predictions / label.name), useCompression=True)
        described = source / "dataset.json"
        segplug = [Path(sys.executable).parent / "segplug", "evaluate", references, predictions]
        peer = [Path(benchmark.peer or "").parent / "nnUNetv2_evaluate_folder", references, predictions]
        plans = bench.shared_datasets().parent / "reference" / DATASET / "nnUNetPlans.json"
        runs = benchmark.alternate(
            "evaluate",
            {
                bench.SEGPLUG: bench.Program([[*segplug, "--dataset-json", described]]),
                bench.NNUNET: bench.Program([[*peer, "-djfile", described, "-pfile", plans, "-np", "2"]]),
            },
            threads=1,
        )
        what = f"evaluation of {len(labels)} cases"
        benchmark.compare(what, runs, "seconds", "s", at_least=FASTER, remark="Hippocampus, Dice and counts")
    return benchmark.finish()


if __name__ == "__main__":
    raise SystemExit(main())
