"""Foreground intensities of a data set, as nnU-Net draws them, without holding what is drawn.

nnU-Net draws 1e8 values over all cases, with replacement, and takes mean, deviation and percentiles of them. Here the
same random indices are only counted, so that each distinct value is held once with the number of its draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt
from typing import Any

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
_BLOCK, _FEW = 2**17, 2**16
"""Numbers of the generator that are counted together, once for all cases that need fewer different ones than this."""

_INTEGER_BINS = 2**22
_PART = 2**20
"""Values worked on together: temporary arrays stay small."""


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
    source = _Draws()
    return [_draw(source, values, draws) if values.size and draws else NOTHING for values in channels]


def merge_intensities(parts: Iterable[Intensities]) -> Intensities:
    """Put the draws of several cases together. What is held stays below a few times `MOST_DISTINCT`.

    Args:
        parts: gone through once; of what an iterator alone holds, each part goes as it is taken over.
    """
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


class _Draws:
    """Indices as `RandomState(SEED).choice(size, count)` draws them, call after call."""

    def __init__(self) -> None:
        self._random: np.random.RandomState | None = None  # a newer generator would draw other numbers than nnU-Net
        self._place = 0

    def indices(self, size: int, count: int) -> NDArray[np.int64]:
        """The next `count` indices; any split into calls gives the same numbers in all."""
        if self._random is None:
            self._random = np.random.RandomState(SEED)
        indices: NDArray[np.int64] = self._random.randint(0, size, count)
        return indices

    def counts(self, size: int, count: int) -> NDArray[np.int64]:
        """How often each index is among the next `count`. Of one object call either this or `indices`.

        An index is a number of the generator masked to the bits that `size` needs, passed over if it is too large. The
        numbers are the same for each case, so they are made once.
        """
        if size == 1:  # nothing is drawn
            return np.array([count], np.int64)
        mask = (1 << (size - 1).bit_length()) - 1
        likely = count * (mask + 1) // size
        spread = 64 + 8 * isqrt(likely)
        while True:
            start, stop = max(0, likely - spread), likely + spread
            room = _with_room(self._place + stop)
            numbers = _masked(mask, room)[self._place + start : self._place + stop]
            found = _counted(mask, room, self._place, self._place + start)[:size]
            missing = count - int(found.sum())
            fitting = np.flatnonzero(numbers < size)
            if 0 < missing <= len(fitting):
                end = int(fitting[missing - 1]) + 1
                self._place += start + end
                return found + np.bincount(numbers[:end], minlength=size)[:size]
            spread *= 4


def _with_room(count: int) -> int:
    return -(-count // _CHUNK) * _CHUNK


@lru_cache(maxsize=1)
def _numbers(count: int) -> NDArray[np.uint32]:
    """The first numbers of the generator."""
    numbers: NDArray[np.uint32] = np.random.RandomState(SEED).randint(0, 2**32, count, np.uint32)
    return numbers


@lru_cache(maxsize=4)
def _masked(mask: int, count: int) -> NDArray[Any]:
    masked = _numbers(count) & np.uint32(mask)
    return masked.astype(np.uint16) if mask < _FEW else masked


def _counted(mask: int, room: int, first: int, last: int) -> NDArray[np.int64]:
    """How often each masked number is among those from `first` to before `last`, of `room` that are made."""
    numbers = _masked(mask, room)
    if mask >= _FEW:
        return np.bincount(numbers[first:last], minlength=mask + 1)
    upto = [
        _counted_blocks(mask, room, place // _BLOCK)
        + np.bincount(numbers[place // _BLOCK * _BLOCK : place], minlength=mask + 1)
        for place in (first, last)
    ]
    return upto[1] - upto[0]


@lru_cache(maxsize=64)
def _counted_blocks(mask: int, room: int, blocks: int) -> NDArray[np.int64]:
    """How often each masked number is among those of the first blocks: cases differ in the last block alone."""
    if blocks == 0:
        return np.zeros(mask + 1, np.int64)
    numbers = _masked(mask, room)[(blocks - 1) * _BLOCK : blocks * _BLOCK]
    return _counted_blocks(mask, room, blocks - 1) + np.bincount(numbers, minlength=mask + 1)


def _draw(source: _Draws, values: NDArray[np.float32], draws: int) -> Intensities:
    """`random.choice(values, draws)`, counted."""
    size = values.size
    if size > draws:  # fewer draws than voxels: the drawn values are less to hold than a count for each voxel
        drawn = np.empty(draws, np.float32)
        for start in range(0, draws, _CHUNK):
            part = drawn[start : start + _CHUNK]
            part[:] = values[source.indices(size, part.size)]
        return _tally(drawn, None)
    if draws <= _CHUNK:
        return _tally(values, source.counts(size, draws))
    counts = np.zeros(size, np.int32)
    for start in range(0, draws, _CHUNK):
        indices = source.indices(size, min(_CHUNK, draws - start))
        if size <= _CHUNK:
            counts += np.bincount(indices, minlength=size).astype(np.int32)
        else:
            np.add.at(counts, indices, np.int32(1))  # of the same type: ten times faster
    return _tally(values, counts)


def _tally(values: NDArray[np.float32], counts: NDArray[np.integer] | None) -> Intensities:
    """Equal values as one, those never drawn left out.

    Args:
        counts: of draws, per value; None for one each.
    """
    low, high = float(values.min()), float(values.max())
    if high - low < _INTEGER_BINS and _are_whole(values):
        # whole numbers, as most scanners store: counting is faster than sorting
        bins = np.zeros(int(high - low) + 1)
        for start in range(0, values.size, _PART):
            part = (values[start : start + _PART] - np.float32(low)).astype(np.int64)
            weights = None if counts is None else counts[start : start + _PART]
            bins += np.bincount(part, weights, bins.size)
        drawn = np.flatnonzero(bins)
        return Intensities((drawn + low).astype(np.float32), bins[drawn].astype(np.int32))
    return _sorted(values.size, [(values, counts)])


def _are_whole(values: NDArray[np.float32]) -> bool:
    parts = (values[start : start + _PART] for start in range(0, values.size, _PART))
    return all(np.array_equal(part, np.rint(part)) for part in parts)


def _merge(parts: list[Intensities]) -> Intensities:
    if not any(p.values.size for p in parts):
        return NOTHING
    merged = _sorted(sum(p.values.size for p in parts), ((p.values, p.counts) for p in _emptied(parts)))
    return _rounded(merged) if merged.values.size > MOST_DISTINCT else merged


def _emptied(parts: list[Intensities]) -> Iterator[Intensities]:
    while parts:
        yield parts.pop()


def _sorted(size: int, parts: Iterable[tuple[NDArray[np.float32], NDArray[np.integer] | None]]) -> Intensities:
    """Values in order, each once with its counts; what has none is left out.

    Value and count are sorted as one number, in place: nothing else is as large.

    Args:
        size: values of all parts.
    """
    keys = np.empty(size, np.uint64)
    filled = 0
    for values, counts in parts:
        for start in range(0, values.size, _PART):
            part = values[start : start + _PART]
            packed = _ordered_bits(part).astype(np.uint64) << np.uint64(32)
            packed |= np.uint64(1) if counts is None else counts[start : start + _PART].astype(np.uint64)
            packed = packed[(packed & np.uint64(0xFFFFFFFF)) > 0]
            keys[filled : filled + packed.size] = packed
            filled += packed.size
    keys = keys[:filled]
    keys.sort()
    pieces = [keys[start : start + _PART] for start in range(0, filled, _PART)]
    found = [_runs(piece) for piece in pieces]
    size = sum(len(bits) for bits, _ in found)
    bits, counts_of = np.empty(size, np.uint32), np.empty(size, np.int32)
    end = 0
    for more, numbers in found:
        again = int(end > 0 and bits[end - 1] == more[0])  # the value goes on over the border of two pieces
        if again:
            counts_of[end - 1] += numbers[0]
        stop = end + len(more) - again
        bits[end:stop], counts_of[end:stop] = more[again:], numbers[again:]
        end = stop
    return Intensities(_values_of(bits[:end]), counts_of[:end])


def _runs(keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """Distinct values of some sorted keys, as ordered bits, and the sums of their counts."""
    bits = (keys >> np.uint64(32)).astype(np.uint32)
    first = np.flatnonzero(np.concatenate(([True], bits[1:] != bits[:-1])))
    sums = np.add.reduceat((keys & np.uint64(0xFFFFFFFF)).astype(np.int64), first)
    return bits[first], sums.astype(np.int32)


def _ordered_bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Numbers that are in order as the values are."""
    bits = (values + np.float32(0)).view(np.uint32)  # there is but one zero
    return bits ^ np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))


def _values_of(bits: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The values of ordered bits."""
    return (bits ^ np.where(bits >> 31, np.uint32(0x80000000), np.uint32(0xFFFFFFFF))).view(np.float32)


def _rounded(drawn: Intensities) -> Intensities:
    """Values with 16 bits of mantissa rather than 23; the smallest and the largest stay as they are."""
    bits = drawn.values.view(np.int32)
    values = ((bits + 0x40) & ~0x7F).view(np.float32)
    values[[0, -1]] = drawn.values[[0, -1]]
    return _sorted(values.size, [(values, drawn.counts)])
