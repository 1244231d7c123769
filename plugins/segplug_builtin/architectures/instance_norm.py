"""Instance norm whose output may be changed in place at no cost.

torch computes instance norm as batch norm of a view, and returns a view again. An in-place nonlinearity on a view makes
autograd copy the gradient twice per layer (`CopySlices`): a twentieth of a training step on a CPU. The same kernels
behind one autograd function return a tensor of its own: equal values and gradients, no copies, no more memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _InstanceNorm(torch.autograd.Function):
    """(batch, channels, *space), weight and bias (channels,) or None -> the same shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        batch, channels = x.shape[:2]
        flat = x.contiguous().view(1, batch * channels, *x.shape[2:])
        weights, biases = (None if p is None else p.repeat(batch) for p in (weight, bias))
        normalised, mean, inverse_std = torch.native_batch_norm(flat, weights, biases, None, None, True, 0.0, eps)
        ctx.save_for_backward(flat, weights, mean, inverse_std)
        ctx.eps, ctx.channels = eps, channels
        result: Tensor = torch.ops.aten._unsafe_view(normalised, x.shape)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        flat, weights, mean, inverse_std = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        of_x, of_weights, of_biases = torch.ops.aten.native_batch_norm_backward(
            gradient.contiguous().view(flat.shape),
            flat,
            weights,
            None,
            None,
            mean,
            inverse_std,
            True,
            ctx.eps,
            wanted,
        )
        of_parameters = (
            g.view(-1, ctx.channels).sum(0) if needed else None
            for g, needed in zip((of_weights, of_biases), wanted[1:], strict=True)
        )
        return (of_x.view(gradient.shape) if wanted[0] else None, *of_parameters, None)


class _OwnOutput(nn.Module):
    """In front of torch's instance norm: its forward where that is as good, the function above where it is better."""

    def forward(self, x: Tensor) -> Tensor:
        norm: Any = self
        if (
            x.device.type == "cpu"
            and torch.is_grad_enabled()
            and not norm.track_running_stats
            and x[0, 0].numel() > 1  # else torch's own error
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        ):
            norm._check_input_dim(x)
            result: Tensor = _InstanceNorm.apply(x, norm.weight, norm.bias, norm.eps)  # type: ignore[no-untyped-call]
        else:
            result = super().forward(x)
        return result


class InstanceNorm1d(_OwnOutput, nn.InstanceNorm1d):
    """torch.nn.InstanceNorm1d, see above."""


class InstanceNorm2d(_OwnOutput, nn.InstanceNorm2d):
    """torch.nn.InstanceNorm2d, see above."""


class InstanceNorm3d(_OwnOutput, nn.InstanceNorm3d):
    """torch.nn.InstanceNorm3d, see above."""


OWN_OUTPUT: dict[Any, type[nn.Module]] = {
    nn.InstanceNorm1d: InstanceNorm1d,
    nn.InstanceNorm2d: InstanceNorm2d,
    nn.InstanceNorm3d: InstanceNorm3d,
}
"""What to use in the place of torch's classes."""
