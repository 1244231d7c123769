"""What measured scripts share. Without segplug: the scripts of nnunetv2's environment use it too."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
TRIES = 3


def timed(work: Callable[[], T], tries: int = TRIES) -> tuple[dict[str, float], T]:
    """Medians of some calls after a first one, `inner_seconds` and `cpu_inner_seconds`, and the last result."""
    result = work()
    seconds, cpu = [], []
    for _ in range(tries):
        start, cpu_start = time.perf_counter(), time.process_time()
        result = work()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    return {"inner_seconds": statistics.median(seconds), "cpu_inner_seconds": statistics.median(cpu)}, result


def write(figures: Mapping[str, Any]) -> None:
    """Tell whoever started this program, in the file that $BENCH_FIGURES names."""
    Path(os.environ["BENCH_FIGURES"]).write_text(json.dumps(dict(figures)), encoding="utf-8")


def memory_mb() -> float:
    """What this process has in memory now."""
    return _status("VmRSS:")


def peak_memory_mb() -> float:
    """The most that this process ever had in memory."""
    return _status("VmHWM:")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


def made_up_logits(classes: int, shape: Sequence[int], start: int, stop: int) -> Any:
    """Slices start..stop of logits (classes, stop - start, y, x), float32 but representable in half precision.

    The same numbers wherever they are made, as long as they are made in the same portions.
    """
    import numpy as np

    random = np.random.default_rng([classes, start, stop])
    logits = random.standard_normal((classes, stop - start, *shape[1:]), np.float32)
    return logits.astype(np.float16).astype(np.float32)
