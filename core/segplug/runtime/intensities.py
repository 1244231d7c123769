"""Foreground intensities of a data set, as nnU-Net draws them, without holding what is drawn.

nnU-Net draws 1e8 values over all cases, with replacement, and takes mean, deviation and percentiles of them. Here the
same random indices are only counted, so that each distinct value is held once with the number of its draws.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segplug.model import ChannelStatistics

TOTAL_DRAWS = 10e7
"""Values drawn over all cases of a data set, per channel (nnU-Net)."""

SEED = 1234
"""Of the generator, which is made anew for each case and serves its channels in turn (nnU-Net)."""

MOST_DISTINCT = 2**24
"""With more distinct values than this, values are rounded to 16 bits of mantissa (relative error below 1e-5)."""

_CHUNK = 2**20
_INTEGER_BINS = 2**22


@dataclass(frozen=True)
class Intensities:
    """Distinct values, ascending, and how often each was drawn.

    Args:
        values: float32.
        counts: int32, positive.
    """

    values: NDArray[np.float32]
    counts: NDArray[np.int32]

    @property
    def total(self) -> int:
        return int(self.counts.sum(dtype=np.int64))


NOTHING = Intensities(np.empty(0, np.float32), np.empty(0, np.int32))
"""Of a case without foreground."""


def draw_intensities(channels: Iterable[NDArray[np.float32]], draws: int) -> list[Intensities]:
    """Draw from one case as nnU-Net does: `RandomState(1234).choice(values, draws)`, channel after channel.

    Args:
        channels: per channel, the intensities of all foreground voxels in array order; all of one length.
        draws: values to draw from each channel.
    """
    random = np.random.RandomState(SEED)  # a newer generator would draw other numbers than nnU-Net
    return [_draw(random, values, draws) if values.size and draws else NOTHING for values in channels]


def merge_intensities(parts: Iterable[Intensities]) -> Intensities:
    """Put the draws of several cases together. What is held stays below a few times `MOST_DISTINCT`."""
    pending: list[Intensities] = []
    for part in parts:
        pending.append(part)
        if sum(p.values.size for p in pending) > 2 * MOST_DISTINCT:
            pending = [_merge(pending)]
    return _merge(pending)


def channel_statistics(drawn: Intensities, *, single_precision: bool = True) -> ChannelStatistics:
    """Statistics of what was drawn; percentiles are NumPy's linear ones, to the last bit.

    Args:
        drawn: at least one value.
        single_precision: False where a case had no foreground: nnU-Net then computes in float64.
    """
    low, median, high = percentiles(drawn, (0.5, 50.0, 99.5), single_precision=single_precision)
    values, counts, total = drawn.values.astype(np.float64), drawn.counts, drawn.total
    mean = float(np.dot(values, counts)) / total
    variance = float(np.dot((values - mean) ** 2, counts)) / total
    return ChannelStatistics(
        mean=mean,
        median=median,
        std=variance**0.5,
        min=float(values[0]),
        max=float(values[-1]),
        percentile_99_5=high,
        percentile_00_5=low,
    )


def percentiles(drawn: Intensities, wanted: Iterable[float], *, single_precision: bool = True) -> list[float]:
    """What `numpy.percentile(all draws, wanted)` gives, `wanted` being an array of several."""
    ends = np.cumsum(drawn.counts, dtype=np.int64)
    values = drawn.values if single_precision else drawn.values.astype(np.float64)
    found = []
    for percent in wanted:
        place = (int(ends[-1]) - 1) * (percent / 100)
        below = int(place)
        lower, upper = values[np.searchsorted(ends, (below, min(below + 1, int(ends[-1]) - 1)), side="right")]
        # NumPy subtracts in the values' own precision, then interpolates in float64 from the nearer end
        step, share = float(upper - lower), place - below
        found.append(float(upper) - step * (1 - share) if share >= 0.5 else float(lower) + step * share)
    return found


def _draw(random: np.random.RandomState, values: NDArray[np.float32], draws: int) -> Intensities:
    """`random.choice(values, draws)`, counted; the generator is left in the same state."""
    size = values.size
    if size > draws:  # fewer draws than voxels: the drawn values are less to hold than a count for each voxel
        return _tally(values[_indices(random, size, draws)], np.ones(draws, np.int64))
    counts = np.zeros(size, np.int64)
    for start in range(0, draws, _CHUNK):
        indices = _indices(random, size, min(_CHUNK, draws - start))
        if size <= _CHUNK:
            counts += np.bincount(indices, minlength=size)
        else:
            np.add.at(counts, indices, 1)
    return _tally(values, counts)


def _indices(random: np.random.RandomState, size: int, count: int) -> NDArray[np.int64]:
    """What `random.choice` draws: any split into calls gives the same numbers in all."""
    indices: NDArray[np.int64] = random.randint(0, size, count)
    return indices


def _tally(values: NDArray[np.float32], counts: NDArray[np.int64]) -> Intensities:
    """Equal values as one, those never drawn left out."""
    low, high = float(values.min()), float(values.max())
    if high - low < _INTEGER_BINS and np.array_equal(values, np.rint(values)):
        # whole numbers, as most scanners store: counting is faster than sorting
        bins = np.bincount((values - np.float32(low)).astype(np.int64), weights=counts)
        drawn = np.flatnonzero(bins)
        return Intensities((drawn + low).astype(np.float32), bins[drawn].astype(np.int32))
    drawn = np.flatnonzero(counts)
    return _sorted(values[drawn], counts[drawn])


def _merge(parts: list[Intensities]) -> Intensities:
    values = np.concatenate([p.values for p in parts]) if parts else NOTHING.values
    if not values.size:
        return NOTHING
    merged = _sorted(values, np.concatenate([p.counts for p in parts]))
    return _rounded(merged) if merged.values.size > MOST_DISTINCT else merged


def _sorted(values: NDArray[np.float32], counts: NDArray[np.integer]) -> Intensities:
    order = np.argsort(values)
    values = values[order]
    first = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
    return Intensities(values[first], np.add.reduceat(counts[order], first).astype(np.int32))


def _rounded(drawn: Intensities) -> Intensities:
    """Values with 16 bits of mantissa rather than 23; the smallest and the largest stay as they are."""
    bits = drawn.values.view(np.int32)
    values = ((bits + 0x40) & ~0x7F).view(np.float32)
    values[[0, -1]] = drawn.values[[0, -1]]
    return _sorted(values, drawn.counts)
