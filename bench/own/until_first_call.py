"""Run a program until its network is first called, note when that was, and end it.

    python until_first_call.py MODULE[:FUNCTION] ARGUMENT...

The interpreter's own start counts: when that was is what Linux keeps of this process.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from figures import write

CONVOLUTIONS = "torch.nn.modules.conv"


class WatchedLoader(Loader):
    """Loads torch's convolutions and has them end the program when one is called."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self._inner.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)

        def called(*_: Any, **__: Any) -> None:
            used, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
            write(
                {
                    "first_call_seconds": time.monotonic() - process_start(),
                    "cpu_first_call_seconds": used.ru_utime + used.ru_stime + ended.ru_utime + ended.ru_stime,
                }
            )
            os._exit(0)

        for name in ("Conv2d", "Conv3d"):
            getattr(module, name).__call__ = called  # whatever a program puts in the place of `forward`


class Finder(MetaPathFinder):
    """Finds torch's convolutions, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != CONVOLUTIONS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = WatchedLoader(spec.loader)
        return spec


def process_start() -> float:
    """When this process was started, in seconds of the monotonic clock; to a hundredth."""
    with open("/proc/self/stat", encoding="utf-8") as stat:
        ticks = int(stat.read().rpartition(")")[2].split()[19])
    offset = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return ticks / os.sysconf("SC_CLK_TCK") - offset


if __name__ == "__main__":
    where, _, function = sys.argv[1].partition(":")
    sys.argv = [where, *sys.argv[2:]]
    sys.meta_path.insert(0, Finder())
    getattr(import_module(where), function or "main")()
