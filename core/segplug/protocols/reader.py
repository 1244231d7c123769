"""Readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from segplug.model import Geometry, Image


class Reader(Protocol):
    """A function from the files of one case to an image.

    It is called with the image files of a case (one per channel, in channel order; formats that hold all channels in
    one file get that file alone) and, separately, with a label map as the only file. Where the format is a folder, the
    path is that of the folder, which has the data set's file ending like a file. Options of the plan arrive as
    keywords. The array is float32 (channels, z, y, x), 2D images have z = 1 and spacing (999, 1, 1); the geometry has
    all that the writer of the same name needs.

    Raises:
        segplug.errors.DataError: a file is missing, damaged or of another format, or the channels differ in geometry.
            The message names the file.
    """

    def __call__(self, paths: Sequence[Path]) -> Image: ...


class OpenImage(Protocol):
    """An image of which regions can be read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, z, y, x)."""
        ...

    @property
    def chunks(self) -> tuple[int, ...]:
        """Voxels (z, y, x) that lie together in the file: regions of whole chunks are read fastest."""
        ...

    @property
    def geometry(self) -> Geometry:
        """As the reader's image has it."""
        ...

    def read(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[np.float32]:
        """All channels of a box (z, y, x): float32 (channels, *(stop - start)), as they are in the reader's image.

        Raises:
            segplug.errors.DataError: this part of the file is damaged.
        """
        ...


@runtime_checkable
class RegionReader(Protocol):
    """A reader that can read a part of an image; prediction with a limit of memory then takes images beyond it.

    `open` takes what the call takes, options included, and reads what it needs to know where the voxels are.
    """

    def open(self, paths: Sequence[Path], **options: Any) -> OpenImage: ...


@dataclass(frozen=True)
class ImageSize:
    """What can be said of an image before its voxels are read.

    Args:
        shape: (channels, z, y, x).
        spacing: (z, y, x), as in the reader's image.
        reading: most bytes in memory while it is read, the float32 image included.
        distinct: how many values a channel can have, as the type of the stored numbers tells; None if it does not.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    reading: int
    distinct: int | None = None


@runtime_checkable
class SizedReader(Protocol):
    """A reader that tells how large an image is from its header; what reads images with a limit of memory then knows
    before the work whether the limit can be kept, and how many cases can be worked on at once.

    `size` takes what the call takes, options included. None where only reading tells.

    Raises:
        segplug.errors.DataError: a file is missing, or no image that this reader reads. Damage behind the header may
            be left for the reading to tell.
    """

    def size(self, paths: Sequence[Path], **options: Any) -> ImageSize | None: ...
