"""Label maps in NumPy's own format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segplug import Component, hookimpl
from segplug.model import Labels
from segplug.protocols import Writer


def write_npy(path: Path, labels: Labels) -> None:
    """Write the array to `path`; its ending is `.npy`."""
    with path.open("wb") as file:
        np.save(file, labels.array, allow_pickle=False)


@hookimpl
def segplug_writers() -> Iterator[Component[Writer]]:
    yield Component("npy", f"{__name__}:write_npy", "NumPy arrays")
