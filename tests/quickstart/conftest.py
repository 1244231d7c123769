"""Projects over phantom data sets that train in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from segplug.kernel import Kernel, hookimpl
from segplug.runtime.project import Project
from segplug.runtime.workspace import Workspace
from segplug.testing import Phantom, write_phantom_dataset

NAME = "Dataset501_Phantom"


class Listener:
    """A plugin that remembers what the stages told."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.items: list[str] = []

    @hookimpl
    def segplug_stage_started(self, stage: str, subject: str) -> None:
        self.subjects.append(f"{stage} {subject}")

    @hookimpl
    def segplug_stage_progress(self, stage: str, item: str) -> None:
        self.items.append(f"{stage} {item}")


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def project(tmp_path: Path, listener: Listener) -> Iterator[Project]:
    """A project with a phantom data set of ten small volumes."""
    write_phantom_dataset(tmp_path / "raw" / NAME, Phantom(shape=(12, 24, 20)), cases=10)
    kernel = Kernel(discover=False)
    kernel.register(listener, "listener")
    workspace = Workspace(*(tmp_path / part for part in ("raw", "preprocessed", "results")))
    with Project(workspace, kernel, workers=0) as opened:
        yield opened
