"""Architectures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn


class Architecture(Protocol):
    """A function that builds a network. The plan's `arch_kwargs` arrive as further keywords, plain JSON values.

    A function with a parameter `patch_size` gets that of the configuration, unless the plan's arguments have one.

    The network maps float32 (batch, input_channels, *patch) to logits (batch, output_channels, *patch). With
    `deep_supervision` it may return, in training mode, a list of logits from full to lowest resolution. If it has a
    writable attribute `deep_supervision`, prediction sets it to False; one that always returns a tensor works too.

    Its weights are initialised when it comes back, from torch's global generator, which the caller has seeded.

    A transformer that learns a vector for each token of a patch keeps them as `pos_embed` (1, tokens, channels), in a
    module whose `grid` says how many tokens lie along each axis: `--pretrained` takes them over to other patch sizes.
    """

    def __call__(self, input_channels: int, output_channels: int, *, deep_supervision: bool) -> nn.Module: ...
