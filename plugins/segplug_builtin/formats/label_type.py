"""The number type label maps are written with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError


def smallest_label_type(labels: NDArray[np.integer[Any]]) -> NDArray[np.unsignedinteger[Any]]:
    """Labels as uint8 below 255, as uint16 otherwise (nnU-Net's rule), as uint32 where that does not hold them.

    Raises:
        DataError: a label is negative.
    """
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0:
        raise DataError(f"a label map with the label {low} cannot be written; expected labels >= 0")
    kind = np.uint8 if high < 255 else np.uint16 if high < 2**16 else np.uint32
    return labels.astype(kind, copy=False)
