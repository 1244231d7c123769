"""Small prepared data sets and projects to train in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segplug.kernel import Kernel
from segplug.model import ComponentRef
from segplug.runtime.plan_codec import write_plan
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.preprocess import preprocess
from segplug.testing import Phantom, write_phantom_dataset

NAME = "Dataset601_Phantom"
PLANS = "tinyPlans"
RECIPE = {"epochs": 3, "iterations_per_epoch": 3, "val_iterations_per_epoch": 2, "lr": 1e-2}


def prepare(root: Path, phantom: Phantom, configuration: str = "3d_fullres", cases: int = 5) -> Path:
    """A phantom data set, planned with a network of a few thousand weights and preprocessed."""
    write_phantom_dataset(root / "raw" / NAME, phantom, cases=cases)
    workspace = Workspace(root / "raw", root / "preprocessed", root / "results")
    with Project(workspace, Kernel(discover=False), workers=0) as project:
        fingerprint(project, NAME)
        made = plan(project, NAME, planner="compact", plans_name=PLANS)
        small = made.configurations[configuration]
        options = dict(small.architecture.options)
        stages = min(3, options["n_stages"])
        options |= {
            "n_stages": stages,
            "features_per_stage": [4 * 2**i for i in range(stages)],
            "kernel_sizes": options["kernel_sizes"][:stages],
            "strides": options["strides"][:stages],
            "n_conv_per_stage": [1] * stages,
            "n_conv_per_stage_decoder": [1] * (stages - 1),
        }
        small = replace(
            small,
            patch_size=(16,) * small.dimensions,
            batch_size=2,
            architecture=ComponentRef(small.architecture.name, options),
        )
        training = {"": ComponentRef("short", RECIPE)}
        tiny = replace(made, configurations={configuration: small}, training=training)
        write_plan(workspace.plans_file(NAME, PLANS), tiny)
        preprocess(project, NAME, configurations=[configuration], plans_name=PLANS)
    return root


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels, 3D."""
    return prepare(tmp_path_factory.mktemp("prepared"), Phantom(shape=(18, 24, 20)))


@pytest.fixture(scope="session")
def prepared_sparse_regions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Regions and an ignore label, 3D."""
    phantom = Phantom(shape=(18, 24, 20), regions=True, ignored=0.5)
    return prepare(tmp_path_factory.mktemp("prepared_sparse_regions"), phantom)


@pytest.fixture(scope="session")
def prepared_sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels and an ignore label, 3D."""
    phantom = Phantom(shape=(18, 24, 20), ignored=0.5)
    return prepare(tmp_path_factory.mktemp("prepared_sparse"), phantom)


@pytest.fixture(scope="session")
def prepared_2d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2D configuration of volumes."""
    return prepare(tmp_path_factory.mktemp("prepared_2d"), Phantom(shape=(10, 24, 20)), "2d")


MakeProject = Callable[..., Project]


@pytest.fixture
def make_project(tmp_path: Path, prepared: Path) -> Iterator[MakeProject]:
    """Projects over a copy of prepared data; each call gives one that shares the results folder of its name."""
    opened: list[Project] = []

    def make(results: str = "results", data: Path = prepared, workers: int = 0) -> Project:
        workspace = Workspace(data / "raw", data / "preprocessed", tmp_path / results)
        opened.append(Project(workspace, Kernel(discover=False), workers=workers))
        return opened[-1]

    yield make
    for project in opened:
        project.close()


@pytest.fixture(scope="session")
def same_weights() -> Callable[[Path, Path], bool]:
    """Whether two checkpoints hold the same network weights, bit by bit."""

    def same(first: Path, second: Path) -> bool:
        a, b = (torch.load(path, weights_only=True)["network_weights"] for path in (first, second))
        return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

    return same
