"""Export a model: what the command does, to be called from Python."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from segplug.errors import DataError, PluginError
from segplug.protocols import Model
from segplug_onnx.calibration import MOST, calibration_patches
from segplug_onnx.exported import INT8, ONNX, OPENVINO, ExportedFolder, Network, Variant, folder_of
from segplug_onnx.quantising import quantise_onnx, quantise_openvino

if TYPE_CHECKING:
    from segplug import Project

NEEDED = {ONNX: ("onnxruntime",), OPENVINO: ("openvino", "nncf")}
"""Packages that quantise into a format."""


def export_model(
    project: Project, model: Model, output: Path | None = None, *, calibration: Path | None = None, patches: int = MOST
) -> list[Path]:
    """Write a model's networks as ONNX files, with all that belongs to them.

    Args:
        model: `segplug.load_model(folder).trained`.
        output: None for the folder `onnx` in the model's own, where the predictors look for it.
        calibration: folder of images from which quantised networks are made too.
        patches: that are taken from the images.

    Returns:
        The networks' files.

    Raises:
        PluginError: a network cannot be exported; nothing that quantises is installed.
        UsageError, DataError: see `segplug_onnx.calibration.calibration_patches`.
        DataError: the folder cannot be written to, or holds something else.
    """
    formats = [kind for kind, needed in NEEDED.items() if all(map(importlib.util.find_spec, needed))]
    if calibration is not None and not formats:
        raise PluginError(
            "int8: neither onnxruntime nor openvino with nncf is installed: pip install 'segplug-onnx[int8]'"
        )
    samples = None if calibration is None else calibration_patches(project, model, calibration, patches)
    folder = ExportedFolder(output or folder_of(model))
    networks = Network.all_of(model)
    try:
        paths = folder.export(model, networks)
        if samples is None:
            return paths
        made = {"calibration": {"patches": len(samples)}}
        for network, source in list(zip(networks, paths, strict=True)):
            for kind in formats:
                variant = Variant(INT8, kind)
                target = folder.path / variant.file(network.fold)
                (quantise_onnx if kind == ONNX else quantise_openvino)(source, target, samples)
                folder.add(model, network, variant, made)
                paths.append(target)
    except OSError as error:
        raise DataError(f"{error.filename or folder.path}: cannot be written: {error.strerror}") from error
    return paths
