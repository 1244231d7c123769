"""Beside nnunetv2's converters, on real cases put back into the old layouts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from segplug.runtime.project import Project
from segplug.stages.convert import convert
from segplug_builtin.readers import read_simpleitk

HERE = Path(__file__).parent
CASES = 3


def hippocampus(shared: Path) -> tuple[Path, list[str]]:
    folder = shared / "datasets" / "Dataset004_Hippocampus"
    return folder, sorted(p.name.removesuffix(".nii.gz") for p in (folder / "labelsTr").iterdir())[: CASES + 1]


def as_msd(shared: Path, folder: Path) -> Path:
    """Real cases as the Decathlon has them; the second channel is made of the first."""
    source, names = hippocampus(shared)
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True)
    for number, name in enumerate(names):
        image = nibabel.load(source / f"imagesTr/{name}_0000.nii.gz")
        voxels = np.asanyarray(image.dataobj)
        stacked = np.stack([voxels, voxels[::-1] // 2], -1)
        header = image.header.copy()
        if number == 1:  # a scaled one
            stacked = stacked.astype(np.int16)
        whole = nibabel.Nifti1Image(stacked, image.affine, header)
        if number == 1:
            whole.header.set_slope_inter(0.25, -7)
        part = "imagesTr" if number < CASES else "imagesTs"
        nibabel.save(whole, folder / part / f"{name}.nii.gz")
        if number < CASES:
            shutil.copyfile(source / f"labelsTr/{name}.nii.gz", folder / f"labelsTr/{name}.nii.gz")
    describe(folder, {"0": "T1", "1": "T1 mirrored"})
    return folder


def as_v1(shared: Path, folder: Path) -> Path:
    source, names = hippocampus(shared)
    for part in ("Tr", "Ts"):
        for name in names[:CASES] if part == "Tr" else names[CASES:]:
            for kind, ending in (("images", "_0000.nii.gz"), ("labels", ".nii.gz")):
                (folder / f"{kind}{part}").mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / f"{kind}Tr/{name}{ending}", folder / f"{kind}{part}/{name}{ending}")
    describe(folder, {"0": "T1"})
    return folder


def describe(folder: Path, channels: dict[str, str]) -> None:
    description = {
        "name": "Hippocampus",
        "reference": "elsewhere",
        "tensorImageSize": "3D",
        "modality": channels,
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "numTraining": CASES,
        "numTest": 1,
        "training": [],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(description))


@pytest.fixture(scope="module")
def both(
    shared: Path, peer: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[Path, Path], tuple[Path, Path]]:
    """What nnunetv2 made (its folder of raw data), and the sources with the folder of both."""
    folder = tmp_path_factory.mktemp("peer")
    sources = as_msd(shared, folder / "Task04_Hippocampus"), as_v1(shared, folder / "Task004_Old")
    roots = {f"nnUNet_{root}": str(folder / root) for root in ("raw", "preprocessed", "results")}
    for root in roots.values():
        Path(root).mkdir()
    done = subprocess.run(
        [peer, HERE / "peer_convert.py", *sources], env={**os.environ, **roots}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    made = folder / "raw" / "Dataset005_Hippocampus", folder / "raw" / "Dataset107_Old"
    return folder, sources, made


def files_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*.nii.gz")}


def compare(ours: Path, theirs: Path) -> tuple[int, int, float, float]:
    """Files, those that differ in name or description, and the largest differences of voxels and of geometry."""
    differing = len(files_in(ours) ^ files_in(theirs))
    descriptions = [json.loads((folder / "dataset.json").read_text()) for folder in (ours, theirs)]
    differing += descriptions[0] != descriptions[1]
    voxels, geometry = 0.0, 0.0
    for name in sorted(files_in(ours) & files_in(theirs)):
        one, two = (read_simpleitk([folder / name]) for folder in (ours, theirs))
        voxels = max(voxels, float(np.abs(one.array - two.array).max()))
        places = [sitk.ReadImage(str(folder / name)) for folder in (ours, theirs)]
        for get in ("GetSpacing", "GetOrigin", "GetDirection"):
            values = [np.array(getattr(place, get)()) for place in places]
            geometry = max(geometry, float(np.abs(values[0] - values[1]).max()))
    return len(files_in(ours)), differing, voxels, geometry


@pytest.mark.parity
@pytest.mark.parametrize(("number", "kind", "name"), [(0, "msd", "Decathlon"), (1, "nnunet-v1", "nnU-Net v1")])
def test_the_same_data_set(
    number: int,
    kind: str,
    name: str,
    both: tuple[Path, tuple[Path, Path], tuple[Path, Path]],
    project: Project,
    parity: Callable[..., None],
) -> None:
    _, sources, theirs = both
    ours = convert(project, sources[number], theirs[number].name)
    assert ours.converter == kind
    files, differing, voxels, geometry = compare(ours.folder, theirs[number])
    section = "Reading"
    parity(f"{name} converted: names of files and dataset.json that differ", files, differing, 0, section=section)
    parity(f"{name} converted: voxels", files, voxels, 0, section=section)
    parity(f"{name} converted: spacing, origin, direction (mm)", files, geometry, 1e-6, section=section)
