"""Metrics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Comparison:
    """One class of a prediction beside the reference.

    Args:
        tp, fp, fn, tn: voxel counts; voxels with the ignore label are in none.
        reference_labels, predicted_labels: the label maps (z, y, x).
        values: labels that make the class.
        spacing: (z, y, x), in mm as a rule.
        valid: boolean (z, y, x), False where the ignore label stands; None without one.
    """

    tp: int
    fp: int
    fn: int
    tn: int
    reference_labels: NDArray[np.integer]
    predicted_labels: NDArray[np.integer]
    values: tuple[int, ...]
    spacing: tuple[float, ...]
    valid: NDArray[np.bool_] | None = None

    @cached_property
    def reference(self) -> NDArray[np.bool_]:
        """Mask of the class in the reference; made when first asked for."""
        return self._mask(self.reference_labels)

    @cached_property
    def prediction(self) -> NDArray[np.bool_]:
        """Mask of the class in the prediction; made when first asked for."""
        return self._mask(self.predicted_labels)

    def _mask(self, labels: NDArray[np.integer]) -> NDArray[np.bool_]:
        mask = np.isin(labels, self.values)
        return mask if self.valid is None else mask & self.valid


class Metric(Protocol):
    """A function from a `Comparison` to a number; NaN where the metric is undefined (no such class in either)."""

    def __call__(self, comparison: Comparison) -> float: ...
