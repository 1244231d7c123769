"""Optimisers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.optim import SGD, Adam, AdamW, Optimizer

from segplug_builtin.adan import Adan


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
    amsgrad: bool = False,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); torch's defaults."""
    return AdamW(parameters, lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, fused=True)


def adam(
    parameters: Iterable[Any],
    *,
    lr: float,
    weight_decay: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    amsgrad: bool = False,
) -> Optimizer:
    """Adam (Kingma and Ba 2015), weight decay as part of the gradient; torch's defaults."""
    return Adam(parameters, lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, fused=True)


def adan(
    parameters: Iterable[Any],
    *,
    lr: float,
    weight_decay: float,
    beta1: float = 0.02,
    beta2: float = 0.08,
    beta3: float = 0.01,
    eps: float = 1e-8,
) -> Optimizer:
    """Adan (Xie et al. 2022); the betas are shares of what is new, as in the paper."""
    return Adan(parameters, lr, betas=(beta1, beta2, beta3), eps=eps, weight_decay=weight_decay)
