"""Readers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from segplug.model import Image


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
