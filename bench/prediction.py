"""Predicting many small images with five folds, and one large one; command to files.

    nox -s bench -- prediction

To reach: 60 cases, 5 folds, mirroring >= 4x; one large case, same weights, steps and mirroring, >= 2.5x with automatic
precision (labels agree to 0.999), >= 1.15x in fp32 (0.9999). Networks are those of the default Hippocampus plan. Speed
does not depend on weights, which are random there; labels are compared as a trained model of nnunetv2 gives them.
One run of nnunetv2 takes ten minutes and more, so that each is made once.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

import models
import side_by_side as bench
from segplug.runtime.device import cpu_has_bf16

DATASET, MODEL = "Dataset004_Hippocampus", "nnUNetTrainer__nnUNetPlans__3d_fullres"
TRAINED = "nnUNetTrainer__nnUNetPlansSmall__3d_fullres"
CASES, FOLDS = 60, (0, 1, 2, 3, 4)
GRID, CELL = (2, 2, 3), (40, 56, 40)
"""The large image is made of real ones, each padded or cut to a cell."""

AGREE = {"fp32": 0.9999, "auto": 0.999}
FASTER = {"fp32": 1.15, "auto": 2.5}


def main() -> int:
    """Run it; 1 if an aim is missed."""
    benchmark = bench.Benchmark("prediction", bench.arguments(__doc__, repetitions=1))
    source = bench.shared_datasets() / DATASET
    images = sorted((source / "imagesTr").iterdir())[: 2 if benchmark.quick else CASES]
    with benchmark.folder() as folder:
        plans = source.parent.parent / "reference" / DATASET / "nnUNetPlans.json"
        folds = FOLDS[:2] if benchmark.quick else FOLDS
        model = models.write_model(folder / MODEL, models.plan_of(plans, 4 if benchmark.quick else None), folds=folds)
        (folder / "small").mkdir()
        for image in images:
            (folder / "small" / image.name).symlink_to(image)
        programs = _programs(benchmark, folder, folder / "small", model, folds, ["auto"])
        runs = benchmark.alternate(
            "small cases", {bench.SEGPLUG: programs["auto"], bench.NNUNET: programs[bench.NNUNET]}
        )
        what = f"predict {len(images)} small cases, {len(folds)} folds, mirroring"
        benchmark.compare(what, runs, "seconds", "s", at_least=4, remark="command to files")
        _write_mosaic(sorted((source / "imagesTr").iterdir()), folder / "large", (1, 1, 2) if benchmark.quick else GRID)
        precisions = ["fp32", "auto"] if cpu_has_bf16() else ["fp32"]
        programs = _programs(benchmark, folder, folder / "large", model, (0,), precisions)
        runs = benchmark.alternate("large case", programs)
        sizes = "x".join(str(n * size) for n, size in zip((1, 1, 2) if benchmark.quick else GRID, CELL, strict=True))
        trained = source.parent.parent / "reference" / "models" / DATASET / TRAINED
        labels = _labels(benchmark, folder, trained, precisions) if benchmark.peer else {}
        for precision, at_least in FASTER.items():
            what = f"predict one large case, mirroring, precision {precision}"
            if precision not in precisions:
                benchmark.not_here(what, "s", at_least=at_least, remark=bench.WITHOUT_BF16)
                continue
            mine = {bench.SEGPLUG: runs[precision], **({bench.NNUNET: runs[bench.NNUNET]} if benchmark.peer else {})}
            benchmark.compare(what, mine, "seconds", "s", at_least=at_least, remark=sizes)
            if benchmark.peer:
                differ = float((labels[precision] != labels[bench.NNUNET]).mean())
                what = f"labels that differ, precision {precision}"
                limit = round(1 - AGREE[precision], 6)
                benchmark.below(what, differ, "", "", limit=limit, remark="trained weights")
    return benchmark.finish()


def _labels(
    benchmark: bench.Benchmark, folder: Path, model: Path, precisions: Sequence[str]
) -> dict[str, NDArray[np.uint8]]:
    programs = _programs(benchmark, folder, folder / "large", model, (0,), precisions)
    found = {}
    for name, program in programs.items():
        bench.run(program, benchmark.pinned(), benchmark.cores)
        found[name] = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"out_{name}" / "large.nii.gz")))
    return found


def _programs(
    benchmark: bench.Benchmark, folder: Path, images: Path, model: Path, folds: Sequence[int], precisions: Sequence[str]
) -> Mapping[str, bench.Program]:
    segplug = [Path(sys.executable).parent / "segplug", "predict", "-i", images, "-m", model, "--device", "cpu"]
    peer = [Path(benchmark.peer or "").parent / "nnUNetv2_predict_from_modelfolder", "-i", images, "-m", model]
    peer += ["-device", "cpu", "-npp", "2", "-nps", "2", "-f", *map(str, folds)]
    segplug += [part for fold in folds for part in ("-f", str(fold))]
    outs = {name: folder / f"out_{name}" for name in (*precisions, bench.NNUNET)}
    commands = {name: [*segplug, "-o", outs[name], "--precision", name] for name in precisions}
    commands[bench.NNUNET] = [*peer, "-o", outs[bench.NNUNET]]
    return {name: bench.Program([command], before=_remover(outs[name])) for name, command in commands.items()}


def _remover(folder: Path) -> bench.Before:
    return lambda: shutil.rmtree(folder, ignore_errors=True)


def _write_mosaic(images: Sequence[Path], folder: Path, grid: Sequence[int]) -> None:
    whole = np.zeros([n * size for n, size in zip(grid, CELL, strict=True)], np.float32)
    for image, cell in zip(images, np.ndindex(*grid), strict=False):
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(image))).astype(np.float32)
        array = np.pad(array, [(0, max(0, size - n)) for n, size in zip(array.shape, CELL, strict=True)], mode="edge")
        place = tuple(slice(i * size, (i + 1) * size) for i, size in zip(cell, CELL, strict=True))
        whole[place] = array[tuple(slice(size) for size in CELL)]
    folder.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(whole), str(folder / "large_0000.nii.gz"))


if __name__ == "__main__":
    raise SystemExit(main())
