"""Fixtures for planning tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segplug.model import Plan
from segplug.runtime.plan_codec import read_plan
from segplug.runtime.project import Project, open_project
from segplug.testing.phantoms import Phantom, write_phantom_dataset

sys.path.insert(0, str(Path(__file__).parent))  # for the modules that nnunetv2's environment shares with these tests

DATASETS = (
    "Dataset004_Hippocampus",
    "Dataset027_ACDC",
    "Dataset028_ACDCscribbles",
    "Dataset042_BraTS2015",
    "Dataset120_Nuclei",
    "Dataset130_DrosophilaVNC",
)


@pytest.fixture(params=DATASETS)
def real_dataset(request: pytest.FixtureRequest, shared: Path) -> str:
    """Name of each real data set with results of nnunetv2 in turn."""
    name: str = request.param
    return name


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project of its own folders, working in this process."""
    with open_project(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results", workers=0) as made:
        yield made


@pytest.fixture
def phantom(project: Project) -> str:
    """A small raw data set: two channels, anisotropic, two cases of each size."""
    assert project.workspace.raw is not None
    name = "Dataset501_Phantom"
    look = Phantom(shape=(20, 40, 36), spacing=(2.5, 1.0, 1.0), channels=("MRI", "CT"), classes=2)
    write_phantom_dataset(project.workspace.raw / name, look, cases=5)
    return name


@pytest.fixture
def hippocampus_plan(shared: Path) -> Plan:
    """nnunetv2's default plan for Hippocampus."""
    return read_plan(shared / "reference" / "Dataset004_Hippocampus" / "nnUNetPlans.json")
