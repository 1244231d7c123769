"""Optimisers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch.optim import Optimizer


class OptimizerFactory(Protocol):
    """A function that makes a torch optimiser. `parameters` are tensors or parameter groups."""

    def __call__(self, parameters: Iterable[Any], *, lr: float, weight_decay: float) -> Optimizer: ...
