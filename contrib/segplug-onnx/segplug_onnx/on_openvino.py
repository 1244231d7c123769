"""Predictions on OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug.errors import PluginError, UsageError
from segplug.model import Image, Prediction
from segplug.protocols import Model, Pipeline, PredictionSettings
from segplug_onnx.engine import NetworkFiles, require, require_cpu, require_precision, require_shape
from segplug_onnx.exported import FP32, INT8, ONNX, OPENVINO, Variant, network_shape
from segplug_onnx.exporting import NetworkShape

if TYPE_CHECKING:
    from torch import Tensor

NAME = "openvino"
TYPES = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoPredictor:
    """Runs a model's networks on OpenVINO, with as many threads as torch would take.

    `--precision int8` takes the networks that `segplug onnx export --precision int8` has made; `auto` leaves it to
    OpenVINO what it computes in: bf16 on a CPU that multiplies in it, else float32.

    Raises:
        PluginError: OpenVINO is not installed, or does not take the networks.
        UsageError: another device or precision is asked for, or one that the CPU does not have; a quantised network is
            not there.
        DataError: a network's file is damaged.
    """

    def __init__(self, model: Model, settings: PredictionSettings, pipeline: Pipeline) -> None:
        require("openvino", NAME, "openvino")
        require_cpu(settings, NAME)
        require_precision(settings, ("auto", *TYPES, INT8), NAME)
        self._pipeline = pipeline
        variant = Variant(INT8, OPENVINO) if settings.precision == INT8 else Variant(FP32, ONNX)
        self._files = NetworkFiles(model, variant, NAME)
        self._forward: list[Callable[[Tensor], Tensor]] = [
            partial(_run, self._open(path, settings.precision, network_shape(model))) for path in self._files.paths
        ]

    def predict(self, image: Image, previous: Any = None) -> Prediction:
        """Predict one raw image, see `segplug.protocols.Predictor`."""
        import torch

        return self._pipeline.run(image, self._forward, torch.device("cpu"), previous)

    def _open(self, path: Path, precision: str, shape: NetworkShape) -> Any:
        network = compile_network(path, precision)
        ports = [(port.any_name, port.partial_shape) for port in (*network.inputs, *network.outputs)]
        require_shape(
            path, [(name, ["batch" if n.is_dynamic else n.get_length() for n in sizes]) for name, sizes in ports], shape
        )
        return network


def compile_network(path: Path, precision: str = "auto", threads: int | None = None) -> Any:
    """An `openvino.CompiledModel` for the CPU.

    Args:
        precision: `fp32`, `bf16`; anything else leaves the choice to OpenVINO.
        threads: None for torch's number of them.

    Raises:
        UsageError: the CPU does not compute in this precision.
        PluginError: this OpenVINO does not take the file.
    """
    import openvino
    import torch

    core = openvino.Core()
    options: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads() if threads is None else threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    if precision in TYPES:
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise UsageError("--precision bf16: OpenVINO has no bf16 on this CPU; fp32 or auto")
        options["INFERENCE_PRECISION_HINT"] = TYPES[precision]
    try:
        return core.compile_model(path, "CPU", options)
    except RuntimeError as error:
        raise PluginError(f"{path}: OpenVINO {openvino.__version__} does not take it: {error}") from error


def _run(network: Any, x: Tensor) -> Tensor:
    import torch

    return torch.from_numpy(network(x.numpy())[0].copy())
