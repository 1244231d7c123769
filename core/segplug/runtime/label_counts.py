"""How many voxels each label of a label map has."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def count_labels(array: NDArray[np.integer[Any]]) -> dict[int, int]:
    """Label -> voxels, for the labels that occur, in ascending order."""
    if not array.size:
        return {}
    low, high = int(array.min()), int(array.max())
    if high - low < 2**16:  # counting is several times faster than sorting
        flat = array.ravel()
        counts = np.bincount((flat.astype(np.int64) - low) if low else flat)
        return {low + i: int(counts[i]) for i in np.flatnonzero(counts).tolist()}
    values, found = np.unique(array, return_counts=True)
    return dict(zip(values.tolist(), found.tolist(), strict=True))
