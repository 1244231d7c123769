"""nnU-Net's five intensity normalisations. Each works in place and returns its argument; each can work part by part.

Numbers are nnU-Net's (`preprocessing/normalization`, release 2.8.1): a standard deviation or range below 1e-8 counts as
1e-8, so that constant channels become 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.model import ChannelStatistics

_SMALLEST = 1e-8
Channel = NDArray[np.float32]
Mask = NDArray[np.bool_]
Parts = Iterable[Channel]
Whole = Callable[[Channel, Mask | None, ChannelStatistics | None], Channel]


@dataclass(frozen=True)
class Normalization:
    """A normalizer that can also work part by part (`segplug.protocols.RegionNormalizer`).

    Args:
        whole: what it does to a channel.
        measure: from the parts of a channel and its statistics to what is done to each part.
    """

    whole: Whole
    measure: Callable[[Parts, ChannelStatistics | None], Callable[[Channel], Channel]]

    def __call__(self, channel: Channel, mask: Mask | None, statistics: ChannelStatistics | None) -> Channel:
        """See `segplug.protocols.Normalizer`."""
        return self.whole(channel, mask, statistics)

    def by_region(self, parts: Parts, statistics: ChannelStatistics | None) -> Callable[[Channel], Channel]:
        """See `segplug.protocols.RegionNormalizer`."""
        return self.measure(parts, statistics)


def _zscore(channel: Channel, mask: Mask | None, statistics: ChannelStatistics | None) -> Channel:
    """Mean 0 and standard deviation 1, of the whole channel or of what lies in the mask; the rest stays as it is."""
    if mask is None or mask.all():
        channel -= channel.mean()
        channel /= np.float32(max(_root_mean_square(channel), _SMALLEST))
        return channel
    values = channel[mask]
    if values.size:
        channel[mask] = _zscore(values, None, statistics)
    return channel


def _ct(channel: Channel, mask: Mask | None, statistics: ChannelStatistics | None) -> Channel:
    """Clip to the data set's 0.5 and 99.5 percentiles, then its mean and standard deviation over the foreground.

    Raises:
        DataError: the plan has no statistics of this channel.
    """
    if statistics is None:
        raise DataError(
            "CT normalisation: the plan has no intensity statistics (foreground_intensity_properties_per_channel) of "
            "this channel. Make fingerprint and plan again"
        )
    np.clip(channel, np.float32(statistics.percentile_00_5), np.float32(statistics.percentile_99_5), out=channel)
    channel -= np.float32(statistics.mean)
    channel /= np.float32(max(statistics.std, _SMALLEST))
    return channel


def _none(channel: Channel, mask: Mask | None, statistics: ChannelStatistics | None) -> Channel:
    """Values as they are."""
    return channel


def _rescale_to_0_1(channel: Channel, mask: Mask | None, statistics: ChannelStatistics | None) -> Channel:
    """The channel's own range to 0..1."""
    channel -= channel.min()
    channel /= max(channel.max(), np.float32(_SMALLEST))
    return channel


def _rgb_to_0_1(channel: Channel, mask: Mask | None, statistics: ChannelStatistics | None) -> Channel:
    """Bytes, 0..255, to 0..1.

    Raises:
        DataError: a value lies outside 0..255.
    """
    low, high = float(channel.min()), float(channel.max())
    if low < 0 or high > 255:
        raise DataError(
            f"RGB normalisation: found values from {low:g} to {high:g}, expected 0 to 255. If these are no bytes, name "
            "the channels otherwise in dataset.json's channel_names"
        )
    channel /= np.float32(255)
    return channel


def _root_mean_square(values: Channel) -> float:
    """By runs that float32 sums exactly enough; needs no second array."""
    total, flat = 0.0, values.reshape(-1)
    run = 1 << 14
    for start in range(0, flat.size, run):
        part = flat[start : start + run]
        total += float(np.dot(part, part))
    return float(np.sqrt(total / flat.size))


def _scale(channel: Channel, offset: float, divisor: float) -> Channel:
    channel -= np.float32(offset)
    channel /= np.float32(divisor)
    return channel


def _measure_zscore(parts: Parts, statistics: ChannelStatistics | None) -> Callable[[Channel], Channel]:
    """Mean and deviation in one pass: those of each part put together (Chan, Golub and LeVeque 1979)."""
    count, mean, squares = 0, 0.0, 0.0
    for part in parts:
        here = float(part.mean(dtype=np.float64))
        apart = here - mean
        squares += float(part.var(dtype=np.float64)) * part.size + apart * apart * count * part.size / (
            count + part.size
        )
        count += part.size
        mean += apart * part.size / count
    return partial(_scale, offset=mean, divisor=max(float(np.sqrt(squares / max(count, 1))), _SMALLEST))


def _measure_range(parts: Parts, statistics: ChannelStatistics | None) -> Callable[[Channel], Channel]:
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for part in parts:
        low, high = min(low, part.min()), max(high, part.max())
    return partial(_scale, offset=float(low), divisor=float(max(high - low, np.float32(_SMALLEST))))


def _measure_nothing(whole: Whole, parts: Parts, statistics: ChannelStatistics | None) -> Callable[[Channel], Channel]:
    """For what looks at nothing but the voxel and the plan's statistics."""
    return lambda channel: whole(channel, None, statistics)


zscore = Normalization(_zscore, _measure_zscore)
ct = Normalization(_ct, partial(_measure_nothing, _ct))
none = Normalization(_none, partial(_measure_nothing, _none))
rescale_to_0_1 = Normalization(_rescale_to_0_1, _measure_range)
rgb_to_0_1 = Normalization(_rgb_to_0_1, partial(_measure_nothing, _rgb_to_0_1))
