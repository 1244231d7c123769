"""Small networks for the end-to-end tests, so that real trainings take seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

from segplug.kernel import Kernel
from segplug.model import ComponentRef, Configuration
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.stages.run import Training

OpenProject = Callable[..., Project]


def _open(root: Path, raw: Path | None = None) -> Project:
    """A project in `root` that works in this process and knows the built-in plugins only."""
    return Project(
        Workspace(raw or root / "raw", root / "preprocessed", root / "results"), Kernel(discover=False), workers=0
    )


@pytest.fixture(scope="session")
def open_small() -> OpenProject:
    return _open


Shrink = Callable[..., Configuration]


def _shrink(
    configuration: Configuration, patch: Sequence[int], features: Sequence[int], batch: int, **changes: Any
) -> Configuration:
    """As a user would edit the plans by hand: a network of one convolution per stage, and a small patch."""
    axes, stages = len(patch), len(features)
    options = dict(configuration.architecture.options) | {
        "n_stages": stages,
        "features_per_stage": list(features),
        "kernel_sizes": [[3] * axes] * stages,
        "strides": [[1] * axes] + [[2] * axes] * (stages - 1),
        "n_conv_per_stage": [1] * stages,
        "n_conv_per_stage_decoder": [1] * (stages - 1),
    }
    architecture = ComponentRef(configuration.architecture.name, options)
    return replace(configuration, patch_size=tuple(patch), batch_size=batch, architecture=architecture, **changes)


@pytest.fixture(scope="session")
def shrink() -> Shrink:
    return _shrink


Recipe = Callable[..., Training]


def _recipe(iterations: int, *settings: str, lr: float = 1e-2, seed: int = 0) -> Training:
    """So many iterations in four epochs; AdamW on one cycle is the compact plans' own.

    In fp32: networks so small gain nothing by bf16 (in 2D it is several times slower), and machines differ less.
    """
    length = ("trainer.epochs=4", f"trainer.iterations_per_epoch={iterations // 4}")
    fixed = ("trainer.val_iterations_per_epoch=1", f"trainer.lr={lr}")
    return Training(overrides=(*length, *fixed, *settings), device="cpu", precision="fp32", seed=seed)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return _recipe


@pytest.fixture(scope="session")
def read() -> Callable[[Path], Any]:
    """Reads an array (z, y, x), with another library's reader."""
    return lambda path: sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
