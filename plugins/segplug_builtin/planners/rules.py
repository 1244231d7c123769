"""The numbers in which the built-in planners differ; the rules that use them are the same for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segplug.model import ComponentRef
from segplug_builtin.planners.feature_maps import UNetShape
from segplug_builtin.planners.topology import Topology

MODULES = "dynamic_network_architectures.architectures.unet"


@dataclass(frozen=True)
class Reference:
    """What a training of known memory use costs.

    Args:
        cost: `feature_map_cost` of one sample, where `batch_size` of them fill the reference memory.
        max_features: most features a stage may have.
    """

    cost: float
    batch_size: int
    max_features: int


@dataclass(frozen=True)
class Resampling:
    """By which components images, labels and probabilities are resampled."""

    images: ComponentRef
    labels: ComponentRef
    probabilities: ComponentRef


def _splines(*, is_seg: bool, order: int) -> ComponentRef:
    options = {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}
    return ComponentRef("resample_data_or_seg_to_shape", options)


SPLINES = Resampling(_splines(is_seg=False, order=3), _splines(is_seg=True, order=1), _splines(is_seg=False, order=1))
"""nnU-Net's default: cubic for images, linear for the others, within slices where these are far apart."""


def resampling_by_torch(options: Mapping[str, Any]) -> Resampling:
    """Linear interpolation by torch for all."""
    by_name = "resample_torch_fornnunet"
    values = ComponentRef(by_name, {"is_seg": False, **options})
    return Resampling(values, ComponentRef(by_name, {"is_seg": True, **options}), values)


@dataclass(frozen=True)
class Rules:
    """A planner of U-Nets.

    Args:
        name: the planner's name in plans, nnU-Net's where it has this planner.
        plans_name: of plans for which the user gives no name.
        residual: residual encoder rather than plain convolutions.
        two_dimensional, three_dimensional: references for `memory_gb` of GPU memory.
        encoder_blocks: of each stage; the last entry holds for all further stages.
        decoder_convolutions: of every decoder stage.
        dataset_share: a batch may hold at most this share of the training set's voxels.
        weigh_minimum_batch: shrink the patch until two samples fit, by the cost for the reference's batch size
            (`ExperimentPlanner`), rather than until one costs no more than the reference (ResEnc planners).
        shared_data: configurations whose preprocessed data are `nnUNetPlans`' (nothing in them differs).
        resampling: how images get their target spacing, and probabilities that of the image.
        base_features: of the first stage; each further stage has twice as many, up to `max_features`.
        min_batch_size, max_batch_size: never less, never more.
    """

    name: str
    plans_name: str
    residual: bool
    two_dimensional: Reference
    three_dimensional: Reference
    memory_gb: float
    encoder_blocks: tuple[int, ...]
    decoder_convolutions: int
    dataset_share: float
    weigh_minimum_batch: bool
    shared_data: tuple[str, ...] = ()
    resampling: Resampling = SPLINES
    base_features: int = 32
    min_batch_size: int = 2
    max_batch_size: int | None = None

    def reference(self, dimensions: int) -> Reference:
        return self.two_dimensional if dimensions == 2 else self.three_dimensional

    def data_identifier(self, plans_name: str, configuration: str) -> str:
        return f"{'nnUNetPlans' if configuration in self.shared_data else plans_name}_{configuration}"

    def unet(self, topology: Topology, inputs: int, outputs: int) -> UNetShape:
        """The network for these stages."""
        stages = topology.stages
        most = self.reference(len(topology.patch_size)).max_features
        blocks = self.encoder_blocks
        return UNetShape(
            inputs=inputs,
            outputs=outputs,
            features=tuple(min(most, self.base_features * 2**stage) for stage in range(stages)),
            kernel_sizes=topology.kernel_sizes,
            strides=topology.strides,
            encoder_blocks=(blocks + blocks[-1:] * stages)[:stages],
            decoder_convolutions=(self.decoder_convolutions,) * (stages - 1),
            residual=self.residual,
        )
