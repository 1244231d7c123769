"""Reading the image and the label map of one case, checked for what every stage relies on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.model import Case, Image, Labels
from segplug.protocols import Reader
from segplug.runtime.wording import counted

_IN_CACHE = 1 << 16
"""Voxels that are looked at together."""


def read_image(reader: Reader, case: Case, num_channels: int) -> Image:
    """Read a case's image: float32 (channels, z, y, x).

    Raises:
        DataError: a file is missing or damaged, the channels do not fit each other, or there are not `num_channels`.
    """
    image = reader(case.images)
    require_channels(case, image.array.shape[0], num_channels)
    return image


def require_channels(case: Case, found: int, num_channels: int) -> None:
    """Refuse a case whose files do not have the data set's channels.

    Raises:
        DataError: naming the files.
    """
    if found != num_channels:
        files = ", ".join(map(str, case.images))
        raise DataError(
            f"case {case.name}: {files}: found {counted(found, 'channel')}, expected {num_channels} (channel_names). "
            "Add the missing channel files (CASE_0000, CASE_0001, ...) or correct channel_names in dataset.json"
        )


def channel_file(case: Case, channel: int) -> Path:
    """The file that a channel is in: its own, or the one that has all of them."""
    return case.images[channel] if channel < len(case.images) > 1 else case.images[0]


def read_labels(reader: Reader, path: Path) -> Labels:
    """Read a label map: int16 (z, y, x), int32 where its values need it.

    Raises:
        DataError: the file is missing or damaged, has several channels, or values that are no whole numbers.
    """
    image = reader([path])
    if image.array.shape[0] != 1:
        raise DataError(
            f"{path}: a label map with {image.array.shape[0]} channels; expected one. Save it as a single channel "
            "(grey, not RGB) whose values are the labels"
        )
    return Labels(whole_numbers(image.array[0], path), image.geometry)


def whole_numbers(array: NDArray[np.float32], path: Path) -> NDArray[np.integer[Any]]:
    """Label values as integers.

    Raises:
        DataError: a value is not a whole number, or beyond 2^24, where float32 no longer tells labels apart.
    """
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if not (low >= -(2**24) and high <= 2**24):  # NaN and infinity fail this too
        raise DataError(f"{path}: label values from {low} to {high}; expected whole numbers. Correct the label map")
    labels: NDArray[np.integer[Any]] = np.empty(array.shape, np.int16 if low >= -(2**15) and high < 2**15 else np.int32)
    step = max(1, _IN_CACHE // max(1, math.prod(array.shape[1:])))
    for first in range(0, len(array), step):  # some planes at a time, in the cache
        part, values = labels[first : first + step], array[first : first + step]
        part[...] = values
        if (part == values).all():
            continue
        wrong = np.unique(array[array != np.trunc(array)])[:5].tolist()
        raise DataError(f"{path}: label values {wrong}; expected whole numbers. Correct the label map")
    return labels
