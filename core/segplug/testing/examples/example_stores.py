"""One compressed NumPy file per case."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug import Component, hookimpl
from segplug.errors import DataError
from segplug.protocols import PreprocessedCase, Store, StoredCase, StoreFactory


class NpzCase:
    """A case that is read whole when it is opened."""

    def __init__(self, file: Path) -> None:
        with np.load(file, allow_pickle=False) as content:
            self.data, self.target = content["data"], content["target"]
            self.properties: Mapping[str, Any] = json.loads(str(content["properties"]))
            self.locations: dict[int | tuple[int, ...], NDArray[np.int32]] = {
                tuple(key) if isinstance(key, list) else key: content[f"locations_{number}"]
                for number, key in enumerate(json.loads(str(content["classes"])))
            }
        self.shape: tuple[int, ...] = self.data.shape[1:]
        self.channels: int = self.data.shape[0]

    def read(self, start: Sequence[int], stop: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        box = (slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))
        return self.data[box], self.target[box]


class NpzStore:
    """A folder of `.npz` files. A case is written under another name and renamed, so that it is whole or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def cases(self) -> list[str]:
        return sorted(file.stem for file in self.folder.glob("*.npz"))

    def write(self, name: str, case: PreprocessedCase, made_from: Mapping[str, Any]) -> None:
        partial = self.folder / f"{name}.partial"
        arrays: dict[str, Any] = {"data": case.data, "target": case.target}
        texts = {"properties": case.properties, "made_from": made_from, "classes": list(case.locations)}
        arrays |= {key: np.array(json.dumps(value)) for key, value in texts.items()}
        arrays |= {f"locations_{number}": voxels for number, voxels in enumerate(case.locations.values())}
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)
        partial.replace(self.folder / f"{name}.npz")

    def made_from(self, name: str) -> Mapping[str, Any] | None:
        file = self.folder / f"{name}.npz"
        if not file.exists():
            return None
        with np.load(file, allow_pickle=False) as content:
            found: Mapping[str, Any] = json.loads(str(content["made_from"]))
        return found

    def open(self, name: str) -> StoredCase:
        if name not in self.cases():
            raise DataError(f"{self.folder}: there is no case {name!r}. Preprocess the data set again")
        return NpzCase(self.folder / f"{name}.npz")


def open_npz(folder: Path, patch_size: Sequence[int]) -> Store:
    """Open the store in `folder`; chunks there are none, so the patch size does not matter."""
    return NpzStore(folder)


@hookimpl
def segplug_stores() -> Iterator[Component[StoreFactory]]:
    yield Component("npz", f"{__name__}:open_npz", "one compressed NumPy file per case")
