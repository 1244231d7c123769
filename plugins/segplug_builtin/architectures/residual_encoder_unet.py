"""The U-Net with a residual encoder ("nnU-Net Revisited", Isensee et al., MICCAI 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from segplug.errors import DataError
from segplug_builtin.architectures.blocks import (
    BasicBlock,
    BottleneckBlock,
    ConvStack,
    LayerStyle,
    initialise,
    per_stage,
)
from segplug_builtin.architectures.unet import Encoder, UNet

_BLOCKS = ("BasicBlockD", "BottleneckD")
_HOME = "dynamic_network_architectures.building_blocks.residual."


class ResidualStack(nn.Module):
    """Several residual blocks; the first has the stride."""

    def __init__(
        self,
        block: Any,
        style: LayerStyle,
        count: int,
        inputs: int,
        outputs: int,
        *,
        kernel: int | Sequence[int],
        stride: int | Sequence[int],
    ) -> None:
        super().__init__()
        first = block(style, inputs, outputs, kernel, stride)
        self.blocks = nn.Sequential(first, *(block(style, outputs, outputs, kernel) for _ in range(count - 1)))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.blocks(x)
        return result


class ResidualEncoder(Encoder):
    """A convolution as stem, then stacks of residual blocks.

    `bottlenecks` has the inner channels per stage for bottleneck blocks, None for basic ones.
    """

    def __init__(
        self,
        style: LayerStyle,
        inputs: int,
        *,
        features: Sequence[int],
        kernels: Sequence[Any],
        strides: Sequence[Any],
        blocks: Sequence[int],
        bottlenecks: Sequence[int] | None = None,
        stem_features: int | None = None,
    ) -> None:
        super().__init__(style, features, kernels, strides)
        stem_outputs = stem_features or features[0]
        self.stem = ConvStack(style, 1, inputs, stem_outputs, kernel=kernels[0])
        inputs, stages = stem_outputs, []
        for stage, (outputs, kernel, stride, count) in enumerate(zip(features, kernels, strides, blocks, strict=True)):
            block = BasicBlock if bottlenecks is None else partial(BottleneckBlock, bottleneck=bottlenecks[stage])
            stages.append(ResidualStack(block, style, count, inputs, outputs, kernel=kernel, stride=stride))
            inputs = outputs
        self.stages = nn.Sequential(*stages)


def build_residual_encoder_unet(
    input_channels: int,
    output_channels: int,
    *,
    deep_supervision: bool,
    n_stages: int,
    features_per_stage: int | Sequence[int],
    conv_op: str,
    kernel_sizes: int | Sequence[Any],
    strides: int | Sequence[Any],
    n_blocks_per_stage: int | Sequence[int],
    n_conv_per_stage_decoder: int | Sequence[int],
    conv_bias: bool = False,
    norm_op: str | None = None,
    norm_op_kwargs: Mapping[str, Any] | None = None,
    dropout_op: str | None = None,
    dropout_op_kwargs: Mapping[str, Any] | None = None,
    nonlin: str | None = None,
    nonlin_kwargs: Mapping[str, Any] | None = None,
    block: str = "BasicBlockD",
    bottleneck_channels: int | Sequence[int] | None = None,
    stem_channels: int | None = None,
) -> UNet:
    """Build nnU-Net's `ResidualEncoderUNet` from a plan's `arch_kwargs`, initialised from torch's global generator.

    Raises:
        DataError: a module's name is not allowed, or a list has not one entry per stage.
    """
    style = LayerStyle.from_plan(
        conv_op=conv_op,
        conv_bias=conv_bias,
        norm_op=norm_op,
        norm_op_kwargs=norm_op_kwargs,
        dropout_op=dropout_op,
        dropout_op_kwargs=dropout_op_kwargs,
        nonlin=nonlin,
        nonlin_kwargs=nonlin_kwargs,
    )
    encoder = ResidualEncoder(
        style,
        input_channels,
        features=per_stage("features_per_stage", features_per_stage, n_stages),
        kernels=per_stage("kernel_sizes", kernel_sizes, n_stages),
        strides=per_stage("strides", strides, n_stages),
        blocks=per_stage("n_blocks_per_stage", n_blocks_per_stage, n_stages),
        bottlenecks=_bottlenecks(block, bottleneck_channels, n_stages),
        stem_features=stem_channels,
    )
    decoder_convs = per_stage("n_conv_per_stage_decoder", n_conv_per_stage_decoder, n_stages - 1)
    network = UNet(encoder, output_channels, decoder_convs, deep_supervision)
    initialise(network)
    return network


def _bottlenecks(block: str, channels: int | Sequence[int] | None, stages: int) -> list[int] | None:
    name = block.removeprefix(_HOME)
    if name not in _BLOCKS:
        raise DataError(f"architecture: block is {block!r}, expected {' or '.join(_BLOCKS)}")
    if name == "BasicBlockD":
        return None
    if channels is None:
        raise DataError("architecture: bottleneck blocks need bottleneck_channels, and there are none")
    return per_stage("bottleneck_channels", channels, stages)
