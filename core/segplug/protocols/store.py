"""Stores of preprocessed cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PreprocessedCase:
    """A preprocessed case, whole.

    Args:
        data: float32 (channels, *spatial), three spatial axes, transposed, cropped, normalised, resampled.
        target: int16 (1, *spatial): labels, -1 outside the nonzero mask.
        properties: JSON values: `spacing`, `shape_before_cropping`, `bbox_used_for_cropping`,
            `shape_after_cropping_and_before_resampling`, and `geometry` of the raw image.
        locations: per class (label, or region as a tuple) voxel coordinates (n, 3) int32 for foreground sampling.
    """

    data: NDArray[np.float32]
    target: NDArray[np.int16]
    properties: Mapping[str, Any]
    locations: Mapping[int | tuple[int, ...], NDArray[np.int32]]


class StoredCase(Protocol):
    """A case in a store, opened without reading its voxels."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape."""
        ...

    @property
    def channels(self) -> int: ...
    @property
    def properties(self) -> Mapping[str, Any]: ...
    @property
    def locations(self) -> Mapping[int | tuple[int, ...], NDArray[np.int32]]: ...

    def read(self, start: Sequence[int], stop: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        """Data (c, *size) and target (1, *size) of a box inside the image; only what it covers is read."""
        ...


class Store(Protocol):
    """A folder of preprocessed cases. Safe to use from several processes; a case is there whole or not at all."""

    def cases(self) -> list[str]:
        """Names of the whole cases, sorted."""
        ...

    def write(self, name: str, case: PreprocessedCase, made_from: Mapping[str, Any]) -> None:
        """Keep a case, with `made_from` (what it was made from: hashes and settings, JSON values) as its manifest."""
        ...

    def made_from(self, name: str) -> Mapping[str, Any] | None:
        """The manifest of a whole case, or None if there is none."""
        ...

    def open(self, name: str) -> StoredCase:
        """Open a case.

        Raises:
            segplug.errors.DataError: it is not there, or damaged.
        """
        ...


class StoreFactory(Protocol):
    """A function that opens the store in `folder` (made if missing). `patch_size` may guide how chunks are laid out."""

    def __call__(self, folder: Path, patch_size: Sequence[int]) -> Store: ...
