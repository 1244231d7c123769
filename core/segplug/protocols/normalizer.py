"""Normalizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from segplug.model import ChannelStatistics


class Normalizer(Protocol):
    """A function of one channel: the same shape comes back, normalised, as float32. It may work in place.

    Args:
        channel: float32 (z, y, x), cropped to the nonzero region.
        mask: boolean, same shape: where the image is nonzero; None unless the plan says `use_mask_for_norm`.
        statistics: of this channel over the training set's foreground (the plan's), None if the plan has none.

    Raises:
        segplug.errors.DataError: the channel cannot be normalised so, or only with a mask or statistics.
    """

    def __call__(
        self, channel: NDArray[np.float32], mask: NDArray[np.bool_] | None, statistics: ChannelStatistics | None
    ) -> NDArray[np.float32]: ...


@runtime_checkable
class RegionNormalizer(Protocol):
    """A normalizer that can work part by part; prediction with a limit of memory then takes images beyond it.

    `by_region` returns the function that normalises a part of a channel, float32 (z, y, x), in place or not, so that
    all parts together are what the call makes of the whole (no mask), but for rounding.

    Args:
        parts: the whole channel, part by part, each voxel once; to be gone through once, or not at all.
        statistics: as for the call. The plan's options arrive as keywords.
    """

    def by_region(
        self, parts: Iterable[NDArray[np.float32]], statistics: ChannelStatistics | None, **options: Any
    ) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]: ...
