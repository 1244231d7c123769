"""Robust scaling of one channel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from segplug import Component, hookimpl
from segplug.model import ChannelStatistics
from segplug.protocols import Normalizer


def robust(
    channel: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    statistics: ChannelStatistics | None,
    *,
    percent: float = 1.0,
) -> NDArray[np.float32]:
    """Bring the range between two percentiles to 0..1. `percent` is an option that a plan may set."""
    inside = channel if mask is None or not mask.any() else channel[mask]
    low, high = np.percentile(inside, (percent, 100 - percent))
    scaled: NDArray[np.float32] = ((channel - low) / max(high - low, 1e-8)).astype(np.float32)
    return scaled


@hookimpl
def segplug_normalizers() -> Iterator[Component[Normalizer]]:
    yield Component("robust", f"{__name__}:robust", "range between two percentiles to 0..1")
