"""What planning knows of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ChannelStatistics:
    """Intensities of one channel in the foreground of all training cases."""

    mean: float
    median: float
    std: float
    min: float
    max: float
    percentile_99_5: float
    percentile_00_5: float


@dataclass(frozen=True)
class Fingerprint:
    """dataset_fingerprint.json.

    Args:
        spacings: per case (sorted by name), (z, y, x).
        shapes_after_crop: per case, shape of the nonzero region (z, y, x).
        channels: intensity statistics per channel.
        median_relative_size_after_cropping: median over cases of cropped / original voxel count.
        extra: further keys of the file, kept as they are.
    """

    spacings: tuple[tuple[float, ...], ...]
    shapes_after_crop: tuple[tuple[int, ...], ...]
    channels: tuple[ChannelStatistics, ...]
    median_relative_size_after_cropping: float
    extra: Mapping[str, Any] = field(default_factory=dict)
