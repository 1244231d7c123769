"""The U-Net of plain convolutions, nnU-Net's default (Isensee et al., Nature Methods 18, 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from segplug_builtin.architectures.blocks import ConvStack, LayerStyle, initialise, per_stage
from segplug_builtin.architectures.unet import Encoder, UNet


class PlainEncoder(Encoder):
    """Stacks of convolutions; the first convolution of a stage has its stride."""

    def __init__(
        self,
        style: LayerStyle,
        inputs: int,
        *,
        features: Sequence[int],
        kernels: Sequence[Any],
        strides: Sequence[Any],
        convs: Sequence[int],
    ) -> None:
        super().__init__(style, features, kernels, strides)
        stages = []
        for outputs, kernel, stride, count in zip(features, kernels, strides, convs, strict=True):
            # one level more than needed: it is in the names of nnU-Net's weights
            stages.append(nn.Sequential(ConvStack(style, count, inputs, outputs, kernel=kernel, stride=stride)))
            inputs = outputs
        self.stages = nn.Sequential(*stages)


def build_plain_unet(
    input_channels: int,
    output_channels: int,
    *,
    deep_supervision: bool,
    n_stages: int,
    features_per_stage: int | Sequence[int],
    conv_op: str,
    kernel_sizes: int | Sequence[Any],
    strides: int | Sequence[Any],
    n_conv_per_stage: int | Sequence[int],
    n_conv_per_stage_decoder: int | Sequence[int],
    conv_bias: bool = False,
    norm_op: str | None = None,
    norm_op_kwargs: Mapping[str, Any] | None = None,
    dropout_op: str | None = None,
    dropout_op_kwargs: Mapping[str, Any] | None = None,
    nonlin: str | None = None,
    nonlin_kwargs: Mapping[str, Any] | None = None,
    nonlin_first: bool = False,
) -> UNet:
    """Build nnU-Net's `PlainConvUNet` from a plan's `arch_kwargs`, initialised from torch's global generator.

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
        nonlin_first=nonlin_first,
    )
    encoder = PlainEncoder(
        style,
        input_channels,
        features=per_stage("features_per_stage", features_per_stage, n_stages),
        kernels=per_stage("kernel_sizes", kernel_sizes, n_stages),
        strides=per_stage("strides", strides, n_stages),
        convs=per_stage("n_conv_per_stage", n_conv_per_stage, n_stages),
    )
    decoder_convs = per_stage("n_conv_per_stage_decoder", n_conv_per_stage_decoder, n_stages - 1)
    network = UNet(encoder, output_channels, decoder_convs, deep_supervision)
    initialise(network)
    return network
