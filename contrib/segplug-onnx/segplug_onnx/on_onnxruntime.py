"""Predictions on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug.errors import PluginError
from segplug.model import Image, Prediction
from segplug.protocols import Model, Pipeline, PredictionSettings
from segplug_onnx.engine import NetworkFiles, require, require_cpu, require_precision, require_shape
from segplug_onnx.exported import FP32, INT8, ONNX, Variant, network_shape
from segplug_onnx.exporting import INPUT, OUTPUT, NetworkShape

if TYPE_CHECKING:
    from torch import Tensor

NAME = "onnxruntime"


class OnnxRuntimePredictor:
    """Runs a model's networks on ONNX Runtime, with as many threads as torch would take.

    `--precision int8` takes the networks that `segplug onnx export --precision int8` has made.

    Raises:
        PluginError: ONNX Runtime is not installed, or does not take the networks.
        UsageError: another device or precision is asked for; a quantised network is not there.
        DataError: a network's file is damaged.
    """

    def __init__(self, model: Model, settings: PredictionSettings, pipeline: Pipeline) -> None:
        require("onnxruntime", NAME, "onnxruntime")
        require_cpu(settings, NAME)
        require_precision(settings, ("auto", FP32, INT8), NAME)
        self._pipeline = pipeline
        precision = INT8 if settings.precision == INT8 else FP32
        self._files = NetworkFiles(model, Variant(precision, ONNX), NAME)
        self._forward: list[Callable[[Tensor], Tensor]] = [
            partial(_run, self._open(path, network_shape(model))) for path in self._files.paths
        ]

    def predict(self, image: Image, previous: Any = None) -> Prediction:
        """Predict one raw image, see `segplug.protocols.Predictor`."""
        import torch

        return self._pipeline.run(image, self._forward, torch.device("cpu"), previous)

    def _open(self, path: Path, shape: NetworkShape) -> Any:
        session = open_session(path)
        values = (*session.get_inputs(), *session.get_outputs())
        require_shape(path, [(value.name, list(value.shape)) for value in values], shape)
        return session


def open_session(path: Path, threads: int | None = None) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU.

    Args:
        threads: None for torch's number of them.

    Raises:
        PluginError: this ONNX Runtime does not take the file.
    """
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class of their own in public
        raise PluginError(f"{path}: ONNX Runtime {onnxruntime.__version__} does not take it: {error}") from error


def _run(session: Any, x: Tensor) -> Tensor:
    import torch

    return torch.from_numpy(session.run([OUTPUT], {INPUT: x.numpy()})[0])
