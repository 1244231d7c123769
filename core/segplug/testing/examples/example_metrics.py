"""Difference in volume."""

from __future__ import annotations

import math
from collections.abc import Iterator

from segplug import Component, hookimpl
from segplug.protocols import Comparison, Metric


def volume_difference(comparison: Comparison) -> float:
    """Predicted minus reference volume, in ml; NaN where the class is in neither."""
    if comparison.tp + comparison.fp + comparison.fn == 0:
        return math.nan
    return (comparison.fp - comparison.fn) * math.prod(comparison.spacing) / 1000


@hookimpl
def segplug_metrics() -> Iterator[Component[Metric]]:
    yield Component("volume_difference", f"{__name__}:volume_difference", "predicted minus reference volume, ml")
