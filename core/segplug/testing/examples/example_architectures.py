"""A network of two convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from segplug import Component, hookimpl
from segplug.protocols import Architecture

if TYPE_CHECKING:
    from torch import nn


def build_two_convolutions(
    input_channels: int, output_channels: int, *, deep_supervision: bool, features: int = 16, dimensions: int = 3
) -> nn.Module:
    """Build it. `features` and `dimensions` stand in the plan; deep supervision it has none."""
    from torch import nn

    convolution = nn.Conv3d if dimensions == 3 else nn.Conv2d
    return nn.Sequential(
        convolution(input_channels, features, 3, padding=1), nn.LeakyReLU(), convolution(features, output_channels, 1)
    )


@hookimpl
def segplug_architectures() -> Iterator[Component[Architecture]]:
    yield Component("two_convolutions", f"{__name__}:build_two_convolutions", "two convolutions")
