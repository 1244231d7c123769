"""Phantom CT data sets whose plan has a chain: 2d, 3d_lowres, 3d_fullres and 3d_cascade_fullres."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from segplug.kernel import Kernel
from segplug.model import ComponentRef, Configuration
from segplug.runtime.plan_codec import write_plan
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.preprocess import preprocess
from segplug.testing import Phantom, write_phantom_dataset

NAME, PLANS = "Dataset611_Cascade", "tinyPlans"
RECIPE = {"epochs": 2, "iterations_per_epoch": 2, "val_iterations_per_epoch": 1, "lr": 1e-2}
TRAINING = ComponentRef("short", RECIPE)


def small(configuration: Configuration) -> Configuration:
    """A network of a few thousand weights on patches of 16^3 or 16^2."""
    axes = configuration.dimensions
    options = dict(configuration.architecture.options)
    options |= {
        "n_stages": 2,
        "features_per_stage": [4, 8],
        "kernel_sizes": [[3] * axes] * 2,
        "strides": [[1] * axes, [2] * axes],
        "n_conv_per_stage": [1] * 2,
        "n_conv_per_stage_decoder": [1],
    }
    architecture = ComponentRef(configuration.architecture.name, options)
    return replace(configuration, patch_size=(16,) * axes, batch_size=2, architecture=architecture)


def prepare_cascade(root: Path, phantom: Phantom, *, test_cases: int = 1, training: ComponentRef = TRAINING) -> Path:
    """Write, plan and preprocess the data set."""
    write_phantom_dataset(root / "raw" / NAME, phantom, cases=4, test_cases=test_cases)
    workspace = Workspace(root / "raw", root / "preprocessed", root / "results")
    with Project(workspace, Kernel(discover=False), workers=0) as project:
        fingerprint(project, NAME)
        made = plan(project, NAME, planner="compact", plans_name=PLANS)
        full = small(made.configurations["3d_fullres"])
        low = replace(
            full,
            name="3d_lowres",
            data_identifier=f"{PLANS}_3d_lowres",
            spacing=tuple(2 * s for s in full.spacing),
            median_shape=tuple(n / 2 for n in full.median_shape),
            next_stage=("3d_cascade_fullres",),
        )
        cascade = replace(full, name="3d_cascade_fullres", inherits_from="3d_fullres", previous_stage="3d_lowres")
        configurations = {c.name: c for c in (small(made.configurations["2d"]), low, full, cascade)}
        write_plan(
            workspace.plans_file(NAME, PLANS), replace(made, configurations=configurations, training={"": training})
        )
        preprocess(project, NAME, plans_name=PLANS)
    return root


@pytest.fixture(scope="session")
def prepare() -> Callable[..., Path]:
    """The function, for tests with data of their own."""
    return prepare_cascade


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels."""
    phantom = Phantom(shape=(20, 26, 24), spacing=(1.0, 1.0, 1.0), channels=("CT",), spacing_spread=1.3)
    return prepare_cascade(tmp_path_factory.mktemp("chain"), phantom)


MakeProject = Callable[..., Project]


@pytest.fixture
def make_project(tmp_path: Path) -> Iterator[MakeProject]:
    """Projects over prepared data, with results of their own."""
    opened: list[Project] = []

    def make(data: Path, results: Path | None = None, workers: int = 0) -> Project:
        workspace = Workspace(data / "raw", data / "preprocessed", results or tmp_path / "results")
        opened.append(Project(workspace, Kernel(discover=False), workers=workers))
        return opened[-1]

    yield make
    for project in opened:
        project.close()
