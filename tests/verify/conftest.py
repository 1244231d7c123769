"""A small, sound data set to damage: three cases, two channels, 6x7x8 voxels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from segplug.runtime.project import Project, open_project
from segplug.stages.verify import Verification, verify

AFFINE = np.diag([-1.5, -2.0, 3.0, 1.0])


class Sample:
    """The data set on disk, with what a test needs to damage it."""

    def __init__(self, folder: Path, project: Project) -> None:
        self.folder = folder
        self._project = project
        self._random = np.random.default_rng(0)

    def image(self, case: str, channel: int = 0) -> Path:
        return self.folder / f"imagesTr/{case}_{channel:04d}.nii.gz"

    def label(self, case: str) -> Path:
        return self.folder / f"labelsTr/{case}.nii.gz"

    def write_image(self, case: str, channel: int = 0, array: Any = None, affine: Any = AFFINE) -> Path:
        array = self._random.normal(100, 20, (8, 7, 6)) if array is None else array
        return self._write(self.image(case, channel), np.asarray(array, np.float32), affine)

    def write_label(self, case: str, array: Any = None, affine: Any = AFFINE) -> Path:
        return self._write(self.label(case), self.labels() if array is None else array, affine)

    def labels(self) -> Any:
        return self._random.integers(0, 3, (8, 7, 6)).astype(np.uint8)

    def describe(self, **changes: Any) -> None:
        raw = {
            "channel_names": {"0": "T1", "1": "T2"},
            "labels": {"background": 0, "organ": 1, "tumour": 2},
            "numTraining": 3,
            "file_ending": ".nii.gz",
        }
        (self.folder / "dataset.json").write_text(json.dumps({**raw, **changes}))

    def verify(self) -> Verification:
        return verify(self._project, self.folder)

    @staticmethod
    def _write(path: Path, array: Any, affine: Any) -> Path:
        nibabel.save(nibabel.Nifti1Image(array, affine), path)
        return path


@pytest.fixture
def project() -> Iterator[Project]:
    with open_project(workers=0) as opened:
        yield opened


@pytest.fixture
def sample(tmp_path: Path, project: Project) -> Sample:
    made = Sample(tmp_path / "Dataset001_Sample", project)
    for name in ("imagesTr", "labelsTr"):
        (made.folder / name).mkdir(parents=True)
    for case in ("case_1", "case_2", "case_3"):
        made.write_image(case, 0)
        made.write_image(case, 1)
        made.write_label(case)
    made.describe()
    return made
