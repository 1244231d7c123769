"""The decoder, and the U-Net that joins it to an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segplug_builtin.architectures.blocks import ConvStack, LayerStyle


class Encoder(nn.Module):
    """Stages from full to lowest resolution. `forward` returns the features of every stage.

    A subclass sets `stages` (and a stem, if it has one) and names its shape for the decoder.
    """

    stages: nn.Sequential

    def __init__(
        self, style: LayerStyle, features: Sequence[int], kernels: Sequence[Any], strides: Sequence[Any]
    ) -> None:
        super().__init__()
        self.stem: nn.Module | None = None
        self.style = style
        self.features = list(features)
        self.kernels = list(kernels)
        self.strides = [style.size(s) for s in strides]

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.stem is not None:
            x = self.stem(x)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs


class Decoder(nn.Module):
    """Transposed convolutions up, features of the encoder beside them, a segmentation layer for each resolution.

    The layers of the lower resolutions exist without deep supervision too, so that weights always fit. The encoder is
    a submodule again because nnU-Net's checkpoints hold it under `decoder.encoder` as well.
    """

    def __init__(self, encoder: Encoder, classes: int, convs: Sequence[int], deep_supervision: bool) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.encoder = encoder
        style, features = encoder.style, encoder.features
        stages, ups, heads = [], [], []
        for level, count in zip(range(len(features) - 2, -1, -1), convs, strict=True):
            below, here, stride = features[level + 1], features[level], encoder.strides[level + 1]
            ups.append(style.transposed_conv(below, here, stride, stride, bias=style.bias))
            stages.append(ConvStack(style, count, 2 * here, here, kernel=encoder.kernels[level]))
            heads.append(style.conv(here, classes, 1, bias=True))
        if not heads:  # images too small for a second stage
            heads.append(style.conv(features[0], classes, 1, bias=True))
        # the order of nnU-Net's decoder, which numbers the parameters in an optimiser's state
        self.stages = nn.ModuleList(stages)
        self.transpconvs = nn.ModuleList(ups)
        self.seg_layers = nn.ModuleList(heads)

    def forward(self, skips: list[Tensor]) -> Tensor | list[Tensor]:
        """Logits; with deep supervision a list of them, from full to lowest resolution. Empties `skips`."""
        x = skips.pop()
        features = []
        for up, stage in zip(self.transpconvs, self.stages, strict=True):
            x = stage(torch.cat((up(x), skips.pop()), 1))
            if self.deep_supervision:
                features.append(x)
        if not self.deep_supervision:
            result: Tensor = self.seg_layers[-1](x)
            return result
        outputs = [head(f) for head, f in zip(self.seg_layers, features or [x], strict=True)]
        return outputs[::-1]


class UNet(nn.Module):
    """An encoder and a decoder.

    Maps (batch, channels, *patch) to logits (batch, classes, *patch); while `deep_supervision` is True to a list of
    logits from full to lowest resolution. Every side of the patch must be divisible by the product of its axis's
    strides.
    """

    def __init__(self, encoder: Encoder, classes: int, decoder_convs: Sequence[int], deep_supervision: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder(encoder, classes, decoder_convs, deep_supervision)

    @property
    def deep_supervision(self) -> bool:
        """Whether the lower resolutions' logits are returned too."""
        return self.decoder.deep_supervision

    @deep_supervision.setter
    def deep_supervision(self, value: bool) -> None:
        self.decoder.deep_supervision = value

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        result: Tensor | list[Tensor] = self.decoder(self.encoder(x))
        return result
