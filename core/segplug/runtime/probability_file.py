"""Probabilities of whole images: an array on disk while they come in, then nnU-Net's `.npz`."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.runtime.files import replacing

KEY = "probabilities"
_BYTES_AT_ONCE = 1 << 24


def scratch_array(shape: Sequence[int], folder: Path | None = None) -> NDArray[np.float32]:
    """A float32 array of zeros that lies in a file without a name: it is gone with the array, also after a crash.

    Args:
        folder: on whose disk; None for the system's temporary folder.

    Raises:
        DataError: the disk has no room for it.
    """
    size = int(np.prod(shape)) * 4
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), size)
            return np.memmap(file, np.float32, "r+", shape=tuple(shape))
    except OSError as error:
        raise DataError(
            f"{folder or tempfile.gettempdir()}: no room for probabilities of {size / 1e9:.1f} GB: {error.strerror}. "
            "Free space, or predict without --save-probabilities"
        ) from None


def write_probabilities(path: Path, probabilities: NDArray[np.floating]) -> None:
    """Write (classes, z, y, x) as `.npz` with the key that nnU-Net uses, piece by piece, whole or not at all."""
    header = np.lib.format.header_data_from_array_1_0(np.empty(0, probabilities.dtype))
    with (
        replacing(path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{KEY}.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_2_0(member, {**header, "shape": probabilities.shape})
        for channel in probabilities:
            step = max(1, _BYTES_AT_ONCE // max(channel[:1].nbytes, 1))
            for start in range(0, len(channel), step):
                member.write(np.ascontiguousarray(channel[start : start + step]).data)


def _reserve(descriptor: int, size: int) -> None:
    """Take the space now: a full disk would otherwise kill the process when the mapped array is written."""
    import os

    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, max(size, 1))
    else:
        os.truncate(descriptor, max(size, 1))
