"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from segplug import Component, hookimpl
from segplug.protocols import OptimizerFactory

if TYPE_CHECKING:
    from torch.optim import Optimizer


def rmsprop(parameters: Iterable[Any], *, lr: float, weight_decay: float, alpha: float = 0.99) -> Optimizer:
    """Make it; `--set trainer.optimizer=rmsprop --set trainer.optimizer.alpha=0.9` chooses it and its option."""
    import torch

    return torch.optim.RMSprop(parameters, lr=lr, weight_decay=weight_decay, alpha=alpha)


@hookimpl
def segplug_optimizers() -> Iterator[Component[OptimizerFactory]]:
    yield Component("rmsprop", f"{__name__}:rmsprop", "RMSprop")
