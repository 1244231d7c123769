"""Small models with random weights, as their folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segplug.kernel import Kernel
from segplug.model import ChannelStatistics, ComponentRef, Configuration, DatasetDescription, LabelSet, Plan
from segplug.runtime.untrained_model import write_untrained_model

UNET = "dynamic_network_architectures.architectures.unet.PlainConvUNet"


@dataclass(frozen=True)
class Recipe:
    """What a model is to be like."""

    patch: tuple[int, ...] = (16, 16, 16)
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    normalization: tuple[str, ...] = ("ZScoreNormalization",)
    use_mask: bool = False
    labels: Mapping[str, Any] = field(default_factory=lambda: {"background": 0, "a": 1, "b": 2})
    regions_class_order: tuple[int, ...] = ()
    transpose: tuple[int, ...] = (0, 1, 2)
    folds: tuple[int | str, ...] = (0,)
    mirror_axes: tuple[int, ...] = ()
    architecture: ComponentRef | None = None
    previous_stage: str | None = None

    def write(self, folder: Path) -> Path:
        """Write the model's folder."""
        raw = {
            "channel_names": {str(i): f"channel {i}" for i in range(len(self.normalization))},
            "labels": {name: list(v) if isinstance(v, tuple) else v for name, v in self.labels.items()},
            "numTraining": 1,
            "file_ending": ".nii.gz",
        }
        if self.regions_class_order:
            raw["regions_class_order"] = list(self.regions_class_order)
        labels = LabelSet(self.labels, self.regions_class_order)
        names = tuple(f"channel {i}" for i in range(len(self.normalization)))
        dataset = DatasetDescription("Dataset999_Small", names, labels, ".nii.gz", 1, raw=raw)
        configuration = self._configuration()
        plan = Plan(
            dataset_name="Dataset999_Small",
            plans_name="plans",
            original_median_spacing=(1.0, 1.0, 1.0),
            original_median_shape=(20, 20, 20),
            reader=ComponentRef("SimpleITKIO"),
            transpose_forward=self.transpose,
            transpose_backward=tuple(self.transpose.index(axis) for axis in range(3)),
            configurations={configuration.name: configuration},
            planner="ExperimentPlanner",
            channels=(ChannelStatistics(0.5, 0.4, 2.0, -9.0, 9.0, 2.5, -1.5),) * len(names),
        )
        return write_untrained_model(
            folder / f"nnUNetTrainer__plans__{configuration.name}",
            plan,
            configuration.name,
            dataset,
            Kernel().registry,
            folds=self.folds,
            mirror_axes=self.mirror_axes,
        )

    def _configuration(self) -> Configuration:
        axes = len(self.patch)
        resample: dict[str, Any] = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
        name = "resample_data_or_seg_to_shape"
        network = {
            "n_stages": 3, "features_per_stage": [4, 8, 8], "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
            "kernel_sizes": 3, "strides": [1, 2, 2], "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1,
            "conv_bias": True, "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
            "norm_op_kwargs": {"affine": True}, "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
        }  # fmt: skip
        own = self.architecture is None
        return Configuration(
            name=f"{axes}d",
            data_identifier="plans_x",
            batch_size=2,
            patch_size=self.patch,
            median_shape=self.patch,
            spacing=self.spacing,
            normalization=tuple(map(ComponentRef, self.normalization)),
            use_mask_for_norm=(self.use_mask,) * len(self.normalization),
            resample_data=ComponentRef(name, {**resample, "order": 3}),
            resample_seg=ComponentRef(name, {**resample, "is_seg": True}),
            resample_probabilities=ComponentRef(name, resample),
            architecture=self.architecture or ComponentRef(UNET, network),
            architecture_imports=("conv_op", "norm_op", "nonlin") if own else (),
            previous_stage=self.previous_stage,
        )
