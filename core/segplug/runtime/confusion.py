"""Voxel counts of a prediction against a reference: one pass per case, whatever the number of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError, UsageError
from segplug.model.evaluation import Class

_CHUNK = 1 << 20
"""Voxels counted at once: the working arrays stay small beside any image."""
_LARGEST_LABEL = 65535
"""Of 16 bits, the widest label maps in use; it bounds the look-up table."""


@dataclass(frozen=True)
class Counts:
    """Voxels of one class; those with the ignore label in the reference are in none."""

    tp: int
    fp: int
    fn: int
    tn: int


@dataclass(frozen=True)
class ConfusionMatrix:
    """How often each pair of labels meets.

    Args:
        values: the labels told apart.
        counts: int64 (n + 1, n + 1): reference label along the rows, predicted label along the columns, in the order of
            `values`; the last row and column hold every other label.
    """

    values: tuple[int, ...]
    counts: NDArray[np.int64]

    def of(self, target: Class) -> Counts:
        """Counts of a label, or of several labels taken as one region."""
        index = [self.values.index(v) for v in sorted(set(as_labels(target)))]
        tp = int(self.counts[np.ix_(index, index)].sum())
        fn = int(self.counts[index].sum()) - tp
        fp = int(self.counts[:, index].sum()) - tp
        return Counts(tp, fp, fn, int(self.counts.sum()) - tp - fp - fn)


def as_labels(target: Class) -> tuple[int, ...]:
    """The labels that make up a class."""
    return target if isinstance(target, tuple) else (target,)


def confusion_matrix(
    reference: NDArray[Any], prediction: NDArray[Any], values: Sequence[int], ignore: int | None = None
) -> ConfusionMatrix:
    """Count how often each pair of labels meets.

    Args:
        reference, prediction: integers (or booleans) of one shape.
        values: the labels to tell apart; all others count as one.
        ignore: voxels with this label in the reference are not counted.

    Raises:
        DataError: the shapes differ, or an array holds no integers.
        UsageError: a label is not in 0..65535.
    """
    known = tuple(sorted(set(values)))
    if known and (known[0] < 0 or known[-1] > _LARGEST_LABEL):
        raise UsageError(f"labels {known[0]}..{known[-1]}: expected integers from 0 to {_LARGEST_LABEL}")
    if reference.shape != prediction.shape:
        raise DataError(f"shapes differ: reference {reference.shape}, prediction {prediction.shape}")
    for what, array in (("reference", reference), ("prediction", prediction)):
        if array.dtype.kind not in "iub":
            raise DataError(f"{what}: a label map holds integers; found {array.dtype}")
    rows, columns = len(known) + 2, len(known) + 1  # the further row is for the ignore label
    row_of = _table([*known, *([] if ignore is None else [ignore])], other=len(known))
    if ignore is not None:
        row_of[ignore + 1] = len(known) + 1
    row_of *= columns
    column_of = _table(known, other=len(known))
    total = np.zeros(rows * columns, dtype=np.int64)
    flat_reference, flat_prediction = reference.reshape(-1), prediction.reshape(-1)
    for start in range(0, flat_reference.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        cell = _look_up(row_of, flat_reference[part])
        cell += _look_up(column_of, flat_prediction[part])
        total += np.bincount(cell, minlength=rows * columns)
    return ConfusionMatrix(known, total.reshape(rows, columns)[:-1])


def _table(values: Sequence[int], other: int) -> NDArray[np.intp]:
    """Position of each value in `values` at index value + 1; `other` elsewhere, also at both ends."""
    table = np.full(max(values, default=0) + 3, other, dtype=np.intp)
    for position, value in enumerate(values):
        table[value + 1] = position
    return table


def _look_up(table: NDArray[np.intp], labels: NDArray[Any]) -> NDArray[np.intp]:
    """Table entries of labels; those below 0 or above the table's largest value get its ends."""
    return table[np.clip(labels.astype(np.int64), -1, len(table) - 2) + 1]
