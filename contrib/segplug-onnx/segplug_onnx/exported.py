"""A folder of exported networks: recipe.json, plans.json, dataset.json, predict.py, and a file for each network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug.errors import DataError
from segplug.protocols import Model
from segplug_onnx.exporting import INPUT, OPSET, OUTPUT, NetworkShape, export_network, weights_sha256
from segplug_onnx.files import alone_in, replacing, sha256, write_json
from segplug_onnx.recipe import FORMAT, FORMAT_VERSION, recipe

if TYPE_CHECKING:
    from torch import nn

RECIPE, PROGRAM = "recipe.json", "predict.py"
BESIDE = ("plans.json", "dataset.json")
FP32, INT8 = "fp32", "int8"
ONNX, OPENVINO = "onnx", "openvino"


@dataclass(frozen=True)
class Variant:
    """What kind of file a network is wanted as.

    Args:
        precision: `fp32` or `int8`.
        format: `onnx`, or `openvino` (an .xml with a .bin beside it).
    """

    precision: str
    format: str

    def file(self, fold: int | str) -> str:
        """Name of the file."""
        quantised = "" if self.precision == FP32 else f"_{self.precision}"
        return f"fold_{fold}{quantised}{'.onnx' if self.format == ONNX else '.xml'}"


PLAIN = Variant(FP32, ONNX)
"""What every other variant is made from."""


@dataclass(frozen=True)
class Network:
    """One trained network to be exported."""

    fold: int | str
    module: nn.Module
    weights: str

    @classmethod
    def all_of(cls, model: Model) -> list[Network]:
        """Those of a model, on the CPU."""
        import torch

        modules = model.networks(torch.device("cpu"))
        return [cls(fold, each, weights_sha256(each)) for fold, each in zip(model.folds, modules, strict=True)]


def network_shape(model: Model) -> NetworkShape:
    """What a model's networks take and return. A cascade sees each label of its previous stage as a channel too."""
    labels = model.dataset.labels
    further = len(labels.foreground_labels) if model.configuration.previous_stage else 0
    patch = tuple(model.configuration.patch_size)
    return NetworkShape(model.dataset.num_channels + further, labels.output_channels, patch)


class ExportedFolder:
    """Reads and writes one. What it has of a model is found by the hash of the weights, so nothing stale is used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, network: Network, variant: Variant) -> Path | None:
        """The file of a network, checked; None if there is none of these weights.

        Raises:
            DataError: the recipe cannot be read, or the file is not the one that it tells of.
        """
        entry = self._entry(network, variant)
        return None if entry is None else self._checked(entry)

    def export(self, model: Model, networks: Sequence[Network]) -> list[Path]:
        """Write networks as they are, unless they are there, with all that belongs to them.

        Raises:
            PluginError: a network cannot be exported.
            DataError: see `find`.
            OSError: the folder cannot be written to.
        """
        there = [path for network in networks if (path := self.find(network, PLAIN)) is not None]
        if len(there) == len(networks):
            return there
        self.path.mkdir(parents=True, exist_ok=True)
        with alone_in(self.path):
            paths = []
            for network in networks:
                path = self.find(network, PLAIN)
                if path is None:
                    path = self.path / PLAIN.file(network.fold)
                    with replacing(path) as partial:
                        architecture = model.configuration.architecture.name
                        export_network(network.module, network_shape(model), partial, architecture)
                    self._record(model, network, PLAIN, {"opset": OPSET})
                paths.append(path)
            return paths

    def add(self, model: Model, network: Network, variant: Variant, made: Mapping[str, Any]) -> None:
        """Tell of a further file of a network that was written to `path / variant.file(fold)`.

        Args:
            made: how, as JSON values.
        """
        with alone_in(self.path):
            self._record(model, network, variant, made)

    def _record(self, model: Model, network: Network, variant: Variant, made: Mapping[str, Any]) -> None:
        """Write the recipe with a further network in it; called by one process at a time."""
        shape, name = network_shape(model), variant.file(network.fold)
        entry = {
            "fold": network.fold,
            **asdict(variant),
            "file": name,
            "sha256": sha256(self.path / name),
            "weights_sha256": network.weights,
            "input": {"name": INPUT, "type": "float32", "shape": shape.input},
            "output": {"name": OUTPUT, "type": "float32", "shape": shape.output},
            **made,
        }
        data = (self.path / name).with_suffix(".bin")
        if variant.format == OPENVINO:
            entry |= {"data": data.name, "data_sha256": sha256(data)}
        others = self._still_true(model, network, name)
        for file in BESIDE:
            self._copy(model.folder / file, file)
        self._copy(Path(__file__).with_name(PROGRAM), PROGRAM)
        hashes = {file: sha256(self.path / file) for file in (*BESIDE, PROGRAM)}
        networks = sorted([*others, entry], key=lambda e: str(e["file"]))
        write_json(self.path / RECIPE, {**recipe(model), "networks": networks, "files": hashes})

    def _still_true(self, model: Model, network: Network, name: str) -> list[dict[str, Any]]:
        """Entries beside the one of file `name`, but for those of other weights of the fold or of another plan."""
        same_plan = all(
            (self.path / file).is_file() and sha256(self.path / file) == sha256(model.folder / file) for file in BESIDE
        )
        kept = []
        for entry in self._entries():
            stale = str(entry["fold"]) == str(network.fold) and entry["weights_sha256"] != network.weights
            if same_plan and not stale and entry["file"] != name:
                kept.append(entry)
            elif entry["file"] != name:
                for file in (entry["file"], entry.get("data")):
                    if file and Path(file).name == file:
                        (self.path / file).unlink(missing_ok=True)
        return kept

    def _copy(self, source: Path, name: str) -> None:
        with replacing(self.path / name) as partial:
            shutil.copyfile(source, partial)

    def _entry(self, network: Network, variant: Variant) -> Mapping[str, Any] | None:
        for entry in self._entries():
            same = (entry["weights_sha256"], str(entry["fold"])) == (network.weights, str(network.fold))
            if same and (entry["precision"], entry["format"]) == (variant.precision, variant.format):
                return entry
        return None

    def _entries(self) -> list[dict[str, Any]]:
        """What the recipe tells of networks.

        Raises:
            DataError: it cannot be read.
        """
        file = self.path / RECIPE
        if not file.exists():
            return []
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if (content["format"], content["version"]) != (FORMAT, FORMAT_VERSION):
                raise ValueError(f"format {content['format']!r} {content['version']}")
            entries: list[dict[str, Any]] = content["networks"]
            for entry in entries:
                for key in ("file", "sha256", "weights_sha256", "precision", "format"):
                    if not isinstance(entry[key], str):
                        raise TypeError(f"{key} {entry[key]!r}")
                if Path(entry["file"]).name != entry["file"]:
                    raise ValueError(f"file {entry['file']!r} lies elsewhere")
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise DataError(
                f"{file}: not a recipe of {FORMAT} {FORMAT_VERSION}: {type(error).__name__}: {error}. Remove "
                f"{self.path}, it is made anew"
            ) from None
        return entries

    def _checked(self, entry: Mapping[str, Any]) -> Path:
        """The path of an entry's file, if it is the file that was exported."""
        for name, wanted in ((entry["file"], entry["sha256"]), (entry.get("data"), entry.get("data_sha256"))):
            if name is None:
                continue
            path = self.path / str(name)
            found = sha256(path) if path.is_file() else "no such file"
            if found != wanted:
                raise DataError(
                    f"{path}: not the file that was exported: SHA-256 {found}, in {RECIPE} {wanted}. Remove "
                    f"{self.path}; it is made anew"
                )
        return self.path / str(entry["file"])


def folder_of(model: Model) -> Path:
    """Where a model's exported networks are kept unless another folder is named."""
    return model.folder / "onnx"
