"""What one configuration predicted for the next one of a cascade: label maps at that one's preprocessed shape.

The files are nnU-Net's, `<model folder>/predicted_next_stage/<next configuration>/CASE.b2nd`, so that either program
can train a cascade on what the other predicted. Beside those that segplug wrote stands a manifest of what made them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug.errors import DataError
from segplug.model import Configuration
from segplug.runtime.files import file_hash, read_json, remove_partials, replacing, write_json

FOLDER = "predicted_next_stage"
SUFFIX = ".b2nd"
MANIFESTS = ".segplug"
CHUNK_BYTES = 1 << 18
"""Largest chunk: patches then read little beside what they need."""


def previous_model_folder(model_folder: Path, configuration: Configuration, recorded: str | None) -> Path:
    """Where training left the model of the previous stage: beside a cascade's own.

    Args:
        recorded: name of the folder that the training recorded; None where it recorded none, as nnU-Net's do.
    """
    usual = f"{model_folder.name.removesuffix(configuration.name)}{configuration.previous_stage}"
    return model_folder.with_name(recorded or usual)


@dataclass(frozen=True)
class StagePredictions:
    """The predictions of one configuration for another.

    Args:
        folder: `predicted_next_stage/<next configuration>` in the model folder of the stage before.
    """

    folder: Path

    @classmethod
    def of(cls, model_folder: Path, next_configuration: str) -> StagePredictions:
        """What the model in `model_folder` predicted for a configuration."""
        return cls(model_folder / FOLDER / next_configuration)

    @property
    def model_folder(self) -> Path:
        """The model that made them."""
        return self.folder.parent.parent

    def file(self, case: str) -> Path:
        """Where a case's label map is written."""
        return self.folder / f"{case}{SUFFIX}"

    def manifest_file(self, case: str) -> Path:
        return self.folder / MANIFESTS / f"{case}.json"

    def write(self, case: str, labels: NDArray[Any], patch_size: Sequence[int], made_from: Mapping[str, Any]) -> None:
        """Keep a case's label map, whole or not at all.

        Args:
            labels: integers (z, y, x) in the plan's order of axes, at the next configuration's preprocessed shape.
            patch_size: of the next configuration; chunks are parts of it.
            made_from: what decides the result; JSON values.

        Raises:
            DataError: the disk is full, or the folder cannot be written.
        """
        import blosc2

        path, array = self.file(case), np.ascontiguousarray(labels)
        chunks = _chunks(array.shape, patch_size, array.itemsize)
        try:
            remove_partials(path)
            with replacing(path) as partial:
                blosc2.asarray(array, urlpath=str(partial), chunks=chunks, cparams={"nthreads": 1})
            write_json(self.manifest_file(case), {"made_from": made_from, "file": file_hash(path)})
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error

    def is_whole(self, case: str, made_from: Mapping[str, Any]) -> bool:
        """Whether a case is there as it was written, made from just this."""
        try:
            manifest = read_json(self.manifest_file(case))
            return bool(manifest["made_from"] == made_from and manifest["file"] == file_hash(self.file(case)))
        except (DataError, OSError, KeyError, TypeError):  # not there, or damaged
            return False

    def fold(self, case: str) -> int | str | None:
        """The fold that predicted a case; None if the file does not come from segplug."""
        try:
            found: int | str | None = read_json(self.manifest_file(case))["made_from"].get("fold")
        except (DataError, KeyError, TypeError, AttributeError):
            return None
        return found

    def discard(self, case: str) -> None:
        """Remove what was written of a case, whoever wrote it."""
        for file in (self.manifest_file(case), *self._candidates(case)):
            file.unlink(missing_ok=True)

    def find(self, case: str) -> Path | None:
        """The file of a case: ours, or one of those that nnU-Net may have written; None if there is none."""
        return next((file for file in self._candidates(case) if file.is_file()), None)

    def state(self, cases: Sequence[str]) -> dict[str, str]:
        """Hash of each case's file, of those that are there."""
        found = {case: self.find(case) for case in cases}
        return {case: file_hash(file) for case, file in found.items() if file is not None}

    def fits(self, case: str, shape: Sequence[int]) -> bool:
        """Whether a case is there, can be opened, and has this shape."""
        try:
            return tuple(self._open(case).shape) == tuple(shape)
        except DataError:
            return False

    def read(self, case: str, start: Sequence[int], stop: Sequence[int]) -> NDArray[np.int16]:
        """Labels (*size) of a box inside a case; only what it covers is read.

        Raises:
            DataError: the case is not there, or damaged.
        """
        array = self._open(case)
        box = tuple(slice(int(first), int(last)) for first, last in zip(start, stop, strict=True))
        try:
            return np.asarray(array[box]).astype(np.int16)
        except (RuntimeError, ValueError, IndexError) as error:
            raise self._damaged(case, error) from None

    def _candidates(self, case: str) -> list[Path]:
        """nnU-Net has three forms: Blosc2, and of its older store .npy beside .npz."""
        return [self.folder / f"{case}{suffix}" for suffix in (SUFFIX, ".npy", ".npz")]

    def _open(self, case: str) -> Any:
        """An array, or what reads like one."""
        file = self.find(case)
        if file is None:
            raise DataError(f"{self.file(case)}: no such prediction of the previous stage")
        try:
            if file.suffix == SUFFIX:
                import blosc2

                return blosc2.open(urlpath=str(file), mode="r", dparams={"nthreads": 1})
            if file.suffix == ".npy":
                return np.load(file, mmap_mode="r", allow_pickle=False)
            with np.load(file, allow_pickle=False) as archive:
                return archive["seg"]
        except Exception as error:  # a damaged file can raise anything
            raise self._damaged(case, error) from None

    def _damaged(self, case: str, error: Exception) -> DataError:
        return DataError(
            f"{self.find(case)}: the previous stage's prediction of case {case} is damaged: {error}. Remove it, then "
            "run the training of the fold that predicts it with --continue"
        )


def _chunks(shape: Sequence[int], patch_size: Sequence[int], item_bytes: int) -> tuple[int, ...]:
    """A patch, its longest side halved until it is small enough."""
    chunk = [min(p, n) for p, n in zip([1] * (len(shape) - len(patch_size)) + list(patch_size), shape, strict=True)]
    while int(np.prod(chunk)) * item_bytes > CHUNK_BYTES:
        longest = chunk.index(max(chunk))
        chunk[longest] = -(-chunk[longest] // 2)
    return tuple(chunk)
