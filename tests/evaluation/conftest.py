"""Label maps to compare."""

from __future__ import annotations

import numpy as np
import pytest

from segplug.kernel import Kernel
from segplug.model import Geometry, Labels


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    return Kernel(discover=False)


@pytest.fixture
def ball() -> Labels:
    """A ball of label 2 around a ball of label 1, spacing (2, 1, 0.5)."""
    z, y, x = np.ogrid[:12, :24, :48]
    radius = np.sqrt((2 * (z - 6)) ** 2 + (y - 12) ** 2 + (0.5 * (x - 24)) ** 2)
    return Labels((radius < 9).astype(np.uint8) + (radius < 5), Geometry((2.0, 1.0, 0.5)))
