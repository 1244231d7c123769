"""Converters."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Converter(Protocol):
    """A function that makes an nnU-Net raw data set from something else and returns its folder.

    Args:
        source: the folder (or file) to convert.
        target: folder to write, `DatasetXXX_NAME`; it does not exist before the call.
    """

    def __call__(self, source: Path, target: Path) -> Path: ...
