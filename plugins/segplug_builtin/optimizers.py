"""Optimisers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.optim import SGD, AdamW, Optimizer


def sgd(
    parameters: Iterable[Any], *, lr: float, weight_decay: float, momentum: float = 0.99, nesterov: bool = True
) -> Optimizer:
    """Stochastic gradient descent with nnU-Net's momentum."""
    return SGD(parameters, lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=True)


def adamw(
    parameters: Iterable[Any],
    *,
    lr: float,
    weight_decay: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); torch's defaults."""
    return AdamW(parameters, lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=True)
