"""A project tells its events, and starts and ends its workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segplug import Component, Project, hookimpl, open_project
from segplug.errors import PluginError
from segplug.kernel import Kernel
from segplug.runtime.project import default_workers
from segplug.runtime.workspace import Workspace


class Recorder:
    """Writes down every event of a stage."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    @hookimpl
    def segplug_stage_started(self, stage: str, subject: str, total: int) -> None:
        self.heard.append(("started", stage, subject, total))

    @hookimpl
    def segplug_stage_progress(self, stage: str, item: str, done: int, total: int) -> None:
        self.heard.append(("progress", stage, item, done, total))

    @hookimpl
    def segplug_stage_finished(self, stage: str, subject: str, seconds: float, error: str) -> None:
        assert seconds >= 0
        self.heard.append(("finished", stage, subject, error))


class CountingExecutor:
    """Says whether it is open."""

    open = 0

    def __init__(self, workers: int) -> None:
        self.workers = workers
        CountingExecutor.open += 1

    def map(self, function: Callable[[Any], Any], items: Any) -> Any:
        return iter(())

    def close(self) -> None:
        CountingExecutor.open -= 1


@pytest.fixture
def project() -> Project:
    kernel = Kernel(discover=False)
    provide = hookimpl(lambda: [Component("counting", CountingExecutor, "counts")])
    kernel.register(SimpleNamespace(segplug_executors=provide), "counting")
    return Project(Workspace(), kernel, workers=3, executor="counting")


def test_stages_are_told_as_they_go(project: Project) -> None:
    recorder = Recorder()
    project.kernel.register(recorder, "recorder")
    with project.stage("plan", "Dataset004_X", 2):
        project.progress("plan", "case_1", 1, 2)
    with pytest.raises(ValueError, match="oops"), project.stage("train", "Dataset004_X"):
        raise ValueError("oops")
    with pytest.raises(KeyboardInterrupt), project.stage("train", "Dataset004_X"):
        raise KeyboardInterrupt
    assert recorder.heard == [
        ("started", "plan", "Dataset004_X", 2),
        ("progress", "plan", "case_1", 1, 2),
        ("finished", "plan", "Dataset004_X", ""),
        ("started", "train", "Dataset004_X", 0),
        ("finished", "train", "Dataset004_X", "oops"),
        ("started", "train", "Dataset004_X", 0),
        ("finished", "train", "Dataset004_X", "KeyboardInterrupt"),
    ]


def test_workers_start_once_on_first_use_and_end_with_the_project(project: Project) -> None:
    with project:
        assert CountingExecutor.open == 0
        assert project.executor is project.executor
        assert project.executor.workers == 3  # type: ignore[attr-defined]
        assert CountingExecutor.open == 1
    assert CountingExecutor.open == 0
    project.close()
    with pytest.raises(AttributeError), project:
        project.executor.nothing  # type: ignore[attr-defined]  # noqa: B018
    assert CountingExecutor.open == 0


def test_open_project_from_python(tmp_path: Path) -> None:
    with open_project(
        str(tmp_path), results="~/results", workers=0, pins={"losses.dice_ce": "builtin:dice_ce"}
    ) as project:
        assert project.workspace == Workspace(tmp_path, None, Path("~/results").expanduser())
        assert project.kernel.registry.find("losses", "dice_ce").plugin.builtin


def test_default_workers_is_at_least_one() -> None:
    assert default_workers() >= 1


def test_executors_are_made_with_their_options(project: Project) -> None:
    options = {"local": {"threads": 3}, "counting": {"workers": 5}}
    with Project(Workspace(), project.kernel, workers=1, executor="counting", executor_options=options) as own:
        assert own.executor.workers == 5  # type: ignore[attr-defined]
        with own.with_executor("counting") as other:
            assert other.executor is not own.executor
            assert CountingExecutor.open == 2
        assert CountingExecutor.open == 1
        with pytest.raises(PluginError, match="no component 'nope'"):
            own.new_executor("nope")


def test_little_work_is_done_here() -> None:
    with Project(Workspace(), Kernel(discover=False), workers=2) as project:
        here = project.executor_for(1000)
        assert {outcome.value for outcome in here.map(_process, [1, 2, 3])} == {os.getpid()}
        assert project.executor_for(1 << 30) is project.executor
        assert project.executor_for(1000) is project.executor  # it is there already


def _process(_: int) -> int:
    return os.getpid()
