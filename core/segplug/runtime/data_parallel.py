"""A network, and what belongs to it, on several processes that each see some samples of every batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

UsedOutputs = Callable[[int], Sequence[bool]]
"""Of so many outputs, from the full resolution down, which ones the loss looks at."""


class DataParallel(nn.Module):
    """A network whose gradients are averaged over all processes by torch's DistributedDataParallel.

    To a trainer it is the network: weights have the network's own names, and attributes are the network's. It is
    wrapped at the first training step, when the trainer has said what is frozen.

    Args:
        network: on its device, with the same weights in every process or not: those of the first count.
        device: where it is.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.module = synchronised_norms(network)
        self.used_outputs: UsedOutputs = lambda count: [True] * count
        self._device = device
        self._wrapped: list[DistributedDataParallel] = []  # a list, so that it is no submodule

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's output; in training, such that `backward` averages gradients over the processes."""
        if self.training and torch.is_grad_enabled():
            return self._reducing()(*args, **kwargs)
        return self.module(*args, **kwargs)

    def no_sync(self) -> AbstractContextManager[None]:
        """Within it, gradients are summed up here, to be averaged by the first `backward` after it."""
        context: AbstractContextManager[None] = self._reducing().no_sync()
        return context

    def _reducing(self) -> DistributedDataParallel:
        if not self._wrapped:
            self._wrapped.append(
                DistributedDataParallel(
                    _UsedOutputs(self),
                    device_ids=[self._device] if self._device.type == "cuda" else None,
                    gradient_as_bucket_view=True,
                    # heads of resolutions that the loss leaves out get no gradient; and gradients then are always put
                    # together in one order, without which a resumed training would sum in another one
                    find_unused_parameters=True,
                )
            )
        return self._wrapped[0]

    # --- the network's own names and attributes --------------------------------------------------------------------

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.load_state_dict(*args, **kwargs)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        return self.module.named_parameters(*args, **kwargs)

    def named_buffers(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Tensor]]:
        return self.module.named_buffers(*args, **kwargs)

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        modules: Iterator[tuple[str, nn.Module]] = self.module.named_modules(*args, **kwargs)
        return modules

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


class _UsedOutputs(nn.Module):
    """The network with those outputs cut off the graph that the loss leaves out: DDP waits for gradients of others."""

    def __init__(self, parallel: DataParallel) -> None:
        super().__init__()
        self.network = parallel.module
        self._parallel = [parallel]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        outputs = self.network(*args, **kwargs)
        if not isinstance(outputs, (list, tuple)):
            return outputs
        used = self._parallel[0].used_outputs(len(outputs))
        return [output if needed else output.detach() for output, needed in zip(outputs, used, strict=True)]


def gathered(own: Tensor, rank: int, sizes: Sequence[int]) -> Tensor:
    """Samples of all processes (sum of `sizes`, ...), from this one's (sizes[rank], ...).

    The gradient of this process's samples is its part of the whole's: the function of all samples that follows is
    computed, alike, in every process.
    """
    gather: Any = _Gathered.apply
    whole: Tensor = gather(own, rank, tuple(sizes))
    return whole


def times_gradient(value: Tensor, factor: int) -> Tensor:
    """The value, whose gradient is taken times a factor."""
    apply: Any = _TimesGradient.apply
    same: Tensor = apply(value, factor)
    return same


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, rank: int, sizes: tuple[int, ...]) -> Tensor:
        ctx.place = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        # bytes: not every backend sends every type
        bytes_ = own.detach().contiguous().view(own.shape[0], -1).view(torch.uint8)
        padded = bytes_.new_zeros((max(sizes), bytes_.shape[1]))
        padded[: len(bytes_)] = bytes_
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        whole = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
        return whole.view(own.dtype).view(-1, *own.shape[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0][ctx.place], None, None


class _Total(torch.autograd.Function):
    """The sum over all processes; what each makes of it comes back to each of them."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        whole = own.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        whole = gradients[0].contiguous().clone()
        dist.all_reduce(whole)
        return whole


class _TimesGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * ctx.factor, None


def synchronised_norms(network: nn.Module) -> nn.Module:
    """The network with batch norms whose statistics are of the samples of all processes; weights keep their names."""
    if next(network.parameters()).is_cuda:
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return converted
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, BatchNorm.of(child))
    return network


class BatchNorm(_BatchNorm):
    """What torch.nn.SyncBatchNorm does, which works on GPUs alone."""

    @classmethod
    def of(cls, norm: _BatchNorm) -> BatchNorm:
        """The same norm, with its very weights and statistics."""
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made.weight, made.bias = norm.weight, norm.bias
        made.running_mean, made.running_var = norm.running_mean, norm.running_var
        made.num_batches_tracked = norm.num_batches_tracked
        return made.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        """Any number of spatial axes."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        if not self.training:
            return super().forward(input)
        total: Callable[[Tensor], Tensor] = _Total.apply
        wide = input.to(torch.promote_types(input.dtype, torch.float32))  # bf16 cannot hold counts and sums
        axes = (0, *range(2, input.ndim))
        shape = (1, -1, *[1] * (input.ndim - 2))
        count = total(wide.new_tensor(input.numel() / input.shape[1]))
        mean = total(wide.sum(axes)) / count
        centred = wide - mean.view(shape)
        variance = total((centred * centred).sum(axes)) / count
        with torch.no_grad():
            if self.running_mean is not None and self.running_var is not None:
                assert self.num_batches_tracked is not None
                self.num_batches_tracked.add_(1)
                momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * count / (count - 1), momentum)
        normed = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        return normed.to(input.dtype)
