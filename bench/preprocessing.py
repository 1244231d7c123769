"""Verifying, fingerprinting, planning and preprocessing a data set: many small images, and a few large ones.

    nox -s bench -- preprocessing

To reach: Hippocampus (200 cases) >= 12x faster; three phantom CTs of 512 x 512 x 150-170, spacing different in each,
>= 6x less CPU time and at most 0.4x of the memory. Both programs do all of it in one command, with two processes of
one thread each, for every configuration of the plan.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import side_by_side as bench
from segplug.testing.phantoms import Phantom, write_phantom_dataset

FASTER, LESS_CPU, MEMORY = 12, 6, 0.4
HIPPOCAMPUS, CT = "Dataset004_Hippocampus", "Dataset500_PhantomCT"
CT_PHANTOM = Phantom(
    shape=(160, 512, 512),
    spacing=(2.0, 0.8, 0.8),
    spacing_spread=1.3,
    channels=("CT",),
    classes=3,
    file_ending=".nii.gz",
)


def main() -> int:
    """Run it; 1 if an aim is missed."""
    benchmark = bench.Benchmark("preprocessing", bench.arguments(__doc__))
    with benchmark.folder() as folder:
        count = link_cases(
            bench.shared_datasets() / HIPPOCAMPUS, folder / "raw" / HIPPOCAMPUS, 6 if benchmark.quick else 200
        )
        programs = _programs(benchmark, folder, HIPPOCAMPUS, ("2d", "3d_fullres"))
        runs = benchmark.alternate(f"Hippocampus, {count} cases", programs, threads=1)
        what = "verify + fingerprint + plan + preprocess, Hippocampus"
        benchmark.compare(what, runs, "seconds", "s", at_least=FASTER, remark=f"{count} cases, 2d and 3d_fullres")
        phantom = Phantom(shape=(20, 48, 48), spacing_spread=1.3, channels=("CT",)) if benchmark.quick else CT_PHANTOM
        write_phantom_dataset(folder / "raw" / CT, phantom, cases=3)
        programs = _programs(benchmark, folder, CT, ("2d", "3d_fullres", "3d_lowres"))
        # one run of nnunetv2 takes more than a minute
        runs = benchmark.alternate("CT", programs, threads=1, repetitions=min(3, benchmark.repetitions))
        what = "the same, three phantom CTs"
        sizes = "x".join(map(str, phantom.shape))
        benchmark.compare(f"{what}: CPU", runs, "cpu_seconds", "s", at_least=LESS_CPU, remark=f"about {sizes}")
        benchmark.compare(
            f"{what}: memory",
            runs,
            "peak_memory_mb",
            "MB",
            at_least=1 / MEMORY,
            aim=f"≤ {MEMORY:g}x of the memory",
            remark="peak of the process tree",
        )
    return benchmark.finish()


def _programs(
    benchmark: bench.Benchmark, folder: Path, dataset: str, configurations: Sequence[str]
) -> dict[str, bench.Program]:
    number = str(int(dataset[7:10]))
    segplug = [Path(sys.executable).parent / "segplug", "--raw", folder / "raw", "--preprocessed", folder / "mine"]
    peer = Path(benchmark.peer or "").parent / "nnUNetv2_plan_and_preprocess"
    theirs = [peer, "-d", number, "--verify_dataset_integrity", "-npfp", "2", "-np", *["2"] * len(configurations)]
    variables = {
        "nnUNet_raw": str(folder / "raw"),
        "nnUNet_preprocessed": str(folder / "theirs"),
        "nnUNet_results": str(folder / "results"),
        "nnUNet_def_n_proc": "2",
    }
    return {
        bench.SEGPLUG: bench.Program(
            [[*segplug, "prepare", number, "--workers", "2"]],
            before=lambda: shutil.rmtree(folder / "mine", ignore_errors=True),
        ),
        bench.NNUNET: bench.Program(
            [[*theirs, "-c", *configurations]],
            variables,
            before=lambda: shutil.rmtree(folder / "theirs", ignore_errors=True),
        ),
    }


def link_cases(source: Path, target: Path, count: int) -> int:
    """A data set of some cases of another."""
    labels = sorted((source / "labelsTr").iterdir())[:count]
    for part in ("imagesTr", "labelsTr"):
        (target / part).mkdir(parents=True)
    for label in labels:
        (target / "labelsTr" / label.name).symlink_to(label)
        image = label.name.replace(".nii.gz", "_0000.nii.gz")
        (target / "imagesTr" / image).symlink_to(source / "imagesTr" / image)
    described = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    (target / "dataset.json").write_text(json.dumps({**described, "numTraining": len(labels)}), encoding="utf-8")
    return len(labels)


if __name__ == "__main__":
    raise SystemExit(main())
