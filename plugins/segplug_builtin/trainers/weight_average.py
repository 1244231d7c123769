"""A moving average of a network's weights: less noisy than the last ones alone (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of all weights (and floating-point buffers, such as a batch norm's statistics).

    Args:
        network: the network in training.
        decay: weight of the past, 0 to 1. At the beginning it is less, (1 + steps) / (10 + steps): what the first
            weights were is soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        named = [*network.named_parameters(), *network.named_buffers()]
        self._own = {name: tensor.detach() for name, tensor in named if tensor.is_floating_point()}
        self._other = {name: tensor.clone() for name, tensor in self._own.items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take in the network's weights after `steps` steps of the optimiser before this one."""
        share = 1 - min(self._decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(list(self._other.values()), list(self._own.values()), share)

    @contextmanager
    def in_network(self) -> Iterator[Mapping[str, Tensor]]:
        """The network has the average for a while; yields the weights it is trained with, by name."""
        self._swap()
        try:
            yield self._other
        finally:
            self._swap()

    @torch.no_grad()
    def restore(self, trained: Mapping[str, Tensor] | None) -> None:
        """Go on from a checkpoint, whose weights the network has: the average, if `trained` are those in training."""
        for name, tensor in self._own.items():
            self._other[name].copy_(tensor)
            if trained is not None:
                tensor.copy_(trained[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, tensor in self._own.items():
            kept = tensor.clone()
            tensor.copy_(self._other[name])
            self._other[name].copy_(kept)
