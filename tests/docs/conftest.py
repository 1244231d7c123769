"""What the pages take for granted: folders with data sets, planned or trained, in which their examples run.

A page names its world in a comment, `<!-- world: trained -->`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import segplug
from segplug.kernel import Kernel
from segplug.model import ComponentRef
from segplug.runtime.plan_codec import write_plan
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.sample import DATASET, sample_root
from segplug.testing import Phantom, write_phantom_dataset

SETTINGS = '[paths]\nraw = "raw"\npreprocessed = "preprocessed"\nresults = "results"\n\n[defaults]\nworkers = 0\n'


def empty(folder: Path) -> None:
    """Settings alone, as Getting started has them."""
    (folder / "segplug.toml").write_text(SETTINGS)
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir()


def sample(folder: Path) -> None:
    """Data set 4: six cases of the bundled sample, and one in `images` that nobody has labelled."""
    empty(folder)
    source, target = sample_root() / DATASET, folder / "raw" / DATASET
    names = sorted(path.name.removesuffix(".nii.gz") for path in (source / "labelsTr").iterdir())
    for part in ("imagesTr", "labelsTr"):
        (target / part).mkdir(parents=True)
    for name in names[:6]:
        shutil.copy(source / "imagesTr" / f"{name}_0000.nii.gz", target / "imagesTr")
        shutil.copy(source / "labelsTr" / f"{name}.nii.gz", target / "labelsTr")
    content = json.loads((source / "dataset.json").read_text()) | {"numTraining": 6}
    (target / "dataset.json").write_text(json.dumps(content, indent=1))
    (folder / "images").mkdir()
    shutil.copy(source / "imagesTr" / f"{names[6]}_0000.nii.gz", folder / "images" / "new_case_0000.nii.gz")


def planned(folder: Path) -> None:
    """The same, planned with networks of a few thousand weights and a training of moments, and preprocessed."""
    sample(folder)
    with Project(_workspace(folder), Kernel(discover=False), workers=0) as project:
        segplug.fingerprint(project, 4)
        made = segplug.plan(project, 4, planner="compact", plans_name="nnUNetPlans")
        small = made.configurations["3d_fullres"]
        options = {
            **small.architecture.options,
            "n_stages": 2,
            "features_per_stage": [4, 8],
            "kernel_sizes": [[3, 3, 3]] * 2,
            "strides": [[1, 1, 1], [2, 2, 2]],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
        }
        architecture = ComponentRef(small.architecture.name, options)
        small = replace(small, patch_size=(32, 32, 32), batch_size=2, architecture=architecture)
        short = {"epochs": 2, "iterations_per_epoch": 2, "val_iterations_per_epoch": 1}
        tiny = replace(made, configurations={"3d_fullres": small}, training={"": ComponentRef("short", short)})
        write_plan(_workspace(folder).plans_file(DATASET, "nnUNetPlans"), tiny)
        segplug.preprocess(project, 4)


def trained(folder: Path) -> None:
    """The same, fold 0 trained."""
    planned(folder)
    with Project(_workspace(folder), Kernel(discover=False), workers=0) as project:
        segplug.train(project, 4, "3d_fullres", 0, device="cpu")


def patients(folder: Path) -> None:
    """Data set 27: two scans each of six patients, and a table that says who they are and where they were scanned."""
    empty(folder)
    made = write_phantom_dataset(folder / "raw" / "Dataset027_Heart", Phantom((4, 12, 10)), cases=12)
    rows = ["case,patient,scanner"]
    for number in range(12):
        name = f"patient{number // 2 + 1}_{'ab'[number % 2]}"
        (made / "imagesTr" / f"phantom_{number:03d}_0000.nii.gz").rename(made / "imagesTr" / f"{name}_0000.nii.gz")
        (made / "labelsTr" / f"phantom_{number:03d}.nii.gz").rename(made / "labelsTr" / f"{name}.nii.gz")
        rows.append(f"{name},{number // 2 + 1},{'AB'[number // 6]}")
    (folder / "patients.csv").write_text("\n".join(rows) + "\n")


def folder_of_images(folder: Path) -> None:
    """`scans/ct/NAME.nii.gz` and `scans/seg/NAME.nii.gz`, without a data set."""
    empty(folder)
    made = write_phantom_dataset(folder / "made" / "Dataset001_X", Phantom((8, 20, 18), channels=("CT",)), cases=4)
    for part, target in (("imagesTr", "ct"), ("labelsTr", "seg")):
        (folder / "scans" / target).mkdir(parents=True)
        for path in sorted((made / part).iterdir()):
            path.rename(folder / "scans" / target / path.name.replace("_0000", "").replace("phantom", "patient"))
    shutil.rmtree(folder / "made")


def regions(folder: Path) -> None:
    """Data set 42: whole, core and enhancing tumour."""
    empty(folder)
    look = Phantom((8, 24, 20), channels=("T1", "T2"), classes=3, regions=True)
    made = write_phantom_dataset(folder / "raw" / "Dataset042_Tumour", look, cases=4)
    content = json.loads((made / "dataset.json").read_text())
    content["labels"] = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    (made / "dataset.json").write_text(json.dumps(content, indent=1))


def sparse(folder: Path) -> None:
    """Data set 28: slices of which half are annotated."""
    empty(folder)
    look = Phantom((8, 24, 20), classes=3, ignored=0.5)
    made = write_phantom_dataset(folder / "raw" / "Dataset028_Scribbles", look, cases=4)
    content = json.loads((made / "dataset.json").read_text())
    content["labels"] = {"background": 0, "RV": 1, "MYO": 2, "LV": 3, "ignore": 4}
    (made / "dataset.json").write_text(json.dumps(content, indent=1))


def arrays(folder: Path) -> None:
    """The trained world, and arrays as a notebook may have them."""
    trained(folder)
    random = np.random.default_rng(0)
    np.savez(folder / "scan.npz", voxels=random.normal(400, 80, (35, 51, 35)).astype(np.float32))


def _workspace(folder: Path) -> Workspace:
    return Workspace(folder / "raw", folder / "preprocessed", folder / "results")


WORLDS: dict[str, Callable[[Path], None]] = {
    world.__name__: world
    for world in (empty, sample, planned, trained, patients, folder_of_images, regions, sparse, arrays)
}


@pytest.fixture
def furnish() -> Callable[[str, Path], None]:
    """Make the world of a name in a folder."""
    return lambda name, folder: WORLDS[name](folder)
