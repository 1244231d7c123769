"""What a limit of memory leaves for the work that is about to be done."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from segplug.errors import DataError, UsageError
from segplug.runtime.kept_memory import give_back_freed_memory
from segplug.runtime.process_tree import ProcessTree


class MemoryLimit:
    """A number of GB that this process and those it started should stay below.

    Args:
        gigabytes: of 10^9 bytes; None for no limit.

    Raises:
        UsageError: the number is not positive and finite.
    """

    def __init__(self, gigabytes: float | None) -> None:
        if gigabytes is not None and not (gigabytes > 0 and math.isfinite(gigabytes)):
            raise UsageError(f"--max-memory {gigabytes}: expected a number of GB above 0")
        self.gigabytes = gigabytes

    def __bool__(self) -> bool:
        """Whether there is a limit."""
        return self.gigabytes is not None

    def left(self) -> float:
        """Bytes that may still be taken; infinite without a limit."""
        return math.inf if self.gigabytes is None else self.gigabytes * 1e9 - used_memory()

    def require(self, needed: int, what: str) -> None:
        """Refuse what does not fit.

        Args:
            needed: bytes, beside what is in use.
            what: what they are for: "resampling to (300, 512, 512)".

        Raises:
            DataError: the limit cannot be kept; with the smallest that can.
        """
        left = self.left()
        if needed > left:
            raise DataError(
                f"{what} takes {needed / 1e9:.2f} GB more memory, of which --max-memory {self.gigabytes:g} leaves "
                f"{max(left, 0) / 1e9:.2f}; {self.enough(needed)}"
            )

    def require_start(self, needed: int, what: str) -> None:
        """The same before there is a case.

        Raises:
            UsageError: the limit cannot be kept.
        """
        if needed > self.left():
            raise UsageError(f"--max-memory {self.gigabytes:g}: {what} alone takes more; {self.enough(needed)}")

    def enough(self, needed: int) -> str:
        """The advice to give: the smallest limit, rounded up to 0.1 GB."""
        return f"give at least {math.ceil((used_memory() + needed) / 1e8) / 10:g}"


def used_memory() -> int:
    """Bytes that this process and those it started have in memory; where the system does not tell, the most so far.

    Pages that this process shares with strangers (libraries) are counted in full: they would be its own without them.
    """
    give_back_freed_memory()
    used = max(ProcessTree().memory(), _status("VmRSS:") or 0)
    return used or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_taken_by(work: Callable[[], object]) -> int | None:
    """Bytes that this process takes at most while it does some work, beside what it has; None if Linux does not tell.

    Too large a number if this process has been larger than it is: to be measured before large things are read.
    """
    before = _status("VmRSS:")
    work()
    largest = _status("VmHWM:")
    return None if before is None or largest is None else max(largest - before, 0)


def _status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), None)
