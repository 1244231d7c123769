"""A folder of predictions: label maps, probabilities, and a manifest of what made each of them.

The manifest of a case, `.segplug/CASE.json`, is written after its files, and holds their hashes. A case without a
fitting one does not count as predicted, whatever files there are.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from segplug.errors import DataError, PluginError
from segplug.kernel import Kernel
from segplug.model import Case, LabelSet, Prediction
from segplug.protocols import Writer
from segplug.runtime.files import file_hash, read_json, remove, remove_partials, replacing, write_json

MANIFESTS = ".segplug"


def find_writer(kernel: Kernel, reader: str, file_ending: str, labels: LabelSet) -> Writer:
    """The writer of the reader's name; without one, that which a plugin or the built-in rule names for the ending.

    Args:
        labels: whose names a writer is told that asks for them (see `segplug.protocols.Writer`).

    Raises:
        PluginError: there is none.
    """
    registry, name = kernel.registry, writer_name(kernel, reader, file_ending)
    if name is None:
        raise PluginError(
            f"no writer for files ending in {file_ending}: reader {reader!r} has none of its name, and predictions (of "
            "a training's validation too) have to be written. Install a plugin with a writer of this name, or one "
            f"that answers segplug_choose_writer; there are: {', '.join(registry.names('writers'))}"
        )
    built: Any = registry.build("writers", name)
    writer: Writer = partial(built, label_names=dict(labels.label_names)) if _asks_for_names(built) else built
    return writer


def writer_name(kernel: Kernel, reader: str, file_ending: str) -> str | None:
    """Which writer goes with a reader: see `find_writer`."""
    writers = kernel.registry.all("writers")
    if any(reader in (p.qualified_name, p.component.name, *p.component.aliases) for p in writers):
        return reader
    return kernel.choose("segplug_choose_writer", path=Path(f"case{file_ending}"))


def _asks_for_names(writer: Any) -> bool:
    try:
        return "label_names" in inspect.signature(writer).parameters
    except (TypeError, ValueError):  # a callable without a readable signature
        return False


def input_hashes(case: Case) -> dict[str, str]:
    """Hashes of a case's image files by their names.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        return {path.name: file_hash(path) for path in case.images}
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None


class PredictionOutput:
    """Writes the predictions of one model to a folder, each whole or not at all.

    Args:
        writer: of label maps.
        file_ending: of label maps, with its dot.
    """

    def __init__(self, folder: Path, writer: Writer, file_ending: str) -> None:
        self.folder = folder
        self._writer = writer
        self._ending = file_ending

    def in_folder(self, folder: Path) -> PredictionOutput:
        """The same for another folder."""
        return PredictionOutput(folder, self._writer, self._ending)

    def label_file(self, case: str) -> Path:
        return self.folder / f"{case}{self._ending}"

    def probability_file(self, case: str) -> Path:
        return self.folder / f"{case}.npz"

    def manifest_file(self, case: str) -> Path:
        return self.folder / MANIFESTS / f"{case}.json"

    def write(self, case: str, prediction: Prediction, made_from: Mapping[str, Any]) -> Path:
        """Write label map, probabilities if there are any, and manifest; returns the label map's path.

        Args:
            made_from: what decides the result: hashes of model and input, settings. JSON values.

        Raises:
            DataError: the disk is full, or a file cannot be written.
        """
        path = self.label_file(case)
        files = [path]
        try:
            for file in (path, self.probability_file(case), self.manifest_file(case)):
                remove_partials(file)
            with replacing(path) as partial:
                self._writer(partial, prediction.labels)
            if prediction.probabilities is not None:
                from segplug.runtime.probability_file import write_probabilities

                write_probabilities(self.probability_file(case), prediction.probabilities)
                files.append(self.probability_file(case))
            elif self.manifest_file(case).is_file():  # probabilities of an earlier run do not belong to these labels
                self.probability_file(case).unlink(missing_ok=True)
            hashes = {file.name: file_hash(file) for file in files}
            write_json(self.manifest_file(case), {"made_from": made_from, "files": hashes})
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
        return path

    def discard(self, case: str) -> None:
        """Remove what an earlier run wrote of a case; files without a manifest are not ours and stay."""
        manifest = self.manifest_file(case)
        if manifest.is_file():
            for file in (self.label_file(case), self.probability_file(case), manifest):
                remove(file)

    def discard_all_but(self, cases: Iterable[str]) -> None:
        """Remove what earlier runs wrote of other cases."""
        kept = set(cases)
        for manifest in (self.folder / MANIFESTS).glob("*.json"):
            if manifest.stem not in kept and self.label_file(manifest.stem).exists():
                self.discard(manifest.stem)

    def is_whole(self, case: str, made_from: Mapping[str, Any]) -> bool:
        """Whether the case's files are there as they were written, made from just this."""
        file = self.manifest_file(case)
        if not file.is_file():
            return False
        try:
            manifest = read_json(file)
            return manifest["made_from"] == made_from and all(
                file_hash(self.folder / name) == digest for name, digest in manifest["files"].items()
            )
        except (DataError, KeyError, TypeError, AttributeError, OSError):  # damaged, or files taken away
            return False
