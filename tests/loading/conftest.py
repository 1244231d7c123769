"""A store in memory, small and picklable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segplug.protocols import PreprocessedCase


@dataclass(frozen=True)
class MemoryCase:
    case: PreprocessedCase

    @property
    def shape(self) -> tuple[int, ...]:
        return self.case.target.shape[1:]

    @property
    def channels(self) -> int:
        return len(self.case.data)

    @property
    def properties(self) -> Mapping[str, Any]:
        return self.case.properties

    @property
    def locations(self) -> Mapping[int | tuple[int, ...], NDArray[np.int32]]:
        return self.case.locations

    def read(self, start: Sequence[int], stop: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        assert all(0 <= a < b <= size for a, b, size in zip(start, stop, self.shape, strict=True))
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        return self.case.data[:, *box], self.case.target[:, *box]


class MemoryStore:
    def __init__(self, cases: Mapping[str, PreprocessedCase]) -> None:
        self._cases = dict(cases)

    def cases(self) -> list[str]:
        return sorted(self._cases)

    def open(self, name: str) -> MemoryCase:
        return MemoryCase(self._cases[name])


def make_case(shape: Sequence[int], channels: int, seed: int, labels: int = 3) -> PreprocessedCase:
    random = np.random.default_rng(seed)
    data = random.normal(size=(channels, *shape)).astype(np.float32)
    target = random.integers(0, labels, size=(1, *shape)).astype(np.int16)
    target[:, :1] = -1
    locations = {label: np.argwhere(target[0] == label).astype(np.int32) for label in range(1, labels)}
    return PreprocessedCase(data, target, {}, locations)


@pytest.fixture
def memory_store() -> MemoryStore:
    return MemoryStore({f"case_{i}": make_case((20 + i, 30 - i, 25), 2, i) for i in range(5)})
