"""Model folders with random weights, which both programs can predict with, and the plans they are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segplug.kernel import Kernel
from segplug.model import Plan
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.files import read_json
from segplug.runtime.plan_codec import decode_plan

LABELS = {"background": 0, "Anterior": 1, "Posterior": 2}


def plan_of(file: Path, features: int | None = None) -> Plan:
    """A plan that one of the programs wrote.

    Args:
        features: of every stage of the 3d_fullres network; None for the plan's.
    """
    raw = read_json(file)
    if features is not None:
        options = raw["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
        options["features_per_stage"] = [features] * options["n_stages"]
    return decode_plan(raw, file)


def small_plan(
    patch_size: Sequence[int] = (16, 24, 16), features: int = 8, stages: int = 2, most_features: int | None = None
) -> Plan:
    """A plan for z-scored images of spacing 1 with one channel, whose network takes little time.

    Args:
        features: of the first stage; each further one has twice as many, up to `most_features`.
    """
    doubled = [features * 2**stage for stage in range(stages)]
    raw = _raw_plan(patch_size, [min(n, most_features or n) for n in doubled])
    return decode_plan(raw, Path("plans.json"))


def write_model(
    folder: Path, plan: Plan, *, folds: Sequence[int], labels: Mapping[str, int] | None = None, mirror: bool = True
) -> Path:
    """Write a model folder of the plan's `3d_fullres` (or `2d`) with random weights that differ by fold.

    Args:
        folder: `nnUNetTrainer__<plans>__<configuration>`.
        labels: of dataset.json.
        mirror: let predictions be averaged over mirrored images, along every axis.
    """
    from segplug.runtime.untrained_model import write_untrained_model

    labels = dict(labels or LABELS)
    configuration = plan.configurations[folder.name.rpartition("__")[2]]
    dimensions = len(configuration.patch_size)
    raw = {
        "channel_names": {str(i): "MRI" for i in range(len(configuration.normalization))},
        "labels": labels,
        "numTraining": 1,
        "file_ending": ".nii.gz" if dimensions == 3 else ".png",
    }
    dataset = parse_description(raw, plan.dataset_name, folder / "dataset.json")
    mirror_axes = range(dimensions) if mirror else ()
    registry = Kernel(discover=False).registry
    return write_untrained_model(
        folder, plan, configuration.name, dataset, registry, folds=folds, mirror_axes=mirror_axes
    )


def with_spacing(plan: Plan, configuration: str, spacing: Sequence[float]) -> Plan:
    """The plan with another target spacing."""
    changed = replace(plan.configurations[configuration], spacing=tuple(spacing))
    return replace(plan, configurations={**plan.configurations, configuration: changed})


def _raw_plan(patch_size: Sequence[int], features: Sequence[int]) -> dict[str, Any]:
    dimensions, stages = len(patch_size), len(features)
    resample = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    function = "resample_data_or_seg_to_shape"
    convolution = f"torch.nn.modules.conv.Conv{dimensions}d"
    configuration = {
        "data_identifier": "bench",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch_size),
        "median_image_size_in_voxels": list(patch_size),
        "spacing": [1.0] * dimensions,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": function,
        "resampling_fn_seg": function,
        "resampling_fn_probabilities": function,
        "resampling_fn_data_kwargs": resample,
        "resampling_fn_seg_kwargs": {**resample, "is_seg": True, "order": 1},
        "resampling_fn_probabilities_kwargs": {**resample, "order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": list(features),
                "conv_op": convolution,
                "kernel_sizes": [[3] * dimensions] * stages,
                "strides": [[1] * dimensions, *[[2] * dimensions] * (stages - 1)],
                "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    numbers = {"max": 200.0, "mean": 100.0, "median": 100.0, "min": 0.0, "std": 20.0}
    return {
        "dataset_name": "Dataset004_Hippocampus",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0] * 3,
        "original_median_shape_after_transp": [64] * 3,
        "image_reader_writer": "SimpleITKIO" if dimensions == 3 else "NaturalImage2DIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {**numbers, "percentile_00_5": 1.0, "percentile_99_5": 190.0}
        },
        "configurations": {"3d_fullres" if dimensions == 3 else "2d": configuration},
    }
