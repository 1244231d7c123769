"""A plan: everything that is decided about a data set before training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segplug.model.component_ref import ComponentRef
from segplug.model.fingerprint import ChannelStatistics


@dataclass(frozen=True)
class Configuration:
    """One network to train: `2d`, `3d_fullres`, `3d_lowres`, `3d_cascade_fullres` or one added by hand.

    Spatial tuples have two entries for a 2D configuration, three otherwise, in the transposed axis order.

    Args:
        name: its key in the plan.
        data_identifier: folder of the preprocessed cases; configurations may share one.
        preprocessor: nnU-Net's name of the preprocessor.
        patch_size: voxels the network sees.
        median_shape: median image shape after resampling.
        spacing: target spacing.
        normalization: one normalizer per channel.
        use_mask_for_norm: per channel, whether statistics are taken inside the nonzero mask.
        architecture: network and its arguments; module names such as `torch.nn.InstanceNorm3d` are plain strings.
        architecture_imports: names of arguments that nnU-Net resolves as module names.
        batch_dice: whether Dice is computed over the batch rather than per sample.
        previous_stage: configuration whose prediction is a further input (cascade), or None.
        next_stage: configurations that build on this one.
        inherits_from: parent configuration; on disk only what differs from it is written.
        extra: further keys of the file, kept as they are.
        as_written: its own entry in the file that it came from (what it inherits left out), so that writing it again
            changes nothing that did not change. Empty for one that never was in a file.
    """

    name: str
    data_identifier: str
    batch_size: int
    patch_size: tuple[int, ...]
    median_shape: tuple[float, ...]
    spacing: tuple[float, ...]
    normalization: tuple[ComponentRef, ...]
    use_mask_for_norm: tuple[bool, ...]
    resample_data: ComponentRef
    resample_seg: ComponentRef
    resample_probabilities: ComponentRef
    architecture: ComponentRef
    architecture_imports: tuple[str, ...] = ()
    batch_dice: bool = False
    preprocessor: str = "DefaultPreprocessor"
    previous_stage: str | None = None
    next_stage: tuple[str, ...] = ()
    inherits_from: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    as_written: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.patch_size)


@dataclass(frozen=True)
class Plan:
    """`<plans_name>.json`. On disk it is nnU-Net's; what nnU-Net has no word for stands under its `segplug` key.

    Args:
        reader: reader of the images; its writer has the same name.
        transpose_forward: axis order of preprocessed arrays; `transpose_backward` undoes it.
        original_median_spacing, original_median_shape: over all cases, after transposing.
        channels: intensity statistics per channel.
        training: trainer and its settings per configuration name, from planners that prescribe a recipe;
            the key `""` holds for every configuration without one of its own.
        planner: nnU-Net's name of the planner (`experiment_planner_used`).
        provenance: plugins behind the components, as `segplug.kernel.provenance` records them.
        extra: further global keys, kept as they are; `segplug_extra`: the same under the `segplug` key.
    """

    dataset_name: str
    plans_name: str
    original_median_spacing: tuple[float, ...]
    original_median_shape: tuple[int, ...]
    reader: ComponentRef
    transpose_forward: tuple[int, ...]
    transpose_backward: tuple[int, ...]
    configurations: Mapping[str, Configuration]
    planner: str
    channels: tuple[ChannelStatistics, ...]
    label_manager: str = "LabelManager"
    training: Mapping[str, ComponentRef] = field(default_factory=dict)
    provenance: tuple[Mapping[str, str], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    segplug_extra: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self, configuration: str) -> ComponentRef | None:
        """Trainer and settings that the plan prescribes for a configuration, or None."""
        return self.training.get(configuration, self.training.get(""))


@dataclass(frozen=True)
class Budget:
    """What a plan may spend, and what the user wants of it.

    Args:
        memory_gb: GPU memory that training may use; None leaves it to the planner.
        spacing: target spacing of 3d_fullres in the axis order of the images (z, y, x), before any transposition; None
            to let the planner find it.
        plans_name: None for the planner's own name.
    """

    memory_gb: float | None = None
    spacing: tuple[float, ...] | None = None
    plans_name: str | None = None
