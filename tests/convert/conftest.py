"""Small sources of every layout, made of random voxels in a tilted place in the world."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from segplug.runtime.project import Project, open_project

SHAPE = (8, 7, 6)  # x, y, z
AFFINE = np.array([[-1.5, 0.1, 0.0, 20.0], [0.12, -2.0, 0.0, -7.5], [0.0, 0.0, 3.0, 11.25], [0.0, 0.0, 0.0, 1.0]])
AFFINE[:3, 1] *= 2.0 / np.linalg.norm(AFFINE[:3, 1])
# at right angles, as ITK demands
AFFINE[:3, 1] -= AFFINE[:3, 0] * (AFFINE[:3, 0] @ AFFINE[:3, 1]) / (AFFINE[:3, 0] @ AFFINE[:3, 0])


class Maker:
    """Writes images and label maps, no two alike."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._random = np.random.default_rng(0)

    def image(self, name: str, channels: int = 0, kind: Any = np.int16) -> Path:
        """`channels` 0: a volume without fourth axis."""
        shape = (*SHAPE, channels) if channels else SHAPE
        return self.write(name, self._random.integers(0, 1000, shape).astype(kind))

    def labels(self, name: str, values: tuple[int, ...] = (0, 1, 2), shape: tuple[int, ...] = SHAPE) -> Path:
        return self.write(name, self._random.choice(values, shape).astype(np.uint8))

    def write(self, name: str, array: Any) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nibabel.Nifti1Image(array, AFFINE)
        image.header["descrip"] = b"as scanned"
        nibabel.save(image, path)
        return path

    def json(self, name: str, value: Any) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
        return path

    def content(self) -> dict[str, str]:
        """Checksum of every file, to see that nothing changed."""
        files = sorted(p for p in self.folder.rglob("*") if p.is_file())
        return {str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / "raw"


@pytest.fixture
def project(tmp_path: Path, raw: Path) -> Iterator[Project]:
    with open_project(raw, tmp_path / "preprocessed", tmp_path / "results", workers=0) as opened:
        yield opened


def old_description(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Prostate",
        "description": "two modalities",
        "tensorImageSize": "4D",
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "numTraining": 3,
        "numTest": 1,
        "training": [{"image": "./imagesTr/case_0.nii.gz", "label": "./labelsTr/case_0.nii.gz"}],
        "test": ["./imagesTs/case_9.nii.gz"],
        **changes,
    }


@pytest.fixture
def msd(tmp_path: Path) -> Maker:
    """Three cases of two channels in 4D files and a test image, with macOS's shadows of files."""
    maker = Maker(tmp_path / "Task05_Prostate")
    for number in range(3):
        maker.image(f"imagesTr/case_{number}.nii.gz", 2)
        maker.labels(f"labelsTr/case_{number}.nii.gz")
    maker.image("imagesTs/case_9.nii.gz", 2)
    for part in ("imagesTr", "labelsTr"):
        (maker.folder / part / "._case_0.nii.gz").write_bytes(b"shadow")
    maker.json("dataset.json", old_description())
    return maker


@pytest.fixture
def v1(tmp_path: Path) -> Maker:
    maker = Maker(tmp_path / "Task007_Pancreas")
    for number in range(3):
        for channel in range(2):
            maker.image(f"imagesTr/case_{number}_{channel:04d}.nii.gz")
        maker.labels(f"labelsTr/case_{number}.nii.gz")
    for channel in range(2):
        maker.image(f"imagesTs/case_9_{channel:04d}.nii.gz")
    maker.labels("labelsTs/case_9.nii.gz")
    maker.json("dataset.json", old_description())
    return maker


@pytest.fixture
def folder(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "scans")


@pytest.fixture
def bids(tmp_path: Path) -> Maker:
    """Two subjects with two sessions each; FLAIR and T1w; labels 2 and 41 of a table at the derivative's root."""
    maker = Maker(tmp_path / "ds")
    maker.json("dataset_description.json", {"Name": "x", "BIDSVersion": "1.8.0"})
    for subject in ("01", "02"):
        for session in ("a", "b"):
            stem = f"sub-{subject}_ses-{session}"
            inside = f"sub-{subject}/ses-{session}/anat"
            for suffix in ("T1w", "FLAIR"):
                maker.image(f"{inside}/{stem}_{suffix}.nii.gz")
            maker.labels(f"derivatives/manual/{inside}/{stem}_space-orig_dseg.nii.gz", (0, 2, 41))
    table = maker.folder / "derivatives/manual/dseg.tsv"
    table.write_text("index\tname\tabbreviation\n0\tUnknown\tU\n41\tright white matter\tR\n2\tleft white matter\tL\n")
    return maker
