"""Positions that a transformer has learnt for its tokens, taken over to patches of another size.

They are one vector for each token of the grid that a patch is cut into. Between the tokens of one grid those of another
are interpolated, linearly along each axis, as nnssl does when it fine-tunes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

POSITIONS = "pos_embed"
"""Name of such a parameter, (1, tokens, channels) in C order; the module that has it tells its `grid`."""

Grid = tuple[int, ...]


def grid_there(content: Mapping[str, Any], tokens: int, token: Sequence[int]) -> Grid | None:
    """Tokens along each axis of the patches that a checkpoint was trained on; None if nothing tells.

    Trainers may change the patch size of their plans, so what the file says counts only where it gives as many tokens.

    Args:
        tokens: how many there are.
        token: sides of one in voxels, here and there.
    """
    for patch in _patches(content):
        if len(patch) == len(token) and not any(n % side for n, side in zip(patch, token, strict=True)):
            grid = tuple(n // side for n, side in zip(patch, token, strict=True))
            if math.prod(grid) == tokens:
                return grid
    side = round(tokens ** (1 / len(token)))
    return (side,) * len(token) if side ** len(token) == tokens else None


def interpolate(positions: Tensor, there: Grid, here: Grid) -> Tensor:
    """(1, tokens there, channels) to (1, tokens here, channels)."""
    from torch.nn import functional

    channels = positions.shape[-1]
    grid = positions.float().transpose(1, 2).reshape(1, channels, *there)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(there)]
    resized = functional.interpolate(grid, here, mode=mode, align_corners=False)
    return resized.reshape(1, channels, math.prod(here)).transpose(1, 2)


def _patches(content: Mapping[str, Any]) -> Iterator[Grid]:
    """Patch sizes that checkpoints of nnssl, segplug and nnunetv2 name, the likeliest first."""
    pretraining, init = (_mapping(content, key) for key in ("nnssl_adaptation_plan", "init_args"))
    planned = [_mapping(_mapping(pretraining, "pretrain_plan"), "configurations")]
    planned.append(_mapping(_mapping(init, "plans"), "configurations"))
    sizes = [pretraining.get("pretrain_patch_size")]
    sizes += [_mapping(configurations, name).get("patch_size") for configurations in planned for name in configurations]
    sizes.append(pretraining.get("recommended_downstream_patchsize"))
    for size in sizes:
        if isinstance(size, list | tuple) and size and all(type(n) is int and n > 0 for n in size):
            yield tuple(size)


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = content.get(key)
    return found if isinstance(found, Mapping) else {}
