"""Tells segplug what segplug-onnx provides. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterator

from segplug import Component, hookimpl
from segplug.protocols import Predictor


@hookimpl
def segplug_predictors() -> Iterator[Component[Predictor]]:
    yield Component(
        "onnxruntime", f"{__name__}.on_onnxruntime:OnnxRuntimePredictor", "ONNX Runtime on a CPU; fp32, int8"
    )
    yield Component("openvino", f"{__name__}.on_openvino:OpenVinoPredictor", "OpenVINO on a CPU; fp32, bf16, int8")
