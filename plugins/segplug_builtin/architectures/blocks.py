"""The blocks U-Nets are made of.

Attribute names follow dynamic-network-architectures, for they are the keys of the weights: a block's layers stand
under their own names and again under `all_modules`, and both keys are in every checkpoint of nnU-Net. Modules are also
made and initialised in its order, so that one seed gives one set of initial weights in both programs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from segplug.errors import DataError
from segplug_builtin.architectures.instance_norm import OWN_OUTPUT
from segplug_builtin.architectures.torch_modules import torch_module

NEGATIVE_SLOPE = 1e-2
"""Of the leaky ReLU that He initialisation assumes: nnU-Net's rule, whatever the nonlinearity is."""

_TRANSPOSED = {nn.Conv1d: nn.ConvTranspose1d, nn.Conv2d: nn.ConvTranspose2d, nn.Conv3d: nn.ConvTranspose3d}
_POOLING = {nn.Conv1d: nn.AvgPool1d, nn.Conv2d: nn.AvgPool2d, nn.Conv3d: nn.AvgPool3d}


@dataclass(frozen=True)
class LayerStyle:
    """What the layers of a network have in common: classes of `torch.nn` and their arguments."""

    conv: Any
    bias: bool = False
    norm: Any = None
    norm_options: Mapping[str, Any] = field(default_factory=dict)
    dropout: Any = None
    dropout_options: Mapping[str, Any] = field(default_factory=dict)
    nonlinearity: Any = None
    nonlinearity_options: Mapping[str, Any] = field(default_factory=dict)
    nonlinearity_first: bool = False

    @classmethod
    def from_plan(
        cls,
        *,
        conv_op: str,
        conv_bias: bool,
        norm_op: str | None,
        norm_op_kwargs: Mapping[str, Any] | None,
        dropout_op: str | None,
        dropout_op_kwargs: Mapping[str, Any] | None,
        nonlin: str | None,
        nonlin_kwargs: Mapping[str, Any] | None,
        nonlin_first: bool = False,
    ) -> LayerStyle:
        """From a plan's `arch_kwargs`.

        Raises:
            DataError: a module's name is not allowed.
        """
        return cls(
            conv=torch_module("conv_op", conv_op),
            bias=conv_bias,
            norm=torch_module("norm_op", norm_op),
            norm_options=norm_op_kwargs or {},
            dropout=torch_module("dropout_op", dropout_op),
            dropout_options=dropout_op_kwargs or {},
            nonlinearity=torch_module("nonlin", nonlin),
            nonlinearity_options=nonlin_kwargs or {},
            nonlinearity_first=nonlin_first,
        )

    @property
    def dimensions(self) -> int:
        return {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}[self.conv]

    @property
    def linear(self) -> LayerStyle:
        """Convolution and norm alone: no nonlinearity, no dropout."""
        return replace(self, dropout=None, nonlinearity=None)

    @property
    def transposed_conv(self) -> Any:
        return _TRANSPOSED[self.conv]

    @property
    def average_pooling(self) -> Any:
        return _POOLING[self.conv]

    def size(self, value: int | Sequence[int]) -> tuple[int, ...]:
        """A kernel size or stride, one entry per axis."""
        return (value,) * self.dimensions if isinstance(value, int) else tuple(value)

    def make_norm(self, features: int) -> nn.Module:
        norm: nn.Module = OWN_OUTPUT.get(self.norm, self.norm)(features, **self.norm_options)
        return norm

    def make_nonlinearity(self) -> nn.Module:
        return nn.Identity() if self.nonlinearity is None else self.nonlinearity(**self.nonlinearity_options)


class ConvBlock(nn.Module):
    """Convolution, dropout, norm, nonlinearity (each but the first optional), padded to keep the size at stride 1."""

    def __init__(
        self, style: LayerStyle, inputs: int, outputs: int, kernel: int | Sequence[int], stride: int | Sequence[int] = 1
    ) -> None:
        super().__init__()
        kernel_size = style.size(kernel)
        padding = tuple((k - 1) // 2 for k in kernel_size)
        self.conv = style.conv(inputs, outputs, kernel_size, style.size(stride), padding=padding, bias=style.bias)
        layers = [self.conv]
        if style.dropout is not None:
            self.dropout = style.dropout(**style.dropout_options)
            layers.append(self.dropout)
        if style.norm is not None:
            self.norm = style.make_norm(outputs)
            layers.append(self.norm)
        if style.nonlinearity is not None:
            self.nonlin = style.make_nonlinearity()
            # before the norm if asked for and there is one
            layers.insert(len(layers) - (style.nonlinearity_first and style.norm is not None), self.nonlin)
        self.all_modules = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.all_modules(x)
        return result


class ConvStack(nn.Module):
    """Several `ConvBlock`s; the first has the stride."""

    def __init__(
        self,
        style: LayerStyle,
        count: int,
        inputs: int,
        outputs: int,
        *,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        first = ConvBlock(style, inputs, outputs, kernel, stride)
        self.convs = nn.Sequential(first, *(ConvBlock(style, outputs, outputs, kernel) for _ in range(count - 1)))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.convs(x)
        return result


class _Residual(nn.Module):
    """What both residual blocks share: the way around the convolutions, averaged and projected where need be.

    ResNet-D (He et al., "Bag of Tricks for Image Classification with Convolutional Neural Networks", 2019): the skip is
    average-pooled, then projected, rather than projected with a stride.
    """

    def _make_skip(self, style: LayerStyle, inputs: int, outputs: int, stride: Sequence[int]) -> nn.Module:
        layers: list[nn.Module] = []
        if any(s != 1 for s in stride):
            layers.append(style.average_pooling(stride, stride))
        if inputs != outputs:
            layers.append(ConvBlock(replace(style.linear, bias=False), inputs, outputs, 1))
        return nn.Sequential(*layers) if layers else nn.Identity()

    def last_norm(self) -> nn.Module | None:
        """The norm just before the addition."""
        raise NotImplementedError


class BasicBlock(_Residual):
    """Two convolutions with a way around them; dropout in the first only."""

    def __init__(
        self,
        style: LayerStyle,
        inputs: int,
        outputs: int,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        self.conv1 = ConvBlock(style, inputs, outputs, kernel, stride)
        self.conv2 = ConvBlock(style.linear, outputs, outputs, kernel)
        self.nonlin2 = style.make_nonlinearity()
        self.skip = self._make_skip(style, inputs, outputs, style.size(stride))

    def forward(self, x: Tensor) -> Tensor:
        skip = self.skip(x)
        out = self.conv2(self.conv1(x))
        out += skip
        result: Tensor = self.nonlin2(out)
        return result

    def last_norm(self) -> nn.Module | None:
        return getattr(self.conv2, "norm", None)


class BottleneckBlock(_Residual):
    """1x1 convolution to few channels, one with the kernel and stride, 1x1 back, with a way around them."""

    def __init__(
        self,
        style: LayerStyle,
        inputs: int,
        outputs: int,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        *,
        bottleneck: int,
    ) -> None:
        super().__init__()
        self.conv1 = ConvBlock(replace(style, dropout=None), inputs, bottleneck, 1)
        self.conv2 = ConvBlock(style, bottleneck, bottleneck, kernel, stride)
        self.conv3 = ConvBlock(style.linear, bottleneck, outputs, 1)
        self.nonlin3 = style.make_nonlinearity()
        self.skip = self._make_skip(style, inputs, outputs, style.size(stride))

    def forward(self, x: Tensor) -> Tensor:
        skip = self.skip(x)
        out = self.conv3(self.conv2(self.conv1(x)))
        out += skip
        result: Tensor = self.nonlin3(out)
        return result

    def last_norm(self) -> nn.Module | None:
        return getattr(self.conv3, "norm", None)


def per_stage(name: str, value: int | Sequence[Any], stages: int) -> list[Any]:
    """One value for all stages, or one each.

    Raises:
        DataError: the number of values is not the number of stages.
    """
    if isinstance(value, int):
        return [value] * stages
    if len(value) != stages:
        raise DataError(f"architecture: {name} has {len(value)} entries, expected {stages}: {list(value)}")
    return list(value)


def initialise(network: nn.Module) -> None:
    """He initialisation of every convolution, biases 0, last norm of each residual block 0 (nnU-Net's rules).

    Draws from torch's global generator.
    """
    network.apply(_initialise_module)


def initialise_convolutions(network: nn.Module) -> None:
    """The same without touching norms."""
    network.apply(_initialise_convolution)


def _initialise_convolution(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _initialise_module(module: nn.Module) -> None:
    _initialise_convolution(module)
    if isinstance(module, _Residual):
        norm = module.last_norm()
        if norm is not None and isinstance(norm.weight, torch.Tensor) and isinstance(norm.bias, torch.Tensor):
            nn.init.zeros_(norm.weight)
            nn.init.zeros_(norm.bias)
