"""Networks laid out for inference on a CPU: channels last, weights packed once.

Called as torch calls them, oneDNN's convolutions bring the image, the weights and the result into an order of their own
and back, every time; torch's instance norm goes over the image once more than with channels last. Only the calls are
replaced: modules, their names and weights stay as they are, and are shared with the network that was given.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from segplug_builtin.architectures.instance_norm import OWN_OUTPUT

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)
_INSTANCE_NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d, OWN_OUTPUT[nn.InstanceNorm2d], OWN_OUTPUT[nn.InstanceNorm3d])
_BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def packed(network: nn.Module, dtype: torch.dtype) -> nn.Module | None:
    """A network that computes the same in less time, for inference.

    Args:
        network: in evaluation mode, on a CPU.
        dtype: of the computation: float32 or bfloat16, which is left where torch's autocast leaves it.

    Returns:
        The network, which shares the weights of the given one and follows their changes; None where there is no gain:
        a module with weights other than convolutions and norms, or a processor or torch without what this takes.
    """
    if not _supported(dtype) or not all(_known(module) for module in network.modules()):
        return None
    twin = _twin(network, {})
    for module in twin.modules():
        call = _call_of(module, dtype)
        if call is not None:
            module.forward = call
    if dtype != torch.float32:
        twin.forward = torch.autocast("cpu", dtype)(twin.forward)  # torch has no pooling in bf16, for one
    return twin


class _Repacked:
    """A call with what was made of a module's weights; it is made anew when they have been changed."""

    def __init__(self, module: Any, dtype: torch.dtype) -> None:
        self._module, self._dtype = module, dtype
        self._made_of: tuple[tuple[int, int], ...] | None = None
        self._weight: Tensor
        self._bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        x = x.to(self._dtype, memory_format=_LAST[x.ndim])
        there = tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in self._module.parameters())
        if there != self._made_of:
            bias = self._module.bias
            self._bias = None if bias is None else self._packed_bias(bias.to(self._dtype))
            self._weight = self._packed_weight(self._module.weight.to(self._dtype), x)
            self._made_of = there
        return self._computed(x)

    def _packed_weight(self, weight: Tensor, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _packed_bias(self, bias: Tensor) -> Tensor:
        return bias

    def _computed(self, x: Tensor) -> Tensor:
        """(batch, channels, *space), channels last, to the same with other channels and perhaps other sizes."""
        raise NotImplementedError


class _Convolution(_Repacked):
    def _packed_weight(self, weight: Tensor, x: Tensor) -> Tensor:
        pack: Any = getattr(torch._C._nn, f"mkldnn_reorder_conv{x.ndim - 2}d_weight")
        made: Tensor = pack(weight.to_mkldnn(), *self._geometry, list(x.shape))  # which order is best, sizes decide
        return made

    def _computed(self, x: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._weight, self._bias, *self._geometry, "none", [], None
        )
        return result

    @property
    def _geometry(self) -> tuple[Any, ...]:
        conv = self._module
        return list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups


class _Upsampling(_Repacked):
    """A transposed convolution whose kernel is its stride: a matrix product, as no outputs overlap."""

    def _packed_weight(self, weight: Tensor, x: Tensor) -> Tensor:
        return weight.flatten(2).transpose(1, 2).flatten(1).contiguous()  # inputs x (places of the kernel, outputs)

    def _packed_bias(self, bias: Tensor) -> Tensor:
        return bias.repeat(prod(self._module.kernel_size))

    def _computed(self, x: Tensor) -> Tensor:
        kernel, axes = self._module.kernel_size, x.ndim - 2
        rows = x.movedim(1, -1).flatten(0, -2)
        made = rows @ self._weight if self._bias is None else torch.addmm(self._bias, rows, self._weight)
        places = made.view(x.shape[0], *x.shape[2:], *kernel, -1)
        order = [0, *(n for a in range(1, axes + 1) for n in (a, a + axes)), 2 * axes + 1]
        sizes = [n * k for n, k in zip(x.shape[2:], kernel, strict=True)]
        return places.permute(order).reshape(x.shape[0], *sizes, -1).movedim(-1, 1)


class _InstanceNorm:
    """As the batch norm of a single image, which keeps channels last where torch's instance norm copies."""

    def __init__(self, norm: Any) -> None:
        self._norm, self._plain = norm, norm.forward

    def __call__(self, x: Tensor) -> Tensor:
        if x[0, 0].numel() == 1:
            self._plain(x)  # raises torch's own error
        norm, made = self._norm, torch.empty_like(x)
        statistics = [torch.empty(x.shape[1]) for _ in range(2)]  # which nobody asks for
        weight, bias = norm.weight, norm.bias
        if weight is None and x.dtype != torch.float32:  # torch keeps the statistics in float32 for such weights alone
            weight, bias = torch.ones(x.shape[1]), torch.zeros(x.shape[1])
        for place in range(len(x)):
            one = slice(place, place + 1)
            out = (made[one], *statistics)
            torch.native_batch_norm(x[one], weight, bias, None, None, True, 0.0, norm.eps, out=out)
        return made


def _supported(dtype: torch.dtype) -> bool:
    onednn: Any = torch.backends.mkldnn
    if not onednn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


def _known(module: nn.Module) -> bool:
    """Whether a module has no weights, or such that this file knows how to compute with."""
    kind, own = type(module), module._parameters
    if kind in (*_CONVOLUTIONS, *_TRANSPOSED) and own.get("weight") is None:
        return False  # a hook makes it of others, as spectral norm does
    if kind in _CONVOLUTIONS:
        conv: Any = module
        return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    if kind in _TRANSPOSED:
        up: Any = module
        apart = tuple(up.kernel_size) == tuple(up.stride) and set(up.dilation) == {1}
        return apart and up.groups == 1 and not any((*up.padding, *up.output_padding))
    if kind in _INSTANCE_NORMS:
        return not module.track_running_stats
    return kind in _BATCH_NORMS or not own


def _call_of(module: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor] | None:
    if type(module) in _CONVOLUTIONS:
        return _Convolution(module, dtype)
    if type(module) in _TRANSPOSED:
        return _Upsampling(module, dtype)
    return _InstanceNorm(module) if type(module) in _INSTANCE_NORMS else None


def _twin(module: nn.Module, made: dict[nn.Module, nn.Module]) -> nn.Module:
    """Modules of their own with the same tensors; one that stands in two places does so in the twin."""
    if module not in made:
        made[module] = twin = copy(module)
        twin._modules = {name: None if child is None else _twin(child, made) for name, child in module._modules.items()}
    return made[module]
