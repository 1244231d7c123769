"""Patches that each network takes, and what it keeps in memory for one: arithmetic alone, torch is not imported.

The factors of memory were fitted to what autograd keeps for the backward pass in float32, over patches and widths
(MONAI 1.6.1); tests/test_memory.py measures it again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from segplug.errors import DataError

WINDOW = 7
SWIN_DEPTHS = (2, 2, 2, 2)
SWIN_HEADS = (3, 6, 12, 24)
SEGRESNET_BLOCKS = (1, 2, 2, 4)
UNETR_TOKEN = 16
UNETR_WIDTH, UNETR_LAYERS, UNETR_HEADS = 768, 12, 12
"""MONAI's defaults, with which networks are planned."""


@dataclass(frozen=True)
class Patches:
    """Which patches a network takes.

    Args:
        architecture: its component.
        divisor: per axis, what the patch must be a multiple of.
        least: how many boxes of these sides the patch must have.
    """

    architecture: str
    divisor: tuple[int, ...]
    least: int = 1

    def check(self, patch_size: Sequence[int]) -> None:
        """Refuse another patch.

        Raises:
            DataError: with the nearest patch that would do.
        """
        if self._fits(patch_size):
            return
        nearest = [max(1, round(n / d)) * d for n, d in zip(patch_size, self.divisor, strict=True)]
        while not self._fits(nearest):
            axis = max(range(len(nearest)), key=lambda a: patch_size[a] / nearest[a])
            nearest[axis] += self.divisor[axis]
        more = f", {self.least} of these boxes at least" if self.least > 1 else ""
        raise DataError(
            f"architecture {self.architecture}: patch_size {list(patch_size)}; expected multiples of "
            f"{list(self.divisor)}{more}. Plan with --planner {self.architecture}, or set trainer.patch_size={nearest}"
        )

    def _fits(self, patch_size: Sequence[int]) -> bool:
        parts = list(zip(patch_size, self.divisor, strict=True))
        return all(n >= d and n % d == 0 for n, d in parts) and math.prod(n // d for n, d in parts) >= self.least


def patches_of_segresnet(axes: int, stages: int = len(SEGRESNET_BLOCKS)) -> Patches:
    """Each stage but the first halves the patch."""
    return Patches("monai_segresnet", (2 ** (stages - 1),) * axes)


UNETR = {axes: Patches("monai_unetr", (UNETR_TOKEN,) * axes) for axes in (2, 3)}
SWINUNETR = {axes: Patches("monai_swinunetr", (32,) * axes, least=2) for axes in (2, 3)}
"""Five halvings; the last features are normalised over space, which takes two voxels."""


def kept_by_segresnet(patch: Sequence[int], features: int) -> float:
    """Values that SegResNet keeps for the backward pass of one sample."""
    return {2: 23.8, 3: 15.8}[len(patch)] * features * math.prod(patch)


def kept_by_unetr(patch: Sequence[int], features: int) -> float:
    """Values that UNETR keeps: convolutions, tokens, and the attention of every token to every other."""
    of_features, of_tokens, of_attention = {2: (22.7, 16.9, 1.0), 3: (16.1, 16.9, 1.0)}[len(patch)]
    tokens = math.prod(n // UNETR_TOKEN for n in patch)
    return (
        of_features * features * math.prod(patch)
        + of_tokens * tokens * UNETR_WIDTH * UNETR_LAYERS
        + of_attention * tokens**2 * UNETR_HEADS * UNETR_LAYERS
    )


def kept_by_swinunetr(patch: Sequence[int], features: int) -> float:
    """Values that SwinUNETR keeps: convolutions, and of each stage tokens, in whole windows, and attention."""
    of_features, of_tokens, of_attention = {2: (28.2, 5.8, 1.05), 3: (17.6, 5.95, 1.02)}[len(patch)]
    kept = of_features * features * math.prod(patch)
    for stage, (depth, heads) in enumerate(zip(SWIN_DEPTHS, SWIN_HEADS, strict=True)):
        tokens = [n // 2 ** (stage + 1) for n in patch]
        windows = [min(WINDOW, n) for n in tokens]
        filled = math.prod(math.ceil(n / w) * w for n, w in zip(tokens, windows, strict=True))
        kept += depth * filled * (of_tokens * features * 2**stage + of_attention * math.prod(windows) * heads)
    return kept
