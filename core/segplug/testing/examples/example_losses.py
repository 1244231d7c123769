"""Focal loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from segplug import Component, hookimpl
from segplug.protocols import Loss

if TYPE_CHECKING:
    from torch import Tensor


class Focal:
    """Cross-entropy in which voxels that are right already count less (Lin et al. 2017)."""

    def __init__(self, gamma: float = 2.0, regions: bool = False) -> None:
        self.gamma, self.regions = gamma, regions

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        from torch.nn.functional import logsigmoid

        if self.regions:  # each class by itself, right or not
            log_probability = logsigmoid(logits * (2 * target - 1))
        else:
            log_probability = logits.log_softmax(dim=1).gather(1, target)
        return -((1 - log_probability.exp()) ** self.gamma * log_probability).mean()


@hookimpl
def segplug_losses() -> Iterator[Component[Loss]]:
    yield Component("focal", f"{__name__}:Focal", "focal loss")
