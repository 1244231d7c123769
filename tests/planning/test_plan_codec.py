"""Plans files and back: nnU-Net's entries, inheritance, hand-made changes, old plans and what is segplug's own."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segplug.errors import DataError
from segplug.model import ComponentRef, Plan
from segplug.runtime.old_plans import OLD_KEYS
from segplug.runtime.plan_codec import decode_plan, encode_plan, read_plan, write_plan

SOURCE = Path("nnUNetPlans.json")


def configuration(dimensions: int = 3) -> dict[str, Any]:
    """A small configuration as nnU-Net writes it."""
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": f"nnUNetPlans_{dimensions}d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16] * dimensions,
        "median_image_size_in_voxels": [20.5] * dimensions,
        "spacing": [1.0] * dimensions,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {"n_stages": 2, "features_per_stage": [8, 16], "dropout_op": None},
            "_kw_requires_import": ["dropout_op"],
        },
        "batch_dice": True,
    }


def plans(**configurations: dict[str, Any]) -> dict[str, Any]:
    """A plans file with these configurations beside `2d` and `3d_fullres`."""
    statistics = dict.fromkeys(("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"), 1.0)
    return {
        "dataset_name": "Dataset001_X",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [3.0, 1.0, 1.0],
        "original_median_shape_after_transp": [20, 30, 40],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [1, 0, 2],
        "transpose_backward": [1, 0, 2],
        "configurations": {"2d": configuration(2), "3d_fullres": configuration(3), **configurations},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": statistics},
    }


def assert_comes_back(raw: dict[str, Any]) -> Plan:
    """Decoded and encoded again, nothing has changed: no value, no number's type, no key."""
    before = copy.deepcopy(raw)
    plan = decode_plan(raw, SOURCE)
    assert json.dumps(encode_plan(plan), sort_keys=True) == json.dumps(before, sort_keys=True)
    assert raw == before
    assert decode_plan(encode_plan(plan), SOURCE) == plan
    return plan


def test_every_reference_file_comes_back(shared: Path, tmp_path: Path) -> None:
    files = sorted((shared / "reference").rglob("*lans.json"))
    assert len(files) >= 15
    for file in files:
        assert_comes_back(json.loads(file.read_text()))
    planned = [file for file in files if "models" not in file.parts]  # the models' plans were edited by hand
    for file in planned:
        write_plan(tmp_path / file.name, read_plan(file))
        assert (tmp_path / file.name).read_text() == file.read_text()


class TestInheritance:
    def test_a_chain_is_resolved_and_written_as_it_was(self) -> None:
        raw = plans(
            bigger={"inherits_from": "3d_fullres", "batch_size": 7},
            wider={"inherits_from": "bigger", "patch_size": [32, 16, 16], "batch_dice": False},
        )
        plan = assert_comes_back(raw)
        wider = plan.configurations["wider"]
        assert (wider.batch_size, wider.patch_size, wider.batch_dice) == (7, (32, 16, 16), False)
        assert wider.architecture == plan.configurations["3d_fullres"].architecture

    def test_order_in_the_file_does_not_matter(self) -> None:
        raw = plans()
        raw["configurations"] = {"child": {"inherits_from": "2d"}, **raw["configurations"]}
        assert assert_comes_back(raw).configurations["child"].patch_size == (16, 16)

    def test_a_value_equal_to_the_parents_stays_written(self) -> None:
        raw = plans(pinned={"inherits_from": "2d", "batch_size": 2})
        plan = assert_comes_back(raw)
        parent = replace(plan.configurations["2d"], batch_size=9)
        changed = encode_plan(replace(plan, configurations={**plan.configurations, "2d": parent}))
        assert changed["configurations"]["pinned"] == {"inherits_from": "2d", "batch_size": 2}

    def test_a_circle_is_named(self) -> None:
        raw = plans(a={"inherits_from": "b"}, b={"inherits_from": "c"}, c={"inherits_from": "b"})
        with pytest.raises(DataError, match="inherits from itself: a -> b -> c -> b"):
            decode_plan(raw, SOURCE)

    def test_a_missing_parent_is_named(self) -> None:
        with pytest.raises(DataError, match=r"'a' inherits from '3d_fulres', which is not there\. There are: 2d, 3d_f"):
            decode_plan(plans(a={"inherits_from": "3d_fulres"}), SOURCE)

    def test_stages_are_inherited_and_taken_away_by_null(self) -> None:
        raw = plans(
            cascade={"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
            again={"inherits_from": "cascade"},
            alone={"inherits_from": "cascade", "previous_stage": None},
        )
        found = assert_comes_back(raw).configurations
        assert [found[n].previous_stage for n in ("cascade", "again", "alone")] == ["3d_lowres", "3d_lowres", None]

    def test_a_configuration_made_in_memory_writes_only_what_differs(self) -> None:
        plan = decode_plan(plans(), SOURCE)
        full = replace(plan.configurations["3d_fullres"], next_stage=("x",), as_written={})
        child = replace(full, name="x", inherits_from="3d_fullres", next_stage=(), previous_stage="3d_fullres")
        raw = encode_plan(replace(plan, configurations={"3d_fullres": full, "x": child}))
        assert raw["configurations"]["x"] == {
            "inherits_from": "3d_fullres",
            "previous_stage": "3d_fullres",
            "next_stage": None,
        }
        assert decode_plan(raw, SOURCE).configurations["x"] == child

    def test_a_child_made_of_a_parent_from_a_file_writes_only_what_differs(self) -> None:
        plan = decode_plan(plans(), SOURCE)
        child = replace(plan.configurations["2d"], name="x", inherits_from="2d", batch_size=5)
        raw = encode_plan(replace(plan, configurations={**plan.configurations, "x": child}))
        assert raw["configurations"]["x"] == {"inherits_from": "2d", "batch_size": 5}

    def test_writing_a_child_without_its_parent_is_an_error(self) -> None:
        plan = decode_plan(plans(a={"inherits_from": "2d"}), SOURCE)
        alone = replace(plan, configurations={"a": plan.configurations["a"]})
        with pytest.raises(DataError, match="'a' inherits from '2d'"):
            encode_plan(alone)

    @given(
        overrides=st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "batch_size": st.integers(1, 9),
                    "patch_size": st.lists(st.integers(1, 64), min_size=3, max_size=3),
                    "batch_dice": st.booleans(),
                    "next_stage": st.sampled_from(["2d", ["2d"], ["2d", "3d_fullres"], None]),
                    "previous_stage": st.sampled_from(["2d", None]),
                    "a key of mine": st.sampled_from([1, 1.0, None, [1, {"x": 2.5}]]),
                },
            ),
            max_size=4,
        )
    )
    def test_any_chain_comes_back(self, overrides: list[dict[str, Any]]) -> None:
        added, parent, expected = {}, "3d_fullres", configuration(3)
        for number, override in enumerate(overrides):
            name = f"c{number}"
            added[name] = {"inherits_from": parent, **override}
            expected, parent = {**expected, **override}, name
        found = assert_comes_back(plans(**added)).configurations[parent]
        assert found.batch_size == expected["batch_size"]
        assert found.patch_size == tuple(expected["patch_size"])
        assert found.previous_stage == expected.get("previous_stage")
        assert found.extra == {key: value for key, value in expected.items() if key == "a key of mine"}


class TestStrangeFiles:
    def test_unknown_keys_survive_everywhere(self) -> None:
        raw = plans(mine={"inherits_from": "2d", "my key": {"deep": [1, 2.0]}})
        raw["lab"] = "ours"
        raw["configurations"]["2d"]["architecture"]["hint"] = "kept"
        raw["segplug"] = {"later version": {"x": 1}}
        plan = assert_comes_back(raw)
        assert plan.extra == {"lab": "ours"}
        assert plan.segplug_extra == {"later version": {"x": 1}}

    @pytest.mark.parametrize("stage", ["3d_cascade_fullres", ["3d_cascade_fullres"], ["a", "b"], None])
    def test_next_stage_may_be_a_name_a_list_or_null(self, stage: Any) -> None:
        raw = plans()
        raw["configurations"]["3d_fullres"]["next_stage"] = stage
        found = assert_comes_back(raw).configurations["3d_fullres"].next_stage
        assert found == ((stage,) if isinstance(stage, str) else tuple(stage or ()))

    def test_early_versions_name_of_the_intensities_is_understood(self) -> None:
        raw = plans()
        early = {
            **raw,
            "foreground_intensity_properties_by_modality": raw["foreground_intensity_properties_per_channel"],
        }
        del early["foreground_intensity_properties_per_channel"]
        assert decode_plan(early, SOURCE) == decode_plan(raw, SOURCE)

    @pytest.mark.parametrize("missing", ["dataset_name", "configurations", "image_reader_writer"])
    def test_a_missing_global_entry_is_named(self, missing: str) -> None:
        raw = plans()
        del raw[missing]
        with pytest.raises(DataError, match=f"nnUNetPlans.json: .*'{missing}'"):
            decode_plan(raw, SOURCE)

    @pytest.mark.parametrize("missing", ["batch_size", "spacing", "architecture", "resampling_fn_seg", "batch_dice"])
    def test_a_missing_entry_of_a_configuration_is_named(self, missing: str) -> None:
        raw = plans()
        del raw["configurations"]["2d"][missing]
        with pytest.raises(DataError, match=f"nnUNetPlans.json: configuration '2d': .*'{missing}'"):
            decode_plan(raw, SOURCE)

    @pytest.mark.parametrize("value", [[], 3, "text", {"configurations": []}])
    def test_something_else_than_plans_is_an_error(self, value: Any) -> None:
        with pytest.raises(DataError, match=r"nnUNetPlans.json"):
            decode_plan(value, SOURCE)


class TestOldPlans:
    @staticmethod
    def old(class_name: str = "PlainConvUNet") -> dict[str, Any]:
        entry = configuration(3)
        del entry["architecture"]
        return {
            **entry,
            "UNet_class_name": class_name,
            "UNet_base_num_features": 32,
            "unet_max_num_features": 100,
            "n_conv_per_stage_encoder": [2, 2, 3],
            "n_conv_per_stage_decoder": [2, 1],
            "num_pool_per_axis": [2, 2, 1],
            "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2], [2, 2, 1]],
            "conv_kernel_sizes": [[3, 3, 3]] * 3,
        }

    def test_the_network_is_rebuilt_as_nnunet_does(self) -> None:
        plan = decode_plan(plans(old=self.old()), SOURCE)
        architecture = plan.configurations["old"].architecture
        assert architecture.name == "dynamic_network_architectures.architectures.unet.PlainConvUNet"
        assert architecture.options == {
            "n_stages": 3,
            "features_per_stage": [32, 64, 100],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * 3,
            "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 1]],
            "n_conv_per_stage": [2, 2, 3],
            "n_conv_per_stage_decoder": [2, 1],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        }
        written = encode_plan(plan)["configurations"]["old"]
        assert not set(OLD_KEYS) & set(written)
        assert decode_plan(plans(old=written), SOURCE) == plan

    def test_residual_encoders_have_blocks(self) -> None:
        architecture = (
            decode_plan(plans(old=self.old("ResidualEncoderUNet")), SOURCE).configurations["old"].architecture
        )
        assert architecture.name == "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet"
        assert architecture.options["n_blocks_per_stage"] == [2, 2, 3]

    def test_children_change_old_keys_before_the_conversion(self) -> None:
        plan = decode_plan(plans(old=self.old(), thin={"inherits_from": "old", "UNet_base_num_features": 8}), SOURCE)
        assert plan.configurations["thin"].architecture.options["features_per_stage"] == [8, 16, 32]
        assert decode_plan(encode_plan(plan), SOURCE) == plan

    def test_other_networks_cannot_be_converted(self) -> None:
        with pytest.raises(DataError, match=r"configuration 'old'.*'MyUNet'.*PlainConvUNet and ResidualEncoderUNet"):
            decode_plan(plans(old=self.old("MyUNet")), SOURCE)


class TestOwnEntries:
    def test_recipes_provenance_and_options_stand_under_one_key(self) -> None:
        plan = decode_plan(plans(child={"inherits_from": "2d", "batch_size": 3}), SOURCE)
        flat = replace(plan.configurations["2d"], normalization=(ComponentRef("ZScoreNormalization", {"clip": 3}),))
        child = replace(plan.configurations["child"], normalization=flat.normalization)
        full = replace(
            plan,
            reader=ComponentRef("SimpleITKIO", {"strict": True}),
            configurations={**plan.configurations, "2d": flat, "child": child},
            training={
                "": ComponentRef("short", {"epochs": 3, "loss": {"name": "dice_ce"}}),
                "2d": ComponentRef("nnunet"),
            },
            provenance=(
                {"kind": "readers", "name": "SimpleITKIO", "plugin": "p", "distribution": "d", "version": "1"},
            ),
        )
        raw = encode_plan(full)
        assert raw["segplug"] == {
            "training": {
                "*": {"name": "short", "options": {"epochs": 3, "loss": {"name": "dice_ce"}}},
                "2d": {"name": "nnunet", "options": {}},
            },
            "options": {"reader": {"strict": True}, "normalization": {"2d": [{"clip": 3}]}},
            "provenance": [dict(full.provenance[0])],
        }
        assert {key for key in raw if key != "segplug"} == set(plans())
        assert decode_plan(json.loads(json.dumps(raw)), SOURCE) == full
        assert full.recipe("3d_fullres") == full.training[""]

    def test_other_schemes_leave_the_parents_options_behind(self) -> None:
        raw = plans(child={"inherits_from": "2d", "normalization_schemes": ["CTNormalization"]})
        raw["segplug"] = {"options": {"normalization": {"2d": [{"clip": 3}]}}}
        found = assert_comes_back(raw).configurations
        assert found["2d"].normalization == (ComponentRef("ZScoreNormalization", {"clip": 3}),)
        assert found["child"].normalization == (ComponentRef("CTNormalization"),)

    def test_a_recipe_may_be_a_bare_name(self) -> None:
        raw = {**plans(), "segplug": {"training": {"*": "short"}}}
        assert decode_plan(raw, SOURCE).recipe("2d") == ComponentRef("short")

    def test_a_plan_without_own_entries_has_no_segplug_key(self, hippocampus_plan: Plan) -> None:
        assert "segplug" not in encode_plan(hippocampus_plan)
