"""What a U-Net costs, by arithmetic on its shape: no network is built and torch is not needed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from segplug_builtin.planners.topology import Sizes


@dataclass(frozen=True)
class UNetShape:
    """A U-Net as far as its cost depends on it.

    Args:
        outputs: channels of the output.
        features: per stage. `kernel_sizes` and `strides` are per stage and axis.
        encoder_blocks: per stage, convolutions (plain) or blocks of two convolutions (residual).
        decoder_convolutions: per decoder stage.
        residual: whether the encoder has a stem and residual blocks.
    """

    inputs: int
    outputs: int
    features: tuple[int, ...]
    kernel_sizes: Sizes
    strides: Sizes
    encoder_blocks: tuple[int, ...]
    decoder_convolutions: tuple[int, ...]
    residual: bool


@dataclass(frozen=True)
class Convolution:
    """One convolution: `taps` is its kernel's voxels, `voxels` those of its output."""

    inputs: int
    outputs: int
    taps: int
    voxels: int


def feature_map_cost(unet: UNetShape, patch_size: Sequence[int]) -> int:
    """Values in the outputs of all convolutions, for one sample.

    nnU-Net's stand-in for GPU memory; transposed convolutions and the full-resolution head count, deep supervision's
    further heads do not.
    """
    return sum(c.outputs * c.voxels for c in convolutions(unet, patch_size))


def multiply_adds(unet: UNetShape, patch_size: Sequence[int]) -> int:
    """Multiply-adds of one sample's forward pass; a training step takes about three times as many."""
    return sum(c.inputs * c.outputs * c.taps * c.voxels for c in convolutions(unet, patch_size))


def convolutions(unet: UNetShape, patch_size: Sequence[int]) -> Iterator[Convolution]:
    """Every convolution of the network that makes full-resolution logits."""
    size = tuple(patch_size)
    inputs = unet.inputs
    sizes = []
    if unet.residual:
        yield Convolution(inputs, unet.features[0], math.prod(unet.kernel_sizes[0]), math.prod(size))
        inputs = unet.features[0]
    for stage, features in enumerate(unet.features):
        strides = unet.strides[stage]
        size = tuple(n // s for n, s in zip(size, strides, strict=True))
        sizes.append(size)
        shrinks = any(s != 1 for s in strides)
        yield from _encoder_stage(unet, stage, inputs, math.prod(size), shrinks)
        inputs = features
    for stage in reversed(range(len(unet.features) - 1)):
        features, voxels = unet.features[stage], math.prod(sizes[stage])
        taps = math.prod(unet.kernel_sizes[stage])
        # a transposed convolution whose kernel is its stride: each output voxel has one tap
        yield Convolution(unet.features[stage + 1], features, 1, voxels)
        for index in range(unet.decoder_convolutions[stage]):
            yield Convolution(features if index else 2 * features, features, taps, voxels)
    if len(unet.features) > 1:
        yield Convolution(unet.features[0], unet.outputs, 1, math.prod(sizes[0]))


def _encoder_stage(unet: UNetShape, stage: int, inputs: int, voxels: int, shrinks: bool) -> Iterator[Convolution]:
    features, taps = unet.features[stage], math.prod(unet.kernel_sizes[stage])
    for _ in range(unet.encoder_blocks[stage]):
        yield Convolution(inputs, features, taps, voxels)
        if unet.residual:
            yield Convolution(features, features, taps, voxels)
            if shrinks or inputs != features:
                yield Convolution(inputs, features, 1, voxels)  # the skip has to be projected
        inputs, shrinks = features, False
