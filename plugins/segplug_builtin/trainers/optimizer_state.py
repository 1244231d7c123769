"""An optimiser goes on where a checkpoint left it, with the settings of now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def restore(optimizer: Optimizer, saved: Mapping[str, Any], build: Callable[[list[nn.Parameter]], Optimizer]) -> bool:
    """Take up the state of an optimiser; learning rates, decay and the like stay as they are.

    torch takes these from the checkpoint too, and with them what the user has changed since.

    Args:
        saved: `state_dict()` of then.
        build: makes such an optimiser for other weights.

    Returns:
        False if the state is that of another optimiser or of other weights; nothing is changed then.
    """
    if not _fits(optimizer, saved, build):
        return False
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(saved))
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
    return True


def _fits(optimizer: Optimizer, saved: Mapping[str, Any], build: Callable[[list[nn.Parameter]], Optimizer]) -> bool:
    groups = optimizer.param_groups
    if [len(group["params"]) for group in saved["param_groups"]] != [len(group["params"]) for group in groups]:
        return False
    weights = [weight for group in groups for weight in group["params"]]
    kept = [(weight, saved["state"][place]) for place, weight in enumerate(weights) if place in saved["state"]]
    first = _state_after_a_step(weights[0], build)
    like_weight = [name for name, value in first.items() if isinstance(value, Tensor) and value.ndim == weights[0].ndim]
    return all(
        set(state) == set(first)
        and all(state[name] is not None and state[name].shape == weight.shape for name in like_weight)
        for weight, state in kept
    )


def _state_after_a_step(weight: nn.Parameter, build: Callable[[list[nn.Parameter]], Optimizer]) -> Mapping[str, Any]:
    """What an optimiser keeps of a weight: a name for each part."""
    twin = nn.Parameter(torch.zeros_like(weight))
    twin.grad = torch.zeros_like(weight)
    optimizer = build([twin])
    optimizer.step()
    return dict(optimizer.state[twin])
