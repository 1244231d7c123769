"""Small models with random weights, and images for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from segplug.kernel import Kernel
from segplug.model import ChannelStatistics, ComponentRef, Configuration, Plan
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.project import Project
from segplug.runtime.untrained_model import write_untrained_model
from segplug.runtime.workspace import Workspace
from segplug_builtin.planners.rules import Resampling

LABELS: dict[str, Any] = {"background": 0, "a": 1, "b": 2}


@dataclass(frozen=True)
class ModelRecipe:
    """What a model folder of random weights looks like."""

    patch_size: tuple[int, ...] = (8, 16, 16)
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    channels: int = 1
    labels: tuple[tuple[str, Any], ...] = tuple(LABELS.items())
    regions_class_order: tuple[int, ...] = ()
    transpose: tuple[int, ...] = (0, 1, 2)
    file_ending: str = ".nii.gz"
    reader: str = "SimpleITKIO"
    folds: tuple[int | str, ...] = (0,)
    mirror_axes: tuple[int, ...] = ()
    features: int = 4
    previous_stage: str | None = None
    resampler: str = "resample_data_or_seg_to_shape"
    resample_order: int = 1
    resampling: Resampling | None = None
    provenance: tuple[dict[str, str], ...] = ()

    @property
    def dataset_json(self) -> dict[str, Any]:
        raw = {
            "channel_names": {str(i): "MRI" for i in range(self.channels)},
            "labels": {name: list(v) if isinstance(v, tuple) else v for name, v in self.labels},
            "numTraining": 1,
            "file_ending": self.file_ending,
        }
        return raw | ({"regions_class_order": list(self.regions_class_order)} if self.regions_class_order else {})

    @property
    def configuration_name(self) -> str:
        return f"{len(self.patch_size)}d"

    def plan(self) -> Plan:
        dimensions = len(self.patch_size)
        resample = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
        architecture = {
            "n_stages": 2,
            "features_per_stage": [self.features, 2 * self.features],
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": 3,
            "strides": [1, 2],
            "n_conv_per_stage": 1,
            "n_conv_per_stage_decoder": 1,
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"affine": True},
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        }
        configuration = Configuration(
            name=self.configuration_name,
            data_identifier="plans_x",
            batch_size=2,
            patch_size=self.patch_size,
            median_shape=self.patch_size,
            spacing=self.spacing[-dimensions:],
            normalization=(ComponentRef("ZScoreNormalization"),) * self.channels,
            use_mask_for_norm=(False,) * self.channels,
            resample_data=ComponentRef("resample_data_or_seg_to_shape", resample),
            resample_seg=ComponentRef("resample_data_or_seg_to_shape", {**resample, "is_seg": True, "order": 1}),
            resample_probabilities=ComponentRef(self.resampler, {**resample, "order": self.resample_order}),
            architecture=ComponentRef("dynamic_network_architectures.architectures.unet.PlainConvUNet", architecture),
            architecture_imports=("conv_op", "norm_op", "nonlin"),
            previous_stage=self.previous_stage,
        )
        if (other := self.resampling) is not None:
            refs = {"resample_data": other.images, "resample_seg": other.labels}
            configuration = replace(configuration, **refs, resample_probabilities=other.probabilities)
        return Plan(
            dataset_name="Dataset001_Test",
            plans_name="plans",
            original_median_spacing=(1.0, 1.0, 1.0),
            original_median_shape=(20, 20, 20),
            reader=ComponentRef(self.reader),
            transpose_forward=self.transpose,
            transpose_backward=tuple(int(i) for i in np.argsort(self.transpose)),
            configurations={self.configuration_name: configuration},
            planner="ExperimentPlanner",
            channels=(ChannelStatistics(100, 100, 20, 20, 180, 150, 50),) * self.channels,
            provenance=self.provenance,
        )


def write_model(folder: Path, recipe: ModelRecipe, kernel: Kernel) -> Path:
    """Write a model folder; the weights are a function of the fold."""
    plan = recipe.plan()
    return write_untrained_model(
        folder,
        plan,
        recipe.configuration_name,
        parse_description(recipe.dataset_json, plan.dataset_name, folder / "dataset.json"),
        kernel.registry,
        folds=recipe.folds,
        mirror_axes=recipe.mirror_axes,
    )


def write_image(path: Path, shape: Sequence[int], seed: int = 0, spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> Path:
    """A NIfTI image of noise, (z, y, x), placed obliquely in the world; its border is zero, so that it is cropped."""
    array = np.random.default_rng(seed).normal(100, 20, tuple(shape)).astype(np.float32)
    array[:1] = array[:, :2] = 0
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in reversed(list(spacing))])
    image.SetOrigin((3.5, -20.0, 7.25))
    image.SetDirection((0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    return Kernel(discover=False)


@pytest.fixture(scope="session")
def recipe() -> ModelRecipe:
    """What the small models are made from; `dataclasses.replace` changes it."""
    return ModelRecipe()


@pytest.fixture
def project() -> Iterator[Project]:
    with Project(Workspace(), Kernel(discover=False), workers=1) as made:
        yield made


@pytest.fixture
def make_model(tmp_path: Path, kernel: Kernel) -> Callable[..., Path]:
    """Write a model folder from the changes to a `ModelRecipe`."""

    def make(name: str = "model", **changes: Any) -> Path:
        return write_model(tmp_path / name, ModelRecipe(**changes), kernel)

    return make


@pytest.fixture
def make_image() -> Callable[..., Path]:
    return write_image
