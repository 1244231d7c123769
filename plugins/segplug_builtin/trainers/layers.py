"""Which parts of a network are trained, and how fast: for fine-tuning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from segplug.errors import UsageError

LR_FACTOR = "lr_factor"
"""Key of a parameter group: what the learning rate of the schedule is multiplied by."""


def check_parts(network: nn.Module, frozen: Sequence[str], factors: Iterable[str]) -> None:
    """Refuse names that stand for no weights, as parts to freeze or to give a learning rate of their own.

    Raises:
        UsageError: a name stands for no weights, or all weights are frozen.
    """
    named = dict(network.named_parameters())
    for part in frozen:
        if not any(_within(name, part) for name in named):
            raise _unknown("freeze", part, named)
    if all(any(_within(name, part) for part in frozen) for name in named):
        raise UsageError(f"trainer.freeze: {', '.join(frozen)} are all of the network's weights; nothing is left")
    # a part may have a rate and be frozen: a plan's recipe names rates of stages, some of which the user freezes
    for part in factors:
        if not any(_within(name, part) for name in named):
            raise _unknown("lr_factors", part, named)


def freeze(network: nn.Module, parts: Sequence[str]) -> None:
    """Leave weights as they are: those of modules of these names, such as `encoder` or `decoder.stages.0`."""
    for name, weight in network.named_parameters():
        if any(_within(name, part) for part in parts):
            weight.requires_grad_(False)


def set_training(network: nn.Module, frozen: Sequence[str]) -> None:
    """Training mode, in which frozen modules keep their statistics and drop nothing."""
    network.train()
    for name, module in network.named_modules():
        if any(_within(name, part) for part in frozen):
            module.eval()


def parameter_groups(network: nn.Module, factors: Mapping[str, float]) -> list[Any]:
    """What an optimiser trains: parameters, or groups of them with an `LR_FACTOR` where there are factors.

    Args:
        factors: module -> factor of its learning rate; of several that hold a weight the longest name counts.
    """
    named = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    if not factors:
        return list(named.values())
    groups: dict[float, list[Any]] = {}
    for name, weight in named.items():
        holding = sorted((part for part in factors if _within(name, part)), key=len)
        groups.setdefault(float(factors[holding[-1]]) if holding else 1.0, []).append(weight)
    return [{"params": weights, LR_FACTOR: factor} for factor, weights in groups.items()]


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _unknown(setting: str, part: str, named: Mapping[str, Any]) -> UsageError:
    depths = (1, 2, 3)
    modules = dict.fromkeys(
        ".".join(name.split(".")[:depth]) for depth in depths for name in named if name.count(".") > depth
    )
    return UsageError(f"trainer.{setting}: the network has no weights in {part!r}. It has: {', '.join(modules)}")
