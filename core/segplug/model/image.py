"""Images and label maps in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Geometry:
    """Where an array lies in the world.

    Args:
        spacing: voxel size per array axis, in the order of the array's axes (z, y, x), usually in mm. A 2D image is an
            array of one slice with spacing (999, 1, 1), as in nnU-Net.
        origin: position of the first voxel in the world, (x, y, z) in ITK's axes (LPS); empty if the format has none.
            A 2D file has two numbers.
        direction: direction cosines of the file's axes x, y, z in that world, row by row, as ITK has them; empty if the
            format has none.
        extra: what else the reader's writer needs to put the same header back. Plain values and arrays only.
    """

    spacing: tuple[float, ...]
    origin: tuple[float, ...] = ()
    direction: tuple[float, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Image:
    """An image of one case.

    Args:
        array: float32, (channels, z, y, x); a 2D image has z = 1.
        geometry: its place in the world.
    """

    array: NDArray[np.float32]
    geometry: Geometry

    @property
    def spacing(self) -> tuple[float, ...]:
        return self.geometry.spacing

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape (z, y, x)."""
        return self.array.shape[1:]


@dataclass(frozen=True)
class Labels:
    """A label map of one case.

    Args:
        array: integers, (z, y, x); a 2D image has z = 1.
        geometry: its place in the world.
    """

    array: NDArray[np.integer[Any]]
    geometry: Geometry

    @property
    def spacing(self) -> tuple[float, ...]:
        return self.geometry.spacing

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape (z, y, x)."""
        return self.array.shape
