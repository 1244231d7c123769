"""The scripts of bench/, which are no package: imported as they import each other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
PARTS = ("side_by_side", "table", "report")


@pytest.fixture(scope="session")
def bench_parts() -> Iterator[dict[str, ModuleType]]:
    """The files that benchmarks share, by name."""
    sys.path.insert(0, str(BENCH))
    try:
        yield {name: import_module(name) for name in PARTS}
    finally:
        sys.path.remove(str(BENCH))
        for name in PARTS:
            sys.modules.pop(name, None)


@pytest.fixture
def side_by_side(bench_parts: dict[str, ModuleType]) -> ModuleType:
    return bench_parts["side_by_side"]


@pytest.fixture
def table(bench_parts: dict[str, ModuleType]) -> ModuleType:
    return bench_parts["table"]
