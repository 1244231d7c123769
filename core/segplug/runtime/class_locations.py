"""Where the classes are in a preprocessed case, so that training can centre patches on them without searching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from segplug.model import LabelSet
from segplug.runtime.patch_sampling import annotated_key
from segplug.runtime.randomness import generator

SEED = 1234
"""nnU-Net's seed of this step."""

MIN_VOXELS, MIN_SHARE = 10_000, 0.01
"""At least so many voxels of a class are kept, or all if there are fewer (nnU-Net's rule)."""

_BLOCK = 1 << 18
"""Voxels looked at at once: they stay in the cache."""

ClassKey = int | tuple[int, ...]


def class_locations(target: NDArray[np.int16], labels: LabelSet) -> dict[ClassKey, NDArray[np.int32]]:
    """Draw voxels of each class, uniformly and without repetition.

    The distribution is nnU-Net's; the voxels are others, since it shuffles every voxel of a class to draw a few.

    Args:
        target: (1, z, y, x), as preprocessed.
        labels: what is a class: regions, or labels without background. With an ignore label all annotated voxels,
            background and outside included, make one more entry under `patch_sampling.annotated_key`.

    Returns:
        Per class (label, or region as a tuple) voxels (n, 3), in order of the array; n = 0 for an absent class.
    """
    keys: list[ClassKey] = list(labels.classes)
    if labels.ignore_label is not None:
        keys.append(annotated_key(labels.all_labels))
    blocks = list(_blocks(target[0]))
    counts = _label_counts(blocks)
    picked = {key: _draw(counts, _values(key), index) for index, key in enumerate(keys)}
    found: dict[ClassKey, list[NDArray[np.int64]]] = {key: [] for key in keys}
    start = 0
    for number, block in enumerate(blocks):
        wanted = [key for key in keys if len(picked[key][number])]
        if wanted:
            foreground = np.flatnonzero(block > 0)
            values = block[foreground]
            for key in wanted:
                if -1 in _values(key) or 0 in _values(key):
                    flat = np.flatnonzero(np.isin(block, _values(key)))[picked[key][number]]
                else:
                    flat = foreground[np.flatnonzero(_is_one_of(values, _values(key)))[picked[key][number]]]
                found[key].append(flat + start)
        start += block.size
    none = np.empty(0, np.int64)
    voxels = {key: np.concatenate(parts) if parts else none for key, parts in found.items()}
    shape = target.shape[1:]
    return {key: np.stack(np.unravel_index(flat, shape), axis=1).astype(np.int32) for key, flat in voxels.items()}


def _blocks(array: NDArray[np.int16]) -> Iterator[NDArray[np.int16]]:
    """The array in its order, as flat pieces small enough for the cache."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK]


def _values(key: ClassKey) -> tuple[int, ...]:
    return key if isinstance(key, tuple) else (key,)


def _is_one_of(values: NDArray[np.int16], wanted: Sequence[int]) -> NDArray[np.bool_]:
    return values == wanted[0] if len(wanted) == 1 else np.isin(values, wanted)


def _label_counts(blocks: Sequence[NDArray[np.int16]]) -> NDArray[np.int64]:
    """Voxels per block and label, (blocks, labels); column 0 stands for label -1."""
    width = max(0, *(int(block.max()) for block in blocks)) + 2
    return np.stack([np.bincount(block + np.int16(1), minlength=width) for block in blocks])


def _draw(counts: NDArray[np.int64], values: Sequence[int], index: int) -> list[NDArray[np.int64]]:
    """Which voxels of a class to keep: per block, ascending numbers among the block's voxels of the class."""
    columns = [v + 1 for v in values if v + 1 < counts.shape[1]]
    per_block = counts[:, columns].sum(axis=1)
    total = int(per_block.sum())
    size = max(min(MIN_VOXELS, total), ceil(total * MIN_SHARE))
    if size == total:
        drawn = np.arange(total)
    else:
        random = generator(SEED, "class locations", index)
        drawn = np.sort(random.choice(total, size, replace=False, shuffle=False))
    ends = np.cumsum(per_block)
    stops = np.searchsorted(drawn, ends).tolist()
    starts = (ends - per_block).tolist()
    return [drawn[a:b] - start for a, b, start in zip([0, *stops], stops, starts, strict=False)]
