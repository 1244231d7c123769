"""How large images are, from their headers alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from segplug.errors import DataError
from segplug.model import Image
from segplug.protocols import ImageSize

PIECES = 1 << 23
"""Bytes that reading takes beside what grows with the image."""


@dataclass(frozen=True)
class FileReader:
    """A reader that can tell sizes (`segplug.protocols.SizedReader`).

    Args:
        read: the files of a case, to an image.
        measure: one file; None where only reading tells.
    """

    read: Callable[..., Image]
    measure: Callable[[Path], ImageSize | None]

    def __call__(self, paths: Sequence[Path], **options: Any) -> Image:
        """See `segplug.protocols.Reader`."""
        return self.read(paths, **options)

    def size(self, paths: Sequence[Path], **options: Any) -> ImageSize | None:
        """See `segplug.protocols.SizedReader`."""
        for path in paths:
            if not path.exists():
                raise DataError(f"{path}: no such file")
        found = [self.measure(path) for path in paths]
        sizes = [size for size in found if size is not None]
        if len(sizes) < len(found) or not sizes:
            return None
        if len(sizes) == 1:
            return sizes[0]
        channels = sum(size.shape[0] for size in sizes)
        shape = (channels, *sizes[0].shape[1:])
        known = [size.distinct for size in sizes if size.distinct is not None]
        distinct = max(known) if len(known) == len(sizes) else None
        # one array for all of them, and one file at a time
        return ImageSize(shape, sizes[0].spacing, 4 * prod(shape) + max(size.reading for size in sizes), distinct)


def different_values(kind: np.dtype[Any]) -> int | None:
    """How many values numbers of a type can have, where they are few."""
    return 256**kind.itemsize if kind.kind in "iub" and kind.itemsize <= 2 else None


def outline(shape: Sequence[int]) -> Any:
    """An array of a shape, with voxels of which none is in memory."""
    return np.broadcast_to(np.float32(0), tuple(shape))
