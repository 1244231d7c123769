"""Plans of many data sets: every patch is one that its network takes, and fits the memory."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from segplug_monai.planners import (
    SEGRESNET_NETWORK,
    SWINUNETR_NETWORK,
    UNETR_NETWORK,
    Network,
    plan_dynunet,
    plan_segresnet,
    plan_swinunetr,
    plan_unetr,
)

from segplug.errors import DataError, UsageError
from segplug.kernel import Kernel
from segplug.model import (
    Budget,
    ChannelStatistics,
    ComponentRef,
    Configuration,
    DatasetDescription,
    Fingerprint,
    LabelSet,
    Plan,
)
from segplug_builtin.planners import plan_default

PLANNERS = {
    "monai_segresnet": (plan_segresnet, SEGRESNET_NETWORK),
    "monai_swinunetr": (plan_swinunetr, SWINUNETR_NETWORK),
    "monai_unetr": (plan_unetr, UNETR_NETWORK),
}
USABLE_GB = 0.9


def known(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], cases: int = 100, classes: int = 2
) -> tuple[Fingerprint, DatasetDescription]:
    """A data set whose images are all alike."""
    statistics = ChannelStatistics(0.0, 0.0, 1.0, -3.0, 3.0, 2.5, -2.5)
    labels = LabelSet({"background": 0} | {f"organ_{n}": n for n in range(1, classes + 1)})
    description = DatasetDescription(
        "Dataset999_Thought", ("MRI",), labels, ".nii.gz", cases, reader="simpleitk", normalizers=("zscore",)
    )
    return Fingerprint((spacing,) * cases, (shape,) * cases, (statistics,), 1.0), description


def data_sets() -> list[tuple[tuple[int, int, int], tuple[float, float, float]]]:
    """Shapes and spacings from pictures to whole bodies, isotropic and not."""
    draw = random.Random(0)
    named = [((36, 50, 35), (1.0, 1.0, 1.0)), ((1, 512, 512), (999.0, 1.0, 1.0)), ((20, 320, 320), (3.6, 0.6, 0.6))]
    for _ in range(20):
        shape = (draw.randint(8, 400), draw.randint(24, 600), draw.randint(24, 600))
        spacing = (draw.uniform(0.5, 6.0), draw.uniform(0.4, 2.0))
        named.append((shape, (spacing[0], spacing[1], spacing[1])))
    return named


@pytest.mark.parametrize("name", list(PLANNERS))
@pytest.mark.parametrize("memory", [8.0, 24.0])
@pytest.mark.parametrize(("shape", "spacing"), data_sets())
def test_patches_are_of_the_network_and_fit(name: str, memory: float, shape: Any, spacing: Any) -> None:
    planner, network = PLANNERS[name]
    fingerprint, description = known(shape, spacing)
    plan = planner(fingerprint, description, Budget(memory_gb=memory))
    default = plan_default(fingerprint, description, Budget())
    assert list(plan.configurations) == list(default.configurations)
    for key, configuration in plan.configurations.items():
        patch = configuration.patch_size
        network.patches[len(patch)].check(patch)
        assert needed_gb(configuration, network, 3) <= USABLE_GB * memory
        assert configuration.batch_size >= 2
        assert configuration.architecture == ComponentRef(name, dict(network.arguments))
        # the same images as nnU-Net's plan, so that they are prepared once for both
        assert configuration.data_identifier == default.configurations[key].data_identifier
        assert configuration.spacing == default.configurations[key].spacing


def needed_gb(configuration: Configuration, network: Network, outputs: int) -> float:
    of_samples = configuration.batch_size * network.bytes_of_sample(configuration.patch_size, outputs)
    return (of_samples + network.bytes_of_weights(configuration.dimensions)) / 2**30


@pytest.mark.parametrize("name", list(PLANNERS))
def test_more_memory_gives_larger_patches_then_more_samples(name: str) -> None:
    planner, _ = PLANNERS[name]
    seen = [
        planner(*known((160, 400, 400), (1.5, 0.8, 0.8), cases=1000), Budget(memory_gb=memory)).configurations[
            "3d_fullres"
        ]
        for memory in (8.0, 16.0, 48.0, 800.0)
    ]
    volumes = [math.prod(each.patch_size) for each in seen]
    assert volumes == sorted(volumes)
    assert volumes[-1] > volumes[0]
    assert seen[-1].batch_size > 2


def test_the_patch_is_as_long_in_mm_along_every_axis_until_the_image_ends() -> None:
    plan = plan_segresnet(*known((80, 400, 400), (4.0, 1.0, 1.0)), Budget(memory_gb=80.0))
    z, y, x = plan.configurations["3d_fullres"].patch_size
    assert abs(y - x) <= 8
    assert z < y / 2


@pytest.mark.parametrize("name", list(PLANNERS))
def test_too_little_memory_is_told(name: str) -> None:
    planner, _ = PLANNERS[name]
    with pytest.raises(DataError, match=rf"no patch fits into 0.01 GB.*{name} with the least patch.*--memory-gb"):
        planner(*known((100, 100, 100), (1.0, 1.0, 1.0)), Budget(memory_gb=0.01))
    with pytest.raises(UsageError, match="memory of -1 GB: expected a positive number"):
        planner(*known((100, 100, 100), (1.0, 1.0, 1.0)), Budget(memory_gb=-1))


def test_another_spacing_has_data_of_its_own() -> None:
    fingerprint, description = known((100, 100, 100), (1.0, 1.0, 1.0))
    plan = plan_segresnet(fingerprint, description, Budget(spacing=(2.0, 2.0, 2.0)))
    assert plan.plans_name == "segplugMonaiSegResNetPlans"
    assert plan.configurations["3d_fullres"].spacing == (2.0, 2.0, 2.0)
    assert plan.configurations["3d_fullres"].data_identifier == "segplugMonaiSegResNetPlans_3d_fullres"
    named = plan_dynunet(fingerprint, description, Budget(spacing=(2.0, 2.0, 2.0), plans_name="mine"))
    assert named.configurations["3d_fullres"].data_identifier == "mine_3d_fullres"


@pytest.mark.parametrize(("shape", "spacing"), data_sets())
def test_dynunet_has_nnunet_s_topology(shape: Any, spacing: Any) -> None:
    fingerprint, description = known(shape, spacing)
    plan = plan_dynunet(fingerprint, description, Budget())
    default = plan_default(fingerprint, description, Budget())
    assert plan.training == {}
    for key, configuration in plan.configurations.items():
        ours, theirs = configuration.architecture.options, default.configurations[key].architecture.options
        assert (ours["kernel_size"], ours["strides"]) == (theirs["kernel_sizes"], theirs["strides"])
        assert ours["filters"] == theirs["features_per_stage"]
        assert configuration.patch_size == default.configurations[key].patch_size
        assert configuration.batch_size == default.configurations[key].batch_size


def test_images_too_small_for_dynunet_are_told() -> None:
    with pytest.raises(DataError, match="DynUNet takes three stages"):
        plan_dynunet(*known((8, 8, 8), (1.0, 1.0, 1.0)), Budget())


def test_every_network_of_a_cascade_is_planned() -> None:
    plan: Plan = plan_unetr(*known((600, 600, 600), (0.5, 0.5, 0.5)), Budget())
    assert plan.configurations["3d_cascade_fullres"].previous_stage == "3d_lowres"
    assert {c.architecture.name for c in plan.configurations.values()} == {"monai_unetr"}


@pytest.mark.parametrize("planner", [name for name in Kernel().registry.names("planners") if name.startswith("monai_")])
def test_each_planner_has_its_architecture(planner: str) -> None:
    assert Kernel().registry.find("architectures", planner).plugin.distribution == "segplug-monai"
