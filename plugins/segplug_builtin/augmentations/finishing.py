"""What every augmentation does last, as nnU-Net does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from segplug.protocols import Batch
from segplug.runtime.device import sent

OUTSIDE = -1
"""Label outside of the image, of the region that was read, or of the nonzero mask."""


def label_maps(batch: Batch) -> Tensor:
    """All label maps of a batch, which move together: the target, then what the previous stage predicted."""
    return batch.target if batch.previous is None else torch.cat((batch.target, batch.previous), 1)


def mask_outside(data: Tensor, maps: Tensor, use_mask_for_norm: Sequence[bool]) -> None:
    """Set channels that were normalised inside the nonzero mask to 0 outside of it, in place."""
    if any(use_mask_for_norm):
        masked = sent(torch.tensor(use_mask_for_norm), data.device).view(1, -1, *[1] * (data.ndim - 2))
        data.masked_fill_(masked & (maps[:, :1] < 0), 0)


def finished(batch: Batch, data: Tensor, maps: Tensor) -> Batch:
    """The batch with new arrays, and background instead of label -1."""
    maps = maps.clamp(min=0)
    return replace(batch, data=data, target=maps[:, :1], previous=None if batch.previous is None else maps[:, 1:])
