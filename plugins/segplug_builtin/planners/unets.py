"""A whole plan by nnU-Net's rules, for any planner's numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from segplug.errors import DataError, UsageError
from segplug.model import Budget, ComponentRef, Configuration, DatasetDescription, Fingerprint, Plan
from segplug.runtime.wording import counted
from segplug_builtin import segplug_choose_normalizer
from segplug_builtin.planners.patch_size import NetworkPlan, Task, plan_network
from segplug_builtin.planners.rules import MODULES, Rules
from segplug_builtin.planners.spacing import Vector, axis_order, coarser, median_resampled_shape, target_spacing

LOWRES_COVERAGE = 0.25
"""A 3d_lowres is planned where a full-resolution patch covers less of the median image (nnU-Net)."""

LOWRES_GAIN = 2
"""It is dropped unless its images have this many times fewer voxels (nnU-Net)."""

MASKED_BELOW = 0.75
"""Below this median relative size after cropping, z-scores are taken inside the nonzero mask (nnU-Net)."""

TAKES_MASK = ("ZScoreNormalization", "zscore")


def plan_unets(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget, rules: Rules) -> Plan:
    """Plan 2d, 3d_fullres and, where images are large, 3d_lowres with its cascade.

    Raises:
        DataError: fingerprint and data set do not belong together, or no patch fits.
        UsageError: the budget is not usable.
    """
    _check(fingerprint, dataset, budget)
    planner = _Planner(fingerprint, dataset, budget, rules)
    spacings, shapes = np.array(fingerprint.spacings), np.array(fingerprint.shapes_after_crop)
    forward = list(planner.forward)
    return Plan(
        dataset_name=dataset.name,
        plans_name=planner.plans_name,
        original_median_spacing=_floats(np.median(spacings, axis=0)[forward]),
        original_median_shape=tuple(round(n) for n in np.median(shapes, axis=0)[forward]),
        reader=ComponentRef(_reader(dataset)),
        transpose_forward=planner.forward,
        transpose_backward=planner.backward,
        configurations={c.name: c for c in planner.configurations()},
        planner=rules.name,
        channels=fingerprint.channels,
    )


class _Planner:
    """What the configurations of one plan have in common."""

    def __init__(self, fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget, rules: Rules) -> None:
        spacing = target_spacing(fingerprint) if budget.spacing is None else np.array(budget.spacing, dtype=np.float64)
        self.forward, self.backward = axis_order(spacing)
        self.spacing: Vector = spacing[list(self.forward)]
        shape = median_resampled_shape(fingerprint, spacing)
        _check_shape(shape, spacing, fingerprint)
        self.shape: Vector = shape[list(self.forward)]
        self.plans_name = budget.plans_name or rules.plans_name
        self._rules = rules
        self._memory_gb = rules.memory_gb if budget.memory_gb is None else budget.memory_gb
        self._dataset = dataset
        names = dataset.normalizers or tuple(map(segplug_choose_normalizer, dataset.channel_names))
        self._normalization = tuple(ComponentRef(name) for name in names)
        masked = fingerprint.median_relative_size_after_cropping < MASKED_BELOW
        self._use_mask = tuple(masked and name in TAKES_MASK for name in names)

    def configurations(self) -> list[Configuration]:
        """In nnU-Net's order."""
        flat = self._configuration("2d", self.spacing[1:], self.shape[1:], self._voxels(self.shape))
        flat = replace(flat, batch_dice=True)
        if self.shape[0] == 1:
            return [flat]
        full = self._configuration("3d_fullres", self.spacing, self.shape, self._voxels(self.shape))
        low = self._lower_resolution(full)
        if low is None:
            return [flat, full]
        full = replace(full, batch_dice=True)
        cascade = replace(full, name="3d_cascade_fullres", inherits_from="3d_fullres", previous_stage="3d_lowres")
        return [flat, low, full, cascade]

    def _lower_resolution(self, full: Configuration) -> Configuration | None:
        """3d_lowres: the first coarser spacing at which a patch sees enough of the image."""
        spacing, shape, patch = self.spacing, self.shape, full.patch_size
        low = None
        while math.prod(patch) / np.prod(shape) < LOWRES_COVERAGE:
            spacing = coarser(spacing)
            shape = self.spacing / spacing * self.shape
            low = self._configuration("3d_lowres", spacing, [round(n) for n in shape], self._voxels(shape))
            patch = low.patch_size
        if low is None or np.prod(self.shape) / np.prod(shape) < LOWRES_GAIN:
            return None
        return replace(low, next_stage=("3d_cascade_fullres",))

    def _voxels(self, shape: Vector) -> float:
        return float(np.prod(shape) * self._dataset.num_training)

    def _configuration(self, name: str, spacing: Vector, shape: Any, dataset_voxels: float) -> Configuration:
        # all entries of `labels` count as outputs, background, ignore and regions alike
        outputs = len(self._dataset.labels.values)
        task = Task(tuple(spacing), shape, self._dataset.num_channels, outputs, dataset_voxels)
        network = plan_network(task, self._rules, self._memory_gb)
        return Configuration(
            name=name,
            data_identifier=self._rules.data_identifier(self.plans_name, name),
            batch_size=network.batch_size,
            patch_size=network.patch_size,
            median_shape=tuple(n if isinstance(n, int) else float(n) for n in shape),
            spacing=_floats(spacing),
            normalization=self._normalization,
            use_mask_for_norm=self._use_mask,
            resample_data=self._rules.resampling.images,
            resample_seg=self._rules.resampling.labels,
            resample_probabilities=self._rules.resampling.probabilities,
            architecture=architecture(network),
            architecture_imports=("conv_op", "norm_op", "dropout_op", "nonlin"),
        )


def architecture(network: NetworkPlan) -> ComponentRef:
    """The network in the terms of dynamic-network-architectures, as nnU-Net's plans have them."""
    unet, axes = network.unet, len(network.patch_size)
    blocks = "n_blocks_per_stage" if unet.residual else "n_conv_per_stage"
    arguments = {
        "n_stages": network.topology.stages,
        "features_per_stage": list(unet.features),
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
        "kernel_sizes": [list(k) for k in unet.kernel_sizes],
        "strides": [list(s) for s in unet.strides],
        blocks: list(unet.encoder_blocks),
        "n_conv_per_stage_decoder": list(unet.decoder_convolutions),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return ComponentRef(f"{MODULES}.{'ResidualEncoderUNet' if unet.residual else 'PlainConvUNet'}", arguments)


def _floats(values: Vector) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _reader(dataset: DatasetDescription) -> str:
    if dataset.reader is None:
        raise UsageError(f"data set {dataset.name}: no reader is chosen. Set `reader` of its description")
    return dataset.reader


def _check(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> None:
    where = f"data set {dataset.name}"
    if not fingerprint.spacings:
        raise DataError(f"{where}: the fingerprint holds no case. Run `segplug fingerprint` again")
    if len(fingerprint.channels) != dataset.num_channels:
        raise DataError(
            f"{where}: the fingerprint has {counted(len(fingerprint.channels), 'channel')}, dataset.json "
            f"{dataset.num_channels}. Run `segplug fingerprint` again"
        )
    for spacing, shape in zip(fingerprint.spacings, fingerprint.shapes_after_crop, strict=True):
        if len(spacing) != 3 or len(shape) != 3 or not all(0 < v < math.inf for v in (*spacing, *shape)):
            raise DataError(
                f"{where}: the fingerprint has a case of spacing {spacing} and shape {shape}; expected three positive "
                "numbers each. Correct the image and run `segplug fingerprint` again"
            )
    if budget.memory_gb is not None and not 0 < budget.memory_gb < math.inf:
        raise UsageError(f"memory of {budget.memory_gb} GB: expected a positive number")
    if budget.spacing is not None and (len(budget.spacing) != 3 or not all(0 < v < math.inf for v in budget.spacing)):
        raise UsageError(f"target spacing {budget.spacing}: expected three positive numbers, z, y and x")


def _check_shape(shape: Vector, spacing: Vector, fingerprint: Fingerprint) -> None:
    """Refuse a target spacing at which images vanish, or 2D images become volumes."""
    now = _floats(np.median(np.array(fingerprint.spacings), axis=0))
    where = f"target spacing {_floats(spacing)}, for images of median spacing {now}"
    if not shape.all():
        raise UsageError(f"{where}: the median image would have no voxel left along an axis. Give a finer one")
    if shape[0] > 1 and all(n[0] == 1 for n in fingerprint.shapes_after_crop):
        raise UsageError(
            f"{where}: the images are 2D, and have no slices between which to resample. Keep {now[0]} for z"
        )
