"""Static quantisation to 8 bits: ranges of values are found on real patches, weights are rounded per channel."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segplug_onnx.exporting import INPUT
from segplug_onnx.files import replacing

_SILENT = "NNCF_CI"
"""Environment variable that keeps NNCF from sending usage data."""


class _Patches:
    """Patches one by one, as ONNX Runtime's calibration asks for them."""

    def __init__(self, patches: NDArray[np.float32]) -> None:
        self._remaining = iter(patches)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        patch = next(self._remaining, None)
        return None if patch is None else {INPUT: patch[None]}


def quantise_onnx(source: Path, target: Path, patches: NDArray[np.float32]) -> None:
    """Quantise the convolutions of an ONNX network, with ONNX Runtime's own tool.

    Args:
        source: network in full precision.
        target: to be written.
        patches: (n, channels, *patch).
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with _quiet(None), replacing(target) as partial:
        quantize_static(
            str(source),
            str(partial),
            _Patches(patches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "ConvTranspose"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )


def quantise_openvino(source: Path, target: Path, patches: NDArray[np.float32]) -> None:
    """Quantise an ONNX network for OpenVINO with NNCF, and write it as OpenVINO's .xml and .bin.

    Args:
        source, target, patches: as for `quantise_onnx`; beside `target` its `.bin` is written.
    """
    import openvino

    nncf = import_nncf()
    with _quiet("nncf"):
        network = openvino.Core().read_model(source)
        dataset = nncf.Dataset([patch[None] for patch in patches])
        quantised: Any = nncf.quantize(network, dataset, subset_size=len(patches))
    with replacing(target) as xml, replacing(target.with_suffix(".bin")) as data:
        openvino.serialize(quantised, xml, data)


def import_nncf() -> Any:
    """The module, which sends nothing: it tells its makers of each use unless this is set while it is imported."""
    before = os.environ.get(_SILENT)
    os.environ[_SILENT] = "1"
    try:
        import nncf
    finally:
        if before is None:
            del os.environ[_SILENT]
        else:
            os.environ[_SILENT] = before
    return nncf


@contextmanager
def _quiet(logger_name: str | None) -> Iterator[None]:
    """What the tools log, warn and print of their progress is not for users. None: the root logger."""
    logger = logging.getLogger(logger_name)
    before = logger.level
    with warnings.catch_warnings(action="ignore"), redirect_stdout(io.StringIO()):
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(before)
