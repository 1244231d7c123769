"""As many cases at once as a limit of memory has room for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from segplug.errors import DataError, UsageError
from segplug.protocols import Executor
from segplug.runtime.memory_limit import MemoryLimit
from segplug.runtime.project import LOCAL, Project, cores

WORKER = 200_000_000
"""Bytes of a worker process beside its case: Python, NumPy, ITK, Blosc2, and what they keep. Measured, with room."""

LIBRARIES = {"SimpleITK": 100_000_000, "blosc2": 40_000_000, "scipy.ndimage": 30_000_000}
"""Bytes that this process takes in addition where it works itself, as far as it has not loaded them yet."""


def here() -> int:
    """What this process takes beside a case that it works on itself."""
    return sum(size for name, size in LIBRARIES.items() if name not in sys.modules)


def shares(needs: Mapping[str, int], left: float, workers: int) -> dict[int, list[str]]:
    """Cases by how many worker processes there is room for, most first; 0: in this process, which takes least.

    Args:
        needs: case -> bytes.
        left: bytes, beside what this process has.
        workers: at most so many.
    """
    found: dict[int, list[str]] = {}
    for name, need in needs.items():
        found.setdefault(max(0, min(workers, int(left // (WORKER + need)))), []).append(name)
    return {count: found[count] for count in sorted(found, reverse=True)}


@contextmanager
def limited_executor(project: Project, count: int) -> Iterator[Executor]:
    """An executor of this machine with so many workers, ended at the end.

    They get as many threads as all workers of the project would: how many there are decides how BLAS rounds.
    """
    threads = max(1, cores() // max(1, project.workers))
    executor: Executor = project.kernel.registry.build("executors", LOCAL, workers=count, threads=threads)
    try:
        yield executor
    finally:
        executor.close()


def plan_cases(project: Project, needs: Mapping[str, int], kept: int, what: str) -> dict[int, list[str]]:
    """`shares` for a project with a limit; its own workers are ended: they take memory while they wait.

    Args:
        needs: case -> bytes.
        kept: bytes that results take here.
        what: is done with a case: "preprocessing it".

    Raises:
        DataError: a case does not fit even alone; with the smallest limit that does for all.
        UsageError: another executor than that of this machine is asked for.
    """
    limit: MemoryLimit = project.memory
    if not project.is_local:
        raise UsageError("--max-memory holds for this machine: it goes with the local executor alone")
    project.close()
    largest = max(needs, key=lambda name: needs[name], default=None)
    if largest is not None:
        left, beside = limit.left(), here() + kept
        over = sum(need + beside > left for need in needs.values())
        others = f" ({over} cases are too large)" if over > 1 else ""
        try:
            limit.require(needs[largest] + beside, f"case {largest}: {what}{others}")
        except DataError as error:
            raise DataError(f"{error}. Nothing was done") from None
    return shares(needs, limit.left() - kept, project.workers)
