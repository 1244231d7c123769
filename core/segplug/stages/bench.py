"""What the benchmarks of a user's own data set have in common: repetitions, medians, and a comparison with before."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from segplug.errors import DataError
from segplug.runtime.files import read_json, write_json
from segplug.runtime.machine import describe_machine, describe_versions

SECONDS = "seconds"
"""Figure that every benchmark has; the ratio of a comparison is made of it."""


@dataclass(frozen=True)
class BenchResult:
    """What was measured, and on what.

    Args:
        benchmark: `train`, `predict` or `preprocess`.
        settings: that decide the figures (data set, configuration, device, ...), JSON values.
        repetitions: figures of each, by name with the unit; `seconds` is always there.
        compared: with an earlier result: its figures and the ratios, see `compare`; empty without one.
    """

    benchmark: str
    settings: Mapping[str, Any]
    repetitions: Sequence[Mapping[str, float]]
    machine: Mapping[str, Any] = field(default_factory=describe_machine)
    versions: Mapping[str, str] = field(default_factory=describe_versions)
    time: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    compared: Mapping[str, Any] = field(default_factory=dict)

    @property
    def medians(self) -> dict[str, float]:
        """Of every figure over the repetitions."""
        return {name: statistics.median(each[name] for each in self.repetitions) for name in self.repetitions[0]}

    def as_json(self) -> dict[str, Any]:
        """The content of the file that `write` makes."""
        return {**asdict(self), "medians": self.medians}

    def write(self, file: Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_json(file, self.as_json())


def read_result(file: Path) -> BenchResult:
    """A result that `BenchResult.write` wrote.

    Raises:
        DataError: the file is missing, or no such result.
    """
    content = read_json(file)
    try:
        found = {
            name: content[name] for name in ("benchmark", "settings", "repetitions", "machine", "versions", "time")
        }
        result = BenchResult(**found)
        if (
            not all(isinstance(value, (int, float)) for value in result.medians.values())
            or SECONDS not in result.medians
        ):
            raise TypeError
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise DataError(
            f"{file}: no result of a benchmark; expected a file of 'segplug bench ... --out FILE'"
        ) from error
    return result


def compare(result: BenchResult, before: BenchResult, file: Path) -> BenchResult:
    """The result with `compared`: file, medians and versions of an earlier one, and `ratio`, how many times faster.

    Above 1 the new one is faster. Settings or machines that differ are told in a warning, and stand in `differ`.

    Raises:
        DataError: it is of another benchmark.
    """
    if before.benchmark != result.benchmark:
        raise DataError(f"{file}: a result of bench {before.benchmark}; expected one of bench {result.benchmark}")
    pairs = {"machine": (before.machine, result.machine), "settings": (before.settings, result.settings)}
    differ = [
        f"{name} {was.get(key)} then, {now.get(key)} now"
        for was, now in pairs.values()
        for key in sorted(was.keys() | now.keys())
        for name in [key]
        if was.get(key) != now.get(key)
    ]
    if differ:
        warnings.warn(f"not made alike: {'; '.join(differ)}", stacklevel=2)
    mine, theirs = result.medians[SECONDS], before.medians[SECONDS]
    compared = {
        "file": str(file),
        "medians": before.medians,
        "versions": dict(before.versions),
        "differ": differ,
        "ratio": theirs / mine if mine > 0 else math.inf,
    }
    return BenchResult(
        result.benchmark,
        result.settings,
        result.repetitions,
        result.machine,
        result.versions,
        result.time,
        compared,
    )
