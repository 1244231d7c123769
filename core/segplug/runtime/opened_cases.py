"""Preprocessed cases as a loader reads them: kept open, and padded where a region goes beyond the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.protocols import Store, StoredCase
from segplug.runtime.stage_predictions import StagePredictions


class OpenedCases:
    """Cases of a store that stay open, the oldest closed once their locations take more than `limit` bytes.

    Args:
        previous: in a cascade, what the stage before predicted for the same cases.
    """

    def __init__(self, store: Store, previous: StagePredictions | None = None, limit: int = 256 * 2**20) -> None:
        self._store, self._previous, self._limit = store, previous, limit
        self._cases: dict[str, StoredCase] = {}
        self._bytes = 0

    def __getitem__(self, name: str) -> StoredCase:
        case = self._cases.get(name)
        if case is None:
            case = self._store.open(name)
            self._cases[name] = case
            self._bytes += _location_bytes(case)
            while self._bytes > self._limit and len(self._cases) > 1:
                oldest = next(iter(self._cases))
                self._bytes -= _location_bytes(self._cases.pop(oldest))
        return case

    def read(
        self,
        name: str,
        start: Sequence[int],
        data: NDArray[np.float32],
        target: NDArray[np.int16],
        previous: NDArray[np.int16] | None,
    ) -> None:
        """Fill one sample's arrays, (channels, *region) each, with what the image covers of the region.

        Args:
            start: first voxel of the region, which may lie outside of the image.
            previous: for the labels of the previous stage; None without a cascade.
        """
        case = self[name]
        low = [max(0, first) for first in start]
        high = [
            min(first + size, extent) for first, size, extent in zip(start, target.shape[1:], case.shape, strict=True)
        ]
        if any(first >= last for first, last in zip(low, high, strict=True)):
            return
        inside: Any = tuple(
            slice(first - begin, last - begin) for first, last, begin in zip(low, high, start, strict=True)
        )
        data[:, *inside], target[:, *inside] = case.read(low, high)
        if previous is not None and self._previous is not None:
            previous[(0, *inside)] = self._previous.read(name, low, high)


def _location_bytes(case: StoredCase) -> int:
    return sum(voxels.nbytes for voxels in case.locations.values())
