"""A project: where the data is, which plugins are in force, and the workers that every stage uses."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from segplug.kernel import Kernel
from segplug.model import ComponentRef
from segplug.protocols.executor import StartsEarly
from segplug.runtime.memory_limit import MemoryLimit
from segplug.runtime.workspace import Workspace

if TYPE_CHECKING:
    from segplug.protocols import Executor

LOCAL = "local"
"""The executor of this machine."""

WORTH_WORKERS = 1 << 26
"""Bytes to be read and counted that are worth starting workers: this takes as long, half a second."""


class Project:
    """What every stage is given first.

    Args:
        workspace: the folders.
        kernel: plugins and registry.
        workers: processes beside this one; 0 works in this process. None: one per core, at most one per 2 GB of memory.
        executor: name of the executor component.
        executor_options: executor -> its options, for any that may be asked for.
        max_memory_gb: GB (10^9 bytes) that verifying, measuring and preprocessing keep this process and its workers
            below; None for no limit.

    Used as a context manager it ends its workers.
    """

    def __init__(
        self,
        workspace: Workspace,
        kernel: Kernel,
        *,
        workers: int | None = None,
        executor: str = LOCAL,
        executor_options: Mapping[str, Mapping[str, Any]] | None = None,
        max_memory_gb: float | None = None,
    ) -> None:
        self.memory = MemoryLimit(max_memory_gb)
        self.workspace = workspace
        self.kernel = kernel
        self.workers = default_workers() if workers is None else workers
        self._executor_name = executor
        self._executor_options = dict(executor_options or {})
        self._tells = True

    @property
    def is_local(self) -> bool:
        """Whether work is done on this machine, by segplug's own workers."""
        return self._executor_name == LOCAL

    @cached_property
    def executor(self) -> Executor:
        """Started on first use, kept until the project is closed."""
        return self.new_executor()

    def new_executor(self, name: str | None = None) -> Executor:
        """Another executor with its options from the settings, for the caller to close.

        Args:
            name: of the component; None for the project's.

        Raises:
            PluginError: there is none of this name, or it does not take its options.
        """
        asked = name or self._executor_name
        reference = ComponentRef(asked, dict(self._executor_options.get(asked, {})))
        built: Executor = self.kernel.registry.build("executors", reference, workers=self.workers)
        return built

    def with_executor(self, name: str) -> Project:
        """The same project, whose stages work in another executor; to be closed by itself."""
        other = Project(
            self.workspace,
            self.kernel,
            workers=self.workers,
            executor=name,
            executor_options=self._executor_options,
            max_memory_gb=self.memory.gigabytes,
        )
        other._tells = self._tells
        return other

    def executor_for(self, size: int) -> Executor:
        """The project's executor; this process where local workers would take longer to start than to work.

        Args:
            size: bytes of the content to be read, decompressed.
        """
        if self._executor_name == LOCAL and size < WORTH_WORKERS and "executor" not in vars(self):
            here: Executor = self.kernel.registry.build("executors", LOCAL, workers=0)
            return here
        return self.executor

    def start_workers(self, *modules: str) -> None:
        """Let workers start while this process still gets ready, where the executor can.

        Args:
            modules: that the work will take.
        """
        if not self.memory and isinstance(self.executor, StartsEarly):  # a limit may leave room for fewer
            self.executor.start(*modules)

    def without_events(self) -> Project:
        """The same project, which tells the event hooks nothing: for processes that work for another one."""
        silent = self.with_executor(self._executor_name)
        silent._tells = False
        return silent

    def emit(self, event: str, **arguments: Any) -> None:
        """Tell the event hooks."""
        if self._tells:
            self.kernel.emit(event, **arguments)

    @contextmanager
    def stage(self, name: str, subject: str, total: int = 0) -> Iterator[None]:
        """Tell the event hooks that a stage starts and how it ends."""
        self.emit("segplug_stage_started", stage=name, subject=subject, total=total)
        start, error = time.perf_counter(), ""
        try:
            yield
        except BaseException as raised:
            error = str(raised) or type(raised).__name__
            raise
        finally:
            seconds = time.perf_counter() - start
            self.emit("segplug_stage_finished", stage=name, subject=subject, seconds=seconds, error=error)

    def progress(self, stage: str, item: str, done: int, total: int) -> None:
        """Tell the event hooks that one step of a stage is done."""
        self.emit("segplug_stage_progress", stage=stage, item=item, done=done, total=total)

    def close(self) -> None:
        """End the workers. The project may be used again; new ones are started then."""
        executor = self.__dict__.pop("executor", None)
        if executor is not None:
            executor.close()

    def __enter__(self) -> Project:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_project(
    raw: str | Path | None = None,
    preprocessed: str | Path | None = None,
    results: str | Path | None = None,
    *,
    workers: int | None = None,
    executor: str = LOCAL,
    executor_options: Mapping[str, Mapping[str, Any]] | None = None,
    pins: Mapping[str, str] | None = None,
    block: Iterable[str] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    max_memory_gb: float | None = None,
) -> Project:
    """Make a project from Python; the command line does the same from its settings.

    Args:
        raw, preprocessed, results: the three folders; those not needed may be left out.
        workers, executor, executor_options, max_memory_gb: see `Project`.
        pins: ``{"losses.dice_ce": "focal:dice_ce"}``: which plugin's component to use.
        block: plugins not to load.
        options: plugin -> its options, for plugins that take some.
    """
    roots = (None if root is None else Path(root).expanduser() for root in (raw, preprocessed, results))
    kernel = Kernel(pins=pins, block=block)
    kernel.configure(options or {})
    return Project(
        Workspace(*roots),
        kernel,
        workers=workers,
        executor=executor,
        executor_options=executor_options,
        max_memory_gb=max_memory_gb,
    )


def default_workers() -> int:
    """As many as there are cores for this process, at most one per 2 GB of the machine's memory."""
    try:
        memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (AttributeError, ValueError, OSError):
        return cores()
    return max(1, min(cores(), int(memory_gb // 2)))


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
