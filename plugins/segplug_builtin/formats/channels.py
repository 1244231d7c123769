"""An image from the files of its channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from segplug.errors import DataError
from segplug.model import Image
from segplug.runtime.geometry import differences


def stack_channels(paths: Sequence[Path], read: Callable[[Path], Image]) -> Image:
    """Read each file and stack the channels. The geometry is that of the first file.

    Raises:
        DataError: no file, or files that differ in shape, spacing, origin or direction by more than rounding.
    """
    if not paths:
        raise DataError("an image without files: expected one file per channel")
    first = _checked(read(Path(paths[0])), paths[0])
    if len(paths) == 1:
        return first
    filled = len(first.array)
    array = np.empty((len(paths) * filled, *first.shape), np.float32)
    array[:filled] = first.array
    first = Image(array[:filled], first.geometry)
    for path in paths[1:]:
        image = _checked(read(Path(path)), path)
        for difference in differences(image.geometry, image.shape, first.geometry, first.shape):
            if not difference.aligned:
                raise DataError(
                    f"{path}: {difference.what} {difference.found}; expected {difference.expected} as in {paths[0]}. "
                    "All channels of a case must lie on one grid: resample them to it, or correct the header"
                )
        end = filled + len(image.array)
        if end > len(array):  # more channels than the files before
            array = np.concatenate([array[:filled], np.empty((end - filled, *first.shape), np.float32)])
        array[filled:end] = image.array
        filled = end
    return Image(array[:filled], first.geometry)


def _checked(image: Image, path: Path) -> Image:
    spacing = image.geometry.spacing
    if not all(np.isfinite(s) and s > 0 for s in spacing):
        raise DataError(f"{path}: spacing {spacing}; expected positive numbers. Correct the header")
    if not image.array.size:
        raise DataError(f"{path}: an image without voxels, shape {image.array.shape}. Restore the file from its source")
    return image


def flat_geometry(spacing: tuple[float, float]) -> tuple[float, float, float]:
    """Spacing (z, y, x) of a 2D image with spacing (y, x): nnU-Net's rule makes the slice 999 times thicker."""
    return (max(spacing) * 999, *spacing)
