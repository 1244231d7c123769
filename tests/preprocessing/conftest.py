"""Fixtures for preprocessing tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from segplug.runtime.project import Project, open_project
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.testing.phantoms import Phantom, write_phantom_dataset

DATASET = "Dataset601_Phantom"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project of its own folders, working in this process."""
    with open_project(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results", workers=0) as made:
        yield made


@pytest.fixture
def planned(project: Project) -> Path:
    """Folder of a raw data set of four small cases, fingerprinted and planned (2d and 3d_fullres)."""
    assert project.workspace.raw is not None
    look = Phantom(shape=(12, 20, 18), spacing=(1.2, 1.0, 1.0), spacing_spread=1.2, channels=("MRI", "CT"))
    folder = write_phantom_dataset(project.workspace.raw / DATASET, look, cases=4)
    fingerprint(project, DATASET)
    plan(project, DATASET)
    return folder
