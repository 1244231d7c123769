"""Images in NumPy's own format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from segplug import Component, hookimpl
from segplug.errors import DataError
from segplug.model import Geometry, Image
from segplug.protocols import Reader


def read_npy(paths: Sequence[Path]) -> Image:
    """Stack the channels of a case, one `.npy` file each, (z, y, x); the voxels are 1 mm wide."""
    channels = []
    for path in paths:
        try:
            channels.append(np.load(path, allow_pickle=False).astype(np.float32))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a NumPy array: {error}") from error
    return Image(np.stack(channels), Geometry(spacing=(1.0, 1.0, 1.0)))


@hookimpl
def segplug_readers() -> Iterator[Component[Reader]]:
    yield Component("npy", f"{__name__}:read_npy", "NumPy arrays, one file per channel")
