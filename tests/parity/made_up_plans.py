"""Plans as people edit them, and as nnU-Net once wrote them, made from a plan with a cascade."""

from __future__ import annotations

import copy
import random
from typing import Any

Plans = dict[str, Any]


def edited_plans(base: Plans) -> dict[str, Plans]:
    """Plans by what was done to them."""
    made = {
        "as planned": base,
        "a chain of three": with_added(
            base,
            {
                "larger_batch": {"inherits_from": "3d_fullres", "batch_size": 4},
                "masked": {"inherits_from": "larger_batch", "use_mask_for_norm": [True]},
                "coarse": {"inherits_from": "masked", "data_identifier": "coarse", "spacing": [3.0, 2.0, 2.0]},
            },
        ),
        "children before their parents": {
            **base,
            "configurations": {
                "last": {"inherits_from": "middle", "batch_dice": True},
                "middle": {"inherits_from": "2d", "patch_size": [32, 48]},
                **base["configurations"],
            },
        },
        "other normalisation": with_added(
            base,
            {
                "other": {
                    "inherits_from": "3d_fullres",
                    "data_identifier": "other",
                    "normalization_schemes": ["RescaleTo01Normalization"],
                }
            },
        ),
        "other resampling": with_added(
            base,
            {
                "linear": {
                    "inherits_from": "3d_lowres",
                    "data_identifier": "linear",
                    "resampling_fn_data_kwargs": {
                        "is_seg": False,
                        "order": 1,
                        "order_z": 0,
                        "force_separate_z": False,
                    },
                }
            },
        ),
        "another cascade": another_cascade(base),
        "another network": another_network(base),
        "intensities by their old name": old_intensities(base),
        "old, plain": old_plans(base, "PlainConvUNet"),
        "old, residual": old_plans(base, "ResidualEncoderUNet"),
    }
    return made | {f"random {seed}": random_chains(base, seed) for seed in range(12)}


def broken_plans(base: Plans) -> dict[str, tuple[Plans, str]]:
    """Plans that neither program accepts, and the configuration that is wrong."""
    circle = {"a": {"inherits_from": "b"}, "b": {"inherits_from": "c"}, "c": {"inherits_from": "a"}}
    return {
        "inherits from itself": (with_added(base, {"self": {"inherits_from": "self"}}), "self"),
        "a circle": (with_added(base, circle), "a"),
        "a parent that is not there": (with_added(base, {"orphan": {"inherits_from": "3d_tall"}}), "orphan"),
        "an old network of another class": (
            with_added(base, {"old": {**old_entry(base["configurations"]["2d"], "PlainConvUNet")}})
            | {"configurations": {"old": {**old_entry(base["configurations"]["2d"], "MyUNet")}}},
            "old",
        ),
    }


def with_added(base: Plans, configurations: dict[str, Any]) -> Plans:
    return {**base, "configurations": {**base["configurations"], **configurations}}


def another_cascade(base: Plans) -> Plans:
    made = with_added(
        copy.deepcopy(base),
        {
            "second": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres", "batch_size": 3},
            "without": {"inherits_from": "3d_cascade_fullres", "previous_stage": None},
        },
    )
    made["configurations"]["3d_lowres"]["next_stage"] = ["3d_cascade_fullres", "second"]
    return made


def another_network(base: Plans) -> Plans:
    network = copy.deepcopy(base["configurations"]["2d"]["architecture"])
    network["arch_kwargs"]["features_per_stage"] = [8 * 2**i for i in range(network["arch_kwargs"]["n_stages"])]
    network["arch_kwargs"]["nonlin"] = "torch.nn.ReLU"
    return with_added(
        base, {"narrow": {"inherits_from": "2d", "architecture": network, "batch_size": 40, "batch_dice": False}}
    )


def old_intensities(base: Plans) -> Plans:
    made = dict(base)
    made["foreground_intensity_properties_by_modality"] = made.pop("foreground_intensity_properties_per_channel")
    return made


def old_plans(base: Plans, network: str) -> Plans:
    """The plans in the form of nnU-Net 2.0, with a configuration that inherits from an old one."""
    entries = {
        name: old_entry(entry, network) if "architecture" in entry else entry
        for name, entry in base["configurations"].items()
    }
    return {**base, "configurations": {**entries, "more": {"inherits_from": "3d_fullres", "UNet_base_num_features": 8}}}


def old_entry(entry: dict[str, Any], network: str) -> dict[str, Any]:
    arguments = entry["architecture"]["arch_kwargs"]
    stages = arguments["n_stages"]
    made = {key: value for key, value in entry.items() if key != "architecture"}
    return made | {
        "UNet_class_name": network,
        "UNet_base_num_features": 16,
        "unet_max_num_features": 48,
        "n_conv_per_stage_encoder": [1, 3, 4, 6, 6, 6, 6][:stages] if "Res" in network else [2] * stages,
        "n_conv_per_stage_decoder": [1 if "Res" in network else 2] * (stages - 1),
        "num_pool_per_axis": [stages - 1] * len(entry["patch_size"]),
        "pool_op_kernel_sizes": arguments["strides"],
        "conv_kernel_sizes": arguments["kernel_sizes"],
    }


def random_chains(base: Plans, seed: int) -> Plans:
    """Up to eight configurations added, each inheriting from any that is there and changing some of its entries."""
    draw = random.Random(seed)
    made = copy.deepcopy(base)
    entries = made["configurations"]
    for number in range(draw.randint(2, 8)):
        parent = draw.choice(list(entries))
        entry: dict[str, Any] = {"inherits_from": parent}
        changes = {
            "batch_size": draw.randint(2, 9),
            "batch_dice": draw.random() < 0.5,
            "use_mask_for_norm": [draw.random() < 0.5],
            "data_identifier": f"data_{number}",
            "normalization_schemes": [draw.choice(["CTNormalization", "ZScoreNormalization", "NoNormalization"])],
            "previous_stage": draw.choice([None, "3d_lowres"]),
            "next_stage": draw.choice(["3d_cascade_fullres", ["3d_fullres", "3d_cascade_fullres"]]),
        }
        entry |= {key: value for key, value in changes.items() if draw.random() < 0.4}
        entries[f"added_{number}"] = entry
    order = list(entries)
    draw.shuffle(order)
    made["configurations"] = {name: entries[name] for name in order}
    return made
