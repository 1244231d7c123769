"""What training a network takes, measured on torch's `meta` device, which computes shapes and holds no values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

BYTES_PER_WEIGHT = 16
"""float32 weight, gradient, and the two moments of Adam."""

COPIES_OF_LOGITS = 8
"""float32 arrays of the logits' size at once: logits, their gradient, and what a loss makes of them."""


def bytes_of_weights(network: nn.Module) -> int:
    """What weights, their gradients and the optimiser's state take."""
    return BYTES_PER_WEIGHT * sum(weight.numel() for weight in network.parameters())


def bytes_of_sample(network: nn.Module, images: Tensor, outputs: int) -> int:
    """What one sample takes: what autograd keeps of a forward pass in float32, and copies of the logits.

    Args:
        images: (samples, channels, y, x), on the device of the network. In training mode some layers want several.
        outputs: channels of the logits.
    """
    pixels = math.prod(images.shape[2:])
    return kept_bytes(network, images) // len(images) + 4 * COPIES_OF_LOGITS * outputs * pixels


def kept_bytes(network: nn.Module, images: Tensor) -> int:
    """Bytes that a forward pass leaves for the backward pass, weights not counted, each storage once."""
    import torch

    weights = {_identity(each) for each in network.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _identity(tensor) not in weights:
            kept[_identity(tensor)] = tensor.untyped_storage()  # held, so that no other can have its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(images)
    return sum(storage.nbytes() for storage in kept.values())


def _identity(tensor: Tensor) -> int:
    """Of its storage; on the meta device addresses are all zero."""
    return int(tensor.untyped_storage()._cdata)
