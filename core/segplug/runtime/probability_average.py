"""The mean of several models' probabilities, from files to a label map, without ever holding them whole."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.model import LabelSet
from segplug.runtime.probability_file import ProbabilityFile, forget_pages, pieces


def average_to_labels(
    files: Sequence[Path], labels: LabelSet, *, expected: Sequence[int], into: NDArray[np.float32] | None = None
) -> NDArray[Any]:
    """Average probabilities and make the label map that they say, as nnU-Net does.

    The files are read once, side by side, in pieces of some slices of one class; in memory are the label map and, for
    labels, the largest mean so far. Sums are float32, in the order of the files.

    Args:
        files: `.npz` with (classes, z, y, x) each.
        labels: how probabilities become labels: the largest wins, the first of equals; with regions, each above 0.5 is
            painted, in `regions_class_order`.
        expected: shape (z, y, x) of the image.
        into: (classes, z, y, x), mapped from disk, to be filled with the mean; or None.

    Returns:
        uint8 or uint16 (z, y, x).

    Raises:
        DataError: a file is missing or damaged, shapes differ, or there is not one channel for each class.
    """
    with ExitStack() as opened:
        members = [opened.enter_context(ProbabilityFile(file)) for file in files]
        shape = members[0].shape
        for member in members[1:]:
            if member.shape != shape:
                raise DataError(
                    f"{member.path}: shape {member.shape}; expected {shape} as in {files[0]}. The folders must hold "
                    "predictions of the same images for the same classes"
                )
        if shape[1:] != tuple(expected):
            raise DataError(
                f"{files[0]}: probabilities of an image {shape[1:]}; expected {tuple(expected)}, the shape of the "
                "label map beside it. Predict this case again"
            )
        values = labels.output_values
        if shape[0] != len(values):
            raise DataError(
                f"{files[0]}: {shape[0]} channels; expected {len(values)}, one per class of dataset.json. Give the "
                "dataset.json of the model that made it"
            )
        streams = [member.pieces() for member in members]
        result = np.zeros(shape[1:], labels.output_dtype)
        best = None if labels.has_regions else np.full(shape[1:], -np.inf, np.float32)
        for channel, value in enumerate(values):
            for rows in pieces(shape):
                mean = _mean([next(stream) for stream in streams])
                if not np.isfinite(mean).all():
                    raise DataError(f"{', '.join(map(str, files))}: probabilities that are not finite. Predict it anew")
                if into is not None:
                    into[channel, rows] = mean
                if best is None:
                    result[rows][mean > 0.5] = value
                else:
                    wins = mean > best[rows]
                    result[rows][wins] = value
                    np.maximum(best[rows], mean, out=best[rows])
            if into is not None:
                forget_pages(into)
        return result


def _mean(parts: Sequence[NDArray[np.floating]]) -> NDArray[np.float32]:
    total = parts[0].astype(np.float32)
    for part in parts[1:]:
        total += part
    total /= len(parts)
    return total
