"""Configurations as nnU-Net v2 wrote them before its plans named the network's class and arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segplug.errors import DataError

_CLASSES = {
    "PlainConvUNet": ("dynamic_network_architectures.architectures.unet.PlainConvUNet", "n_conv_per_stage"),
    # that module is no more, but it is the name that nnU-Net 2.8.1 puts into converted plans
    "ResidualEncoderUNet": (
        "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet",
        "n_blocks_per_stage",
    ),
}
OLD_KEYS = (
    "UNet_class_name",
    "UNet_base_num_features",
    "n_conv_per_stage_encoder",
    "n_conv_per_stage_decoder",
    "num_pool_per_axis",
    "pool_op_kernel_sizes",
    "conv_kernel_sizes",
    "unet_max_num_features",
)


def is_old(entry: Mapping[str, Any]) -> bool:
    """Whether a resolved configuration describes its network the old way."""
    return "architecture" not in entry and "UNet_class_name" in entry


def convert(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The configuration with the old keys replaced by `architecture`, as nnU-Net 2.8.1 does.

    Args:
        entry: a configuration with all that it inherits.
        where: file and configuration, for messages.

    Raises:
        DataError: the network is none of the two that old plans knew, or a key is missing.
    """
    if entry["UNet_class_name"] not in _CLASSES:
        raise DataError(
            f"{where}: UNet_class_name is {entry['UNet_class_name']!r}; plans of this age can be converted for "
            f"{' and '.join(_CLASSES)} only. Plan the data set again"
        )
    missing = [key for key in OLD_KEYS if key not in entry]
    if missing:
        raise DataError(f"{where}: an old plan without {', '.join(missing)}. Plan the data set again")
    class_name, convolutions = _CLASSES[entry["UNet_class_name"]]
    blocks = entry["n_conv_per_stage_encoder"]
    features = [min(entry["UNet_base_num_features"] * 2**i, entry["unet_max_num_features"]) for i in range(len(blocks))]
    dimensions = len(entry["patch_size"])
    converted = {key: value for key, value in entry.items() if key not in OLD_KEYS}
    converted["architecture"] = {
        "network_class_name": class_name,
        "arch_kwargs": {
            "n_stages": len(blocks),
            "features_per_stage": features,
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": entry["conv_kernel_sizes"],
            "strides": entry["pool_op_kernel_sizes"],
            convolutions: blocks,
            "n_conv_per_stage_decoder": entry["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    return converted
