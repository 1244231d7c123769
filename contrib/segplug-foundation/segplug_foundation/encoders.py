"""Encoders of timm: any of its models that gives features of several stages (`features_only`).

Nothing is ever downloaded: models are built from their names with random weights. Weights come from a local file
(`segplug_foundation.weights`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segplug.errors import DataError
from segplug_foundation import NAME
from segplug_foundation.timm_library import timm

if TYPE_CHECKING:
    from torch import nn

DEFAULT_ENCODER = "resnet18"

OURS = {
    "pretrained": "weights come by --pretrained",
    "pretrained_cfg": "weights come by --pretrained",
    "pretrained_cfg_overlay": "weights come by --pretrained",
    "checkpoint_path": "weights come by --pretrained",
    "cache_dir": "nothing is downloaded",
    "features_only": "it is always on",
    "feature_cls": "it is always 'getter'",
    "in_chans": "it is the number of the data set's channels",
    "img_size": "it is the patch size",
    "num_classes": "the decoder makes the output",
}
"""Arguments of `timm.create_model` that are no options here, and why."""


@dataclass(frozen=True)
class Features:
    """What an encoder gives to a decoder.

    Args:
        channels: resolution -> channels, resolution 4 being a quarter of the patch's; from fine to coarse.
        indices: resolution -> places in the list that the encoder returns.
    """

    channels: Mapping[int, int]
    indices: Mapping[int, tuple[int, ...]]

    @property
    def stride(self) -> int:
        """Coarsest resolution: the patch must be a multiple of it."""
        return max(self.channels)


def build_encoder(
    name: str,
    channels: int,
    patch_size: Sequence[int],
    options: Mapping[str, Any] | None = None,
    *,
    whole: bool = False,
) -> nn.Module:
    """Build an encoder on torch's default device, initialised from torch's global generator.

    Args:
        name: timm's, with or without the tag of its weights: `resnet18`, `convnext_tiny.fb_in22k`.
        channels: of the image; timm makes the first layer for them.
        patch_size: of the configuration, two axes. Models with embedded positions or windows are made for it.
        options: further arguments of `timm.create_model`, such as `drop_path_rate` or `out_indices`.
        whole: the model as timm has it, with its head, rather than one that returns a list of features.

    Raises:
        DataError: no such model, or the model does not take an option or gives no features.
    """
    _check_name(name)
    given = dict(options or {})
    for option in given:
        if option in OURS:
            raise DataError(f"architecture {NAME}: encoder_options has {option!r}, which it cannot: {OURS[option]}")
    if whole:
        given = {key: value for key, value in given.items() if key != "out_indices"}
    form = {} if whole else {"features_only": True, "feature_cls": "getter"}
    try:
        made = _create(name, tuple(patch_size), in_chans=channels, **form, **given)
    except Exception as error:  # timm's models fail in many ways, of which none is a fault of segplug's
        told = f" with {dict(options)}" if options else ""
        raise DataError(
            f"architecture {NAME}: timm's {name!r} cannot be built for a patch of {list(patch_size)}{told}: "
            f"{type(error).__name__}: {error}. It has to give features of its stages (features_only)"
        ) from error
    return made


def features_of(encoder: nn.Module, name: str) -> Features:
    """Channels and resolutions of an encoder's features.

    Raises:
        DataError: its resolutions are not powers of two, or it does not shrink the image.
    """
    info: Any = encoder.feature_info
    reductions, widths = list(info.reduction()), list(info.channels())
    if any(r < 1 or r & (r - 1) for r in reductions) or max(reductions) < 2:
        raise DataError(
            f"architecture {NAME}: the features of timm's {name!r} are smaller than the image by {reductions}; "
            "expected powers of two, for a decoder that doubles the resolution step by step. Use another encoder"
        )
    channels: dict[int, int] = {}
    indices: dict[int, tuple[int, ...]] = {}
    for index in sorted(range(len(reductions)), key=lambda i: (reductions[i], i)):
        resolution = reductions[index]
        channels[resolution] = channels.get(resolution, 0) + widths[index]
        indices[resolution] = (*indices.get(resolution, ()), index)
    return Features(channels, indices)


def check_patch(patch_size: Sequence[int], stride: int, name: str) -> None:
    """Refuse a patch that the encoder cannot halve as often as it does.

    Raises:
        DataError: with the nearest patch that would do.
    """
    if len(patch_size) != 2:
        raise DataError(
            f"architecture {NAME}: patch_size {list(patch_size)}; timm's encoders see pictures, so expected two axes. "
            f"Train a 2d configuration, of plans by --planner {NAME}"
        )
    if any(n % stride for n in patch_size):
        nearest = [max(1, round(n / stride)) * stride for n in patch_size]
        raise DataError(
            f"architecture {NAME}: patch_size {list(patch_size)}; expected multiples of {stride}, by which {name!r} "
            f"shrinks it. Plan with --planner {NAME}, or set trainer.patch_size={nearest}"
        )


def _check_name(name: str) -> None:
    library = timm()
    base = name.partition(".")[0]
    if ":" in name or "/" in name:
        raise DataError(
            f"architecture {NAME}: encoder {name!r}; expected a name of timm's such as {DEFAULT_ENCODER!r}. Nothing is "
            "taken from a hub or a folder; weights of a local file: segplug timm weights"
        )
    if not library.is_model(base):
        near = difflib.get_close_matches(base, library.list_models(), n=3, cutoff=0.6)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise DataError(
            f"architecture {NAME}: timm {library.__version__} has no model {name!r}.{hint} "
            "segplug timm encoders 'convnext*' lists those whose names begin so"
        )


def _create(name: str, size: tuple[int, ...], **arguments: Any) -> nn.Module:
    """The model, made for images of this size if it is made for one size."""
    library = timm()
    try:
        made: nn.Module = library.create_model(name, pretrained=False, img_size=size, **arguments)
    except TypeError as error:  # before anything random was drawn
        if "img_size" not in str(error):
            raise
        made = library.create_model(name, pretrained=False, **arguments)
    return made
