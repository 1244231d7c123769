"""What describes a folder of predictions: dataset.json and plans.json, which prediction leaves beside them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segplug.errors import DataError, PluginError, UsageError
from segplug.kernel import Kernel
from segplug.model import DatasetDescription
from segplug.protocols import Reader, Writer
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.files import read_json, replacing
from segplug.runtime.plan_codec import read_plan
from segplug.runtime.plan_components import knowing
from segplug.runtime.prediction_output import find_writer

DATASET, PLANS = "dataset.json", "plans.json"


@dataclass(frozen=True)
class FolderDescription:
    """How the label maps of a folder are named, read and understood.

    Args:
        dataset_json: the file `dataset` was read from.
        plans: the plans file, or None where there is none (nnU-Net's ensembles).
        reader: name of the reader of the label maps; its writer has the same name.
        provenance: of the plans, which knows what to install for a reader that is not there.
    """

    dataset: DatasetDescription
    dataset_json: Path
    plans: Path | None
    reader: str
    provenance: Sequence[Mapping[str, Any]] = ()

    def build_reader(self, kernel: Kernel) -> Reader:
        with knowing(self.provenance, kernel.registry, str(self.plans)):
            built: Reader = kernel.registry.build("readers", self.reader)
            return built

    def build_writer(self, kernel: Kernel) -> Writer:
        self.require_reader(kernel)
        return find_writer(kernel, self.reader, self.dataset.file_ending, self.dataset.labels)

    def require_reader(self, kernel: Kernel) -> None:
        """Refuse to go on without the plans' reader: nothing else may read or write the label maps in its place.

        Raises:
            PluginError: it is not there; what to install is told if the plans know.
        """
        with knowing(self.provenance, kernel.registry, str(self.plans)):
            kernel.registry.find("readers", self.reader)

    def copy_to(self, folder: Path) -> None:
        """Put dataset.json, and plans.json if it is there, beside what is made of these label maps."""
        copies = {DATASET: self.dataset_json, PLANS: self.plans}
        for name, source in copies.items():
            if source is not None and source.resolve() != (folder / name).resolve():
                with replacing(folder / name) as partial:
                    shutil.copyfile(source, partial)


def describe_folder(
    kernel: Kernel, folder: Path, *, dataset_json: Path | None = None, plans: Path | None = None
) -> FolderDescription:
    """Read dataset.json and plans.json of a folder of predictions; of a fold's validation, those of its model.

    Args:
        dataset_json, plans: files to use instead of those in the folder.

    Raises:
        UsageError: there is no such folder.
        DataError: there is no dataset.json, or a file is damaged.
        PluginError: without plans, no reader can read the label maps.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; expected one with predictions")
    described = folder
    if not (folder / DATASET).is_file() and folder.name == "validation" and folder.parent.name.startswith("fold_"):
        described = folder.parent.parent
    file = dataset_json or described / DATASET
    if not file.is_file():
        raise DataError(f"{file}: no such file. Name the data set's with --dataset-json")
    content = read_json(file)
    if not isinstance(content, Mapping):
        raise DataError(f"{file}: a {type(content).__name__}; expected an object")
    plans = plans or (described / PLANS if (described / PLANS).is_file() else None)
    if plans is not None:
        plan = read_plan(plans)
        dataset = parse_description(content, plan.dataset_name, file)
        return FolderDescription(dataset, file, plans, plan.reader.name, plan.provenance)
    dataset = parse_description(content, folder.name, file)
    return FolderDescription(dataset, file, None, _reader_name(kernel, folder, dataset))


def _reader_name(kernel: Kernel, folder: Path, dataset: DatasetDescription) -> str:
    example = next((f for f in sorted(folder.glob(f"*{dataset.file_ending}")) if not f.name.startswith(".")), None)
    if example is None:
        raise DataError(f"{folder}: no label maps named CASE{dataset.file_ending}")
    name: str | None = dataset.reader or kernel.choose("segplug_choose_reader", path=example)
    if name is None:
        readers = ", ".join(kernel.registry.names("readers"))
        raise PluginError(f"{example}: no reader can read this file; expected one of the formats of {readers}")
    return name
