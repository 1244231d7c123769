"""What both engines do: find or make the networks' files, and have segplug's pipeline run them."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segplug.errors import DataError, PluginError, UsageError
from segplug.protocols import Model, PredictionSettings
from segplug_onnx.exported import FP32, ExportedFolder, Network, Variant, folder_of
from segplug_onnx.exporting import INPUT, OUTPUT, NetworkShape

if TYPE_CHECKING:
    from torch import Tensor

    Forward = Callable[[Tensor], Tensor]


class NetworkFiles:
    """The files of a model's networks, one per fold.

    Networks in full precision are exported into the model's folder on first use, or for the time of this object where
    that cannot be written to. Quantised ones have to be there: making them takes images.

    Args:
        variant: what kind of file.
        predictor: name of the engine, for messages.

    Raises:
        UsageError: there is no quantised network of these weights.
        DataError: a file is damaged, or another than was exported.
        PluginError: a network cannot be exported.
    """

    def __init__(self, model: Model, variant: Variant, predictor: str) -> None:
        networks = Network.all_of(model)
        folder = ExportedFolder(folder_of(model))
        if variant.precision == FP32:
            try:
                self.paths = folder.export(model, networks)
            except OSError:
                temporary = tempfile.mkdtemp(prefix="segplug-onnx-")
                weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)
                self.paths = ExportedFolder(Path(temporary)).export(model, networks)
            return
        found = [folder.find(network, variant) for network in networks]
        missing = [str(network.fold) for network, path in zip(networks, found, strict=True) if path is None]
        if missing:
            raise UsageError(
                f"--precision {variant.precision}: {folder.path} has no such network of the weights of fold "
                f"{', '.join(missing)} for predictor {predictor}. Make it from some images: segplug onnx export "
                f"{model.folder} --precision {variant.precision} --calibration IMAGES"
            )
        self.paths = [path for path in found if path is not None]


def require(package: str, predictor: str, extra: str) -> None:
    """Refuse to go on without an engine.

    Raises:
        PluginError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise PluginError(f"predictor {predictor}: {package} is not installed: pip install 'segplug-onnx[{extra}]'")


def require_cpu(settings: PredictionSettings, predictor: str) -> None:
    """Refuse devices other than the CPU.

    Raises:
        UsageError: another one was asked for.
    """
    if settings.device not in ("auto", "cpu"):
        raise UsageError(
            f"--device {settings.device}: predictor {predictor} works on the CPU; --predictor torch on others"
        )


def require_precision(settings: PredictionSettings, allowed: Sequence[str], predictor: str) -> None:
    """Refuse a precision that the engine does not compute in.

    Raises:
        UsageError: it is none of those allowed.
    """
    if settings.precision not in allowed:
        raise UsageError(f"--precision {settings.precision}: predictor {predictor} takes {', '.join(allowed)}")


def require_shape(path: Path, found: Sequence[tuple[str, list[str | int]]], shape: NetworkShape) -> None:
    """Refuse a file that is another network.

    Args:
        found: names and shapes of its inputs and outputs; the batch is text.

    Raises:
        DataError: they are not the model's.
    """
    expected = [(INPUT, shape.input), (OUTPUT, shape.output)]
    if [(name, sizes[1:]) for name, sizes in found] != [(name, sizes[1:]) for name, sizes in expected]:
        raise DataError(
            f"{path}: takes and returns {found}; expected {expected}. Remove {path.parent}; it is made anew"
        )
