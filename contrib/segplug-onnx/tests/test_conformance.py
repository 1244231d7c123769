"""What every predictor has to do."""

import subprocess
import sys

import pytest

from segplug.testing import BoundCheck, conformance


@pytest.mark.parametrize(
    "check", [each for name in ("onnxruntime", "openvino") for each in conformance("predictors", name)], ids=str
)
def test_conformance(check: BoundCheck) -> None:
    check()


def test_importing_it_imports_no_heavy_library() -> None:
    code = "import sys, segplug_onnx, segplug_onnx.command; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "onnxruntime", "openvino", "nncf"} & set(done.stdout.split())
