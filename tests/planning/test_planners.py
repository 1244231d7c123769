"""Planners: nnunetv2's plans entry by entry, and the compact planner's promises."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segplug.errors import DataError, UsageError
from segplug.model import Budget, ChannelStatistics, DatasetDescription, Fingerprint, LabelSet, Plan
from segplug.protocols import Planner
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.fingerprint_codec import read_fingerprint
from segplug.runtime.plan_codec import decode_plan, encode_plan
from segplug_builtin.planners import plan_compact, plan_default, plan_resenc_l, plan_resenc_m, plan_resenc_xl
from segplug_builtin.planners.compact import COMPACT, STEP_COST
from segplug_builtin.planners.feature_maps import feature_map_cost
from segplug_builtin.planners.topology import plan_topology

FROZEN = Path(__file__).parent / "data" / "nnunetv2_plans.json"
STATISTICS = ChannelStatistics(3.0, 3.0, 1.0, 0.0, 9.0, 8.0, 1.0)
PLANNERS = [plan_default, plan_resenc_m, plan_resenc_l, plan_resenc_xl, plan_compact]


def described(shared: Path, name: str) -> tuple[Fingerprint, DatasetDescription]:
    """A real data set's reference fingerprint and description, with nnunetv2's choice of reader."""
    file = shared / "datasets" / name / "dataset.json"
    dataset = parse_description(json.loads(file.read_text()), name, file)
    plans = json.loads((shared / "reference" / name / "nnUNetPlans.json").read_text())
    fingerprint = read_fingerprint(shared / "reference" / name / "dataset_fingerprint.json")
    return fingerprint, replace(dataset, reader=plans["image_reader_writer"])


def fingerprint_of(spacing: tuple[float, ...], shape: tuple[int, ...], cases: int = 3) -> Fingerprint:
    return Fingerprint((spacing,) * cases, (shape,) * cases, (STATISTICS,), 1.0)


def description(labels: int = 2, num_training: int = 3) -> DatasetDescription:
    values = {"background": 0, **{f"l{i}": i for i in range(1, labels)}}
    return DatasetDescription("Dataset001_X", ("MRI",), LabelSet(values), ".nii.gz", num_training, "SimpleITKIO")


@pytest.mark.parametrize(
    ("planner", "file"), [(plan_default, "nnUNetPlans"), (plan_resenc_l, "nnUNetResEncUNetLPlans")]
)
def test_real_data_sets_equal_nnunet(shared: Path, real_dataset: str, planner: Planner, file: str) -> None:
    expected = (shared / "reference" / real_dataset / f"{file}.json").read_text()
    found = encode_plan(planner(*described(shared, real_dataset), Budget()))
    assert json.dumps(found, indent=4) == expected.rstrip("\n")


@cache
def made_up_cases() -> dict[str, dict[str, Any]]:
    from made_up_datasets import RANDOM_SEEDS, chosen_cases, random_case

    return {case["name"]: case for case in (*chosen_cases(), *(random_case(seed) for seed in RANDOM_SEEDS))}


@pytest.mark.parametrize("name", json.loads(FROZEN.read_text()))
def test_made_up_data_sets_equal_nnunet(name: str) -> None:
    """Digests of nnunetv2's plans, made by `peer_plans.py`."""
    from compare_plans import plan_case
    from made_up_datasets import digest

    expected = json.loads(FROZEN.read_text())[name]
    found = digest(plan_case(made_up_cases()[name]))
    assert found["configurations"] == expected["configurations"]
    assert found["sha256"] == expected["sha256"]


def test_the_sample_holds_what_matters() -> None:
    frozen = json.loads(FROZEN.read_text())
    assert set(frozen) == set(made_up_cases())
    configurations = [set(entry["configurations"]) for entry in frozen.values()]
    assert sum("3d_cascade_fullres" in found for found in configurations) >= 10
    assert sum(found == {"2d"} for found in configurations) >= 4


@settings(deadline=None, max_examples=60)
@given(
    spacing=st.tuples(*[st.floats(0.2, 8.0)] * 3),
    shape=st.tuples(*[st.integers(4, 600)] * 3),
    planner=st.sampled_from(PLANNERS),
    labels=st.integers(2, 40),
)
def test_every_plan_is_usable(spacing: Any, shape: Any, planner: Planner, labels: int) -> None:
    plan = planner(fingerprint_of(spacing, shape), description(labels), Budget())
    assert decode_plan(json.loads(json.dumps(encode_plan(plan))), Path("x.json")) == plan
    for configuration in plan.configurations.values():
        strides = configuration.architecture.options["strides"]
        steps = [math.prod(s) for s in zip(*strides, strict=True)]
        assert all(size % step == 0 for size, step in zip(configuration.patch_size, steps, strict=True))
        assert configuration.batch_size >= 2
        assert len(strides) == configuration.architecture.options["n_stages"]


class TestTopology:
    def test_coarse_axes_wait_until_the_others_have_caught_up(self) -> None:
        found = plan_topology((4.0, 1.0, 1.0), (16, 64, 64))
        assert found.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
        assert found.kernel_sizes == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
        assert found.divisor == (4, 16, 16)

    def test_a_lone_axis_needs_three_edges(self) -> None:
        assert plan_topology((1.0, 1.0), (7, 11)).stages == 1
        assert plan_topology((1.0, 1.0), (7, 12)).strides == ((1, 1), (1, 2))

    def test_fractional_sizes_are_rounded_up(self) -> None:
        assert plan_topology((1.0, 1.0, 1.0), (35.5, 50.5, 34.0)).patch_size == (40, 56, 40)


class TestChoices:
    def test_normalizers_come_from_the_description(self) -> None:
        dataset = replace(description(), channel_names=("CT",), normalizers=("ZScoreNormalization",))
        plan = plan_default(
            replace(fingerprint_of((1, 1, 1), (50, 60, 70)), median_relative_size_after_cropping=0.5), dataset, Budget()
        )
        for configuration in plan.configurations.values():
            assert [ref.name for ref in configuration.normalization] == ["ZScoreNormalization"]
            assert configuration.use_mask_for_norm == (True,)

    def test_without_them_nnunets_rule_by_channel_name_holds(self) -> None:
        plan = plan_default(
            fingerprint_of((1, 1, 1), (50, 60, 70)), replace(description(), channel_names=("CT",)), Budget()
        )
        assert plan.configurations["2d"].normalization[0].name == "CTNormalization"


class TestRefusals:
    @pytest.mark.parametrize(
        ("budget", "told"),
        [
            (Budget(memory_gb=0), "memory of 0 GB"),
            (Budget(memory_gb=math.nan), "memory of nan GB"),
            (Budget(spacing=(1.0, 1.0)), "expected three positive numbers"),
            (Budget(spacing=(1.0, -1.0, 1.0)), "expected three positive numbers"),
            (Budget(spacing=(1.0, 1.0, 1e4)), "no voxel left"),
        ],
    )
    def test_an_unusable_budget(self, budget: Budget, told: str) -> None:
        with pytest.raises(UsageError, match=told):
            plan_default(fingerprint_of((1, 1, 1), (50, 60, 70)), description(), budget)

    def test_2d_images_do_not_become_volumes(self) -> None:
        flat = fingerprint_of((999, 1, 1), (1, 60, 70))
        with pytest.raises(UsageError, match="images are 2D"):
            plan_default(flat, description(), Budget(spacing=(3.0, 1.0, 1.0)))
        made = plan_default(flat, description(), Budget(spacing=(999.0, 2.0, 2.0)))
        assert made.configurations["2d"].median_shape == (30, 35)
        assert list(made.configurations) == ["2d"]

    def test_a_description_without_a_reader(self) -> None:
        with pytest.raises(UsageError, match="no reader is chosen"):
            plan_default(fingerprint_of((1, 1, 1), (50, 60, 70)), replace(description(), reader=None), Budget())

    def test_memory_that_holds_no_patch(self) -> None:
        with pytest.raises(DataError, match="no patch fits into the memory"):
            plan_default(fingerprint_of((1, 1, 1), (50, 60, 70)), description(), Budget(memory_gb=1e-9))

    @pytest.mark.parametrize(
        ("fingerprint", "told"),
        [
            (replace(fingerprint_of((1, 1, 1), (5, 6, 7)), spacings=(), shapes_after_crop=()), "holds no case"),
            (replace(fingerprint_of((1, 1, 1), (5, 6, 7)), channels=()), "has 0 channels, dataset.json 1"),
            (fingerprint_of((1, 0, 1), (5, 6, 7)), "expected three positive numbers each"),
            (fingerprint_of((1, 1), (6, 7)), "expected three positive numbers each"),
        ],
    )
    def test_a_fingerprint_that_does_not_fit(self, fingerprint: Fingerprint, told: str) -> None:
        with pytest.raises(DataError, match=told):
            plan_default(fingerprint, description(), Budget())


class TestCompact:
    def test_only_the_network_and_the_recipe_differ_from_the_default(self, shared: Path, real_dataset: str) -> None:
        fingerprint, dataset = described(shared, real_dataset)
        compact, full = plan_compact(fingerprint, dataset, Budget()), plan_default(fingerprint, dataset, Budget())
        assert list(compact.configurations) == list(full.configurations)
        for name, configuration in compact.configurations.items():
            default = full.configurations[name]
            same = replace(
                configuration,
                patch_size=default.patch_size,
                batch_size=default.batch_size,
                architecture=default.architecture,
            )
            assert same == default
            assert configuration.architecture.name == default.architecture.name
            assert configuration.architecture.options["features_per_stage"][0] == 16
            assert self.step_cost(configuration, dataset) <= 1.2 * STEP_COST

    @staticmethod
    def step_cost(configuration: Any, dataset: DatasetDescription) -> float:
        topology = plan_topology(configuration.spacing, configuration.patch_size)
        unet = COMPACT.unet(topology, dataset.num_channels, len(dataset.labels.values))
        return feature_map_cost(unet, configuration.patch_size) * configuration.batch_size

    def test_hippocampus(self, shared: Path) -> None:
        plan = plan_compact(*described(shared, "Dataset004_Hippocampus"), Budget())
        full = plan.configurations["3d_fullres"]
        assert (full.patch_size, full.batch_size) == ((40, 56, 40), 4)
        assert full.architecture.options["features_per_stage"] == [16, 32, 64, 128]
        assert plan.configurations["2d"].batch_size == 32
        assert plan.planner == "ExperimentPlanner"

    def test_the_recipe_is_a_trainer_with_its_settings(self, shared: Path) -> None:
        plan = plan_compact(*described(shared, "Dataset120_Nuclei"), Budget())
        recipe = plan.recipe("2d")
        assert recipe is not None
        assert recipe.name == "short"
        assert recipe.options["epochs"] * recipe.options["iterations_per_epoch"] >= 1000
        assert encode_plan(plan)["segplug"]["training"]["*"]["name"] == "short"

    def test_a_cascade_is_kept_small_too(self) -> None:
        plan = plan_compact(fingerprint_of((1.0, 0.8, 0.8), (300, 512, 512)), description(8), Budget())
        assert list(plan.configurations) == ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]
        cascade = plan.configurations["3d_cascade_fullres"]
        assert (cascade.previous_stage, cascade.inherits_from) == ("3d_lowres", "3d_fullres")
        assert cascade.patch_size == plan.configurations["3d_fullres"].patch_size
        assert encode_plan(plan)["configurations"]["3d_cascade_fullres"] == {
            "inherits_from": "3d_fullres",
            "previous_stage": "3d_lowres",
        }
        assert all(self.step_cost(c, description(8)) <= 1.2 * STEP_COST for c in plan.configurations.values())

    def test_other_spacings_have_their_own_data(self) -> None:
        plan = plan_compact(fingerprint_of((1, 1, 1), (90, 90, 90)), description(), Budget(spacing=(2.0, 1.0, 1.0)))
        assert plan.configurations["3d_fullres"].data_identifier == f"{plan.plans_name}_3d_fullres"
        assert plan.configurations["3d_fullres"].spacing == (2.0, 1.0, 1.0)

    def test_memory_is_not_what_it_plans_for(self) -> None:
        with pytest.raises(UsageError, match="leave --memory-gb out"):
            plan_compact(fingerprint_of((1, 1, 1), (90, 90, 90)), description(), Budget(memory_gb=4))


def test_architectures_have_nnunets_names() -> None:
    plan: Plan = plan_resenc_m(fingerprint_of((1, 1, 1), (90, 90, 90)), description(), Budget())
    ref = plan.configurations["3d_fullres"].architecture
    assert ref.name == "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
