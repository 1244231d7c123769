"""A network as an ONNX file, by torch's exporter that traces.

torch's newer exporter makes the same graph of a U-Net, node by node, in seven times the CPU time (measured with
torch 2.13), and needs a further library.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segplug.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor, nn

OPSET = 18
INPUT, OUTPUT = "image", "logits"
WEIGHTS = "segplug.weights_sha256"
"""Key of the file's metadata that says what weights are in it."""

TOLERANCE = 1e-3
"""Largest difference of logits from torch's, as a share of their largest value."""


@dataclass(frozen=True)
class NetworkShape:
    """What goes in and comes out, but for the batch, which is of any size.

    Args:
        channels: of the image.
        classes: channels of the logits.
        patch: spatial shape.
    """

    channels: int
    classes: int
    patch: tuple[int, ...]

    @property
    def input(self) -> list[str | int]:
        return ["batch", self.channels, *self.patch]

    @property
    def output(self) -> list[str | int]:
        return ["batch", self.classes, *self.patch]


def weights_sha256(network: nn.Module) -> str:
    """SHA-256 of all weights: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        values = value.detach().cpu().contiguous()
        digest.update(f"{name}\0{values.dtype}\0{tuple(values.shape)}\0".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def export_network(network: nn.Module, shape: NetworkShape, path: Path, architecture: str) -> None:
    """Write a network, in evaluation mode on the CPU, as an ONNX file with one input and one output.

    Args:
        path: to write to.
        architecture: its name, for messages.

    Raises:
        PluginError: it has operations that have no form in ONNX; or ONNX Runtime, where it is installed, computes
            something else from the file.
    """
    import onnx
    import torch

    example = torch.randn((2, shape.channels, *shape.patch), generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings(action="ignore"):  # for developers of torch
            torch.onnx.export(
                network,
                (example,),
                str(path),
                dynamo=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            )
        model = onnx.load(path)
        onnx.helper.set_model_props(model, {WEIGHTS: weights_sha256(network)})
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
    except Exception as error:  # of the exporter, of a network that is not made for it, of the checker
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise PluginError(
            f"architecture {architecture}: its network cannot be exported to ONNX: {type(error).__name__}: {first}. "
            "Predict with --predictor torch"
        ) from error
    _compare(network, example.flip(0) - 0.5, path, architecture)


def _compare(network: nn.Module, images: Tensor, path: Path, architecture: str) -> None:
    """Compare what the file computes with what the network does, for other images, and for batches of one and two."""
    import importlib.util

    import numpy as np
    import torch

    if importlib.util.find_spec("onnxruntime") is None:
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (images[:1], images):
        with torch.inference_mode():
            wanted = network(batch).float().numpy()
        (found,) = session.run([OUTPUT], {INPUT: batch.numpy()})
        difference = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else np.inf
        if not difference <= TOLERANCE * float(np.abs(wanted).max()):
            raise PluginError(
                f"architecture {architecture}: ONNX Runtime computes other logits from its exported network than torch "
                f"(largest difference {difference:g}, of {np.abs(wanted).max():g}). Predict with --predictor torch"
            )
