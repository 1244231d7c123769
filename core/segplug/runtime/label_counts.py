"""How many voxels each label of a label map has."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 18
"""Voxels counted at once: their copy stays in the cache."""


def count_labels(array: NDArray[np.integer[Any]]) -> dict[int, int]:
    """Label -> voxels, for the labels that occur, in ascending order."""
    if not array.size:
        return {}
    low, high = int(array.min()), int(array.max())
    if high - low < 2**16:  # counting is several times faster than sorting
        flat = array.ravel()
        counts = np.zeros(high - low + 1, np.int64)
        for start in range(0, flat.size, CHUNK):  # counting widens what it counts to 64 bits
            part = flat[start : start + CHUNK]
            counts += np.bincount((part.astype(np.int64) - low) if low else part, minlength=counts.size)
        return {low + i: int(counts[i]) for i in np.flatnonzero(counts).tolist()}
    values, found = np.unique(array, return_counts=True)
    return dict(zip(values.tolist(), found.tolist(), strict=True))
