"""One small network whatever the data set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from segplug import Component, ComponentRef, hookimpl
from segplug.model import Budget, Configuration, DatasetDescription, Fingerprint, Plan
from segplug.protocols import Planner

STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2))


def plan_tiny(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
    """Plan a U-Net of three stages on patches of 32 x 32 x 32 at the median spacing."""
    spacing = tuple(float(s) for s in np.median(fingerprint.spacings, axis=0))
    shape = tuple(int(s) for s in np.median(fingerprint.shapes_after_crop, axis=0))
    name = budget.plans_name or "tinyPlans"
    network = {
        "n_stages": len(STRIDES),
        "features_per_stage": [16, 32, 64],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * len(STRIDES),
        "strides": [list(s) for s in STRIDES],
        "n_conv_per_stage": [2] * len(STRIDES),
        "n_conv_per_stage_decoder": [2] * (len(STRIDES) - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    resample = ComponentRef("resample_data_or_seg_to_shape", {"is_seg": False, "order": 3})
    resample_labels = ComponentRef("resample_data_or_seg_to_shape", {"is_seg": True, "order": 1})
    fullres = Configuration(
        name="3d_fullres",
        data_identifier=f"{name}_3d_fullres",
        batch_size=2,
        patch_size=(32, 32, 32),
        median_shape=shape,
        spacing=budget.spacing or spacing,
        normalization=(ComponentRef("ZScoreNormalization"),) * dataset.num_channels,
        use_mask_for_norm=(False,) * dataset.num_channels,
        resample_data=resample,
        resample_seg=resample_labels,
        resample_probabilities=resample,
        architecture=ComponentRef("dynamic_network_architectures.architectures.unet.PlainConvUNet", network),
        architecture_imports=("conv_op", "norm_op", "dropout_op", "nonlin"),
    )
    return Plan(
        dataset_name=dataset.name,
        plans_name=name,
        original_median_spacing=spacing,
        original_median_shape=shape,
        reader=ComponentRef(dataset.reader or "SimpleITKIO"),
        transpose_forward=(0, 1, 2),
        transpose_backward=(0, 1, 2),
        configurations={"3d_fullres": fullres},
        planner="tiny",
        channels=fingerprint.channels,
    )


@hookimpl
def segplug_planners() -> Iterator[Component[Planner]]:
    yield Component("tiny", f"{__name__}:plan_tiny", "one small U-Net whatever the data set")
