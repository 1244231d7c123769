"""What has to be done before, around and after the network, as JSON values that need no segplug to be understood.

`segplug_onnx.predict` is a program that does it; the README explains each entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from segplug.model import ComponentRef, Configuration, Plan
from segplug.protocols import Model

FORMAT, FORMAT_VERSION = "segplug-onnx", 1

BEFORE = ("transpose", "crop", "normalize", "resample")
AFTER = ("resample back", "labels", "place", "transpose back")

NORMALIZATIONS = {
    "zscore": "zscore",
    "ZScoreNormalization": "zscore",
    "ct": "ct",
    "CTNormalization": "ct",
    "none": "none",
    "NoNormalization": "none",
    "rescale_to_0_1": "rescale_to_0_1",
    "RescaleTo01Normalization": "rescale_to_0_1",
    "rgb_to_0_1": "rgb_to_0_1",
    "RGBTo01Normalization": "rgb_to_0_1",
}
"""The built-in normalizers' names -> the name of what they do."""

RESAMPLINGS = {
    "separable": "spline",
    "resample_data_or_seg_to_shape": "spline",
    "none": "none",
    "no_resampling_hack": "none",
}

SPLINE = {"order": 3, "order_z": 0, "force_separate_z": False, "separate_z_anisotropy_threshold": 3.0}
"""What the built-in resampler takes where a plan says nothing."""


def recipe(model: Model) -> dict[str, Any]:
    """All but the networks and the hashes.

    A normalisation or a resampling that another plugin provides has the method None: it is named, and has to be
    written by whoever uses the network.
    """
    plan, configuration, labels = model.plan, model.configuration, model.dataset.labels
    names = {value if isinstance(value, int) else tuple(value): name for name, value in labels.values.items()}
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "dataset": plan.dataset_name,
        "plans": plan.plans_name,
        "configuration": configuration.name,
        "previous_stage": configuration.previous_stage,
        "channels": list(model.dataset.channel_names),
        "file_ending": model.dataset.file_ending,
        "axes": "channel, z, y, x",
        "steps": [
            "transpose",
            "crop",
            "normalize",
            "resample",
            "window",
            "resample back",
            "labels",
            "place",
            "transpose back",
        ],
        "transpose_forward": list(plan.transpose_forward),
        "transpose_backward": list(plan.transpose_backward),
        "crop": "nonzero",
        "normalization": [
            _normalization(plan, configuration, index) for index in range(len(configuration.normalization))
        ],
        "spacing": list(configuration.spacing),
        "resampling": {
            "data": _resampling(plan, configuration.resample_data),
            "logits": _resampling(plan, configuration.resample_probabilities),
        },
        "window": {
            "patch_size": list(configuration.patch_size),
            "step_size": 0.5,
            "gaussian_sigma": 0.125,
            "mirror_axes": list(model.mirror_axes),
            "padding": "zeros",
        },
        "labels": {
            "regions": labels.has_regions,
            "of_channels": list(labels.output_values),
            "names": [
                names.get(value, str(value)) for value in (labels.regions if labels.has_regions else labels.all_labels)
            ],
        },
        "provenance": _provenance(plan, configuration),
    }


def _normalization(plan: Plan, configuration: Configuration, index: int) -> dict[str, Any]:
    ref = configuration.normalization[index]
    own = _provider(plan, "normalizers", ref.name) == "builtin" and not ref.options
    statistics = asdict(plan.channels[index]) if index < len(plan.channels) else {}
    return {
        "name": ref.name,
        "method": NORMALIZATIONS.get(ref.name) if own else None,
        "options": dict(ref.options),
        "use_mask": configuration.use_mask_for_norm[index],
        **statistics,
    }


def _resampling(plan: Plan, ref: ComponentRef) -> dict[str, Any]:
    own = _provider(plan, "resamplers", ref.name) == "builtin"
    method = RESAMPLINGS.get(ref.name) if own else None
    options = {name: value for name, value in ref.options.items() if name != "is_seg"}
    return {"name": ref.name, "method": method, **(SPLINE if method == "spline" else {}), **options}


def _provider(plan: Plan, kind: str, name: str) -> str:
    """The plugin behind a component when the plan was made; plans of nnU-Net itself have the built-in ones."""
    found = [entry for entry in plan.provenance if (entry.get("kind"), entry.get("name")) == (kind, name)]
    return str(found[0].get("plugin")) if found else "builtin"


def _provenance(plan: Plan, configuration: Configuration) -> dict[str, Any]:
    architecture: Mapping[str, Any] = {
        "name": configuration.architecture.name,
        "arguments": dict(configuration.architecture.options),
    }
    return {
        "made_with": {name: version(name) for name in ("segplug", "segplug-onnx", "torch", "onnx")},
        "planner": plan.planner,
        "architecture": architecture,
        "components": [dict(entry) for entry in plan.provenance],
    }
