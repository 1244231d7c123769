"""Augmentations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Parameters = Mapping[str, Any]
"""What was drawn for one sample: plain numbers and small arrays."""


@dataclass(frozen=True)
class AugmentationContext:
    """What an augmentation has to know of the training.

    Args:
        patch_size: what the network sees; two or three axes.
        channels: image channels.
        use_mask_for_norm: per channel; such a channel is 0 outside the nonzero mask (label -1), and stays so.
        labels: foreground labels that the previous stage of a cascade can predict; empty without a cascade.
        validation: True where only what validation needs shall be done (no random change).
    """

    patch_size: tuple[int, ...]
    channels: int
    use_mask_for_norm: tuple[bool, ...] = ()
    labels: tuple[int, ...] = ()
    validation: bool = False


@dataclass(frozen=True)
class Batch:
    """Samples on their way to the network, on whatever device.

    Args:
        data: float32 (batch, channels, *spatial).
        target: int16 (batch, 1, *spatial): labels, -1 outside the image or the nonzero mask; what
            is left of it after augmentation becomes background.
        cases: names of the cases the samples came from.
        previous: int16 (batch, 1, *spatial), labels predicted by the previous stage of a cascade (-1 outside), or None.
            It moves with the target; what is left of it becomes one channel per label, which the framework adds.
        extra: what an augmentation wants a trainer to have besides, by name; tensors (on the CPU) or plain values.
    """

    data: Tensor
    target: Tensor
    cases: tuple[str, ...] = ()
    previous: Tensor | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Augmentation(Protocol):
    """Changes whole batches by parameters that were drawn beforehand, sample by sample.

    The factory gets its options and, by name, `context: AugmentationContext`. An attribute `mirror_axes`, a tuple of
    the spatial axes that it mirrors along, lets prediction average over mirrored images; without it, it does not.
    """

    def source_size(self) -> tuple[int, ...]:
        """Largest region that any draw can need, at least the patch size. Patches are placed for this size."""
        ...

    def draw(self, random: np.random.Generator) -> Parameters:
        """Draw one sample's parameters. The same generator state gives the same parameters."""
        ...

    def needed_size(self, parameters: Parameters) -> tuple[int, ...]:
        """Size of the region that these parameters read, concentric with the source; at most `source_size()`.

        Of two concentric regions, the inner one begins at ``outer // 2 - inner // 2`` voxels from where the outer does.
        """
        ...

    def __call__(self, batch: Batch, parameters: Sequence[Parameters]) -> Batch:
        """Return the augmented batch, of spatial size `patch_size`.

        The batch's arrays have one size at least as large as every sample's `needed_size`, concentric with the source;
        what a sample's parameters do not need may be padding. A pure function: all randomness is in `parameters`, and
        the batch given is left as it was.
        """
        ...
