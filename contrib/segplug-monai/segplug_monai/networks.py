"""MONAI's networks, built from a plan's arguments and the patch size of its configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unetr import UNETR
from torch import Tensor, nn

from segplug.errors import DataError
from segplug_monai.patches import SEGRESNET_BLOCKS, SWIN_DEPTHS, SWIN_HEADS, WINDOW, Patches, patches_of_segresnet
from segplug_monai.patches import SWINUNETR as SWINUNETR_PATCHES
from segplug_monai.patches import UNETR as UNETR_PATCHES


class SupervisedDynUNet(DynUNet):
    """MONAI's `DynUNet` whose lower resolutions come as they are: a list from full to lowest, in training mode.

    MONAI enlarges and stacks them, which costs memory and compares them with the truth at full resolution. The heads
    are there whether they are used or not, so that weights do not depend on it.
    """

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        logits: Tensor = self.output_block(self.skip_layers(x))
        lower = list(self.heads)
        # the layers write into this very list; left there, tensors would outlive the step, and no copy could be made
        self.heads[:] = [torch.empty(0) for _ in lower]
        return [logits, *lower] if self.training and self.deep_supervision else logits


def build_dynunet(
    input_channels: int,
    output_channels: int,
    *,
    deep_supervision: bool,
    kernel_size: Sequence[Sequence[int]],
    strides: Sequence[Sequence[int]],
    filters: Sequence[int],
    res_block: bool = False,
    dropout: float | None = None,
    patch_size: Sequence[int] | None = None,
) -> nn.Module:
    """Build MONAI's `DynUNet`.

    Args:
        kernel_size, strides: per stage and axis; three stages or more.
        filters: features of each stage.
        res_block: residual blocks rather than plain ones.
        dropout: share of features that is dropped, None for none.
        patch_size: of the configuration, to check.

    Raises:
        DataError: there are too few stages, lists are of different lengths, or strides do not divide the patch.
    """
    stages = len(strides)
    if stages < 3 or len(kernel_size) != stages or len(filters) != stages:
        raise DataError(
            f"architecture monai_dynunet: {stages} strides, {len(kernel_size)} kernel sizes and {len(filters)} "
            "filters; expected as many of each, three or more. Plan with --planner monai_dynunet"
        )
    if patch_size is not None:
        divisor = tuple(math.prod(stage[axis] for stage in strides) for axis in range(len(patch_size)))
        Patches("monai_dynunet", divisor).check(patch_size)
    network = SupervisedDynUNet(
        spatial_dims=len(strides[0]),
        in_channels=input_channels,
        out_channels=output_channels,
        kernel_size=kernel_size,
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=list(filters),
        dropout=dropout,
        deep_supervision=True,
        deep_supr_num=stages - 2,
        res_block=res_block,
    )
    network.deep_supervision = deep_supervision
    return network


def build_segresnet(
    input_channels: int,
    output_channels: int,
    *,
    deep_supervision: bool,
    patch_size: Sequence[int],
    init_filters: int = 32,
    blocks_down: Sequence[int] = SEGRESNET_BLOCKS,
    blocks_up: Sequence[int] = (1, 1, 1),
    dropout_prob: float | None = None,
) -> nn.Module:
    """Build MONAI's `SegResNet`. It has one output: `deep_supervision` changes nothing.

    Args:
        patch_size: of the configuration: multiples of 2 to the number of `blocks_down` less one.
        init_filters: features at full resolution, a multiple of 8 for its group normalisation.
        blocks_down, blocks_up: residual blocks per stage of the encoder and of the decoder.
        dropout_prob: share of features that is dropped after the first layer, None for none.

    Raises:
        DataError: patch, blocks or filters do not fit together.
    """
    if len(blocks_up) != len(blocks_down) - 1:
        raise DataError(
            f"architecture monai_segresnet: {len(blocks_down)} blocks_down and {len(blocks_up)} blocks_up; expected "
            "one less of blocks_up"
        )
    _check_multiple("monai_segresnet", "init_filters", init_filters, 8)
    patches_of_segresnet(len(patch_size), len(blocks_down)).check(patch_size)
    return _module(
        SegResNet,
        spatial_dims=len(patch_size),
        in_channels=input_channels,
        out_channels=output_channels,
        init_filters=init_filters,
        blocks_down=tuple(blocks_down),
        blocks_up=tuple(blocks_up),
        dropout_prob=dropout_prob,
    )


def build_unetr(
    input_channels: int,
    output_channels: int,
    *,
    deep_supervision: bool,
    patch_size: Sequence[int],
    feature_size: int = 16,
    hidden_size: int = 768,
    mlp_dim: int = 3072,
    num_heads: int = 12,
    dropout_rate: float = 0.0,
) -> nn.Module:
    """Build MONAI's `UNETR`, for patches of one size. It has one output: `deep_supervision` changes nothing.

    Args:
        patch_size: of the configuration: multiples of 16, which make one token each.
        feature_size: features at full resolution.
        hidden_size, mlp_dim, num_heads: of the transformer; `hidden_size` a multiple of `num_heads`.
        dropout_rate: share that is dropped.

    Raises:
        DataError: patch or sizes do not fit together.
    """
    _check_multiple("monai_unetr", "hidden_size", hidden_size, num_heads)
    UNETR_PATCHES[len(patch_size)].check(patch_size)
    network = _module(
        UNETR,
        in_channels=input_channels,
        out_channels=output_channels,
        img_size=tuple(patch_size),
        spatial_dims=len(patch_size),
        feature_size=feature_size,
        hidden_size=hidden_size,
        mlp_dim=mlp_dim,
        num_heads=num_heads,
        dropout_rate=dropout_rate,
    )
    return _without_unused(network)


def build_swinunetr(
    input_channels: int,
    output_channels: int,
    *,
    deep_supervision: bool,
    patch_size: Sequence[int],
    feature_size: int = 24,
    depths: Sequence[int] = SWIN_DEPTHS,
    num_heads: Sequence[int] = SWIN_HEADS,
    window_size: int = WINDOW,
    drop_rate: float = 0.0,
    use_checkpoint: bool = False,
    use_v2: bool = False,
) -> nn.Module:
    """Build MONAI's `SwinUNETR`. It has one output: `deep_supervision` changes nothing.

    Args:
        patch_size: of the configuration: multiples of 32, more than 32 along one axis at least.
        feature_size: features at full resolution, a multiple of 12.
        depths, num_heads: transformer blocks and heads of each of the four stages.
        window_size: side of the windows of attention, in tokens of two voxels.
        drop_rate: share that is dropped.
        use_checkpoint: compute the transformer again for the backward pass rather than keep it: slow, and less memory.
        use_v2: a residual convolution before each stage (SwinUNETR-V2).

    Raises:
        DataError: patch or sizes do not fit together.
    """
    _check_multiple("monai_swinunetr", "feature_size", feature_size, 12)
    SWINUNETR_PATCHES[len(patch_size)].check(patch_size)
    return _module(
        SwinUNETR,
        in_channels=input_channels,
        out_channels=output_channels,
        spatial_dims=len(patch_size),
        feature_size=feature_size,
        depths=tuple(depths),
        num_heads=tuple(num_heads),
        window_size=window_size,
        drop_rate=drop_rate,
        use_checkpoint=use_checkpoint,
        use_v2=use_v2,
    )


def _module(build: Any, **arguments: Any) -> nn.Module:
    """MONAI's class, whose own complaints are about the plan's arguments."""
    try:
        network: nn.Module = build(**arguments)
    except ValueError as error:
        raise DataError(f"architecture monai_{build.__name__.lower()}: {error}") from error
    return network


def _without_unused(network: nn.Module) -> nn.Module:
    """Freeze the norms of cross-attention, which MONAI's blocks have and a UNETR never uses."""
    for name, weight in network.named_parameters():
        if ".norm_cross_attn." in name:
            weight.requires_grad_(False)
    return network


def _check_multiple(architecture: str, name: str, value: int, of: int) -> None:
    if value < of or value % of:
        raise DataError(f"architecture {architecture}: {name} {value}; expected a multiple of {of}")
