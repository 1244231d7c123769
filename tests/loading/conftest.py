"""A store in memory, and training cases with labels in known places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segplug.errors import DataError
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
        if name not in self._cases:
            raise DataError(f"{name}: no such preprocessed case. Run preprocess")
        return MemoryCase(self._cases[name])


def make_case(shape: Sequence[int], channels: int, seed: int) -> PreprocessedCase:
    """Smooth noise; label 1 in a box, label 2 in one voxel, -1 in the first slice; case 0 has no label 2."""
    random = np.random.default_rng(seed)
    data = random.normal(size=(channels, *shape)).astype(np.float32)
    target = np.zeros((1, *shape), np.int16)
    target[(0, *(slice(extent // 3, extent // 2 + 1) for extent in shape))] = 1
    if seed:
        target[(0, *(extent - 1 for extent in shape))] = 2
    target[:, :1] = -1 if shape[0] > 1 else 0
    locations = {label: np.argwhere(target[0] == label).astype(np.int32) for label in (1, 2)}
    return PreprocessedCase(data, target, {}, locations)


@pytest.fixture
def make_store() -> Callable[..., MemoryStore]:
    def make(count: int = 5, shape: Sequence[int] = (20, 30, 25), channels: int = 2) -> MemoryStore:
        shapes = [(max(1, shape[0] - number * (shape[0] > 1)), shape[1] + number, shape[2]) for number in range(count)]
        return MemoryStore({f"case_{i}": make_case(each, channels, i) for i, each in enumerate(shapes)})

    return make


@pytest.fixture
def memory_store() -> Callable[[Mapping[str, PreprocessedCase]], MemoryStore]:
    """Makes a store of given cases."""
    return MemoryStore
