"""Normalizers."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segplug.model import ChannelStatistics


class Normalizer(Protocol):
    """A function of one channel: the same shape comes back, normalised, as float32. It may work in place.

    Args:
        channel: float32 (z, y, x), cropped to the nonzero region.
        mask: boolean, same shape: where the image is nonzero; None unless the plan says `use_mask_for_norm`.
        statistics: of this channel over the training set's foreground (the plan's), None if the plan has none.
    """

    def __call__(
        self, channel: NDArray[np.float32], mask: NDArray[np.bool_] | None, statistics: ChannelStatistics | None
    ) -> NDArray[np.float32]: ...
