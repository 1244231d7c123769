"""The transformer of Primus: attention with rotary positions in three axes and gated feed-forward layers.

It is EVA-02's (Fang et al. 2023, "EVA-02: A Visual Representation for Neon Genesis"): norms before each part, a norm
within both, learned scales of the residuals (LayerScale, Touvron et al. 2021) and stochastic depth (Huang et al. 2016).
Attribute names follow timm's `EvaBlock`, for they are the keys of the weights. Modules are made and initialised in its
order, so that one seed gives one set of initial weights in both programs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segplug.errors import DataError

MLP_RATIO = 4 * 2 / 3
"""Width of the feed-forward layers relative to the tokens': two thirds of the usual 4, as there are two of them."""

WAVELENGTH = 10000.0
"""Largest wavelength of the rotary positions, over two pi (Su et al. 2021, "RoFormer")."""

STANDARD_DEVIATION = 0.02
"""Of the initial weights."""


class Transformer(nn.Module):
    """Blocks of attention and feed-forward layers over the tokens of a grid.

    Maps (batch, tokens, width) to the same; tokens are the grid's in C order.

    Args:
        width: of the tokens.
        depth: number of blocks.
        heads: of the attention.
        grid: tokens along each of the three axes.
        drop_path: probability that a sample skips a part of the last block; it rises from 0 in the first.
        drop: probability of dropout after the attention's and in the feed-forward layers; `drop_attention` within it.
        scale: initial scale of the residuals; None leaves the scales out.
        inner_norm: whether the attention has a norm before its last layer.
        absolute, rotary: which positions there are.

    Raises:
        DataError: the width of a head does not suit the rotary positions.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        grid: Sequence[int],
        mlp_ratio: float = MLP_RATIO,
        drop_path: float = 0.0,
        drop: float = 0.0,
        drop_attention: float = 0.0,
        scale: float | None = None,
        inner_norm: bool = False,
        absolute: bool = True,
        rotary: bool = True,
    ) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.pos_embed = nn.Parameter(torch.zeros(1, math.prod(grid), width)) if absolute else None
        self.rope = RotaryPositions(width // heads, grid) if rotary else None
        rates = [drop_path * block / max(1, depth - 1) for block in range(depth)]
        blocks = [
            Block(
                width,
                heads,
                hidden=int(width * mlp_ratio),
                drop_path=rate,
                drop=drop,
                drop_attention=drop_attention,
                scale=scale,
                inner_norm=inner_norm,
            )
            for rate in rates
        ]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.apply(_initialise)
        if self.pos_embed is not None:
            _draw_normal(self.pos_embed)
        with torch.no_grad():
            for number, block in enumerate(blocks, 1):
                block.shrink(number)

    def forward(self, x: Tensor) -> Tensor:
        if self.pos_embed is not None:
            x = x + self.pos_embed
        positions = None if self.rope is None else self.rope()
        for block in self.blocks:
            x = block(x, positions)
        result: Tensor = self.norm(x)
        return result


class RotaryPositions(nn.Module):
    """Sine and cosine of each token's place, by which pairs of channels are turned (Su et al. 2021, "RoFormer").

    A third of the pairs for each axis. The table is no weight: it is not saved.

    Args:
        width: channels of a head.
        grid: tokens along each axis.

    Raises:
        DataError: the channels cannot be shared out: their number has to be a multiple of six.
    """

    table: Tensor

    def __init__(self, width: int, grid: Sequence[int]) -> None:
        super().__init__()
        # nnU-Net wants a whole multiple of four of two thirds of the channels
        if width % 6:
            raise DataError(
                f"architecture: the heads of the attention have {width} channels, which three axes cannot share in "
                "pairs. embed_dim / eva_numheads has to be a multiple of 6"
            )
        pairs = width // 6
        frequencies = 1.0 / WAVELENGTH ** (torch.arange(pairs, dtype=torch.float32) / pairs)
        places = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in grid), indexing="ij")
        angles = torch.cat([place.reshape(-1, 1) * frequencies for place in places], 1)
        table = torch.stack([angles.sin(), angles.cos()]).repeat_interleave(2, -1)
        self.register_buffer("table", table, persistent=False)

    def forward(self) -> Tensor:
        """(2, tokens, width): sines and cosines, each twice in a row."""
        return self.table


def turn(x: Tensor, positions: Tensor) -> Tensor:
    """Turn pairs of channels of (..., tokens, width) by the angles of the tokens' places."""
    sine, cosine = positions
    turned = torch.stack((-x[..., 1::2], x[..., ::2]), -1).reshape(x.shape)
    result: Tensor = x * cosine + turned * sine
    return result


class Block(nn.Module):
    """Attention and feed-forward layers, each with a way around it."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        hidden: int,
        drop_path: float,
        drop: float,
        drop_attention: float,
        scale: float | None,
        inner_norm: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, drop=drop, drop_attention=drop_attention, inner_norm=inner_norm)
        self.gamma_1 = None if scale is None else nn.Parameter(torch.full((width,), scale))
        self.norm2 = nn.LayerNorm(width)
        self.mlp = GatedLayers(width, hidden, drop)
        self.gamma_2 = None if scale is None else nn.Parameter(torch.full((width,), scale))
        self.drop_path = drop_path

    def shrink(self, number: int) -> None:
        """Scale the initial weights by which the block adds: deeper ones add less (Bao et al. 2021, "BEiT")."""
        for layer in (self.attn.proj, self.mlp.fc2):
            layer.weight.div_(math.sqrt(2.0 * number))

    def forward(self, x: Tensor, positions: Tensor | None) -> Tensor:
        x = self._add(x, self.attn(self.norm1(x), positions), self.gamma_1)
        return self._add(x, self.mlp(self.norm2(x)), self.gamma_2)

    def _add(self, x: Tensor, branch: Tensor, scale: Tensor | None) -> Tensor:
        branch = branch if scale is None else scale * branch
        if self.training and self.drop_path:
            keep = 1 - self.drop_path
            kept = branch.new_empty((len(branch), *(1,) * (branch.ndim - 1))).bernoulli_(keep)
            branch = branch * kept.div_(keep)
        return x + branch


class Attention(nn.Module):
    """Attention of all tokens to all, queries and keys turned by the tokens' places. Keys have no bias."""

    def __init__(self, width: int, heads: int, *, drop: float, drop_attention: float, inner_norm: bool) -> None:
        super().__init__()
        self.heads, self.drop_attention = heads, drop_attention
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width) if inner_norm else nn.Identity()
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(drop)

    def forward(self, x: Tensor, positions: Tensor | None) -> Tensor:
        q, k, v = (self._in_heads(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        if positions is not None:  # in float32 whatever the precision; attention wants one type
            q, k = turn(q, positions).type_as(v), turn(k, positions).type_as(v)
        drop = self.drop_attention if self.training else 0.0
        x = functional.scaled_dot_product_attention(q, k, v, dropout_p=drop).transpose(1, 2).flatten(2)
        result: Tensor = self.proj_drop(self.proj(self.norm(x)))
        return result

    def _in_heads(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to (batch, heads, tokens, width of a head)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class GatedLayers(nn.Module):
    """Two layers, the first gated by another through SiLU (Shazeer 2020, "GLU Variants Improve Transformer")."""

    def __init__(self, width: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.fc1_g = nn.Linear(width, hidden)
        self.fc1_x = nn.Linear(width, hidden)
        self.drop1 = nn.Dropout(drop)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        gated = self.drop1(functional.silu(self.fc1_g(x)) * self.fc1_x(x))
        result: Tensor = self.drop2(self.fc2(self.norm(gated)))
        return result


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        _draw_normal(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def _draw_normal(weight: Tensor) -> None:
    """Normal numbers from uniform ones, through the inverse of the distribution function; none beyond 2."""
    weight.uniform_(-1, 1).erfinv_().mul_(STANDARD_DEVIATION * math.sqrt(2.0)).clamp_(-2, 2)
