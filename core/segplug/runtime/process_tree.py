"""What a process and all its descendants use together: time, CPU time and memory, from Linux's /proc."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from types import TracebackType

_PROC = Path("/proc")
_KCMP, _KCMP_VM = {"x86_64": 312, "aarch64": 272}, 1
"""Number of the system call that compares two processes, and what to compare: their memory."""

_SHORTEST_PAUSE = 0.02
"""Seconds between two looks at the memory."""

_SHARE = 0.05
"""Of one core, that looking may take; the pause gets longer where there is much to look at."""


@dataclass(frozen=True)
class Usage:
    """What a process tree used.

    Args:
        seconds: that passed.
        cpu_seconds: of user and system time, of all processes together.
        peak_memory: bytes, the most that was seen at one time. Pages that processes share are counted once
            (proportional set size).
    """

    seconds: float
    cpu_seconds: float
    peak_memory: int


class ProcessTree:
    """A process and its descendants, looked at now and then.

    Args:
        root: id of the process; None for this one.
    """

    def __init__(self, root: int | None = None) -> None:
        self.root = os.getpid() if root is None else root

    def processes(self) -> list[int]:
        """Ids of those that live, the root first.

        What starts another program is, for an instant, two processes with one memory (vfork): that is one here.
        """
        found, waiting = [], [self.root]
        while waiting:
            process = waiting.pop()
            found.append(process)
            for task in _names(_PROC / str(process) / "task"):
                children = map(int, _read(_PROC / str(process) / "task" / task / "children").split())
                waiting += (child for child in children if not _same_memory(process, child))
        return found

    def memory(self) -> int:
        """Bytes that all of them have in memory, shared pages counted once."""
        return sum(_kilobytes(process, "smaps_rollup", "Pss:") for process in self.processes()) * 1024

    def cpu_seconds(self) -> float:
        """User and system time of all of them, and of their children that have ended."""
        ticks = 0
        for process in self.processes():
            # the name in parentheses may hold blanks; utime, stime, cutime and cstime are fields 14 to 17
            fields = _read(_PROC / str(process) / "stat").rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def largest(self) -> int:
        """Bytes that the largest of them had in memory at any time of its life."""
        return max(_kilobytes(process, "status", "VmHWM:") for process in self.processes()) * 1024


class UsageMeter:
    """Measures a process tree from `with` to its end, in a thread beside.

    Args:
        root: id of the process; None for this one. A process that was started for the measurement is measured from
            its beginning: the largest size of each process in its life then counts too, which no look may miss.
    """

    def __init__(self, root: int | None = None) -> None:
        self._tree = ProcessTree(root)
        self._whole_life = root is not None
        self._ended = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self._peak = 0
        self._usage: Usage | None = None

    @property
    def usage(self) -> Usage:
        """After the end of `with`.

        Raises:
            RuntimeError: before it.
        """
        if self._usage is None:
            raise RuntimeError("a UsageMeter has no usage before it has ended")
        return self._usage

    def __enter__(self) -> UsageMeter:
        self._cpu, self._start = self._tree.cpu_seconds(), time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds, cpu = time.perf_counter() - self._start, self._tree.cpu_seconds() - self._cpu
        self._ended.set()
        self._thread.join()
        self._usage = Usage(seconds, cpu, self._peak)

    def _watch(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            began = time.thread_time()
            self._peak = max(self._peak, self._tree.memory(), self._tree.largest() if self._whole_life else 0)
            pause = max(_SHORTEST_PAUSE, (time.thread_time() - began) / _SHARE)


def _same_memory(first: int, second: int) -> bool:
    """Whether two processes have one address space; False where the system does not tell."""
    number = _KCMP.get(platform.machine())
    if number is None:
        return False
    return bool(ctypes.CDLL(None).syscall(number, first, second, _KCMP_VM, 0, 0) == 0)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # it has ended
        return []


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has ended
        return ""


def _kilobytes(process: int, file: str, field: str) -> int:
    for line in _read(_PROC / str(process) / file).splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    return 0
