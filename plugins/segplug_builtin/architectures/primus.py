"""Primus: a transformer between an embedding of patches and a light decoder (Wald, Roy, Isensee et al. 2025).

"Primus: Enforcing Attention Usage for 3D Medical Image Segmentation", arXiv:2503.01835. The second version embeds
patches by a few residual convolutions, the third adds their features of higher resolution to the tokens. Attribute
names follow dynamic-network-architectures, so that weights go both ways.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segplug.errors import DataError
from segplug_builtin.architectures.blocks import BasicBlock, LayerStyle, initialise_convolutions
from segplug_builtin.architectures.residual_encoder_unet import ResidualStack
from segplug_builtin.architectures.transformer import MLP_RATIO, Transformer

SIZES = {"S": (396, 12, 6), "B": (792, 12, 12), "M": (864, 16, 12), "L": (1056, 24, 16)}
"""Channels of a token, blocks and heads (table 2 of the paper)."""

NORM_OPTIONS = {"eps": 1e-5, "affine": True}
SHRINKS = 8
"""By how much the embeddings of residual convolutions shrink each axis: three halvings."""

FEATURES_V2 = (32, 32, 64, 128)
FEATURES_V3 = (32, 64, 256, 1024)
"""Features of the stem and of each stage of the embedding."""

FIRST_SCALE = 1e-5
"""Initial scale of the features that the third version adds to the tokens."""


class Primus(nn.Module):
    """Maps (batch, channels, *patch) to logits (batch, classes, *patch), for patches of one size.

    Args:
        size: of the patches.
        token: sides of what becomes one token.
        transformer: further arguments of `Transformer`.

    Raises:
        DataError: a size or width cannot be.
    """

    mask_token: Tensor

    def __init__(
        self,
        inputs: int,
        classes: int,
        size: Sequence[int],
        token: Sequence[int],
        *,
        width: int,
        heads: int,
        **transformer: Any,
    ) -> None:
        super().__init__()
        self._size = tuple(size)
        _check(self._size, tuple(token), width, heads)
        self.down_projection: nn.Module = PatchEmbedding(inputs, width, token)
        self.up_projection = PatchDecoder(width, classes, token)
        grid = [n // side for n, side in zip(size, token, strict=True)]
        self.eva = Transformer(width=width, heads=heads, grid=grid, **transformer)
        # stands for hidden tokens in pretraining; here it is one of the weights' names and nothing else
        self.register_buffer("mask_token", torch.zeros(1, 1, width))
        initialise_convolutions(self.down_projection)
        initialise_convolutions(self.up_projection)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != self._size:
            raise ValueError(f"the network is made for patches of {self._size}, not {tuple(x.shape[2:])}")
        tokens = self.down_projection(x)
        seen = self.eva(tokens.flatten(2).transpose(1, 2)).transpose(1, 2)
        result: Tensor = self.up_projection(seen.reshape(tokens.shape))
        return result


class PatchEmbedding(nn.Module):
    """One convolution that does not overlap: each patch becomes a token."""

    def __init__(self, inputs: int, width: int, patch: Sequence[int]) -> None:
        super().__init__()
        x, y, z = patch
        self.proj = nn.Conv3d(inputs, width, (x, y, z), (x, y, z))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.proj(x)
        return result


class ConvolutionalEmbedding(nn.Module):
    """Residual convolutions that halve the axes three times; the features above are added too if `skips`."""

    def __init__(self, inputs: int, width: int, *, features: Sequence[int], nonlinearity: Any, skips: bool) -> None:
        super().__init__()
        style = LayerStyle(
            conv=nn.Conv3d,
            norm=nn.InstanceNorm3d,
            norm_options=NORM_OPTIONS,
            nonlinearity=nonlinearity,
            nonlinearity_options={"inplace": True},
        )
        first, *others = features
        self.stem = ResidualStack(BasicBlock, replace(style, bias=True), 1, inputs, first, kernel=3, stride=1)
        stages = []
        for before, after in zip(features, others, strict=False):
            stages.append(ResidualStack(BasicBlock, style, 1, before, after, kernel=3, stride=2))
        self.stages = nn.ModuleList(stages)
        self.final_proj = nn.Conv3d(others[-1], width, 1)
        self.proj_to_tokens = nn.ModuleList()
        self.scale_proj_to_tokens = nn.ParameterList()
        if skips:
            for level, count in enumerate(features[:-1]):
                side = 2 ** (len(others) - level)
                self.proj_to_tokens.append(nn.Conv3d(count, width, side, side))
            self.scale_proj_to_tokens.extend(nn.Parameter(torch.tensor(FIRST_SCALE)) for _ in self.proj_to_tokens)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        added: Tensor | None = None
        for level, stage in enumerate(self.stages):
            if self.proj_to_tokens:
                here = self.scale_proj_to_tokens[level] * self.proj_to_tokens[level](x)
                added = here if added is None else added + here
            x = stage(x)
        tokens: Tensor = self.final_proj(x)
        return tokens if added is None else tokens + added


EMBEDDINGS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "convolutions": partial(ConvolutionalEmbedding, features=FEATURES_V2, nonlinearity=nn.ReLU, skips=False),
    "convolutions_at_all_resolutions": partial(
        ConvolutionalEmbedding, features=FEATURES_V3, nonlinearity=nn.LeakyReLU, skips=True
    ),
}


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (batch, channels, *spatial)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        normal = centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + self._eps)
        across = (-1, *(1,) * (x.ndim - 2))
        return self.weight.view(across) * normal + self.bias.view(across)


class PatchDecoder(nn.Module):
    """Transposed convolutions that double the axes until each token is a patch again, with ever fewer features."""

    def __init__(self, width: int, classes: int, patch: Sequence[int]) -> None:
        super().__init__()
        steps = int(math.log2(max(patch)))
        shrinking = (width / (2 * classes)) ** (1 / steps)
        features = [width, *(_by_eights(width / shrinking ** (step + 1)) for step in range(steps - 1)), classes]
        layers: list[nn.Module] = []
        for step in range(steps):
            # the axes that are longest as patches are doubled at every step, shorter ones at the last steps alone
            x, y, z = (2 if (side / 2 ** (steps - 1 - step)) % 2 == 0 else 1 for side in patch)
            up = nn.ConvTranspose3d(features[step], features[step + 1], (x, y, z), (x, y, z))
            last = step == steps - 1
            layers.append(up if last else nn.Sequential(up, ChannelNorm(features[step + 1]), nn.GELU()))
        self.decode = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.decode(x)
        return result


def _by_eights(features: float) -> int:
    """The nearest multiple of eight, at least eight."""
    return int(max(8, round((features + 1e-6) / 8) * 8))


def build_primus(
    input_channels: int,
    output_channels: int,
    *,
    deep_supervision: bool,
    patch_size: Sequence[int],
    size: str | None = None,
    embed_dim: int | None = None,
    eva_depth: int | None = None,
    eva_numheads: int | None = None,
    embedding: Literal["patches", "convolutions", "convolutions_at_all_resolutions"] = "patches",
    patch_embed_size: Sequence[int] = (SHRINKS,) * 3,
    use_rot_pos_emb: bool = True,
    use_abs_pos_embed: bool = True,
    mlp_ratio: float = MLP_RATIO,
    drop_path_rate: float = 0.2,
    proj_drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    init_values: float | None = 0.1,
    scale_attn_inner: bool = True,
) -> Primus:
    """Build nnU-Net's `Primus`, `PrimusV2` or `PrimusV3`, initialised from torch's global generator.

    The arguments have the names of the class's; the defaults are what nnU-Net's trainers give it. There are no lower
    resolutions to supervise: `deep_supervision` changes nothing.

    Args:
        patch_size: of the configuration; the network works for no other.
        size: S, B, M or L, for the next three.
        embed_dim, eva_depth, eva_numheads: channels of a token, number of blocks, heads of each.
        embedding: how voxels become tokens: by one layer, by residual convolutions (`PrimusV2`), or by these with what
            they see at higher resolutions added (`PrimusV3`).
        patch_embed_size: voxels along each axis that make one token; 8 wherever there are convolutions.

    Raises:
        DataError: the patch is not 3D or cannot be cut into tokens, the channels do not suit the heads, or there is
            neither a size nor all that it stands for.
    """
    if size is not None and size not in SIZES:
        raise DataError(f"architecture: Primus has no size {size!r}. There are: {', '.join(SIZES)}")
    own = (embed_dim, eva_depth, eva_numheads)
    width, depth, heads = (mine or given for mine, given in zip(own, SIZES.get(size or "", (0, 0, 0)), strict=True))
    if not (width and depth and heads):
        raise DataError(
            f"architecture: Primus needs a size ({', '.join(SIZES)}), or embed_dim, eva_depth and eva_numheads"
        )
    if embedding != "patches" and tuple(patch_embed_size) != (SHRINKS,) * 3:
        raise DataError(
            f"architecture: patch_embed_size is {tuple(patch_embed_size)}; convolutions make tokens of {SHRINKS} "
            "voxels along every axis"
        )
    network = Primus(
        input_channels,
        output_channels,
        patch_size,
        patch_embed_size,
        width=width,
        heads=heads,
        depth=depth,
        rotary=use_rot_pos_emb,
        absolute=use_abs_pos_embed,
        mlp_ratio=mlp_ratio,
        drop_path=drop_path_rate,
        drop=proj_drop_rate,
        drop_attention=attn_drop_rate,
        scale=init_values,
        inner_norm=scale_attn_inner,
    )
    if embedding in EMBEDDINGS:
        # in the place of the one layer, which drew its numbers from the generator too
        network.down_projection = EMBEDDINGS[embedding](input_channels, width)
        initialise_convolutions(network.down_projection)
    return network


build_primus_v2 = partial(build_primus, embedding="convolutions")
build_primus_v3 = partial(build_primus, embedding="convolutions_at_all_resolutions")


def _check(size: tuple[int, ...], token: tuple[int, ...], width: int, heads: int) -> None:
    if len(size) != 3 or len(token) != 3:
        raise DataError(f"architecture: Primus needs patches with three axes, not {size}. Use a 3D configuration")
    if any(side < 1 or side & (side - 1) for side in token) or max(token) < 2:
        raise DataError(f"architecture: patch_embed_size is {token}; expected powers of two")
    if any(n % side for n, side in zip(size, token, strict=True)):
        raise DataError(
            f"architecture: Primus cuts patches into tokens of {token} voxels; the patch size {size} is no multiple of "
            "that. Change it: patch_size of the configuration, or --set trainer.patch_size=..."
        )
    if width % heads:
        raise DataError(f"architecture: embed_dim is {width}; expected a multiple of eva_numheads, {heads}")
