"""A U-Net on an encoder of timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segplug.errors import DataError
from segplug_foundation import NAME
from segplug_foundation.encoders import DEFAULT_ENCODER, Features, build_encoder, check_patch, features_of

SLOPE = 0.01
"""Of the leaky ReLUs, nnU-Net's."""


class Convolutions(nn.Sequential):
    """3 x 3 convolutions, each with instance normalisation and a leaky ReLU, as in nnU-Net's decoders."""

    def __init__(self, inputs: int, outputs: int, count: int) -> None:
        layers: list[nn.Module] = []
        for index in range(count):
            layers += [
                nn.Conv2d(outputs if index else inputs, outputs, 3, padding=1),
                nn.InstanceNorm2d(outputs, affine=True),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
        super().__init__(*layers)


class Decoder(nn.Module):
    """From the encoder's coarsest features to the full resolution, doubling step by step.

    Features of the encoder come in where it has some of a resolution. At the full resolution few encoders have, so
    convolutions of the image itself (`stem`) stand in for them. Every resolution has a layer that makes logits,
    whether deep supervision uses it or not, so that weights do not depend on it.

    Args:
        widths: features of each resolution, from half of the coarsest to the full one.
    """

    def __init__(
        self, features: Features, channels: int, classes: int, widths: Sequence[int], convolutions: int
    ) -> None:
        super().__init__()
        self.resolutions = [features.stride >> (step + 1) for step in range(len(widths))]
        self.stem = None if 1 in features.channels else Convolutions(channels, widths[-1], 1)
        below = features.channels[features.stride]
        ups, stages, heads = [], [], []
        for resolution, width in zip(self.resolutions, widths, strict=True):
            beside = features.channels.get(resolution, widths[-1] if resolution == 1 else 0)
            ups.append(nn.ConvTranspose2d(below, width, 2, 2))
            stages.append(Convolutions(width + beside, width, convolutions))
            heads.append(nn.Conv2d(width, classes, 1))
            below = width
        self.ups, self.stages = nn.ModuleList(ups), nn.ModuleList(stages)
        # segplug's name of the layers that begin anew where labels differ (train --pretrained)
        self.seg_layers = nn.ModuleList(heads)

    def forward(self, image: Tensor, features: Mapping[int, Tensor]) -> list[Tensor]:
        """Features of each resolution, from coarse to full."""
        skips = dict(features)
        x = skips[max(skips)]
        if self.stem is not None:
            skips[1] = self.stem(image)
        found = []
        for resolution, up, stage in zip(self.resolutions, self.ups, self.stages, strict=True):
            x = up(x)
            if resolution in skips:
                x = torch.cat((x, skips[resolution]), 1)
            x = stage(x)
            found.append(x)
        return found


class TimmUNet(nn.Module):
    """Maps (batch, channels, y, x) to logits (batch, classes, y, x).

    In training mode, with `deep_supervision`, to a list of logits from the full resolution to half of the encoder's
    coarsest one. `encoder.model` is timm's model with timm's names of weights.
    """

    def __init__(self, encoder: nn.Module, features: Features, decoder: Decoder, deep_supervision: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.deep_supervision = deep_supervision
        self._indices = dict(features.indices)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        given: Sequence[Tensor] = self.encoder(image)
        joined = {
            resolution: given[at[0]] if len(at) == 1 else torch.cat([given[index] for index in at], 1)
            for resolution, at in self._indices.items()
        }
        found = self.decoder(image, joined)
        heads = self.decoder.seg_layers
        if self.training and self.deep_supervision:
            return [head(x) for head, x in zip(heads, found, strict=True)][::-1]
        logits: Tensor = heads[-1](found[-1])
        return logits


def build_timm_unet(
    input_channels: int,
    output_channels: int,
    *,
    deep_supervision: bool,
    patch_size: Sequence[int],
    encoder: str = DEFAULT_ENCODER,
    encoder_options: Mapping[str, Any] | None = None,
    decoder_base: int = 32,
    decoder_most: int = 256,
    decoder_convolutions: int = 2,
) -> nn.Module:
    """Build a `TimmUNet`, initialised from torch's global generator.

    Args:
        patch_size: of the configuration: two axes, multiples of the encoder's stride.
        encoder: name of a model of timm.
        encoder_options: further arguments of it, such as ``{"drop_path_rate": 0.1}``.
        decoder_base: features at full resolution; each coarser one has twice as many, up to `decoder_most`.
        decoder_convolutions: of each resolution.

    Raises:
        DataError: there is no such encoder, or patch and encoder do not go together.
    """
    for option, value in (("base", decoder_base), ("most", decoder_most), ("convolutions", decoder_convolutions)):
        if value < 1:
            raise DataError(f"architecture {NAME}: decoder_{option} {value}; expected 1 or more")
    if len(patch_size) != 2:
        check_patch(patch_size, 1, encoder)
    made = build_encoder(encoder, input_channels, patch_size, encoder_options)
    features = features_of(made, encoder)
    check_patch(patch_size, features.stride, encoder)
    steps = features.stride.bit_length() - 1
    widths = [min(decoder_base << step, decoder_most) for step in reversed(range(steps))]
    decoder = Decoder(features, input_channels, output_channels, widths, decoder_convolutions)
    for module in decoder.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return TimmUNet(made, features, decoder, deep_supervision)
