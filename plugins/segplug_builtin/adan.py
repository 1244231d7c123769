"""The Adan optimiser (Xie et al. 2022, "Adan: Adaptive Nesterov Momentum Algorithm", algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Adan(Optimizer):
    """Adaptive Nesterov momentum: moments of gradients, of their changes, and of the squares of both.

    The averages begin at 0 with the second gradient, as the first has no change, and are corrected for their bias by
    the number of steps; the first step moves nothing but decays. That is what the package nnU-Net uses does.

    Args:
        betas: share of what is new in the averages of the gradient, of its change and of the square.
        weight_decay: decoupled, proximal: weights are divided by 1 + lr * weight_decay.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.02, 0.08, 0.01),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not (lr >= 0 and eps >= 0 and weight_decay >= 0 and all(0 < beta <= 1 for beta in betas)):
            raise ValueError(
                f"adan: lr {lr}, betas {betas}, eps {eps}, weight_decay {weight_decay}; expected betas above 0 and up "
                "to 1, the others 0 or more"
            )
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step with the gradients there are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        new_gradient, new_change, new_square = group["betas"]
        if not state:
            state["step"] = 0
            state.update({name: torch.zeros_like(parameter) for name in ("gradient", "change", "square")})
        else:
            change = gradient - state["previous"]
            state["gradient"].lerp_(gradient, new_gradient)
            state["change"].lerp_(change, new_change)
            ahead = gradient + (1 - new_change) * change
            state["square"].mul_(1 - new_square).addcmul_(ahead, ahead, value=new_square)
        state["step"] += 1
        bias = [1 - (1 - beta) ** state["step"] for beta in group["betas"]]
        direction = state["gradient"] / bias[0] + (1 - new_change) / bias[1] * state["change"]
        spread = (state["square"] / bias[2]).sqrt_().add_(group["eps"])
        parameter.addcdiv_(direction, spread, value=-group["lr"]).div_(1 + group["weight_decay"] * group["lr"])
        state["previous"] = gradient.clone()
